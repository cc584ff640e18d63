"""Guests that tests of the debugger run."""

BUSY = """
# Allocations of many sizes that are filled and freed, a page fault now and then, accessed bits that are cleared and
# set again by the processor: all that a replay has to repeat. ROUNDS of them.

.set WINDOW, 0xffffd00012345000
.set VECTOR_PF, 14
.set HELD, 32
.set MULTIPLIER, 6364136223846793005

.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    mov edi, VECTOR_PF
    lea rsi, [rip + on_page_fault]
    call set_trap_handler
    mov ebx, ROUNDS
    mov r12d, 12345                     # r12 = random state
.Lround:
    mov rax, MULTIPLIER
    imul r12, rax
    add r12, 1442695
    mov r13, r12
    shr r13, 59                         # r13 = which of the pointers
    lea r14, [rip + held]
    lea r14, [r14 + r13 * 8]
    mov rdi, [r14]
    call kfree
    mov rdi, r12
    shr rdi, 40
    and edi, 0x3ff
    add edi, 8                          # 8 to 1031 bytes
    mov r13, rdi
    call kmalloc
    mov [r14], rax
    test rax, rax
    jz .Lnext
    mov rdi, rax
    mov rsi, r12
    mov edx, r13d
    and edx, 63
    call memset
.Lnext:
    mov rax, WINDOW                     # a word of a page that is there since its first fault
    mov ecx, ebx
    shr ecx, 8
    and ecx, 7
    shl ecx, 12
    add rax, rcx
    mov [rax + 16], r12
    test ebx, 1023
    jnz .Lgo_on
    mov rdi, cr3                        # forget what was accessed: of every table in the topmost one
    mov rax, DIRECT_MAP
    add rdi, rax
    mov ecx, 512
.Lclear:
    and qword ptr [rdi], 0xffffffffffffff9f
    add rdi, 8
    dec ecx
    jnz .Lclear
    mov rax, cr3                        # and of the translations that the processor remembers
    mov cr3, rax
.Lgo_on:
    dec ebx
    jnz .Lround
    xor eax, eax
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

# int on_page_fault(struct pt_regs *regs)
on_page_fault:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, cr2
    xor edi, edi
    call get_free_pages
    test rax, rax
    jz .Lout
    mov rsi, rax
    mov rdi, rbx
    shr rdi, PAGE_SHIFT
    shl rdi, PAGE_SHIFT
    mov rax, DIRECT_MAP
    sub rsi, rax
    mov rdx, 0x8000000000000003
    call map_page
    mov eax, 1
.Lout:
    pop r12
    pop rbx
    pop rbp
    ret

.data
.p2align 3
held:
    .rept HELD
    .quad 0
    .endr
"""


def busy(rounds: int) -> str:
    """The program with so many rounds; a round takes some 200 instructions."""
    return f".set ROUNDS, {rounds}\n{BUSY}"
