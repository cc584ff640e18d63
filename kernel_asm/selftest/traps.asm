# Tests of traps.asm, and the handlers that other tests use too. Each handler is int handler(struct pt_regs *regs).

.text

    test_case "a breakpoint reaches its handler and returns behind it", test_breakpoint
test_breakpoint:
    push rbp
    mov rbp, rsp
    mov qword ptr [rip + selftest_hits], 0
    mov edi, VECTOR_BREAKPOINT
    lea rsi, [rip + selftest_count_trap]
    call set_trap_handler
    test rax, rax
    expect z, "there was no handler before"
    stc                                 # flags survive a trap
    int3
    expect c, "the flags come back"
    int3
    cmp qword ptr [rip + selftest_hits], 2
    expect e, "the handler ran twice"
    mov edi, VECTOR_BREAKPOINT
    xor esi, esi
    call set_trap_handler
    lea rcx, [rip + selftest_count_trap]
    cmp rax, rcx
    expect e, "set_trap_handler returns the previous handler"
    pop rbp
    ret

    test_case "a handler may skip an invalid instruction", test_invalid_opcode
test_invalid_opcode:
    push rbp
    mov rbp, rsp
    mov qword ptr [rip + selftest_hits], 0
    mov edi, VECTOR_INVALID_OPCODE
    lea rsi, [rip + selftest_skip_ud2]
    call set_trap_handler
    mov ecx, 3                          # rcx survives
.Ltest_invalid_opcode_again:
    ud2
    dec ecx
    jnz .Ltest_invalid_opcode_again
    cmp qword ptr [rip + selftest_hits], 3
    expect e, "the handler ran three times"
    pop rbp
    ret

    test_case "every general register survives a trap", test_registers
test_registers:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov edi, VECTOR_BREAKPOINT
    lea rsi, [rip + selftest_destroy_registers]
    call set_trap_handler
    mov rax, 0x1011121314151617
    mov rbx, rax
    mov rcx, rax
    mov rdx, rax
    mov rsi, rax
    mov rdi, rax
    mov r8, rax
    mov r9, rax
    mov r10, rax
    mov r11, rax
    mov r12, rax
    mov r13, rax
    mov r14, rax
    mov r15, rax
    int3
    cmp rcx, rax
    expect e, "rcx and rax survive"
    cmp rdx, rax
    expect e, "rdx survives"
    cmp rbx, rax
    expect e, "rbx survives"
    cmp rsi, rax
    expect e, "rsi survives"
    cmp rdi, rax
    expect e, "rdi survives"
    cmp r8, rax
    expect e, "r8 survives"
    cmp r9, rax
    expect e, "r9 survives"
    cmp r10, rax
    expect e, "r10 survives"
    cmp r11, rax
    expect e, "r11 survives"
    cmp r12, rax
    expect e, "r12 survives"
    cmp r13, rax
    expect e, "r13 survives"
    cmp r14, rax
    expect e, "r14 survives"
    cmp r15, rax
    expect e, "r15 survives"
    mov rcx, 0x1011121314151617
    cmp rax, rcx
    expect e, "the value is the one from before"
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "dividing by zero and a non-canonical address are caught", test_faults
test_faults:
    push rbp
    mov rbp, rsp
    xor edi, edi
    lea rsi, [rip + selftest_recover]
    call set_trap_handler
    mov edi, 13
    lea rsi, [rip + selftest_recover]
    call set_trap_handler
    mov qword ptr [rip + selftest_hits], 0
    lea rax, [rip + .Ltest_faults_divide]
    mov [rip + selftest_recovery], rax
    xor ecx, ecx
    div ecx
.Ltest_faults_divide:
    cmp qword ptr [rip + selftest_hits], 1
    expect e, "a divide error"
    lea rax, [rip + .Ltest_faults_canonical]
    mov [rip + selftest_recovery], rax
    mov rax, 0x0001000000000000
    mov rax, [rax]
.Ltest_faults_canonical:
    cmp qword ptr [rip + selftest_hits], 2
    expect e, "a general protection fault"
    cmp qword ptr [rip + selftest_error_code], 0
    expect e, "its error code is 0"
    pop rbp
    ret

selftest_count_trap:
    inc qword ptr [rip + selftest_hits]
    mov eax, 1
    ret

selftest_skip_ud2:
    inc qword ptr [rip + selftest_hits]
    add qword ptr [rdi + pt_regs.rip], 2
    mov eax, 1
    ret

# Overwrite everything that a C function may.
selftest_destroy_registers:
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    mov eax, 1
    ret

# Go on at selftest_recovery.
selftest_recover:
    inc qword ptr [rip + selftest_hits]
    mov rax, [rdi + pt_regs.error_code]
    mov [rip + selftest_error_code], rax
    mov rax, cr2
    mov [rip + selftest_address], rax
    mov rax, [rip + selftest_recovery]
    mov [rdi + pt_regs.rip], rax
    mov eax, 1
    ret

.bss
.p2align 3
selftest_hits:       .zero 8            # how often a handler ran
selftest_error_code: .zero 8            # the last one
selftest_address:    .zero 8            # CR2 then
selftest_recovery:   .zero 8            # where selftest_recover goes on
