"""A page walk, from outside: how the processor finds the memory behind an address, and where it gives up.

An address has four indexes of nine bits, one for each level of tables, and twelve bits that stay as they are. Each
entry says where the next table is and what may be done there; the first that forbids an access, or is not present,
ends it with a page fault. Python reads the same tables that the processor reads, and disturbs nothing by it.
"""

import sandbox
from sandbox.x86 import Access


def show(kernel: sandbox.Kernel, name: str, address: int) -> None:
    """Print the walk to an address, then what each kind of access would meet there."""
    print(f"{name}: 0x{address:016x}")
    for step in kernel.machine.paging.walk(address):
        print(f"    {step}")
    for access in (Access.READ, Access.WRITE, Access.EXECUTE):
        found = kernel.machine.paging.resolve(address, access)
        word = str(access.name).lower()
        if found.physical is None:
            last = found.steps[-1]
            print(f"    {word:<8} faults: {last.level.name}[{last.index}] {found.reason.removeprefix(f'{last} ')}")
        else:
            size = found.steps[-1].level.page_size // 1024
            print(f"    {word:<8} reaches physical 0x{found.physical:x}, in a page of {size} KiB")
    print()


with sandbox.boot() as kernel:
    # The same physical bytes have two addresses, and different rights at each.
    text = kernel.symbols["_start"]
    show(kernel, "the kernel's first instruction", text)
    alias = 0xFFFF_8880_0000_0000 + kernel.memory.translate(text)
    show(kernel, "the same bytes in the direct map", alias)
    assert kernel.memory[text : text + 16] == kernel.memory[alias : alias + 16]

    # Most of RAM is mapped in pages of 2 MiB: the walk ends one level earlier.
    show(kernel, "the last byte of RAM", 0xFFFF_8880_0000_0000 + len(kernel.physical) - 1)

    # Nobody may touch what lies below a stack, or the null pointer: a mistake there stops at once.
    stack = kernel.registers["rsp"] - 8
    show(kernel, "the kernel's stack", stack)
    show(kernel, "below that stack", stack - 0x4000)
    show(kernel, "the null pointer", 0)

    # Bits 48-63 must repeat bit 47, or it is no address at all. That is not even a page fault.
    print(kernel.machine.paging.explain(0x0000_8000_0000_0000))
