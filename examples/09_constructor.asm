# A constructor: it runs when a slab is filled, not at each allocation.
#
# What all objects of a kind have in common (a lock that is open, an empty list) is made once, for all objects of a new
# slab. Whoever frees an object leaves it in that state, and the next owner saves the work: what he finds there is no
# rubbish. So a cache with a constructor cannot be zeroed, and its free pointers lie outside of the objects.

.set door.open, 0                       # u64: 1 from the constructor on, whoever has the object
.set door.owners, 8                     # u64: how many have had it
.set door.bytes, 256

.text
main:
    push rbx
    push r12
    push r13
    lea rdi, [rip + name]
    mov esi, door.bytes
    xor edx, edx
    mov ecx, SLAB_NO_MAGAZINES
    lea r8, [rip + construct]
    call kmem_cache_create
    mov rbx, rax                        # rbx = cache
    lea rdi, [rip + made]
    mov esi, [rip + constructed]
    mov edx, [rbx + kmem_cache.offset]
    call kprintf
    mov r12d, 3                         # r12 = owners to come, one after the other
.Lmain_owner:
    mov rdi, rbx
    call kmem_cache_alloc
    mov r13, rax                        # r13 = object
    inc qword ptr [rax + door.owners]
    lea rdi, [rip + row]
    mov rsi, rax
    mov edx, [rip + constructed]
    mov rcx, [rax + door.open]
    mov r8, [rax + door.owners]
    call kprintf
    mov rdi, rbx
    mov rsi, r13
    call kmem_cache_free
    dec r12d
    jnz .Lmain_owner
    mov rdi, rbx
    call kmem_cache_destroy             # eax = 0: nobody holds an object
    pop r13
    pop r12
    pop rbx
    ret
construct:                              # void construct(void *object)
    mov qword ptr [rdi + door.open], 1
    mov qword ptr [rdi + door.owners], 0
    inc dword ptr [rip + constructed]
    ret
.rodata
name: .asciz "door"
made: .asciz "a cache is made: %u objects constructed, free pointers at byte %u\n"
row:  .asciz "object 0x%016lx: %2u constructed; open %lu, owners %lu\n"
.bss
constructed: .zero 4
