# Judging one slab, its numbers and its free list, as check_slab() and on_freelist() do in Linux's mm/slub.c. What can be
# repaired is repaired; a free list that makes no sense is given up. The cache's lock is held.

.text

# int check_slab(struct kmem_cache *cache, struct page *page)
# Judge the numbers of a slab, and the bytes behind its last object.
#   in        rdi = cache, rsi = struct page
#   out       eax = 1, or 0 when its numbers cannot be
#   clobbers  rcx rdx rsi rdi r8-r11
check_slab:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    lea rdx, [rip + .Lcheck_slab_page]
    test dword ptr [r12 + page.flags], PG_SLAB
    jz .Lcheck_slab_wrong
    lea rdx, [rip + .Lcheck_slab_objects]
    movzx ecx, word ptr [r12 + page.objects]
    mov r8d, [rbx + kmem_cache.objects]
    cmp ecx, r8d
    ja .Lcheck_slab_wrong
    lea rdx, [rip + .Lcheck_slab_inuse]
    mov r8d, ecx
    movzx ecx, word ptr [r12 + page.inuse]
    cmp ecx, r8d
    ja .Lcheck_slab_wrong
    call slab_pad_check
    mov eax, 1
    pop r12
    pop rbx
    pop rbp
    ret
.Lcheck_slab_wrong:
    call slab_err
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret

# static void slab_pad_check(struct kmem_cache *cache, struct page *page)
# With P, the bytes behind the last object belong to nobody.
#   in        rdi = cache, rsi = struct page
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_pad_check:
    test dword ptr [rdi + kmem_cache.flags], SLAB_POISON
    jz .Lslab_pad_check_none
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push r15
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    mov rdi, rsi
    call page_address
    mov r13, rax                        # r13 = address of the slab
    mov ecx, [rbx + kmem_cache.order]
    mov r8d, PAGE_SIZE
    shl r8, cl                          # r8 = its bytes
    mov rax, r8
    xor edx, edx
    mov ecx, [rbx + kmem_cache.size]
    div rcx                             # edx = bytes behind the last object
    lea rdi, [r13 + r8]
    sub rdi, rdx
    mov esi, edx
    push rdi                            # [rsp + 8] = where they begin
    push rsi                            # [rsp] = how many
    mov edx, POISON_INUSE
    call find_damage
    test rax, rax
    jz .Lslab_pad_check_out
    mov r14, rax                        # r14 = first wrong byte
    mov r15, rdx                        # r15 = last wrong byte
    mov rdi, rbx
    call count_report
    jne .Lslab_pad_check_repair
    lea rsi, [rip + .Lslab_pad_check_reason]
    mov rdx, r14
    mov rcx, r15
    mov r8, r14
    sub r8, r13
    call slab_bug
    mov rdi, r12
    call print_slab_info
    lea rdi, [rip + .Lslab_pad_check_label]
    mov rsi, [rsp + 8]
    mov edx, [rsp]
    call print_section
.Lslab_pad_check_repair:
    mov rdi, rbx
    lea rdx, [rip + .Lslab_pad_check_what]
    mov rcx, r14
    mov r8, r15
    mov r9d, POISON_INUSE
    call restore_bytes
.Lslab_pad_check_out:
    pop rax
    pop rax
    pop r15
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
.Lslab_pad_check_none:
    ret

# int on_freelist(struct kmem_cache *cache, struct page *page, const void *object)
# Whether an object is on its slab's free list. The list is judged on the way, and against the slab's counts: what
# cannot be is cut off or corrected. The cache's lock is held.
#   in        rdi = cache, rsi = struct page, rdx = object, or 0: judge the whole list
#   out       eax = 1 when the object was found, or, without one, when the list can be walked; else 0
#   clobbers  rcx rdx rsi rdi r8-r11
on_freelist:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rdx                            # [rbp - 48] = object that is looked for
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    xor r13d, r13d                      # r13 = objects walked
    xor r14d, r14d                      # r14 = the one before
    mov r15, [r12 + page.freelist]      # r15 = free object

    # 1. The chain: to its end, to the object, or to a pointer that leads out of the slab or in circles.
.Lon_freelist_next:
    test r15, r15
    jz .Lon_freelist_end
    movzx eax, word ptr [r12 + page.objects]
    cmp r13d, eax
    ja .Lon_freelist_cycle
    cmp r15, [rbp + -48]
    je .Lon_freelist_found
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r15
    call check_valid_pointer
    test eax, eax
    jz .Lon_freelist_invalid
    mov r14, r15
    mov rsi, r15
    call get_freepointer
    mov r15, rax
    inc r13d
    jmp .Lon_freelist_next

