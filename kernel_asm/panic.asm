# The end: panic(), and what it shares with the exceptions that nobody handles (fault.asm).
.set BACKTRACE_MAX, 32                  # frames
.set PANIC_COLUMNS, 3                   # registers on a line
.set STACKS, 4                          # slots from STACKS_BASE on: the boot CPU's stack and three for IST

.text

# noreturn panic(const char *format, ...)
# The kernel's state is wrong: say why and where, and stop. May be called from anywhere, with any lock held.
#   in        rdi = format, rsi rdx rcx r8 r9 and the stack = arguments
panic:
    gather_arguments

    # 1. struct pt_regs, as if the call had been an exception: every register as the caller has it
    #
    #   rsp + 48     the caller's stack, 7th argument
    #   rsp + 8      arguments 2 to 6
    #   rsp          return address
    push KERNEL_DS
    push rsp                            # pt_regs.rsp, corrected below
    pushfq
    cli
    add qword ptr [rsp + 8], GATHERED + 16
    push KERNEL_CS
    push qword ptr [rsp + 32]           # pt_regs.rip = return address
    push 0
    push PANIC_VECTOR
    save_registers
    cld
    mov rbx, rdi                        # rbx = format
    mov r12, rsp                        # r12 = pt_regs
    lea r13, [rsp + sizeof.pt_regs + 8] # r13 = arguments

    # 2. the record, then the message
    mov rdi, r12
    xor esi, esi
    call panic_begin
    mov rdx, rbx
    mov rcx, r13
    call panic_message_from_array
    mov rdi, r12
    call panic_report

# void panic_begin(struct pt_regs *regs, u64 address)
# Fill panic_info. A panic inside a panic ends at once: only what is certain to work is used.
#   in        rdi = regs, rsi = address
#   clobbers  rax rcx rdx rsi rdi r8
panic_begin:
    push rbp
    mov rbp, rsp
    lea rcx, [rip + panic_info]
    bts qword ptr [rcx + panic_record.active], 0
    jc .Lpanic_begin_again
    mov [rcx + panic_record.regs], rdi
    mov [rcx + panic_record.address], rsi
    mov rax, [rdi + pt_regs.vector]
    mov [rcx + panic_record.vector], rax
    mov dword ptr [rip + console_lock], 0       # whoever holds it will never go on
    pop rbp
    ret
.Lpanic_begin_again:
    lea rdi, [rip + panic_again]
    call strlen
    mov rsi, rax
    call serial_write
    mov edi, EXIT_PANIC
    call debug_exit

# panic_message: format panic_info.message; panic_message_from_array has its arguments in memory.
#   in        rdx = format, rsi rcx r8 = arguments; or rdx = format, rcx = array of arguments
#   clobbers  rax rcx rdx rsi rdi r8-r11
panic_message:
    push rbp
    mov rbp, rsp
    sub rsp, 32                         # the array
    mov [rsp], rsi
    mov [rsp + 8], rcx
    mov [rsp + 16], r8
    mov rcx, rsp
    call panic_message_from_array
    leave
    ret
panic_message_from_array:
    lea rdi, [rip + panic_info + panic_record.message]
    mov esi, sizeof.panic_record.message
    jmp vsnprintf

# noreturn panic_report(struct pt_regs *regs)
# Print what panic_info says, the registers and a backtrace, and leave the machine.
#   in        rdi = regs
panic_report:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = regs
    call serial_fresh_line
    lea rdi, [rip + panic_message_format]
    lea rsi, [rip + panic_info + panic_record.message]
    call kprintf

    # 1. registers
    lea r12, [rip + panic_registers]    # r12 = row of the table
    mov r13d, PANIC_COLUMNS             # r13 = registers that still fit on the line
.Lpanic_report_register:
    mov rax, [r12]
    mov rdx, [rbx + rax]
    cmp rax, pt_regs.rflags
    jne .Lpanic_report_value
    btr rdx, RFLAGS_RF_BIT              # some processors set it in a fault's frame, some emulators do not
.Lpanic_report_value:
    lea rsi, [r12 + 8]
    lea rdi, [rip + panic_register_format]
    dec r13d
    jnz .Lpanic_report_print
    lea rdi, [rip + panic_last_register_format]
    mov r13d, PANIC_COLUMNS
