# One slab: made of pages, handed out object by object, and given back.
#
#   struct page of the first frame               objects
#   +-----------+                                +-----+-----+-----+-----+-----+
#   | freelist  |------------------------------->|     | 1 --|---->| 3 --|--> 0    free ones are linked through
#   | inuse = 3 |                                +-----+-----+-----+-----+-----+    their own memory
#   | list      |-> partial, full or empty
#   | cache     |
#   +-----------+
#
# The lists of a cache, in the order of SLAB_LIST_*:
#   partial   some objects in, some out; allocations come from here
#   full      every object is out
#   empty     every object is in; at most empty_limit of them are kept

.text

# struct page *slab_create(struct kmem_cache *cache)
# Take pages, cut them into objects, construct these and link them in address order. The slab is on no list yet.
# Called without the cache's lock: a constructor may allocate.
#   in        rdi = cache
#   out       rax = struct page of the first frame, or 0 when no pages are left
#   clobbers  rcx rdx rsi rdi r8-r11
slab_create:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache

    # 1. Pages.
    mov edi, [rbx + kmem_cache.order]
    call get_free_pages
    test rax, rax
    jz .Lslab_create_out
    mov r13, rax                        # r13 = address of the slab
    mov rdi, rax
    call virt_to_page
    mov r12, rax                        # r12 = struct page of its first frame

    # 2. Each slab of a cache begins at the next colour.
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov ecx, [rbx + kmem_cache.colour_next]
    lea edx, [rcx + 1]
    xor esi, esi
    cmp edx, [rbx + kmem_cache.colour]
    cmovae edx, esi
    mov [rbx + kmem_cache.colour_next], edx
    inc qword ptr [rbx + kmem_cache.alloc_slab]
    mov rsi, rax
    call spin_unlock_irqrestore
    imul ecx, [rbx + kmem_cache.colour_step] # ecx = bytes before the first object

    # 3. The slab's state, and the way from each of its frames to the cache.
    mov [r12 + page.colour], ecx
    mov eax, [rbx + kmem_cache.objects]
    mov [r12 + page.objects], ax
    mov word ptr [r12 + page.inuse], 0
    mov byte ptr [r12 + page.list], SLAB_LIST_NONE
    mov qword ptr [r12 + page.freelist], 0
    add r13, rcx
    mov eax, [rbx + kmem_cache.red_left_pad]
    add r13, rax                        # r13 = first object
    mov ecx, [rbx + kmem_cache.order]
    mov eax, 1
    shl eax, cl
    mov rdx, r12
.Lslab_create_frame:
    or dword ptr [rdx + page.flags], PG_SLAB
    mov [rdx + page.cache], rbx
    add rdx, sizeof.page
    dec eax
    jnz .Lslab_create_frame

    # 4. Construct the objects.
    test dword ptr [rbx + kmem_cache.flags], SLAB_DEBUG_FLAGS
    jz .Lslab_create_construct
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    call setup_slab
.Lslab_create_construct:
    mov r14d, [rbx + kmem_cache.objects] # r14 = objects to go
.Lslab_create_object:
    mov rax, [rbx + kmem_cache.ctor]
    test rax, rax
    jz .Lslab_create_constructed
    mov rdi, r13
    call rax
.Lslab_create_constructed:
    mov eax, [rbx + kmem_cache.size]
    add r13, rax
    dec r14d
    jnz .Lslab_create_object

    # 5. Link them, from the last one down, so that the first one is first on the free list; or at random.
    mov r14d, [rbx + kmem_cache.objects] # r14 = objects to go
    cmp qword ptr [rbx + kmem_cache.random_seq], 0
    jne .Lslab_create_shuffle
    xor eax, eax                        # rax = the free object behind
.Lslab_create_link:
    mov ecx, [rbx + kmem_cache.size]
    sub r13, rcx
    mov ecx, [rbx + kmem_cache.offset]
    add rcx, r13
    freelist_code rax, rcx, rbx, rdx
    mov [rcx], rax
    mov rax, r13
    dec r14d
    jnz .Lslab_create_link
    mov [r12 + page.freelist], rax
    mov rax, r12
    jmp .Lslab_create_out
.Lslab_create_shuffle:
    mov eax, [rbx + kmem_cache.size]
    imul rax, r14
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    sub rdx, rax
    call freelist_shuffle
    mov rax, r12
