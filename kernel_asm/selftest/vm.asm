# Tests of vm.asm, and of the rights that the loader gave to every page.

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
selftest_depth:      .zero 8            # the deepest nesting that a handler saw
