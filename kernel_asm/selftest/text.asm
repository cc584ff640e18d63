# Tests of string.asm and printf.asm.

# Compare the buffer with a text, as what snprintf should have made of it.
.macro expect_text text
    .rodata
.Lexpect_text_\@:
    .asciz "\text"
    .text
    lea rdi, [rip + selftest_buffer]
    lea rsi, [rip + .Lexpect_text_\@]
    call strcmp
    test eax, eax
    expect e, "\text"
.endm

# Call snprintf on the buffer; its further arguments are in place.
.macro format text
    .rodata
.Lformat_text_\@:
    .asciz "\text"
    .text
    lea rdi, [rip + selftest_buffer]
    mov esi, SELFTEST_BUFFER
    lea rdx, [rip + .Lformat_text_\@]
    call snprintf
.endm

.set SELFTEST_BUFFER, 128

.text

    test_case "memset fills exactly what it is told to", test_memset
test_memset:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor ebx, ebx                        # rbx = size
.Ltest_memset_size:
    lea rdi, [rip + selftest_buffer]
    mov esi, 0x11
    mov edx, 64
    call memset
    lea rdi, [rip + selftest_buffer + 8]
    mov esi, 0xee
    mov edx, ebx
    call memset
    lea rcx, [rip + selftest_buffer + 8]
    cmp rax, rcx
    expect e, "the result is the destination"
    cmp byte ptr [rcx + -1], 0x11
    expect e, "the byte before stays"
    cmp byte ptr [rcx + rbx], 0x11
    expect e, "the byte behind stays"
    xor eax, eax
.Ltest_memset_byte:
    cmp eax, ebx
    je .Ltest_memset_next
    cmp byte ptr [rcx + rax], 0xee
    expect e, "every byte between is set"
    inc eax
    jmp .Ltest_memset_byte
.Ltest_memset_next:
    inc ebx
    cmp ebx, 40
    jb .Ltest_memset_size
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "memcpy and memcmp agree for every size", test_memcpy
test_memcpy:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor ebx, ebx                        # rbx = size
.Ltest_memcpy_size:
    lea rdi, [rip + selftest_buffer]
    xor esi, esi
    mov edx, SELFTEST_BUFFER
    call memset
    lea rdi, [rip + selftest_buffer + 3]
    lea rsi, [rip + selftest_alphabet]
    mov edx, ebx
    call memcpy
    lea rdi, [rip + selftest_buffer + 3]
    cmp rax, rdi
    expect e, "the result is the destination"
    cmp byte ptr [rdi + rbx], 0
    expect e, "the byte behind stays"
    lea rsi, [rip + selftest_alphabet]
    mov edx, ebx
    call memcmp
    test eax, eax
    expect z, "the copy equals the source"
    lea rdi, [rip + selftest_buffer + 3]
    lea rsi, [rip + selftest_alphabet]
    lea edx, [rbx + 1]
    call memcmp
    test eax, eax
    expect s, "one byte more compares as less"
    inc ebx
    cmp ebx, 26
    jb .Ltest_memcpy_size
    pop r12
    pop rbx
    pop rbp
    ret

    test_case "memmove survives overlap in both directions", test_memmove
test_memmove:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + selftest_buffer]
    lea rsi, [rip + selftest_alphabet]
    call strcpy
    lea rdi, [rip + selftest_buffer + 2]
    lea rsi, [rip + selftest_buffer]
    mov edx, 20
    call memmove
    expect_text "ababcdefghijklmnopqrstwxyz"
    lea rdi, [rip + selftest_buffer]
    lea rsi, [rip + selftest_buffer + 2]
    mov edx, 20
    call memmove
    expect_text "abcdefghijklmnopqrststwxyz"
    lea rdi, [rip + selftest_buffer + 9]
    lea rsi, [rip + selftest_buffer]
    mov edx, 9
    call memmove
    expect_text "abcdefghiabcdefghiststwxyz"
    pop rbp
    ret

    test_case "strlen and strnlen find the end of a text", test_strlen
test_strlen:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + selftest_alphabet]
    call strlen
    cmp rax, 26
    expect e, "the alphabet has 26 letters"
    lea rdi, [rip + selftest_alphabet + 26]
    call strlen
    test rax, rax
    expect z, "an empty text has length 0"
    lea rdi, [rip + selftest_alphabet]
    mov esi, 9
    call strnlen
    cmp rax, 9
    expect e, "strnlen stops at its limit"
    lea rdi, [rip + selftest_alphabet]
    mov esi, 99
    call strnlen
    cmp rax, 26
    expect e, "strnlen stops at the NUL"
    pop rbp
    ret

    test_case "strcmp and strncmp order texts", test_strcmp
