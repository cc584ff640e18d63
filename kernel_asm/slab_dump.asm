# What reports are made of: bytes, stacks, and who had an object.

.set SECTION_WIDTH, 16                  # bytes on a line of a dump
.set SECTION_TEXT, 49                   # column of their characters
.set SECTION_LINE, 72                   # room for the line

.text

# void print_tracking(struct kmem_cache *cache, const void *object)
# Who had the object last, with U.
#   in        rdi = cache, rsi = object
#   clobbers  rax rcx rdx rsi rdi r8-r11
print_tracking:
    test dword ptr [rdi + kmem_cache.flags], SLAB_STORE_USER
    jz .Lprint_tracking_none
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    call slab_info_end
    lea rbx, [rsi + rax]
    lea rdi, [rip + .Lprint_tracking_allocated]
    mov rsi, rbx
    call print_track
    lea rdi, [rip + .Lprint_tracking_freed]
    lea rsi, [rbx + sizeof.track]
    call print_track
    pop rbx
    pop rbx
    pop rbp
.Lprint_tracking_none:
    ret

# static void print_track(const char *what, const struct track *track)
#   in        rdi = what, rsi = track
#   clobbers  rax rcx rdx rsi rdi r8-r11
print_track:
    cmp qword ptr [rsi + track.address], 0
    je .Lprint_track_none
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    mov rbx, rsi                        # rbx = track
    mov rsi, rdi
    mov rdx, [rbx + track.address]
    mov ecx, [rbx + track.cpu]
    mov r8, [rbx + track.sequence]
    lea rdi, [rip + .Lprint_track_format]
    call kprintf
    lea rdi, [rbx + track.stack]
    mov esi, [rbx + track.nr]
    call print_stack
    pop rbx
    pop rbx
    pop rbp
.Lprint_track_none:
    ret

# void print_stack(const u64 *entries, u32 count)
#   in        rdi = return addresses, esi = how many, at most TRACK_FRAMES are printed
#   clobbers  rax rcx rdx rsi rdi r8-r11
print_stack:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = next entry
    mov eax, TRACK_FRAMES
    cmp esi, eax
    cmova esi, eax
    mov r12d, esi                       # r12 = entries to go
.Lprint_stack_next:
    dec r12d
    js .Lprint_stack_out
    lea rdi, [rip + .Lprint_stack_format]
    mov rsi, [rbx]
    add rbx, 8
    call kprintf
    jmp .Lprint_stack_next
.Lprint_stack_out:
    pop r12
    pop rbx
    pop rbp
    ret

# void print_section(const char *label, const u8 *bytes, u32 length)
# Bytes, 16 on a line, as numbers and as characters (Linux's print_hex_dump).
#   in        rdi = label, rsi = bytes, edx = length
#   clobbers  rax rcx rdx rsi rdi r8-r11
print_section:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    sub rsp, SECTION_LINE
    mov r12, rdi                        # r12 = label
    mov rbx, rsi                        # rbx = next byte
    mov r13d, edx                       # r13 = bytes to go
.Lprint_section_line:
    test r13d, r13d
    jz .Lprint_section_out
    mov r14d, SECTION_WIDTH
    cmp r14d, r13d
    cmova r14d, r13d                    # r14 = bytes on this line
    mov rdi, rsp
    mov al, ' '
    mov ecx, SECTION_TEXT
    rep stosb
    mov byte ptr [rsp + r14 + SECTION_TEXT], 0
    lea r8, [rip + .Lprint_section_digits]
    mov rdi, rsp
    xor ecx, ecx
.Lprint_section_byte:
    movzx eax, byte ptr [rbx + rcx]
    mov edx, eax
    shr edx, 4
    mov dl, [r8 + rdx]
    mov [rdi], dl
    mov edx, eax
    and edx, 15
    mov dl, [r8 + rdx]
    mov [rdi + 1], dl
    add rdi, 3
    lea edx, [rax + -0x20]
    cmp edx, 0x5f                       # 0x20 to 0x7e can be printed
    jb .Lprint_section_character
    mov al, '.'
.Lprint_section_character:
    mov [rsp + rcx + SECTION_TEXT], al
    inc ecx
    cmp ecx, r14d
    jb .Lprint_section_byte
    lea rdi, [rip + .Lprint_section_format]
    mov rsi, r12
    mov rdx, rbx
    mov rcx, rsp
    call kprintf
    add rbx, r14
    sub r13d, r14d
    jmp .Lprint_section_line
.Lprint_section_out:
    add rsp, SECTION_LINE
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void slab_trace(struct kmem_cache *cache, struct page *page, void *object, bool freed, const u64 *frame)
# Print a line for an allocation or a free, with T; for a free, the object's bytes too.
#   in        rdi = cache, rsi = struct page, rdx = object, ecx = 0 for an allocation, 1 for a free, r8 = frame
#   clobbers  rax rcx rdx rsi rdi r8-r11
slab_trace:
    test dword ptr [rdi + kmem_cache.flags], SLAB_TRACE
    jz .Lslab_trace_off
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    sub rsp, TRACK_FRAMES * 8
    mov rbx, rdi                        # rbx = cache
    mov r12, rdx                        # r12 = object
    mov r13d, ecx                       # r13 = 1 for a free
    mov r14, r8                         # r14 = frame
    mov rcx, rdx
    lea rdx, [rip + .Lslab_trace_alloc]
    lea rax, [rip + .Lslab_trace_free]
    test r13d, r13d
    cmovnz rdx, rax
    movzx r8d, word ptr [rsi + page.inuse]
    mov r9, [rsi + page.freelist]
    lea rsi, [rbx + kmem_cache.name]
    lea rdi, [rip + .Lslab_trace_format]
    call kprintf
    test r13d, r13d
    jz .Lslab_trace_stack
    lea rdi, [rip + .Lslab_trace_object]
    mov rsi, r12
    mov edx, [rbx + kmem_cache.object_size]
    call print_section
.Lslab_trace_stack:
    lea rdi, [rip + .Lslab_trace_call]
    call kprintf
    mov rdi, rsp
    mov rsi, r14
    call save_stack
    mov rdi, rsp
    mov esi, eax
    call print_stack
    add rsp, TRACK_FRAMES * 8
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
.Lslab_trace_off:
    ret

.rodata
.Lprint_tracking_allocated: .asciz "Allocated"
.Lprint_tracking_freed: .asciz "Freed"
.Lprint_track_format:   .asciz "%s in 0x%016lx cpu=%u seq=%lu\n"
.Lprint_stack_format:   .asciz " 0x%016lx\n"
.Lprint_section_digits: .ascii "0123456789abcdef"
.Lprint_section_format: .asciz "%s%016lx: %s\n"
.Lslab_trace_format:    .asciz "TRACE %s %s 0x%016lx inuse=%u fp=0x%016lx\n"
.Lslab_trace_alloc:     .asciz "alloc"
.Lslab_trace_free:      .asciz "free"
.Lslab_trace_object:    .asciz "Object "
.Lslab_trace_call:      .asciz "Call Trace:\n"
