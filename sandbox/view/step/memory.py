"""Memory as gdb's ``x`` shows it.

::

    x/16xb 0xffff88800025e000
    0xffff88800025e000 <kmalloc-64[0]>:      0x68  0x65  0x6c  0x6c  0x6f  0x2c  0x20  0x73
    0xffff88800025e008 <kmalloc-64[0]+0x8>:  0x6c  0x61  0x62  0x00  0x00  0x00  0x00  0x00
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...address import U64
from ...errors import GuestMemoryError, UsageError

if TYPE_CHECKING:
    from .session import Session

_ARGUMENT = re.compile(r"(?:/(?P<count>[0-9]*)(?P<letters>[a-z]*)\s)?(?P<address>.*)")
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_FORMATS = "xduotcsi"
_ON_A_ROW = {1: 8, 2: 8, 4: 4, 8: 2}
MOST = 4096
"""Units that one command shows."""
_LONGEST_STRING = 256


def examined(session: Session, argument: str) -> Iterator[str]:
    """``/NFU ADDRESS``: N units (1), format F of ``xduotcsi`` (x), unit U of ``bhwg`` (g)."""
    found = _ARGUMENT.fullmatch(argument.strip())
    letters = found["letters"] if found and found["letters"] else ""
    formats, sizes = [c for c in letters if c in _FORMATS], [c for c in letters if c in _SIZES]
    if found is None or not found["address"] or len(formats) > 1 or len(sizes) > 1 or \
            len(formats) + len(sizes) < len(letters):
        raise UsageError(f"x is written x/NFU ADDRESS: a number, one of {_FORMATS}, one of {''.join(_SIZES)}")
    count = int(found["count"] or 1)
    if not 0 < count <= MOST:
        raise UsageError(f"x shows 1 to {MOST:,} units, not {count:,}")
    letter = formats[0] if formats else "x"
    size = _SIZES[sizes[0]] if sizes else 1 if letter == "c" else 8
    address = session.value(found["address"])
    if letter == "i":
        yield from _instructions(session, address, count)
    elif letter == "s":
        yield from _strings(session, address, count)
    else:
        yield from _numbers(session, address, count, letter, size)


def _numbers(session: Session, address: int, count: int, letter: str, size: int) -> Iterator[str]:
    rows: list[tuple[str, list[str]]] = []
    error: GuestMemoryError | None = None
    for index in range(count):
        at = address + index * size & U64
        try:
            value = int.from_bytes(session.timeline.kernel.memory.read(at, size), "little")
        except GuestMemoryError as failure:
            error = failure
            break
        if index % _ON_A_ROW[size] == 0:
            rows.append((_place(session, at), []))
        rows[-1][1].append(_shown(value, letter, size))
    width = max((len(head) for head, _ in rows), default=0)
    yield from (f"{head:<{width}}  {'  '.join(values)}" for head, values in rows)
    if error is not None:
        if not rows:
            raise error
        yield f"0x{error.address:016x} is not mapped"


def _shown(value: int, letter: str, size: int) -> str:
    signed = value - (1 << 8 * size) if value >> (8 * size - 1) else value
    if letter == "c":
        return f"{signed} {chr(value)!r}" if 32 <= value < 127 else f"{signed} '\\{value & 0xFF:03o}'"
    return {"x": f"0x{value:0{2 * size}x}", "d": str(signed), "u": str(value), "o": f"0{value:o}",
            "t": f"{value:0{8 * size}b}"}[letter]


def _strings(session: Session, address: int, count: int) -> Iterator[str]:
    for _ in range(count):
        data = b""
        while len(data) < _LONGEST_STRING and (byte := session.timeline.kernel.memory.read(address + len(data), 1)) \
                != b"\0":
            data += byte
        text = data.decode("utf-8", "backslashreplace").translate({10: "\\n", 13: "\\r", 9: "\\t", 34: '\\"'})
        yield f'{_place(session, address)}  "{text}"{"..." if len(data) == _LONGEST_STRING else ""}'
        address += len(data) + 1


def _instructions(session: Session, address: int, count: int) -> Iterator[str]:
    for index in range(count):
        found = session.scene.instruction_at(address)
        if found is None:
            if not index:
                session.timeline.kernel.memory.read(address, 1)      # says why
            return
        sign = "=>" if address == session.scene.moment.rip else "  "
        yield f"{sign} {_place(session, address)}  {found.text}"
        address = found.end


def _place(session: Session, address: int) -> str:
    name = session.scene.short(address)
    return f"0x{address:016x}{f' <{name}>' if name else ''}:"
