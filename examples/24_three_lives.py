"""One object, three lives: Alice, Bob and Carol hold the same memory, one after the other.

Who has it cannot be seen in the bytes: freed memory keeps what was written into it, in a magazine and on its slab's
list, and the next owner finds it there. So the timeline tells the lives, and goes into each of them.
"""

import sandbox

OWNER = """
{name}:                             # void {name}(void): allocate, write, read aloud, free
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    mov edi, 2000
    call kmalloc
    mov rbx, rax                    # rbx = the memory
    mov rdi, rax
    lea rsi, [rip + {name}_says]
    call strcpy
    mov rdi, rbx
    call kprintf
    mov rdi, rbx
    call kfree
    pop rbx
    pop rbx
    pop rbp
    ret
"""
PROGRAM = """
.text
main:
    push rbp
    mov rbp, rsp
    mov edi, 2000
    call kmalloc                    # a neighbour, half of their slab
    call alice
    call bob
    lea rax, [rip + kmalloc_caches]
    mov rdi, [rax + 10 * 8]         # rdi = kmalloc-2k
    call kmem_cache_shrink          # magazines give their objects back to the slabs
    call carol
    xor eax, eax
    pop rbp
    ret
""" + "".join(OWNER.format(name=name) for name in ("alice", "bob", "carol")) + """
.rodata
alice_says:
    .asciz "Alice was here.\\n"
bob_says:
    .asciz "Bob too.\\n"
carol_says:
    .asciz "Mine, says Carol.\\n"
"""


def show() -> None:
    """The present moment: where main or its callee is, the object's state, and its first bytes."""
    found, function = kernel.heap.find(pointer), kernel.backtrace()[-3:][0].split()[0]
    print(f"  @{timeline.position:,} {function + ':':<12} {found.state!s:<17} {found.bytes[:18]}")


# No timer ticks: nothing but the program moves.
timeline = sandbox.record(PROGRAM, hz=0)
kernel = timeline.kernel
pointer = next(event.address for event in timeline.trace if event.call_site.startswith("alice"))
lives = timeline.history(pointer)

found = kernel.heap.find(pointer)
print(f"1. Object {found.index} of {found.cache.name}, at {pointer:#x}, has {len(lives)} lives:")
for life in lives:
    print(f"  from {life.allocated.call_site:<10} @{life.began:,} to {life.freed.call_site:<10} @{life.ended:,}")

print("2. In the middle of each life, and behind its end:")
for life in lives:
    timeline.goto((life.began + life.ended) // 2)
    show()
    timeline.goto(life.freed.instruction)
    show()

print("3. Between the second and the third, the magazines were emptied:")
timeline.back_to("kmem_cache_shrink")
timeline.finish()
show()

print("4. What the allocator changed when the first life ended:")
print(timeline.diff(lives[0].freed.entered, lives[0].freed.instruction))

print("5. Backwards, from the third life to before the first:")
timeline.goto(lives[2].ended)
show()
timeline.reverse_finish()               # the call of kfree, in carol
timeline.reverse_finish()               # the call of carol, in main
show()
for target in ("bob", lives[0].freed, lives[0].allocated):
    timeline.back_to(target)
    show()
