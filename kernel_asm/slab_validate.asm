# Judging a whole cache, and the objects that are left when it is destroyed.

.set SLAB_MAP, SLAB_MAX_OBJECTS / 8     # bytes of a map with a bit for each object of a slab

.text

# int kmem_cache_validate(struct kmem_cache *cache)
# Judge every slab of a cache and every object in them; report what is wrong, and repair what can be (Linux's
# validate_slab_cache).
#   in        rdi = cache
#   out       rax = reports and repairs, as slub_kunit counts its slab_errors
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_validate:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = saved flags
    mov r13, [rbx + kmem_cache.reports]
    add r13, [rbx + kmem_cache.fixes]   # r13 = how many there were before

    # Slabs that change lists go to the new one's head, so the first so many from the tail are those of now.
    mov eax, [rbx + kmem_cache.nr_empty]
    mov ecx, [rbx + kmem_cache.nr_full]
    mov edx, [rbx + kmem_cache.nr_partial]
    push rax
    push rcx
    lea rsi, [rbx + kmem_cache.partial]
    lea rcx, [rip + .Lkmem_cache_validate_partial]
    call .Lkmem_cache_validate_list
    pop rdx
    lea rsi, [rbx + kmem_cache.full]
    lea rcx, [rip + .Lkmem_cache_validate_full]
    call .Lkmem_cache_validate_list
    pop rdx
    lea rsi, [rbx + kmem_cache.empty]
    lea rcx, [rip + .Lkmem_cache_validate_empty]
    call .Lkmem_cache_validate_list
    mov r14, [rbx + kmem_cache.reports]
    add r14, [rbx + kmem_cache.fixes]
    sub r14, r13
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r12
    call spin_unlock_irqrestore
    mov rax, r14
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    # rbx = cache, rsi = list, edx = slabs that it should have, rcx = its name
.Lkmem_cache_validate_list:
    push rbp
    mov rbp, rsp
    push r12
    push r13
    push r14
    push r15
    push rdx                            # [rbp - 40] = slabs that it should have
    push rcx                            # [rbp - 48] = its name
    mov r12, rsi                        # r12 = list
    mov r13d, edx                       # r13 = slabs to go
    mov r14, [r12 + list_head.prev]     # r14 = link of a slab
.Lkmem_cache_validate_slab:
    cmp r14, r12
    je .Lkmem_cache_validate_end
    test r13d, r13d
    jz .Lkmem_cache_validate_done
    mov r15, [r14 + list_head.prev]
    mov rdi, rbx
    mov rsi, r14
    sub rsi, page.next
    call validate_slab
    mov r14, r15
    dec r13d
    jmp .Lkmem_cache_validate_slab
.Lkmem_cache_validate_end:
    test r13d, r13d
    jz .Lkmem_cache_validate_done
    mov rdi, rbx
    call count_report
    jne .Lkmem_cache_validate_done
    mov rcx, [rbp + -48]
    mov r8d, [rbp + -40]
    mov edx, r8d
    sub edx, r13d
    lea rsi, [rbx + kmem_cache.name]
    lea rdi, [rip + .Lkmem_cache_validate_count]
    call kprintf
.Lkmem_cache_validate_done:
    pop rcx
    pop rdx
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    ret

# static void validate_slab(struct kmem_cache *cache, struct page *page)
# Judge a slab, its free list and its objects up to the first that is wrong. The cache's lock is held.
#   in        rdi = cache, rsi = struct page
#   clobbers  rax rcx rdx rsi rdi r8-r11
validate_slab:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    sub rsp, SLAB_MAP
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    call check_slab
    test eax, eax
    jz .Lvalidate_slab_out
    mov rdi, rbx
    mov rsi, r12
    xor edx, edx
    call on_freelist
    test eax, eax
    jz .Lvalidate_slab_out
    mov rdi, rbx
    mov rsi, r12
    mov rdx, rsp
    call fill_map
    mov rdi, rbx
    mov rsi, r12
    call slab_first_object
    mov r13, rax                        # r13 = object
    xor r14d, r14d                      # r14 = its index
.Lvalidate_slab_object:
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    mov ecx, SLUB_RED_ACTIVE
    mov eax, SLUB_RED_INACTIVE
    bt dword ptr [rsp], r14d
    cmovc ecx, eax
    call check_object
    test eax, eax
    jz .Lvalidate_slab_out
    mov eax, [rbx + kmem_cache.size]
    add r13, rax
    inc r14d
    movzx eax, word ptr [r12 + page.objects]
    cmp r14d, eax
    jb .Lvalidate_slab_object
