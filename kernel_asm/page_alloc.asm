# The page allocator: free memory as blocks of 2^order pages, in the manner of Linux's mm/page_alloc.c.
#
#   mem_map      one struct page for each frame of RAM
#   free_areas   for each order a list of free blocks, linked through the struct page of their first frame
#
#   order 2   |<- block at 0 ->|<- block at 4 ->|     The buddy of a block of 2^k frames at frame f is the block
#   order 1   | 0  1 | 2  3 | 4  5 | 6  7 |           at f xor 2^k: the other half of the block of 2^(k+1) that both
#   order 0   | 0| 1| 2| 3| 4| 5| 6| 7|               lie in. Two free buddies are always merged.

.text

# void page_alloc_init(void)
# Lay mem_map behind what the loader placed, then free every frame that is neither the loader's nor mem_map's.
#   clobbers  rax rcx rdx rsi rdi r8-r11
page_alloc_init:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14

    # 1. How many frames there are, and where mem_map begins and ends.
    mov rbx, [rip + boot_params]        # rbx = struct boot_info
    mov rcx, [rbx + boot_info.ram_size]
    shr rcx, PAGE_SHIFT                 # rcx = frames
    mov [rip + max_pfn], rcx
    movabs rdi, DIRECT_MAP
    add rdi, [rbx + boot_info.loader_end]
    mov [rip + mem_map], rdi

    # 2. Every frame is reserved until the memory map says otherwise. RAM may hold anything at power-on.
    mov rdx, rcx                        # rdx = frames to go
    xor eax, eax
.Lpage_alloc_init_page:
    mov ecx, sizeof.page
    shr ecx, 3                          # a struct page in words of 8 bytes
    mov rsi, rdi                        # rsi = this frame's struct page
    rep stosq
    mov dword ptr [rsi + page.flags], PG_RESERVED
    dec rdx
    jnz .Lpage_alloc_init_page

    # 3. No block is free yet.
    add rdi, PAGE_SIZE - 1
    shr rdi, PAGE_SHIFT
    movabs rax, DIRECT_MAP
    shr rax, PAGE_SHIFT
    sub rdi, rax
    mov r12, rdi                        # r12 = first frame behind mem_map
    lea rdi, [rip + free_areas]
    mov ecx, MAX_ORDER + 1
.Lpage_alloc_init_area:
    call list_init
    mov qword ptr [rdi + free_area.nr_free], 0
    add rdi, sizeof.free_area
    dec ecx
    jnz .Lpage_alloc_init_area

    # 4. Free the usable regions; from the loader's page on, only what lies behind mem_map. Frame 0 stays reserved:
    #    physical address 0 is nobody's.
    mov r13, [rbx + boot_info.regions]  # r13 = regions to go
    lea r14, [rbx + boot_info.map]      # r14 = struct memory_region
.Lpage_alloc_init_region:
    test r13, r13
    jz .Lpage_alloc_init_done
    cmp dword ptr [r14 + memory_region.type], MEMORY_USABLE
    jne .Lpage_alloc_init_next
    mov rdi, [r14 + memory_region.base]
    mov rsi, rdi
    add rsi, [r14 + memory_region.length]
    add rdi, PAGE_SIZE - 1
    shr rdi, PAGE_SHIFT                 # rdi = first whole frame
    shr rsi, PAGE_SHIFT                 # rsi = frame behind the last whole one
    mov eax, LOADER_PHYS
    shr eax, PAGE_SHIFT
    cmp rsi, rax
    mov eax, 1                          # below the loader: all but frame 0
    cmova rax, r12                      # else: all behind mem_map
    cmp rdi, rax
    cmovb rdi, rax
    call free_frames
.Lpage_alloc_init_next:
    add r14, sizeof.memory_region
    dec r13
    jmp .Lpage_alloc_init_region

.Lpage_alloc_init_done:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# static void free_frames(u64 first, u64 end)
# Give frames to the allocator for the first time, as the largest aligned blocks, lowest address first.
#   in        rdi = first frame, rsi = frame behind the last
#   clobbers  rax rcx rdx rsi rdi r8-r11
free_frames:
    push rbp
    mov rbp, rsp
    mov r8, rdi                         # r8 = next frame
    mov r9, rsi                         # r9 = end
.Lfree_frames_block:
    cmp r8, r9
    jae .Lfree_frames_done

    # 1. ecx = the largest order whose block is aligned here and ends in time.
    mov ecx, MAX_ORDER
.Lfree_frames_order:
    mov eax, 1
    shl rax, cl                         # rax = frames in a block of this order
    lea rdx, [rax - 1]
    test r8, rdx
    jnz .Lfree_frames_smaller
    add rax, r8
    cmp rax, r9
    jbe .Lfree_frames_fits
.Lfree_frames_smaller:
    dec ecx
    jmp .Lfree_frames_order

    # 2. Its frames are no longer reserved, and the block goes to the end of its list.
.Lfree_frames_fits:
    mov r10, rax                        # r10 = frame behind the block
    shl r8, STRUCT_PAGE_SHIFT
    add r8, [rip + mem_map]             # r8 = struct page of its first frame
    mov rdx, r8
    mov eax, 1
    shl eax, cl
