# Tests of vm.asm, traps.asm, timer.asm and spinlock.asm.

# Virtual memory that nothing else uses.
.set SELFTEST_PAGES, 0xffffd00000000000
.set SELFTEST_NESTING, 5

.text

    test_case "map_page makes a page reachable at a second address", test_map_page
test_map_page:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    xor edi, edi
    call get_free_pages
    test rax, rax
    expect nz, "there is a free page"
    mov rbx, rax                        # rbx = page in the direct map
    mov r12, SELFTEST_PAGES             # r12 = the second address
    mov r13, DIRECT_MAP
    neg r13
    add r13, rbx                        # r13 = its physical address
    mov rdi, r12
    call walk_page
    test rax, rax
    expect z, "nothing is mapped there yet"
    mov rdi, r12
    mov rsi, r13
    mov edx, PTE_WRITE
    call map_page
    test rax, rax
    expect z, "the page can be mapped"
    mov dword ptr [r12 + 12], 0x12345678
    cmp dword ptr [rbx + 12], 0x12345678
    expect e, "both addresses show the same bytes"
    mov rdi, r12
    call walk_page
    test rax, rax
    expect nz, "the walk finds its entry"
    mov rcx, PTE_ADDRESS
    and rcx, [rax]
    cmp rcx, r13
    expect e, "the entry holds the physical address"

    mov rdi, r12
    mov rsi, r13
    mov edx, PTE_WRITE
    call map_page
    add rax, EEXIST
    expect z, "a second mapping gives -EEXIST"
    lea rdi, [r12 + 1]
    mov rsi, r13
    mov edx, PTE_WRITE
    call map_page
    add rax, EINVAL
    expect z, "an address inside a page gives -EINVAL"
    lea rdi, [r12 + PAGE_SIZE]
    lea rsi, [r13 + 1]
    mov edx, PTE_WRITE
    call map_page
    add rax, EINVAL
    expect z, "a physical address inside a page gives -EINVAL"
    mov rdi, 0x0000800000000000
    mov rsi, r13
    mov edx, PTE_WRITE
    call map_page
    add rax, EINVAL
    expect z, "a non-canonical address gives -EINVAL"
    mov rdi, DIRECT_MAP + 0x400000
    mov rsi, r13
    mov edx, PTE_WRITE
    call map_page
    add rax, EEXIST
    expect z, "inside a large page, -EEXIST"

    mov rdi, r12
    call unmap_page
    cmp rax, r13
    expect e, "unmap_page gives the physical address"
    mov rdi, r12
    call walk_page
    test rax, rax
    expect z, "nothing is mapped there any more"
    mov rdi, r12
    call unmap_page
    add rax, EFAULT
    expect z, "a second unmap_page gives -EFAULT"
    mov rdi, rbx
    xor esi, esi
    call free_pages
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

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

    test_case "a page fault is repaired by mapping the page", test_page_fault
test_page_fault:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov qword ptr [rip + selftest_hits], 0
    mov qword ptr [rip + selftest_depth], SELFTEST_NESTING      # no fault inside the handler
    mov edi, VECTOR_PAGE_FAULT
    lea rsi, [rip + selftest_map_on_demand]
    call set_trap_handler
    mov rbx, SELFTEST_PAGES + 0x10000
    mov dword ptr [rbx + 64], 0x600df00d
    cmp dword ptr [rbx + 64], 0x600df00d
    expect e, "the store was repeated after the handler"
    cmp qword ptr [rip + selftest_hits], 1
    expect e, "there was one fault"
    cmp qword ptr [rip + selftest_error_code], FAULT_WRITE
    expect e, "its error code says: a write, not present"
    lea rcx, [rbx + 64]
    cmp rcx, [rip + selftest_address]
    expect e, "CR2 is the address of the store"
    mov rdi, rbx
    call selftest_unmap
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "five page faults nest", test_nested_faults
test_nested_faults:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov qword ptr [rip + selftest_hits], 0
    mov qword ptr [rip + selftest_depth], 0
    mov edi, VECTOR_PAGE_FAULT
    lea rsi, [rip + selftest_map_on_demand]
    call set_trap_handler
    mov rbx, SELFTEST_PAGES + 0x20000
    mov byte ptr [rbx], 1
    cmp qword ptr [rip + selftest_hits], SELFTEST_NESTING
    expect e, "there were five faults"
    cmp qword ptr [rip + selftest_depth], SELFTEST_NESTING
    expect e, "each inside the one before"
    mov ecx, dword ptr gs:[percpu.interrupt_depth]
    test ecx, ecx
    expect z, "none is open any more"
    xor r12d, r12d                      # r12 = page
