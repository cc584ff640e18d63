# A run without end, on which the timeline is measured: objects of seeded sizes, freed in a random order.

.set MULTIPLIER, 6364136223846793005    # Knuth's MMIX: the upper bits are the random ones
.set INCREMENT, 1442695040888963407
.set SLOTS, 64
.set SIZE_MASK, 0x1f8                   # sizes are multiples of 8 from 8 to 512

.text

# int main(void)
# Pick a slot; free the object that it has, or give it a new one, full of random words. Do not return.
main:
    push rbp
    mov rbp, rsp
    mov ebx, 1                          # rbx = random state
    mov [rip + bench_began], rbx
.Lmain_next:
    movabs rax, MULTIPLIER
    imul rbx, rax
    movabs rax, INCREMENT
    add rbx, rax
    mov rcx, rbx
    shr rcx, 58                         # rcx = number of the slot
    lea r12, [rip + bench_slots]
    lea r12, [r12 + rcx * 8]            # r12 = slot
    mov rdi, [r12]
    test rdi, rdi
    jz .Lmain_allocate
    mov qword ptr [r12], 0
    call kfree
    jmp .Lmain_next
.Lmain_allocate:
    mov rdi, rbx
    shr rdi, 40
    and edi, SIZE_MASK
    add edi, 8
    mov r13d, edi                       # r13 = bytes
    call kmalloc
    mov [r12], rax
.Lmain_fill:
    mov [rax], rbx
    add rax, 8
    sub r13d, 8
    jnz .Lmain_fill
    jmp .Lmain_next

.bss
.p2align 3
bench_began:                            # u64: written once, before everything else
    .zero 8
bench_slots:                            # void *[SLOTS]
    .rept SLOTS
    .zero 8
    .endr
