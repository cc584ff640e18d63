# Free-pointer overwrite: kmalloc returns a table of the kernel's own.
#
# A free object of kmalloc-64 holds the address of the next one in its middle. Who can still write there says what
# kmalloc returns after it. The target is a table of empty list heads, each of which points to itself: taken for a
# free object, head n leads to head n + 2, so that the forged list has no early end.

.set LINK_AT, 32                        # where the free pointer lies in an object of 64 bytes
.set HEADS, 128
.set TRIES, 64

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    lea r12, [rip + table]              # r12 = target
    mov rax, r12
    mov ecx, HEADS
.Lmain_head:
    mov [rax + list_head.next], rax
    mov [rax + list_head.prev], rax
    add rax, sizeof.list_head
    dec ecx
    jnz .Lmain_head

    # 1. An object that is freed while a pointer to it remains; memory is short, and its magazine goes back to its slab.
    mov edi, 64
    call kmalloc                        # lives on, and keeps the slab
    mov edi, 64
    call kmalloc
    mov rbx, rax                        # rbx = the stale pointer
    mov rdi, rax
    call kfree
    mov rdi, [rip + kmalloc_caches + 24] # rdi = kmalloc-64
    call kmem_cache_shrink

    # 2. The attacker's write, and what kmalloc returns then.
the_write:
    mov [rbx + LINK_AT], r12
    mov ebx, TRIES
.Lmain_try:
    mov edi, 64
the_allocation:
    call kmalloc
    cmp rax, r12
    je .Lmain_taken
    dec ebx
    jnz .Lmain_try
    mov eax, 1
    jmp .Lmain_out
.Lmain_taken:
    lea rdi, [rip + taken]
    mov rsi, rax
    call kprintf
    xor eax, eax
.Lmain_out:
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
taken: .asciz "kmalloc returned 0x%016lx, the kernel's own table\n"

.bss
.p2align 6
    .zero 64                            # the table is one among the kernel's data
table:
    .rept HEADS
    .zero 16
    .endr
