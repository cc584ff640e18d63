# Size classes: what a request of n bytes costs.
#
# kmalloc rounds a request up to the next of 13 sizes. What is rounded up is lost inside the object: at worst nearly
# half of it, just above a power of two. 96 and 192 are there to cut that loss where requests are most frequent.
# Beyond 8192 bytes whole pages are used, and the rounding goes on in powers of two.

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14

    lea rdi, [rip + header]
    call kprintf
    lea rbx, [rip + requests]           # rbx = next request
.Lmain_request:
    mov r12d, [rbx]                     # r12 = bytes asked for
    cmp r12d, -1
    je .Lmain_done
    mov edi, r12d
    call kmalloc
    test rax, rax
    jz .Lmain_failed
    mov r13, rax                        # r13 = pointer
    mov rdi, rax
    call ksize
    mov r14, rax                        # r14 = bytes given

    # The share that is wasted, in percent: (given - asked) * 100 / given.
    mov rax, r14
    sub rax, r12
    mov r8, rax                         # r8 = bytes wasted
    imul rax, rax, 100
    xor edx, edx
    xor ecx, ecx
    test r14, r14
    jz .Lmain_print                     # kmalloc(0) gives nothing and wastes nothing
    div r14
    mov rcx, rax
.Lmain_print:
    mov r9, rcx                         # r9 = percent
    lea rdi, [rip + row]
    mov rsi, r12
    mov rdx, r14
    mov rcx, r8
    mov r8, r9
    call kprintf

    mov rdi, r13
    call kfree
    add rbx, 4
    jmp .Lmain_request
.Lmain_done:
    xor eax, eax
.Lmain_out:
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
.Lmain_failed:
    mov eax, 1
    jmp .Lmain_out

.rodata
.p2align 2
requests:
    .long 0, 1, 8, 9, 40, 64, 65, 96, 97, 128, 129, 192, 193, 1000, 1025, 4097, 8192, 8193, 100000, -1
header:
    .asciz " asked  given  wasted\n"
row:
    .asciz "%6lu %6lu %6lu  %2lu%%\n"
