# First fit over a bitmap. A chunk is a run of grains; it ends at the grain whose bit is set in `last`.
#
#   start                       first                        end
#   | used: a bit per grain | last: the same | grain | grain | ... |
#
# It refuses what it does not hold: deallocate returns -1 then, and 0 otherwise.

.set GRAIN, 32
.set GRAIN_SHIFT, 5

.text

# void init(void *start, u64 size)
#   in        rdi = start, rsi = bytes
#   clobbers  rax rcx rdx rdi
init:
    mov [rip + used], rdi
    lea rdx, [rdi + rsi]                # rdx = end
    mov rcx, rsi
    shr rcx, GRAIN_SHIFT + 3            # rcx = bytes of one bitmap
    lea rax, [rdi + rcx]
    mov [rip + last], rax
    add rcx, rcx
    lea rax, [rdi + rcx + GRAIN - 1]
    shr rax, GRAIN_SHIFT
    shl rax, GRAIN_SHIFT
    mov [rip + first], rax
    sub rdx, rax
    shr rdx, GRAIN_SHIFT
    mov [rip + grains], rdx
    mov [rip + free], rdx
    mov qword ptr [rip + in_use], 0
    xor eax, eax
    rep stosb
    ret

# void *allocate(u64 size)
#   in        rdi = size
#   out       rax = chunk, or 0
#   clobbers  rcx rdx rsi rdi r8
allocate:
    xor eax, eax
    mov rcx, [rip + free]
    shl rcx, GRAIN_SHIFT
    cmp rdi, rcx
    ja .Lallocate_out                   # also what would overflow below
    test rdi, rdi
    jnz .Lallocate_round
    inc rdi
.Lallocate_round:
    add rdi, GRAIN - 1
    shr rdi, GRAIN_SHIFT                # rdi = grains wanted
    mov rsi, [rip + used]
    xor ecx, ecx                        # rcx = grain
.Lallocate_run:
    xor edx, edx                        # rdx = free ones in a row
.Lallocate_grain:
    cmp rcx, [rip + grains]
    je .Lallocate_out
    bt [rsi], rcx
    inc rcx                             # leaves the carry flag alone
    jc .Lallocate_run
    inc rdx
    cmp rdx, rdi
    jne .Lallocate_grain
    lea r8, [rcx - 1]                   # r8 = last grain
    mov rdx, [rip + last]
    bts [rdx], r8
    sub [rip + free], rdi
    inc qword ptr [rip + in_use]
.Lallocate_take:
    dec rcx
    bts [rsi], rcx
    dec rdi
    jnz .Lallocate_take
    mov rax, rcx
    shl rax, GRAIN_SHIFT
    add rax, [rip + first]
.Lallocate_out:
    ret

# int deallocate(void *pointer)
#   in        rdi = pointer
#   out       eax = 0, or -1 when nobody holds a chunk there
#   clobbers  rcx rdx rsi r8
deallocate:
    xor eax, eax
    test rdi, rdi
    jz .Ldeallocate_out
    test edi, GRAIN - 1
    jnz .Ldeallocate_refuse
    mov rcx, rdi
    sub rcx, [rip + first]
    shr rcx, GRAIN_SHIFT                # rcx = grain, huge below the first
    cmp rcx, [rip + grains]
    jae .Ldeallocate_refuse
    mov rsi, [rip + used]
    mov rdx, [rip + last]
    bt [rsi], rcx
    jnc .Ldeallocate_refuse
    test rcx, rcx
    jz .Ldeallocate_grain
    lea r8, [rcx - 1]
    bt [rsi], r8
    jnc .Ldeallocate_grain
    bt [rdx], r8                        # the grain before is used: does a chunk end there?
    jnc .Ldeallocate_refuse
.Ldeallocate_grain:
    btr [rsi], rcx
    inc qword ptr [rip + free]
    btr [rdx], rcx
    inc rcx
    jnc .Ldeallocate_grain
    dec qword ptr [rip + in_use]
.Ldeallocate_out:
    ret
.Ldeallocate_refuse:
    mov eax, -1
    ret

# void stats(struct allocator_stats *out)
#   in        rdi = out
#   clobbers  rax
stats:
    mov rax, [rip + in_use]
    mov [rdi + allocator_stats.in_use], rax
    mov rax, [rip + free]
    shl rax, GRAIN_SHIFT
    mov [rdi + allocator_stats.free_bytes], rax
    ret

.bss
.p2align 3
used:
    .zero 8
last:
    .zero 8
first:
    .zero 8
grains:
    .zero 8
free:
    .zero 8
in_use:
    .zero 8
