# Magazines: each CPU's own stacks of free objects in front of the slabs (Bonwick and Adams, "Magazines and Vmem",
# USENIX 2001).
#
#   kmem_cache.cpu is the GS offset of this CPU's struct kmem_cache_cpu:
#
#     top ------------------------------------------+         limit --+
#                                                   v                 v
#     loaded   -> | next | rounds | 0 | obj 0 | obj 1 |     |     |     |
#                                   ^         ^
#                                   bottom    the next to be taken
#     previous -> a magazine that is full or empty, never in between
#     depot:   lists of full and of empty magazines, shared by the CPUs
#
# A cache without magazines points at slot 0, whose top equals limit and lies behind a 0: it is empty and full at
# once, and every call takes the slow path. So does a cache whose magazines have not been made yet. While a magazine
# is loaded, top alone says how many objects it has.

.text

# void *magazine_find_object(struct kmem_cache *cache, u64 cpu)
# Pop an object from the loaded magazine; when it is empty, from the previous one, a full one of the depot, or after
# a refill from one slab. The cache's lock is held.
#   in        rdi = cache, rsi = GS offset of struct kmem_cache_cpu
#   out       rax = object, or 0 when every slab is full
#   clobbers  rcx rdx rsi rdi r8-r11
magazine_find_object:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = GS offset
    mov rcx, gs:[r12 + kmem_cache_cpu.top]
    mov rax, [rcx - 8]
    test rax, rax
    jnz .Lmagazine_find_object_pop

    # 1. The previous magazine, if it is the full one of the two.
    mov r8, gs:[r12 + kmem_cache_cpu.previous]
    cmp qword ptr [r8 + magazine.rounds], 0
    jne .Lmagazine_find_object_load

    # 2. A full one from the depot, in exchange for the previous one, which is empty.
    cmp dword ptr [rbx + kmem_cache.nr_depot_full], 0
    je .Lmagazine_find_object_refill
    lea rdi, [rbx + kmem_cache.depot_empty]
    lea rdx, [rbx + kmem_cache.nr_depot_empty]
    mov rsi, r8
    call depot_push
    lea rdi, [rbx + kmem_cache.depot_full]
    lea rdx, [rbx + kmem_cache.nr_depot_full]
    call depot_pop
    mov r8, rax
    inc qword ptr [rbx + kmem_cache.exchanges]
.Lmagazine_find_object_load:
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r8
    call magazine_load
    jmp .Lmagazine_find_object_top

    # 3. Neither: fill the loaded one from one slab.
.Lmagazine_find_object_refill:
    mov rdi, rbx
    mov rsi, r12
    call magazine_refill
.Lmagazine_find_object_top:
    mov rcx, gs:[r12 + kmem_cache_cpu.top]
    mov rax, [rcx - 8]
    test rax, rax
    jz .Lmagazine_find_object_out
.Lmagazine_find_object_pop:
    sub qword ptr gs:[r12 + kmem_cache_cpu.top], 8
.Lmagazine_find_object_out:
    pop r12
    pop rbx
    pop rbp
    ret

# bool magazine_find_room(struct kmem_cache *cache, u64 cpu)
# See to it that the loaded magazine has room: by the previous one, or by an empty one of the depot. The cache's lock
# is held.
#   in        rdi = cache, rsi = GS offset of struct kmem_cache_cpu
#   out       rax = 1, or 0 when there is no magazine with room
#   clobbers  rcx rdx rsi rdi r8-r11
magazine_find_room:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = GS offset
    mov rcx, gs:[r12 + kmem_cache_cpu.top]
    cmp rcx, gs:[r12 + kmem_cache_cpu.limit]
    jne .Lmagazine_find_room_yes

    # 1. The previous magazine, if it is the empty one of the two.
    mov r8, gs:[r12 + kmem_cache_cpu.previous]
    cmp qword ptr [r8 + magazine.rounds], 0
    je .Lmagazine_find_room_load

    # 2. An empty one from the depot, in exchange for the previous one, which is full.
    xor eax, eax
    cmp dword ptr [rbx + kmem_cache.nr_depot_empty], 0
    je .Lmagazine_find_room_out
    cmp dword ptr [rbx + kmem_cache.nr_depot_full], DEPOT_LIMIT
    jae .Lmagazine_find_room_out
    lea rdi, [rbx + kmem_cache.depot_full]
    lea rdx, [rbx + kmem_cache.nr_depot_full]
    mov rsi, r8
    call depot_push
    lea rdi, [rbx + kmem_cache.depot_empty]
    lea rdx, [rbx + kmem_cache.nr_depot_empty]
    call depot_pop
    mov r8, rax
    inc qword ptr [rbx + kmem_cache.exchanges]
.Lmagazine_find_room_load:
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r8
    call magazine_load
.Lmagazine_find_room_yes:
    mov eax, 1
.Lmagazine_find_room_out:
    pop r12
    pop rbx
    pop rbp
    ret

