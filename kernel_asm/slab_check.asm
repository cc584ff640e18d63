# Judging one object, as check_object() does in Linux's mm/slub.c. What can be repaired is repaired, so that the same
# damage is reported once. The cache's lock is held.

.text

# void *find_damage(const u8 *start, u64 bytes, u8 value)
# The first and the last byte that is not value.
#   in        rdi = start, rsi = bytes, dl = value
#   out       rax = first, or 0 when there is none; rdx = last
#   clobbers  rcx rsi rdi
find_damage:
    mov al, dl
    mov rcx, rsi
    test rcx, rcx
    jz .Lfind_damage_none
    lea rsi, [rdi + rsi]                # rsi = end
    repe scasb
    je .Lfind_damage_none
    lea rdx, [rdi + -1]                 # rdx = first
.Lfind_damage_back:
    dec rsi
    cmp [rsi], al
    je .Lfind_damage_back
    mov rax, rdx
    mov rdx, rsi
    ret
.Lfind_damage_none:
    xor eax, eax
    ret

# u32 slab_object_end(const struct kmem_cache *cache)
# Where the padding of an object begins.
#   in        rdi = cache
#   out       eax = offset from the object's first byte
#   clobbers  nothing else
slab_object_end:
    push rbp
    mov rbp, rsp
    call slab_info_end
    test dword ptr [rdi + kmem_cache.flags], SLAB_STORE_USER
    jz .Lslab_object_end_out
    add eax, 2 * sizeof.track
    test dword ptr [rdi + kmem_cache.flags], SLAB_KMALLOC
    jz .Lslab_object_end_out
    add eax, 4
.Lslab_object_end_out:
    pop rbp
    ret

# void *slab_first_object(const struct kmem_cache *cache, const struct page *page)
# The first object of a slab.
#   in        rdi = cache, rsi = struct page
#   out       rax = object
#   clobbers  rcx
slab_first_object:
    push rbp
    mov rbp, rsp
    push rdi
    push rdi
    mov rdi, rsi
    call page_address
    pop rdi
    pop rdi
    mov ecx, [rsi + page.colour]
    add rax, rcx
    mov ecx, [rdi + kmem_cache.red_left_pad]
    add rax, rcx
    pop rbp
    ret

# int slab_object_index(const struct kmem_cache *cache, const struct page *page, const void *address)
# The object in whose place an address lies, its left red zone counted in.
#   in        rdi = cache, rsi = struct page, rdx = address
#   out       rax = index, beyond the last object's for an address that lies in none; rdx = bytes from the beginning
#             of its place
#   clobbers  rcx
slab_object_index:
    push rbp
    mov rbp, rsp
    call slab_first_object
    mov ecx, [rdi + kmem_cache.red_left_pad]
    sub rax, rcx
    sub rdx, rax
    mov rax, rdx
    xor edx, edx
    mov ecx, [rdi + kmem_cache.size]
    div rcx
    pop rbp
    ret

# int check_valid_pointer(const struct kmem_cache *cache, const struct page *page, const void *object)
# Whether a pointer is one that a free list of this slab may hold: 0, or an object of it.
#   in        rdi = cache, rsi = struct page, rdx = pointer
#   out       eax = 1 or 0
#   clobbers  rcx rdx
check_valid_pointer:
    push rbp
    mov rbp, rsp
    test rdx, rdx
    jz .Lcheck_valid_pointer_yes
    call slab_object_index
    cmp edx, [rdi + kmem_cache.red_left_pad]
    jne .Lcheck_valid_pointer_no
    movzx ecx, word ptr [rsi + page.objects]
    cmp rax, rcx
    jae .Lcheck_valid_pointer_no
.Lcheck_valid_pointer_yes:
    mov eax, 1
    pop rbp
    ret
.Lcheck_valid_pointer_no:
    xor eax, eax
    pop rbp
    ret

# int check_object(struct kmem_cache *cache, struct page *page, void *object, int value)
# Judge the bytes of an object that debugging watches, and its free pointer.
#   in        rdi = cache, rsi = struct page, rdx = object, ecx = SLUB_RED_ACTIVE for a live object, SLUB_RED_INACTIVE
#             for a free one
#   out       eax = 1, or 0 when something was wrong
#   clobbers  rcx rdx rsi rdi r8-r11
check_object:
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
    mov r13, rdx                        # r13 = object
    mov r14d, ecx                       # r14 = value
    mov r15d, 1                         # r15 = 1 while nothing is wrong

    # 1. Red zones; without them, the bytes that round the object up to a word.
    mov edx, [rbx + kmem_cache.metadata]
    mov eax, [rbx + kmem_cache.object_size]
    sub edx, eax                        # edx = bytes of the right red zone
    lea rsi, [r13 + rax]
    test dword ptr [rbx + kmem_cache.flags], SLAB_RED_ZONE
    jz .Lcheck_object_alignment
    mov edx, [rbx + kmem_cache.red_left_pad]
    mov rsi, r13
    sub rsi, rdx
    mov ecx, r14d
    lea rdi, [rip + .Lcheck_left]
    call check_bytes
    mov eax, [rbx + kmem_cache.object_size]
    lea rsi, [r13 + rax]
    mov edx, [rbx + kmem_cache.metadata]
    sub edx, eax
    mov ecx, r14d
    lea rdi, [rip + .Lcheck_right]
    call check_bytes
    cmp r14d, SLUB_RED_ACTIVE
    jne .Lcheck_object_poison
    mov rdi, rbx
    mov rsi, r13
    call get_orig_size
    mov edx, [rbx + kmem_cache.object_size]
    sub edx, eax
    jbe .Lcheck_object_poison
    lea rsi, [r13 + rax]
    mov ecx, r14d
    lea rdi, [rip + .Lcheck_kmalloc]
    call check_bytes
    jmp .Lcheck_object_poison
