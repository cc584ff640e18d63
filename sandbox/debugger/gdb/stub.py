"""What each packet of gdb's is answered: registers, memory, breakpoints, and orders to move.

GDB manual, appendix E.2 to E.4. A packet that is unknown gets the empty answer, as the protocol has it; one that is
malformed ``E22``, memory that nothing maps ``E14``, as QEMU answers. Registers and memory of a recorded run cannot be
written: what happened would no longer be what the next moments come from. It is refused in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ...address import PAGE_SIZE, U64
from ...errors import GuestMemoryError, SandboxError
from ...guest.guest import Guest
from ..timeline import Timeline
from .breakpoints import ACCESS, Breakpoints
from .fields import LARGEST_DATA, Malformed, console, number, numbers
from .motion import END, INTERRUPTED, STEPPED, Motion, Mover, Stop
from .packets import PACKET_SIZE
from .registers import EXPEDITED, REGISTERS, target_xml

OK, UNKNOWN, WRONG, MALFORMED, UNMAPPED = b"OK", b"", b"E01", b"E22", b"E14"
PAST = b"E.this is a recorded run: its registers and memory can be read, and not written"
THREAD = 1
_THREAD = re.compile(rb"(?:-1|[0-9a-fA-F]{1,16})")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NO_INTERRUPTS = 2
"""In QEMU's ``sstep`` bits: interrupts are masked while gdb steps."""

Answer = tuple[bytes, ...] | Motion
"""The packets that answer, none or more; or a motion, whose stop will be the answer."""


class Monitor(Protocol):
    """Answers ``monitor COMMAND``."""

    def connect(self) -> None:
        """A new connection: nothing is known of it."""
        ...

    def answer(self, line: str) -> Iterable[str]:
        """Lines of text; a :class:`SandboxError` is told as its sentence."""
        ...


