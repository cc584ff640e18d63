# Formatted text: kprintf to the console, snprintf to memory.
#
#   %[flags][width][.precision][length]letter
#
#   flags      -  to the left of the field       0  zeros to its left, not spaces
#              +  a sign before positive numbers    (space)  a space before them
#   width      a number, or * for the next argument
#   precision  %s: at most so many bytes are read; numbers: at least so many digits
#   length     hh h: the low 8, 16 bits; none: 32 bits; l ll z: 64 bits
#   letter     d i u x X o c s p %;  %p is 0x and 16 digits
#
# What is no conversion is printed as it stands.

# Where formatted bytes go. put and count belong to every printer, the rest to the one that fills a buffer.
.set printer.put, 0                     # void put(struct printer *, int character)
.set printer.count, 8                   # bytes printed so far
.set printer.cursor, 16                 # where the next byte goes
.set printer.end, 24                    # where the last one that fits goes: room for the NUL
.set sizeof.printer, 32

.text

# int kprintf(const char *format, ...)
# Print on the console; one call's text stays in one piece.
#   in        rdi = format, rsi rdx rcx r8 r9 and the stack = arguments
#   out       eax = bytes printed
#   clobbers  rcx rdx rsi rdi r8-r11
kprintf:
    gather_arguments
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    sub rsp, sizeof.printer + 8
    mov rbx, rdi                        # rbx = format
    lea rdi, [rip + console_lock]
    call spin_lock_irqsave
    mov r12, rax                        # r12 = rflags

    lea rax, [rip + print_to_console]
    mov [rsp + printer.put], rax
    mov qword ptr [rsp + printer.count], 0
    mov rdi, rsp
    mov rsi, rbx
    lea rdx, [rbp + 16]
    call format_text
    mov rbx, [rsp + printer.count]

    lea rdi, [rip + console_lock]
    mov rsi, r12
    call spin_unlock_irqrestore
    mov eax, ebx
    add rsp, sizeof.printer + 8
    pop r12
    pop rbx
    pop rbp
    ret GATHERED

# int snprintf(char *buffer, u64 size, const char *format, ...)
# Print into a buffer; what does not fit is left out, and the text ends in a NUL unless size is 0.
#   in        rdi = buffer, rsi = size, rdx = format, rcx r8 r9 and the stack = arguments
#   out       eax = bytes that the whole text has
#   clobbers  rcx rdx rsi rdi r8-r11
snprintf:
    gather_arguments
    push rbp
    mov rbp, rsp
    sub rsp, 8
    lea rcx, [rbp + 32]                 # behind rsi and rdx, which are no arguments of the format
    call vsnprintf
    leave
    ret GATHERED

# int vsnprintf(char *buffer, u64 size, const char *format, const u64 *arguments)
# snprintf with its arguments in an array.
#   in        rdi = buffer, rsi = size, rdx = format, rcx = arguments
#   out       eax = bytes that the whole text has
#   clobbers  rcx rdx rsi rdi r8-r11
vsnprintf:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    sub rsp, sizeof.printer
    mov rbx, rsi                        # rbx = size
    lea rax, [rip + print_to_buffer]
    mov [rsp + printer.put], rax
    mov qword ptr [rsp + printer.count], 0
    mov [rsp + printer.cursor], rdi
    lea rax, [rdi + rsi + -1]
    test rsi, rsi
    cmovz rax, rdi
    mov [rsp + printer.end], rax
    mov rdi, rsp
    mov rsi, rdx
    mov rdx, rcx
    call format_text
    test rbx, rbx
    jz .Lvsnprintf_done
    mov rax, [rsp + printer.cursor]
    mov byte ptr [rax], 0
.Lvsnprintf_done:
    mov eax, [rsp + printer.count]
    add rsp, sizeof.printer
    pop r12
    pop rbx
    pop rbp
    ret

# void print_to_console(struct printer *printer, int character)
#   in        sil = character
#   clobbers  rax rdx rdi
print_to_console:
    mov edi, esi
    jmp serial_putc

# void print_to_buffer(struct printer *printer, int character)
#   in        rdi = printer, sil = character
#   clobbers  rax
print_to_buffer:
    mov rax, [rdi + printer.cursor]
    cmp rax, [rdi + printer.end]
    jae .Lprint_to_buffer_full
    mov [rax], sil
    inc qword ptr [rdi + printer.cursor]
