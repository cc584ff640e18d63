# Object caches: made, shrunk and destroyed.
#
#   slab_caches --> kmem_cache --> magazine --> kmalloc-8 --> ... --> kmalloc-8k --> caches of programs
#
# Every struct kmem_cache is itself an object of the cache "kmem_cache", but for that one and "magazine", which are
# needed to make the first: they lie in the kernel's data.

.text

# void slab_init(void)
# Make the caches that every other part stands on.
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_init:
    push rbp
    mov rbp, rsp
    call random_init
    lea rdi, [rip + slab_caches]
    call list_init
    mov edi, percpu.slots
    call magazine_disable               # slot 0, for every cache without magazines
    mov qword ptr [rip + percpu_slots_used], 1

    lea rdi, [rip + kmem_cache_cache]
    lea rsi, [rip + .Lslab_init_kmem_cache]
    mov edx, sizeof.kmem_cache
    call .Lslab_init_boot_cache
    lea rdi, [rip + magazine_cache]
    lea rsi, [rip + .Lslab_init_magazine]
    mov edx, sizeof.magazine
    call .Lslab_init_boot_cache
    call kmalloc_init
    call freelist_random_init
    pop rbp
    ret

    # rdi = struct kmem_cache, rsi = name, edx = size
.Lslab_init_boot_cache:
    xor ecx, ecx                        # align
    mov r8d, SLAB_HWCACHE_ALIGN | SLAB_NO_MAGAZINES | SLAB_BOOT
    xor r9d, r9d                        # ctor
    jmp kmem_cache_setup

# struct kmem_cache *kmem_cache_create(const char *name, size_t size, size_t align, u32 flags, void (*ctor)(void *))
# Make a cache of objects of one size.
#   in        rdi = name (31 bytes are kept; at least one, none of them a control character, which would break the
#             lines of slabinfo; no two caches may share one), rsi = size, 1 to SLAB_MAX_OBJECT,
#             rdx = alignment, 0 or a power of two up to PAGE_SIZE, rcx = flags among SLAB_CREATE_FLAGS,
#             r8 = constructor or 0
#   out       rax = cache, or 0 when an argument is wrong, the name is taken, or no page is left
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_create:
    mov eax, SLAB_CREATE_FLAGS
    not eax
    test rcx, rax
    jz kmem_cache_create_internal
    xor eax, eax
    ret

# The same, with flags that are the kernel's alone.
kmem_cache_create_internal:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push r15
    mov rbx, rdi                        # rbx = name
    mov r12, rsi                        # r12 = size
    mov r13, rdx                        # r13 = align
    mov r14, rcx                        # r14 = flags
    mov r15, r8                         # r15 = ctor

    # 1. The arguments.
    lea rax, [r12 - 1]
    cmp rax, SLAB_MAX_OBJECT
    jae .Lkmem_cache_create_none
    cmp r13, PAGE_SIZE
    ja .Lkmem_cache_create_none
    lea rax, [r13 - 1]
    test rax, r13
    jnz .Lkmem_cache_create_none        # more than one bit is set
    test rbx, rbx
    jz .Lkmem_cache_create_none
    cmp byte ptr [rbx], 0
    je .Lkmem_cache_create_none
    xor ecx, ecx                        # rcx = characters that are good
.Lkmem_cache_create_name:
    mov al, [rbx + rcx]
    test al, al
    jz .Lkmem_cache_create_named
    cmp al, ' '
    jb .Lkmem_cache_create_none
    cmp al, 0x7f
    je .Lkmem_cache_create_none
    inc ecx
    cmp ecx, sizeof.kmem_cache.name - 1
    jb .Lkmem_cache_create_name
.Lkmem_cache_create_named:

    # 2. A struct kmem_cache.
    lea rdi, [rip + kmem_cache_cache]
    call kmem_cache_alloc
    test rax, rax
    jz .Lkmem_cache_create_none
    mov rdi, rax                        # rdi = cache
    mov rsi, rbx
    mov edx, r12d
    mov ecx, r13d
    mov r8d, r14d
    mov r9, r15
    mov rbx, rdi                        # rbx = cache
    call kmem_cache_setup
    test rax, rax
    jz .Lkmem_cache_create_taken
    mov rdi, rax
    call freelist_random_seq
    mov rax, rbx
    jmp .Lkmem_cache_create_out

    # 3. The name is taken.
.Lkmem_cache_create_taken:
    lea rdi, [rip + kmem_cache_cache]
    mov rsi, rbx
    call kmem_cache_free
.Lkmem_cache_create_none:
    xor eax, eax