.Lpanic_report_print:
    call kprintf
    add r12, 16
    lea rax, [rip + panic_registers_end]
    cmp r12, rax
    jb .Lpanic_report_register

    # 2. return addresses, as long as the frames make sense: higher and higher on one mapped stack. Those that repeat,
    #    as a recursion's do, are counted.
    xor r14d, r14d
    dec r14                             # r14 = the address that was printed last, none yet
    xor r15d, r15d                      # r15 = how often it has come again
    lea rdi, [rip + panic_backtrace_format]
    call kprintf
    mov rsi, [rbx + pt_regs.rip]
    mov r12, [rbx + pt_regs.rbp]        # r12 = frame
    mov r13d, BACKTRACE_MAX             # r13 = frames that may still be printed
    lea rcx, [rip + panic_info]
    cmp rsi, [rcx + panic_record.address]
    jne .Lpanic_report_frame
    call panic_print_frame              # a jump to nowhere; if it was a call, its return address is on top
    mov rdi, [rbx + pt_regs.rsp]
    call is_stack
    test eax, eax
    jz .Lpanic_report_exit
    mov rsi, [rbx + pt_regs.rsp]
    mov rsi, [rsi]
.Lpanic_report_frame:
    call panic_print_frame
    test r13d, r13d
    jz .Lpanic_report_cut
    mov rdi, r12
    call is_stack
    test eax, eax
    jz .Lpanic_report_exit
    lea rdi, [r12 + 8]
    call is_stack
    test eax, eax
    jz .Lpanic_report_exit
    mov rsi, [r12 + 8]
    mov rax, [r12]
    cmp rax, r12
    mov r12, rax
    ja .Lpanic_report_frame
    call panic_print_frame              # the last frame: 0 ends the chain, anything else breaks it
.Lpanic_report_exit:
    call panic_print_repeats
    mov edi, EXIT_PANIC
    call debug_exit
.Lpanic_report_cut:
    lea rdi, [rip + panic_cut_format]
    call kprintf
    jmp .Lpanic_report_exit

# panic_print_frame: a line of the backtrace, unless it is the same as the last one.
#   in        rsi = return address; r13 r14 r15 as panic_report has them
panic_print_frame:
    cmp rsi, r14
    jne .Lpanic_print_frame_new
    inc r15d
    ret
.Lpanic_print_frame_new:
    push rbp
    mov rbp, rsp
    mov r14, rsi
    call panic_print_repeats
    lea rdi, [rip + panic_frame_format]
    mov rsi, r14
    call kprintf
    dec r13d
    pop rbp
    ret

# panic_print_repeats: how often the last line has come again, if it has.
panic_print_repeats:
    push rbp
    mov rbp, rsp
    test r15d, r15d
    jz .Lpanic_print_repeats_out
    lea rdi, [rip + panic_repeats_format]
    mov esi, r15d
    call kprintf
    xor r15d, r15d
.Lpanic_print_repeats_out:
    pop rbp
    ret

# int is_stack(u64 address)
# Whether an aligned u64 of a kernel stack lies there, one that can be read.
#   in        rdi = address
#   out       eax = 1 or 0
#   clobbers  rcx rdx rsi rdi r8
is_stack:
    test dil, 7
    jnz .Lis_stack_not
    call is_in_stacks
    jae .Lis_stack_not
    push rbp
    mov rbp, rsp
    call walk_page
    pop rbp
    test rax, rax
    setnz al
    movzx eax, al
    ret
.Lis_stack_not:
    xor eax, eax
    ret

# is_in_stacks: CF = 1 when rdi lies in the slots of the stacks. Clobbers rax rcx.
is_in_stacks:
    mov rax, STACKS_BASE
    mov rcx, rdi
    sub rcx, rax
    cmp rcx, STACKS * STACK_SLOT
    ret

.rodata
panic_message_format:   .asciz "kernel panic: %s\n"
panic_register_format:  .asciz "%-6s 0x%016lx  "
panic_last_register_format: .asciz "%-6s 0x%016lx\n"
panic_backtrace_format: .asciz "backtrace:\n"
panic_frame_format:     .asciz "  0x%016lx\n"
panic_repeats_format:   .asciz "  ... %u more like this\n"
panic_cut_format:       .asciz "  ... and more\n"
panic_again:            .asciz "\nkernel panic: a panic inside a panic\n"

# Rows of 16 bytes: offset in pt_regs, name.
.p2align 3
panic_registers:
.irp name, rip, rsp, rflags, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    .quad pt_regs.\name
    .asciz "\name"
    .p2align 3
.endr
panic_registers_end:

.bss
.p2align 3
# struct panic_record panic_info
panic_info:
    .zero sizeof.panic_record
