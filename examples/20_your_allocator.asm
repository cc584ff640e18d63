# Your own allocator: four functions, and `sandbox check 20` tells what they are worth.
# Chunks of one size; free ones are linked through themselves, as in xv6. A second free is found by a look at the whole
# list: the check shows what that costs. A main for `sandbox run 20` is in try_allocator.inc; it is not checked.
.set CHUNK, 256
init:                                   # void init(void *start, u64 size)
    mov [rip + start], rdi
    lea rcx, [rdi + rsi]                # rcx = behind the chunk to come
    shr rsi, 8
    mov [rip + chunks], rsi
    mov [rip + left], rsi
    xor eax, eax                        # rax = the free chunk behind it
.Linit_chunk:
    sub rcx, CHUNK
    mov [rcx], rax
    mov rax, rcx
    cmp rcx, rdi
    ja .Linit_chunk
    mov [rip + free], rax
    ret
allocate:                               # void *allocate(u64 size)
    cmp rdi, CHUNK + 1
    sbb rax, rax                        # rax = all ones for a size that fits, else 0
    and rax, [rip + free]
    jz .Lallocate_out
    mov rcx, [rax]
    mov [rip + free], rcx
    dec qword ptr [rip + left]
.Lallocate_out:
    ret
deallocate:                             # void deallocate(void *pointer)
    mov rax, rdi
    sub rax, [rip + start]
    ror rax, 8                          # rax = its number; huge where it is no multiple of CHUNK
    cmp rax, [rip + chunks]
    jae refuse                          # which lets a 0 pass
    lea rax, [rip + free]
.Ldeallocate_next:
    mov rax, [rax]
    cmp rax, rdi
    je refuse                           # it is on the list already
    test rax, rax
    jnz .Ldeallocate_next
    mov rax, [rip + free]
    mov [rdi], rax
    mov [rip + free], rdi
    inc qword ptr [rip + left]
    ret
stats:                                  # void stats(struct allocator_stats *out)
    mov rax, [rip + left]
    mov rcx, [rip + chunks]
    sub rcx, rax
    mov [rdi + allocator_stats.in_use], rcx
    shl rax, 8
    mov [rdi + allocator_stats.free_bytes], rax
    ret
.include "try_allocator.inc"
.bss
.irp name, start, chunks, left, free
    \name: .zero 8
.endr