.Lprint_to_buffer_full:
    ret

# void print_character(struct printer *printer, int character)
#   in        rdi = printer, sil = character
#   clobbers  rax rdx rsi rdi
print_character:
    inc qword ptr [rdi + printer.count]
    jmp qword ptr [rdi + printer.put]

# void print_repeated(struct printer *printer, int character, int count)
# Print a character count times; a count below 1 prints nothing.
#   in        rdi = printer, sil = character, edx = count
#   clobbers  rax rdx rsi rdi
print_repeated:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    sub rsp, 8
    mov r12, rdi
    mov r13d, esi
    mov ebx, edx
.Lprint_repeated_next:
    dec ebx
    js .Lprint_repeated_done
    mov rdi, r12
    mov esi, r13d
    call print_character
    jmp .Lprint_repeated_next
.Lprint_repeated_done:
    add rsp, 8
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void print_bytes(struct printer *printer, const char *text, int length)
#   in        rdi = printer, rsi = text, edx = length
#   clobbers  rax rdx rsi rdi
print_bytes:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    sub rsp, 8
    mov r12, rdi
    mov r13, rsi
    mov ebx, edx
.Lprint_bytes_next:
    dec ebx
    js .Lprint_bytes_done
    mov rdi, r12
    movzx esi, byte ptr [r13]
    call print_character
    inc r13
    jmp .Lprint_bytes_next
.Lprint_bytes_done:
    add rsp, 8
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# void format_text(struct printer *printer, const char *format, const u64 *arguments)
# Print a format with its arguments.
#   in        rdi = printer, rsi = format, rdx = arguments
#   clobbers  rax rcx rdx rsi rdi r8-r11
format_text:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    sub rsp, sizeof.conversion
    mov r12, rdi                        # r12 = printer
    mov rbx, rsi                        # rbx = next byte of the format
    mov r13, rdx                        # r13 = next argument
.Lformat_next:
    movzx esi, byte ptr [rbx]
    test esi, esi
    jz .Lformat_done
    cmp esi, '%'
    je .Lformat_conversion
    mov rdi, r12
    call print_character
    inc rbx
    jmp .Lformat_next

.Lformat_conversion:
    mov r14, rbx                        # r14 = the %, to go back to if nothing sensible follows
    mov rdi, rsp
    lea rsi, [rbx + 1]
    mov rdx, r13
    call read_conversion                # rax = its letter's place, rdx = next argument
    mov rbx, rax
    mov r13, rdx
    movzx eax, byte ptr [rbx]           # eax = letter
    lea rcx, [rip + format_letters]     # rcx = row of the table
.Lformat_letter:
    movzx edx, byte ptr [rcx]
    test edx, edx
    jz .Lformat_as_it_stands
    cmp edx, eax
    je .Lformat_convert
    add rcx, 16
    jmp .Lformat_letter
.Lformat_convert:
    inc rbx
    mov rdi, r12
    mov rsi, rsp
    mov rdx, [r13]                      # rdx = argument
    add r13, 8
    call qword ptr [rcx + 8]
    jmp .Lformat_next

.Lformat_as_it_stands:                  # %% and unknown letters
    cmp eax, '%'
    je .Lformat_percent
    lea rbx, [r14 + 1]
    jmp .Lformat_print_percent
.Lformat_percent:
    inc rbx
.Lformat_print_percent:
    mov rdi, r12
    mov esi, '%'
    call print_character
    jmp .Lformat_next

.Lformat_done:
    add rsp, sizeof.conversion
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
# Rows of letter and function; a letter of 0 ends the table.
.p2align 3
format_letters:
    .quad 'd', format_signed
    .quad 'i', format_signed
    .quad 'u', format_unsigned
    .quad 'x', format_hexadecimal
    .quad 'X', format_hexadecimal_capitals
    .quad 'o', format_octal
    .quad 'c', format_character
    .quad 's', format_string
    .quad 'p', format_pointer
    .quad 0

.data
.p2align 2
# Taken by whoever prints, so that no line is cut by another CPU's; broken by panic.
console_lock:
    .long 0
