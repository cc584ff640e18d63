# An overflow: a copy that goes on to the end of its text, and not to the end of its buffer.
#
#   sandbox run 14 --shadow --no-trace
#
# The buffer has 24 bytes, in an object of 32. The first eight bytes too many fall where nobody looks; those behind
# them into the neighbour, a counter. No instruction fails, and the program ends well. The shadow stops it at the first
# byte that was not asked for. With --slab-debug FZ the kernel itself finds the damage, when the buffer is freed.

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, 24
    call kmalloc
    mov rbx, rax                        # rbx = buffer
    mov edi, 32
    call kmalloc
    mov r12, rax                        # r12 = counter
    mov qword ptr [r12], 1000
    lea rdi, [rip + counted]
    mov rsi, [r12]
    call kprintf

    # Copy the text with its NUL: 37 bytes.
    lea rsi, [rip + text]
    xor ecx, ecx
.Lmain_byte:
    mov al, [rsi + rcx]
the_overflow:
    mov [rbx + rcx], al                 # wrong from byte 24 on
    inc ecx
    test al, al
    jnz .Lmain_byte

    lea rdi, [rip + counted]
    mov rsi, [r12]
    call kprintf
    mov rdi, r12
    call kfree
    mov rdi, rbx
    call kfree
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret

.rodata
text:
    .asciz "a text that is longer than 32 bytes."
counted:
    .asciz "the counter beside the buffer is %lu\n"