.Lvalidate_slab_out:
    add rsp, SLAB_MAP
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# static void fill_map(struct kmem_cache *cache, struct page *page, u32 *map)
# A bit for each object of a slab: 1 for those on its free list, as far as that makes sense.
#   in        rdi = cache, rsi = struct page, rdx = map of SLAB_MAP bytes
#   clobbers  rax rcx rdx rsi rdi r8-r11
fill_map:
    push rbp
    mov rbp, rsp
    mov r8, rdi                         # r8 = cache
    mov r9, rsi                         # r9 = struct page
    mov r10, rdx                        # r10 = map
    mov rdi, rdx
    xor eax, eax
    mov ecx, SLAB_MAP
    rep stosb
    mov r11, [r9 + page.freelist]       # r11 = free object
.Lfill_map_next:
    test r11, r11
    jz .Lfill_map_out
    mov rdi, r8
    mov rsi, r9
    mov rdx, r11
    call slab_object_index
    movzx ecx, word ptr [r9 + page.objects]
    cmp rax, rcx
    jae .Lfill_map_out
    cmp edx, [r8 + kmem_cache.red_left_pad]
    jne .Lfill_map_out
    bts dword ptr [r10], eax
    jc .Lfill_map_out
    mov rsi, r11
    call get_freepointer
    mov r11, rax
    jmp .Lfill_map_next
.Lfill_map_out:
    pop rbp
    ret

# void list_remaining(struct kmem_cache *cache)
# Report every object that callers still hold of a cache that is to be destroyed, slab by slab.
#   in        rdi = cache
#   clobbers  rax rcx rdx rsi rdi r8-r11
list_remaining:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = saved flags
    lea r13, [rbx + kmem_cache.partial] # r13 = list
.Llist_remaining_list:
    mov r14, [r13 + list_head.next]     # r14 = link of a slab
.Llist_remaining_slab:
    cmp r14, r13
    je .Llist_remaining_next
    mov rdi, rbx
    mov rsi, r14
    sub rsi, page.next
    call list_slab_objects
    mov r14, [r14 + list_head.next]
    jmp .Llist_remaining_slab
.Llist_remaining_next:
    lea rax, [rbx + kmem_cache.full]
    cmp r13, rax
    mov r13, rax
    jne .Llist_remaining_list
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r12
    call spin_unlock_irqrestore
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# static void list_slab_objects(struct kmem_cache *cache, struct page *page)
# One report for a slab, and one line for each of its objects that is not free. The cache's lock is held.
#   in        rdi = cache, rsi = struct page
#   clobbers  rax rcx rdx rsi rdi r8-r11
list_slab_objects:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    sub rsp, SLAB_MAP
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    lea rdx, [rip + .Llist_slab_objects_reason]
    call slab_err
    mov rdi, rbx
    mov rsi, r12
    mov rdx, rsp
    call fill_map
    mov rdi, rbx
    mov rsi, r12
    call slab_first_object
    mov r13, rax                        # r13 = object
    xor r14d, r14d                      # r14 = its index
.Llist_slab_objects_next:
    bt dword ptr [rsp], r14d
    jc .Llist_slab_objects_free
    mov rdi, rbx
    call count_report
    jne .Llist_slab_objects_free
    mov rdi, r12
    call page_address
    mov rdx, r13
    sub rdx, rax
    mov rsi, r13
    lea rdi, [rip + .Llist_slab_objects_object]
    call kprintf
    mov rdi, rbx
    mov rsi, r13
    call print_tracking
.Llist_slab_objects_free:
    mov eax, [rbx + kmem_cache.size]
    add r13, rax
    inc r14d
    movzx eax, word ptr [r12 + page.objects]
    cmp r14d, eax
    jb .Llist_slab_objects_next
    add rsp, SLAB_MAP
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
.Lkmem_cache_validate_count: .asciz "SLUB %s: %u %s slabs counted but counter=%u\n"
.Lkmem_cache_validate_partial: .asciz "partial"
.Lkmem_cache_validate_full: .asciz "full"
.Lkmem_cache_validate_empty: .asciz "empty"
.Llist_slab_objects_reason: .asciz "Objects remaining on __kmem_cache_shutdown()"
.Llist_slab_objects_object: .asciz "Object 0x%016lx @offset=%lu\n"
