# Colouring: what is left over in a slab lets its objects begin elsewhere, so that they share the processor's caches.
#
# Addresses 4096 bytes apart compete for the same few lines of a cache with 64 sets of 64 bytes, and every slab begins
# a page: were object 0 always the first in it, the busiest fields of all slabs would lie in one set. Here each new
# slab begins one line further on, until the left-over bytes are used up; then it starts again.

.set SLABS, 7

.text

main:
    push rbx
    push r12
    push r13
    lea rdi, [rip + name]
    mov esi, 640                        # six to a page, and 256 bytes left over
    xor edx, edx
    mov ecx, SLAB_NO_MAGAZINES
    xor r8d, r8d
    call kmem_cache_create
    mov rbx, rax                        # rbx = cache
    lea rdi, [rip + made]
    mov esi, [rbx + kmem_cache.objects]
    mov edx, [rbx + kmem_cache.size]
    mov ecx, [rbx + kmem_cache.colour]
    mov r8d, [rbx + kmem_cache.colour_step]
    call kprintf
    xor r12d, r12d                      # r12 = slabs so far
.Lmain_slab:
    xor r13d, r13d                      # r13 = objects of this slab so far
.Lmain_object:
    mov rdi, rbx
    call kmem_cache_alloc
    test r13d, r13d
    jnz .Lmain_next                     # only the first one of each slab is shown
    lea rdi, [rip + row]
    mov rsi, r12
    mov rdx, rax
    mov ecx, eax
    shr ecx, 6
    and ecx, 63                         # rcx = the set that its first line goes to
    call kprintf
.Lmain_next:
    inc r13d
    cmp r13d, [rbx + kmem_cache.objects]
    jb .Lmain_object
    inc r12d
    cmp r12d, SLABS
    jb .Lmain_slab
    xor eax, eax
    pop r13
    pop r12
    pop rbx
    ret

.rodata
name: .asciz "coloured"
made: .asciz "%u objects of %u bytes to a slab; %u colours, %u bytes apart\n"
row:  .asciz "slab %lu: object 0 at 0x%016lx, set %u\n"
