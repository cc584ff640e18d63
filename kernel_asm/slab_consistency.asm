# The letter F: what is judged before an object is handed out, and before it is taken back.

.text

# int alloc_consistency_checks(struct kmem_cache *cache, struct page *page)
# Judge a slab and its first free object before that is handed out.
#   in        rdi = cache, rsi = struct page
#   out       eax = 1 when all is well, else 0
#   clobbers  rcx rdx rsi rdi r8-r11
alloc_consistency_checks:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    call check_slab
    test eax, eax
    jz .Lalloc_consistency_checks_out
    mov rdi, rbx
    mov rsi, r12
    mov rdx, [r12 + page.freelist]
    test rdx, rdx
    jz .Lalloc_consistency_checks_pointer
    call check_valid_pointer
    test eax, eax
    jz .Lalloc_consistency_checks_pointer
    mov rdx, [r12 + page.freelist]
    mov ecx, SLUB_RED_INACTIVE
    call check_object
.Lalloc_consistency_checks_out:
    pop r12
    pop rbx
    pop rbp
    ret
.Lalloc_consistency_checks_pointer:
    mov rdx, [r12 + page.freelist]
    lea rcx, [rip + .Lalloc_consistency_checks_reason]
    call object_err
    xor eax, eax
    jmp .Lalloc_consistency_checks_out

# int free_consistency_checks(struct kmem_cache *cache, struct page *page, void *object)
# Judge what is to be freed, and its slab. Linux goes on after a pointer into an object and after a second free; here
# they end the run, after the report.
#   in        rdi = cache, rsi = struct page, rdx = object
#   out       eax = 1 when all is well, 0 when it must not be freed
#   clobbers  rcx rdx rsi rdi r8-r11
free_consistency_checks:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    mov r13, rdx                        # r13 = object
    call check_slab
    test eax, eax
    jz .Lfree_consistency_checks_out
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    call check_valid_pointer
    test eax, eax
    jz .Lfree_consistency_checks_pointer
    mov rdx, r13
    call on_freelist
    test eax, eax
    jnz .Lfree_consistency_checks_free
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    mov ecx, SLUB_RED_ACTIVE
    call check_object
.Lfree_consistency_checks_out:
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.Lfree_consistency_checks_free:
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    lea rcx, [rip + .Lfree_consistency_checks_already]
    call object_err
    lea rdi, [rip + .Lfree_consistency_checks_twice]
    mov rsi, r13
    lea rdx, [rbx + kmem_cache.name]
    call panic

    # The pointer's own report, then the object in whose place it lies, if any.
.Lfree_consistency_checks_pointer:
    mov rdi, rbx
    mov rsi, r12
    lea rdx, [rip + .Lfree_consistency_checks_invalid]
    mov rcx, r13
    call slab_err
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    call slab_object_index
    movzx ecx, word ptr [r12 + page.objects]
    cmp rax, rcx
    jae .Lfree_consistency_checks_none
    mov r8d, [rbx + kmem_cache.red_left_pad]
    sub rdx, r8                         # rdx = bytes from the object's first one
    push rdx
    push rdx
    sub r13, rdx                        # r13 = object
    cmp qword ptr [rip + slab_debug_state + slab_debug_state.quiet], 0
    jne .Lfree_consistency_checks_panic
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    call print_trailer
.Lfree_consistency_checks_panic:
    pop r8
    pop r8                              # r8 = bytes from the object's first one
    lea rdi, [rip + .Lfree_consistency_checks_inside]
    lea rsi, [r13 + r8]
    lea rdx, [rbx + kmem_cache.name]
    mov rcx, r8
    mov r8, r13
    call panic
.Lfree_consistency_checks_none:
    lea rdi, [rip + .Lfree_consistency_checks_nothing]
    mov rsi, r13
    lea rdx, [rbx + kmem_cache.name]
    call panic

.rodata
.Lalloc_consistency_checks_reason: .asciz "Freelist Pointer check fails"
.Lfree_consistency_checks_already: .asciz "Object already free"
.Lfree_consistency_checks_invalid: .asciz "Invalid object pointer 0x%016lx"
.Lfree_consistency_checks_twice:
    .asciz "slab_free: object 0x%016lx of cache %s is free already"
.Lfree_consistency_checks_inside:
    .asciz "slab_free: 0x%016lx is no object of cache %s: it lies %ld bytes from the first of 0x%016lx"
.Lfree_consistency_checks_nothing:
    .asciz "slab_free: 0x%016lx is no object of cache %s: it lies behind the last object of a slab"
