# Tests of the object caches: slab.asm, kmem_cache.asm, magazine.asm and bulk.asm.

.set SELFTEST_OBJECTS, 200

# Make a cache for a test, in rbx. Its arguments are constants; r8 = constructor or 0.
.macro make_cache size, align, flags
    lea rdi, [rip + selftest_cache_name]
    mov esi, \size
    mov edx, \align
    mov ecx, \flags
    call kmem_cache_create
    test rax, rax
    expect nz, "the cache is created"
    mov rbx, rax                        # rbx = cache
.endm

# Destroy the cache in rbx, which gives everything back.
.macro destroy_cache
    mov rdi, rbx
    call kmem_cache_destroy
    test eax, eax
    expect z, "the cache is destroyed"
.endm

.text

    test_case "kmem_cache_create refuses wrong arguments and a name that is taken", test_cache_arguments
test_cache_arguments:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    xor esi, esi
    xor edx, edx
    call selftest_create
    expect z, "no objects of 0 bytes"
    mov esi, SLAB_MAX_OBJECT + 1
    xor edx, edx
    call selftest_create
    expect z, "no objects beyond SLAB_MAX_OBJECT"
    mov esi, 64
    mov edx, 48
    call selftest_create
    expect z, "an alignment is a power of two"
    mov esi, 64
    mov edx, 2 * PAGE_SIZE
    call selftest_create
    expect z, "an alignment is a page at most"
    mov esi, SLAB_MAX_OBJECT
    xor edx, edx
    call selftest_create
    expect nz, "objects of SLAB_MAX_OBJECT bytes are possible"
    mov rbx, rax
    mov esi, 64
    xor edx, edx
    call selftest_create
    expect z, "two caches never share a name"
    destroy_cache
    pop rbx
    pop rbx
    pop rbp
    ret

# struct kmem_cache *selftest_create(rsi = size, rdx = align), and the flags say whether it is 0
selftest_create:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + selftest_cache_name]
    xor ecx, ecx
    xor r8d, r8d
    call kmem_cache_create
    pop rbp
    test rax, rax
    ret

    test_case "objects are aligned, distinct and keep what is written to them", test_objects
test_objects:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    xor r8d, r8d
    make_cache 100, 32, 0
    call selftest_fill_cache
    lea r12, [rip + selftest_objects]
    xor r13d, r13d                      # r13 = object
.Ltest_objects_check:
    mov rdi, [r12 + r13 * 8]
    test edi, 31
    expect z, "an object is aligned as asked"
    lea r14, [rdi + 96]
.Ltest_objects_word:
    cmp [rdi], r13d
    expect e, "an object keeps its bytes"
    add rdi, 4
    cmp rdi, r14
    jbe .Ltest_objects_word
    inc r13d
    cmp r13d, SELFTEST_OBJECTS
    jb .Ltest_objects_check
    call selftest_empty_cache
    destroy_cache
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "a constructor runs once for each object, and its work survives a free", test_constructor
test_constructor:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov dword ptr [rip + selftest_constructed], 0
    lea r8, [rip + selftest_constructor]
    make_cache 512, 0, SLAB_NO_MAGAZINES
    mov rdi, rbx
    call kmem_cache_alloc
    mov r12, rax
    cmp qword ptr [r12], 0x77
    expect e, "the first word is what the constructor wrote"
    mov eax, [rip + selftest_constructed]
    cmp eax, [rbx + kmem_cache.objects]
    expect e, "every object of the slab was constructed"
    mov rdi, rbx
    mov rsi, r12
    call kmem_cache_free
    mov rdi, rbx
    call kmem_cache_alloc
    cmp rax, r12
    expect e, "the last one freed comes first"
    cmp qword ptr [r12], 0x77
    expect e, "a free leaves the constructor's work alone"
    mov eax, [rip + selftest_constructed]
    cmp eax, [rbx + kmem_cache.objects]
    expect e, "no object was constructed twice"
    mov rdi, rbx
    mov rsi, r12
    call kmem_cache_free
    destroy_cache
    pop r12
    pop rbx
    pop rbp
    ret

selftest_constructor:
    mov qword ptr [rdi], 0x77
    inc dword ptr [rip + selftest_constructed]
    ret

    test_case "slabs of one cache begin at different colours", test_colours
