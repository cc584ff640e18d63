# The life of a slab: made for the first object, partial, full, empty, given back.
#
# Objects of 1000 bytes lie 1000 bytes apart, four to a page of 4096. Without magazines every allocation and every
# free goes straight to the slab, so the numbers below move one at a time. The fifth object needs a second slab. Two
# empty slabs are kept for the next allocation; kmem_cache_shrink gives them back too.

.set OBJECTS, 12

.text

main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r13

    lea rdi, [rip + name]
    mov esi, 1000
    xor edx, edx
    mov ecx, SLAB_NO_MAGAZINES
    xor r8d, r8d
    call kmem_cache_create
    test rax, rax
    jz .Lmain_failed
    mov rbx, rax                        # rbx = cache
    lea rdi, [rip + made]
    mov esi, [rbx + kmem_cache.object_size]
    mov edx, [rbx + kmem_cache.size]
    mov ecx, [rbx + kmem_cache.objects]
    call kprintf

    # 1. Allocate: each new slab begins empty, becomes partial, then full.
    xor r12d, r12d                      # r12 = objects held
    lea r13, [rip + held]               # r13 = where their pointers are kept
.Lmain_allocate:
    mov rdi, rbx
    call kmem_cache_alloc
    test rax, rax
    jz .Lmain_failed
    mov [r13 + r12 * 8], rax
    inc r12d
    lea rdi, [rip + verb_alloc]
    mov esi, r12d
    call show
    cmp r12d, OBJECTS
    jb .Lmain_allocate

    # 2. Free in the same order: full slabs become partial, then empty, and the third empty one is given back.
    xor r12d, r12d
.Lmain_free:
    mov rdi, rbx
    mov rsi, [r13 + r12 * 8]
    call kmem_cache_free
    inc r12d
    lea rdi, [rip + verb_free]
    mov esi, r12d
    call show
    cmp r12d, OBJECTS
    jb .Lmain_free

    # 3. Give the kept ones back, then the cache itself.
    mov rdi, rbx
    call kmem_cache_shrink
    lea rdi, [rip + verb_shrink]
    xor esi, esi
    call show
    mov rdi, rbx
    call kmem_cache_destroy             # eax = 0 when nobody holds an object
.Lmain_out:
    pop r13
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
.Lmain_failed:
    mov eax, 1
    jmp .Lmain_out

# void show(const char *verb, int number): a line with the cache's three lists
#   in        rdi = verb, esi = number, rbx = cache
show:
    push rbp
    mov rbp, rsp
    mov edx, esi
    mov rsi, rdi
    lea rdi, [rip + row]
    mov ecx, [rbx + kmem_cache.nr_partial]
    mov r8d, [rbx + kmem_cache.nr_full]
    mov r9d, [rbx + kmem_cache.nr_empty]
    call kprintf
    pop rbp
    ret

.rodata
name:
    .asciz "thing"
made:
    .asciz "cache of %u-byte objects, %u bytes apart, %u to a slab\n"
row:
    .asciz "%-6s %2u   partial %u  full %u  empty %u\n"
verb_alloc:
    .asciz "alloc"
verb_free:
    .asciz "free"
verb_shrink:
    .asciz "shrink"

.bss
held:
    .rept OBJECTS
    .zero 8
    .endr
