"""The 16550A serial port: 8 registers, two FIFOs of which the transmitting one is always empty again.

Registers by offset (National Semiconductor PC16550D data sheet, table II); DLAB is bit 7 of LCR::

    0  RBR received byte (read), THR byte to send (write); with DLAB the divisor's low byte
    1  IER interrupts enabled;                             with DLAB the divisor's high byte
    2  IIR why the line is up (read), FCR FIFO control (write)
    3  LCR format and DLAB     4  MCR modem outputs, loopback
    5  LSR line status         6  MSR modem inputs          7  SCR scratch

Sending takes no time: the transmitter is ready before the next instruction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .device import Device, Line, State, unconnected

IER_RECEIVED, IER_EMPTY, IER_LINE, IER_MODEM = 1, 2, 4, 8
LSR_READY, LSR_OVERRUN, LSR_EMPTY, LSR_IDLE = 0x01, 0x02, 0x20, 0x40
MCR_OUT2, MCR_LOOP = 0x08, 0x10
LCR_DLAB = 0x80
FCR_ENABLE, FCR_CLEAR_RECEIVER = 1, 2
MSR_CONNECTED = 0xB0  # data carrier detect, data set ready, clear to send
FIFO_SIZE = 16


class Serial(Device):
    """``output`` is what the guest sent; at most ``output_limit`` bytes, the newest, are kept (None: all of them).

    ``dropped`` counts the older ones. ``listener``, when set, gets each byte as it is sent. :meth:`feed` queues
    bytes for the guest to receive.
    """

    def __init__(self, port: int = 0x3F8, line: Line = unconnected, output_limit: int | None = None) -> None:
        self.ports = tuple(range(port, port + 8))
        self.output = bytearray()
        self.output_limit = output_limit
        self.dropped = 0
        self.listener: Callable[[int], None] | None = None
        self._line = line
        self._waiting: deque[int] = deque()  # fed from outside, not yet in the FIFO
        self._fifo: deque[int] = deque()
        self._divisor = 12  # 9600 baud
        self._ier = self._lcr = self._mcr = self._scratch = self._fcr = self._msr_delta = 0
        self._overrun = False
        self._empty_pending = False  # THR became empty since the guest last looked at IIR

    @property
    def text(self) -> str:
        """The output as text, one character for each byte that is not valid UTF-8; what is not kept is said first."""
        text = self.output.decode("utf-8", "replace")
        return f"[earlier output is not kept: {self.dropped:,} bytes]\n{text}" if self.dropped else text

    def feed(self, data: bytes) -> None:
        """Queue bytes that arrive on the line, the next one as soon as the guest has taken the one before."""
        self._waiting.extend(data)
        self._receive()
        self._update()

    def read(self, port: int) -> int:
        offset = port - self.ports[0]
        if self._lcr & LCR_DLAB and offset < 2:
            return self._divisor >> (8 * offset) & 0xFF
        value = (self._read_rbr, lambda: self._ier, self._read_iir, lambda: self._lcr, lambda: self._mcr,
                 self._read_lsr, self._read_msr, lambda: self._scratch)[offset]()  # fmt: skip
        self._update()
        return value

    def write(self, port: int, value: int) -> None:
        offset = port - self.ports[0]
        if self._lcr & LCR_DLAB and offset < 2:
            kept = self._divisor & (0xFF00, 0x00FF)[offset]
            self._divisor = kept | value << (8 * offset)
        elif offset == 0:
            self._send(value)
        elif offset == 1:
            if value & IER_EMPTY and not self._ier & IER_EMPTY:
                self._empty_pending = True
            self._ier = value & 0x0F
        elif offset == 2:
            self._write_fcr(value)
        elif offset == 3:
            self._lcr = value
        elif offset == 4:
            self._write_mcr(value)
        elif offset == 7:
            self._scratch = value
        self._update()

    # --- data -------------------------------------------------------------------------------------------------

    def _send(self, byte: int) -> None:
        self._empty_pending = True
        if self._mcr & MCR_LOOP:
            self._arrive(byte)
            return
        self.output.append(byte)
        if self.output_limit is not None and len(self.output) > self.output_limit:
            excess = len(self.output) - self.output_limit
            del self.output[:excess]
            self.dropped += excess
        if self.listener is not None:
            self.listener(byte)

    def _arrive(self, byte: int) -> None:
        """A byte that comes whether there is room for it or not (loopback)."""
        if len(self._fifo) < self._capacity:
            self._fifo.append(byte)
        else:
            self._overrun = True
            if not self._fcr & FCR_ENABLE:
                self._fifo[0] = byte

    def _receive(self) -> None:
        """Bytes from outside wait, as under hardware flow control, until all before them are taken.

        So the interrupt line falls between two fillings, and its rise is seen by an edge-triggered controller.
        """
        if self._fifo or self._mcr & MCR_LOOP:
            return
        self._update()
        while self._waiting and len(self._fifo) < self._capacity:
            self._fifo.append(self._waiting.popleft())

    @property
    def _capacity(self) -> int:
        return FIFO_SIZE if self._fcr & FCR_ENABLE else 1

    # --- registers --------------------------------------------------------------------------------------------

    def _read_rbr(self) -> int:
        byte = self._fifo.popleft() if self._fifo else 0
        self._receive()
        return byte

    def _cause(self) -> int:
        """The interrupt identification in IIR bits 0-3; 1 for none."""
        if self._ier & IER_LINE and self._overrun:
            return 0x6
        if self._ier & IER_RECEIVED and self._fifo:
            trigger = (1, 4, 8, 14)[self._fcr >> 6] if self._fcr & FCR_ENABLE else 1
            return 0x4 if len(self._fifo) >= trigger else 0xC  # 0xC: fewer, and no more are coming
        if self._ier & IER_EMPTY and self._empty_pending:
            return 0x2
        if self._ier & IER_MODEM and self._msr_delta:
            return 0x0
        return 0x1

    def _read_iir(self) -> int:
        cause = self._cause()
        if cause == 0x2:
            self._empty_pending = False
        return cause | (0xC0 if self._fcr & FCR_ENABLE else 0)

    def _write_fcr(self, value: int) -> None:
        if value & FCR_CLEAR_RECEIVER or (value ^ self._fcr) & FCR_ENABLE:
            self._fifo.clear()
            self._overrun = False
        self._fcr = value & 0xC1 if value & FCR_ENABLE else 0
        self._receive()

    def _write_mcr(self, value: int) -> None:
        before = self._modem_inputs()
        self._mcr = value & 0x1F
        after = self._modem_inputs()
        changed = (before ^ after) >> 4
        rang = (before & ~after) >> 4 & 0x4  # the ring indicator reports its trailing edge alone
        self._msr_delta |= (changed & 0xB) | rang
        self._receive()

    def _modem_inputs(self) -> int:
        if not self._mcr & MCR_LOOP:
            return MSR_CONNECTED
        dtr, rts, out1, out2 = (self._mcr >> bit & 1 for bit in range(4))
        return rts << 4 | dtr << 5 | out1 << 6 | out2 << 7

    def _read_msr(self) -> int:
        value = self._modem_inputs() | self._msr_delta
        self._msr_delta = 0
        return value

    def _read_lsr(self) -> int:
        value = LSR_EMPTY | LSR_IDLE | (LSR_READY if self._fifo else 0) | (LSR_OVERRUN if self._overrun else 0)
        self._overrun = False
        return value

    def _update(self) -> None:
        """On a PC, OUT2 connects the chip's interrupt output to the bus; loopback takes it away."""
        connected = self._mcr & MCR_OUT2 and not self._mcr & MCR_LOOP
        self._line(bool(connected) and self._cause() != 0x1)

    # --- snapshots --------------------------------------------------------------------------------------------

    _SAVED = ("dropped", "_divisor", "_ier", "_lcr", "_mcr", "_scratch", "_fcr", "_msr_delta", "_overrun",
              "_empty_pending")  # fmt: skip

    def state(self) -> State:
        registers: State = {name: getattr(self, name) for name in self._SAVED}
        return registers | {"output": bytes(self.output), "waiting": bytes(self._waiting), "fifo": bytes(self._fifo)}

    def load(self, state: State) -> None:
        for name in self._SAVED:
            setattr(self, name, state[name])
        self.output = bytearray(state["output"])
        self._waiting = deque(state["waiting"])
        self._fifo = deque(state["fifo"])