test_colours:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    xor r8d, r8d
    make_cache 1300, 0, SLAB_NO_MAGAZINES | SLAB_NO_USER_FLAGS
    cmp dword ptr [rbx + kmem_cache.colour], 3
    expect ae, "there is room for three colours"
    mov r13d, [rbx + kmem_cache.objects]
    mov rdi, rbx
    lea rdx, [rip + selftest_objects]
    lea esi, [r13 + r13 * 2]            # three slabs
    call kmem_cache_alloc_bulk
    lea r12, [rip + selftest_objects]
    mov rdi, [r12]
    call virt_to_page
    cmp dword ptr [rax + page.colour], 0
    expect e, "the first slab has colour 0"
    mov rdi, [r12 + r13 * 8]
    call virt_to_page
    mov rax, [rax + page.head]
    cmp dword ptr [rax + page.colour], CACHE_LINE
    expect e, "the second begins one cache line further"
    mov rdi, rbx
    lea rdx, [rip + selftest_objects]
    lea esi, [r13 + r13 * 2]
    call kmem_cache_free_bulk
    destroy_cache
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "kmem_cache_shrink gives every empty slab back", test_shrink
test_shrink:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor r8d, r8d
    make_cache 256, 0, 0
    call selftest_fill_cache
    call selftest_empty_cache
    mov rdi, rbx
    call kmem_cache_shrink
    test eax, eax
    expect z, "no slab is left"
    mov rax, [rbx + kmem_cache.alloc_slab]
    cmp rax, [rbx + kmem_cache.free_slab]
    expect e, "as many slabs were given back as were taken"
    destroy_cache
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "kmem_cache_zalloc clears what was there", test_zalloc
test_zalloc:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor r8d, r8d
    make_cache 40, 0, 0
    mov rdi, rbx
    call kmem_cache_alloc
    mov r12, rax
    mov rdi, r12
    mov esi, 0xff
    mov edx, 40
    call memset
    mov rdi, rbx
    mov rsi, r12
    call kmem_cache_free
    mov rdi, rbx
    call kmem_cache_zalloc
    cmp rax, r12
    expect e, "it is the object that was dirty"
    cmp qword ptr [r12 + 32], 0
    expect e, "its last word is 0"
    cmp qword ptr [r12], 0
    expect e, "its first word is 0"
    mov rdi, rbx
    mov rsi, r12
    call kmem_cache_free
    destroy_cache
    pop r12
    pop rbx
    pop rbp
    ret

# void selftest_fill_cache(rbx = cache): SELFTEST_OBJECTS objects, each filled with its own number
selftest_fill_cache:
    push rbp
    mov rbp, rsp
    push r12
    push r13
    lea r12, [rip + selftest_objects]
    xor r13d, r13d                      # r13 = object
.Lselftest_fill_cache_next:
    mov rdi, rbx
    call kmem_cache_alloc
    test rax, rax
    expect nz, "there is memory for all objects"
    mov [r12 + r13 * 8], rax
    mov rdi, rax
    mov ecx, [rbx + kmem_cache.object_size]
    shr ecx, 2
    mov eax, r13d
    rep stosd
    inc r13d
    cmp r13d, SELFTEST_OBJECTS
    jb .Lselftest_fill_cache_next
    pop r13
    pop r12
    pop rbp
    ret

# void selftest_empty_cache(rbx = cache): free what selftest_fill_cache took, every other one first
selftest_empty_cache:
    push rbp
    mov rbp, rsp
    push r12
    push r13
    lea r12, [rip + selftest_objects]
    xor r13d, r13d                      # r13 = object
.Lselftest_empty_cache_next:
    mov rdi, rbx
    mov rsi, [r12 + r13 * 8]
    call kmem_cache_free
    add r13d, 2
    cmp r13d, SELFTEST_OBJECTS
    jb .Lselftest_empty_cache_next
    and r13d, 1
    xor r13d, 1                         # 0 after the odd ones, which come second
    jnz .Lselftest_empty_cache_next
    pop r13
    pop r12
    pop rbp
    ret

.rodata
selftest_cache_name:
    .asciz "selftest"

.bss
.p2align 3
selftest_objects:
    .zero 8 * SELFTEST_OBJECTS
selftest_constructed:
    .zero 8
