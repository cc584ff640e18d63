# A free list, as in xv6's kalloc.c: blocks of one size, and a link in the first word of each free one.
#
#   start     start + BLOCKS                                  end
#   | owners  | padding | block | block | block | ...         |
#   one byte for each block: 1 while somebody holds it. A free that finds 0 there is a double free, and one that is not
#   at a block's first byte is wild; xv6 has neither check.

.set BLOCK, 256
.set BLOCK_SHIFT, 8

.text

# void init(void *start, u64 size)
# Put every block on the list, the last one first, so that the first is the first to be handed out.
#   in        rdi = start, rsi = bytes
#   clobbers  rax rcx rdx rsi r8
init:
    mov [rip + owners], rdi
    lea rdx, [rdi + rsi]                # rdx = behind the arena
    mov rcx, rsi
    shr rcx, BLOCK_SHIFT                # rcx = more bytes than there will be blocks
    lea rax, [rdi + rcx + BLOCK - 1]
    shr rax, BLOCK_SHIFT
    shl rax, BLOCK_SHIFT                # rax = first block
    mov [rip + first], rax
    sub rdx, rax
    shr rdx, BLOCK_SHIFT                # rdx = blocks
    mov [rip + blocks], rdx
    mov [rip + free], rdx
    xor r8d, r8d                        # r8 = list
    mov rcx, rdx
    shl rcx, BLOCK_SHIFT
    add rcx, rax                        # rcx = behind the last block
.Linit_block:
    cmp rcx, rax
    je .Linit_done
    sub rcx, BLOCK
    mov [rcx], r8
    mov r8, rcx
    dec rdx
    mov byte ptr [rdi + rdx], 0
    jmp .Linit_block
.Linit_done:
    mov [rip + list], r8
    ret

# void *allocate(u64 size)
#   in        rdi = size
#   out       rax = block, or 0
#   clobbers  rcx rdx
allocate:
    xor eax, eax
    cmp rdi, BLOCK
    ja .Lallocate_out
    mov rax, [rip + list]
    test rax, rax
    jz .Lallocate_out
    mov rcx, [rax]
    mov [rip + list], rcx
    dec qword ptr [rip + free]
    mov rcx, rax
    sub rcx, [rip + first]
    shr rcx, BLOCK_SHIFT                # rcx = number of the block
    mov rdx, [rip + owners]
    mov byte ptr [rdx + rcx], 1
.Lallocate_out:
    ret

# void deallocate(void *pointer)
#   in        rdi = pointer
#   clobbers  rax rcx rdx
deallocate:
    test rdi, rdi
    jz .Ldeallocate_out
    mov rcx, rdi
    sub rcx, [rip + first]
    test ecx, BLOCK - 1
    jnz .Ldeallocate_wild
    shr rcx, BLOCK_SHIFT                # rcx = number of the block, huge below the first
    cmp rcx, [rip + blocks]
    jae .Ldeallocate_wild
    mov rdx, [rip + owners]
    cmp byte ptr [rdx + rcx], 1
    jne .Ldeallocate_twice
    mov byte ptr [rdx + rcx], 0
    mov rax, [rip + list]
    mov [rdi], rax
    mov [rip + list], rdi
    inc qword ptr [rip + free]
.Ldeallocate_out:
    ret
.Ldeallocate_wild:
    mov rsi, rdi
    lea rdi, [rip + wild]
    push rbp
    mov rbp, rsp
    call panic
.Ldeallocate_twice:
    mov rsi, rdi
    lea rdi, [rip + twice]
    push rbp
    mov rbp, rsp
    call panic

# void stats(struct allocator_stats *out)
#   in        rdi = out
#   clobbers  rax rcx
stats:
    mov rax, [rip + free]
    mov rcx, [rip + blocks]
    sub rcx, rax
    mov [rdi + allocator_stats.in_use], rcx
    shl rax, BLOCK_SHIFT
    mov [rdi + allocator_stats.free_bytes], rax
    ret

.rodata
wild:
    .asciz "free list: 0x%lx is not a block"
twice:
    .asciz "free list: 0x%lx is free already"

.bss
.p2align 3
owners:
    .zero 8
first:
    .zero 8
blocks:
    .zero 8
free:
    .zero 8
list:
    .zero 8
