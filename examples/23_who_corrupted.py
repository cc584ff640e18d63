"""Who corrupted the free list? The fault accuses the allocator; the trail leads backwards.

A server keeps its connections on the heap. The fifth one ends in a page fault inside of kmalloc, which is innocent:
somebody wrote into its free list long before. Every past moment can be reached, so one asks who wrote what is wrong,
goes there, and asks again.
"""

from textwrap import fill

import sandbox

SERVER = """
.set connection.seen, 32            # u64: the second in which its peer was last heard

.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    call connect
    mov rbx, rax                    # rbx = the first connection
    call connect
    mov rdi, rax
    call disconnect                 # the second one is over,
    call heartbeat                  # and a packet comes in
    mov rdi, rbx
    call disconnect
    mov ebx, 10                     # ebx = connections to come
.Lmain_more:
    call connect
    dec ebx
    jnz .Lmain_more
    pop rbx
    pop rbx
    pop rbp
    ret

connect:                            # struct connection *connect(void)
    push rbp
    mov rbp, rsp
    mov edi, 64
    call kmalloc
    mov [rip + newest], rax         # most packets are for the newest: keep it at hand
    pop rbp
    ret

disconnect:                         # void disconnect(struct connection *connection)
    push rbp
    mov rbp, rsp
    call kfree
    pop rbp
    ret

heartbeat:                          # void heartbeat(void)
    push rbp
    mov rbp, rsp
    mov rax, [rip + newest]
    mov qword ptr [rax + connection.seen], 1000
    pop rbp
    ret

.data
newest:
    .quad 0
"""


def tell(*evidence: object) -> None:
    """Print what was found, in 80 columns."""
    for line in "\n".join(map(str, evidence)).splitlines():
        print(fill(line, 80, initial_indent="  ", subsequent_indent="      "))


# Without magazines every free object is on its slab's list, linked through its own bytes.
timeline = sandbox.record(SERVER, magazines=False)
kernel = timeline.kernel

print("1. The crime: what ended the run, and where?")
tell(timeline.result, *timeline.result.error.backtrace)

print("2. The scene: what is wrong with the heap?")
broken = next(found for found in kernel.heap.validate() if found.rule == "free-pointer")
tell(broken)

print("3. The suspect: who wrote that?")
store = timeline.who_wrote(broken.address, 8)
timeline.goto(store.instruction)
call = timeline.back_to("kmalloc")
tell(store, f"That is the allocator itself. Was its list sound before that call, {call}?")
broken = kernel.heap.validate()[0]
tell(broken)

print("4. The culprit: who wrote there?")
store = timeline.who_wrote(broken.address, 8)
timeline.goto(store.instruction)
tell(timeline.explain(), *kernel.backtrace())
later = [event.function for event in timeline.trace if event.entered > store.instruction]
tell(f"Then came {', '.join(later)}.")

print("5. The victim: whose memory was it?")
lives = timeline.history(broken.object)
tell(*lives)

print("6. The motive: when it had been freed, who still knew it?")
timeline.at(lives[0].freed)
tell(timeline.finish(), f"newest = {kernel.memory.u64(kernel.symbols['newest']):#x}", kernel.whatis(broken.object))
