"""System V's calling convention: where the arguments of a C function go.

AMD64 ABI, section 3.2.3: the first six integers or pointers in registers, the rest on the stack above the return
address, and RSP = 8 mod 16 at the function's first instruction. Bytes and text have no address of their own in the
guest: they are copied to the stack of the call, above everything the function will push, and die with it::

    rsp at the stop ->  ...                       the guest's own stack, untouched
                        copies of bytes and text  each at a multiple of 16
                        argument 8, argument 7
    rsp at entry ->     return address
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from ..abi import KERNEL_STACK_SIZE
from ..address import U64
from ..errors import UsageError
from ..toolchain.prototype import Prototype

MAX_ARGUMENTS = 64
MAX_COPIED = KERNEL_STACK_SIZE // 4
"""Bytes that the arguments of one call may have copied to the stack: 4096, a quarter of it."""

Value: TypeAlias = "int | bytes"
_WORD = struct.Struct("<Q")
_INTEGER = re.compile(r"(?:const )?(?:[us](?:8|16|32|64)|s?size_t|u?int(?:8|16|32|64|ptr|max)_t|unsigned|signed|int|"
                      r"long|short|char|_?[Bb]ool)\b")


class CallFrame(NamedTuple):
    """What to load and store for a call: values for rdi rsi rdx rcx r8 r9, RSP at entry, the bytes that lie there."""

    registers: tuple[int, ...]
    rsp: int
    stack: bytes
    copies: tuple[int, ...]
    """For each argument the address of its copy, 0 where it is a number; empty where all are."""


def normalize(arguments: Sequence[Any]) -> tuple[Value, ...]:
    """The arguments as plain unsigned 64-bit numbers and bytes; :class:`UsageError` names the one that is neither.

    int (negative in two's complement), bool, addresses; bytes and bytearray; str as UTF-8 with a NUL behind it;
    a structure or a view (anything with an ``address``) for the pointer to it.
    """
    if len(arguments) > MAX_ARGUMENTS:
        raise UsageError(f"{len(arguments)} arguments: a call takes at most {MAX_ARGUMENTS}")
    values = tuple(
        argument if type(argument) is int and 0 <= argument <= U64 else _normalize(position, argument)
        for position, argument in enumerate(arguments, 1)
    )
    copied = sum(len(value) for value in values if isinstance(value, bytes))
    if copied > MAX_COPIED:
        raise UsageError(f"{copied} bytes of arguments: at most {MAX_COPIED} fit on the guest's stack; "
                         "write longer ones to memory of its own, and pass the address")
    return values


def check_call(prototype: Prototype, arguments: Sequence[Any]) -> None:
    """Refuse a call that contradicts the function's prototype: too few or too many arguments, or text and bytes, whose
    address would be passed, where it wants a number."""
    if not prototype.accepts(len(arguments)):
        raise UsageError(f"{prototype.name} takes {prototype.wants}, and {len(arguments)} were given: "
                         f"{prototype.text}")
    for position, (parameter, argument) in enumerate(zip(prototype.parameters, arguments, strict=False), 1):
        if isinstance(argument, (str, bytes, bytearray)) and _is_number(parameter):
            raise UsageError(f"argument {position} of {prototype.name} is {parameter!r}, a number, and "
                             f"{type(argument).__name__} was given: {prototype.text}")


def _is_number(parameter: str) -> bool:
    """Whether a C parameter is an integer: of a known type, and neither pointer, nor array, nor function."""
    return not any(mark in parameter for mark in "*[(") and _INTEGER.match(parameter) is not None


def _normalize(position: int, argument: Any) -> Value:
    if isinstance(argument, int):
        value = int(argument)
        if not -(1 << 63) <= value <= U64:
            raise UsageError(f"argument {position} is {value:#x}, which does not fit in 64 bits")
        return value & U64
    if isinstance(argument, (bytes, bytearray)):
        return bytes(argument)
    if isinstance(argument, str):
        if "\0" in argument:
            raise UsageError(f"argument {position} is text with a NUL in it, where C would end it: pass bytes")
        return argument.encode() + b"\0"
    address = getattr(argument, "address", None)
    if isinstance(address, int):
        return int(address) & U64
    raise UsageError(f"argument {position} is {type(argument).__name__}: a guest function takes int, bool, bytes, "
                     "bytearray, str, or something with an address")


def frame(values: tuple[Value, ...], rsp: int, return_address: int) -> CallFrame:
    """The frame of a call with these values when the guest's stack pointer stands at ``rsp``."""
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) == len(values) <= 6:         # nearly every call
        entry = ((rsp & ~15) - 8) & U64
        return CallFrame((*numbers, *(0,) * (6 - len(numbers))), entry, _WORD.pack(return_address), ())
    blob = b"".join(_padded(value) for value in values if isinstance(value, bytes))
    top = place = (rsp & ~15) - len(blob)
    words: list[int] = []
    copies: list[int] = []
    for value in values:
        if isinstance(value, bytes):
            words.append(place & U64)
            copies.append(place & U64)
            place += len(_padded(value))
        else:
            words.append(value)
            copies.append(0)
    on_stack = words[6:]
    entry = ((top - 8 * len(on_stack)) & ~15) - 8
    stack = struct.pack(f"<{1 + len(on_stack)}Q", return_address, *on_stack)
    if blob:
        stack = stack.ljust(top - entry, b"\0") + blob
    return CallFrame((*words[:6], *(0,) * (6 - len(words))), entry & U64, stack, tuple(copies))


def _padded(data: bytes) -> bytes:
    """At least one byte, so that every copy has an address of its own; whole multiples of 16."""
    return data.ljust(max((len(data) + 15) & ~15, 16), b"\0")
