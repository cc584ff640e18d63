"""Two cascaded 8259A interrupt controllers, as in a PC: 15 lines, the second chip on line 2 of the first.

Intel 8259A data sheet. A line that rises sets its bit in IRR; the chip's highest unmasked request that beats all in
service goes to the CPU; the acknowledge moves it from IRR to ISR, where an EOI command clears it.
"""

from __future__ import annotations

from .device import Device, State

CASCADE_LINE = 2
ICW1, ICW1_NEEDS_ICW4, ICW1_SINGLE, ICW1_LEVEL = 0x10, 0x01, 0x02, 0x08
ICW4_AUTO_EOI, ICW4_FULLY_NESTED = 0x02, 0x10
OCW3 = 0x08


class Chip:
    """One 8259A; ``cascade`` marks the lines of a first chip that a second one feeds."""

    def __init__(self, cascade: int = 0) -> None:
        self.cascade = cascade
        self.irr = self.isr = self.levels = 0
        self.imr = 0
        self.base = 0  # vector of line 0
        self.lowest = 7  # the line with the lowest priority
        self.icw1 = self.icw4 = 0
        self.expecting = 0  # the ICW that the next write to the data port is, 0 for OCW1
        self.read_isr = self.special_mask = self.poll = self.rotate_on_auto_eoi = False

    def set_line(self, line: int, level: bool) -> None:
        """Drive one of the chip's eight inputs; a rising edge is a request."""
        bit = 1 << line
        if level:
            if self.icw1 & ICW1_LEVEL or not self.levels & bit:
                self.irr |= bit
            self.levels |= bit
        else:
            self.levels &= ~bit
            if self.icw1 & ICW1_LEVEL or self.cascade & bit:
                self.irr &= ~bit

    def _highest(self, lines: int) -> int | None:
        """The most urgent of these lines, by the present rotation."""
        for step in range(1, 9):
            line = (self.lowest + step) % 8
            if lines >> line & 1:
                return line
        return None

    def _rank(self, line: int) -> int:
        return (line - self.lowest - 1) % 8

    def request(self) -> int | None:
        """The line that the chip asks the CPU to serve now."""
        asking = self.irr & ~self.imr
        if not asking:
            return None
        wanted = self._highest(asking)
        serving = self.isr
        if self.special_mask:
            serving &= ~self.imr
        if self.icw4 & ICW4_FULLY_NESTED:
            serving &= ~self.cascade  # a second, more urgent request of the other chip may come through
        current = self._highest(serving)
        return wanted if current is None or wanted is None or self._rank(wanted) < self._rank(current) else None

    def acknowledge(self) -> int:
        """Take the request into service and return its line; 7, with nothing in service, when it is gone."""
        line = self.request()
        if line is None:
            return 7
        bit = 1 << line
        if not (self.icw1 & ICW1_LEVEL and self.levels & bit) and not self.cascade & bit:
            self.irr &= ~bit
        if self.icw4 & ICW4_AUTO_EOI:
            if self.rotate_on_auto_eoi:
                self.lowest = line
        else:
            self.isr |= bit
        return line

    def write_command(self, value: int) -> None:
        """A byte for the command port: ICW1, OCW2 or OCW3."""
        if value & ICW1:
            self.__dict__.update(Chip(self.cascade).__dict__ | {"levels": self.levels, "base": self.base})
            self.icw1 = value
            self.expecting = 2
        elif value & OCW3:
            if value & 0x40:
                self.special_mask = bool(value & 0x20)
            self.poll = bool(value & 0x04)
            if value & 0x02:
                self.read_isr = bool(value & 0x01)
        else:
            self._write_ocw2(value)

    def _write_ocw2(self, value: int) -> None:
        rotate, specific, eoi = bool(value & 0x80), bool(value & 0x40), bool(value & 0x20)
        if eoi:
            candidates = self.isr & ~(self.imr if self.special_mask else 0)
            line = value & 7 if specific else self._highest(candidates)
            if line is not None:
                self.isr &= ~(1 << line)
                if rotate:
                    self.lowest = line
        elif specific and rotate:
            self.lowest = value & 7
        elif not specific:
            self.rotate_on_auto_eoi = rotate

    def write_data(self, value: int) -> None:
        """A byte for the data port: the ICW that is expected, else the interrupt mask (OCW1)."""
        if self.expecting == 2:
            self.base = value & 0xF8
            self.expecting = 3 if not self.icw1 & ICW1_SINGLE else 4 if self.icw1 & ICW1_NEEDS_ICW4 else 0
        elif self.expecting == 3:
            self.expecting = 4 if self.icw1 & ICW1_NEEDS_ICW4 else 0
        elif self.expecting == 4:
            self.icw4 = value
            self.expecting = 0
        else:
            self.imr = value

    def read_command(self) -> int:
        """The register that OCW3 chose: IRR, ISR, or the answer to a poll."""
        if self.poll:
            self.poll = False
            return 0x80 | self.acknowledge() if self.request() is not None else 0
        return self.isr if self.read_isr else self.irr


class Pic(Device):
    """Both chips; ``first`` serves lines 0-7, ``second`` lines 8-15. All lines are masked until the guest speaks."""

    def __init__(self, first_port: int = 0x20, second_port: int = 0xA0) -> None:
        self.ports = (first_port, first_port + 1, second_port, second_port + 1)
        self.first = Chip(1 << CASCADE_LINE)
        self.second = Chip()
        self.first.imr = self.second.imr = 0xFF

    def set_line(self, line: int, level: bool) -> None:
        """Drive interrupt line 0-15."""
        if line >= 8:
            self.second.set_line(line - 8, level)
        elif line != CASCADE_LINE:
            self.first.set_line(line, level)
        self._cascade()

    def pulse(self, line: int) -> None:
        """Let the line rise, and fall again."""
        self.set_line(line, False)
        self.set_line(line, True)
        self.set_line(line, False)

    @property
    def pending(self) -> bool:
        """Whether the CPU's interrupt input is up."""
        return self.first.request() is not None

    def acknowledge(self) -> int:
        """The CPU's acknowledge cycle: the vector to deliver. With no request left it is the spurious line 7."""
        line = self.first.acknowledge()
        if line == CASCADE_LINE and self.first.cascade:
            vector = self.second.base + self.second.acknowledge()
        else:
            vector = self.first.base + line
        self._cascade()
        return vector

    def read(self, port: int) -> int:
        chip = self._chip(port)
        value = chip.imr if port & 1 else chip.read_command()
        self._cascade()
        return value

    def write(self, port: int, value: int) -> None:
        chip = self._chip(port)
        if port & 1:
            chip.write_data(value)
        else:
            chip.write_command(value)
        self._cascade()

    def _chip(self, port: int) -> Chip:
        return self.first if port in self.ports[:2] else self.second

    def _cascade(self) -> None:
        self.first.set_line(CASCADE_LINE, self.second.request() is not None)
        if self.second.request() is not None:
            self.first.irr |= 1 << CASCADE_LINE

    def state(self) -> State:
        return {"first": dict(vars(self.first)), "second": dict(vars(self.second))}

    def load(self, state: State) -> None:
        vars(self.first).update(state["first"])
        vars(self.second).update(state["second"])