.Lfree_frames_frame:
    mov dword ptr [rdx + page.flags], 0
    add rdx, sizeof.page
    dec eax
    jnz .Lfree_frames_frame
    mov dword ptr [r8 + page.flags], PG_BUDDY
    mov [r8 + page.order], cl
    imul esi, ecx, sizeof.free_area
    lea rax, [rip + free_areas]
    add rsi, rax
    inc qword ptr [rsi + free_area.nr_free]
    lea rdi, [r8 + page.next]
    call list_add_tail
    mov r8, r10
    jmp .Lfree_frames_block
.Lfree_frames_done:
    pop rbp
    ret

# void *get_free_pages(unsigned int order)
# Take 2^order pages in one piece, aligned to their own size, their contents as they were left.
#   in        rdi = order, 0 to MAX_ORDER
#   out       rax = address in the direct map, or 0 when no block is large enough
#   clobbers  rcx rdx rsi rdi r8-r11
get_free_pages:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov r12, rdi                        # r12 = order asked for
    xor ebx, ebx                        # rbx = struct page of the block, none yet
    cmp rdi, MAX_ORDER
    ja .Lget_free_pages_out
    mov rax, [rip + fail_page_alloc + fault_attr.nth]
    or eax, [rip + fail_page_alloc + fault_attr.probability]
    jnz .Lget_free_pages_fault
