# Tests of slab_debug: the cases of Linux's lib/tests/slub_kunit.c, with the same numbers of reports and repairs. Its
# two cases of RCU have no counterpart here, for there is no RCU; neither have the two that allocate where no lock may
# be taken (kmalloc_nolock), for here every allocation may be made anywhere. Reports are counted and not printed.

# Make a cache for a test, in rbx, and let reports be quiet. Its arguments are constants.
.macro make_debug_cache size, flags
    mov qword ptr [rip + slab_debug_state + slab_debug_state.quiet], 1
    xor r8d, r8d
    make_cache \size, 0, SLAB_NO_USER_FLAGS | \flags
.endm

# Validate the cache in rbx, which must give so many reports and repairs.
.macro expect_errors count, what
    mov rdi, rbx
    call kmem_cache_validate
    cmp rax, \count
    expect e, "\what"
.endm

# Allocate an object of the cache in rbx, in r12.
.macro take_object
    mov rdi, rbx
    call kmem_cache_alloc
    mov r12, rax                        # r12 = object
    test rax, rax
    expect nz, "there is an object"
.endm

# Free the object in r12.
.macro give_object
    mov rdi, rbx
    mov rsi, r12
    call kmem_cache_free
.endm

# The frame of every test below: rbx = cache, r12 = object.
.macro debug_test_begin
    push rbp
    mov rbp, rsp
    push rbx
    push r12
.endm
.macro debug_test_end
    destroy_cache
    mov qword ptr [rip + slab_debug_state + slab_debug_state.quiet], 0
    pop r12
    pop rbx
    pop rbp
    ret
.endm

.text

    test_case "slub: clobber_zone gives 2 reports", test_clobber_zone
test_clobber_zone:
    debug_test_begin
    make_debug_cache 64, SLAB_RED_ZONE
    take_object
    mov byte ptr [r12 + 64], 0x12
    expect_errors 2, "a byte behind a live object: a report and a repair"
    expect_errors 0, "it is repaired"
    give_object
    debug_test_end

    test_case "slub: next_pointer gives 3 reports, then 2, then none", test_next_pointer
test_next_pointer:
    debug_test_begin
    make_debug_cache 64, SLAB_POISON
    take_object
    give_object
    mov eax, [rbx + kmem_cache.offset]
    mov rcx, [r12 + rax]
    mov [rip + selftest_free_pointer], rcx
    not byte ptr [r12 + rax]
    expect_errors 3, "the chain, the count, and its repair"
    mov eax, [rbx + kmem_cache.offset]
    mov rcx, [rip + selftest_free_pointer]
    mov [r12 + rax], rcx
    expect_errors 2, "the count, and its repair"
    expect_errors 0, "it is repaired"
    debug_test_end

    test_case "slub: first_word gives 2 reports", test_first_word
test_first_word:
    debug_test_begin
    make_debug_cache 64, SLAB_POISON
    take_object
    give_object
    mov byte ptr [r12], 0x78
    expect_errors 2, "the first byte of a free object: a report and a repair"
    expect_errors 0, "it is repaired"
    debug_test_end

    test_case "slub: clobber_50th_byte gives 2 reports", test_clobber_50th
test_clobber_50th:
    debug_test_begin
    make_debug_cache 64, SLAB_POISON
    take_object
    give_object
    mov byte ptr [r12 + 50], 0x9a
    expect_errors 2, "the 50th byte of a free object: a report and a repair"
    expect_errors 0, "it is repaired"
    debug_test_end

    test_case "slub: clobber_redzone_free gives 2 reports", test_clobber_redzone_free
test_clobber_redzone_free:
    debug_test_begin
    make_debug_cache 64, SLAB_RED_ZONE
    take_object
    give_object
    mov byte ptr [r12 + 64], 0xab
    expect_errors 2, "a byte behind a free object: a report and a repair"
    expect_errors 0, "it is repaired"
    debug_test_end

    test_case "slub: kmalloc_redzone_access gives 2 reports", test_kmalloc_redzone
test_kmalloc_redzone:
    debug_test_begin
    make_debug_cache 32, SLAB_KMALLOC | SLAB_STORE_USER | SLAB_RED_ZONE
    mov rdi, rbx
    mov esi, 18
    call kmem_cache_alloc_sized
    mov r12, rax
    test rax, rax
    expect nz, "there is an object"
    mov byte ptr [r12 + 18], 0xab
    mov byte ptr [r12 + 19], 0xab
    expect_errors 2, "two bytes behind those asked for: a report and a repair"
    expect_errors 0, "they are repaired"
    give_object
    debug_test_end

    test_case "slub: leak_destroy gives 2 reports", test_leak_destroy
test_leak_destroy:
    debug_test_begin
    make_debug_cache 64, 0
    take_object
    mov rdi, rbx
    call kmem_cache_destroy
    cmp eax, -EBUSY
    expect e, "a cache with a live object is not destroyed"
    mov rax, [rbx + kmem_cache.reports]
    add rax, [rbx + kmem_cache.fixes]
    cmp rax, 2
    expect e, "one report for the slab, one for the object"
    give_object
    debug_test_end

    test_case "slub: krealloc_redzone_zeroing gives no report", test_krealloc_redzone
test_krealloc_redzone:
    debug_test_begin
    make_debug_cache 64, SLAB_KMALLOC | SLAB_STORE_USER | SLAB_RED_ZONE
    mov rdi, rbx
    mov esi, 48
    call kmem_cache_alloc_sized
    mov r12, rax
    test rax, rax
    expect nz, "there is an object"
    mov rdi, r12
    mov esi, 0xff
    mov edx, 48
    call memset

    # 1. shrink
    mov rdi, r12
    mov esi, 40
    mov edx, GFP_ZERO
    call krealloc
    cmp rax, r12
    expect e, "40 bytes stay where they are"
    lea rdi, [r12 + 40]
    mov esi, 64 - 40
    mov edx, SLUB_RED_ACTIVE
    call find_damage
    test rax, rax
    expect z, "bytes 40 to 63 are 0xcc"

    # 2. grow in place
    mov rdi, r12
    mov esi, 56
    mov edx, GFP_ZERO
    call krealloc
    cmp rax, r12
    expect e, "56 bytes stay where they are"
    lea rdi, [r12 + 40]
    mov esi, 56 - 40
    xor edx, edx
    call find_damage
    test rax, rax
    expect z, "bytes 40 to 55 are 0"
    lea rdi, [r12 + 56]
    mov esi, 64 - 56
    mov edx, SLUB_RED_ACTIVE
    call find_damage
    test rax, rax
    expect z, "bytes 56 to 63 are 0xcc"
    expect_errors 0, "nothing is wrong"

    # 3. grow elsewhere
    mov rdi, r12
    mov esi, 0xff
    mov edx, 56
    call memset
    mov rdi, r12
    mov esi, 112
    mov edx, GFP_ZERO
    call krealloc
    mov r12, rax
    test rax, rax
    expect nz, "there is memory"
    mov rdi, r12
    mov esi, 56
    mov edx, 0xff
    call find_damage
    test rax, rax
    expect z, "bytes 0 to 55 are kept"
    lea rdi, [r12 + 56]
    mov esi, 112 - 56
    xor edx, edx
    call find_damage
    test rax, rax
    expect z, "bytes 56 to 111 are 0"
    mov rdi, r12
    call kfree
    expect_errors 0, "nothing is wrong"
    debug_test_end

.bss
.p2align 3
selftest_free_pointer:                  # u64: a free object's free pointer as it was
    .zero 8
