"""A program of instructions that a kernel seldom has, and of faults that a handler steps over."""

CODES = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")


def conditions() -> str:
    """Every condition code, after comparisons of four numbers with 1."""
    return "\n".join(f"""    mov eax, {left}
    cmp eax, 1
    set{code} byte ptr [rbx]
    j{code} .Ltaken_{code}_{number}
    nop
.Ltaken_{code}_{number}:""" for code in CODES for number, left in enumerate((0, 1, -1, 0x7FFFFFFF)))


def handlers() -> str:
    """The handler for every vector that is raised."""
    return "\n".join(f"""    mov edi, {vector}
    lea rsi, [rip + step_over]
    call set_trap_handler""" for vector in (0, 1, 3, 6, 12, 13, 14))


PROGRAM = """
# Each fault's handler goes on at the address in r15.
.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    sub rsp, 8
HANDLERS
    lea rbx, [rip + words]

    # strings, up and down, repeated or not, and ended by a comparison
    lea rsi, [rip + words]
    lea rdi, [rip + words + 64]
    movsb
    movsw
    movsd
    movsq
    lodsb
    lodsq
    stosw
    mov ecx, 3
    rep movsq
    xor ecx, ecx
    rep stosb
    mov ecx, 2
    rep stosd
    lea rdi, [rip + text]
    mov al, 'e'
    mov ecx, 8
    repne scasb
    lea rsi, [rip + text]
    lea rdi, [rip + text]
    mov ecx, 4
    repe cmpsb
    lea rsi, [rip + text]
    lea rdi, [rip + text + 1]
    mov ecx, 4
    repe cmpsb
    std
    lea rdi, [rip + words + 32]
    stosq
    cld

    # bits far from their operand, and every way to change memory in place
    mov eax, 70
    bt [rbx], rax
    bts [rbx], rax
    mov rax, -3
    lea rcx, [rbx + 64]
    btr [rcx], rax
    mov eax, 40
    btc dword ptr [rbx], eax
    bt dword ptr [rbx], 5
    mov rax, [rbx]
    lock cmpxchg [rbx], rcx
    cmpxchg dword ptr [rbx + 8], ecx
    xadd [rbx + 16], rcx
    xchg [rbx + 24], rcx
    not qword ptr [rbx]
    neg word ptr [rbx + 2]
    shl dword ptr [rbx + 4], 3
    rol byte ptr [rbx], 1
    adc qword ptr [rbx + 8], 1
    sbb [rbx + 16], al
    sete byte ptr [rbx + 7]
    cmovne rax, [rbx]
    cmove rax, [rbx]
    test byte ptr [rbx], 1
    imul rax, [rbx], 3
    movzx eax, byte ptr [rbx + 1]
    movsx rax, word ptr [rbx + 2]
    movsxd rax, dword ptr [rbx + 4]
    movbe rax, [rbx]
    mov [rbx + 5], ah
    xlatb
    movups xmm0, [rbx]
    movups [rbx + 16], xmm0
    movsd xmm1, [rbx]
    movdqu xmm0, [rip + words]
    .byte 0x0f, 0x1f, 0x00             # nop [rax]
    prefetcht0 [rbx]
    lea rax, [rbx + rax * 8 + 1234]

    # the stack
    pushfq
    popfq
    push 5
    push qword ptr [rbx]
    push word ptr [rbx]
    pop word ptr [rbx + 2]
    pop qword ptr [rsp + 8]
    pop rax
    push fs
    pop fs
    enter 16, 0
    leave
    enter 16, 1
    leave
    sgdt [rbx]
    sidt [rbx + 16]
    call over_here
    lea rax, [rip + over_here]
    call rax
    mov [rbx], rax
    call qword ptr [rbx]
    lea rax, [rip + .Ljumped]
    mov [rbx], rax
    jmp qword ptr [rbx]
.Ljumped:
    mov eax, KERNEL_DS
    mov es, eax
    mov rax, cr3
    mov cr3, rax
    mov eax, 4
    push rbx
    cpuid
    pop rbx

    # counters
    mov ecx, 2
.Lagain:
    loop .Lagain
    mov ecx, 3
    cmp ecx, ecx
.Lwhile:
    loope .Lwhile
    mov ecx, 2
    jrcxz .Lagain
    xor ecx, ecx
    jrcxz .Lcounted
    nop
.Lcounted:
CONDITIONS
    # faults
    lea r15, [rip + .Ldivided]
    xor edx, edx
    xor ecx, ecx
    div rcx
.Ldivided:
    lea r15, [rip + .Ltoo_large]
    mov rdx, -2
    mov ecx, 5
    div rcx
.Ltoo_large:
    lea r15, [rip + .Lsigned]
    mov rax, 0x8000000000000000
    mov rdx, -1
    mov rcx, -1
    idiv rcx
.Lsigned:
    mov eax, 100
    cdq
    mov ecx, 7
    idiv ecx
    mov eax, 100
    xor edx, edx
    div qword ptr [rip + seven]
    lea r15, [rip + .Lundefined]
    ud2
.Lundefined:
    lea r15, [rip + .Lnull]
    mov rax, [rcx * 8]
.Lnull:
    lea r15, [rip + .Lread_only]
    lea rax, [rip + main]
    mov byte ptr [rax], 1
.Lread_only:
    lea r15, [rip + .Lwild]
    mov rax, 0x1234567890abcdef
    mov rcx, [rax]
.Lwild:
    lea r15, [rip + .Lwild_stack]
    mov r14, rbp
    mov rbp, 0x7fff800000000000
    mov [rbp + 8], rcx
.Lwild_stack:
    mov rbp, r14
    lea r15, [rip + .Lbreak]
    int3
.Lbreak:
    lea r15, [rip + .Lfetched]
    lea rax, [rip + words]
    jmp rax
.Lfetched:
    xor eax, eax
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

over_here:
    ret

# int step_over(struct pt_regs *regs)
step_over:
    mov rax, [rdi + pt_regs.r15]
    mov [rdi + pt_regs.rip], rax
    mov eax, 1
    ret

.data
.p2align 4
words:
    .zero 256
seven:
    .quad 7
text:
    .asciz "a text"
""".replace("CONDITIONS", conditions()).replace("HANDLERS", handlers())