.Lkmem_cache_create_out:
    pop r15
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# struct kmem_cache *kmem_cache_setup(struct kmem_cache *cache, const char *name, u32 size, u32 align, u32 flags, void *ctor)
# Fill in a struct kmem_cache and put it at the end of slab_caches.
#   in        rdi = cache, its contents unknown; rsi = name, edx = size, ecx = align, r8d = flags, r9 = ctor
#   out       rax = cache, or 0 when the name is taken
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_setup:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = name

    # 1. What the caller says; everything else is 0.
    mov esi, ecx                        # esi = align
    xor eax, eax
    mov ecx, sizeof.kmem_cache
    rep stosb
    mov [rbx + kmem_cache.object_size], edx
    mov [rbx + kmem_cache.align], esi
    mov r13d, r8d                       # r13 = flags
    mov [rbx + kmem_cache.ctor], r9
    lea rdi, [rbx + kmem_cache.name]
    mov rsi, r12
    mov edx, sizeof.kmem_cache.name
    call strscpy

    # 2. What follows from it.
    mov rdi, rbx
    mov esi, r13d
    call slab_debug_layout
    mov rdi, rbx
    call freelist_secret
    mov rax, [rip + boot_params]
    mov ecx, [rax + boot_info.empty_slab_limit]
    mov [rbx + kmem_cache.empty_limit], ecx
    lea rdi, [rbx + kmem_cache.partial]
    call list_init
    lea rdi, [rbx + kmem_cache.full]
    call list_init
    lea rdi, [rbx + kmem_cache.empty]
    call list_init

    # 3. A name of its own, and a place in front of this CPU.
    lea rdi, [rip + slab_caches_lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags
    lea rdi, [rbx + kmem_cache.name]
    call kmem_cache_find
    test rax, rax
    jnz .Lkmem_cache_setup_taken
    mov rdi, rbx
    call percpu_slot_take
    lea rdi, [rbx + kmem_cache.list]
    lea rsi, [rip + slab_caches]
    call list_add_tail
    jmp .Lkmem_cache_setup_unlock
.Lkmem_cache_setup_taken:
    xor ebx, ebx
.Lkmem_cache_setup_unlock:
    lea rdi, [rip + slab_caches_lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    mov rax, rbx
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# struct kmem_cache *kmem_cache_find(const char *name)
# The cache of that name. slab_caches_lock is held.
#   in        rdi = name
#   out       rax = cache, or 0
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_find:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov r12, rdi                        # r12 = name
    lea rbx, [rip + slab_caches]
.Lkmem_cache_find_next:
    mov rbx, [rbx + list_head.next]     # rbx = link of a cache
    lea rax, [rip + slab_caches]
    cmp rbx, rax
    je .Lkmem_cache_find_none
    mov rdi, r12
    mov rsi, rbx
    sub rsi, kmem_cache.list
    add rsi, kmem_cache.name
    call strcmp
    test eax, eax
    jnz .Lkmem_cache_find_next
    mov rax, rbx
    sub rax, kmem_cache.list
    jmp .Lkmem_cache_find_out
.Lkmem_cache_find_none:
    xor eax, eax
.Lkmem_cache_find_out:
    pop r12
    pop rbx
    pop rbp
    ret

# int kmem_cache_shrink(struct kmem_cache *cache)
# Drain this CPU's magazines and the depot, and give back every empty slab.
#   in        rdi = cache
#   out       rax = 0 when the cache has no slab left, else 1
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_shrink:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    mov rbx, rdi                        # rbx = cache
    call magazine_drain
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags
.Lkmem_cache_shrink_slab:
    lea rcx, [rbx + kmem_cache.empty]
    mov rsi, [rcx + list_head.next]
    cmp rsi, rcx
    je .Lkmem_cache_shrink_done
    sub rsi, page.next                  # rsi = struct page of an empty slab
    mov rdi, rbx
    mov edx, SLAB_LIST_NONE
    call slab_move
    call slab_destroy
    jmp .Lkmem_cache_shrink_slab
.Lkmem_cache_shrink_done:
    mov r12d, [rbx + kmem_cache.nr_partial]
    or r12d, [rbx + kmem_cache.nr_full]
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    xor eax, eax
    test r12d, r12d
    setnz al
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# long kmem_cache_destroy(struct kmem_cache *cache)
# Give back everything that a cache has, itself included. 0 is accepted.
#   in        rdi = cache
#   out       rax = 0; -EBUSY when callers still hold objects, -EINVAL for a cache made at boot: it lives on
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_destroy:
    xor eax, eax
    test rdi, rdi
    jz .Lkmem_cache_destroy_nothing
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov eax, EINVAL
    test dword ptr [rbx + kmem_cache.flags], SLAB_BOOT
    jnz .Lkmem_cache_destroy_error
    call kmem_cache_shrink
    test eax, eax
    jnz .Lkmem_cache_destroy_busy
    lea rdi, [rip + slab_caches_lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = saved flags
    lea rdi, [rbx + kmem_cache.list]
    call list_del
    mov rdi, rbx
    call percpu_slot_release
    lea rdi, [rip + slab_caches_lock]
    mov rsi, r12
    call spin_unlock_irqrestore
    mov rdi, [rbx + kmem_cache.random_seq]
    call kfree
    lea rdi, [rip + kmem_cache_cache]
    mov rsi, rbx
    call kmem_cache_free
    xor eax, eax
    jmp .Lkmem_cache_destroy_out

.Lkmem_cache_destroy_busy:
    mov rdi, rbx
    call list_remaining
    cmp qword ptr [rip + slab_debug_state + slab_debug_state.quiet], 0
    jne .Lkmem_cache_destroy_quiet
    lea rdi, [rip + .Lkmem_cache_destroy_message]
    lea rsi, [rbx + kmem_cache.name]
    xor eax, eax
    call kprintf
.Lkmem_cache_destroy_quiet:
    mov eax, EBUSY
.Lkmem_cache_destroy_error:
    neg rax
.Lkmem_cache_destroy_out:
    pop r12
    pop rbx
    pop rbp
.Lkmem_cache_destroy_nothing:
    ret

# void percpu_slot_take(struct kmem_cache *cache)
# Give a cache its slot in the per-CPU data; slot 0 when it goes without magazines, or when all slots are taken.
# slab_caches_lock is held.
#   in        rdi = cache
#   clobbers  rax rcx rdx rdi
percpu_slot_take:
    mov rax, [rip + boot_params]
    test qword ptr [rax + boot_info.flags], BOOT_NO_MAGAZINES
    jz .Lpercpu_slot_take_allowed
    or dword ptr [rdi + kmem_cache.flags], SLAB_NO_MAGAZINES
.Lpercpu_slot_take_allowed:
    xor ecx, ecx                        # ecx = slot
    test dword ptr [rdi + kmem_cache.flags], SLAB_NO_MAGAZINES
    jnz .Lpercpu_slot_take_found
    lea rdx, [rip + percpu_slots_used]
.Lpercpu_slot_take_next:
    inc ecx
    cmp ecx, PERCPU_SLOTS
    je .Lpercpu_slot_take_full
    bts dword ptr [rdx], ecx
    jc .Lpercpu_slot_take_next
    jmp .Lpercpu_slot_take_found
.Lpercpu_slot_take_full:
    xor ecx, ecx
.Lpercpu_slot_take_found:
    mov eax, ecx
    imul eax, eax, sizeof.kmem_cache_cpu
    add eax, percpu.slots
    mov [rdi + kmem_cache.cpu], rax
    test ecx, ecx
    jz .Lpercpu_slot_take_out
    mov edi, eax
    mov qword ptr gs:[rdi + kmem_cache_cpu.alloc_fastpath], 0
    mov qword ptr gs:[rdi + kmem_cache_cpu.free_fastpath], 0
    jmp magazine_disable                # until the first call that finds no object or no room
.Lpercpu_slot_take_out:
    ret

# void percpu_slot_release(struct kmem_cache *cache)
# Take a cache's slot back; slot 0 belongs to nobody. slab_caches_lock is held.
#   in        rdi = cache, drained
#   clobbers  rax rcx rdx
percpu_slot_release:
    mov rax, [rdi + kmem_cache.cpu]
    sub rax, percpu.slots
    jz .Lpercpu_slot_release_out
    xor edx, edx
    mov ecx, sizeof.kmem_cache_cpu
    div rcx                             # eax = slot
    lea rdx, [rip + percpu_slots_used]
    btr dword ptr [rdx], eax
.Lpercpu_slot_release_out:
    ret

.rodata
.Lslab_init_kmem_cache:
    .asciz "kmem_cache"
.Lslab_init_magazine:
    .asciz "magazine"
.Lkmem_cache_destroy_message:
    .asciz "kmem_cache_destroy: %s still has objects in use\n"

.bss
.p2align 3
slab_caches:                            # struct list_head, through kmem_cache.list
    .zero sizeof.list_head
slab_caches_lock:                       # guards slab_caches and percpu_slots_used
    .zero 8
percpu_slots_used:                      # a bit for each slot
    .zero (PERCPU_SLOTS + 1) / 8
kmem_cache_cache:                       # struct kmem_cache "kmem_cache"
    .zero sizeof.kmem_cache
magazine_cache:                         # struct kmem_cache "magazine"
    .zero sizeof.kmem_cache
