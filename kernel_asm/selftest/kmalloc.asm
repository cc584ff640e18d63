# Tests of kmalloc.asm.

.text

    test_case "kmalloc gives every size up to 9000 at least that many bytes", test_kmalloc_sizes
test_kmalloc_sizes:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov ebx, 1                          # rbx = size
.Ltest_kmalloc_sizes_next:
    mov edi, ebx
    call kmalloc
    test rax, rax
    expect nz, "there is memory"
    mov r12, rax
    mov rdi, rax
    call ksize
    cmp rax, rbx
    expect ae, "ksize is at least the size asked for"
    test r12d, 7
    expect z, "the pointer is aligned to 8"
    mov byte ptr [r12], 0x5a
    mov [r12 + rbx + -1], bl
    mov rdi, r12
    call kfree
    add ebx, 7
    cmp ebx, 9000
    jb .Ltest_kmalloc_sizes_next
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "kmalloc of 0 bytes is ZERO_SIZE_PTR, and kfree accepts it and 0", test_kmalloc_zero
test_kmalloc_zero:
    push rbp
    mov rbp, rsp
    xor edi, edi
    call kmalloc
    cmp rax, ZERO_SIZE_PTR
    expect e, "it is ZERO_SIZE_PTR"
    mov rdi, rax
    call ksize
    test rax, rax
    expect z, "it has no bytes"
    mov edi, ZERO_SIZE_PTR
    call kfree
    xor edi, edi
    call kfree
    mov rdi, KMALLOC_MAX_SIZE + 1
    call kmalloc
    test rax, rax
    expect z, "nothing is larger than KMALLOC_MAX_SIZE"
    pop rbp
    ret

    test_case "krealloc keeps the bytes up to the smaller size", test_krealloc
test_krealloc:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, 24
    call kmalloc
    mov rbx, rax
    mov dword ptr [rbx], 0x11223344
    mov dword ptr [rbx + 20], 0x55667788
    mov rdi, rbx
    mov esi, 30
    xor edx, edx
    call krealloc
    cmp rax, rbx
    expect e, "what fits stays where it is"
    mov rdi, rbx
    mov esi, 20000
    mov edx, GFP_ZERO
    call krealloc
    mov rbx, rax
    cmp dword ptr [rbx], 0x11223344
    expect e, "the first bytes move along"
    cmp dword ptr [rbx + 20], 0x55667788
    expect e, "the last bytes move along"
    cmp qword ptr [rbx + 19992], 0
    expect e, "new bytes are 0 with GFP_ZERO"
    mov rdi, rbx
    mov esi, 24
    xor edx, edx
    call krealloc
    cmp rax, rbx
    expect e, "shrinking moves nothing"
    mov rdi, rbx
    xor esi, esi
    xor edx, edx
    call krealloc
    cmp rax, ZERO_SIZE_PTR
    expect e, "size 0 frees"
    xor edi, edi
    mov esi, 64
    xor edx, edx
    call krealloc
    test rax, rax
    expect nz, "pointer 0 allocates"
    mov rdi, rax
    call kfree
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "kmalloc answers 0 when memory is out, and everything comes back", test_exhaustion
test_exhaustion:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor ebx, ebx                        # rbx = the allocation before, linked through their first words
    xor r12d, r12d                      # r12 = how many
.Ltest_exhaustion_take:
    mov edi, 65536
    call kmalloc
    test rax, rax
    jz .Ltest_exhaustion_empty
    mov [rax], rbx
    mov rbx, rax
    inc r12d
    jmp .Ltest_exhaustion_take
.Ltest_exhaustion_empty:
    cmp r12d, 16
    expect ae, "a MiB at least could be had"
.Ltest_exhaustion_give:
    mov rdi, rbx
    mov rbx, [rbx]
    call kfree
    dec r12d
    jnz .Ltest_exhaustion_give
    test rbx, rbx
    expect z, "the chain was not damaged"
    mov edi, 65536
    call kmalloc
    test rax, rax
    expect nz, "there is memory again"
    mov rdi, rax
    call kfree
    pop r12
    pop rbx
    pop rbp
    ret
