"""A filter of addresses in native code, so that thousands of hooked addresses cost no more than one.

The engine asks each of its code hooks at every instruction; a hundred hooks on one address each make everything ten
times slower (measured: 40 to 4 million instructions per second). So there is one hook, on every address, whose
callback is a dozen native instructions: they look the low bits of the address up in a bitmap and jump to Python when
the bit is set. The engine calls with the System V convention: engine in RDI, address in RSI, size in EDX, user
pointer in RCX. Hosts of another kind, and those that allow no executable memory, hook each address by itself.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys

INDEX_BITS = 20
_BITMAP_BYTES = 1 << (INDEX_BITS - 3)
_MASK = (1 << INDEX_BITS) - 1

_NATIVE = bytes.fromhex(
    "89f0"  # mov eax, esi
    "25ffff0f00"  # and eax, 0xfffff
    "4189c0"  # mov r8d, eax
    "41c1e803"  # shr r8d, 3
    "460fb60401"  # movzx r8d, byte ptr [rcx + r8]
    "83e007"  # and eax, 7
    "410fa3c0"  # bt r8d, eax
    "7201"  # jc .Lhit
    "c3"  # ret
    "ffa100000200"  # .Lhit: jmp [rcx + 0x20000]
)


def native_callbacks_work() -> bool:
    """Whether this host runs the native code below."""
    return (platform.machine().lower() in ("x86_64", "amd64") and sys.platform in ("linux", "darwin")
            and ctypes.sizeof(ctypes.c_void_p) == 8)  # fmt: skip


class AddressFilter:
    """A set of addresses; ``entry`` and ``user`` are the callback and the user pointer for the engine's hook.

    ``target`` is the address of the callback that gets what passes: all addresses of the set, and now and then one
    with the same low bits as one of them.
    """

    def __init__(self, target: int) -> None:
        """``OSError`` where the host allows no executable memory."""
        if not native_callbacks_work():
            raise OSError("this host has no native filter")
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code[: len(_NATIVE)] = _NATIVE
        self._data = ctypes.create_string_buffer(_BITMAP_BYTES + 8)
        self._bits = memoryview(self._data).cast("B")
        self._bits[_BITMAP_BYTES:] = target.to_bytes(8, "little")
        self._users: dict[int, int] = {}  # how many addresses share a bit
        self.entry = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self.user = ctypes.addressof(self._data)

    def add(self, address: int) -> None:
        """Let an address pass; it may be added more than once."""
        index = address & _MASK
        self._users[index] = self._users.get(index, 0) + 1
        self._bits[index >> 3] |= 1 << (index & 7)

    def remove(self, address: int) -> None:
        """Take back one :meth:`add`."""
        index = address & _MASK
        self._users[index] -= 1
        if not self._users[index]:
            del self._users[index]
            self._bits[index >> 3] &= ~(1 << (index & 7)) & 0xFF
