# The seed: the allocator that this project grew from, and what was wrong with it.
#
#   sandbox run 18 --shadow --collect --no-trace \
#       --allocator allocate=seed_allocate,deallocate=seed_deallocate,init=seed_new,refused=0
#
# The shadow knows the names of its functions, and nothing else of it. It catches the write that lands in the table,
# and counts the chunks that could not be given back.
#
# One array of 4096 bytes holds three pools of 21 chunks each; the tables that say where each chunk is and whether it
# is free lie right behind the array:
#
#   offset   0          672               2016                                 4096               5104
#            | 21 x 32  | 21 x 64         | 21 x 128                           | table of blocks  |
#            |<---------------------- the array, 4096 bytes ----------------->|
#                                          chunks 16 to 20 lie here, beyond its end: >|  |  |  |  |
#
# 21 * (32 + 64 + 128) = 4704. The first chunk of 128 bytes that it gives out is the last one, at offset 4576: inside
# the table. And deallocate looks a chunk up as offset / 32, whatever the size of its pool's chunks is.

.set MEMORY_SIZE, 4096
.set CHUNKS, 21
.set POOLS, 3
.set block.pointer, 0                   # struct block: where the chunk is
.set block.is_free, 8                   # 1 while nobody holds it
.set block.bytes, 16
.set pool.size, 0                       # struct pool: bytes of a chunk
.set pool.offset, 4                     # where its first chunk lies in the array
.set pool.end, 8                        # and where its last one ends
.set pool.freed, 12                     # chunks that the last part of main could free
.set pool.bytes, 16

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14

    # 1. Its own demo: one allocation of the smallest size, and its free.
    call seed_new
    mov edi, 32
    call seed_allocate
    test rax, rax
    jz .Lmain_failed
    mov rdi, rax
    call seed_deallocate
    test eax, eax
    jz .Lmain_failed
    lea rdi, [rip + demo]
    call kprintf

    # 2. The first chunk of 128 bytes: where it begins, and what lies there.
    mov edi, 128
    call seed_allocate
    mov rbx, rax                        # rbx = chunk
    lea r12, [rip + seed_blocks]        # r12 = the table
    mov rsi, rbx
    lea rax, [rip + seed_memory]
    sub rsi, rax                        # rsi = its offset
    mov rdx, rbx
    sub rdx, r12
    lea rdi, [rip + overlap]
    call kprintf

    # 3. Its owner writes the first byte, as it may. The block that lies there now points elsewhere.
    mov r13, [rbx]
    lea rdi, [rip + before]
    mov rsi, r13
    call kprintf
the_overlap:
    mov byte ptr [rbx], 0xff            # the instruction that damages the allocator
    lea rdi, [rip + after]
    mov rsi, [rbx]
    call kprintf

    # 4. All 63 chunks, from a fresh start; nobody writes to them.
    call seed_new
    xor r12d, r12d                      # r12 = chunks held
    lea rbx, [rip + pools]              # rbx = pool
    lea r13, [rip + held]
.Lmain_allocate:
    mov edi, [rbx + pool.size]
    call seed_allocate
    test rax, rax
    jz .Lmain_pool_exhausted
    mov [r13 + r12 * 8], rax
    inc r12d
    jmp .Lmain_allocate
.Lmain_pool_exhausted:
    add rbx, pool.bytes
    lea rax, [rip + pools_end]
    cmp rbx, rax
    jb .Lmain_allocate

    # 5. Free them all.
    xor r14d, r14d                      # r14 = next one
.Lmain_free:
    mov rdi, [r13 + r14 * 8]
    call seed_deallocate
    test eax, eax
    jz .Lmain_refused
    mov rdi, [r13 + r14 * 8]
    call seed_pool_of
    inc dword ptr [rax + pool.freed]
.Lmain_refused:
    inc r14d
    cmp r14d, r12d
    jb .Lmain_free

    lea rbx, [rip + pools]
    xor r13d, r13d                      # r13 = freed in all
.Lmain_report:
    lea rdi, [rip + freed]
    mov esi, [rbx + pool.size]
    mov edx, [rbx + pool.freed]
    add r13d, edx
    mov ecx, CHUNKS
    call kprintf
    add rbx, pool.bytes
    lea rax, [rip + pools_end]
    cmp rbx, rax
    jb .Lmain_report
    lea rdi, [rip + total]
    mov esi, r13d
    mov edx, r12d
    mov ecx, r12d
    sub ecx, r13d
    call kprintf
    xor eax, eax                        # the demo passed, so all is well
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

# void seed_new(void)
# Every chunk is free; the table learns where each one is.
#   clobbers  rax rcx rdx rsi rdi r8
seed_new:
    lea rdi, [rip + seed_blocks]        # rdi = block
    lea rsi, [rip + pools]              # rsi = pool
    lea rax, [rip + seed_memory]        # rax = chunk
.Lseed_new_pool:
    mov ecx, CHUNKS
    mov edx, [rsi + pool.size]