test_strcmp:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + selftest_alphabet]
    lea rsi, [rip + selftest_alphabet]
    call strcmp
    test eax, eax
    expect z, "a text equals itself"
    lea rdi, [rip + selftest_alphabet]
    lea rsi, [rip + selftest_alpha]
    call strcmp
    test eax, eax
    expect g, "a longer text is greater"
    lea rdi, [rip + selftest_alpha]
    lea rsi, [rip + selftest_alphabet]
    call strcmp
    test eax, eax
    expect s, "a shorter text is less"
    lea rdi, [rip + selftest_alphabet]
    lea rsi, [rip + selftest_alpha]
    mov edx, 5
    call strncmp
    test eax, eax
    expect z, "strncmp compares no further than its limit"
    pop rbp
    ret

    test_case "strscpy always ends its copy", test_strscpy
test_strscpy:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + selftest_buffer]
    lea rsi, [rip + selftest_alphabet]
    mov edx, 6
    call strscpy
    add rax, E2BIG
    expect z, "a cut text gives -E2BIG"
    expect_text "abcde"
    lea rdi, [rip + selftest_buffer]
    lea rsi, [rip + selftest_alpha]
    mov edx, 6
    call strscpy
    cmp rax, 5
    expect e, "a text that just fits gives its length"
    expect_text "abcde"
    pop rbp
    ret

    test_case "snprintf prints integers", test_integers
test_integers:
    push rbp
    mov rbp, rsp
    mov ecx, 0xffffffff
    mov r8d, 0xffffffff
    mov r9d, 0
    format "%d %u %d"
    expect_text "-1 4294967295 0"
    mov rcx, 0x8000000000000000
    mov r8, 0x8000000000000000
    mov r9, 0x8000000000000000
    format "%ld %lx %lo"
    expect_text "-9223372036854775808 8000000000000000 1000000000000000000000"
    mov ecx, 0x1ff80
    mov r8d, 0x1ff80
    mov r9d, 0x1ff80
    format "%hhd %hd %hu"
    expect_text "-128 -128 65408"
    mov ecx, 48879
    mov r8d, 48879
    mov r9, rbp
    sub r9, rbp
    format "%x %X %p"
    expect_text "beef BEEF 0x0000000000000000"
    pop rbp
    ret

    test_case "snprintf fills fields", test_fields
test_fields:
    push rbp
    mov rbp, rsp
    mov ecx, 42
    mov r8d, 42
    mov r9d, 42
    format "[%5d][%-5d][%05d]"
    expect_text "[   42][42   ][00042]"
    mov ecx, 42
    mov r8d, 42
    mov r9d, -42
    format "[%+d][% d][%06d]"
    expect_text "[+42][ 42][-00042]"
    mov ecx, 8
    lea r8, [rip + selftest_alpha]
    lea r9, [rip + selftest_alpha]
    format "[%*s][%.2s]"
    expect_text "[   abcde][ab]"
    mov ecx, 'x'
    xor r8d, r8d
    format "%c%% %s"
    expect_text "x% (null)"
    pop rbp
    ret

    test_case "snprintf takes arguments from the stack", test_arguments
test_arguments:
    push rbp
    mov rbp, rsp
    mov ecx, 1
    mov r8d, 2
    mov r9d, 3
    push 5
    push 4
    format "%d %d %d %d %d"
    cmp eax, 9
    expect e, "five digits and four spaces"
    expect_text "1 2 3 4 5"
    leave
    ret

    test_case "snprintf cuts what does not fit", test_truncation
test_truncation:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + selftest_buffer]
    mov esi, 0x2a
    mov edx, SELFTEST_BUFFER
    call memset
    lea rdi, [rip + selftest_buffer]
    mov esi, 6
    lea rdx, [rip + selftest_alphabet]
    call snprintf
    cmp eax, 26
    expect e, "the result is the whole length"
    expect_text "abcde"
    cmp byte ptr [rip + selftest_buffer + 6], 0x2a
    expect e, "nothing behind the buffer is written"
    lea rdi, [rip + selftest_buffer]
    xor esi, esi
    lea rdx, [rip + selftest_alphabet + 13]
    call snprintf
    cmp eax, 13
    expect e, "a size of 0 still gives the length"
    expect_text "abcde"
    pop rbp
    ret

.rodata
selftest_alphabet: .asciz "abcdefghijklmnopqrstuvwxyz"
selftest_alpha:    .asciz "abcde"

.bss
selftest_buffer:
    .zero SELFTEST_BUFFER
