"""Guest memory that is not what somebody wanted: the bytes, and the objects and fields that they belong to.

::

    2 of 24 bytes differ, the first at +0x05
      +0x00  68 65 6c 6c 6f 00 00 00 00 00 00 00 00 00 00 00   hello...........
      wanted .. .. .. .. .. 21 .. .. .. .. .. .. .. .. .. ..
      +0x05  byte 5 of object 1 of kmalloc-32
"""

from __future__ import annotations

from collections.abc import Iterator

from ..debugger.name import Name
from ..debugger.names import Names
from ..kernel import Kernel

ROW = 16


def differing(found: bytes, wanted: bytes) -> list[int]:
    """The offsets at which two byte strings differ, those behind the shorter one's end included."""
    length = max(len(found), len(wanted))
    return [at for at in range(length) if found[at : at + 1] != wanted[at : at + 1]]


def summary(found: bytes, wanted: bytes) -> str:
    """The difference in one line."""
    offsets = differing(found, wanted)
    lengths = "" if len(found) == len(wanted) else f"{len(found):,} bytes, and {len(wanted):,} were wanted; "
    return f"{lengths}{len(offsets):,} of {max(len(found), len(wanted)):,} bytes differ, the first at " \
           f"+0x{offsets[0]:02x}"


def rows(found: bytes, wanted: bytes) -> Iterator[str]:
    """Each row in which they differ: what is there, and below it what was wanted, ``..`` for a byte that is right."""
    width = 3 * min(ROW, len(found)) - 1
    for row in sorted({offset // ROW * ROW for offset in differing(found, wanted)}):
        there, other = found[row : row + ROW], wanted[row : row + ROW]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in there)
        yield f"  +0x{row:02x}  {there.hex(' '):<{max(width, 0)}}   {text}"
        cells = (".." if there[at : at + 1] == other[at : at + 1] else other[at : at + 1].hex() or "--"
                 for at in range(max(len(there), len(other))))
        yield f"  wanted {' '.join(cells)}"


def places(kernel: Kernel, address: int, found: bytes, wanted: bytes) -> Iterator[str]:
    """Each object or field with bytes that differ: its name, and its value where it is a number."""
    names = Names(kernel)
    told = 0                                             # everything before this offset
    for offset in differing(found, wanted):
        if told <= offset < len(found):
            name = names.name(address + offset)
            told = offset + max(name.at + name.width - name.address, 1)
            yield f"  +0x{offset:02x}  {_told(names, name, offset, found, wanted)}"


def _told(names: Names, name: Name, offset: int, found: bytes, wanted: bytes) -> str:
    """The place of a byte, and its value now and as it was wanted where it is a field that lies inside of both."""
    start = offset - (name.address - name.at)
    if name.struct is None or not 0 < name.width <= 8 or start < 0 or start + name.width > min(len(found), len(wanted)):
        return str(name)
    is_, should = (names.value(int.from_bytes(data[start : start + name.width], "little"), name.width, name)
                   for data in (found, wanted))
    field = f"{name.whole}.{name.field}" if name.field else name.text
    return f"{field} is {is_}, wanted {should}"
