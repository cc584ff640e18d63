# The size of an allocation: what it is, and changing it, as ksize() and __do_krealloc() of Linux's mm/slab_common.c.
#
#   kmalloc(48) from kmalloc-64      0           48         64
#   all that there is                |<------------------->|     allocation_size, ksize
#   that was asked for               |<-------->|                requested_size, where Z and U keep that number: the
#                                                                rest is red zone

.text

# size_t ksize(const void *pointer)
# How many bytes the caller may use, which may be more than it asked for. Whoever asks may use them all from then on.
#   in        rdi = pointer that kmalloc returned
#   out       rax = bytes; 0 for 0 and ZERO_SIZE_PTR
#   clobbers  rcx rdx rsi rdi r8-r11
ksize:
    push rbp
    mov rbp, rsp
    mov rsi, rdi                        # rsi = pointer
    lea r8, [rip + .Lksize_bad_message]
    call allocation_size
    test rdx, rdx
    jz .Lksize_out
    push rax
    mov rdi, rdx
    mov edx, eax
    call set_orig_size
    pop rax
.Lksize_out:
    pop rbp
    ret

# static size_t requested_size(const void *pointer)
# The bytes that were asked for where the cache keeps that number, all that there are otherwise.
#   in        rdi = pointer that kmalloc returned, r8 = format of the panic for any other
#   out       rax = bytes; 0 for 0 and ZERO_SIZE_PTR
#   clobbers  rcx rdx rsi rdi
requested_size:
    push rbp
    mov rbp, rsp
    mov rsi, rdi                        # rsi = pointer
    call allocation_size
    test rdx, rdx
    jz .Lrequested_size_out
    mov rdi, rdx
    call get_orig_size
.Lrequested_size_out:
    pop rbp
    ret

# static size_t allocation_size(const void *pointer)
# All bytes of an allocation, and its cache.
#   in        rdi = pointer that kmalloc returned, r8 = format of the panic for any other
#   out       rax = bytes; 0 for 0 and ZERO_SIZE_PTR; rdx = cache, or 0 for none and for whole pages
#   clobbers  rcx
allocation_size:
    xor edx, edx
    cmp rdi, ZERO_SIZE_PTR
    jbe .Lallocation_size_none
    call virt_to_page
    test rax, rax
    jz .Lallocation_size_bad
    test dword ptr [rax + page.flags], PG_SLAB
    jz .Lallocation_size_large
    mov rdx, [rax + page.cache]
    mov eax, [rdx + kmem_cache.object_size]
    ret
.Lallocation_size_large:
    test dword ptr [rax + page.flags], PG_LARGE
    jz .Lallocation_size_bad
    mov rax, [rax + page.head]
    movzx ecx, byte ptr [rax + page.order]
    mov eax, PAGE_SIZE
    shl rax, cl
    ret
.Lallocation_size_none:
    xor eax, eax
    ret
.Lallocation_size_bad:
    push rbp
    mov rbp, rsp
    mov rsi, rdi
    mov rdi, r8
    call panic

# void *krealloc(void *pointer, size_t size, u32 flags)
# Change the size of an allocation; its bytes up to the smaller size are kept. With GFP_ZERO, and if it always was
# called with GFP_ZERO, bytes that are new to the caller are 0.
#   in        rdi = pointer (0 or ZERO_SIZE_PTR: like kmalloc), rsi = size (0: like kfree), rdx = 0 or GFP_ZERO
#   out       rax = pointer, perhaps a new one; 0 when there is no memory, and the old one is untouched
#   clobbers  rcx rdx rsi rdi r8-r11
krealloc:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push r15
    mov rbx, rdi                        # rbx = old pointer
    mov r12, rsi                        # r12 = new size
    mov r13, rdx                        # r13 = flags

    # 1. Nothing is left: free.
    test r12, r12
    jnz .Lkrealloc_size
    call kfree
    mov eax, ZERO_SIZE_PTR
    jmp .Lkrealloc_out

    # 2. It fits where it is. With GFP_ZERO, what the caller gives up is cleared, so that it is 0 when it comes back;
    #    where the size that was asked for is kept, what the caller gains is, and the rest is red zone.
.Lkrealloc_size:
    lea r8, [rip + .Lkrealloc_bad_message]
    call requested_size
    mov r14, rax                        # r14 = bytes that the caller has
    mov rdi, rbx
    call allocation_size
    mov r15, rdx                        # r15 = its cache, or 0
    cmp r12, rax
    ja .Lkrealloc_move
    push rax
    push rax                            # [rsp] = bytes that there are
    test r13d, GFP_ZERO
    jz .Lkrealloc_zone
    lea rdi, [rbx + r14]
    mov rdx, r12
    sub rdx, r14                        # rdx = bytes gained
    ja .Lkrealloc_clear
    lea rdi, [rbx + r12]
    mov rdx, [rsp]
    sub rdx, r12
.Lkrealloc_clear:
    xor esi, esi
    call memset
.Lkrealloc_zone:
    pop r14                             # r14 = bytes that there are
    pop rax
    test r15, r15
    jz .Lkrealloc_stays
    mov rdi, r15
    call slab_keeps_size
    jz .Lkrealloc_stays
    mov rsi, rbx
    mov edx, r12d
    call set_orig_size
    test dword ptr [r15 + kmem_cache.flags], SLAB_RED_ZONE
    jz .Lkrealloc_stays
    lea rdi, [rbx + r12]
    mov esi, SLUB_RED_ACTIVE
    mov rdx, r14
    sub rdx, r12
    call memset
.Lkrealloc_stays:
    mov rax, rbx
    jmp .Lkrealloc_out

    # 3. A new place.
.Lkrealloc_move:
    mov rdi, r12
    test r13d, GFP_ZERO
    jz .Lkrealloc_kmalloc
    call kzalloc
    jmp .Lkrealloc_copy
.Lkrealloc_kmalloc:
    call kmalloc
.Lkrealloc_copy:
    mov r15, rax                        # r15 = new pointer
    test rax, rax
    jz .Lkrealloc_out
    test r14, r14
    jz .Lkrealloc_moved
    mov rdi, rax
    mov rsi, rbx
    mov rdx, r14
    call memcpy
    mov rdi, rbx
    call kfree
.Lkrealloc_moved:
    mov rax, r15
.Lkrealloc_out:
    pop r15
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
.Lksize_bad_message:
    .asciz "ksize: 0x%016lx is not slab memory"
.Lkrealloc_bad_message:
    .asciz "krealloc: 0x%016lx is not slab memory"
