# Reports of what is wrong with a heap, in the form of Linux's mm/slub.c.
#
#   =============================================================================
#   BUG name (Not tainted): Right Redzone overwritten
#   -----------------------------------------------------------------------------
#
#   0x...-0x... @offset=64. First byte 0x12 instead of 0xcc
#   Allocated in 0x... cpu=0 seq=7         who had the object: with U
#    0x...                                 ... and from where
#   Slab 0x... objects=21 used=1 fp=0x... flags=0xc
#   Object 0x... @offset=0 fp=0x...
#
#   Redzone  ffff888000004000: bb bb ...   its bytes
#   FIX name: Restoring Right Redzone 0x...-0x...=0xcc
#
# Every report and every repair is counted, for its cache and for all. With slab_debug_state.quiet they are counted
# and not printed. The cache's lock is held.

.text

# bool count_report(struct kmem_cache *cache)
# Count something wrong.
#   in        rdi = cache
#   out       ZF = 1 when it is to be printed
#   clobbers  nothing
count_report:
    inc qword ptr [rdi + kmem_cache.reports]
    inc qword ptr [rip + slab_debug_state + slab_debug_state.reports]
    cmp qword ptr [rip + slab_debug_state + slab_debug_state.quiet], 0
    ret

# void slab_bug(struct kmem_cache *cache, const char *format, ...)
# Print the head of a report.
#   in        rdi = cache, rsi = format, rdx rcx r8 = its arguments
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_bug:
    push rbp
    mov rbp, rsp
    push r8
    push rcx
    push rdx
    push rsi
    lea rsi, [rdi + kmem_cache.name]
    lea rdi, [rip + .Lslab_bug_head]
    call kprintf
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    call kprintf
    lea rdi, [rip + .Lslab_bug_line]
    call kprintf
    pop rbp
    ret

# void slab_fix(struct kmem_cache *cache, const char *format, ...)
# Count a repair, and say what is repaired.
#   in        rdi = cache, rsi = format, rdx rcx r8 r9 = its arguments
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_fix:
    inc qword ptr [rdi + kmem_cache.fixes]
    inc qword ptr [rip + slab_debug_state + slab_debug_state.fixes]
    cmp qword ptr [rip + slab_debug_state + slab_debug_state.quiet], 0
    jne .Lslab_fix_quiet
    push rbp
    mov rbp, rsp
    push r9
    push r8
    push rcx
    push rdx
    push rsi
    push rsi
    lea rsi, [rdi + kmem_cache.name]
    lea rdi, [rip + .Lslab_fix_head]
    call kprintf
    pop rdi
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop r8
    call kprintf
    lea rdi, [rip + .Lslab_new_line]
    call kprintf
    pop rbp
.Lslab_fix_quiet:
    ret

# void slab_err(struct kmem_cache *cache, struct page *page, const char *format, ...)
# Report something wrong with a slab as a whole.
#   in        rdi = cache, rsi = struct page, rdx = format, rcx r8 = its arguments
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_err:
    push rbp
    mov rbp, rsp
    push rsi
    push rsi
    call count_report
    jne .Lslab_err_quiet
    mov rsi, rdx
    mov rdx, rcx
    mov rcx, r8
    call slab_bug
    mov rdi, [rsp]
    call print_slab_info
.Lslab_err_quiet:
    pop rsi
    pop rsi
    pop rbp
    ret

# void object_err(struct kmem_cache *cache, struct page *page, void *object, const char *reason)
# Report something wrong with an object.
#   in        rdi = cache, rsi = struct page, rdx = object, rcx = reason
#   clobbers  rax rcx rdx rsi rdi r8-r11
object_err:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    mov r13, rdx                        # r13 = object
    call count_report
    jne .Lobject_err_out
    lea rsi, [rip + .Lobject_err_reason]
    mov rdx, rcx
    call slab_bug
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    test rdx, rdx
    jz .Lobject_err_invalid
    call check_valid_pointer
    test eax, eax
    jz .Lobject_err_invalid
    mov rdx, r13
    call print_trailer
    jmp .Lobject_err_out
