"""An interrupt inside of kmalloc: the critical section is sent back to its start, so that it needs no lock.

kmalloc takes an object off the magazine in a few instructions. An interrupt may come before each of them, and its
handler may call kmalloc itself. Up to the one instruction that takes effect (``sub``), what has been read may be out of
date when the handler is done: so the way back from the interrupt leads to the section's start. Here a tick comes before
every instruction in turn; its handler takes an object, and keeps it.
"""

import sandbox
from sandbox.abi import IRQ_BASE, TIMER_IRQ, percpu
from sandbox.toolchain.disassembler import Disassembler

HANDLER = """
.text
main:
    ret
on_tick:                            # int on_tick(struct pt_regs *regs)
    push rbp
    mov rbp, rsp
    mov edi, 64
    call kmalloc
    mov [rip + taken], rax
    mov eax, 1                      # handled
    pop rbp
    ret
.bss
taken: .zero 8
"""

with sandbox.boot(HANDLER, hz=0) as kernel:
    kernel.call("set_trap_handler", IRQ_BASE + TIMER_IRQ, kernel.symbols["on_tick"])
    kernel.call("irq_enable", TIMER_IRQ)
    kernel.call("kfree", kernel.call("kmalloc", 64))
    start, cpu = kernel.snapshot(), percpu(kernel.memory, kernel.symbols["boot_cpu"])

    # 1. Undisturbed: which instructions there are.
    path: list[int] = []
    kmalloc = kernel.symbols["kmalloc"]
    hook = kernel.machine.cpu.hook_code(range(kmalloc, kmalloc + 100), path.append)
    top = kernel.call("kmalloc", 64)
    hook.remove()
    print(f"undisturbed, kmalloc returns 0x{top:x}, the object on top\n")
    print(f"{'a tick before':<41}the tick gets  kmalloc gets")

    # 2. Disturbed before each of them: never do the two get the same object.
    for number, address in enumerate(path):
        code = Disassembler().disassemble(kernel.memory[address:address + 15], address, kernel.image.symbolize)
        kernel.restore(start)
        kernel.interrupt_at(kernel.instructions + number, TIMER_IRQ)
        got, taken = kernel.call("kmalloc", 64), kernel.memory.u64(kernel.symbols["taken"])
        assert got != taken
        print(f"+0x{address - kmalloc:02x} {code.text:<36}..{taken & 0xFFFF:04x}         ..{got & 0xFFFF:04x}"
              + ("   sent back" if cpu.restarts else ""))
