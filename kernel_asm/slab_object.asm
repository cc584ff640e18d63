# One object under debugging: where its parts lie, what its bytes are, and who had it.
#
#   red_left_pad | object_size    | to metadata | free pointer | track track | size | ... up to size - red_left_pad
#   left         | the object     | right       | if outside   | alloc free  | asked| object padding
#   red zone     |                | red zone    |              | (U)         | (U, kmalloc)
#
#                  left, right zone   object                         padding
#   free           0xbb               0x6b ... 0x6b 0xa5 (poison)    0x5a
#   live           0xcc               the caller's                   0x5a
#
# With Z, U and SLAB_KMALLOC a live object's right red zone begins behind the bytes that were really asked for.

.text

# u32 slab_info_end(const struct kmem_cache *cache)
# Where the tracks of an object begin: behind its red zone and a free pointer that lies outside of it.
#   in        rdi = cache
#   out       eax = offset from the object's first byte
#   clobbers  nothing else
slab_info_end:
    mov eax, [rdi + kmem_cache.metadata]
    cmp [rdi + kmem_cache.offset], eax
    jb .Lslab_info_end_inside
    add eax, 8
.Lslab_info_end_inside:
    ret

# bool slab_keeps_size(const struct kmem_cache *cache)
# Whether the cache remembers how many bytes were asked for (Linux's slub_debug_orig_size).
#   in        rdi = cache
#   out       ZF = 0 when it does
#   clobbers  eax
slab_keeps_size:
    mov eax, [rdi + kmem_cache.flags]
    and eax, SLAB_STORE_USER | SLAB_KMALLOC
    cmp eax, SLAB_STORE_USER | SLAB_KMALLOC
    sete al
    test al, al
    ret

# u32 get_orig_size(struct kmem_cache *cache, const void *object)
# The bytes that were asked for; object_size where that is not kept, or what is kept cannot be.
#   in        rdi = cache, rsi = object
#   out       eax = bytes
#   clobbers  nothing else
get_orig_size:
    push rbp
    mov rbp, rsp
    call slab_keeps_size
    jz .Lget_orig_size_object
    call slab_info_end
    mov eax, [rsi + rax + 2 * sizeof.track]
    cmp eax, [rdi + kmem_cache.object_size]
    cmova eax, [rdi + kmem_cache.object_size]
    pop rbp
    ret
.Lget_orig_size_object:
    mov eax, [rdi + kmem_cache.object_size]
    pop rbp
    ret

# void set_orig_size(struct kmem_cache *cache, void *object, u32 size)
# Remember the bytes that were asked for, where that is kept.
#   in        rdi = cache, rsi = object, edx = bytes
#   clobbers  rax
set_orig_size:
    push rbp
    mov rbp, rsp
    call slab_keeps_size
    jz .Lset_orig_size_out
    call slab_info_end
    mov [rsi + rax + 2 * sizeof.track], edx
.Lset_orig_size_out:
    pop rbp
    ret

# void init_object(struct kmem_cache *cache, void *object, int value)
# Give every byte of an object that debugging watches its value.
#   in        rdi = cache, rsi = object, edx = SLUB_RED_ACTIVE or SLUB_RED_INACTIVE
#   clobbers  rax rcx rdx rsi rdi r8
init_object:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = object
    mov r13d, edx                       # r13 = value
    mov r14d, [rbx + kmem_cache.object_size] # r14 = bytes that are poisoned

    # 1. The left red zone. A live object's right one begins where its caller's bytes end.
    test dword ptr [rbx + kmem_cache.flags], SLAB_RED_ZONE
    jz .Linit_object_poison
    mov edx, [rbx + kmem_cache.red_left_pad]
    mov rdi, r12
    sub rdi, rdx
    mov esi, r13d
    call memset
    cmp r13d, SLUB_RED_ACTIVE
    jne .Linit_object_poison
    mov rdi, rbx
    mov rsi, r12
    call get_orig_size
    mov r14d, eax

    # 2. Poison.
