# How a cache cuts its slabs, as calculate_sizes() and calculate_order() do in Linux's mm/slub.c.
#
#   a slab: 2^order pages
#   |<-colour->|<----- size ----->|<----- size ----->| ...                                    |<- what is left ->|
#   |          | object 0         | object 1         |          | object n - 1                |                  |
#              /                   \
#   an object  | red_left_pad | object_size bytes | to a word | metadata ... | to align |
#                             ^
#                             what callers hold; the free pointer of a free object lies offset bytes behind it

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

    # 2. The free pointer: in the middle of the free object, away from both neighbours; behind the object where a
    #    constructor's work must survive.
    lea eax, [rsi + 7]
    and eax, -8
    mov [rdi + kmem_cache.metadata], eax # eax = bytes up to the metadata
    mov edx, esi
    shr edx, 1
    and edx, -8                         # edx = offset inside the object
    cmp qword ptr [rdi + kmem_cache.ctor], 0
    je .Lslab_layout_offset
    mov edx, eax
    add eax, 8
.Lslab_layout_offset:
    mov [rdi + kmem_cache.offset], edx

    # 3. The distance from one object to the next.
    lea eax, [rax + rcx - 1]
    mov edx, ecx
    neg edx
    and eax, edx
    mov [rdi + kmem_cache.size], eax
    mov r8d, eax                        # r8d = size

    # 4. The smallest order whose slab wastes at most an eighth of itself.
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

    # 5. Colours: what is left over lets slabs begin at different cache lines.
    mov r9d, CACHE_LINE
    cmp ecx, r9d
    cmovb ecx, r9d
    mov [rdi + kmem_cache.colour_step], ecx
    mov eax, edx
    xor edx, edx
    div ecx
    inc eax
    mov [rdi + kmem_cache.colour], eax

    # 6. Magazines: fewer rounds for larger objects, so that a CPU does not sit on much memory.
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
