# Free pointers, encoded or plain, and the order in which a new slab's objects are linked.
#
# A free object holds the address of the next one at kmem_cache.offset: plain, or, with freelist_hardened,
#
#   address ^ kmem_cache.random ^ byteswap(address of the place where it is stored)
#
# as in Linux's freelist_ptr_encode(). Encoding and decoding are the same three steps. kmem_cache.random is 0 in a
# kernel without freelist_hardened, and never 0 with it. page.freelist is not encoded: no object's bytes reach it.
# Magazines hold plain pointers in memory that no object overlaps: what is freed twice in a row is found when both
# come back to their slab.

# freelist_code value, place, cache, scratch[, object, trap]
# Encode or decode the free pointer in the register value, which is stored at place. With hardened pointers, go to
# trap when the pointer would lead from object to itself: it is freed twice (Linux's BUG_ON(object == fp)).
.macro freelist_code value, place, cache, scratch, object, trap
    mov \scratch, [\cache + kmem_cache.random]
    test \scratch, \scratch
    jz .Lfreelist_code_plain_\@
    .ifnb \object
    cmp \value, \object
    je \trap
    .endif
    xor \value, \scratch
    mov \scratch, \place
    bswap \scratch
    xor \value, \scratch
.Lfreelist_code_plain_\@:
.endm

.text

# void *get_freepointer(struct kmem_cache *cache, void *object)
# The free object behind this one.
#   in        rdi = cache, rsi = object
#   out       rax = object, or 0 at the end
#   clobbers  rcx rdx
get_freepointer:
    mov ecx, [rdi + kmem_cache.offset]
    add rcx, rsi                        # rcx = where it is stored
    mov rax, [rcx]
    freelist_code rax, rcx, rdi, rdx
    ret

# void set_freepointer(struct kmem_cache *cache, void *object, void *next)
#   in        rdi = cache, rsi = object, rdx = the free object behind it, or 0
#   clobbers  rax rcx rdx
set_freepointer:
    mov ecx, [rdi + kmem_cache.offset]
    add rcx, rsi                        # rcx = where it is stored
    freelist_code rdx, rcx, rdi, rax
    mov [rcx], rdx
    ret

# void freelist_secret(struct kmem_cache *cache)
# With freelist_hardened, give a new cache its secret.
#   in        rdi = cache
#   clobbers  rax rcx rdi
freelist_secret:
    mov rax, [rip + boot_params]
    cmp dword ptr [rax + boot_info.freelist_hardened], 0
    je .Lfreelist_secret_none
    push rbp
    mov rbp, rsp
    push rdi
    lea rdi, [rip + random_state]
.Lfreelist_secret_draw:
    call random_next
    test rax, rax
    jz .Lfreelist_secret_draw
    pop rdi
    mov [rdi + kmem_cache.random], rax
    pop rbp
.Lfreelist_secret_none:
    ret

# void freelist_random_init(void)
# With freelist_random, give the caches that were made before kmalloc their order.
#   clobbers  rax rcx rdx rsi rdi r8-r11
freelist_random_init:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    mov byte ptr [rip + freelist_random_ready], 1
    lea rbx, [rip + slab_caches]
.Lfreelist_random_init_next:
    mov rbx, [rbx + list_head.next]     # rbx = link of a cache
    lea rax, [rip + slab_caches]
    cmp rbx, rax
    je .Lfreelist_random_init_done
    mov rdi, rbx
    sub rdi, kmem_cache.list
    call freelist_random_seq
    jmp .Lfreelist_random_init_next
.Lfreelist_random_init_done:
    pop rbx
    pop rbx
    pop rbp
    ret

# void freelist_random_seq(struct kmem_cache *cache)
# With freelist_random, make the order in which this cache's objects are linked: a permutation of their numbers
# (Fisher and Yates). A cache for which there is no memory keeps the order of addresses.
#   in        rdi = cache
#   clobbers  rax rcx rdx rsi rdi r8-r11
freelist_random_seq:
    mov rax, [rip + boot_params]
    cmp dword ptr [rax + boot_info.freelist_random], 0
    je .Lfreelist_random_seq_none
    cmp byte ptr [rip + freelist_random_ready], 0
    je .Lfreelist_random_seq_none
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov edi, [rbx + kmem_cache.objects]
    add edi, edi
    call kmalloc
    test rax, rax
    jz .Lfreelist_random_seq_out
    mov r8, rax                         # r8 = u16 sequence[objects]
    xor ecx, ecx
.Lfreelist_random_seq_fill:
    mov [r8 + rcx * 2], cx
    inc ecx
    cmp ecx, [rbx + kmem_cache.objects]
    jb .Lfreelist_random_seq_fill

    # From the last one down, each changes places with itself or one before it.
    mov r12d, ecx                       # r12 = entries that may still change
.Lfreelist_random_seq_swap:
    cmp r12d, 1
    jbe .Lfreelist_random_seq_done
    lea rdi, [rip + freelist_random_state]
    mov rsi, r12
    call random_below
    dec r12d
    movzx ecx, word ptr [r8 + rax * 2]
    movzx edx, word ptr [r8 + r12 * 2]
    mov [r8 + rax * 2], dx
    mov [r8 + r12 * 2], cx
    jmp .Lfreelist_random_seq_swap
.Lfreelist_random_seq_done:
    mov [rbx + kmem_cache.random_seq], r8
.Lfreelist_random_seq_out:
    pop r12
    pop rbx
    pop rbp
.Lfreelist_random_seq_none:
    ret

# void freelist_shuffle(struct kmem_cache *cache, struct page *page, void *first)
# Link a new slab's objects in the cache's random order, from a random place of it on (Linux's shuffle_freelist).
#   in        rdi = cache with random_seq, rsi = struct page, rdx = first object
#   clobbers  rax rcx rdx rsi rdi r8-r11
freelist_shuffle:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    mov r13, rdx                        # r13 = first object
    lea rdi, [rip + freelist_random_state]
    mov esi, [rbx + kmem_cache.objects]
    call random_below
    mov r14, rax                        # r14 = place in the sequence
    mov r8d, [rbx + kmem_cache.objects] # r8 = objects to go
    mov r9, [rbx + kmem_cache.random_seq]
    xor r10d, r10d                      # r10 = the object before, none yet
    mov rdi, rbx
.Lfreelist_shuffle_object:
    movzx eax, word ptr [r9 + r14 * 2]
    mov ecx, [rbx + kmem_cache.size]
    imul rax, rcx
    lea rdx, [r13 + rax]                # rdx = object
    mov r11, rdx
    test r10, r10
    jnz .Lfreelist_shuffle_link
    mov [r12 + page.freelist], rdx
    jmp .Lfreelist_shuffle_next
.Lfreelist_shuffle_link:
    mov rsi, r10
    call set_freepointer
.Lfreelist_shuffle_next:
    mov r10, r11
    inc r14d
    xor eax, eax
    cmp r14d, [rbx + kmem_cache.objects]
    cmove r14d, eax
    dec r8d
    jnz .Lfreelist_shuffle_object
    mov rsi, r10
    xor edx, edx
    call set_freepointer
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.bss
freelist_random_ready:                  # u8: kmalloc can be called
    .zero 1
