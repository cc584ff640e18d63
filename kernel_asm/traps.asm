# Traps: the IDT, a stub for each of its 256 gates, and the one way in and out.
#
# The processor pushes ss rsp rflags rip... and, for some exceptions, an error code. A stub makes that uniform and
# adds its vector; trap_entry pushes the registers and a frame, so that a backtrace walks through an interrupt as
# through a call:
#
#   rbp      the interrupted rbp            a frame like any function's:
#   rbp + 8  the interrupted rip            the caller is the interrupted code
#   rbp + 16 struct pt_regs                 what handlers get, read and may change
#
# Exceptions, interrupts and nested ones all use the stack that they interrupt; the double fault, NMI and machine
# check have stacks of their own (IST), because the current one may be what is broken.

# A row of critical_sections: code that an interrupt sends back to its start, as if it had not begun.
.set critical_section.start, 0          # address of the first instruction
.set critical_section.end, 8            # address behind the last
.set critical_section.restart, 16       # where it begins again
.set sizeof.critical_section, 24

# An interrupt gate (SDM 6.14.1).
.set gate.offset_low, 0
.set gate.selector, 2
.set gate.ist, 4
.set gate.attributes, 5
.set gate.offset_middle, 6
.set gate.offset_high, 8
.set sizeof.gate, 16
.set GATE_INTERRUPT, 0x8e               # present, ring 0, interrupts off on entry

.set STUB_SHIFT, 4                      # log2 of a stub's bytes
.set ERROR_CODE_VECTORS, 0x60227d00     # a bit for each exception that pushes an error code
.set PT_REGS, 16                        # struct pt_regs, from trap_entry's rbp

.text

# void traps_init(void)
# Fill the IDT and load it.
#   clobbers  rax rcx rdx rdi
traps_init:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + idt]                # rdi = gate
    lea rdx, [rip + trap_stubs]         # rdx = its stub
    mov ecx, VECTORS
.Ltraps_init_gate:
    mov rax, rdx
    mov [rdi + gate.offset_low], ax
    mov word ptr [rdi + gate.selector], KERNEL_CS
    mov byte ptr [rdi + gate.attributes], GATE_INTERRUPT
    shr rax, 16
    mov [rdi + gate.offset_middle], ax
    shr rax, 16
    mov [rdi + gate.offset_high], eax
    add rdi, sizeof.gate
    add rdx, 1 << STUB_SHIFT
    dec ecx
    jnz .Ltraps_init_gate

    lea rdi, [rip + idt]
    mov byte ptr [rdi + VECTOR_DOUBLE_FAULT * sizeof.gate + gate.ist], IST_DOUBLE_FAULT
    mov byte ptr [rdi + VECTOR_NMI * sizeof.gate + gate.ist], IST_NMI
    mov byte ptr [rdi + VECTOR_MACHINE_CHECK * sizeof.gate + gate.ist], IST_MACHINE_CHECK

    sub rsp, 16
    mov word ptr [rsp + 6], VECTORS * sizeof.gate - 1
    mov [rsp + 8], rdi
    lidt [rsp + 6]
    add rsp, 16
    pop rbp
    ret

# trap_handler *set_trap_handler(unsigned vector, trap_handler *handler)
# From now on, int handler(struct pt_regs *) is called for a vector. It returns nonzero when the trap is dealt with and
# the interrupted code may go on (from pt_regs.rip, which it may change); 0 makes the kernel panic. It runs with
# interrupts off, and may turn them on.
#   in        edi = vector, rsi = handler, or 0 for none
#   out       rax = the previous handler, or 0
#   clobbers  edi
set_trap_handler:
    push rbp
    mov rbp, rsp
    cmp edi, VECTORS
    jae .Lset_trap_handler_vector
    mov edi, edi
    lea rax, [rip + trap_handlers]
    lea rdi, [rax + rdi * 8]            # rdi = the vector's entry
    mov rax, rsi
    xchg rax, [rdi]                     # rax = previous handler
    pop rbp
    ret
