"""A list without an end: one byte too many, written long before, and it was only a zero.

A bakery in C adds up its orders twice. The first sum is right, the second one never comes. Nothing crashed, the heap is
sound, and the code in orders.c looks fine. One starts where patience ended, and goes backwards.
"""

from textwrap import fill

import sandbox

PATIENCE = 20_000                       # instructions


def tell(*evidence: object) -> None:
    """Print what was found, in 80 columns."""
    for line in "\n".join(map(str, evidence)).splitlines():
        print(fill(line, 80, initial_indent="  ", subsequent_indent="      "))


# No inlining: each function of the source is one that can be gone back to.
timeline = sandbox.record("orders.c", cflags="-fno-inline", limit=PATIENCE)
kernel = timeline.kernel

print("1. The symptom: what did it say, and what did it never end?")
innermost, *callers = kernel.backtrace()
tell(kernel.console.strip(), f"stopped by the {timeline.result.kind}, in {innermost.split()[0]}, called by", *callers)

print("2. The list: where does it lead?")
link, seen = kernel.symbols["orders"], []
while (order := kernel.memory.u64(link)) not in seen:
    seen.append(order)
    link = order                        # next is the first field
    tell(f"{order:#x}: {kernel.memory.u64(order + 8)} of 10 pieces")
tell(f"{order:#x}: that was the first one, and four were ordered", kernel.heap.validate() or "the heap is sound")

print("3. The link: who turned it around?")
store = timeline.who_wrote(link, 8)
timeline.goto(store.instruction)
tell(f"it leads to {kernel.memory.u64(link):#x}, and now comes", timeline.explain(), *kernel.backtrace()[1:])

print("4. The copy: of what, and into what?")
tell(timeline.back_to("strcpy"))
source, target = kernel.registers["rsi"], kernel.registers["rdi"]
text = kernel.memory.cstring(source)
tell(f"{len(text)} characters and a zero: {text.decode()!r}", kernel.whatis(target), *timeline.history(target))

print("5. The cause: what was asked for?")
tell(timeline.back_to("kmalloc"), f"kmalloc({kernel.registers['rdi']})", *kernel.backtrace()[1:])

print("6. The disguise: why did the other notes do no harm?")
for event in timeline.trace.events(kind="alloc", function="kmalloc"):
    if event.call_site.startswith("copy"):
        tell(f"@{event.instruction:,} asked for {event.bytes_req} bytes, given {event.bytes_alloc}")

print("7. Without any walk: what would the shadow have said?")
with sandbox.boot("orders.c", cflags="-fno-inline", shadow=True) as watched:
    tell(watched.run(PATIENCE).error, *watched.backtrace()[1:])
