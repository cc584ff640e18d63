# The seed: the allocator that this project grew from, and what was wrong with it.
#
#   sandbox run 18 --shadow --collect --no-trace \
#       --allocator allocate=seed_allocate,deallocate=seed_deallocate,init=seed_new,refused=0
#
# seed_allocator.inc has it, with a drawing. Its demo passed, and it was wrong in two ways: chunks of the largest pool
# lie in its own table, and most chunks of the others cannot be freed. The shadow knows the names of its functions, and
# nothing else of it; it catches the write that lands in the table, and counts the chunks that were not taken back.

.include "seed_allocator.inc"
.text
main:
    push rbx
    push r12
    push r12
    # 1. Its own demo: one allocation of the smallest size, and its free.
    call seed_new
    mov edi, 32
    call seed_allocate
    mov rdi, rax
    call seed_deallocate
    xor eax, 1                          # eax = 0 when the chunk was taken back
    jnz .Lmain_out
    lea rdi, [rip + demo]
    call kprintf
    # 2. The first chunk of 128 bytes: where it begins, and what lies there.
    mov edi, 128
    call seed_allocate
    mov rbx, rax                        # rbx = chunk
    lea rax, [rip + seed_memory]
    lea rcx, [rip + seed_blocks]        # rcx = the table
    mov rsi, rbx
    sub rsi, rax                        # rsi = its offset in the array
    mov rdx, rbx
    sub rdx, rcx                        # rdx = its offset in the table
    lea rdi, [rip + overlap]
    call kprintf
    # 3. Its owner writes the first byte, as it may. The block that lies there now points elsewhere.
    lea rdi, [rip + before]
    mov rsi, [rbx]
    call kprintf
the_overlap:
    mov byte ptr [rbx], 0xff            # the instruction that damages the allocator
    lea rdi, [rip + after]
    mov rsi, [rbx]
    call kprintf
    # 4. All 63 chunks, from a fresh start.
    call seed_census
    xor eax, eax                        # the demo passed, so all is well
.Lmain_out:
    pop r12
    pop r12
    pop rbx
    ret

.rodata
demo: .asciz "the demo: allocated 32 bytes, freed them, passed\n"
overlap: .asciz "first chunk of 128 bytes: offset %lu of 4096, which is byte %lu of the table\n"
before: .asciz "block 30 of the table points to 0x%016lx\n"
after: .asciz "after the owner's first byte:   0x%016lx\n"
