# Memory and strings, as C has them. Eight bytes at a time where sizes are large enough to matter.

.text

# void *memset(void *destination, int byte, u64 size)
#   in        rdi = destination, sil = byte, rdx = size
#   out       rax = destination
#   clobbers  rcx rsi rdi r8
memset:
    mov r8, rdi
    movzx esi, sil
    mov rax, 0x0101010101010101
    imul rax, rsi                       # rax = the byte, eight times
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    mov rax, r8
    ret

# void *memcpy(void *destination, const void *source, u64 size)
# The two do not overlap.
#   in        rdi = destination, rsi = source, rdx = size
#   out       rax = destination
#   clobbers  rcx rsi rdi
memcpy:
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    ret

# void *memmove(void *destination, const void *source, u64 size)
# As memcpy, but the two may overlap: then the bytes that would be overwritten are read first.
#   in        rdi = destination, rsi = source, rdx = size
#   out       rax = destination
#   clobbers  rcx rdx rsi rdi
memmove:
    mov rax, rdi
    sub rax, rsi                        # rax = destination - source
    cmp rax, rdx                        # unsigned: does the destination begin inside the source?
    jae memcpy
    mov rax, rdi
.Lmemmove_words:                        # from the end down
    cmp rdx, 8
    jb .Lmemmove_bytes
    mov rcx, [rsi + rdx + -8]
    mov [rdi + rdx + -8], rcx
    sub rdx, 8
    jmp .Lmemmove_words
.Lmemmove_bytes:
    test rdx, rdx
    jz .Lmemmove_done
    dec rdx
    mov cl, [rsi + rdx]
    mov [rdi + rdx], cl
    jmp .Lmemmove_bytes
.Lmemmove_done:
    ret

# int memcmp(const void *left, const void *right, u64 size)
#   in        rdi = left, rsi = right, rdx = size
#   out       eax = difference of the first bytes that differ, as unsigned char; 0 when none do
#   clobbers  rcx rdx rsi rdi
memcmp:
.Lmemcmp_next:
    test rdx, rdx
    jz .Lmemcmp_equal
    movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    inc rdi
    inc rsi
    dec rdx
    sub eax, ecx
    jz .Lmemcmp_next
    ret
.Lmemcmp_equal:
    xor eax, eax
    ret

# u64 strlen(const char *text)
#   in        rdi = text
#   out       rax = bytes before the NUL
strlen:
    mov rax, rdi
.Lstrlen_next:
    cmp byte ptr [rax], 0
    je .Lstrlen_end
    inc rax
    jmp .Lstrlen_next
.Lstrlen_end:
    sub rax, rdi
    ret

# u64 strnlen(const char *text, u64 limit)
# Nothing behind text + limit is read.
#   in        rdi = text, rsi = limit
#   out       rax = bytes before the NUL, at most limit
strnlen:
    xor eax, eax
.Lstrnlen_next:
    cmp rax, rsi
    je .Lstrnlen_end
    cmp byte ptr [rdi + rax], 0
    je .Lstrnlen_end
    inc rax
    jmp .Lstrnlen_next
.Lstrnlen_end:
    ret

# int strcmp(const char *left, const char *right)
#   in        rdi = left, rsi = right
#   out       eax = difference of the first bytes that differ, as unsigned char; 0 for equal strings
#   clobbers  rcx rdx rsi rdi
strcmp:
    mov rdx, -1

# int strncmp(const char *left, const char *right, u64 limit)
# At most limit bytes are compared.
#   in        rdi = left, rsi = right, rdx = limit
#   out       eax = difference of the first bytes that differ, as unsigned char; 0 when none do
#   clobbers  rcx rdx rsi rdi
strncmp:
.Lstrncmp_next:
    test rdx, rdx
    jz .Lstrncmp_equal
    movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    inc rdi
    inc rsi
    dec rdx
    sub eax, ecx
    jnz .Lstrncmp_done
    test ecx, ecx                       # both strings end here
    jnz .Lstrncmp_next
.Lstrncmp_equal:
    xor eax, eax
.Lstrncmp_done:
    ret

# char *strcpy(char *destination, const char *source)
#   in        rdi = destination, rsi = source
#   out       rax = destination
#   clobbers  rcx rsi rdi
strcpy:
    mov rax, rdi
.Lstrcpy_next:
    mov cl, [rsi]
    mov [rdi], cl
    inc rsi
    inc rdi
    test cl, cl
    jnz .Lstrcpy_next
    ret

# s64 strscpy(char *destination, const char *source, u64 size)
# Copy as much as fits in size bytes; the destination always ends in a NUL (Linux, lib/string.c).
#   in        rdi = destination, rsi = source, rdx = size
#   out       rax = bytes copied before the NUL, or -E2BIG when the source was cut, or size is 0
#   clobbers  rcx rdx
strscpy:
    xor eax, eax                        # rax = bytes copied
    test rdx, rdx
    jz .Lstrscpy_cut
    dec rdx                             # rdx = room before the NUL
.Lstrscpy_next:
    mov cl, [rsi + rax]
    cmp rax, rdx
    je .Lstrscpy_full
    mov [rdi + rax], cl
    test cl, cl
    jz .Lstrscpy_done
    inc rax
    jmp .Lstrscpy_next
.Lstrscpy_full:
    mov byte ptr [rdi + rax], 0
    test cl, cl
    jnz .Lstrscpy_cut
.Lstrscpy_done:
    ret
.Lstrscpy_cut:
    mov eax, E2BIG
    neg rax
    ret