.Lcheck_object_alignment:
    test dword ptr [rbx + kmem_cache.flags], SLAB_POISON
    jz .Lcheck_object_poison
    mov ecx, POISON_INUSE
    lea rdi, [rip + .Lcheck_alignment]
    call check_bytes

    # 2. Poison, and the padding behind everything.
.Lcheck_object_poison:
    test dword ptr [rbx + kmem_cache.flags], SLAB_POISON
    jz .Lcheck_object_pointer
    cmp r14d, SLUB_RED_ACTIVE
    je .Lcheck_object_padding
    test dword ptr [rbx + kmem_cache.flags], SLAB_OBJECT_POISON
    jz .Lcheck_object_padding
    mov rsi, r13
    mov edx, [rbx + kmem_cache.object_size]
    dec edx
    mov ecx, POISON_FREE
    lea rdi, [rip + .Lcheck_poison]
    call check_bytes
    mov eax, [rbx + kmem_cache.object_size]
    lea rsi, [r13 + rax + -1]
    mov edx, 1
    mov ecx, POISON_END
    lea rdi, [rip + .Lcheck_end_poison]
    call check_bytes
.Lcheck_object_padding:
    mov rdi, rbx
    call slab_object_end
    lea rsi, [r13 + rax]
    mov edx, [rbx + kmem_cache.size]
    sub edx, [rbx + kmem_cache.red_left_pad]
    sub edx, eax
    mov ecx, POISON_INUSE
    lea rdi, [rip + .Lcheck_padding]
    call check_bytes

    # 3. The free pointer, where it is the allocator's. A wrong one is cut off: the objects behind it are lost.
.Lcheck_object_pointer:
    cmp r14d, SLUB_RED_ACTIVE
    jne .Lcheck_object_pointer_ours
    mov eax, [rbx + kmem_cache.offset]
    cmp eax, [rbx + kmem_cache.metadata]
    jb .Lcheck_object_out
.Lcheck_object_pointer_ours:
    mov rdi, rbx
    mov rsi, r13
    call get_freepointer
    mov rsi, r12
    mov rdx, rax
    call check_valid_pointer
    test eax, eax
    jnz .Lcheck_object_out
    mov rdx, r13
    lea rcx, [rip + check_freepointer]
    call object_err
    mov rdi, rbx
    mov rsi, r13
    xor edx, edx
    call set_freepointer
    xor r15d, r15d
.Lcheck_object_out:
    mov eax, r15d
    pop r15
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# Bytes of an object that must have one value: report them otherwise, the object with the first report, and repair.
#   in        rdi = what they are, rsi = start, edx = how many, ecx = value; of check_object: rbx = cache, r12 = page,
#             r13 = object, r15 = 1 while nothing is wrong
#   out       r15 = 0 when something was wrong
#   clobbers  rax rcx rdx rsi rdi r8-r11
check_bytes:
    push rbp
    mov rbp, rsp
    push rdi                            # [rbp - 8] = what
    push rcx                            # [rbp - 16] = value
    mov rdi, rsi
    mov esi, edx
    mov edx, ecx
    call find_damage
    test rax, rax
    jz .Lcheck_bytes_out
    push rax                            # [rbp - 24] = first wrong byte
    push rdx                            # [rbp - 32] = last wrong byte
    mov rdi, rbx
    call count_report
    jne .Lcheck_bytes_repair
    lea rsi, [rip + .Lcheck_bytes_reason]
    mov rdx, [rbp + -8]
    call slab_bug
    mov rdi, r12
    call page_address
    mov rsi, [rbp + -24]
    mov rdx, [rbp + -32]
    mov rcx, rsi
    sub rcx, rax
    movzx r8d, byte ptr [rsi]
    mov r9d, [rbp + -16]
    lea rdi, [rip + .Lcheck_bytes_where]
    call kprintf
    test r15d, r15d
    jz .Lcheck_bytes_repair
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    call print_trailer
.Lcheck_bytes_repair:
    xor r15d, r15d
    mov rdi, rbx
    mov rdx, [rbp + -8]
    mov rcx, [rbp + -24]
    mov r8, [rbp + -32]
    mov r9d, [rbp + -16]
    call restore_bytes
.Lcheck_bytes_out:
    leave
    ret

# void restore_bytes(struct kmem_cache *cache, const char *what, u8 *first, u8 *last, int value)
#   in        rdi = cache, rdx = what, rcx = first, r8 = last, r9d = value
#   clobbers  rax rcx rdx rsi rdi r8-r11
restore_bytes:
    push rbp
    mov rbp, rsp
    push r9
    push r8
    push rcx
    push rcx
    lea rsi, [rip + .Lrestore_bytes_fix]
    call slab_fix
    pop rdi
    pop rdi
    pop rdx
    pop rsi
    sub rdx, rdi
    inc rdx
    call memset
    pop rbp
    ret

.rodata
.Lcheck_left:           .asciz "Left Redzone"
.Lcheck_right:          .asciz "Right Redzone"
.Lcheck_kmalloc:        .asciz "kmalloc Redzone"
.Lcheck_alignment:      .asciz "Alignment padding"
.Lcheck_poison:         .asciz "Poison"
.Lcheck_end_poison:     .asciz "End Poison"
.Lcheck_padding:        .asciz "Object padding"
check_freepointer:      .asciz "Freepointer corrupt"
.Lcheck_bytes_reason:   .asciz "%s overwritten"
.Lcheck_bytes_where:    .asciz "0x%016lx-0x%016lx @offset=%lu. First byte 0x%x instead of 0x%x\n"
.Lrestore_bytes_fix:    .asciz "Restoring %s 0x%016lx-0x%016lx=0x%x"
