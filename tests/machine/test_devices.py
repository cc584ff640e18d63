"""Register maps of the devices, by their data sheets."""

from __future__ import annotations

import pytest

from sandbox.machine import Pic, Pit, Serial
from sandbox.machine.devices import DebugExit


class Wire:
    """Records the levels of an interrupt line."""

    def __init__(self) -> None:
        self.level = False
        self.rises = 0

    def __call__(self, level: bool) -> None:
        self.rises += level and not self.level
        self.level = level


def ready_pic() -> Pic:
    """Both chips initialised at vectors 0x20 and 0x28, nothing masked."""
    pic = Pic()
    for port, values in ((0x20, (0x11,)), (0x21, (0x20, 4, 1, 0)), (0xA0, (0x11,)), (0xA1, (0x28, 2, 1, 0))):
        for value in values:
            pic.write(port, value)
    return pic


def test_the_pic_is_masked_until_it_is_programmed() -> None:
    pic = Pic()
    pic.set_line(0, True)
    assert not pic.pending and pic.read(0x21) == 0xFF


def test_lower_lines_win_and_wait_for_the_end_of_what_they_cannot_interrupt() -> None:
    pic = ready_pic()
    pic.pulse(5)
    pic.pulse(3)
    assert pic.acknowledge() == 0x23 and not pic.pending
    pic.pulse(1)
    assert pic.pending and pic.acknowledge() == 0x21
    pic.write(0x20, 0x0B)
    assert pic.read(0x20) == 0b1010
    pic.write(0x20, 0x0A)
    assert pic.read(0x20) == 0b100000
    pic.write(0x20, 0x20)  # the highest in service ends
    pic.write(0x20, 0x0B)
    assert pic.read(0x20) == 0b1000 and not pic.pending
    pic.write(0x20, 0x63)  # line 3 ends, by name
    assert pic.acknowledge() == 0x25


def test_the_second_chip_comes_through_line_2_and_needs_two_ends() -> None:
    pic = ready_pic()
    pic.pulse(12)
    pic.pulse(3)
    assert pic.acknowledge() == 0x2C and not pic.pending
    pic.write(0xA0, 0x20)
    assert not pic.pending
    pic.write(0x20, 0x20)
    assert pic.acknowledge() == 0x23


def test_masks_hold_requests_back_and_keep_them() -> None:
    pic = ready_pic()
    pic.write(0x21, 0b10)
    pic.pulse(1)
    assert not pic.pending and pic.read(0x21) == 0b10
    pic.write(0x21, 0)
    assert pic.acknowledge() == 0x21


def test_a_request_that_is_gone_is_line_7_with_nothing_in_service() -> None:
    pic = ready_pic()
    assert pic.acknowledge() == 0x27
    pic.write(0x20, 0x0B)
    assert pic.read(0x20) == 0


def test_automatic_end_and_rotation() -> None:
    pic = ready_pic()
    for value in (0x11,):
        pic.write(0x20, value)
    for value in (0x40, 4, 3, 0):
        pic.write(0x21, value)
    pic.pulse(1)
    assert pic.acknowledge() == 0x41
    pic.pulse(2 + 1)
    assert pic.acknowledge() == 0x43
    pic.write(0x20, 0xC3)  # line 3 becomes the lowest
    pic.pulse(1)
    pic.pulse(4)
    assert pic.acknowledge() == 0x44


def program(pit: Pit, mode: int, count: int, channel: int = 0) -> None:
    """A count in two bytes."""
    pit.write(0x43, channel << 6 | 0x30 | mode << 1)
    pit.write(0x40 + channel, count & 0xFF)
    pit.write(0x40 + channel, count >> 8)


