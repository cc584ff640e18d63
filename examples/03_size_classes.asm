# Size classes: what a request of n bytes costs.
#
# kmalloc rounds a request up to the next of 13 sizes. What is rounded up is lost inside the object: at worst nearly
# half of it, just above a power of two. 96 and 192 are there to cut that loss where requests are most frequent.
# Beyond 8192 bytes whole pages are used, and the rounding goes on in powers of two.

.text

main:
    push rbx
    push r12
    push r13
    lea rdi, [rip + header]
    call kprintf
    lea rbx, [rip + requests]           # rbx = next request
.Lmain_request:
    mov r12d, [rbx]                     # r12 = bytes asked for
    mov edi, r12d
    call kmalloc
    test rax, rax
    jz .Lmain_failed
    mov r13, rax                        # r13 = pointer
    mov rdi, rax
    call ksize
    mov rcx, rax
    sub rcx, r12                        # rcx = bytes wasted
    mov rsi, rax                        # rsi = bytes given
    imul rax, rcx, 100                  # the share that is wasted, in percent
    cqo
    test rsi, rsi
    jz .Lmain_print                     # kmalloc(0) gives nothing and wastes nothing
    div rsi
.Lmain_print:
    mov r8, rax
    mov rdx, rsi
    mov rsi, r12
    lea rdi, [rip + row]
    call kprintf
    mov rdi, r13
    call kfree
    add rbx, 4
    lea rax, [rip + requests_end]
    cmp rbx, rax
    jb .Lmain_request
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
header: .asciz " asked  given  wasted\n"
row: .asciz "%6lu %6lu %6lu  %2lu%%\n"
requests: .long 0, 1, 8, 9, 40, 64, 65, 96, 97, 128, 129, 192, 193, 1000, 1025, 4097, 8192, 8193, 100000
requests_end:
