# A use after free: a pointer outlives its object, and reads what the next owner writes.
#
#   sandbox run 15 --shadow --no-trace
#
# Freed memory keeps its bytes for a while, which is why such a program often works. Then the allocator hands it out
# again, to somebody else. The shadow stops at the first read. It could not accuse the second one: by then the memory is
# an object again, and a pointer has no owner. With --quarantine 8 it waits before it is used again.

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, 40
    call kmalloc
    mov rbx, rax                        # rbx = balance
    mov qword ptr [rbx], 100
    mov rdi, rax
    call kfree

    # 1. Nobody has it, and it still looks well.
the_read:
    mov rsi, [rbx]
    lea rdi, [rip + freed]
    call kprintf

    # 2. Somebody has it.
    mov edi, 40
    call kmalloc
    mov r12, rax                        # r12 = the same memory
    mov qword ptr [r12], 31337
the_second_read:
    mov rsi, [rbx]
    lea rdi, [rip + reused]
    call kprintf
    mov rdi, r12
    call kfree
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
freed:
    .asciz "freed, the balance reads %lu\n"
reused:
    .asciz "once somebody else has the memory, it reads %lu\n"
