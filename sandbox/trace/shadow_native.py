"""The shadow's gate in native code, so that Python is called on a violation alone.

The engine calls a memory hook with the System V convention; here the callee is machine code in an executable
mapping, which looks at the bytes' states and lets pass what may. ``shadow_native.asm``, beside this file, is its
source; the bytes below are what any assembler makes of it, so that none is needed to run them (a test compares).
Hosts of another kind, and those that allow no executable memory, take every access to Python.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..machine.filter import native_callbacks_work
from .shadow_states import STACK_WORDS

CODE = bytes.fromhex(
    "49837910000f857801000089d025ff0f000001c83d001000000f87640100004d8b114901d283f908742483f904741a83f901740f"
    "83f9020f8546010000410fb702eb0e410fb602eb08418b02eb03498b0283fe1174634885c0745d49bbfdfdfdfdfdfdfdfd4c85d8"
    "744ee8180100004183fb0174434183fb020f84ba0000004183fb030f85fa00000049bafcfcfcfcfcfcfcfc4c85d00f859d000000"
    "49ba01010101010101014c21d049894168498b4160488b0049894170c34989c34d0b596874f649bbfefefefefefefefe4c85d875"
    "5749837968007428e8aa0000004183fb03751d498b416849c74168000000004d8b51604d8b124d2b51704983fa01760231c04d8b"
    "114901d283f908741783f904740e83f901740566418902c3418802c3418902c3498902c3e85a0000004183fb0174854183fb0272"
    "4a458b5924e86d0000004d2b59484d3b595077374d03595841ba08000000498b03492b4130721b493b4138731e490341400fb640"
    "ff83f8010f8442ffffff85c074094983c30841ffca75d341ff6108458b59204883ec08e81b0000004883c4084d2b59304d3b5938"
    "73094d035940450fb61bc34531dbc350515256574150415141524489de498d512841ff5118415a415941585f5e5a59584d8b5928"
    "c3"
)


class _Gate(ctypes.Structure):
    """``struct gate`` of the source."""

    _fields_ = tuple((name, ctypes.c_uint32 if name in ("rip", "rsp") else ctypes.c_uint64) for name in (
        "shadow", "python", "divert", "read_register", "rip", "rsp", "value", "text", "text_size", "classes", "stack",
        "stack_size", "stack_bytes", "clock", "copied", "copied_at"))


@dataclass(frozen=True)
class Registers:
    """How native code reads a register: a function of the engine's library, and its numbers for RIP and RSP."""

    function: int
    rip: int
    rsp: int


@dataclass(frozen=True)
class Stack:
    """The stack on which helpers are expected to be called: its virtual address, its size, and where it lies in
    this process."""

    address: int
    size: int
    bytes: int


class NativeGate:
    """The gate of one shadow. Given the host address of a Python callback, it returns what to hook instead."""

    def __init__(
        self, shadow: npt.NDArray[np.uint8], text: int, table: npt.NDArray[np.uint8], registers: Registers,
        stack: Stack, clock: int,
    ) -> None:  # fmt: skip
        """``OSError`` where the host allows no such code. ``table`` is that of the code map, one byte longer in
        front than the text; ``clock`` the host address of the engine's count of starts."""
        if not native_callbacks_work():
            raise OSError("this host runs no native callbacks")
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code[: len(CODE)] = CODE
        self._keep = shadow, table
        self._gate = _Gate(
            shadow=shadow.ctypes.data, read_register=registers.function, rip=registers.rip, rsp=registers.rsp,
            text=text, text_size=len(table) - 1, classes=table.ctypes.data + 1, stack=stack.address,
            stack_size=stack.size - 8 * STACK_WORDS, stack_bytes=stack.bytes, clock=clock)

    def __call__(self, python: int) -> tuple[int, int]:
        """The callback and the user pointer for a hook whose hard cases go to the callback ``python``."""
        self._gate.python = python
        return ctypes.addressof(ctypes.c_char.from_buffer(self._code)), ctypes.addressof(self._gate)

    @property
    def divert(self) -> bool:
        """Whether every access goes to Python."""
        return bool(self._gate.divert)

    @divert.setter
    def divert(self, divert: bool) -> None:
        self._gate.divert = int(divert)

    @property
    def copied(self) -> tuple[int, int]:
        """The states of bytes that a copy has read and not yet written, a byte each, and the engine's count then."""
        return self._gate.copied, self._gate.copied_at

    @copied.setter
    def copied(self, copied: tuple[int, int]) -> None:
        self._gate.copied, self._gate.copied_at = copied