# void magazine_load(struct kmem_cache *cache, u64 cpu, struct magazine *magazine)
# Load a magazine; the one that was loaded becomes the previous one. Interrupts are off.
#   in        rdi = cache, rsi = GS offset of struct kmem_cache_cpu, rdx = magazine
#   clobbers  rax rcx
magazine_load:
    mov rax, gs:[rsi + kmem_cache_cpu.loaded]
    test rax, rax
    jz .Lmagazine_load_previous
    mov rcx, gs:[rsi + kmem_cache_cpu.top]
    sub rcx, rax
    sub rcx, magazine.objects
    shr rcx, 3
    mov [rax + magazine.rounds], rcx    # what top said of it until now
.Lmagazine_load_previous:
    mov gs:[rsi + kmem_cache_cpu.previous], rax
    mov gs:[rsi + kmem_cache_cpu.loaded], rdx
    lea rax, [rdx + magazine.objects]
    mov rcx, [rdx + magazine.rounds]
    lea rcx, [rax + rcx * 8]
    mov gs:[rsi + kmem_cache_cpu.top], rcx
    mov ecx, [rdi + kmem_cache.rounds]
    lea rcx, [rax + rcx * 8]
    mov gs:[rsi + kmem_cache_cpu.limit], rcx
    ret

# void magazine_refill(struct kmem_cache *cache, u64 cpu)
# Fill the loaded magazine, which is empty, with objects of one slab; what the slab would have given first is on top.
# Does nothing when every slab is full. The cache's lock is held.
#   in        rdi = cache, rsi = GS offset of struct kmem_cache_cpu
#   clobbers  rax rcx rdx rsi rdi r8-r11
magazine_refill:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = GS offset
    call slab_with_free_object
    test rax, rax
    jz .Lmagazine_refill_out
    mov r13, rax                        # r13 = struct page
    movzx eax, word ptr [r13 + page.objects]
    movzx ecx, word ptr [r13 + page.inuse]
    sub eax, ecx
    mov ecx, [rbx + kmem_cache.rounds]
    cmp eax, ecx
    cmova eax, ecx                      # eax = how many it gives
    mov rcx, gs:[r12 + kmem_cache_cpu.top]
    lea r14, [rcx + rax * 8]            # r14 = where the next one goes, from above
    mov gs:[r12 + kmem_cache_cpu.top], r14
    mov r12, rcx                        # r12 = the lowest place
.Lmagazine_refill_object:
    mov rdi, rbx
    mov rsi, r13
    call slab_take
    sub r14, 8
    mov [r14], rax
    cmp r14, r12
    jne .Lmagazine_refill_object
.Lmagazine_refill_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void magazine_flush(struct kmem_cache *cache, struct magazine *magazine)
# Put every object of a magazine that is not loaded back into its slab. The cache's lock is held.
#   in        rdi = cache, rsi = magazine
#   clobbers  rax rcx rdx rsi rdi r8-r11
magazine_flush:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = magazine
.Lmagazine_flush_object:
    mov rax, [r12 + magazine.rounds]
    test rax, rax
    jz .Lmagazine_flush_out
    dec rax
    mov [r12 + magazine.rounds], rax
    mov rsi, [r12 + rax * 8 + magazine.objects]
    mov rdi, rbx
    call slab_put
    jmp .Lmagazine_flush_object
.Lmagazine_flush_out:
    pop r12
    pop rbx
    pop rbp
    ret

# u64 magazine_prepare(struct kmem_cache *cache)
# Give this CPU its two magazines for a cache that uses magazines and has none here yet. Called without a lock.
#   in        rdi = cache
#   out       rax = GS offset of its struct kmem_cache_cpu, or 0 when the cache goes without
#   clobbers  rcx rdx rsi rdi r8-r11
magazine_prepare:
    mov rax, [rdi + kmem_cache.cpu]
    cmp rax, percpu.slots               # slot 0 is the disabled one
    je .Lmagazine_prepare_disabled
    cmp qword ptr gs:[rax + kmem_cache_cpu.loaded], 0
    je .Lmagazine_prepare_create
    ret
.Lmagazine_prepare_disabled:
    xor eax, eax
    ret

.Lmagazine_prepare_create:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r14, rax                        # r14 = GS offset
    call magazine_create
    mov r12, rax                        # r12 = the one to load
    test rax, rax
    jz .Lmagazine_prepare_without
    call magazine_create
    mov r13, rax                        # r13 = the previous one
    test rax, rax
    jz .Lmagazine_prepare_one

    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    push rax                            # [rsp] = saved flags
    push rax
    mov rax, gs:[r14 + kmem_cache_cpu.loaded]
    mov [rsp + 8], rax                  # [rsp + 8] = 0, unless an interrupt has been here first
    test rax, rax
    jnz .Lmagazine_prepare_unlock
    mov rdi, rbx
    mov rsi, r14
    mov rdx, r13
    call magazine_load
    mov rdx, r12
    call magazine_load
.Lmagazine_prepare_unlock:
    lea rdi, [rbx + kmem_cache.lock]
    pop rsi
    call spin_unlock_irqrestore
    pop rax
    test rax, rax
    mov rax, r14
    jz .Lmagazine_prepare_out

    # Then the two are two too many.
    mov rdi, r13
    call magazine_release
    mov rdi, r12
    call magazine_release
    mov rax, r14
    jmp .Lmagazine_prepare_out

