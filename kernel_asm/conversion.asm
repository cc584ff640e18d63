# Conversions: what stands between a % and its letter, and how each letter prints its argument.

# A conversion as read: what stands between % and letter, and room for the digits of a number.
.set conversion.flags, 0                # u32 CONVERSION_*
.set conversion.width, 4                # u32
.set conversion.precision, 8            # u32, PRECISION_NONE when there is none
.set conversion.prefix, 12              # u32: up to four characters, the first in the low byte
.set conversion.digits, 16              # 22 octal digits are the most that 64 bits need
.set conversion.digits_end, 40
.set sizeof.conversion, 48
.set CONVERSION_LEFT, 1
.set CONVERSION_ZERO, 2
.set CONVERSION_PLUS, 4
.set CONVERSION_SPACE, 8
.set CONVERSION_LONG, 16
.set CONVERSION_SHORT, 32
.set CONVERSION_CHAR, 64
.set CONVERSION_CAPITALS, 128
.set PRECISION_NONE, 0xffffffff
.set FIELD_MAX, 4096                    # no field is wider

.text

# read_conversion: flags, width, precision and length.
#   in        rdi = conversion to fill, rsi = text behind the %, rdx = next argument, in case of a *
#   out       rax = where the letter is, rdx = next argument
#   clobbers  rcx rsi r8 r9
read_conversion:
    push rbp
    mov rbp, rsp
    xor r8d, r8d                        # r8d = flags
    mov dword ptr [rdi + conversion.prefix], 0
    mov dword ptr [rdi + conversion.precision], PRECISION_NONE

    # 1. flags
.Lread_flag:
    movzx eax, byte ptr [rsi]
    mov ecx, CONVERSION_LEFT
    cmp eax, '-'
    je .Lread_flag_set
    mov ecx, CONVERSION_ZERO
    cmp eax, '0'
    je .Lread_flag_set
    mov ecx, CONVERSION_PLUS
    cmp eax, '+'
    je .Lread_flag_set
    mov ecx, CONVERSION_SPACE
    cmp eax, ' '
    jne .Lread_width
.Lread_flag_set:
    or r8d, ecx
    inc rsi
    jmp .Lread_flag

    # 2. width and precision
.Lread_width:
    call read_number
    test eax, eax
    jns .Lread_width_positive
    neg eax                             # a negative one, from an argument: to the left
    or r8d, CONVERSION_LEFT
.Lread_width_positive:
    mov ecx, FIELD_MAX
    cmp eax, ecx
    cmova eax, ecx
    mov [rdi + conversion.width], eax
    cmp byte ptr [rsi], '.'
    jne .Lread_length
    inc rsi
    call read_number
    test eax, eax
    js .Lread_length                    # a negative one counts as none
    mov ecx, FIELD_MAX
    cmp eax, ecx
    cmova eax, ecx
    mov [rdi + conversion.precision], eax

    # 3. length
.Lread_length:
    movzx eax, byte ptr [rsi]
    mov ecx, CONVERSION_LONG
    cmp eax, 'l'
    je .Lread_length_set
    cmp eax, 'z'
    je .Lread_length_set
    cmp eax, 'h'
    jne .Lread_done
    mov ecx, CONVERSION_CHAR
    test r8d, CONVERSION_SHORT          # the second h
    jnz .Lread_length_set
    mov ecx, CONVERSION_SHORT
.Lread_length_set:
    or r8d, ecx
    inc rsi
    jmp .Lread_length

.Lread_done:
    mov [rdi + conversion.flags], r8d
    mov rax, rsi
    pop rbp
    ret

# read_number: decimal digits, or * for an int from the arguments.
#   in        rsi = text, rdx = next argument
#   out       eax = number, 0 when there is none; rsi behind it; rdx = next argument
#   clobbers  rcx
read_number:
    cmp byte ptr [rsi], '*'
    je .Lread_number_argument
    xor eax, eax
.Lread_number_digit:
    movzx ecx, byte ptr [rsi]
    sub ecx, '0'
    cmp ecx, 9
    ja .Lread_number_done
    imul eax, eax, 10
    add eax, ecx
    and eax, 0xffffff                   # no field is that wide
    inc rsi
    jmp .Lread_number_digit
.Lread_number_argument:
    inc rsi
    mov eax, [rdx]
    add rdx, 8
.Lread_number_done:
    ret

# The conversions: each prints one argument, and has the same interface. Of the argument, only the bits count that the
# length names.
#   in        rdi = printer, rsi = conversion, rdx = argument
#   clobbers  rax rcx rdx rsi rdi r8-r11

# %d %i
format_signed:
    mov eax, [rsi + conversion.flags]
    test eax, CONVERSION_LONG
    jnz .Lformat_signed_sign
    movsxd rdx, edx
    test eax, CONVERSION_SHORT
    jz .Lformat_signed_sign
    movsx rdx, dx
    test eax, CONVERSION_CHAR
    jz .Lformat_signed_sign
    movsx rdx, dl
.Lformat_signed_sign:
    xor ecx, ecx                        # ecx = sign to print, if any
    mov r8d, ' '
    test eax, CONVERSION_SPACE
    cmovnz ecx, r8d
    mov r8d, '+'
    test eax, CONVERSION_PLUS
    cmovnz ecx, r8d
    test rdx, rdx
    jns .Lformat_signed_number
    neg rdx
    mov ecx, '-'
.Lformat_signed_number:
    mov [rsi + conversion.prefix], ecx
    mov ecx, 10
    jmp format_number

# %X
format_hexadecimal_capitals:
    or dword ptr [rsi + conversion.flags], CONVERSION_CAPITALS

# %x
format_hexadecimal:
    mov ecx, 16
    jmp .Lformat_unsigned_narrow

