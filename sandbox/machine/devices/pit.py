"""The 8254 timer: three 16-bit counters, of which the first drives interrupt line 0.

Intel 8254 data sheet. A clock of the chip (1.193182 MHz in a PC) is a fixed number of guest instructions here, so
that an interrupt falls at the same instruction in every run. A count is in force from the instruction that wrote
its last byte. The gate inputs are tied high.
"""

from __future__ import annotations

from .device import Device, Line, State, unconnected

LATCH_COMMAND, READ_BACK = 0, 3
LOW_BYTE, HIGH_BYTE, BOTH_BYTES = 1, 2, 3
INSTRUCTIONS_PER_CLOCK = 16


class Channel:
    """One counter. Times are instruction counts, counts are clocks of the chip."""

    def __init__(self, per_clock: int) -> None:
        self.per_clock = per_clock
        self.mode = 0
        self.access = BOTH_BYTES
        self.bcd = False
        self.reload: int | None = None  # None: no count written yet
        self.start = 0  # when the count came into force
        self.write_low: int | None = None  # the low byte of a two-byte write, while the high one is missing
        self.latched: list[int] = []  # bytes that reads return before the live count
        self.read_high = False

    @property
    def period(self) -> int:
        """The count in instructions."""
        return (self.reload or 0) * self.per_clock

    @property
    def periodic(self) -> bool:
        """Whether the count starts again by itself (modes 2 and 3)."""
        return self.mode in (2, 3)

    def rises(self, after: int) -> int | None:
        """When the output next goes up, later than ``after``."""
        if self.reload is None or self.mode in (1, 5):  # those wait for an edge at the gate
            return None
        if self.periodic:
            return self.start + ((after - self.start) // self.period + 1) * self.period
        first = self.start + self.period + (self.per_clock if self.mode == 4 else 0)
        return first if first > after else None

    def output(self, now: int) -> bool:
        """The level of the output."""
        if self.reload is None:
            return self.mode != 0
        elapsed = (now - self.start) // self.per_clock
        if self.mode == 0:
            return elapsed >= self.reload
        if self.mode == 2:
            return elapsed % self.reload != self.reload - 1
        if self.mode == 3:
            return elapsed % self.reload < (self.reload + 1) // 2
        return not (self.mode == 4 and elapsed == self.reload)

    def count(self, now: int) -> int:
        """The 16 bits that a read of the counter gives."""
        if self.reload is None:
            return 0
        elapsed = (now - self.start) // self.per_clock
        if self.mode == 2:
            value = self.reload - elapsed % self.reload
        elif self.mode == 3:
            half = elapsed % self.reload
            high = (self.reload + 1) // 2
            value = (self.reload - 2 * (half if half < high else half - high)) & ~1
        else:
            value = self.reload - elapsed
        return self._encode(value)

    def _encode(self, value: int) -> int:
        return int(f"{value % 10000}", 16) if self.bcd else value & 0xFFFF

    def _decode(self, raw: int) -> int:
        if self.bcd:
            digits = [raw >> shift & 0xF for shift in (12, 8, 4, 0)]
            return sum(digit * scale for digit, scale in zip(digits, (1000, 100, 10, 1), strict=True)) or 10000
        return raw or 0x10000

    def control(self, value: int, now: int) -> None:
        """A control word for this counter: the latch command, or a new mode."""
        access = value >> 4 & 3
        if access == LATCH_COMMAND:
            self.latch_count(now)
            return
        self.access = access
        self.mode = value >> 1 & 7
        if self.mode > 5:
            self.mode -= 4
        self.bcd = bool(value & 1)
        self.reload = None
        self.write_low = None
        self.latched = []
        self.read_high = False

    def latch_count(self, now: int) -> None:
        """Keep the present count for the next reads, unless something is kept already."""
        if not self.latched:
            count = self.count(now)
            self.latched = {LOW_BYTE: [count & 0xFF], HIGH_BYTE: [count >> 8]}.get(
                self.access, [count & 0xFF, count >> 8])  # fmt: skip

    def latch_status(self, now: int) -> None:
        """Keep the status byte for the next read, ahead of a count."""
        null_count = self.reload is None
        self.latched.insert(0, self.output(now) << 7 | null_count << 6 | self.access << 4 | self.mode << 1 | self.bcd)

    def write(self, value: int, now: int) -> None:
        """A byte of a new count."""
        if self.access == LOW_BYTE:
            self._begin(value, now)
        elif self.access == HIGH_BYTE:
            self._begin(value << 8, now)
        elif self.write_low is None:
            self.write_low = value
        else:
            low, self.write_low = self.write_low, None
            self._begin(low | value << 8, now)

    def _begin(self, raw: int, now: int) -> None:
        self.reload = self._decode(raw)
        self.start = now

    def read(self, now: int) -> int:
        """The next byte: what was latched, else of the running count."""
        if self.latched:
            return self.latched.pop(0)
        count = self.count(now)
        if self.access == LOW_BYTE:
            return count & 0xFF
        if self.access == HIGH_BYTE:
            return count >> 8
        self.read_high = not self.read_high
        return count & 0xFF if self.read_high else count >> 8


class Pit(Device):
    """``line`` follows the output of counter 0; ``per_clock`` guest instructions are one clock of the chip."""

    def __init__(self, port: int = 0x40, line: Line = unconnected, per_clock: int = INSTRUCTIONS_PER_CLOCK) -> None:
        self.ports = tuple(range(port, port + 4))
        self.channels = tuple(Channel(per_clock) for _ in range(3))
        self._line = line
        self._up = False  # the level of the line
        self._now = 0

    def advance(self, now: int) -> None:
        """Let time pass until instruction count ``now``.

        The line rises for the ticks that have come due; several at once are one, as it is only up or down.
        """
        channel = self.channels[0]
        due = channel.rises(self._now)
        if due is not None and due <= now:
            self._line(False)
            self._line(True)
            self._up = True
        self._now = now
        self._fall()

    def next_event(self) -> int | None:
        """The instruction count at which the line will next rise, None for never."""
        return self.channels[0].rises(self._now)

    def read(self, port: int) -> int:
        index = port - self.ports[0]
        return 0xFF if index == 3 else self.channels[index].read(self._now)

    def write(self, port: int, value: int) -> None:
        index = port - self.ports[0]
        if index < 3:
            self.channels[index].write(value, self._now)
        elif value >> 6 == READ_BACK:
            self._read_back(value)
        else:
            self.channels[value >> 6].control(value, self._now)
        self._fall()

    def _fall(self) -> None:
        """Take the line down while the output is low. Time alone raises it: a PC's firmware leaves it high."""
        if self._up and not self.channels[0].output(self._now):
            self._up = False
            self._line(False)

    def _read_back(self, value: int) -> None:
        """The read-back command: latch counts and states of the chosen counters; bits 5 and 4 say which not."""
        for index, channel in enumerate(self.channels):
            if value >> (index + 1) & 1:
                if not value & 0x20:
                    channel.latch_count(self._now)
                if not value & 0x10:
                    channel.latch_status(self._now)

    def state(self) -> State:
        return {"now": self._now, "up": self._up, "channels": [vars(channel) | {"latched": list(channel.latched)}
                                               for channel in self.channels]}  # fmt: skip

    def load(self, state: State) -> None:
        self._now, self._up = state["now"], state["up"]
        for channel, saved in zip(self.channels, state["channels"], strict=True):
            vars(channel).update(saved | {"latched": list(saved["latched"])})
