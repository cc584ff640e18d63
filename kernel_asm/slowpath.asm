# The slow paths: what an allocation does when the loaded magazine is empty, and a free when it is full, or when there
# are no magazines at all.

.text

# void *slab_alloc(struct kmem_cache *cache, size_t size)
# The slow path of every allocation: from another magazine, else from the slabs, else from a new slab.
#   in        rdi = cache, rsi = size that the caller needs
#   out       rax = object, or 0 when no page is left
#   clobbers  rcx rdx rsi rdi r8-r11
slab_alloc:
    test dword ptr [rdi + kmem_cache.flags], SLAB_DEBUG_FLAGS
    jnz slab_alloc_debug
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov rdi, rbx
    call magazine_prepare
    mov r14, rax                        # r14 = GS offset of a kmem_cache_cpu with magazines, or 0
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags
    inc qword ptr [rbx + kmem_cache.alloc_slowpath]

    # 1. Through the magazines, when there are any.
.Lslab_alloc_again:
    test r14, r14
    jz .Lslab_alloc_direct
    cmp qword ptr gs:[r14 + kmem_cache_cpu.loaded], 0
    je .Lslab_alloc_direct              # an interrupt has drained them since
    mov rdi, rbx
    mov rsi, r14
    call magazine_find_object
    mov r12, rax                        # r12 = object
    test rax, rax
    jnz .Lslab_alloc_unlock
    jmp .Lslab_alloc_grow

    # 2. Straight from a slab.
.Lslab_alloc_direct:
    mov rdi, rbx
    call slab_with_free_object
    test rax, rax
    jz .Lslab_alloc_grow
    mov rsi, rax
    call slab_take
    mov r12, rax
    jmp .Lslab_alloc_unlock

    # 3. Every slab is full: make one, without the lock, and try again.
.Lslab_alloc_grow:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    mov rdi, rbx
    call slab_create
    mov r12, rax                        # r12 = struct page
    test rax, rax
    jz .Lslab_alloc_failed
    mov rdi, rbx
    mov rsi, rax
    call slab_add
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax
    jmp .Lslab_alloc_again

.Lslab_alloc_failed:
    lock inc qword ptr [rbx + kmem_cache.failed]
    jmp .Lslab_alloc_out
.Lslab_alloc_unlock:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
.Lslab_alloc_out:
    mov rax, r12
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void slab_free(struct kmem_cache *cache, void *object)
# The slow path of every free: into another magazine, else into its slab.
#   in        rdi = cache, rsi = object
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_free:
    test dword ptr [rdi + kmem_cache.flags], SLAB_DEBUG_FLAGS
    jnz slab_free_debug
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = object
    call magazine_prepare
    mov r14, rax                        # r14 = GS offset of a kmem_cache_cpu with magazines, or 0
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags
    inc qword ptr [rbx + kmem_cache.free_slowpath]

    # 1. Into a magazine with room, exchanged with the depot if need be.
.Lslab_free_again:
    test r14, r14
    jz .Lslab_free_direct
    cmp qword ptr gs:[r14 + kmem_cache_cpu.loaded], 0
    je .Lslab_free_direct               # an interrupt has drained them since
    mov rdi, rbx
    mov rsi, r14
    call magazine_find_room
    test rax, rax
    jnz .Lslab_free_push

    # 2. Both are full and the depot has no empty one. Make one, unless the depot has enough full ones.
    cmp dword ptr [rbx + kmem_cache.nr_depot_full], DEPOT_LIMIT
    jae .Lslab_free_flush
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    call magazine_create
    push rax                            # [rsp] = magazine, or 0
    push rax
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax
    pop rsi
    pop rsi
    test rsi, rsi
    jz .Lslab_free_flush
    lea rdi, [rbx + kmem_cache.depot_empty]
    lea rdx, [rbx + kmem_cache.nr_depot_empty]
    call depot_push
    jmp .Lslab_free_again

    # 3. Empty the previous one into the slabs; it then is the one with room.
.Lslab_free_flush:
    mov rdi, rbx
    mov rsi, gs:[r14 + kmem_cache_cpu.previous]
    call magazine_flush
    jmp .Lslab_free_again

.Lslab_free_push:
    mov rcx, gs:[r14 + kmem_cache_cpu.top]
    mov [rcx], r12
    add qword ptr gs:[r14 + kmem_cache_cpu.top], 8
    jmp .Lslab_free_unlock

.Lslab_free_direct:
    mov rdi, rbx
    mov rsi, r12
    call slab_put
.Lslab_free_unlock:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
