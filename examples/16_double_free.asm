# A double free: one object is handed out twice, and its two owners overwrite each other.
#
#   sandbox run 16 --shadow --no-trace
#
# kfree believes what it is told: the object lies in the magazine twice, and the next two calls of kmalloc return it.
# Nothing fails here; what fails one day is another part of the kernel. The shadow stops at the second kfree. So does
# the kernel with --slab-debug F, and with --freelist-hardened --no-magazines, as Linux does.

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, 64
    call kmalloc
    mov r12, rax                        # r12 = object
    mov rdi, rax
    call kfree
    mov rdi, r12
the_second_free:
    call kfree

    # Two owners, as each of them thinks the only one.
    mov edi, 64
    call kmalloc
    mov rbx, rax                        # rbx = the first one's
    mov edi, 64
    call kmalloc
    mov r12, rax                        # r12 = the second one's
    lea rdi, [rip + owners]
    mov rsi, rbx
    mov rdx, r12
    call kprintf
    mov qword ptr [rbx], 1
    mov qword ptr [r12], 2
    lea rdi, [rip + written]
    mov rsi, [rbx]
    call kprintf
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
owners:
    .asciz "the first owner has 0x%016lx, the second 0x%016lx\n"
written:
    .asciz "the first owner wrote 1 and reads %lu\n"
