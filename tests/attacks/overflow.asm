# Overflow into a neighbour: a copy that trusts the sender's length writes a function pointer behind its buffer.

.set NAME, 60                           # bytes that the kernel makes room for
.set SENT, 72                           # bytes that come

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, NAME
    call kmalloc
    mov rbx, rax                        # rbx = buffer
    mov edi, 64
    call kmalloc
    mov r12, rax                        # r12 = an object whose first word is a function
    lea rax, [rip + honest]
    mov [r12], rax

    # 1. The copy: byte 64 is the neighbour's first.
    xor ecx, ecx
    lea rsi, [rip + message]
.Lmain_byte:
    mov al, [rsi + rcx]
the_copy:
    mov [rbx + rcx], al
    inc ecx
    cmp ecx, SENT
    jb .Lmain_byte

    # 2. The kernel frees the buffer, and calls its function.
    mov rdi, rbx
the_free:
    call kfree
the_call:
    call [r12]
    pop r12
    pop rbx
    pop rbp
    ret

# int honest(void)
#   out       eax = 1: the attack came to nothing
honest:
    mov eax, 1
    ret

# int chosen(void)
#   out       eax = 0: the attacker's function ran
chosen:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + ran]
    call kprintf
    xor eax, eax
    pop rbp
    ret

.rodata
ran: .asciz "the kernel called the attacker's function\n"

.data
.p2align 3
message:
    .zero 64, 0x41
    .quad chosen
