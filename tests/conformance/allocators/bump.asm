# A bump allocator: the next chunk lies behind the last one, and all of it is free again when nobody holds any.
#
#   start     first                      next            end
#   | starts  | chunk | chunk | chunk    | not yet given |
#   a bit for each 16 bytes: 1 where a chunk begins that somebody holds. So a double free and a wild one are seen.

.set GRAIN, 16
.set GRAIN_SHIFT, 4

.text

# void init(void *start, u64 size)
#   in        rdi = start, rsi = bytes
#   clobbers  rax rcx rdx rdi
init:
    mov [rip + start], rdi
    lea rax, [rdi + rsi]
    mov [rip + end], rax
    mov rcx, rsi
    shr rcx, GRAIN_SHIFT + 3            # rcx = bytes of the bits
    lea rax, [rdi + rcx + GRAIN - 1]
    shr rax, GRAIN_SHIFT
    shl rax, GRAIN_SHIFT
    mov [rip + first], rax
    mov [rip + next], rax
    mov qword ptr [rip + in_use], 0
    xor eax, eax
    rep stosb
    ret

# void *allocate(u64 size)
#   in        rdi = size
#   out       rax = chunk, or 0
#   clobbers  rcx rdx rdi
allocate:
    xor eax, eax
    mov rdx, [rip + end]
    sub rdx, [rip + next]               # rdx = bytes left, a multiple of 16
    cmp rdi, rdx
    ja .Lallocate_out
    test rdi, rdi
    jnz .Lallocate_round
    inc rdi
.Lallocate_round:
    add rdi, GRAIN - 1
    shr rdi, GRAIN_SHIFT
    shl rdi, GRAIN_SHIFT                # rdi = bytes of the chunk
    cmp rdi, rdx
    ja .Lallocate_out
    mov rax, [rip + next]
    add [rip + next], rdi
    inc qword ptr [rip + in_use]
    mov rcx, [rip + start]
    mov rdx, rax
    sub rdx, rcx
    shr rdx, GRAIN_SHIFT
    bts [rcx], rdx
.Lallocate_out:
    ret

# void deallocate(void *pointer)
#   in        rdi = pointer
#   clobbers  rax rcx rdx
deallocate:
    test rdi, rdi
    jz .Ldeallocate_out
    test edi, GRAIN - 1
    jnz .Ldeallocate_wild
    cmp rdi, [rip + first]
    jb .Ldeallocate_wild
    cmp rdi, [rip + next]
    jae .Ldeallocate_wild
    mov rcx, [rip + start]
    mov rdx, rdi
    sub rdx, rcx
    shr rdx, GRAIN_SHIFT
    btr [rcx], rdx
    jnc .Ldeallocate_wild
    dec qword ptr [rip + in_use]
    jnz .Ldeallocate_out
    mov rax, [rip + first]
    mov [rip + next], rax
.Ldeallocate_out:
    ret
.Ldeallocate_wild:
    mov rsi, rdi
    lea rdi, [rip + wild]
    push rbp
    mov rbp, rsp
    call panic

# void stats(struct allocator_stats *out)
#   in        rdi = out
#   clobbers  rax
stats:
    mov rax, [rip + in_use]
    mov [rdi + allocator_stats.in_use], rax
    mov rax, [rip + end]
    sub rax, [rip + next]
    mov [rdi + allocator_stats.free_bytes], rax
    ret

.rodata
wild:
    .asciz "bump: nobody holds 0x%lx"

.bss
.p2align 3
start:
    .zero 8
first:
    .zero 8
next:
    .zero 8
end:
    .zero 8
in_use:
    .zero 8
