# Reuse after free: the kernel keeps a pointer to what it has freed, and calls a function that the next owner wrote.

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
    mov rbx, rax                        # rbx = an object whose first word is a function
    lea rax, [rip + honest]
    mov [rbx], rax
    mov rdi, rbx
    call kfree

    # 1. The attacker asks for as much, gets the same memory, and fills it.
    mov edi, 64
    call kmalloc
    lea rcx, [rip + chosen]
    mov [rax], rcx

    # 2. The kernel goes by its stale pointer.
the_call:
    call [rbx]
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
