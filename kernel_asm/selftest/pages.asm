# Tests of page_alloc.asm.

.set SELFTEST_BLOCKS, 64                # blocks that a test may hold at once

.text

    test_case "get_free_pages aligns a block to its own size", test_page_alignment
test_page_alignment:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor ebx, ebx                        # rbx = order
.Ltest_page_alignment_order:
    mov edi, ebx
    call get_free_pages
    test rax, rax
    jz .Ltest_page_alignment_next       # a small machine has no block of the largest orders
    mov r12, rax
    mov ecx, ebx
    mov edx, PAGE_SIZE
    shl rdx, cl
    dec rdx
    test r12, rdx
    expect z, "the address is a multiple of the block's size"
    mov rdi, r12
    mov esi, ebx
    call free_pages
.Ltest_page_alignment_next:
    inc ebx
    cmp ebx, MAX_ORDER
    jbe .Ltest_page_alignment_order
    mov edi, MAX_ORDER + 1
    call get_free_pages
    test rax, rax
    expect z, "there is no order beyond MAX_ORDER"
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "free_pages merges buddies back into the blocks they came from", test_page_merge
test_page_merge:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    call selftest_count_areas           # the free blocks of each order, before
    lea rdi, [rip + selftest_areas_before]
    call selftest_copy_areas
    lea r12, [rip + selftest_blocks]
    xor ebx, ebx                        # rbx = block
.Ltest_page_merge_take:
    mov edi, ebx
    and edi, 3                          # orders 0 to 3 in turn
    call get_free_pages
    test rax, rax
    expect nz, "there are enough pages"
    mov [r12 + rbx * 8], rax
    inc ebx
    cmp ebx, SELFTEST_BLOCKS
    jb .Ltest_page_merge_take

    # Back in an order that leaves holes first: every third, then the rest.
    mov r13d, 3                         # r13 = rounds to go
.Ltest_page_merge_round:
    lea ebx, [r13 - 1]
.Ltest_page_merge_give:
    mov rdi, [r12 + rbx * 8]
    mov esi, ebx
    and esi, 3
    call free_pages
    add ebx, 3
    cmp ebx, SELFTEST_BLOCKS
    jb .Ltest_page_merge_give
    dec r13d
    jnz .Ltest_page_merge_round

    call selftest_count_areas
    lea rdi, [rip + selftest_areas_before]
    lea rsi, [rip + selftest_areas]
    mov edx, 8 * (MAX_ORDER + 1)
    call memcmp
    test eax, eax
    expect z, "each order has as many free blocks as before"
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void selftest_count_areas(void): selftest_areas = free blocks of each order
selftest_count_areas:
    lea rdi, [rip + free_areas]
    lea rsi, [rip + selftest_areas]
    mov ecx, MAX_ORDER + 1
.Lselftest_count_areas_next:
    mov rax, [rdi + free_area.nr_free]
    mov [rsi], rax
    add rdi, sizeof.free_area
    add rsi, 8
    dec ecx
    jnz .Lselftest_count_areas_next
    ret

# void selftest_copy_areas(u64 *to)
selftest_copy_areas:
    lea rsi, [rip + selftest_areas]
    mov edx, 8 * (MAX_ORDER + 1)
    jmp memcpy

.bss
.p2align 3
selftest_areas:
    .zero 8 * (MAX_ORDER + 1)
selftest_areas_before:
    .zero 8 * (MAX_ORDER + 1)
selftest_blocks:
    .zero 8 * SELFTEST_BLOCKS
