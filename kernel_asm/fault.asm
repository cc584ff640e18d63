# Exceptions that nobody handles, in words.

.text

# noreturn trap_panic(struct pt_regs *regs)
# An exception or interrupt that nobody handles.
#   in        rdi = regs
trap_panic:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    cli
    mov rbx, rdi                        # rbx = regs
    xor r12d, r12d                      # r12 = CR2, where it says something
    mov eax, [rbx + pt_regs.vector]
    cmp eax, VECTOR_PAGE_FAULT
    je .Ltrap_panic_address
    cmp eax, VECTOR_DOUBLE_FAULT
    jne .Ltrap_panic_begin
    mov rdi, cr2                        # pushing an exception's frame on a full stack ends here
    call is_stack_guard
    test eax, eax
    jz .Ltrap_panic_begin
.Ltrap_panic_address:
    mov r12, cr2
.Ltrap_panic_begin:
    mov rdi, rbx
    mov rsi, r12
    call panic_begin

    # 1. a stack that is too small, a page fault, any other exception, an interrupt
    mov rdi, r12
    call is_stack_guard
    test eax, eax
    jnz .Ltrap_panic_stack
    mov esi, [rbx + pt_regs.vector]
    cmp esi, VECTOR_PAGE_FAULT
    je .Ltrap_panic_page
    cmp esi, 32
    jb .Ltrap_panic_exception
    lea rdx, [rip + panic_interrupt_format]
    call panic_message
    jmp .Ltrap_panic_report
.Ltrap_panic_stack:
    mov rsi, r12
    lea rdx, [rip + panic_stack_format]
    call panic_message
    jmp .Ltrap_panic_report
.Ltrap_panic_exception:
    lea rax, [rip + exception_names]
    mov rsi, [rax + rsi * 8]            # rsi = name
    mov rcx, [rbx + pt_regs.error_code]
    lea rdx, [rip + panic_exception_format]
    test rcx, rcx
    jz .Ltrap_panic_exception_message
    lea rdx, [rip + panic_error_code_format]
.Ltrap_panic_exception_message:
    call panic_message
    jmp .Ltrap_panic_report

    # 2. a page fault in words
.Ltrap_panic_page:
    mov eax, [rbx + pt_regs.error_code]
    lea rsi, [rip + fault_read]         # rsi = what was tried
    lea r8, [rip + fault_forbidden]     # r8 = why it failed
    test eax, FAULT_WRITE
    jz .Ltrap_panic_fetch
    lea rsi, [rip + fault_write]
    lea r8, [rip + fault_read_only]
.Ltrap_panic_fetch:
    test eax, FAULT_FETCH
    jz .Ltrap_panic_reserved
    lea rsi, [rip + fault_fetch]
    lea r8, [rip + fault_no_execution]
.Ltrap_panic_reserved:
    test eax, FAULT_RESERVED
    jz .Ltrap_panic_present
    lea r8, [rip + fault_reserved]
.Ltrap_panic_present:
    test eax, FAULT_PROTECTION
    jnz .Ltrap_panic_page_message
    lea r8, [rip + fault_not_present]
.Ltrap_panic_page_message:
    mov rcx, r12
    lea rdx, [rip + panic_page_format]
    call panic_message
.Ltrap_panic_report:
    mov rdi, rbx
    call panic_report

# int is_stack_guard(u64 address)
# Whether an address lies in a stack's slot where no page is mapped: the stack has overflown.
#   in        rdi = address
#   out       eax = 1 or 0
#   clobbers  rcx rdx rsi rdi r8
is_stack_guard:
    call is_in_stacks
    jae .Lis_stack_guard_not
    push rbp
    mov rbp, rsp
    call walk_page
    pop rbp
    test rax, rax
    setz al
    movzx eax, al
    ret
.Lis_stack_guard_not:
    xor eax, eax
    ret

.rodata
panic_interrupt_format: .asciz "interrupt %u, which nobody handles"
panic_stack_format:     .asciz "kernel stack overflow at 0x%016lx"
panic_exception_format: .asciz "%s"
panic_error_code_format: .asciz "%s, error code 0x%lx"
panic_page_format:      .asciz "page fault: %s 0x%016lx: %s"

fault_read:             .asciz "read from"
fault_write:            .asciz "write to"
fault_fetch:            .asciz "instruction fetch from"
fault_not_present:      .asciz "page not present"
fault_read_only:        .asciz "page is read-only"
fault_no_execution:     .asciz "page is not executable"
fault_reserved:         .asciz "page-table entry has a reserved bit set"
fault_forbidden:        .asciz "access is forbidden"

exception_divide_error:             .asciz "divide error"
exception_debug:                    .asciz "debug"
exception_non_maskable_interrupt:   .asciz "non-maskable interrupt"
exception_breakpoint:               .asciz "breakpoint"
exception_overflow:                 .asciz "overflow"
exception_bound_range_exceeded:     .asciz "bound range exceeded"
exception_invalid_opcode:           .asciz "invalid opcode"
exception_device_not_available:     .asciz "device not available"
exception_double_fault:             .asciz "double fault"
exception_reserved:                 .asciz "reserved"
exception_invalid_tss:              .asciz "invalid TSS"
exception_segment_not_present:      .asciz "segment not present"
exception_stack_segment_fault:      .asciz "stack-segment fault"
exception_general_protection:       .asciz "general protection"
exception_page_fault:               .asciz "page fault"
exception_x87_floating_point_error: .asciz "x87 floating-point error"
exception_alignment_check:          .asciz "alignment check"
exception_machine_check:            .asciz "machine check"
exception_simd_floating_point_error:.asciz "SIMD floating-point error"
exception_virtualization_exception: .asciz "virtualization exception"
exception_control_protection:       .asciz "control protection"
exception_hypervisor_injection:     .asciz "hypervisor injection"
exception_vmm_communication:        .asciz "VMM communication"
exception_security_exception:       .asciz "security exception"

# The name of each vector below 32 (SDM 6.3.1).
.p2align 3
exception_names:
    .quad exception_divide_error, exception_debug
    .quad exception_non_maskable_interrupt, exception_breakpoint
    .quad exception_overflow, exception_bound_range_exceeded
    .quad exception_invalid_opcode, exception_device_not_available
    .quad exception_double_fault, exception_reserved
    .quad exception_invalid_tss, exception_segment_not_present
    .quad exception_stack_segment_fault, exception_general_protection
    .quad exception_page_fault, exception_reserved
    .quad exception_x87_floating_point_error, exception_alignment_check
    .quad exception_machine_check, exception_simd_floating_point_error
    .quad exception_virtualization_exception, exception_control_protection
    .quad exception_reserved, exception_reserved
    .quad exception_reserved, exception_reserved
    .quad exception_reserved, exception_reserved
    .quad exception_hypervisor_injection, exception_vmm_communication
    .quad exception_security_exception, exception_reserved
