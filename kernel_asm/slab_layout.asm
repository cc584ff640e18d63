# How a cache cuts its slabs, as calculate_sizes() and calculate_order() do in Linux's mm/slub.c.
#
#   a slab: 2^order pages
#   |<-colour->|<----- size ----->|<----- size ----->| ...                                    |<- what is left ->|
#   |          | object 0         | object 1         |          | object n - 1                |                  |
#              /                   \
#   an object  | red_left_pad | object_size bytes | to a word | metadata ... | to align |
#                             ^
#                             what callers hold; the free pointer of a free object lies offset bytes behind it
#
# Without debugging there is no red_left_pad, and no metadata but the free pointer of a cache with a constructor
# (slab_object.asm draws the rest).

.text

# void slab_layout(struct kmem_cache *cache)
# From object_size, align, flags and ctor compute everything else that describes the cache's slabs.
#   in        rdi = cache
#   clobbers  rax rcx rdx rsi r8-r11
slab_layout:
    # 1. Alignment: a word at least; with SLAB_HWCACHE_ALIGN a cache line, or the largest half, quarter ... of one
    #    that still holds the object.
    mov ecx, [rdi + kmem_cache.align]   # ecx = align
    mov esi, [rdi + kmem_cache.object_size] # esi = object_size
    mov eax, 8
    cmp ecx, eax
    cmovb ecx, eax
    test dword ptr [rdi + kmem_cache.flags], SLAB_HWCACHE_ALIGN
    jz .Lslab_layout_aligned
    mov eax, CACHE_LINE
.Lslab_layout_line:
    mov edx, eax
    shr edx, 1
    cmp esi, edx
    ja .Lslab_layout_line_found
    mov eax, edx
    jmp .Lslab_layout_line
.Lslab_layout_line_found:
    cmp ecx, eax
    cmovb ecx, eax
.Lslab_layout_aligned:
    mov [rdi + kmem_cache.align], ecx

    # 2. Bytes up to the metadata. Red zones need one at least; poison must leave a constructor's work alone.
    mov r8d, [rdi + kmem_cache.flags]   # r8d = flags
    lea eax, [rsi + 7]
    and eax, -8                         # eax = bytes so far
    test r8d, SLAB_RED_ZONE
    jz .Lslab_layout_metadata
    cmp eax, esi
    jne .Lslab_layout_metadata
    add eax, 8
.Lslab_layout_metadata:
    mov [rdi + kmem_cache.metadata], eax
    test r8d, SLAB_POISON
    jz .Lslab_layout_pointer
    cmp qword ptr [rdi + kmem_cache.ctor], 0
    jne .Lslab_layout_pointer
    or dword ptr [rdi + kmem_cache.flags], SLAB_OBJECT_POISON

    # 3. The free pointer: in the middle of the free object, away from both neighbours; behind the object where a
    #    constructor's work, poison, or the red zone behind the bytes asked for must survive.
.Lslab_layout_pointer:
    mov edx, esi
    shr edx, 1
    and edx, -8                         # edx = offset inside the object
    cmp qword ptr [rdi + kmem_cache.ctor], 0
    jne .Lslab_layout_outside
    test r8d, SLAB_POISON
    jnz .Lslab_layout_outside
    test r8d, SLAB_RED_ZONE
    jz .Lslab_layout_inside
    cmp esi, 8
    jb .Lslab_layout_outside
    mov r9d, r8d
    and r9d, SLAB_STORE_USER | SLAB_KMALLOC
    cmp r9d, SLAB_STORE_USER | SLAB_KMALLOC
    jne .Lslab_layout_inside
.Lslab_layout_outside:
    mov edx, eax
    add eax, 8
.Lslab_layout_inside:
    mov [rdi + kmem_cache.offset], edx

    # 4. Owners, the size that was asked for, and a red zone in front.
    test r8d, SLAB_STORE_USER
    jz .Lslab_layout_no_owners
    add eax, 2 * sizeof.track
    test r8d, SLAB_KMALLOC
    jz .Lslab_layout_no_owners
    add eax, 4
.Lslab_layout_no_owners:
    mov dword ptr [rdi + kmem_cache.red_left_pad], 0
    test r8d, SLAB_RED_ZONE
    jz .Lslab_layout_distance
    mov [rdi + kmem_cache.red_left_pad], ecx # a word at least, and a multiple of align
    lea eax, [rax + rcx + 8]            # and a word that catches what lies before the next one's

    # 5. The distance from one object to the next.
.Lslab_layout_distance:
    lea eax, [rax + rcx + -1]
    mov edx, ecx
    neg edx
    and eax, edx
    mov [rdi + kmem_cache.size], eax
    mov r8d, eax                        # r8d = size

    # 6. The smallest order whose slab wastes at most an eighth of itself.
    mov r9d, PAGE_SIZE                  # r9d = bytes of a slab
    xor r10d, r10d                      # r10d = order
.Lslab_layout_order:
    mov eax, r9d
    xor edx, edx
    div r8d                             # eax = objects, edx = bytes left over
    test eax, eax
    jz .Lslab_layout_larger
    mov r11d, r9d
    shr r11d, 3
    cmp edx, r11d
    jbe .Lslab_layout_order_found
.Lslab_layout_larger:
    shl r9d, 1
    inc r10d
    jmp .Lslab_layout_order
.Lslab_layout_order_found:
    mov [rdi + kmem_cache.order], r10d
    mov [rdi + kmem_cache.objects], eax

    # 7. Colours: what is left over lets slabs begin at different cache lines. Under debugging it is padding.
    xor r9d, r9d
    test dword ptr [rdi + kmem_cache.flags], SLAB_DEBUG_FLAGS
    cmovnz edx, r9d
    mov r9d, CACHE_LINE
    cmp ecx, r9d
    cmovb ecx, r9d
    mov [rdi + kmem_cache.colour_step], ecx
    mov eax, edx
    xor edx, edx
    div ecx
    inc eax
    mov [rdi + kmem_cache.colour], eax

    # 8. Magazines: fewer rounds for larger objects, so that a CPU does not sit on much memory.
    lea rdx, [rip + magazine_rounds]
.Lslab_layout_rounds:
    mov eax, [rdx + magazine_size.rounds]
    cmp r8d, [rdx + magazine_size.largest]
    lea rdx, [rdx + sizeof.magazine_size]
    ja .Lslab_layout_rounds
    mov [rdi + kmem_cache.rounds], eax
    ret

.rodata
.p2align 2
magazine_rounds:                        # struct magazine_size: objects up to this size, rounds of a magazine
    .long 256, MAGAZINE_ROUNDS
    .long 1024, 15
    .long 4096, 7
    .long 0xffffffff, 3