# %o
format_octal:
    mov ecx, 8
    jmp .Lformat_unsigned_narrow

# %u
format_unsigned:
    mov ecx, 10
.Lformat_unsigned_narrow:               # ecx = radix
    mov eax, [rsi + conversion.flags]
    test eax, CONVERSION_LONG
    jnz format_number
    mov edx, edx
    test eax, CONVERSION_SHORT
    jz format_number
    movzx edx, dx
    test eax, CONVERSION_CHAR
    jz format_number
    movzx edx, dl
    jmp format_number

# %p
format_pointer:
    mov dword ptr [rsi + conversion.prefix], 0x7830     # "0x"
    mov dword ptr [rsi + conversion.precision], 16
    mov ecx, 16
    jmp format_number

# %c
format_character:
    mov [rsi + conversion.digits], dl
    and dword ptr [rsi + conversion.flags], 0xffffffff ^ CONVERSION_ZERO
    mov dword ptr [rsi + conversion.precision], 0
    lea rdx, [rsi + conversion.digits]
    mov ecx, 1
    jmp format_field

# %s
format_string:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    sub rsp, 8
    mov rbx, rdi
    mov r12, rsi
    mov r13, rdx
    test r13, r13
    jnz .Lformat_string_length
    lea r13, [rip + format_null]
.Lformat_string_length:
    mov rdi, r13
    mov esi, [r12 + conversion.precision]
    call strnlen
    mov ecx, eax                        # ecx = length
    mov rdi, rbx
    mov rsi, r12
    mov rdx, r13
    and dword ptr [rsi + conversion.flags], 0xffffffff ^ CONVERSION_ZERO
    mov dword ptr [rsi + conversion.precision], 0
    call format_field
    add rsp, 8
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# format_number: the digits of a number, then the field around them.
#   in        rdi = printer, rsi = conversion, rdx = number, ecx = radix
#   clobbers  rax rcx rdx rsi rdi r8-r11
format_number:
    lea r9, [rip + digits_small]        # r9 = digits by value
    lea r10, [rip + digits_capital]
    test dword ptr [rsi + conversion.flags], CONVERSION_CAPITALS
    cmovnz r9, r10
    mov rax, rdx                        # rax = what is left of the number
    lea r8, [rsi + conversion.digits_end]       # r8 = first digit; they are written from the last one back
    mov r10, r8
.Lformat_number_digit:
    test rax, rax
    jz .Lformat_number_done
    xor edx, edx
    div rcx
    movzx edx, byte ptr [r9 + rdx]
    dec r8
    mov [r8], dl
    jmp .Lformat_number_digit
.Lformat_number_done:
    mov ecx, r10d
    sub ecx, r8d                        # ecx = how many digits
    mov rdx, r8                         # rdx = digits
    cmp dword ptr [rsi + conversion.precision], PRECISION_NONE
    je .Lformat_number_at_least_one
    and dword ptr [rsi + conversion.flags], 0xffffffff ^ CONVERSION_ZERO        # the precision asks for zeros already
    jmp format_field
.Lformat_number_at_least_one:
    mov dword ptr [rsi + conversion.precision], 1

# format_field: a text in its field: spaces, prefix, zeros, text, spaces.
#   in        rdi = printer, rsi = conversion, rdx = text, ecx = its length
#   clobbers  rax rcx rdx rsi rdi r8-r11
format_field:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    sub rsp, 24                         # [rsp] = text, [rsp + 8] = its length
    mov r12, rdi                        # r12 = printer
    mov rbx, rsi                        # rbx = conversion
    mov [rsp], rdx
    mov [rsp + 8], ecx

    # 1. how much of each
    mov r13d, [rbx + conversion.precision]
    xor eax, eax
    sub r13d, ecx
    cmovs r13d, eax                     # r13d = zeros: what the precision asks for beyond the text
    mov r14d, [rbx + conversion.width]
    sub r14d, ecx
    sub r14d, r13d
    mov eax, [rbx + conversion.prefix]
.Lformat_field_prefix_length:
    test eax, eax
    jz .Lformat_field_spaces
    dec r14d                            # r14d = spaces that fill the field; below 0 when it is too narrow
    shr eax, 8
    jmp .Lformat_field_prefix_length
.Lformat_field_spaces:
    mov r15d, [rbx + conversion.flags]
    test r15d, CONVERSION_LEFT
    jnz .Lformat_field_prefix
    test r15d, CONVERSION_ZERO
    jnz .Lformat_field_zero_fill
    mov rdi, r12
    mov esi, ' '
    mov edx, r14d
    call print_repeated
    jmp .Lformat_field_prefix
.Lformat_field_zero_fill:
    xor eax, eax
    test r14d, r14d
    cmovs r14d, eax
    add r13d, r14d                      # zeros take the place of the spaces

    # 2. the parts in order
.Lformat_field_prefix:
    movzx esi, byte ptr [rbx + conversion.prefix]
    test esi, esi
    jz .Lformat_field_text
    shr dword ptr [rbx + conversion.prefix], 8
    mov rdi, r12
    call print_character
    jmp .Lformat_field_prefix
.Lformat_field_text:
    mov rdi, r12
    mov esi, '0'
    mov edx, r13d
    call print_repeated
    mov rdi, r12
    mov rsi, [rsp]
    mov edx, [rsp + 8]
    call print_bytes
    test r15d, CONVERSION_LEFT
    jz .Lformat_field_done
    mov rdi, r12
    mov esi, ' '
    mov edx, r14d
    call print_repeated
.Lformat_field_done:
    add rsp, 24
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
digits_small:   .ascii "0123456789abcdef"
digits_capital: .ascii "0123456789ABCDEF"
format_null:    .asciz "(null)"
