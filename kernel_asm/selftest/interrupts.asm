# Tests of timer.asm, spinlock.asm and the CPU's own data.

.text

    test_case "the timer ticks while the processor waits", test_ticks
test_ticks:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rax, [rip + boot_params]
    cmp dword ptr [rax + boot_info.hz], 0
    je .Ltest_ticks_done                # a machine without ticks was asked for
    call timer_ticks
    lea rbx, [rax + 3]                  # rbx = when to stop
.Ltest_ticks_wait:
    hlt
    call timer_ticks
    cmp rax, rbx
    jb .Ltest_ticks_wait
    pushfq
    pop rax
    test eax, RFLAGS_IF
    expect nz, "interrupts are on"
.Ltest_ticks_done:
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "an interrupt is served inside an exception handler", test_nested_interrupt
test_nested_interrupt:
    push rbp
    mov rbp, rsp
    mov rax, [rip + boot_params]
    cmp dword ptr [rax + boot_info.hz], 0
    je .Ltest_nested_interrupt_done
    mov qword ptr [rip + selftest_hits], 0
    mov edi, VECTOR_BREAKPOINT
    lea rsi, [rip + selftest_wait_for_tick]
    call set_trap_handler
    int3
    cmp qword ptr [rip + selftest_hits], 1
    expect e, "the handler came to its end"
    mov ecx, dword ptr gs:[percpu.interrupt_depth]
    test ecx, ecx
    expect z, "no interrupt is open any more"
.Ltest_nested_interrupt_done:
    pop rbp
    ret

    test_case "spinlocks turn interrupts off and back", test_spinlock
test_spinlock:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    lea rdi, [rip + selftest_lock]
    call spin_lock_irqsave
    mov rbx, rax                        # rbx = flags
    lea rcx, [rip + selftest_lock]
    cmp rdi, rcx
    expect e, "rdi is kept"
    cmp dword ptr [rcx], 1
    expect e, "the lock is taken"
    test ebx, RFLAGS_IF
    expect nz, "interrupts were on"
    pushfq
    pop rax
    test eax, RFLAGS_IF
    expect z, "interrupts are off"

    lea rdi, [rip + selftest_other_lock]        # a lock inside a lock leaves them off
    call spin_lock_irqsave
    lea rdi, [rip + selftest_other_lock]
    mov rsi, rax
    call spin_unlock_irqrestore
    pushfq
    pop rax
    test eax, RFLAGS_IF
    expect z, "interrupts are still off"

    lea rdi, [rip + selftest_lock]
    mov rsi, rbx
    call spin_unlock_irqrestore
    cmp dword ptr [rdi], 0
    expect e, "the lock is free"
    pushfq
    pop rax
    test eax, RFLAGS_IF
    expect nz, "interrupts are on again"
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "GS points at this CPU's data", test_percpu
test_percpu:
    push rbp
    mov rbp, rsp
    mov rcx, qword ptr gs:[percpu.self]
    lea rdx, [rip + boot_cpu]
    cmp rcx, rdx
    expect e, "percpu.self is boot_cpu"
    mov ecx, dword ptr gs:[percpu.cpu]
    test ecx, ecx
    expect z, "it is CPU 0"
    pop rbp
    ret

# Interrupts on, until the next tick.
selftest_wait_for_tick:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    sti
    call timer_ticks
    mov rbx, rax
.Lselftest_wait_for_tick_next:
    hlt
    call timer_ticks
    cmp rax, rbx
    je .Lselftest_wait_for_tick_next
    inc qword ptr [rip + selftest_hits]
    mov eax, 1
    pop r12
    pop rbx
    pop rbp
    ret

.bss
.p2align 2
selftest_lock:       .zero 4
selftest_other_lock: .zero 4
