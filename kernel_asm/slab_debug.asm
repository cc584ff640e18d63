# Allocating and freeing under debugging: caches with any letter of slab_debug have no magazines, and every call comes
# here from its slow path. The lock of the cache is held while an object changes hands, so that what is judged and what
# happens are one.

.text

# void setup_slab(struct kmem_cache *cache, struct page *page, void *first)
# Give every byte of a new slab the value that debugging expects.
#   in        rdi = cache, rsi = struct page, rdx = first object
#   clobbers  rax rcx rdx rsi rdi r8
setup_slab:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    mov rbx, rdi                        # rbx = cache
    mov r12, rdx                        # r12 = object
    test dword ptr [rbx + kmem_cache.flags], SLAB_POISON
    jz .Lsetup_slab_objects
    mov rdi, rsi
    call page_address
    mov rdi, rax
    mov ecx, [rbx + kmem_cache.order]
    mov edx, PAGE_SIZE
    shl rdx, cl
    mov esi, POISON_INUSE
    call memset
.Lsetup_slab_objects:
    mov r13d, [rbx + kmem_cache.objects] # r13 = objects to go
.Lsetup_slab_object:
    mov rdi, rbx
    mov rsi, r12
    call setup_object
    mov eax, [rbx + kmem_cache.size]
    add r12, rax
    dec r13d
    jnz .Lsetup_slab_object
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void *slab_alloc_debug(struct kmem_cache *cache, size_t size)
# slab_alloc for a cache under debugging.
#   in        rdi = cache, rsi = size that the caller asked for
#   out       rax = object, or 0 when no page is left, or the call was made to fail
#   clobbers  rcx rdx rsi rdi r8-r11
slab_alloc_debug:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push r15
    mov rbx, rdi                        # rbx = cache
    mov r14d, [rbx + kmem_cache.object_size]
    lea rax, [rsi + -1]
    cmp rax, r14
    cmovb r14, rsi                      # r14 = size, at most the whole object

    # 1. A: failures on purpose.
    test dword ptr [rbx + kmem_cache.flags], SLAB_FAILSLAB
    jz .Lslab_alloc_debug_lock
    lea rdi, [rip + failslab]
    call should_fail
    test eax, eax
    jnz .Lslab_alloc_debug_failed

    # 2. A slab that has a free object, and is sound so far as F can tell. One that is not is never used again.
.Lslab_alloc_debug_lock:
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags
    inc qword ptr [rbx + kmem_cache.alloc_slowpath]
.Lslab_alloc_debug_slab:
    mov rdi, rbx
    call slab_with_free_object
    test rax, rax
    jz .Lslab_alloc_debug_grow
    mov r15, rax                        # r15 = struct page
    test dword ptr [rbx + kmem_cache.flags], SLAB_CONSISTENCY_CHECKS
    jz .Lslab_alloc_debug_take
    mov rsi, rax
    call alloc_consistency_checks
    test eax, eax
    jnz .Lslab_alloc_debug_take
    mov rdi, rbx
    mov rsi, r15
    lea rdx, [rip + .Lslab_alloc_debug_fix]
    call slab_give_up
    jmp .Lslab_alloc_debug_slab

    # 3. The object is live from here on.
.Lslab_alloc_debug_take:
    mov rdi, rbx
    mov rsi, r15
    call slab_take
    mov r12, rax                        # r12 = object
    mov rdi, rbx
    mov rsi, r15
    mov rdx, r12
    xor ecx, ecx
    mov r8, rbp
    call slab_trace
    mov rdi, rbx
    mov rsi, r12
    mov edx, r14d
    call set_orig_size
    mov edx, SLUB_RED_ACTIVE
    call init_object
    mov rdi, rbx
    mov rsi, r12
    xor edx, edx
    mov rcx, rbp
    call set_track
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    mov rax, r12
.Lslab_alloc_debug_out:
    pop r15
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    # 4. Every slab is full: make one, without the lock, and try again.
.Lslab_alloc_debug_grow:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    mov rdi, rbx
    call slab_create
    test rax, rax
    jz .Lslab_alloc_debug_failed
    mov rdi, rbx
    mov rsi, rax
    call slab_add
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax
    jmp .Lslab_alloc_debug_slab