.Linit_object_poison:
    test dword ptr [rbx + kmem_cache.flags], SLAB_OBJECT_POISON
    jz .Linit_object_right
    mov rdi, r12
    mov esi, POISON_FREE
    lea rdx, [r14 + -1]
    call memset
    mov byte ptr [r12 + r14 + -1], POISON_END

    # 3. The right red zone.
.Linit_object_right:
    test dword ptr [rbx + kmem_cache.flags], SLAB_RED_ZONE
    jz .Linit_object_out
    lea rdi, [r12 + r14]
    mov esi, r13d
    mov edx, [rbx + kmem_cache.metadata]
    sub edx, r14d
    call memset
.Linit_object_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void setup_object(struct kmem_cache *cache, void *object)
# Prepare an object of a new slab: it is free, and nobody has had it.
#   in        rdi = cache, rsi = object
#   clobbers  rax rcx rdx rsi rdi r8
setup_object:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = object
    mov edx, SLUB_RED_INACTIVE
    call init_object
    test dword ptr [rbx + kmem_cache.flags], SLAB_STORE_USER
    jz .Lsetup_object_out
    mov rdi, rbx
    call slab_info_end
    lea rdi, [r12 + rax]
    xor esi, esi
    mov edx, 2 * sizeof.track
    call memset
    mov rdi, rbx
    mov rsi, r12
    mov edx, [rbx + kmem_cache.object_size]
    call set_orig_size
.Lsetup_object_out:
    pop r12
    pop rbx
    pop rbp
    ret

# u32 save_stack(u64 *entries, const u64 *frame)
# The return addresses of a chain of frames, innermost first, as far as the chain makes sense.
#   in        rdi = room for TRACK_FRAMES entries, rsi = frame (what RBP points at)
#   out       eax = how many
#   clobbers  rcx rdx rsi rdi r8
save_stack:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    mov r12, rdi                        # r12 = entries
    mov rbx, rsi                        # rbx = frame
    xor r13d, r13d                      # r13 = how many
.Lsave_stack_frame:
    mov rdi, rbx
    call is_stack
    test eax, eax
    jz .Lsave_stack_out
    lea rdi, [rbx + 8]
    call is_stack
    test eax, eax
    jz .Lsave_stack_out
    mov rax, [rbx + 8]
    mov [r12 + r13 * 8], rax
    inc r13d
    cmp r13d, TRACK_FRAMES
    je .Lsave_stack_out
    mov rax, rbx
    mov rbx, [rbx]
    cmp rbx, rax                        # callers lie at higher addresses
    ja .Lsave_stack_frame
.Lsave_stack_out:
    mov eax, r13d
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void set_track(struct kmem_cache *cache, void *object, int which, const u64 *frame)
# Write down who allocates or frees an object, with U.
#   in        rdi = cache, rsi = object, edx = 0 for the allocation, 1 for the free, rcx = frame of the allocator's
#             function, whose return address lies in its caller
#   clobbers  rax rcx rdx rsi rdi r8
set_track:
    test dword ptr [rdi + kmem_cache.flags], SLAB_STORE_USER
    jz .Lset_track_nothing
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    call slab_info_end
    lea rbx, [rsi + rax]
    imul edx, edx, sizeof.track
    add rbx, rdx                        # rbx = struct track
    mov rax, [rcx + 8]
    mov [rbx + track.address], rax
    mov eax, gs:[percpu.cpu]
    mov [rbx + track.cpu], eax
    mov eax, 1
    lock xadd [rip + slab_debug_state + slab_debug_state.sequence], rax
    mov [rbx + track.sequence], rax
    lea rdi, [rbx + track.stack]
    mov rsi, rcx
    call save_stack
    mov [rbx + track.nr], eax
    pop rbx
    pop rbx
    pop rbp
.Lset_track_nothing:
    ret

.bss
.p2align 3
slab_debug_state:                       # struct slab_debug_state
    .zero sizeof.slab_debug_state