@pytest.mark.parametrize(("mode", "due"), [(2, [1600, 3200, 4800]), (3, [1600, 3200, 4800]), (0, [1600])])
def test_the_timer_rises_when_its_count_is_over(mode: int, due: list[int]) -> None:
    wire = Wire()
    pit = Pit(line=wire)
    pit.advance(1000)
    program(pit, mode, 100)
    assert wire.rises == 0
    seen = []
    while (event := pit.next_event()) is not None and event <= 6000:
        pit.advance(event - 1)
        before = wire.rises
        pit.advance(event)
        assert wire.rises == before + 1
        seen.append(event - 1000)
    assert seen == due


def test_the_count_is_read_latched_and_with_its_status() -> None:
    pit = Pit()
    program(pit, 2, 0x1234)
    pit.advance(16 * 0x34)
    assert (pit.read(0x40), pit.read(0x40)) == (0x00, 0x12)
    pit.write(0x43, 0x00)
    pit.advance(16 * 0x134)
    assert (pit.read(0x40), pit.read(0x40)) == (0x00, 0x12)
    assert (pit.read(0x40), pit.read(0x40)) == (0x00, 0x11)
    pit.write(0x43, 0xC2)
    assert (pit.read(0x40), pit.read(0x40), pit.read(0x40)) == (0xB4, 0x00, 0x11)


def test_a_count_of_zero_is_65536_and_bcd_counts_decimally() -> None:
    pit = Pit()
    program(pit, 2, 0)
    assert pit.next_event() == 65536 * 16
    pit.write(0x43, 0x35)
    pit.write(0x40, 0x00)
    pit.write(0x40, 0x01)
    assert pit.next_event() == 100 * 16


def test_the_serial_port_keeps_what_was_sent() -> None:
    serial = Serial(output_limit=4)
    for byte in b"hello":
        assert serial.read(0x3FD) & 0x60 == 0x60
        serial.write(0x3F8, byte)
    assert serial.output == b"ello" and serial.dropped == 1
    assert serial.text == "[earlier output is not kept: 1 bytes]\nello"


def test_dlab_shows_the_divisor_and_scratch_is_scratch() -> None:
    serial = Serial()
    serial.write(0x3FB, 0x83)
    serial.write(0x3F8, 0x01)
    serial.write(0x3F9, 0x02)
    assert (serial.read(0x3F8), serial.read(0x3F9)) == (1, 2)
    serial.write(0x3FB, 0x03)
    serial.write(0x3FF, 0xA5)
    assert serial.read(0x3FF) == 0xA5 and serial.read(0x3F9) == 0 and serial.output == b""


def test_loopback_sends_to_itself() -> None:
    serial = Serial()
    serial.write(0x3FC, 0x1E)
    serial.write(0x3F8, 0xAE)
    assert serial.read(0x3FD) & 1 and serial.read(0x3F8) == 0xAE and serial.output == b""
    assert serial.read(0x3FE) & 0xF0 == 0xD0


def test_received_bytes_queue_behind_the_fifo_and_raise_the_line() -> None:
    wire = Wire()
    serial = Serial(line=wire)
    serial.write(0x3FC, 8)
    serial.write(0x3F9, 1)
    serial.feed(bytes(range(40)))
    assert wire.level and serial.read(0x3FA) & 0x0F == 4
    assert [serial.read(0x3F8) for _ in range(40)] == list(range(40))
    assert not wire.level and not serial.read(0x3FD) & 1 and serial.read(0x3FA) & 1


def test_an_empty_transmitter_interrupts_once_until_the_next_byte() -> None:
    wire = Wire()
    serial = Serial(line=wire)
    serial.write(0x3FC, 8)
    serial.write(0x3F9, 2)
    assert wire.level and serial.read(0x3FA) & 0x0F == 2 and not wire.level
    serial.write(0x3F8, 65)
    assert wire.level


def test_the_state_of_each_device_survives() -> None:
    serial, pit, pic = Serial(), Pit(), ready_pic()
    serial.feed(b"abc" * 20)
    program(pit, 3, 77)
    pic.pulse(9)
    for device, fresh in ((serial, Serial()), (pit, Pit()), (pic, Pic()), (DebugExit(), DebugExit())):
        fresh.load(device.state())
        assert fresh.state() == device.state()