.Lmagazine_prepare_one:
    mov rdi, r12
    call magazine_release
.Lmagazine_prepare_without:
    xor eax, eax
.Lmagazine_prepare_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# struct magazine *magazine_create(void)
#   out       rax = an empty magazine, or 0 when no page is left
#   clobbers  rcx rdx rsi rdi r8-r11
magazine_create:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + magazine_cache]
    call kmem_cache_alloc
    test rax, rax
    jz .Lmagazine_create_out
    mov qword ptr [rax + magazine.next], 0
    mov qword ptr [rax + magazine.rounds], 0
    mov qword ptr [rax + magazine.bottom], 0
.Lmagazine_create_out:
    pop rbp
    ret

# void magazine_release(struct magazine *magazine)
# Give an empty magazine back.
#   in        rdi = magazine
#   clobbers  rax rcx rdx rsi rdi r8-r11
magazine_release:
    mov rsi, rdi
    lea rdi, [rip + magazine_cache]
    jmp kmem_cache_free

# void depot_push(struct magazine **list, struct magazine *magazine, u32 *count)
#   in        rdi = list, rsi = magazine, rdx = how many are on it
#   clobbers  rax
depot_push:
    mov rax, [rdi]
    mov [rsi + magazine.next], rax
    mov [rdi], rsi
    inc dword ptr [rdx]
    ret

# struct magazine *depot_pop(struct magazine **list, u32 *count)
#   in        rdi = list, rdx = how many are on it
#   out       rax = magazine, or 0 when the list is empty
#   clobbers  rcx
depot_pop:
    mov rax, [rdi]
    test rax, rax
    jz .Ldepot_pop_out
    mov rcx, [rax + magazine.next]
    mov [rdi], rcx
    mov qword ptr [rax + magazine.next], 0
    dec dword ptr [rdx]
.Ldepot_pop_out:
    ret

# void magazine_disable(u64 cpu)
# Make a struct kmem_cache_cpu one without magazines.
#   in        rdi = GS offset of struct kmem_cache_cpu
#   clobbers  rax
magazine_disable:
    lea rax, [rip + .Lno_magazine_top]
    mov gs:[rdi + kmem_cache_cpu.top], rax
    mov gs:[rdi + kmem_cache_cpu.limit], rax
    mov qword ptr gs:[rdi + kmem_cache_cpu.loaded], 0
    mov qword ptr gs:[rdi + kmem_cache_cpu.previous], 0
    ret

# void magazine_drain(struct kmem_cache *cache)
# Put every object of this CPU's magazines and of the depot back into the slabs, and give the magazines back.
#   in        rdi = cache
#   clobbers  rax rcx rdx rsi rdi r8-r11
magazine_drain:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    xor r12d, r12d                      # r12 = magazines to give back, linked
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags

    # 1. This CPU's two. Loading the previous one makes rounds true in both.
    mov r14, [rbx + kmem_cache.cpu]
    mov rdx, gs:[r14 + kmem_cache_cpu.previous]
    test rdx, rdx
    jz .Lmagazine_drain_depot
    mov rdi, rbx
    mov rsi, r14
    call magazine_load
    mov rdi, gs:[r14 + kmem_cache_cpu.loaded]
    mov rsi, gs:[r14 + kmem_cache_cpu.previous]
    mov [rdi + magazine.next], rsi
    mov qword ptr [rsi + magazine.next], 0
    mov r12, rdi
    mov rdi, r14
    call magazine_disable

    # 2. The depot's.
.Lmagazine_drain_depot:
    lea rdi, [rbx + kmem_cache.depot_full]
    lea rdx, [rbx + kmem_cache.nr_depot_full]
    call depot_pop
    test rax, rax
    jnz .Lmagazine_drain_collect
    lea rdi, [rbx + kmem_cache.depot_empty]
    lea rdx, [rbx + kmem_cache.nr_depot_empty]
    call depot_pop
    test rax, rax
    jz .Lmagazine_drain_flush
.Lmagazine_drain_collect:
    mov [rax + magazine.next], r12
    mov r12, rax
    jmp .Lmagazine_drain_depot

    # 3. Their objects go back under the lock, the magazines themselves without it.
.Lmagazine_drain_flush:
    mov r14, r12                        # r14 = the next to be emptied
.Lmagazine_drain_one:
    test r14, r14
    jz .Lmagazine_drain_unlock
    mov rdi, rbx
    mov rsi, r14
    call magazine_flush
    mov r14, [r14 + magazine.next]
    jmp .Lmagazine_drain_one
.Lmagazine_drain_unlock:
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r13
    call spin_unlock_irqrestore
.Lmagazine_drain_release:
    mov rdi, r12
    test rdi, rdi
    jz .Lmagazine_drain_out
    mov r12, [rdi + magazine.next]
    call magazine_release
    jmp .Lmagazine_drain_release
.Lmagazine_drain_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
.p2align 3
.Lno_magazine:                          # what lies below top where there is no magazine
    .quad 0
.Lno_magazine_top:
    .quad 0