class Stub:
    """Answers packets about ``timeline``. ``home`` is the moment that ``run`` and ``R`` go back to."""

    def __init__(self, timeline: Timeline[Any], monitor: Monitor, home: int | None = None) -> None:
        self.breakpoints = Breakpoints()
        self.mover = Mover(timeline, self.breakpoints)
        self._timeline = timeline
        self._monitor = monitor
        self._home = timeline.position if home is None else home
        self._description = target_xml().encode()
        self._remarks: list[str] = []
        self.connect()

    def connect(self) -> None:
        """A new connection: breakpoints are its own business, and so is what it can understand."""
        self.breakpoints.clear()
        self.mover.hide_interrupts = True
        self.ended = False
        self._extended = self._physical = False
        self._features: frozenset[bytes] = frozenset()
        self._remarks.clear()
        self._told_end = False
        self._monitor.connect()

    @property
    def _guest(self) -> Guest:
        guest: Guest = self._timeline.kernel
        return guest

    # -- answering --------------------------------------------------------------------------------------------
    def answer(self, packet: bytes) -> Answer:
        """The answer to one packet; nothing that it holds makes this raise."""
        try:
            return self._dispatch(packet)
        except Malformed:
            return (MALFORMED,)
        except GuestMemoryError:
            return (UNMAPPED,)
        except Exception as error:               # a defect too: the connection is not to be lost
            return (b"E." + _sentence(error).encode("ascii", "replace"),)

    def _dispatch(self, packet: bytes) -> Answer:
        name = packet[:1]
        if name in (b"q", b"Q", b"v"):
            return self._named(packet)
        if packet in (b"bs", b"bc"):
            return self._moving(self.mover.step_back() if packet == b"bs" else self.mover.run_back())
        if name in _LETTERS:
            return _LETTERS[name](self, packet[1:])
        return (UNKNOWN,)

    def _named(self, packet: bytes) -> Answer:
        found = re.match(rb"[A-Za-z]+(?:\.[A-Za-z]+)?\??", packet)
        handler = _NAMES.get(found[0]) if found else None
        return (UNKNOWN,) if handler is None or found is None else handler(self, packet[found.end() :])

    def broken(self) -> bytes:
        """The answer to a packet that did not come well, where there are no acknowledgements."""
        return WRONG

    # -- stops ------------------------------------------------------------------------------------------------
    def _why(self, rest: bytes) -> Answer:
        return (self.stop_reply(STEPPED),)

    def stop_reply(self, stop: Stop) -> bytes:
        """A ``T`` packet, with the registers that gdb wants first."""
        cpu = self._guest.machine.cpu
        expedited = "".join(f"{number:02x}:{REGISTERS[number].read(cpu)};" for number in EXPEDITED)
        word = stop.reason.partition(":")[0].encode()
        reason = "" if word in (b"swbreak", b"hwbreak") and word not in self._features else stop.reason
        return f"T{stop.signal:02x}{expedited}thread:{THREAD:02x};{reason}".encode()

    def interrupted(self) -> bytes:
        """The answer to Ctrl-C during a motion."""
        return self.stop_reply(INTERRUPTED)

    def remarks(self) -> tuple[bytes, ...]:
        """``O`` packets with all that is to be said on gdb's console before the next stop."""
        texts, self._remarks = self._remarks, []
        return tuple(packet for text in texts for packet in console(text))

    # -- moving -----------------------------------------------------------------------------------------------
    def _moving(self, motion: Motion) -> Motion:
        """A motion, with what the guest prints on its way and how the run ended."""
        before = self._guest.console
        try:
            stop = yield from motion
        except Exception as error:
            self._remarks.append(f"{_sentence(error)}\n")
            stop = STEPPED
        after = self._guest.console
        if after.startswith(before) and len(after) > len(before):
            self._remarks.append(_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", after[len(before) :]))
        if stop is END and not self._told_end:
            self._told_end = True
            result = self._timeline.result
            self._remarks.append(f"{result.sentence if result else 'the run goes no further'}\n")
        return stop

    def _continue(self, rest: bytes) -> Answer:
        return self._resume(b"c", rest)

    def _continue_with_signal(self, rest: bytes) -> Answer:
        return self._resume(b"c", rest[2:].removeprefix(b";"))

    def _step(self, rest: bytes) -> Answer:
        return self._resume(b"s", rest)

    def _step_with_signal(self, rest: bytes) -> Answer:
        return self._resume(b"s", rest[2:].removeprefix(b";"))

    def _resume(self, action: bytes, address: bytes) -> Answer:
        """Go on; from another address a recorded run cannot."""
        if address:
            return (PAST if number(address) != self._guest.registers["rip"] else MALFORMED,)
        return self._moving(self.mover.step() if action == b"s" else self.mover.run())

    def _vcont(self, rest: bytes) -> Answer:
        actions = [action.partition(b":") for action in rest.removeprefix(b";").split(b";")]
        if any(colon and self._thread_alive(thread) != (OK,) for _, colon, thread in actions):
            return (WRONG,)
        action = actions[0][0]
        if action[:1] == b"r":
            start, end = numbers(action[1:])
            return self._moving(self.mover.step_range(start, end))
        if action[:1] not in (b"c", b"s", b"C", b"S") or not rest.startswith(b";"):
            raise Malformed
        return self._resume(action[:1].lower(), b"")

    def _vcont_supported(self, rest: bytes) -> Answer:
        return (b"vCont;c;C;s;S;r",)

    # -- registers and memory ---------------------------------------------------------------------------------
    def _read_registers(self, rest: bytes) -> Answer:
        cpu = self._guest.machine.cpu
        return ("".join(register.read(cpu) for register in REGISTERS).encode(),)

    def _read_register(self, rest: bytes) -> Answer:
        wanted = number(rest)
        return (REGISTERS[wanted].read(self._guest.machine.cpu).encode() if wanted < len(REGISTERS) else WRONG,)

    def _write_registers(self, rest: bytes) -> Answer:
        return (PAST,)

    def _read_memory(self, rest: bytes) -> Answer:
        address, size = numbers(rest)
        data = bytearray()
        end = min(address + min(size, LARGEST_DATA), U64 + 1)
        memory = self._guest.physical if self._physical else self._guest.memory
        while address < end:
            length = min(PAGE_SIZE - address % PAGE_SIZE, end - address)
            try:
                data += memory.read(address, length)
            except GuestMemoryError:
                if not data:
                    raise
                break
            address += length
        return (data.hex().encode(),)

    def _write_memory(self, rest: bytes) -> Answer:
        place, colon, _ = rest.partition(b":")
        address, size = numbers(place)
        if not colon:
            raise Malformed
        if size:
            self._guest.memory.read(address, 1)
            self._remarks.append(f"0x{address:x} was not written: {PAST[2:].decode()}\n")
        return (PAST if size else OK,)

    # -- breakpoints ------------------------------------------------------------------------------------------
    def _insert(self, rest: bytes) -> Answer:
        return (OK if self.breakpoints.insert(*self._breakpoint(rest)) else WRONG,)

    def _remove(self, rest: bytes) -> Answer:
        self.breakpoints.remove(*self._breakpoint(rest))
        return (OK,)

    def _breakpoint(self, rest: bytes) -> tuple[int, int, int]:
        kind, _, place = rest.partition(b",")
        address, size = numbers(place.partition(b";")[0])
        if not (len(kind) == 1 and kind.isdigit() and int(kind) <= ACCESS):
            raise Malformed
        return int(kind), address, size

    # -- threads: one processor -------------------------------------------------------------------------------
    def _choose_thread(self, rest: bytes) -> Answer:
        if rest[:1] not in (b"g", b"c"):
            raise Malformed
        return self._thread_alive(rest[1:])

    def _thread_alive(self, rest: bytes) -> Answer:
        if not _THREAD.fullmatch(rest):
            raise Malformed
        return (OK if rest == b"-1" or int(rest, 16) in (0, THREAD) else WRONG,)

    def _thread_words(self, rest: bytes) -> Answer:
        state = "halted" if self._guest.machine.halted else "running"
        return (f"CPU#0 [{state}]".encode().hex().encode(),)

    # -- the rest ---------------------------------------------------------------------------------------------
    def _supported(self, rest: bytes) -> Answer:
        self._features = frozenset(feature[:-1] for feature in rest.removeprefix(b":").split(b";")
                                   if feature.endswith(b"+"))
        return (f"PacketSize={PACKET_SIZE:x};QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+;"
                "ReverseStep+;ReverseContinue+".encode(),)

    def _transfer(self, rest: bytes) -> Answer:
        found = re.fullmatch(rb":([a-z-]+):read:([^:]*):([^:]*)", rest)
        if found is None or found[1] != b"features":
            return (UNKNOWN,)
        if found[2] != b"target.xml":
            return (b"E00",)
        offset, length = numbers(found[3])
        piece = self._description[offset : offset + min(length, PACKET_SIZE - 16)]
        return ((b"l" if offset + len(piece) >= len(self._description) else b"m") + piece,)

    def _command(self, rest: bytes) -> Answer:
        try:
            command = bytes.fromhex(rest.removeprefix(b",").decode("ascii")).decode("utf-8", "replace")
        except ValueError:
            raise Malformed from None
        lines: list[str] = []
        try:
            lines.extend(self._monitor.answer(command))
        except Exception as error:
            lines.append(_sentence(error))
        text = "".join(f"{line}\n" for line in lines)
        return (*self.remarks(), *console(text), OK)

    def _extend(self, rest: bytes) -> Answer:
        self._extended = True
        return (OK,)

    def _kill(self, rest: bytes) -> Answer:
        self.ended = not self._extended
        return ()

    def _restart(self, rest: bytes) -> Answer:
        self._timeline.goto(self._home)
        return ()

    def _run(self, rest: bytes) -> Answer:
        self._timeline.goto(self._home)
        return self._why(b"")

    def _step_bits(self, rest: bytes) -> Answer:
        return (b"0x%x" % (5 | _NO_INTERRUPTS * self.mover.hide_interrupts),)

    def _set_step_bits(self, rest: bytes) -> Answer:
        self.mover.hide_interrupts = bool(number(rest.removeprefix(b"=").removeprefix(b"0x")) & _NO_INTERRUPTS)
        return (OK,)

    def _physical_mode(self, rest: bytes) -> Answer:
        return (b"%d" % self._physical,)

    def _set_physical_mode(self, rest: bytes) -> Answer:
        self._physical = bool(number(rest.removeprefix(b":")))
        return (OK,)


def _always(answer: bytes) -> Callable[[Stub, bytes], Answer]:
    return lambda stub, rest: (answer,)


_LETTERS: dict[bytes, Callable[[Stub, bytes], Answer]] = {
    b"?": Stub._why, b"!": Stub._extend, b"g": Stub._read_registers, b"G": Stub._write_registers,
    b"p": Stub._read_register, b"P": Stub._write_registers, b"m": Stub._read_memory, b"M": Stub._write_memory,
    b"X": Stub._write_memory, b"c": Stub._continue, b"C": Stub._continue_with_signal, b"s": Stub._step,
    b"S": Stub._step_with_signal, b"Z": Stub._insert, b"z": Stub._remove, b"H": Stub._choose_thread,
    b"T": Stub._thread_alive, b"D": _always(OK), b"k": Stub._kill, b"R": Stub._restart,
}
_NAMES: dict[bytes, Callable[[Stub, bytes], Answer]] = {
    b"vCont": Stub._vcont, b"vCont?": Stub._vcont_supported, b"vKill": _always(OK), b"vRun": Stub._run,
    b"vAttach": Stub._why, b"qSupported": Stub._supported, b"qXfer": Stub._transfer, b"qRcmd": Stub._command,
    b"qC": _always(b"QC%02x" % THREAD), b"qAttached": _always(b"1"), b"qfThreadInfo": _always(b"m%02x" % THREAD),
    b"qsThreadInfo": _always(b"l"), b"qThreadExtraInfo": Stub._thread_words, b"qSymbol": _always(OK),
    b"qqemu.sstepbits": _always(b"ENABLE=1,NOIRQ=2,NOTIMER=4"), b"qqemu.sstep": Stub._step_bits,
    b"Qqemu.sstep": Stub._set_step_bits, b"qqemu.PhyMemMode": Stub._physical_mode,
    b"Qqemu.PhyMemMode": Stub._set_physical_mode,
}


def _sentence(error: Exception) -> str:
    """What went wrong; a defect of ours is called one."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SandboxError) else \
        f"the sandbox itself has a defect, {type(error).__name__}: {text}"
