# The fast paths: an allocation pops an object off this CPU's magazine, a free pushes one, with no lock and no cli.
#
# What makes that safe against interrupts is that each is a restartable critical section:
#
#   restart:  ...          reads only, and a store that counts for nothing until the last instruction
#             add/sub top  the one instruction that takes effect
#   commit:   ...
#
# The common return path from interrupts (traps.asm) sends code that it finds between restart and commit back to
# restart. An interrupt handler may therefore allocate and free as it likes. The restart point is never the first
# instruction of a function, so that a restart does not look like a call.

# magazine_pop function
# Take the object below top, count it and return. Falls through when the magazine is empty.
#   in        rdi = cache
#   out       rax = object
#   clobbers  rcx rdx
.macro magazine_pop function
    mov rdx, [rdi + kmem_cache.cpu]     # rdx = GS offset of struct kmem_cache_cpu
.L\function\()_restart:
    mov rcx, gs:[rdx + kmem_cache_cpu.top]
    mov rax, [rcx - 8]                  # rax = object, or the 0 at the bottom
    test rax, rax
    jz .L\function\()_slow
    sub qword ptr gs:[rdx + kmem_cache_cpu.top], 8
.L\function\()_commit:
    inc qword ptr gs:[rdx + kmem_cache_cpu.alloc_fastpath]
    ret
.L\function\()_slow:
.endm

# magazine_push function
# Put an object at top, count it and return. Falls through when the magazine is full.
#   in        rdi = cache, rsi = object
#   clobbers  rcx rdx
.macro magazine_push function
    mov rdx, [rdi + kmem_cache.cpu]     # rdx = GS offset of struct kmem_cache_cpu
.L\function\()_restart:
    mov rcx, gs:[rdx + kmem_cache_cpu.top]
    cmp rcx, gs:[rdx + kmem_cache_cpu.limit]
    je .L\function\()_slow
    mov [rcx], rsi                      # above top: nobody's until top moves
    add qword ptr gs:[rdx + kmem_cache_cpu.top], 8
.L\function\()_commit:
    inc qword ptr gs:[rdx + kmem_cache_cpu.free_fastpath]
    ret
.L\function\()_slow:
.endm

.text

# void *kmem_cache_alloc(struct kmem_cache *cache)
# Take an object from this CPU's magazine; refill it when it is empty.
#   in        rdi = cache
#   out       rax = object, or 0 when no page is left
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_alloc:
    magazine_pop kmem_cache_alloc
    mov esi, [rdi + kmem_cache.object_size]
    jmp slab_alloc

# void *kmem_cache_alloc_sized(struct kmem_cache *cache, size_t size)
# The same, where the caller needs only the first size bytes of the object.
#   in        rdi = cache, rsi = size, at most object_size
#   out       rax = object, or 0 when no page is left
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_alloc_sized:
    magazine_pop kmem_cache_alloc_sized
    jmp slab_alloc

# void *kmem_cache_zalloc(struct kmem_cache *cache)
# The same, filled with zeros. A cache with a constructor has none: zeros would undo its work.
#   in        rdi = cache
#   out       rax = object, or 0 when no page is left or the cache has a constructor
#   clobbers  rcx rdx rsi rdi r8-r11
kmem_cache_zalloc:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi                        # rbx = cache
    cmp qword ptr [rbx + kmem_cache.ctor], 0
    jne .Lkmem_cache_zalloc_ctor
    call kmem_cache_alloc
    mov r12, rax                        # r12 = object
    test rax, rax
    jz .Lkmem_cache_zalloc_out
    mov rdi, rax
    xor esi, esi
    mov edx, [rbx + kmem_cache.object_size]
    call memset
    jmp .Lkmem_cache_zalloc_out
.Lkmem_cache_zalloc_ctor:
    lea rdi, [rip + .Lkmem_cache_zalloc_message]
    lea rsi, [rbx + kmem_cache.name]
    xor eax, eax
    call kprintf
    xor r12d, r12d
.Lkmem_cache_zalloc_out:
    mov rax, r12
    pop r12
    pop rbx
    pop rbp
    ret

# void kmem_cache_free(struct kmem_cache *cache, void *object)
# Put an object into this CPU's magazine; make room when it is full. 0 is accepted.
#   in        rdi = cache, rsi = object
#   clobbers  rax rcx rdx rsi rdi r8-r11
kmem_cache_free:
    test rsi, rsi
    jz .Lkmem_cache_free_nothing
    magazine_push kmem_cache_free
    jmp slab_free
.Lkmem_cache_free_nothing:
    ret

.rodata
.p2align 3
# Restartable critical sections: an interrupt at start <= RIP < end returns to restart.
critical_sections:
    .irp function, kmem_cache_alloc, kmem_cache_alloc_sized, kmalloc, kmem_cache_free, kfree
    .quad .L\function\()_restart, .L\function\()_commit, .L\function\()_restart
    .endr
critical_sections_end:

.Lkmem_cache_zalloc_message:
    .asciz "kmem_cache_zalloc: %s has a constructor, its objects cannot be zeroed\n"
