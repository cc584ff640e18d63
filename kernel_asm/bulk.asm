# Many objects at once: one lock for all of them, straight between the caller's array, the loaded magazine and the
# slabs.

.text

# int kmem_cache_alloc_bulk(struct kmem_cache *cache, size_t count, void **array)
# Take count objects, or none.
#   in        rdi = cache, rsi = count, rdx = array of count pointers
#   out       rax = count; 0 when there is no memory for all of them
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_alloc_bulk:
    test dword ptr [rdi + kmem_cache.flags], SLAB_DEBUG_FLAGS
    jnz slab_alloc_bulk_debug
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rsi                            # [rbp - 48] = count
    mov rbx, rdi                        # rbx = cache
    mov r12, rdx                        # r12 = next place in the array
    lea r15, [rdx + rsi * 8]            # r15 = its end
    call magazine_prepare
    mov r14, rax                        # r14 = GS offset of a kmem_cache_cpu with magazines, or 0
.Lkmem_cache_alloc_bulk_lock:
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags

.Lkmem_cache_alloc_bulk_next:
    cmp r12, r15
    je .Lkmem_cache_alloc_bulk_done
    test r14, r14
    jz .Lkmem_cache_alloc_bulk_slab
    cmp qword ptr gs:[r14 + kmem_cache_cpu.loaded], 0
    je .Lkmem_cache_alloc_bulk_slab
    mov rdi, rbx
    mov rsi, r14
    call magazine_find_object
    jmp .Lkmem_cache_alloc_bulk_store
.Lkmem_cache_alloc_bulk_slab:
    mov rdi, rbx
    call slab_with_free_object
    test rax, rax
    jz .Lkmem_cache_alloc_bulk_store
    mov rsi, rax
    call slab_take
.Lkmem_cache_alloc_bulk_store:
    test rax, rax
    jz .Lkmem_cache_alloc_bulk_grow
    mov [r12], rax
    add r12, 8
    inc qword ptr [rbx + kmem_cache.alloc_slowpath]
    jmp .Lkmem_cache_alloc_bulk_next

.Lkmem_cache_alloc_bulk_grow:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    mov rdi, rbx
    call slab_create
    test rax, rax
    jz .Lkmem_cache_alloc_bulk_failed
    mov rdi, rbx
    mov rsi, rax
    call slab_add
    jmp .Lkmem_cache_alloc_bulk_lock

.Lkmem_cache_alloc_bulk_done:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    mov rax, [rbp - 48]
    jmp .Lkmem_cache_alloc_bulk_out

    # What was taken so far goes back.
.Lkmem_cache_alloc_bulk_failed:
    lock inc qword ptr [rbx + kmem_cache.failed]
    mov rsi, [rbp - 48]
    shl rsi, 3
    mov rdx, r15
    sub rdx, rsi                        # rdx = array
    mov rsi, r12
    sub rsi, rdx
    shr rsi, 3                          # rsi = how many
    mov rdi, rbx
    call slab_free_bulk
    xor eax, eax
.Lkmem_cache_alloc_bulk_out:
    pop rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void kmem_cache_free_bulk(struct kmem_cache *cache, size_t count, void **array)
# Free count objects.
#   in        rdi = cache, rsi = count, rdx = array of count pointers
#   clobbers  rax rcx rdx rsi rdi r8-r11
kmem_cache_free_bulk:
    test dword ptr [rdi + kmem_cache.flags], SLAB_DEBUG_FLAGS
    jnz slab_free_bulk_debug
    jmp slab_free_bulk

# static void slab_free_bulk(struct kmem_cache *cache, size_t count, void **array)
# Into the loaded magazine while it has room, then into the slabs.
#   in        rdi = cache, rsi = count, rdx = array of count pointers
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_free_bulk:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push r15
    mov rbx, rdi                        # rbx = cache
    mov r12, rdx                        # r12 = next place in the array
    lea r15, [rdx + rsi * 8]            # r15 = its end
    mov r14, [rbx + kmem_cache.cpu]     # r14 = GS offset of struct kmem_cache_cpu
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags
.Lslab_free_bulk_next:
    cmp r12, r15
    je .Lslab_free_bulk_done
    mov rsi, [r12]                      # rsi = object
    add r12, 8
    inc qword ptr [rbx + kmem_cache.free_slowpath]
    mov rcx, gs:[r14 + kmem_cache_cpu.top]
    cmp rcx, gs:[r14 + kmem_cache_cpu.limit]
    je .Lslab_free_bulk_slab            # full, or none
    mov [rcx], rsi
    add qword ptr gs:[r14 + kmem_cache_cpu.top], 8
    jmp .Lslab_free_bulk_next
.Lslab_free_bulk_slab:
    mov rdi, rbx
    call slab_put
    jmp .Lslab_free_bulk_next
.Lslab_free_bulk_done:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    pop r15
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
