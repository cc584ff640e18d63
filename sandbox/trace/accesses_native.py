"""Recording in native code: a dozen machine instructions put away each start and each access.

The engine calls hooks with the System V convention; here the callees are machine code in an executable mapping, which
fills the arrays of :mod:`~sandbox.trace.accesses_columns`. ``accesses_native.asm``, beside this file, is their source;
the bytes below are what any assembler makes of it, so that none is needed to run them (a test compares). Hosts of
another kind, and those that allow no executable memory, take everything to Python.
"""

from __future__ import annotations

import ctypes
import mmap

from ..machine.filter import native_callbacks_work

CODE = bytes.fromhex(
    "488b01488b0048034108483b411073164989f049c1e8204c3b411875094c8b412041893480c3ff6158cccccccccccccc89d025ff"
    "0f000001c83d00100000775883f90877534d8b51284d3b51307349498b01488b004903410848ffc04d8b5938438904934d8b5940"
    "4389149389c94d2344c9684d8b59484f8904d331c083fe110f94c0c1e00409c84d8b59504388041349ffc24d895128c341ff6160"
    "ccccccccc3"
)
INSTRUCTION, ACCESS, NOTHING = 0, 0x30, 0xA0
"""Where the routines begin; the last returns at once."""
LARGEST = 8
"""Bytes of the largest access that the engine reports as one."""


class State(ctypes.Structure):
    """``struct columns`` of the source."""

    _fields_ = (*((name, ctypes.c_uint64) for name in (
        "counter", "bias", "room", "high", "rips", "count", "access_room", "keys", "physical", "values", "kinds",
        "python_instruction", "python_access")), ("masks", ctypes.c_uint64 * (LARGEST + 1)))


class NativeRecorder:
    """The routines, for one set of columns."""

    def __init__(self, state: State) -> None:
        """``OSError`` where the host allows no such code."""
        if not native_callbacks_work():
            raise OSError("this host runs no native callbacks")
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code[: len(CODE)] = CODE
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._state = state
        self._python = (0, 0)

    def instruction_gate(self, python: int) -> tuple[int, int]:
        """The callback and the user pointer for a hook on every instruction, given that of Python."""
        self._state.python_instruction = python
        return self._start + INSTRUCTION, ctypes.addressof(self._state)

    def access_gate(self, python: int) -> tuple[int, int]:
        """The same for a hook on memory."""
        self._state.python_access = python
        return self._start + ACCESS, ctypes.addressof(self._state)

    def pass_over(self, everything: bool) -> None:
        """Let what does not find room be passed over, or go to Python again."""
        state = self._state
        nothing = self._start + NOTHING
        now = state.python_instruction, state.python_access
        if everything and nothing not in now:
            self._python = now
            state.python_instruction = state.python_access = nothing
        elif not everything and nothing in now:
            state.python_instruction, state.python_access = self._python
