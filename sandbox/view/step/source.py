"""The source around the instruction that is about to run, with the bytes that its line became.

::

      68 # rdi = size
      69 kmalloc:
    > 70     cmp rdi, KMALLOC_MAX  # larger ones are pages
           > 48 81 ff 00 20 00 00
      71     ja .Lkmalloc_large

Where there is room, every line of assembly has its bytes beside it, and what the processor decodes is told where the
source says it in other words. A line of C has the instructions below it that the present one is among. ``*`` is a
breakpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...toolchain.disassembler import Instruction
from ...toolchain.source import SourceLine, parts
from ..disasm import BYTES_SHOWN, alike
from .rows import Row, block, window
from .run import Listing
from .scene import Scene

WIDE = 70
"""From here on every line has room for its bytes."""
COMMENT_COLUMN = 36
MACRO_ROWS = 4
"""Instructions that one line shows at once; a macro may have made more."""
_LABEL = re.compile(r"\s*[\w.]+:")
_BYTES = 3 * BYTES_SHOWN - 1


def title(scene: Scene) -> str:
    """The file, or what there is instead of one."""
    return scene.line.file if scene.line else "no source here"


def rows(scene: Scene, width: int, height: int, offset: int = 0) -> list[Row]:
    """The pane. ``offset`` scrolls it, in lines."""
    if scene.line is None or scene.image is None:
        return block(_without_source(scene, height), width, height)
    return block(_lines(scene, scene.run.listing(scene.image), scene.line, width, height, offset), width, height)


def _lines(scene: Scene, listing: Listing, line: SourceLine, width: int, height: int, offset: int) -> list[Row]:
    below = _c_instructions(scene, listing, line, width >= WIDE) if line.is_c else \
        _instructions(scene, listing, line, with_bytes=width < WIDE)
    marked = {found.number for address in scene.breakpoints
              if (found := listing.image.line(address)) is not None and found.file == line.file}
    beside = listing.bytes(line.file) if width >= WIDE and not line.is_c else None
    text = listing.lines(line.file)
    count = len(text) + len(below)
    shown = window(count, height, min(max(line.number - 1 + len(below) // 2 + offset, 0), count - 1))
    rows: list[Row] = []
    for at in shown:
        number = at + 1 if at < line.number else at + 1 - len(below)
        if line.number <= at < line.number + len(below):
            rows.append(below[at - line.number])
        else:
            rows.append(_line(SourceLine(line.file, number, text[number - 1]), number == line.number, number in marked,
                              beside))
    return rows


def _line(line: SourceLine, current: bool, marked: bool, beside: Mapping[int, bytes] | None) -> Row:
    code, comment = parts(line.file, line.text)
    number = line.number
    gap = " " * (0 if not (code and comment) else 2 if beside is None else max(2, COMMENT_COLUMN - len(code)))
    style = "current" if current else "label" if _LABEL.match(code) and not line.is_c else ""
    sign = ">" if current else " "
    row = Row.of(("*" if marked else " ", "bad"), (sign, "current"), (f"{number:>4} ", "count"))
    if beside is not None:
        data = beside.get(number, b"")
        shown = data[:BYTES_SHOWN].hex(" ") + ("+" if len(data) > BYTES_SHOWN else "")
        row += Row.of((f"{shown:<{_BYTES + 2}}", "dim"))
    return row + Row.of((code, style), gap, (comment, "comment"))


def _instructions(scene: Scene, listing: Listing, line: SourceLine, with_bytes: bool) -> list[Row]:
    """The instructions of the current line, the one about to run marked; none where the line, which has its bytes
    beside it then, says it all."""
    found = _of_line(scene, listing, line)
    current = _current(scene, found)
    if not with_bytes and len(found) == 1 and alike(line.code, found[0].text):
        return []
    shown = window(len(found), MACRO_ROWS, current)
    if len(found) == 1 and with_bytes:           # the head of the screen has its text
        return [_instruction(found[0], True, 0)]
    widest = max((len(_bytes(found[index])) for index in shown), default=0)
    return [_instruction(found[index], index == current, widest) for index in shown]


def _c_instructions(scene: Scene, listing: Listing, line: SourceLine, with_bytes: bool) -> list[Row]:
    """The same of a line of C, which never says what its instructions are."""
    found = _of_line(scene, listing, line)
    current = _current(scene, found)
    shown = window(len(found), MACRO_ROWS, current)
    widest = max((len(_bytes(found[index])) for index in shown), default=0)
    return [_instruction(found[index], index == current, widest) if with_bytes else
            Row.of("     ", (">" if index == current else " ", "current"), " ",
                   (found[index].text, "current" if index == current else "dim")) for index in shown]


def _of_line(scene: Scene, listing: Listing, line: SourceLine) -> list[Instruction]:
    """The instructions around the one about to run that belong to its line."""
    rip, found = scene.moment.rip, list[Instruction]()
    at = listing.start(rip)
    while len(found) < 64 and (here := listing.image.line(at)) is not None and \
            (here.file, here.number) == (line.file, line.number):
        instruction = scene.instruction_at(at)
        if instruction is None:
            break
        found.append(instruction)
        at = instruction.end
    if not any(instruction.address == rip for instruction in found):     # a jump into the middle of an instruction
        found = [scene.instruction] if scene.instruction else []
    return found


def _current(scene: Scene, found: list[Instruction]) -> int:
    """The index of the instruction that is about to run."""
    return next((index for index, instruction in enumerate(found) if instruction.address == scene.moment.rip), 0)


def _bytes(instruction: Instruction) -> str:
    return instruction.bytes.hex(" ")


def _instruction(instruction: Instruction, current: bool, widest: int) -> Row:
    """Bytes and text; the bytes alone where ``widest`` is 0."""
    style = "current" if current else "dim"
    text = f"  {instruction.text}" if widest else ""
    return Row.of("     ", (">" if current else " ", "current"), " ", (f"{_bytes(instruction):<{widest}}", "dim"),
                  (text, style))


def _without_source(scene: Scene, height: int) -> list[Row]:
    """Where no source is known: what the bytes say, or why there are none."""
    if scene.instruction is None:
        why = scene.kernel.machine.paging.explain(scene.moment.rip, "execute")
        return [Row.of((f"> 0x{scene.moment.rip:016x}", "current")), Row(f"no instruction can be fetched here: {why}")]
    found, at = [], scene.moment.rip
    for _ in range(height):
        instruction = scene.instruction_at(at)
        if instruction is None:
            break
        found.append(Row.of((">" if at == scene.moment.rip else " ", "current"), f" 0x{at:016x} ") + _instruction(
            instruction, at == scene.moment.rip, _BYTES))
        at = instruction.end
    return found
