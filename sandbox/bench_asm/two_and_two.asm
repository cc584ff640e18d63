# What guarding the heap costs is measured on this: two allocations of seeded sizes, both filled and read, two frees.

.set MULTIPLIER, 6364136223846793005    # Knuth's MMIX: the upper bits are the random ones
.set INCREMENT, 1442695040888963407
.set SIZE_MASK, 0x1f8                   # sizes are multiples of 8 from 8 to 512

.text

main:
    xor eax, eax
    ret

# u64 bench_two_and_two(u64 seed, u64 rounds)
# rounds times: allocate two objects, fill both, read both, free both.
#   in        rdi = seed, rsi = rounds
#   out       rax = the sum of all that was read
#   clobbers  rcx rdx rsi rdi r8-r11
bench_two_and_two:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rax                            # [rsp] = the sum
    mov rbx, rdi                        # rbx = random state
    mov r12, rsi                        # r12 = rounds to go
    mov qword ptr [rsp], 0
.Lbench_round:
    call .Lbench_object
    mov r13, rax                        # r13 = first object
    mov r14, rcx                        # r14 = its words
    call .Lbench_object
    mov r15, rax                        # r15 = second object
    mov rdi, rax
    call .Lbench_read
    mov rdi, r13
    mov rcx, r14
    call .Lbench_read
    mov rdi, r13
    call kfree
    mov rdi, r15
    call kfree
    dec r12
    jnz .Lbench_round
    pop rax
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

    # rax = a new object full of random words, rcx = how many
.Lbench_object:
    movabs rax, MULTIPLIER
    imul rbx, rax
    movabs rax, INCREMENT
    add rbx, rax
    mov rdi, rbx
    shr rdi, 40
    and edi, SIZE_MASK
    add edi, 8
    push rdi
    call kmalloc
    pop rcx
    shr ecx, 3
    mov edx, ecx
    mov rdi, rax
.Lbench_fill:
    mov [rdi], rbx
    add rdi, 8
    dec edx
    jnz .Lbench_fill
    ret

    # Add rcx words from rdi on to the sum.
.Lbench_read:
    xor eax, eax
.Lbench_word:
    add rax, [rdi]
    add rdi, 8
    dec ecx
    jnz .Lbench_word
    add [rsp + 8], rax
    ret