.Lon_freelist_invalid:
    mov rdi, rbx
    mov rsi, r12
    test r14, r14
    jz .Lon_freelist_first
    mov rdx, r14
    lea rcx, [rip + .Lon_freelist_chain]
    call object_err
    mov rdi, rbx
    mov rsi, r14
    xor edx, edx
    call set_freepointer
    jmp .Lon_freelist_counted
.Lon_freelist_cycle:
    mov rdi, rbx
    mov rsi, r12
    lea rdx, [rip + .Lon_freelist_circle]
    jmp .Lon_freelist_clear
.Lon_freelist_first:
    lea rdx, [rip + check_freepointer]
.Lon_freelist_clear:
    call slab_err
    mov rdi, rbx
    mov rsi, r12
    lea rdx, [rip + .Lon_freelist_cleared]
    call slab_give_up
    xor eax, eax
    jmp .Lon_freelist_out

    # 2. The counts.
.Lon_freelist_end:
    movzx eax, word ptr [r12 + page.objects]
    cmp r13d, eax
    ja .Lon_freelist_cycle
.Lon_freelist_counted:
    movzx ecx, word ptr [r12 + page.objects]
    mov r8d, [rbx + kmem_cache.objects]
    cmp ecx, r8d
    je .Lon_freelist_inuse
    mov rdi, rbx
    mov rsi, r12
    lea rdx, [rip + .Lon_freelist_objects]
    call slab_err
    mov eax, [rbx + kmem_cache.objects]
    mov [r12 + page.objects], ax
    mov rdi, rbx
    lea rsi, [rip + .Lon_freelist_objects_fix]
    call slab_fix
.Lon_freelist_inuse:
    movzx ecx, word ptr [r12 + page.inuse]
    movzx r8d, word ptr [r12 + page.objects]
    sub r8d, r13d
    cmp ecx, r8d
    je .Lon_freelist_judged
    mov r13d, r8d                       # r13 = the right count
    mov rdi, rbx
    mov rsi, r12
    lea rdx, [rip + .Lon_freelist_count]
    call slab_err
    mov [r12 + page.inuse], r13w
    mov rdi, rbx
    lea rsi, [rip + .Lon_freelist_count_fix]
    call slab_fix
    mov rdi, rbx
    mov rsi, r12
    call slab_relist
.Lon_freelist_judged:
    xor eax, eax
    cmp qword ptr [rbp + -48], 0
    sete al
    jmp .Lon_freelist_out
.Lon_freelist_found:
    mov eax, 1
.Lon_freelist_out:
    pop rdx
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void slab_give_up(struct kmem_cache *cache, struct page *page, const char *fix)
# Forget a slab's free list: nothing of it is handed out any more. The cache's lock is held.
#   in        rdi = cache, rsi = struct page, rdx = what to say
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_give_up:
    push rbp
    mov rbp, rsp
    push rdi
    push rsi
    mov qword ptr [rsi + page.freelist], 0
    mov ax, [rsi + page.objects]
    mov [rsi + page.inuse], ax
    mov rsi, rdx
    call slab_fix
    pop rsi
    pop rdi
    pop rbp
    mov edx, SLAB_LIST_FULL
    cmp [rsi + page.list], dl
    jne slab_move
    ret

# void slab_relist(struct kmem_cache *cache, struct page *page)
# Put a slab on the list that its counts ask for, after they have been corrected. The cache's lock is held.
#   in        rdi = cache, rsi = struct page
#   clobbers  rax rcx rdx rsi rdi r8 r9
slab_relist:
    mov eax, SLAB_LIST_FULL
    mov edx, SLAB_LIST_PARTIAL
    mov cx, [rsi + page.inuse]
    cmp cx, [rsi + page.objects]
    cmove edx, eax
    mov eax, SLAB_LIST_EMPTY
    test cx, cx
    cmovz edx, eax
    cmp [rsi + page.list], dl
    jne slab_move
    ret

.rodata
.Lcheck_slab_page:      .asciz "Not a valid slab page"
.Lcheck_slab_objects:   .asciz "objects %u > max %u"
.Lcheck_slab_inuse:     .asciz "inuse %u > max %u"
.Lslab_pad_check_reason: .asciz "Padding overwritten. 0x%016lx-0x%016lx @offset=%lu"
.Lslab_pad_check_label: .asciz "Padding  "
.Lslab_pad_check_what:  .asciz "slab padding"
.Lon_freelist_chain:    .asciz "Freechain corrupt"
.Lon_freelist_circle:   .asciz "Freelist cycle detected"
.Lon_freelist_cleared:  .asciz "Freelist cleared"
.Lon_freelist_objects:  .asciz "Wrong number of objects. Found %u but should be %u"
.Lon_freelist_objects_fix: .asciz "Number of objects adjusted"
.Lon_freelist_count:    .asciz "Wrong object count. Counter is %u but counted were %u"
.Lon_freelist_count_fix: .asciz "Object count adjusted"