.Lslab_alloc_debug_failed:
    lock inc qword ptr [rbx + kmem_cache.failed]
    xor eax, eax
    jmp .Lslab_alloc_debug_out

# void slab_free_debug(struct kmem_cache *cache, void *object)
# slab_free for a cache under debugging. An object that is damaged is reported and not freed; what is no object, or is
# free already, is a panic with F.
#   in        rdi = cache, rsi = object
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_free_debug:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = object
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags
    inc qword ptr [rbx + kmem_cache.free_slowpath]

    # 1. Its slab. What lies in none of this cache is slab_put's to refuse.
    mov rdi, r12
    call virt_to_page
    test rax, rax
    jz .Lslab_free_debug_put
    test dword ptr [rax + page.flags], PG_SLAB
    jz .Lslab_free_debug_put
    cmp [rax + page.cache], rbx
    jne .Lslab_free_debug_put
    mov r14, [rax + page.head]          # r14 = struct page of the slab's first frame

    # 2. F: it must be a live object, undamaged, of a slab that can be.
    test dword ptr [rbx + kmem_cache.flags], SLAB_CONSISTENCY_CHECKS
    jz .Lslab_free_debug_accepted
    mov rdi, rbx
    mov rsi, r14
    mov rdx, r12
    call free_consistency_checks
    test eax, eax
    jz .Lslab_free_debug_refused

    # 3. It is free from here on.
.Lslab_free_debug_accepted:
    mov rdi, rbx
    mov rsi, r12
    mov edx, 1
    mov rcx, rbp
    call set_track
    mov rdi, rbx
    mov rsi, r14
    mov rdx, r12
    mov ecx, 1
    mov r8, rbp
    call slab_trace
    mov rdi, rbx
    mov rsi, r12
    mov edx, SLUB_RED_INACTIVE
    call init_object
.Lslab_free_debug_put:
    mov rdi, rbx
    mov rsi, r12
    call slab_put
.Lslab_free_debug_unlock:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
.Lslab_free_debug_refused:
    mov rdi, rbx
    lea rsi, [rip + .Lslab_free_debug_fix]
    mov rdx, r12
    call slab_fix
    jmp .Lslab_free_debug_unlock

# int slab_alloc_bulk_debug(struct kmem_cache *cache, size_t count, void **array)
# kmem_cache_alloc_bulk for a cache under debugging: one by one.
#   in        rdi = cache, rsi = count, rdx = array of count pointers
#   out       rax = count; 0 when there is no memory for all of them
#   clobbers  rcx rdx rsi rdi r8-r11
slab_alloc_bulk_debug:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = count
    mov r13, rdx                        # r13 = array
    xor r14d, r14d                      # r14 = objects so far
.Lslab_alloc_bulk_debug_next:
    cmp r14, r12
    je .Lslab_alloc_bulk_debug_done
    mov rdi, rbx
    mov esi, [rbx + kmem_cache.object_size]
    call slab_alloc_debug
    test rax, rax
    jz .Lslab_alloc_bulk_debug_failed
    mov [r13 + r14 * 8], rax
    inc r14
    jmp .Lslab_alloc_bulk_debug_next
.Lslab_alloc_bulk_debug_failed:
    mov rdi, rbx
    mov rsi, r14
    mov rdx, r13
    call slab_free_bulk_debug
    xor r12d, r12d
.Lslab_alloc_bulk_debug_done:
    mov rax, r12
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void slab_free_bulk_debug(struct kmem_cache *cache, size_t count, void **array)
# kmem_cache_free_bulk for a cache under debugging: one by one.
#   in        rdi = cache, rsi = count, rdx = array of count pointers
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_free_bulk_debug:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    mov rbx, rdi                        # rbx = cache
    mov r12, rdx                        # r12 = next place in the array
    lea r13, [rdx + rsi * 8]            # r13 = its end
.Lslab_free_bulk_debug_next:
    cmp r12, r13
    je .Lslab_free_bulk_debug_done
    mov rdi, rbx
    mov rsi, [r12]
    add r12, 8
    call slab_free_debug
    jmp .Lslab_free_bulk_debug_next
.Lslab_free_bulk_debug_done:
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
.Lslab_alloc_debug_fix: .asciz "Marking all objects used"
.Lslab_free_debug_fix:  .asciz "Object at 0x%016lx not freed"