.Lslab_create_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void slab_add(struct kmem_cache *cache, struct page *page)
# Put a new slab on the list of empty ones. Called without the cache's lock.
#   in        rdi = cache, rsi = struct page
#   clobbers  rax rcx rdx rsi rdi r8 r9
slab_add:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    lea rdi, [rbx + kmem_cache.lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = saved flags
    mov rdi, rbx
    mov edx, SLAB_LIST_EMPTY
    call slab_move
    lea rdi, [rbx + kmem_cache.lock]
    mov rsi, r12
    call spin_unlock_irqrestore
    pop r12
    pop rbx
    pop rbp
    ret

# void slab_destroy(struct kmem_cache *cache, struct page *page)
# Give the pages of a slab back. It is on no list, and all its objects are in. The cache's lock is held.
#   in        rdi = cache, rsi = struct page of its first frame
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_destroy:
    push rbp
    mov rbp, rsp
    inc qword ptr [rdi + kmem_cache.free_slab]
    mov rdi, rsi
    call clear_page_use
    movzx esi, byte ptr [rdi + page.order]
    call page_address
    mov rdi, rax
    call free_pages
    pop rbp
    ret

# void slab_move(struct kmem_cache *cache, struct page *page, int list)
# Take a slab off the list it is on, if any, and put it at the head of another. The cache's lock is held.
#   in        rdi = cache, rsi = struct page, edx = SLAB_LIST_*, SLAB_LIST_NONE included
#   clobbers  rax rcx rdx r8 r9
slab_move:
    push rbp
    mov rbp, rsp
    mov r8, rdi                         # r8 = cache
    mov r9, rsi                         # r9 = struct page
    mov ecx, edx                        # ecx = list to go to

    movzx eax, byte ptr [r9 + page.list]
    cmp eax, SLAB_LIST_NONE
    je .Lslab_move_link
    dec eax                             # eax = 0 for partial, 1 for full, 2 for empty
    dec dword ptr [r8 + rax * 4 + kmem_cache.nr_partial]
    lea rdi, [r9 + page.next]
    call list_del

.Lslab_move_link:
    mov [r9 + page.list], cl
    cmp ecx, SLAB_LIST_NONE
    je .Lslab_move_done
    dec ecx
    inc dword ptr [r8 + rcx * 4 + kmem_cache.nr_partial]
    shl ecx, 4                          # sizeof.list_head is 16
    lea rdi, [r9 + page.next]
    lea rsi, [r8 + rcx + kmem_cache.partial]
    call list_add
.Lslab_move_done:
    mov rdi, r8
    mov rsi, r9
    pop rbp
    ret

# struct page *slab_with_free_object(struct kmem_cache *cache)
# The slab that the next object comes from: a partial one, else an empty one. The cache's lock is held.
#   in        rdi = cache
#   out       rax = struct page, or 0 when every slab is full
#   clobbers  rcx
slab_with_free_object:
    lea rcx, [rdi + kmem_cache.partial]
    mov rax, [rcx + list_head.next]
    cmp rax, rcx
    jne .Lslab_with_free_object_found
    lea rcx, [rdi + kmem_cache.empty]
    mov rax, [rcx + list_head.next]
    cmp rax, rcx
    jne .Lslab_with_free_object_found
    xor eax, eax
    ret
.Lslab_with_free_object_found:
    sub rax, page.next
    ret

# void *slab_take(struct kmem_cache *cache, struct page *page)
# Take the first free object of a slab that has one. The cache's lock is held.
#   in        rdi = cache, rsi = struct page
#   out       rax = object
#   clobbers  rcx rdx r8-r10
slab_take:
    push rbp
    mov rbp, rsp
    mov r10, [rsi + page.freelist]      # r10 = object
    mov ecx, [rdi + kmem_cache.offset]
    add rcx, r10
    mov rdx, [rcx]
    freelist_code rdx, rcx, rdi, rax    # rdx = the free object after it
    mov [rsi + page.freelist], rdx
    inc word ptr [rsi + page.inuse]
    mov edx, SLAB_LIST_PARTIAL
    mov ecx, SLAB_LIST_FULL
    movzx eax, word ptr [rsi + page.inuse]
    cmp ax, [rsi + page.objects]
    cmove edx, ecx                      # edx = the list it belongs on now
    cmp [rsi + page.list], dl
    je .Lslab_take_done
    call slab_move
.Lslab_take_done:
    mov rax, r10
    pop rbp
    ret

# void slab_put(struct kmem_cache *cache, void *object)
# Put an object back into its slab. A slab that is empty now is kept, or given back when enough are kept already.
# The cache's lock is held.
#   in        rdi = cache, rsi = object
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_put:
    push rbp
    mov rbp, rsp

    # 1. The object's slab, which must be one of this cache.
    mov r8, rdi                         # r8 = cache
    mov rdi, rsi
    call virt_to_page
    test rax, rax
    jz .Lslab_put_bad
    test dword ptr [rax + page.flags], PG_SLAB
    jz .Lslab_put_bad
    cmp [rax + page.cache], r8
    jne .Lslab_put_bad
    mov r9, [rax + page.head]           # r9 = struct page of the slab's first frame

    # 2. It becomes the first free object. With hardened free pointers, it must not be that already.
    mov ecx, [r8 + kmem_cache.offset]
    add rcx, rsi
    mov rax, [r9 + page.freelist]
    freelist_code rax, rcx, r8, rdx, rsi, .Lslab_put_twice
    mov [rcx], rax
    mov [r9 + page.freelist], rsi

    # 3. The slab's list.
    mov rdi, r8
    mov rsi, r9
    mov edx, SLAB_LIST_PARTIAL
    dec word ptr [rsi + page.inuse]
    jnz .Lslab_put_list
    mov edx, SLAB_LIST_EMPTY
    mov eax, [rdi + kmem_cache.nr_empty]
    cmp eax, [rdi + kmem_cache.empty_limit]
    jae .Lslab_put_destroy
.Lslab_put_list:
    cmp [rsi + page.list], dl
    je .Lslab_put_done
    call slab_move
.Lslab_put_done:
    pop rbp
    ret
.Lslab_put_destroy:
    mov edx, SLAB_LIST_NONE
    call slab_move
    call slab_destroy
    jmp .Lslab_put_done

.Lslab_put_bad:
    lea rdx, [r8 + kmem_cache.name]
    lea rdi, [rip + .Lslab_put_message]
    call panic
.Lslab_put_twice:
    lea rdx, [r8 + kmem_cache.name]
    lea rdi, [rip + .Lslab_put_twice_message]
    call panic

.rodata
.Lslab_put_twice_message:
    .asciz "slab_put: 0x%016lx of cache %s is the head of its slab's free list already"
.Lslab_put_message:
    .asciz "kmem_cache_free: 0x%016lx is not an object of cache %s"