.Lobject_err_invalid:
    mov rdi, r12
    call print_slab_info
    lea rdi, [rip + .Lobject_err_pointer]
    mov rsi, r13
    call kprintf
.Lobject_err_out:
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void print_slab_info(const struct page *page)
#   in        rdi = struct page
#   clobbers  rax rcx rdx rsi rdi r8-r11
print_slab_info:
    push rbp
    mov rbp, rsp
    mov rsi, rdi
    movzx edx, word ptr [rsi + page.objects]
    movzx ecx, word ptr [rsi + page.inuse]
    mov r8, [rsi + page.freelist]
    mov r9d, [rsi + page.flags]
    lea rdi, [rip + .Lprint_slab_info_format]
    call kprintf
    pop rbp
    ret

# void print_trailer(struct kmem_cache *cache, struct page *page, const void *object)
# All that is known of an object: its history, its slab, its bytes.
#   in        rdi = cache, rsi = struct page, rdx = object
#   clobbers  rax rcx rdx rsi rdi r8-r11
print_trailer:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov rbx, rdi                        # rbx = cache
    mov r12, rsi                        # r12 = struct page
    mov r13, rdx                        # r13 = object
    mov rsi, rdx
    call print_tracking
    mov rdi, r12
    call print_slab_info
    mov rdi, rbx
    mov rsi, r13
    call get_freepointer
    mov rcx, rax
    mov rdi, r12
    call page_address
    mov r14, rax                        # r14 = address of the slab
    mov rsi, r13
    mov rdx, r13
    sub rdx, r14
    lea rdi, [rip + .Lprint_trailer_format]
    call kprintf

    # 1. What lies before it.
    mov edx, [rbx + kmem_cache.red_left_pad]
    lea rdi, [rip + print_redzone]
    test edx, edx
    jnz .Lprint_trailer_before
    lea rax, [r14 + SECTION_WIDTH]
    cmp r13, rax
    jbe .Lprint_trailer_object
    mov edx, SECTION_WIDTH
    lea rdi, [rip + print_bytes_before]
.Lprint_trailer_before:
    mov rsi, r13
    sub rsi, rdx
    call print_section

    # 2. Itself, and what lies behind it.
.Lprint_trailer_object:
    lea rdi, [rip + print_object]
    mov rsi, r13
    mov edx, [rbx + kmem_cache.object_size]
    mov eax, PAGE_SIZE
    cmp edx, eax
    cmova edx, eax
    call print_section
    test dword ptr [rbx + kmem_cache.flags], SLAB_RED_ZONE
    jz .Lprint_trailer_padding
    lea rdi, [rip + print_redzone]
    mov eax, [rbx + kmem_cache.object_size]
    lea rsi, [r13 + rax]
    mov edx, [rbx + kmem_cache.metadata]
    sub edx, eax
    call print_section
.Lprint_trailer_padding:
    mov rdi, rbx
    call slab_object_end
    lea rdi, [rip + print_padding]
    lea rsi, [r13 + rax]
    mov edx, [rbx + kmem_cache.size]
    sub edx, [rbx + kmem_cache.red_left_pad]
    sub edx, eax
    call print_section
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
.Lslab_bug_head:
    .ascii "=============================================================================\n"
    .asciz "BUG %s (Not tainted): "
.Lslab_bug_line:
    .asciz "\n-----------------------------------------------------------------------------\n\n"
.Lslab_fix_head:        .asciz "FIX %s: "
.Lslab_new_line:        .asciz "\n"
.Lobject_err_reason:    .asciz "%s"
.Lobject_err_pointer:   .asciz "Invalid pointer 0x%016lx\n"
.Lprint_slab_info_format: .asciz "Slab 0x%016lx objects=%u used=%u fp=0x%016lx flags=0x%x\n"
.Lprint_trailer_format: .asciz "Object 0x%016lx @offset=%lu fp=0x%016lx\n\n"
print_redzone:          .asciz "Redzone  "
print_object:           .asciz "Object   "
print_padding:          .asciz "Padding  "
print_bytes_before:     .asciz "Bytes b4 "
