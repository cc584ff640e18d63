# The life of a slab: made for the first object, partial, full, empty, given back.
#
# Objects of 1000 bytes lie four to a page. Without magazines every call goes straight to a slab. The fifth object
# needs a second slab. Two empty slabs are kept for later; kmem_cache_shrink gives them back too.
.set OBJECTS, 12
main:
    push rbx
    push r12
    push r13
    lea rdi, [rip + name]
    mov esi, 1000
    xor edx, edx
    mov ecx, SLAB_NO_MAGAZINES
    xor r8d, r8d
    call kmem_cache_create
    mov rbx, rax                        # rbx = cache
    lea r13, [rip + held]               # r13 = where the objects' pointers are kept
    xor r12d, r12d                      # r12 = number of the call
.Lmain_allocate:                        # each new slab begins empty, becomes partial, then full
    mov rdi, rbx
    call kmem_cache_alloc
    mov [r13 + r12 * 8], rax
    inc r12d
    lea rdi, [rip + row_alloc]
    call show
    cmp r12d, OBJECTS
    jb .Lmain_allocate
    xor r12d, r12d
.Lmain_free:                            # full slabs become partial, then empty; the third empty one is given back
    mov rdi, rbx
    mov rsi, [r13 + r12 * 8]
    call kmem_cache_free
    inc r12d
    lea rdi, [rip + row_free]
    call show
    cmp r12d, OBJECTS
    jb .Lmain_free
    mov rdi, rbx
    call kmem_cache_shrink              # no slab is left
    lea rdi, [rip + row_shrink]
    call show
    mov rdi, rbx
    call kmem_cache_destroy             # eax = 0 when nobody holds an object
    pop r13
    pop r12
    pop rbx
    ret
show:                                   # a line with the cache's three lists; rbx = cache, r12 = number
    mov esi, r12d
    mov edx, [rbx + kmem_cache.nr_partial]
    mov ecx, [rbx + kmem_cache.nr_full]
    mov r8d, [rbx + kmem_cache.nr_empty]
    jmp kprintf
.rodata
name: .asciz "thing"
row_alloc: .asciz "alloc  %2u   partial %u  full %u  empty %u\n"
row_free: .asciz "free   %2u   partial %u  full %u  empty %u\n"
row_shrink: .asciz "shrink %2u   partial %u  full %u  empty %u\n"
.bss
held: .zero 8 * OBJECTS