.Lget_free_pages_lock:
    lea rdi, [rip + zone_lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags

    # 1. The smallest free block that is large enough.
    mov rcx, r12                        # rcx = order of the block
    imul r14, rcx, sizeof.free_area
    lea rax, [rip + free_areas]
    add r14, rax                        # r14 = its struct free_area
.Lget_free_pages_search:
    cmp qword ptr [r14 + free_area.nr_free], 0
    jne .Lget_free_pages_found
    add r14, sizeof.free_area
    inc rcx
    cmp rcx, MAX_ORDER
    jbe .Lget_free_pages_search
    jmp .Lget_free_pages_unlock

.Lget_free_pages_found:
    mov rdi, [r14 + free_area.list]
    mov rbx, rdi
    sub rbx, page.next                  # rbx = struct page of its first frame
    dec qword ptr [r14 + free_area.nr_free]
    call list_del

    # 2. Halve it until it has the right size; upper halves become free blocks of their own.
.Lget_free_pages_split:
    cmp rcx, r12
    je .Lget_free_pages_mark
    dec rcx
    sub r14, sizeof.free_area
    mov edi, sizeof.page
    shl rdi, cl
    add rdi, rbx                        # rdi = struct page of the upper half
    mov dword ptr [rdi + page.flags], PG_BUDDY
    mov [rdi + page.order], cl
    add rdi, page.next
    mov rsi, r14
    call list_add
    inc qword ptr [r14 + free_area.nr_free]
    jmp .Lget_free_pages_split

    # 3. Every frame of the block knows its first one.
.Lget_free_pages_mark:
    mov eax, 1
    shl rax, cl
    mov rdx, rbx
.Lget_free_pages_frame:
    mov dword ptr [rdx + page.flags], 0
    mov [rdx + page.head], rbx
    add rdx, sizeof.page
    dec rax
    jnz .Lget_free_pages_frame
    mov dword ptr [rbx + page.flags], PG_HEAD
    mov [rbx + page.order], cl

.Lget_free_pages_unlock:
    lea rdi, [rip + zone_lock]
    mov rsi, r13
    call spin_unlock_irqrestore
.Lget_free_pages_out:
    mov rax, rbx
    test rbx, rbx
    jz .Lget_free_pages_return
    mov rdi, rbx
    call page_address
.Lget_free_pages_return:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    # Failures on purpose.
.Lget_free_pages_fault:
    lea rdi, [rip + fail_page_alloc]
    call should_fail
    test eax, eax
    jz .Lget_free_pages_lock
    jmp .Lget_free_pages_out

# void free_pages(void *address, unsigned int order)
# Give back what get_free_pages(order) returned, and merge it with every free buddy. 0 is accepted. Pages that are a
# slab, a large allocation or a page table are not the caller's to give: a panic.
#   in        rdi = address, rsi = order
#   clobbers  rax rcx rdx rsi rdi r8-r11
free_pages:
    test rdi, rdi
    jz .Lfree_pages_nothing
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14

    # 1. It must be the first page of an allocated block of this order, which has no other use.
    mov rbx, rdi                        # rbx = address
    mov r12, rsi                        # r12 = order
    cmp r12, MAX_ORDER
    ja .Lfree_pages_bad
    test ebx, PAGE_SIZE - 1
    jnz .Lfree_pages_bad
    call virt_to_page
    test rax, rax
    jz .Lfree_pages_bad
    test dword ptr [rax + page.flags], PG_HEAD
    jz .Lfree_pages_bad
    cmp [rax + page.order], r12b
    jne .Lfree_pages_bad
    cmp dword ptr [rax + page.flags], PG_HEAD
    jne .Lfree_pages_used
    mov rbx, rax                        # rbx = struct page
    lea rdi, [rip + zone_lock]
    call spin_lock_irqsave
    mov r13, rax                        # r13 = saved flags

    # 2. Its frames belong to nobody now.
    mov ecx, r12d
    mov eax, 1
    shl eax, cl
    mov rdx, rbx
.Lfree_pages_frame:
    mov dword ptr [rdx + page.flags], 0
    mov qword ptr [rdx + page.cache], 0
    mov qword ptr [rdx + page.head], 0
    mov qword ptr [rdx + page.private], 0
    add rdx, sizeof.page
    dec eax
    jnz .Lfree_pages_frame

    # 3. While its buddy is a free block of the same order, the two become one of the next.
    mov r14, rbx
    sub r14, [rip + mem_map]
    shr r14, STRUCT_PAGE_SHIFT          # r14 = frame number of the block
.Lfree_pages_merge:
    cmp r12, MAX_ORDER
    je .Lfree_pages_insert
    mov r8, r14
    btc r8, r12                         # r8 = frame number of the buddy
    mov rax, r8
    bts rax, r12                        # a bound on both: no buddy beyond the last frame
    cmp rax, [rip + max_pfn]
    jae .Lfree_pages_insert
    mov rdi, r8
    shl rdi, STRUCT_PAGE_SHIFT
    add rdi, [rip + mem_map]            # rdi = struct page of the buddy
    test dword ptr [rdi + page.flags], PG_BUDDY
    jz .Lfree_pages_insert
    cmp [rdi + page.order], r12b
    jne .Lfree_pages_insert
    mov dword ptr [rdi + page.flags], 0
    add rdi, page.next
    call list_del
    imul eax, r12d, sizeof.free_area
    lea rdx, [rip + free_areas]
    dec qword ptr [rdx + rax + free_area.nr_free]
    and r14, r8                         # the lower of the two begins the merged block
    inc r12
    jmp .Lfree_pages_merge

    # 4. The block is the first on the list of its order.
.Lfree_pages_insert:
    mov rdi, r14
    shl rdi, STRUCT_PAGE_SHIFT
    add rdi, [rip + mem_map]
    mov dword ptr [rdi + page.flags], PG_BUDDY
    mov [rdi + page.order], r12b
    add rdi, page.next
    imul esi, r12d, sizeof.free_area
    lea rax, [rip + free_areas]
    add rsi, rax
    inc qword ptr [rsi + free_area.nr_free]
    call list_add

    lea rdi, [rip + zone_lock]
    mov rsi, r13
    call spin_unlock_irqrestore
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
.Lfree_pages_nothing:
    ret

.Lfree_pages_bad:
    mov rsi, rbx
    mov rdx, r12
    lea rdi, [rip + .Lfree_pages_message]
    call panic
.Lfree_pages_used:
    mov rsi, rbx
    lea rdi, [rip + .Lfree_pages_used_message]
    call panic

# void clear_page_use(struct page *page)
# Whoever had the block for a slab or a large allocation is done with it: it is a plain allocated block again, as
# free_pages wants it.
#   in        rdi = struct page of its first frame
#   clobbers  rax rcx
clear_page_use:
    mov cl, [rdi + page.order]
    mov eax, 1
    shl eax, cl                         # eax = frames to go
    mov rcx, rdi
.Lclear_page_use_frame:
    and dword ptr [rcx + page.flags], PG_HEAD
    add rcx, sizeof.page
    dec eax
    jnz .Lclear_page_use_frame
    ret

# struct page *virt_to_page(const void *address)
# The frame that an address of the direct map lies in.
#   in        rdi = address
#   out       rax = struct page, or 0 when there is no RAM at that address
#   clobbers  nothing else
virt_to_page:
    mov rax, rdi
    sub rax, [rip + direct_map]
    shr rax, PAGE_SHIFT                 # rax = frame number
    cmp rax, [rip + max_pfn]
    jae .Lvirt_to_page_none
    shl rax, STRUCT_PAGE_SHIFT
    add rax, [rip + mem_map]
    ret
.Lvirt_to_page_none:
    xor eax, eax
    ret

# void *page_address(const struct page *page)
# Where a frame lies in the direct map.
#   in        rdi = struct page
#   out       rax = address
#   clobbers  nothing else
page_address:
    mov rax, rdi
    sub rax, [rip + mem_map]
    shl rax, PAGE_SHIFT - STRUCT_PAGE_SHIFT
    add rax, [rip + direct_map]
    ret

.rodata
direct_map:
    .quad DIRECT_MAP
.Lfree_pages_message:
    .asciz "free_pages: 0x%016lx does not begin an allocated block of order %lu"
.Lfree_pages_used_message:
    .asciz "free_pages: 0x%016lx belongs to a slab, to a large allocation or to the page tables"

.bss
.p2align 3
mem_map:                                # struct page mem_map[max_pfn]
    .zero 8
max_pfn:                                # frames of RAM
    .zero 8
free_areas:                             # struct free_area free_areas[MAX_ORDER + 1]
    .rept MAX_ORDER + 1
    .zero sizeof.free_area
    .endr
zone_lock:                              # guards free_areas and every struct page that is not a slab's
    .zero 8
