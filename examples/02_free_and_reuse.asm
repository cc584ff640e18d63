# Free and reuse: what was freed last is handed out first, while it is still warm in the processor's caches.
#
# Objects 0, 1 and 2 are freed in this order, and come back as 2, 1 and 0. A magazine is a stack (last in, first out),
# and so is the free list of a slab: with --no-magazines the order is the same, at other addresses.

.set OBJECTS, 3

.text

main:
    push rbx
    push r12
    push r13
    lea r12, [rip + held]               # r12 = where their pointers are kept
    lea r13, [rip + first]              # r13 = what is said of an allocation

    # 1. Three objects, then three of the same size after these were freed.
.Lmain_round:
    xor ebx, ebx                        # rbx = number of the object
.Lmain_allocate:
    mov edi, 64
    call kmalloc
    test rax, rax
    jz .Lmain_failed
    mov [r12 + rbx * 8], rax
    mov rdi, r13
    mov rsi, rbx
    mov rdx, rax
    call kprintf
    inc ebx
    cmp ebx, OBJECTS
    jb .Lmain_allocate

    # 2. Free them, the first one first.
    xor ebx, ebx
.Lmain_free:
    mov rdi, [r12 + rbx * 8]
    call kfree
    inc ebx
    cmp ebx, OBJECTS
    jb .Lmain_free
    lea rax, [rip + again]
    cmp r13, rax
    mov r13, rax
    jne .Lmain_round
    xor eax, eax
.Lmain_out:
    pop r13
    pop r12
    pop rbx
    ret
.Lmain_failed:
    mov eax, 1
    jmp .Lmain_out

.rodata
first: .asciz "object %lu                0x%016lx\n"
again: .asciz "allocation %lu, later on  0x%016lx\n"
.bss
held: .zero 8 * OBJECTS
