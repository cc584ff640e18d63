# Double free: one piece of memory, two owners, and one of them decides what the other one calls.

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, 64
    call kmalloc                        # lives on, and keeps the slab
    mov edi, 64
    call kmalloc
    mov rbx, rax
    mov rdi, rax
    call kfree
    mov rdi, rbx
the_second_free:
    call kfree

    # 1. The attacker's buffer and the kernel's own object are the same.
    mov edi, 64
    call kmalloc
    mov rbx, rax                        # rbx = buffer
    mov edi, 64
    call kmalloc
    mov r12, rax                        # r12 = an object whose first word is a function
    lea rax, [rip + honest]
    mov [r12], rax

    # 2. Its owner writes into his buffer, as he may; the kernel calls its function.
    lea rax, [rip + chosen]
    mov [rbx], rax
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
