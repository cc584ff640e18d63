# The first allocation: ask for memory, use it, give it back.
#
# kmalloc(40) finds the smallest size class that holds 40 bytes, kmalloc-64, and takes an object of it. 24 bytes of
# the 64 are nobody's: ksize tells that they may be used all the same.

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12

    mov edi, 40
    call kmalloc
    test rax, rax
    jz .Lmain_failed
    mov rbx, rax                        # rbx = pointer

    mov rdi, rbx
    call ksize
    lea rdi, [rip + allocated]
    mov rsi, rbx
    mov rdx, rax
    call kprintf

    # The memory is ours: write to it, and read it back.
    mov rdi, rbx
    lea rsi, [rip + greeting]
    call strcpy
    lea rdi, [rip + stored]
    mov rsi, rbx
    call kprintf

    mov rdi, rbx
    call kfree
    xor eax, eax                        # 0 is success
.Lmain_out:
    pop r12
    pop rbx
    pop rbp
    ret
.Lmain_failed:
    mov eax, 1
    jmp .Lmain_out

.rodata
allocated:
    .asciz "asked for 40 bytes, got 0x%016lx with room for %lu\n"
greeting:
    .asciz "hello, slab"
stored:
    .asciz "it holds \"%s\"\n"
