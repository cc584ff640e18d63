# A leak: the head of a list is overwritten, and nothing leads to its nodes any more.
#
#   sandbox run 22 --no-magazines
#
# At the end every word of registers, stack, data and reachable objects is taken for a pointer. The new head is reached
# from the variable; the two old nodes are not, though one of them leads to the other.

.set node.next, 0
.set node.value, 8
.set node.bytes, 48

.text

main:
    push rbp
    mov rbp, rsp
    mov edi, 1
    call add_node
    mov edi, 2
    call add_node
    mov qword ptr [rip + head], 0       # the instruction that loses them
    mov edi, 3
    call add_node
    mov rsi, [rip + head]
    mov rsi, [rsi + node.value]
    lea rdi, [rip + first]
    call kprintf
    xor eax, eax
    pop rbp
    ret

# void add_node(u64 value): a new head for the list
#   in        rdi = value
#   clobbers  rax rcx rdx rsi rdi r8-r11
add_node:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    mov rbx, rdi                        # rbx = value
    mov edi, node.bytes
    call kzalloc
    mov [rax + node.value], rbx
    mov rcx, [rip + head]
    mov [rax + node.next], rcx
    mov [rip + head], rax
    pop rbx
    pop rbx
    pop rbp
    ret

.rodata
first:
    .asciz "the list begins with node %lu\n"

.bss
.p2align 3
head:
    .zero 8
