"""The log of accesses: against plain Python hooks on a machine that is stepped, and against what can be counted."""

from __future__ import annotations

import gc
import random
import struct
import weakref
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import sandbox
from sandbox.abi import DIRECT_MAP
from sandbox.errors import UsageError
from sandbox.kernel import Kernel
from sandbox.machine.machine import Machine
from sandbox.trace import accesses_native, accesses_recording
from sandbox.trace.accesses import AccessLog, Record
from sandbox.trace.accesses_columns import By
from tests.machine.rig import CODE, DATA, RW, STACK, Rig, assemble
from tests.machine.test_clock import DIFFERS, PROGRAMS

ROOT = Path(__file__).parents[2]
SSE = "mov rax, cr4; or eax, 0x600; mov cr4, rax;"
EXIT = "mov al, 1; out 0xf4, al"


@pytest.fixture(params=["native", "python"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether native code records, or Python."""
    if request.param == "python":
        forbid_native(monkeypatch)
    return str(request.param)


def forbid_native(patch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no native code here")

    patch.setattr(accesses_recording, "NativeRecorder", refuse)


class Seen(NamedTuple):
    """An access, in the order of the columns of ``RECORDS``, without RIP."""

    stamp: int
    physical: int
    value: int
    size: int
    by: int
    write: bool


class Oracle:
    """What plain hooks tell of a machine that takes one step at a time: nothing is told that is not counted."""

    def __init__(self, machine: Machine, instructions: set[int]) -> None:
        self.rips: list[int] = []
        self.begin = machine.instructions
        self.accesses: list[Seen] = []
        self._machine = machine
        machine.cpu.hook_code(instructions, self.rips.append)
        machine.cpu.hook_memory(0, machine.memory.size, self._access, write=True, read_after=True)
        machine.memory.listeners.append(self._outside)

    def _access(self, kind: str, address: int, size: int, value: int) -> None:
        self.accesses.append(Seen(self._machine.instructions - 1, address, value, size, 0, kind == "write"))

    def _outside(self, address: int, data: bytes, processor: bool) -> None:
        by = By.PROCESSOR if processor else By.PYTHON
        for at in range(0, len(data), 8):
            piece = data[at : at + 8]
            self.accesses.append(Seen(self._machine.instructions, address + at, int.from_bytes(piece, "little"),
                                      len(piece), by, True))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            before = len(self.rips), self._machine.instructions
            if self._machine.step().kind != "instruction limit":
                break
            assert (len(self.rips), self._machine.instructions) == (before[0] + 1, before[1] + 1)


def seen(log: AccessLog) -> list[Seen]:
    records = log.records()
    return [Seen(*map(int, row)) for row in zip(*(records[name] for name in Seen._fields), strict=True)]


def instructions_of(kernel: Kernel) -> set[int]:
    return {at for image in kernel.symbols.images for at in image.lines if kernel.symbols.in_text(at)}


# -- whole programs ----------------------------------------------------------------------------------------------
BUSY = """
.text
main:
    push rbx
    push r12
    mov edi, 14
    lea rsi, [rip + missing]
    call set_trap_handler
    mov r12d, 6
again:
    mov edi, 100
    call kzalloc
    mov rbx, rax
    mov rdi, rax
    mov esi, 7
    mov edx, 100
    call memset
    movabs rax, 0xffffd00000000000
    mov rcx, [rax]                      # no page is there: the handler goes on behind it
behind:
    mov rdi, rbx
    call kfree
    dec r12d
    jnz again
    xor eax, eax
    pop r12
    pop rbx
    ret

missing:
    lea rax, [rip + behind]
    mov [rdi + pt_regs.rip], rax
    mov eax, 1
    ret
"""


def busy() -> Kernel:
    """A kernel about to run a program that faults, with timer ticks every few hundred instructions."""
    kernel = sandbox.boot(BUSY, hz=10_000)
    for tick in range(1, 10):
        kernel.interrupt_at(kernel.instructions + 301 * tick, 0)
    kernel.receive("typed")
    return kernel


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with busy() as kernel:
        oracle = Oracle(kernel.machine, instructions_of(kernel))
        oracle.run(100_000)
        yield oracle


def test_a_run_with_ticks_and_page_faults_is_recorded_as_plain_hooks_tell_it(form: str, oracle: Oracle) -> None:
    with busy() as kernel:
        log = AccessLog(kernel.machine)
        log.start()
        assert log.native == (form == "native")
        assert kernel.run().ok
        log.stop()
        assert (log.begin, log.end) == (oracle.begin, kernel.instructions)
    assert log.rips(log.begin, log.end).tolist() == oracle.rips
    assert seen(log) == oracle.accesses
    assert {row.by for row in oracle.accesses} == {By.INSTRUCTION, By.PROCESSOR}
    frames = [row.stamp for row in oracle.accesses if row.by == By.PROCESSOR]
    sizes = Counter(Counter(frames).values())
    assert sizes[6] == 6 and sizes[5] >= 9 and set(sizes) <= {1, 5, 6}, "page faults, and timer ticks"
    assert log.nbytes == 4 * log.starts + 17 * log.accesses


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_a_run_in_pieces_is_recorded_as_one(form: str, oracle: Oracle, length: int) -> None:
    with busy() as kernel:
        log = AccessLog(kernel.machine)
        log.start()
        while kernel.machine.run(length).kind == "instruction limit":
            pass
        assert log.rips(log.begin, log.end).tolist() == oracle.rips
        assert seen(log) == oracle.accesses


def test_recording_changes_nothing_of_a_run() -> None:
    ends = []
    for recorded in (False, True):
        with busy() as kernel:
            log = AccessLog(kernel.machine)
            if recorded:
                log.start()
            result = kernel.run()
            ends.append((result, kernel.instructions, kernel.machine.memory.image(), kernel.machine.cpu.save_values()))
    assert ends[0] == ends[1]


# -- look-ups ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def log(oracle: Oracle) -> AccessLog:
    with busy() as kernel:
        log = AccessLog(kernel.machine)
        log.start()
        kernel.run()
        log.stop()
        return log


class Brute:
    """Answers by looking at each access."""

    def __init__(self, oracle: Oracle) -> None:
        self.rips, self.begin = oracle.rips, oracle.begin
        self.rows = oracle.accesses
        # An instruction's access has happened one moment after its stamp.
        self.moments = [row.stamp + (row.by == By.INSTRUCTION) for row in self.rows]

    def record(self, row: Seen) -> Record:
        rip = self.rips[row.stamp - self.begin] if row.by == By.INSTRUCTION else None
        return Record(row.stamp, rip, "write" if row.write else "read", row.physical, row.size, row.value, By(row.by))

    def touches(self, row: Seen, physical: int, size: int, write: bool) -> bool:
        return row.write == write and row.physical < physical + size and physical < row.physical + row.size

    def last(self, physical: int, size: int, before: int, write: bool) -> Record | None:
        for row, moment in zip(reversed(self.rows), reversed(self.moments), strict=True):
            if moment <= before and self.touches(row, physical, size, write):
                return self.record(row)
        return None

    def next(self, physical: int, size: int, after: int, write: bool) -> Record | None:
        for row, moment in zip(self.rows, self.moments, strict=True):
            if moment > after and self.touches(row, physical, size, write):
                return self.record(row)
        return None


def test_every_look_up_agrees_with_looking_at_each_access(oracle: Oracle, log: AccessLog) -> None:
    brute, chance = Brute(oracle), random.Random(4)
    found = 0
    for _ in range(1000):
        row = chance.choice(brute.rows)
        physical = max(row.physical + chance.randrange(-9, 10), 0)
        size, moment = chance.choice((1, 2, 4, 8, 13, 64)), chance.randrange(log.begin, log.end + 1)
        if chance.random() < 0.3:
            moment = row.stamp
        wanted = brute.last(physical, size, moment, True)
        assert log.last_write(physical, size, moment) == wanted
        assert log.last_read(physical, size, moment) == brute.last(physical, size, moment, False)
        assert log.next_write(physical, size, moment) == brute.next(physical, size, moment, True)
        assert log.next_read(physical, size, moment) == brute.next(physical, size, moment, False)
        found += wanted is not None
    assert 300 < found < 1000


def test_all_writes_and_reads_of_some_bytes_are_found(oracle: Oracle, log: AccessLog) -> None:
    brute, chance = Brute(oracle), random.Random(5)
    for _ in range(50):
        physical = chance.choice(brute.rows).physical + chance.randrange(4)
        for write, found in ((True, log.writes(physical, 3)), (False, log.reads(physical, 3))):
            rows = [brute.record(row) for row in brute.rows if brute.touches(row, physical, 3, write)]
            assert found["stamp"].tolist() == [row.stamp for row in rows]
            assert found["rip"].tolist() == [row.rip or 0 for row in rows]
            assert found["value"].tolist() == [row.value for row in rows]


def test_starts_are_found_by_address_and_by_stamp(oracle: Oracle, log: AccessLog) -> None:
    chance = random.Random(6)
    for rip in chance.sample(sorted(set(oracle.rips)), 100):
        stamps = [log.begin + at for at, known in enumerate(oracle.rips) if known == rip]
        assert log.stamps_of(rip).tolist() == stamps
        moment = chance.choice((chance.choice(stamps), chance.randrange(log.begin, log.end)))
        at = bisect_left(stamps, moment)
        assert log.last_start(rip, moment) == (stamps[at - 1] if at else None)
        assert log.next_start(rip, moment) == (stamps[at] if at < len(stamps) else None)
        assert log.rip_at(stamps[0]) == rip
    assert log.stamps_of(1).tolist() == [] and log.last_start(1) is None and log.next_start(1) is None


def test_the_last_moment_is_where_a_question_starts_when_none_is_given(log: AccessLog) -> None:
    stamp, rip = log.end - 1, log.rip_at(log.end - 1)
    assert log.last_start(rip) == stamp and log.next_start(log.rip_at(log.begin)) == log.begin
    last = log.records()[-1]
    assert log.last_write(int(last["physical"])) == log.last_write(last["physical"], 1, log.end)
    with pytest.raises(UsageError, match="is not in the log"):
        log.rip_at(log.end)


@pytest.mark.parametrize("ask", [
    lambda log: log.last_write(-1), lambda log: log.last_write(0, 0), lambda log: log.last_read("rax"),
    lambda log: log.next_write(0, 1, log.begin - 1), lambda log: log.last_write(0, 1, log.end + 1),
    lambda log: log.rips(log.begin, log.end + 1), lambda log: log.rips(log.begin + 1, log.begin),
    lambda log: log.next_start(0, -1), lambda log: log.last_write(True),
])  # fmt: skip
def test_questions_that_cannot_be_are_refused(log: AccessLog, ask: Callable[[AccessLog], object]) -> None:
    with pytest.raises(UsageError):
        ask(log)


# -- what the engine tells more than once, or not at all -------------------------------------------------------------
class Recorded(NamedTuple):
    """All of a log, and where the machine was at its ends."""

    rips: list[int]
    rows: list[Seen]
    begin: int
    end: int


def recorded(rig: Rig, slices: int = 1000) -> Recorded:
    log = AccessLog(rig.machine)
    log.start()
    begin = rig.machine.instructions
    for _ in range(2000 // slices):
        if rig.run(slices).kind != "instruction limit":
            break
    log.stop()
    assert (log.begin, log.end) == (begin, rig.machine.instructions)
    rows = seen(log)
    moments = [row.stamp + (row.by == By.INSTRUCTION) for row in rows]
    assert moments == sorted(moments) and all(begin < at <= log.end for at in moments)
    return Recorded(log.rips(begin, log.end).tolist(), rows, begin, log.end)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != DIFFERS])
def test_programs_whose_starts_are_known_are_recorded_the_same_in_any_slices(
    form: str, guest: Callable[..., Rig], name: str
) -> None:
    code, handlers, starts = PROGRAMS[name]
    whole = recorded(guest(code, handlers))
    assert len(whole.rips) == starts
    assert [recorded(guest(code, handlers), slices) for slices in (1, 3)] == [whole, whole]


@pytest.mark.parametrize("name", ["a store into the running block", "stores that rewrite a loop",
                                  "unaligned stores that rewrite a loop", "a push onto the running block",
                                  "a read and a store that rewrite a loop"])
def test_a_store_that_is_started_twice_is_recorded_once(form: str, guest: Callable[..., Rig], name: str) -> None:
    rows = recorded(guest(*PROGRAMS[name][:2])).rows
    assert len(rows) == len({(row.stamp, row.physical, row.write) for row in rows})
    assert len(rows) == {"stores that rewrite a loop": 120, "unaligned stores that rewrite a loop": 40,
                         "a read and a store that rewrite a loop": 80}.get(name, 1)


@pytest.mark.parametrize("offset", [0x18, 0x19])
def test_a_store_into_code_that_was_read_only_until_now_is_recorded_once(
    form: str, guest: Callable[..., Rig], offset: int
) -> None:
    """The second start of the first such store is noticed when it is over."""
    def rig() -> Rig:
        made = guest(f"mov ebx, {DATA}; jmp rbx")
        entry = made.machine.paging.walk(DATA)[-1].address
        made.machine.paging.map(DATA, DATA, 0)
        made.machine.memory.write(DATA, assemble(
            f"or byte ptr [{int(entry)}], 2; invlpg [rbx]; mov ecx, 3; l: mov dword ptr [rbx + {offset}], 0x90909090;"
            f"{'nop;' * 8} push rcx; dec ecx; jnz l; {EXIT}", DATA))
        return made

    whole = recorded(rig())
    assert len(whole.rips) == 2 + 3 + 3 * 12 + 2
    stored = [((DATA + offset, 0x90909090), (STACK - 8 * (4 - count), count)) for count in (3, 2, 1)]
    assert [(row.physical, row.value) for row in whole.rows[-6:]] == [row for pair in stored for row in pair]
    assert recorded(rig(), 1) == whole


@pytest.fixture
def guest() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*arguments: Any, **options: Any) -> Rig:
        made.append(Rig(*arguments, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def accesses_of(code: str, guest: Callable[..., Rig], prepare: Callable[[Rig], None] = lambda rig: None,
                handlers: dict[int, object] | None = None) -> list[tuple[str, int, int, int]]:
    """Kind, address, size, value of the accesses that instructions make."""
    rig = guest(f"{code}; {EXIT}", handlers)
    prepare(rig)
    return [("write" if row.write else "read", row.physical, row.size, row.value) for row in recorded(rig).rows
            if row.by == By.INSTRUCTION]


FULL, PART = 0x1122_3344_5566_7788, 0x5566_7788
INSTRUCTIONS: dict[str, tuple[str, list[tuple[str, int, int, int]]]] = {
    "push": ("push rbx", [("write", STACK - 8, 8, DATA)]),
    "pop": ("pop rcx", [("read", STACK, 8, 0)]),
    "push of memory": ("push [rbx]", [("read", DATA, 8, FULL), ("write", STACK - 8, 8, FULL)]),
    "call and ret": ("call f; jmp e; f: ret; e:",
                     [("write", STACK - 8, 8, CODE + 0xA), ("read", STACK - 8, 8, CODE + 0xA)]),
    "xchg": ("xchg [rbx], rcx", [("read", DATA, 8, FULL), ("write", DATA, 8, 0)]),
    "xadd": ("lock xadd [rbx], ebx", [("read", DATA, 4, PART), ("write", DATA, 4, PART + DATA)]),
    "cmpxchg that fails": ("lock cmpxchg [rbx], rcx", [("read", DATA, 8, FULL), ("write", DATA, 8, FULL)]),
    "sub-word": ("mov byte ptr [rbx + 3], -1; movsx ecx, word ptr [rbx + 2]",
                 [("write", DATA + 3, 1, 0xFF), ("read", DATA + 2, 2, 0xFF66)]),
    "rep movs": ("mov esi, ebx; lea rdi, [rbx + 16]; mov ecx, 2; rep movsw",
                 [("read", DATA, 2, 0x7788), ("write", DATA + 16, 2, 0x7788),
                  ("read", DATA + 2, 2, 0x5566), ("write", DATA + 18, 2, 0x5566)]),
    "rep stos": ("mov edi, ebx; mov ecx, 2; mov al, 9; rep stosb",
                 [("write", DATA, 1, 9), ("write", DATA + 1, 1, 9)]),
    "repne scas": ("mov edi, ebx; mov ecx, 9; mov al, 0x77; repne scasb",
                   [("read", DATA, 1, 0x88), ("read", DATA + 1, 1, 0x77)]),
    "sixteen bytes": (f"{SSE} movups xmm0, [rbx]; movups [rbx + 16], xmm0",
                      [("read", DATA, 8, FULL), ("read", DATA + 8, 8, 0),
                       ("write", DATA + 16, 8, FULL), ("write", DATA + 24, 8, 0)]),
    "ten bytes": ("fld tbyte ptr [rbx]; fstp tbyte ptr [rbx + 32]",
                  [("read", DATA, 8, FULL), ("read", DATA + 8, 2, 0),
                   ("write", DATA + 32, 8, FULL), ("write", DATA + 40, 2, 0)]),
    "unaligned": ("mov rcx, [rbx + 1]; mov [rbx + 3], cx",
                  [("read", DATA + 1, 8, FULL >> 8), ("write", DATA + 3, 2, 0x6677)]),
}


def fill(rig: Rig) -> None:
    rig.machine.memory.write_u64(DATA, FULL)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_each_instruction_makes_the_accesses_that_its_manual_says(
    form: str, guest: Callable[..., Rig], name: str
) -> None:
    code, expected = INSTRUCTIONS[name]
    assert accesses_of(f"mov ebx, {DATA}; {code}", guest, fill) == expected


def test_an_iretq_reads_its_frame_and_the_two_descriptors(form: str, guest: Callable[..., Rig]) -> None:
    found = accesses_of("int 0x40", guest, handlers={0x40: "iretq"})
    assert [row[1] for row in found if row[1] >= STACK - 64] == [STACK - 40 + 8 * at for at in range(5)]
    assert {row[1] & -8 for row in found if row[1] < STACK - 64} == {0x10008, 0x10010}


EDGE, OTHER = DATA + 0x1000, DATA + 0x5000


def swap(rig: Rig) -> None:
    """Behind the first page of DATA lies a frame from elsewhere, and of the stack's top too."""
    rig.machine.paging.map(EDGE, OTHER, RW)
    rig.machine.memory.write(EDGE - 8, bytes(range(0x80, 0x90)))
    rig.machine.memory.write(OTHER, bytes(range(0xC0, 0xD0)))


CROSSING: dict[str, tuple[str, list[tuple[str, int, int, int]]]] = {
    "a load": ("mov rax, [rbx - 3]", [("read", EDGE - 3, 3, 0x878685), ("read", OTHER, 5, 0xC4C3C2C1C0)]),
    "a store": ("mov rax, 0x1122334455667788; mov [rbx - 3], rax",
                [("write", EDGE - 3, 3, 0x667788), ("write", OTHER, 5, 0x1122334455)]),
    "an index": ("mov ecx, 2; mov eax, [rbx + rcx * 2 - 5]",
                 [("read", EDGE - 1, 1, 0x87), ("read", OTHER, 3, 0xC2C1C0)]),
    "a push": ("lea rsp, [rbx + 4]; push rbx", [("write", EDGE - 4, 4, EDGE), ("write", OTHER, 4, 0)]),
    "a pop": ("lea rsp, [rbx - 2]; pop rax", [("read", EDGE - 2, 2, 0x8786), ("read", OTHER, 6, 0xC5C4C3C2C1C0)]),
    "a string": ("lea rsi, [rbx - 3]; lea rdi, [rbx - 6]; movsq",
                 [("read", EDGE - 3, 3, 0x878685), ("read", OTHER, 5, 0xC4C3C2C1C0),
                  ("write", EDGE - 6, 6, 0xC2C1C0878685), ("write", OTHER, 2, 0xC4C3)]),
    "sixteen bytes": (f"{SSE} movups xmm0, [rbx - 12]",
                      [("read", EDGE - 12, 8, 0x83828180_00000000),
                       ("read", EDGE - 4, 4, 0x87868584), ("read", OTHER, 4, 0xC3C2C1C0)]),
    "an exchange": ("xor eax, eax; xchg [rbx - 1], ax",
                    [("read", EDGE - 1, 1, 0x87), ("read", OTHER, 1, 0xC0),
                     ("write", EDGE - 1, 1, 0), ("write", OTHER, 1, 0)]),
}


@pytest.mark.parametrize("name", CROSSING)
def test_an_access_over_a_page_edge_is_recorded_where_both_parts_lie(
    form: str, guest: Callable[..., Rig], name: str
) -> None:
    code, expected = CROSSING[name]
    assert accesses_of(f"mov ebx, {EDGE}; {code}; mov esp, {STACK}", guest, swap) == expected


def test_an_access_over_a_page_edge_into_the_next_frame_is_one(form: str, guest: Callable[..., Rig]) -> None:
    found = accesses_of(f"mov ebx, {EDGE}; mov [rbx - 3], rbx; mov rax, [rbx - 1]", guest)
    assert found == [("write", EDGE - 3, 8, EDGE), ("read", EDGE - 1, 8, EDGE >> 16)]


RESUME = f"mov dword ptr [rsp + 8], {CODE + 0x100}; add rsp, 8; iretq"


@pytest.mark.parametrize("missing", ["absent", "read-only"])
@pytest.mark.parametrize("code", ["mov [rbx - 3], rax", "lock xadd [rbx - 3], rax", "mov rax, [rbx - 3]",
                                  "push [rbx - 4]", "lea rsp, [rbx + 4]; push rax", "mov [rbx], rax",
                                  SSE + "movups [rbx - 3], xmm0", "fstp tbyte ptr [rbx - 4]"])
def test_what_faults_at_the_second_page_is_not_recorded(
    form: str, guest: Callable[..., Rig], code: str, missing: str
) -> None:
    def prepare(rig: Rig) -> None:
        rig.machine.paging.unmap(EDGE)
        if missing == "read-only":
            rig.machine.paging.map(EDGE, EDGE, 0)
        rig.machine.memory.write(EDGE - 8, bytes(range(0x80, 0x90)))
        rig.machine.memory.write(CODE + 0x100, assemble(EXIT))

    rig = guest(f"mov ebx, {EDGE}; {code}; {EXIT}", {14: (RESUME, {"ist": 1})})
    prepare(rig)
    before = rig.machine.memory.read(DATA, 0x2000)
    rows = [row for row in recorded(rig).rows if DATA <= row.physical < DATA + 0x2000 and row.by == By.INSTRUCTION]
    assert not [row for row in rows if row.write] and rig.machine.memory.read(DATA, 0x2000) == before
    assert [row for row in rows if not row.write] == [] or missing == "read-only"


def test_an_instruction_that_reaches_into_a_missing_page_is_a_fault_and_no_start(
    form: str, guest: Callable[..., Rig]
) -> None:
    def rig() -> Rig:
        made = guest(f"mov ebx, {DATA}; mov eax, {EDGE - 6}; jmp rax", {14: (RESUME, {})})
        made.machine.paging.unmap(EDGE)
        made.machine.memory.write(EDGE - 6, assemble("mov [rbx], eax; push rbx; nop; mov ecx, 0x12345678"))
        made.machine.memory.write(CODE + 0x100, assemble(EXIT))
        return made

    whole = recorded(rig())
    told = rig()
    stamps: list[int] = []
    told.machine.cpu.hook_memory(DATA, EDGE, lambda *access: stamps.append(told.machine.instructions - 1), write=True)
    assert recorded(told) == whole and stamps == [row.stamp for row in whole.rows if DATA <= row.physical < EDGE]
    assert whole.rips[3:7] == [EDGE - 6, EDGE - 4, EDGE - 3, 0x110000]
    assert [(row.stamp - whole.begin, row.physical) for row in whole.rows if not row.by][:2] == \
        [(3, DATA), (4, STACK - 8)]
    assert [recorded(rig(), slices) for slices in (1, 3)] == [whole, whole]


def test_what_the_shadow_refuses_did_not_happen(form: str) -> None:
    for example in ("14_overflow", "15_use_after_free", "16_double_free"):
        with sandbox.boot(ROOT / "examples" / f"{example}.asm", shadow=True, hz=1000) as kernel:
            log = AccessLog(kernel.machine)
            log.start()
            result = kernel.run()
            assert result.kind == "shadow" and result.error is not None
            assert log.end == kernel.instructions and kernel.registers["rip"] not in log.rips(log.end - 1, log.end)
            physical = result.error.address - DIRECT_MAP
            last = log.last_write(physical)
            rows = log.records()
            assert rows["stamp"].max() <= log.end
            if last is not None:
                at = physical - last.physical
                assert kernel.machine.memory.u8(physical) == last.value >> 8 * at & 0xFF


def test_memory_is_what_the_last_writes_made_of_it(log: AccessLog, oracle: Oracle) -> None:
    with busy() as kernel:
        before = np.array(kernel.machine.memory.array())
        kernel.run()
        after = kernel.machine.memory.array()
        for row in log.records():
            if row["write"]:
                data = int(row["value"]).to_bytes(8, "little")[: row["size"]]
                before[int(row["physical"]) : int(row["physical"]) + len(data)] = list(data)
        differ = np.flatnonzero(before != after)
        tables = set((differ >> 12).tolist())
        # The accessed and dirty bits of page walks are the one thing that no hook sees.
        assert len(differ) < 64 and all((int(before[at]) ^ int(after[at])) & ~0x60 == 0 for at in differ), tables


# -- writes from outside ---------------------------------------------------------------------------------------------
def test_what_python_writes_is_recorded_with_its_moment(form: str, guest: Callable[..., Rig]) -> None:
    rig = guest(f"mov ebx, {DATA}; mov byte ptr [rbx + 9], 5; nop; {EXIT}")
    log = AccessLog(rig.machine)
    log.start()
    rig.machine.memory.write(DATA + 0x800, b"first")
    assert log.last_write(DATA + 0x800, before=log.begin).value == int.from_bytes(b"first", "little")
    assert log.next_write(DATA + 0x800) is None
    rig.run(2)
    moment = rig.machine.instructions
    rig.machine.memory.write(DATA, bytes(range(1, 12)))
    rig.run()
    assert log.last_write(DATA + 9) == Record(moment, None, "write", DATA + 8, 3, 0x0B0A09, By.PYTHON)
    assert log.last_write(DATA + 9, before=moment).by is By.PYTHON
    assert log.last_write(DATA + 9, before=moment, by=By.INSTRUCTION) == \
        Record(moment - 1, CODE + 5, "write", DATA + 9, 1, 5, By.INSTRUCTION)
    assert log.next_write(DATA + 9, after=moment - 1).by is By.INSTRUCTION
    assert log.next_write(DATA + 9, after=moment) is None
    assert str(By.PYTHON) == "python"


def test_a_frame_that_the_processor_pushes_is_recorded_behind_the_faulting_start(
    form: str, guest: Callable[..., Rig]
) -> None:
    rig = guest("mov ebx, 0x40000000; mov eax, [rbx]", {14: "hlt"})
    log = AccessLog(rig.machine)
    log.start()
    rig.run()
    fault = log.begin + 1
    frame = [log.last_write(STACK - 48 + 8 * at, 8) for at in range(6)]
    assert {(row.stamp, row.by) for row in frame} == {(fault + 1, By.PROCESSOR)}
    assert tuple(row.value for row in frame) == struct.unpack("<6Q", rig.machine.memory.read(STACK - 48, 48))
    assert log.last_write(STACK - 48, 8, before=fault) is None


def test_a_hook_that_writes_in_the_middle_of_an_instruction_is_recorded_in_order(
    form: str, guest: Callable[..., Rig]
) -> None:
    rig = guest(f"mov ebx, {DATA}; mov [rbx], ebx; mov [rbx + 8], ebx; {EXIT}")
    memory = rig.machine.memory
    log = AccessLog(rig.machine)
    rig.machine.cpu.hook_memory(DATA, DATA + 4, lambda *access: memory.write(DATA + 64, b"!"), write=True)
    log.start()
    rig.run()
    written = [(int(row["stamp"]) - log.begin, int(row["physical"]), By(int(row["by"]))) for row in log.records()]
    assert sorted(written[:2]) == [(1, DATA, By.INSTRUCTION), (2, DATA + 64, By.PYTHON)]
    assert written[2] == (2, DATA + 8, By.INSTRUCTION)


# -- going on, going back ------------------------------------------------------------------------------------------
LOOP = f"mov ebx, {DATA}; l: inc dword ptr [rbx]; add ebx, 4; jmp l"


def test_a_log_that_is_started_again_later_has_a_gap_that_it_knows(form: str, guest: Callable[..., Rig]) -> None:
    machine = guest(LOOP).machine
    log = AccessLog(machine)
    log.start()
    machine.run(31)
    log.stop()
    first = log.end
    machine.run(30)
    log.start()
    second = machine.instructions
    machine.run(30)
    log.stop()
    assert log.spans == [(first - 31, first), (second, second + 30)] and log.starts == 61
    assert log.rip_at(first - 1) == log.rip_at(second - 1 + 30)
    assert log.stamps_of(CODE).tolist() == [log.begin]
    written = DATA + 4 * 5
    assert log.last_write(written, before=first).stamp == log.next_write(written).stamp == log.begin + 1 + 3 * 5
    for ask in (lambda: log.last_write(written), lambda: log.next_write(DATA + 4 * 29), lambda: log.last_start(CODE),
                lambda: log.next_start(1), lambda: log.last_write(written, before=first + 1),
                lambda: log.rip_at(first)):
        with pytest.raises(UsageError, match=f"{first:,}"):
            ask()
    assert len(log.writes(DATA, 4000)) == 20
    log.cut(first + 10)
    assert log.spans == [(first - 31, first)]
    log.cut(first - 11)
    assert log.end == first - 11 and len(log.writes(DATA, 4000)) == 7


def test_a_log_that_goes_on_where_it_stopped_has_no_gap(form: str, guest: Callable[..., Rig]) -> None:
    machine = guest(LOOP).machine
    log = AccessLog(machine)
    for _ in range(3):
        log.start()
        machine.run(10)
        log.stop()
    assert log.spans == [(log.end - 30, log.end)] and log.last_write(DATA).stamp == log.begin + 1


def test_what_was_recorded_behind_a_moment_is_forgotten_when_the_machine_goes_back_there(
    form: str, guest: Callable[..., Rig]
) -> None:
    machine = guest(LOOP).machine
    log = AccessLog(machine)
    log.start()
    machine.run(10)
    snapshot = machine.snapshot()
    machine.run(30)
    machine.restore(snapshot)
    machine.cpu["rbx"] = DATA + 0x800
    machine.run(3)
    assert log.end == machine.instructions and log.last_write(DATA + 4 * 5) is None
    assert log.last_write(DATA + 0x800).stamp in range(log.end - 3, log.end)
    later = machine.instructions
    machine.run(30)
    ahead = machine.snapshot()
    machine.restore(snapshot)
    machine.run(3)
    machine.restore(ahead)
    machine.run(3)
    assert log.spans == [(log.begin, later), (later + 30, later + 33)]


def test_a_silent_replay_is_recorded_when_that_was_asked_for_and_else_passed_over(
    form: str, guest: Callable[..., Rig]
) -> None:
    logs = []
    for replayed in (False, True):
        machine = guest(LOOP).machine
        log = AccessLog(machine, replayed=replayed)
        log.start()
        machine.run(10)
        with machine.silent():
            machine.run(10)
            machine.memory.write(DATA, b"silent")
        logs.append((log.spans, log.starts, len(log.writes(DATA, 6))))
    assert [(starts, spans) for spans, starts, _ in logs] == [(10, [(7, 17)]), (20, [(7, 27)])]
    assert logs[1][2] == logs[0][2] + 1


@pytest.mark.parametrize("where", ["starts", "accesses", "outside"])
def test_at_its_limit_the_log_ends_and_says_so(form: str, guest: Callable[..., Rig], where: str) -> None:
    code = {"starts": "l: nop; jmp l", "accesses": LOOP.replace("add ebx, 4", "nop"), "outside": "l: nop; jmp l"}[where]
    machine = guest(code).machine
    log = AccessLog(machine, limit_bytes=1 << 14)
    log.start()
    machine.run(100)
    if where == "outside":
        machine.memory.write(DATA, bytes(1 << 13))
    machine.run(10_000)
    log.stop()
    assert not log.complete and log.begin < log.complete_until < machine.instructions
    assert 1 << 10 < log.nbytes <= 1 << 14 or where == "outside"
    assert log.last_write(DATA + 0x1800, before=log.complete_until) is None
    for ask in (lambda: log.last_write(DATA, before=log.complete_until + 1), lambda: log.next_write(DATA + 0x1800),
                lambda: log.next_start(1), lambda: log.rip_at(log.complete_until)):
        with pytest.raises(UsageError, match="limit of 16,384 bytes was reached: give it a larger limit_bytes"):
            ask()
    until = log.complete_until
    log.start()
    machine.run(10)
    assert log.complete_until == until
    log.cut(log.begin + 50)
    assert log.complete and log.end == log.begin + 50


def test_rip_may_move_between_the_halves_of_the_address_space(form: str, guest: Callable[..., Rig]) -> None:
    high = 0xFFFF_8000_0020_0000

    def rig() -> Rig:
        made = guest(f"mov rcx, {high}; mov ebx, 4; l: call rcx; dec ebx; jnz l; {EXIT}")
        made.machine.paging.map(high, DATA, RW)
        made.machine.memory.write(DATA, assemble("nop; ret"))
        return made

    whole = recorded(rig())
    assert whole.rips[2:8] == [CODE + 15, high, high + 1, CODE + 17, CODE + 19, CODE + 15]
    assert recorded(rig(), 1) == recorded(rig(), 3) == whole
    made = rig()
    log = AccessLog(made.machine)
    log.start()
    made.run()
    assert len(log.stamps_of(high)) == 4 and len(log.stamps_of(DATA)) == 0
    assert log.next_start(high) == log.begin + 3 and log.rip_at(log.begin + 2) == CODE + 15


def test_after_a_way_back_the_halves_of_rip_are_those_of_the_new_run(form: str, guest: Callable[..., Rig]) -> None:
    high = 0xFFFF_8000_0020_0000
    rig = guest(f"mov rcx, {high}; call rcx; nop; {EXIT}")
    rig.machine.paging.map(high, DATA, RW)
    rig.machine.memory.write(DATA, assemble("nop; ret"))
    log = AccessLog(rig.machine)
    log.start()
    rig.run(3)
    snapshot = rig.machine.snapshot()
    rig.run(2)
    rig.machine.restore(snapshot)
    rig.machine.cpu["rip"] = CODE + 12
    rig.run(2)
    assert log.rips(log.begin, log.begin + 5).tolist() == [CODE, CODE + 10, high, CODE + 12, CODE + 13]


def test_a_log_that_is_over_keeps_no_memory_and_a_machine_no_log(form: str, guest: Callable[..., Rig]) -> None:
    machine = guest(LOOP).machine
    log = AccessLog(machine)
    log.start()
    machine.run(10)
    log.stop()
    machine.run(10)
    columns, machine_gone = weakref.ref(log._columns), weakref.ref(machine)
    del log
    gc.collect()
    assert columns() is None and machine.memory.listeners == [] and machine.cpu.recorder is None
    kept = AccessLog(machine)
    kept.start()
    del machine
    machine_gone().close()
    assert kept.starts == 0


# -- bad input -----------------------------------------------------------------------------------------------------
def test_what_cannot_be_recorded_is_refused(guest: Callable[..., Rig]) -> None:
    rig = guest(f"nop; {EXIT}")
    log = AccessLog(rig.machine)
    for limit in (0, -1, 1 << 40, 1.5, True):
        with pytest.raises(UsageError, match="limit"):
            AccessLog(rig.machine, limit_bytes=limit)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="empty"):
        log.last_write(0)
    log.start()
    with pytest.raises(UsageError, match="already on"):
        log.start()
    with pytest.raises(UsageError, match="already on"):
        AccessLog(rig.machine).start()
    rig.machine.cpu.hook_code([CODE + 1], lambda address: log.stop())
    with pytest.raises(UsageError, match="between runs"):
        rig.run()
    log.stop()
    log.stop()
    AccessLog(rig.machine).start()
    rig.close()
    with pytest.raises(UsageError, match="closed"):
        AccessLog(rig.machine).start()


def test_the_native_code_is_what_its_source_assembles_to() -> None:
    from sandbox.toolchain.backend import default_backend

    source = Path(accesses_native.__file__).with_suffix(".asm").read_text()
    text = "\n".join(line.partition("#")[0].rstrip() for line in source.splitlines())
    assert default_backend().assemble(text, 0) == accesses_native.CODE