.Ltest_nested_faults_page:
    mov rdi, rbx
    call selftest_unmap
    add rbx, PAGE_SIZE
    inc r12d
    cmp r12d, SELFTEST_NESTING
    jb .Ltest_nested_faults_page
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "kernel text and read-only data cannot be written", test_read_only
test_read_only:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, VECTOR_PAGE_FAULT
    lea rsi, [rip + selftest_recover]
    call set_trap_handler
    lea rbx, [rip + memset]
    lea rax, [rip + .Ltest_read_only_text]
    mov [rip + selftest_recovery], rax
    mov byte ptr [rbx], 0
    stc
    expect nc, "writing to the text faults"
.Ltest_read_only_text:
    cmp qword ptr [rip + selftest_error_code], FAULT_WRITE | FAULT_PROTECTION
    expect e, "its error code says: a write, forbidden"
    lea rax, [rip + .Ltest_read_only_alias]
    mov [rip + selftest_recovery], rax
    mov rdi, rbx
    call walk_page
    mov rcx, PTE_ADDRESS
    and rcx, [rax]
    mov rax, DIRECT_MAP
    mov byte ptr [rcx + rax], 0
    stc
    expect nc, "writing to its alias in the direct map faults"
.Ltest_read_only_alias:
    cmp qword ptr [rip + selftest_error_code], FAULT_WRITE | FAULT_PROTECTION
    expect e, "the alias is read-only, too"
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "data cannot be executed", test_no_execution
test_no_execution:
    push rbp
    mov rbp, rsp
    mov edi, VECTOR_PAGE_FAULT
    lea rsi, [rip + selftest_recover]
    call set_trap_handler
    lea rax, [rip + .Ltest_no_execution_back]
    mov [rip + selftest_recovery], rax
    lea rax, [rip + selftest_buffer]
    jmp rax
.Ltest_no_execution_back:
    cmp qword ptr [rip + selftest_error_code], FAULT_FETCH | FAULT_PROTECTION
    expect e, "its error code says: a fetch, forbidden"
    lea rax, [rip + selftest_buffer]
    cmp rax, [rip + selftest_address]
    expect e, "CR2 is the address of the data"
    pop rbp
    ret

    test_case "address 0 is not mapped", test_null
test_null:
    push rbp
    mov rbp, rsp
    mov edi, VECTOR_PAGE_FAULT
    lea rsi, [rip + selftest_recover]
    call set_trap_handler
    lea rax, [rip + .Ltest_null_back]
    mov [rip + selftest_recovery], rax
    xor eax, eax
    mov rax, [rax]
    stc
    expect nc, "reading address 0 faults"
.Ltest_null_back:
    cmp qword ptr [rip + selftest_error_code], 0
    expect e, "its error code says: a read, not present"
    mov edi, LOADER_PHYS
    call walk_page
    test rax, rax
    expect z, "the loader's page is gone from the lower half"
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

# The handlers. Each is int handler(struct pt_regs *regs).
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

# Map a fresh page where the fault was; before that, as long as selftest_depth is below SELFTEST_NESTING, touch the
# page behind it, so that the next fault comes inside this one.
selftest_map_on_demand:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    inc qword ptr [rip + selftest_hits]
    mov rax, [rdi + pt_regs.error_code]
    mov [rip + selftest_error_code], rax
    mov rbx, cr2                        # rbx = address
    mov [rip + selftest_address], rbx
    mov ecx, dword ptr gs:[percpu.interrupt_depth]
    cmp [rip + selftest_depth], rcx
    jae .Lselftest_map_on_demand_map
    mov [rip + selftest_depth], rcx     # the deepest so far
    cmp ecx, SELFTEST_NESTING
    jae .Lselftest_map_on_demand_map
    mov byte ptr [rbx + PAGE_SIZE], 1
.Lselftest_map_on_demand_map:
    xor edi, edi
    call get_free_pages
    test rax, rax
    jz .Lselftest_map_on_demand_done    # 0: not handled
    mov rdi, rbx
    and rdi, -4096
    mov rcx, DIRECT_MAP
    sub rax, rcx
    mov rsi, rax
    mov rdx, PTE_WRITE | PTE_NX
    call map_page
    test rax, rax
    setz al
    movzx eax, al
.Lselftest_map_on_demand_done:
    pop r12
    pop rbx
    pop rbp
    ret

# void selftest_unmap(u64 virtual): take a page away again, and free it.
selftest_unmap:
    push rbp
    mov rbp, rsp
    call unmap_page
    mov rdi, DIRECT_MAP
    add rdi, rax
    xor esi, esi
    call free_pages
    pop rbp
    ret

.bss
.p2align 3
selftest_hits:       .zero 8            # how often a handler ran
selftest_depth:      .zero 8            # the deepest nesting it saw
selftest_error_code: .zero 8            # the last one
selftest_address:    .zero 8            # CR2 then
selftest_recovery:   .zero 8            # where selftest_recover goes on
selftest_lock:       .zero 4
selftest_other_lock: .zero 4