.Lset_trap_handler_vector:
    mov esi, edi
    lea rdi, [rip + trap_vector_format]
    call panic

# The stubs, one for each vector, at trap_stubs + (vector << STUB_SHIFT).
.p2align STUB_SHIFT, 0xcc
trap_stubs:
.set trap_vector, 0
.rept VECTORS
    .if trap_vector >= 32 || ((ERROR_CODE_VECTORS >> (trap_vector & 31)) & 1) == 0
    push 0                              # pt_regs.error_code
    .endif
    push trap_vector                    # pt_regs.vector
    jmp trap_entry
    .p2align STUB_SHIFT, 0xcc
    .set trap_vector, trap_vector + 1
.endr

# Every trap comes here, with struct pt_regs on the stack but for the general registers.
trap_entry:
    # 1. the rest of pt_regs, and a frame; rsp is a multiple of 16 from here on
    save_registers
    push qword ptr [rsp + pt_regs.rip]
    push rbp
    mov rbp, rsp
    cld
    inc qword ptr gs:[percpu.interrupts]
    inc dword ptr gs:[percpu.interrupt_depth]

    # 2. an exception goes to its handler; an IRQ does too, unless it is no real one, and is then acknowledged
    lea rdi, [rbp + PT_REGS]
    mov eax, [rdi + pt_regs.vector]
    sub eax, IRQ_BASE                   # eax = number of the IRQ
    cmp eax, IRQS
    jb .Ltrap_irq
    call trap_handle
    jmp trap_return
.Ltrap_irq:
    mov edi, eax
    call irq_is_spurious
    test eax, eax
    jnz trap_return
    lea rdi, [rbp + PT_REGS]
    call trap_handle
    mov edi, [rbp + PT_REGS + pt_regs.vector]
    sub edi, IRQ_BASE
    call irq_acknowledge

# Every trap that was handled leaves here.
trap_return:
    cli                                 # a handler may have turned interrupts on

    # 1. a critical section that was interrupted begins again
    mov rax, [rbp + PT_REGS + pt_regs.rip]
    lea rcx, [rip + critical_sections]  # rcx = section
    lea rdx, [rip + critical_sections_end]
.Ltrap_section:
    cmp rcx, rdx
    jae .Ltrap_leave
    mov rsi, rax
    sub rsi, [rcx + critical_section.start]
    mov rdi, [rcx + critical_section.end]
    sub rdi, [rcx + critical_section.start]
    cmp rsi, rdi                        # one unsigned comparison: start <= rip < end
    jb .Ltrap_restart
    add rcx, sizeof.critical_section
    jmp .Ltrap_section
.Ltrap_restart:
    mov rax, [rcx + critical_section.restart]
    mov [rbp + PT_REGS + pt_regs.rip], rax
    inc qword ptr gs:[percpu.restarts]

    # 2. back to what was interrupted
.Ltrap_leave:
    dec dword ptr gs:[percpu.interrupt_depth]
    lea rsp, [rbp + PT_REGS]
    restore_registers
    add rsp, 16                         # vector and error code
    iretq

# void trap_handle(struct pt_regs *regs)
# Call the handler of the trap's vector; panic when there is none, or when it declines.
#   in        rdi = regs
#   clobbers  rax rcx rdx rsi rdi r8-r11
trap_handle:
    push rbp
    mov rbp, rsp
    push rdi
    sub rsp, 8
    mov ecx, [rdi + pt_regs.vector]
    lea rax, [rip + trap_handlers]
    mov rax, [rax + rcx * 8]            # rax = handler
    test rax, rax
    jz .Ltrap_unhandled
    call rax
    test eax, eax
    jz .Ltrap_unhandled
    leave
    ret
.Ltrap_unhandled:
    mov rdi, [rbp + -8]
    call trap_panic

.rodata
trap_vector_format:
    .asciz "set_trap_handler: there is no vector %u"

.bss
.p2align PAGE_SHIFT
idt:
    .zero VECTORS * sizeof.gate

# int (*trap_handlers[VECTORS])(struct pt_regs *)
trap_handlers:
    .zero VECTORS * 8