.Lseed_new_chunk:
    mov [rdi + block.pointer], rax
    mov qword ptr [rdi + block.is_free], 1
    add rax, rdx
    add rdi, block.bytes
    dec ecx
    jnz .Lseed_new_chunk
    add rsi, pool.bytes
    lea r8, [rip + pools_end]
    cmp rsi, r8
    jb .Lseed_new_pool
    ret

# void *seed_allocate(size_t size)
# The last free chunk of the smallest pool whose chunks are large enough.
#   in        rdi = size
#   out       rax = chunk, or 0
#   clobbers  rcx rdx rsi
seed_allocate:
    lea rsi, [rip + pools]              # rsi = pool
    lea rdx, [rip + seed_blocks_second] # rdx = behind its last block
.Lseed_allocate_pool:
    cmp edi, [rsi + pool.size]
    jbe .Lseed_allocate_search
    add rsi, pool.bytes
    add rdx, CHUNKS * 16
    lea rax, [rip + pools_end]
    cmp rsi, rax
    jb .Lseed_allocate_pool
    xor eax, eax
    ret
.Lseed_allocate_search:
    mov ecx, CHUNKS
.Lseed_allocate_block:
    sub rdx, block.bytes
    cmp qword ptr [rdx + block.is_free], 1
    je .Lseed_allocate_found
    dec ecx
    jnz .Lseed_allocate_block
    xor eax, eax
    ret
.Lseed_allocate_found:
    mov qword ptr [rdx + block.is_free], 0
    mov rax, [rdx + block.pointer]
    ret

# bool seed_deallocate(void *chunk)
# Mark a chunk free, if the block at offset / 32 in its pool's table is the chunk's.
#   in        rdi = chunk
#   out       eax = 1, or 0 when the free is refused
#   clobbers  rcx rdx rsi
seed_deallocate:
    call seed_pool_of
    test rax, rax
    jz .Lseed_deallocate_refused
    lea rcx, [rip + seed_memory]
    mov rdx, rdi
    sub rdx, rcx
    mov ecx, [rax + pool.offset]
    sub edx, ecx
    shr edx, 5                          # edx = offset / 32: right for the first pool alone
    cmp edx, CHUNKS
    jae .Lseed_deallocate_refused
    lea rcx, [rip + pools]
    sub rax, rcx                        # rax = 16 * number of the pool
    imul eax, eax, CHUNKS
    shl edx, 4
    add eax, edx
    lea rcx, [rip + seed_blocks]
    add rcx, rax                        # rcx = block
    cmp [rcx + block.pointer], rdi
    jne .Lseed_deallocate_refused
    cmp qword ptr [rcx + block.is_free], 0
    jne .Lseed_deallocate_refused
    mov qword ptr [rcx + block.is_free], 1
    mov eax, 1
    ret
.Lseed_deallocate_refused:
    xor eax, eax
    ret

# struct pool *seed_pool_of(void *chunk)
#   in        rdi = chunk
#   out       rax = its pool, or 0
#   clobbers  rcx rdx
seed_pool_of:
    lea rcx, [rip + seed_memory]
    mov rdx, rdi
    sub rdx, rcx                        # rdx = offset
    lea rax, [rip + pools]
.Lseed_pool_of_next:
    cmp edx, [rax + pool.end]
    jb .Lseed_pool_of_out
    add rax, pool.bytes
    lea rcx, [rip + pools_end]
    cmp rax, rcx
    jb .Lseed_pool_of_next
    xor eax, eax
.Lseed_pool_of_out:
    ret

# u64 seed_stats(void)
#   out       rax = chunks in use
#   clobbers  rcx rdx
seed_stats:
    lea rdx, [rip + seed_blocks]
    mov ecx, POOLS * CHUNKS
    xor eax, eax
.Lseed_stats_block:
    cmp qword ptr [rdx + block.is_free], 1
    setne r8b
    movzx r8d, r8b
    add eax, r8d
    add rdx, block.bytes
    dec ecx
    jnz .Lseed_stats_block
    ret

.rodata
demo:
    .asciz "the demo: allocated 32 bytes, freed them, passed\n"
overlap:
    .asciz "first chunk of 128 bytes: offset %lu of 4096, which is byte %lu of the table\n"
before:
    .asciz "block 30 of the table points to 0x%016lx\n"
after:
    .asciz "after the owner's first byte:   0x%016lx\n"
freed:
    .asciz "chunks of %3u bytes: %2u of %u freed\n"
total:
    .asciz "%u of %u chunks could be freed, %u frees were refused\n"

.data
.p2align 3
pools:                                  # size, offset, end, freed
    .long 32, 0, 672, 0
    .long 64, 672, 2016, 0
    .long 128, 2016, 4704, 0
pools_end:

.bss
.p2align 4
seed_memory:
    .zero MEMORY_SIZE
seed_blocks:                            # right behind the array
    .rept CHUNKS
    .zero 16
    .endr
seed_blocks_second:
    .rept CHUNKS * 2
    .zero 16
    .endr
held:
    .rept POOLS * CHUNKS
    .zero 8
    .endr
