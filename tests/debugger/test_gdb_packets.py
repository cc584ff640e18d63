"""The remote protocol, packet by packet, from a raw socket: what is answered, and what no noise can break."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sandbox
from sandbox import Kernel, UsageError
from sandbox.debugger.gdb import GdbServer, Stub
from sandbox.debugger.gdb.breakpoints import LARGEST, MOST
from sandbox.debugger.gdb.packets import PACKET_SIZE, Packet, PacketReader, Signal, escape, frame, unescape
from sandbox.debugger.gdb.registers import NUMBERS, REGISTERS, target_xml
from sandbox.debugger.timeline import Timeline
from sandbox.guest.export import QEMU
from sandbox.view.monitor import Monitor

from .gdb_client import Client, connected, packet

RIP, RSP, EFLAGS = NUMBERS["rip"], NUMBERS["rsp"], NUMBERS["eflags"]
SWBREAK = b"qSupported:swbreak+;hwbreak+"


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record("01", ram="4M")
    with recorded.kernel:
        yield recorded


@pytest.fixture(scope="module")
def main_at(timeline: Timeline[Kernel]) -> int:
    timeline.goto(timeline.start)
    found = timeline.run_to("main")
    assert found is not None
    return found.instruction


@pytest.fixture(scope="module")
def served(timeline: Timeline[Kernel], main_at: int) -> Iterator[tuple[GdbServer, Stub]]:
    with GdbServer() as server:
        yield server, Stub(timeline, Monitor(timeline))


@pytest.fixture
def client(served: tuple[GdbServer, Stub], timeline: Timeline[Kernel], main_at: int) -> Iterator[Client]:
    timeline.goto(main_at)
    with connected(*served) as connection:
        yield connection


# -- frames -----------------------------------------------------------------------------------------------------
def test_a_frame_is_a_checksum_behind_escaped_data() -> None:
    assert frame(b"OK") == b"$OK#9a"
    assert frame(b"#$}*") == b"$}\x03}\x04}]}\x0a#%02x" % (sum(b"}\x03}\x04}]}\x0a") % 256)


@given(st.binary(max_size=300))
def test_every_text_comes_through_a_frame_as_it_was(data: bytes) -> None:
    assert unescape(escape(data)) == data
    assert list(PacketReader().feed(b"noise" + frame(data) + b"more")) == [Packet(data)]


@given(st.lists(st.binary(max_size=30), max_size=5), st.integers(1, 7))
def test_it_does_not_matter_how_the_bytes_are_cut(texts: list[bytes], size: int) -> None:
    stream = b"+".join(map(frame, texts)) + b"\x03-"
    reader = PacketReader()
    found = [item for at in range(0, len(stream), size) for item in reader.feed(stream[at : at + size])]
    assert found == list(PacketReader().feed(stream))
    assert [item.data for item in found if isinstance(item, Packet)] == texts
    assert found[-2:] == [Signal.INTERRUPT, Signal.NAK]


@pytest.mark.parametrize(("stream", "reason"), [
    (b"$g#00", "a wrong checksum"),
    (b"$g#zz", "a checksum that is no number"),
    (b"$g#+7", "a checksum that is no number"),
    (b"$g}#%02x" % (sum(b"g}") % 256), "an escape with nothing behind it"),
    (b"$" + b"g" * (PACKET_SIZE + 1) + b"#67", f"a packet of more than {PACKET_SIZE:,} bytes"),
])
def test_a_packet_that_cannot_be_used_says_why(stream: bytes, reason: str) -> None:
    assert list(PacketReader().feed(stream)) == [Packet(b"", reason)]


def test_a_packet_that_is_cut_off_gives_way_to_the_next_one() -> None:
    assert list(PacketReader().feed(b"$m1234" + packet(b"g"))) == [Packet(b"g")]


# -- acknowledgements -------------------------------------------------------------------------------------------
def test_a_good_packet_is_acknowledged_and_a_bad_one_is_asked_for_again(client: Client) -> None:
    client.send(b"$?#00")
    assert client.settle() == b"-"
    client.send(packet(b"qC"))
    assert client.settle() == b"+$QC01#f5"
    client.send(b"-")
    assert client.settle() == b"$QC01#f5"
    client.send(b"+")
    assert client.settle() == b""


def test_the_same_answer_is_sent_again_three_times_and_no_more(client: Client) -> None:
    client.ask(b"qC")
    client.send(b"-" * 100_000)
    assert client.settle() == b"$QC01#f5" * 3


def test_without_acknowledgements_a_bad_packet_gets_an_error(client: Client) -> None:
    assert client.ask(b"QStartNoAckMode") == b"OK"
    client.send(packet(b"qC"))
    assert client.settle() == b"$QC01#f5"
    client.send(b"$qC#00")
    assert client.settle() == b"$E01#a6"


# -- what it can do ---------------------------------------------------------------------------------------------
def test_gdb_is_told_of_reverse_execution_and_of_ordinary_things(client: Client) -> None:
    answer = client.ask(b"qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386").split(b";")
    assert set(answer) == {b"PacketSize=%x" % PACKET_SIZE, b"QStartNoAckMode+", b"qXfer:features:read+", b"swbreak+",
                           b"hwbreak+", b"vContSupported+", b"ReverseStep+", b"ReverseContinue+"}
    assert client.ask(b"vCont?") == b"vCont;c;C;s;S;r"


@pytest.mark.parametrize(("asked", "answer"), [
    (b"vMustReplyEmpty", b""), (b"qNoSuchThing", b""), (b"QNonStop:1", b""), (b"vFile:open:61,0,0", b""), (b"", b""),
    (b"\xff\xfe", b""), (b"bx", b""), (b"vContc", b""), (b"qOffsets", b""), (b"qTStatus", b""), (b"i", b""),
    (b"qXfer:auxv:read::0,10", b""),
    (b"qC", b"QC01"), (b"qAttached", b"1"), (b"qAttached:1", b"1"), (b"qfThreadInfo", b"m01"), (b"qsThreadInfo", b"l"),
    (b"qThreadExtraInfo,1", b"CPU#0 [running]".hex().encode()), (b"qSymbol::", b"OK"), (b"T1", b"OK"), (b"T2", b"E01"),
    (b"Hg0", b"OK"), (b"Hc-1", b"OK"), (b"Hg7", b"E01"), (b"Hx1", b"E22"), (b"Hg", b"E22"), (b"!", b"OK"),
    (b"qqemu.sstepbits", b"ENABLE=1,NOIRQ=2,NOTIMER=4"), (b"qqemu.sstep", b"0x7"), (b"vKill;1", b"OK"), (b"D", b"OK"),
])
def test_each_of_these_is_answered_as_the_manual_has_it(client: Client, asked: bytes, answer: bytes) -> None:
    assert client.ask(asked) == answer


@pytest.mark.parametrize("asked", [
    b"m", b"m,", b"mxyz,4", b"m1234", b"m12345678901234567,1", b"m1000,", b"m-1,4", b"p", b"pzz", b"p-1", b"Z0",
    b"Z0,1", b"Z5,1000,1", b"Z0,zz,1", b"z9,0,0", b"M1000,4", b"X1000", b"vCont", b"vCont;", b"vCont;x", b"vCont;r1",
    b"vCont;r5,", b"H", b"T", b"Tx", b"qRcmd,zz", b"qRcmd,616", b"qXfer:features:read:target.xml:x,y", b"cxyz",
    b"qXfer:features:read:target.xml:0", b"Qqemu.sstep=z", b"Qqemu.PhyMemMode:",
])
def test_what_is_malformed_gets_an_error_and_the_server_goes_on(client: Client, asked: bytes) -> None:
    assert client.ask(asked) == b"E22"
    assert client.ask(b"qC") == b"QC01"


# -- registers --------------------------------------------------------------------------------------------------
def described(xml: bytes | str) -> list[tuple[str, int]]:
    registers = ElementTree.fromstring(xml).iter("reg")
    return [(register.attrib["name"], int(register.attrib["bitsize"])) for register in registers]


def test_the_description_comes_in_pieces_and_lists_every_register_once(client: Client) -> None:
    xml, answer = b"", b"m"
    while answer[:1] == b"m":
        answer = client.ask(b"qXfer:features:read:target.xml:%x,100" % len(xml))
        xml += answer[1:]
    assert answer[:1] == b"l" and xml.decode() == target_xml()
    assert described(xml) == [(register.name, register.bits) for register in REGISTERS]
    assert b"<architecture>i386:x86-64</architecture>" in xml
    assert client.ask(b"qXfer:features:read:target.xml:fffff,100") == b"l"
    assert client.ask(b"qXfer:features:read:other.xml:0,100") == b"E00"


def test_all_registers_are_those_of_the_machine(client: Client, timeline: Timeline[Kernel]) -> None:
    cpu = timeline.kernel.machine.cpu
    whole = client.ask(b"g").decode()
    assert len(whole) == 2 * sum(register.size for register in REGISTERS)
    at, known = 0, {}
    for register in REGISTERS:
        text, at = whole[at : at + 2 * register.size], at + 2 * register.size
        assert client.ask(b"p%x" % NUMBERS[register.name]).decode() == text
        known[register.name] = None if "x" in text else int.from_bytes(bytes.fromhex(text), "little")
    for name in ("rax", "rdi", "rsp", "r15", "rip", "cs", "ss", "gs", "fs_base", "gs_base", "k_gs_base", "cr0", "cr2",
                 "cr3", "cr4", "efer"):
        assert known[name] == cpu[name], name
    assert known["eflags"] == cpu["rflags"] and known["cr8"] == 0
    assert {name for name, value in known.items() if value is None} == \
        {*(f"st{n}" for n in range(8)), *(f"xmm{n}" for n in range(16)), "mxcsr", "fctrl", "fstat", "ftag", "fiseg",
         "fioff", "foseg", "fooff", "fop"}
    assert client.ask(b"p%x" % len(REGISTERS)) == b"E01"


@pytest.mark.skipif(shutil.which(QEMU) is None, reason="QEMU is not installed")
def test_names_order_and_sizes_are_those_of_qemu() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    qemu = subprocess.Popen([QEMU, "-S", "-display", "none", "-nodefaults", "-gdb", f"tcp:127.0.0.1:{port}"])
    try:
        xml = b""
        with connection(port) as wire:
            while True:
                wire.sendall(b"+" + packet(b"qXfer:features:read:i386-64bit.xml:%x,7f0" % len(xml)))
                answer = b""
                while not re.search(rb"\$[^#]*#..", answer, re.DOTALL):
                    answer += wire.recv(4096)
                body = answer[answer.index(b"$") + 1 : answer.rindex(b"#")]
                xml += re.sub(rb"\}(.)", lambda escaped: bytes((escaped[1][0] ^ 0x20,)), body[1:], flags=re.DOTALL)
                if body[:1] == b"l":
                    break
    finally:
        qemu.kill()
        qemu.wait()
    assert [(register.name, register.bits) for register in REGISTERS] == described(xml)


def connection(port: int) -> socket.socket:
    end = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


# -- memory -----------------------------------------------------------------------------------------------------
def test_memory_is_read_by_virtual_address_up_to_where_nothing_is_mapped(client: Client,
                                                                         timeline: Timeline[Kernel]) -> None:
    memory, top = timeline.kernel.memory, client.register(RSP) + 8
    kmalloc = timeline.kernel.symbols["kmalloc"]
    assert bytes.fromhex(client.ask(b"m%x,40" % kmalloc).decode()) == memory.read(kmalloc, 64)
    assert bytes.fromhex(client.ask(b"m%x,100" % (top - 16)).decode()) == memory.read(top - 16, 16)
    for address in (0, 0x1234, top, 0x8000_0000_0000, (1 << 64) - 4):
        assert client.ask(b"m%x,8" % address) == b"E14"
    assert client.ask(b"m%x,0" % kmalloc) == b""
    huge = client.ask(b"m%x,ffffffffffffffff" % kmalloc)
    assert 0 < len(huge) <= PACKET_SIZE and bytes.fromhex(huge.decode()) == memory.read(kmalloc, len(huge) // 2)


def test_physical_memory_is_read_in_qemus_mode_for_it(client: Client, timeline: Timeline[Kernel]) -> None:
    virtual = timeline.kernel.symbols["kmalloc"]
    physical = timeline.kernel.memory.translate(virtual)
    assert client.ask(b"qqemu.PhyMemMode") == b"0"
    assert client.ask(b"Qqemu.PhyMemMode:1") == b"OK"
    assert client.ask(b"m%x,10" % physical) == timeline.kernel.memory.read(virtual, 16).hex().encode()
    assert client.ask(b"m%x,10" % virtual) == b"E14"


def test_the_past_is_not_written_and_nobody_is_told_otherwise(client: Client, timeline: Timeline[Kernel]) -> None:
    rsp = client.register(RSP)
    before = zlib.crc32(timeline.kernel.machine.memory.array().data)
    for order in (b"P0=0000000000000000", b"G" + b"00" * 600, b"M%x,1:ff" % rsp, b"X%x,1:z" % rsp):
        assert client.ask(order).startswith(b"E.this is a recorded run")
    assert client.ask(b"X%x,0:" % rsp) == b"OK"
    assert client.ask(b"M1234,1:ff") == b"E14"
    assert zlib.crc32(timeline.kernel.machine.memory.array().data) == before and not timeline.diverted
    _, text = client.stop(b"s")
    assert text.count(f"0x{rsp:x} was not written: this is a recorded run") == 2


# -- moving -----------------------------------------------------------------------------------------------------
def test_a_stop_reply_names_thread_and_registers(client: Client, timeline: Timeline[Kernel]) -> None:
    rip = client.register(RIP)
    assert client.ask(b"?") == b"T0506:%s;07:%s;10:%s;thread:01;" % tuple(
        timeline.kernel.registers[name].to_bytes(8, "little").hex().encode() for name in ("rbp", "rsp", "rip"))
    stepped, _ = client.stop(b"s")
    assert stepped.startswith(b"T05") and b"10:%s;" % (rip + 1).to_bytes(8, "little").hex().encode() in stepped


@pytest.mark.parametrize("step", [b"s", b"vCont;s", b"vCont;s:1;c", b"vCont;S05:1", b"S05"])
def test_a_step_is_one_instruction_and_bs_takes_it_back(client: Client, timeline: Timeline[Kernel], step: bytes
                                                        ) -> None:
    before = timeline.position
    assert client.ask(step).startswith(b"T05")
    assert timeline.position == before + 1
    assert client.ask(b"bs").startswith(b"T05")
    assert timeline.position == before


@pytest.mark.parametrize("go", [b"vCont;c:99", b"vCont;s:2", b"vCont;s:1;c:99", b"vCont;r1000,2000:3"])
def test_a_thread_that_is_not_there_does_not_go_on(client: Client, timeline: Timeline[Kernel], go: bytes) -> None:
    before = timeline.position
    assert client.ask(go) == b"E01" and timeline.position == before


@pytest.mark.parametrize("go", [b"c", b"C05", b"vCont;c", b"vCont;c:1", b"vCont;C05:1;c"])
@pytest.mark.parametrize(("kind", "reason"), [(b"0", b"swbreak"), (b"1", b"hwbreak")])
def test_breakpoints_stop_in_both_directions(client: Client, timeline: Timeline[Kernel], go: bytes, kind: bytes,
                                             reason: bytes) -> None:
    client.ask(SWBREAK)
    kfree = timeline.kernel.symbols["kfree"]
    times = [event.entered for event in timeline.trace.events(function="kfree")]
    assert client.ask(b"Z%b,%x,1" % (kind, kfree)) == b"OK"
    assert client.stop(go)[0].endswith(b"thread:01;%b:;" % reason)
    assert (timeline.position, client.register(RIP)) == (times[0], kfree)
    assert client.stop(go)[0].endswith(b"replaylog:end;")
    assert timeline.position == timeline.length
    assert client.stop(b"bc")[0].endswith(b"thread:01;%b:;" % reason)
    assert timeline.position == times[-1]
    assert client.ask(b"z%b,%x,1" % (kind, kfree)) == b"OK"
    assert client.stop(b"bc")[0].endswith(b"replaylog:begin;")
    assert timeline.position == timeline.start


def test_a_reason_that_gdb_does_not_know_is_not_told(client: Client, timeline: Timeline[Kernel]) -> None:
    client.ask(b"qSupported:hwbreak+")
    client.ask(b"Z0,%x,1" % timeline.kernel.symbols["kfree"])
    assert client.stop(b"c")[0].endswith(b"thread:01;")


def test_at_both_ends_of_history_nothing_goes_further(client: Client, timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.start)
    assert client.ask(b"bs").endswith(b"replaylog:begin;")
    assert client.ask(b"bc").endswith(b"replaylog:begin;")
    timeline.goto(timeline.length)
    assert client.stop(b"s")[0].endswith(b"replaylog:end;")
    assert client.stop(b"c")[0].endswith(b"replaylog:end;")


def test_how_the_run_ended_is_told_once_and_the_guests_lines_when_they_are_passed(timeline: Timeline[Kernel],
                                                                                 main_at: int) -> None:
    stub = Stub(timeline, Monitor(timeline))
    timeline.goto(main_at)
    with GdbServer() as server, connected(server, stub) as client:
        _, text = client.stop(b"c")
        assert timeline.result is not None
        assert text == f'asked for 40 bytes, got {text.split()[5]} with room for 64\nit holds "hello, slab"\n' \
                       f"{timeline.result.sentence}\n"
        assert client.stop(b"c")[1] == ""


@pytest.mark.parametrize(("kind", "reason"), [(2, b"watch"), (3, b"rwatch"), (4, b"awatch")])
def test_watchpoints_stop_behind_the_access_forwards_and_before_it_backwards(client: Client, timeline: Timeline[Kernel],
                                                                             kind: int, reason: bytes) -> None:
    address = int(timeline.kernel.symbols["mem_map"])            # written at boot, read by every kfree
    if kind == 2:
        timeline.goto(timeline.start)
    client.ask(b"Z%x,%x,8" % (kind, address))
    stopped, _ = client.stop(b"c")
    oracle = (timeline.who_wrote if kind == 2 else timeline.who_read)(address, 8)
    assert oracle is not None and stopped.endswith(b"%b:%x;" % (reason, address))
    assert timeline.position == oracle.instruction + 1
    stopped, _ = client.stop(b"bc")
    assert stopped.endswith(b"%b:%x;" % (reason, address)) and timeline.position == oracle.instruction
    stopped, _ = client.stop(b"c")                               # it stands before it, and meets it again
    assert stopped.endswith(b"%b:%x;" % (reason, address)) and timeline.position == oracle.instruction + 1
    client.stop(b"bc")
    stopped, _ = client.stop(b"s")
    assert stopped.endswith(b"%b:%x;" % (reason, address)) and timeline.position == oracle.instruction + 1
    stopped, _ = client.stop(b"bs")
    assert stopped.endswith(b"%b:%x;" % (reason, address)) and timeline.position == oracle.instruction


def test_a_watchpoint_may_wait_for_memory_that_is_not_mapped(client: Client, timeline: Timeline[Kernel]) -> None:
    assert client.ask(b"Z2,ffffd00012345000,8") == b"OK"
    assert client.stop(b"c")[0].endswith(b"replaylog:end;")


def test_a_range_is_stepped_through_at_once(client: Client, timeline: Timeline[Kernel]) -> None:
    rip, before = client.register(RIP), timeline.position
    stopped, _ = client.stop(b"vCont;r%x,%x:1" % (rip, rip + 6))
    assert stopped.endswith(b"thread:01;")
    assert client.register(RIP) >= rip + 6 and before + 2 <= timeline.position <= before + 4


def test_too_many_breakpoints_and_too_large_watchpoints_are_errors(client: Client) -> None:
    assert client.ask(b"Z2,1000,%x" % (LARGEST + 1)) == b"E01"
    assert client.ask(b"Z2,fffffffffffffff0,20") == b"E01"
    assert client.ask(b"Z2,1000,0") == b"E01"
    client.ask(b"QStartNoAckMode")
    for number in range(MOST):
        client.send(packet(b"Z0,%x,1" % number))
    client.settle()
    assert client.ask(b"Z0,ffffff,1") == b"E01"


def test_ctrl_c_stops_a_motion_between_two_pieces(client: Client, timeline: Timeline[Kernel],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.debugger.gdb.motion.PIECE", 100)
    before = timeline.position
    client.send(packet(b"c"))
    for _ in range(3):
        client.turn()
    client.send(b"\x03")
    assert client.reply().startswith(b"T02")
    assert before < timeline.position < timeline.length
    assert client.ask(b"qC") == b"QC01"


def test_ctrl_c_while_nothing_runs_waits_for_the_next_motion(client: Client, timeline: Timeline[Kernel]) -> None:
    before = timeline.position
    client.send(b"\x03")
    assert client.settle() == b""
    assert client.ask(b"c").startswith(b"T02") and timeline.position == before
    assert client.stop(b"c")[0].endswith(b"replaylog:end;")


@pytest.mark.parametrize("over", [-2, -1, 0, 1, 2])
def test_nothing_is_lost_where_two_pieces_meet(client: Client, timeline: Timeline[Kernel], main_at: int, over: int,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    kfree = timeline.kernel.symbols["kfree"]
    freed = timeline.trace.events(function="kfree")[-1].entered
    client.ask(b"Z0,%x,1" % kfree)
    monkeypatch.setattr("sandbox.debugger.gdb.motion.PIECE", freed - main_at + over)
    client.stop(b"c")
    assert timeline.position == freed
    timeline.goto(timeline.length)
    monkeypatch.setattr("sandbox.debugger.gdb.motion.PIECE", timeline.length - freed + over)
    client.stop(b"bc")
    assert timeline.position == freed


def test_in_small_pieces_the_same_is_found(client: Client, timeline: Timeline[Kernel], main_at: int,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    address = int(timeline.kernel.symbols["kfree"])
    rsp = client.register(RSP)
    client.ask(b"Z0,%x,1" % address)
    client.ask(b"Z4,%x,8" % (rsp - 0x40))

    def stops() -> list[int]:
        timeline.goto(main_at)
        found = []
        for order in (*[b"c"] * 7, *[b"bc"] * 7):
            client.stop(order)
            found.append(timeline.position)
        return found

    whole = stops()
    monkeypatch.setattr("sandbox.debugger.gdb.motion.PIECE", 499)
    assert stops() == whole and len(set(whole)) > 7


# -- connections ------------------------------------------------------------------------------------------------
def test_a_second_client_is_told_why_it_is_turned_away_and_the_first_one_served(served: tuple[GdbServer, Stub],
                                                                                client: Client) -> None:
    sentence = b"+" + packet(b"E.another debugger is attached to this run")
    with connected(*served) as second:
        second.send(packet(b"qC"))
        assert second.settle() == sentence and second.closed
    assert client.ask(b"qC") == b"QC01"
    with contextlib.ExitStack() as stack:
        for _ in range(12):                      # those that do not hang up are not kept for ever
            other = stack.enter_context(socket.create_connection((served[0].host, served[0].port), timeout=5))
            client.settle()
            other.sendall(packet(b"?"))          # before it reads: nothing is reset
            client.settle()
            assert other.recv(1 << 10) == sentence and other.recv(1 << 10) == b""
        assert client.ask(b"qC") == b"QC01"


def test_a_new_connection_finds_the_position_and_no_breakpoints(served: tuple[GdbServer, Stub],
                                                                timeline: Timeline[Kernel], main_at: int) -> None:
    timeline.goto(main_at)
    with connected(*served) as first:
        first.ask(b"QStartNoAckMode")
        first.ask(b"Z0,%x,1" % timeline.kernel.symbols["kfree"])
        first.stop(b"s")
    with connected(*served) as second:
        second.send(packet(b"qC"))
        assert second.settle().startswith(b"+")
        assert timeline.position == main_at + 1
        assert second.stop(b"c")[0].endswith(b"replaylog:end;")


def test_a_connection_that_drops_in_the_middle_of_a_motion_can_be_made_again(served: tuple[GdbServer, Stub],
                                                                             timeline: Timeline[Kernel], main_at: int,
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.debugger.gdb.motion.PIECE", 100)
    timeline.goto(main_at)
    server, _ = served
    with connected(*served) as first:
        first.send(packet(b"c"))
    assert not server.connected and timeline.position < timeline.length
    with connected(*served) as second:
        assert second.ask(b"?").startswith(b"T05")


def test_k_ends_the_connection_and_not_the_server(served: tuple[GdbServer, Stub]) -> None:
    with connected(*served) as client:
        client.send(packet(b"k"))
        client.settle()
        assert client.closed
    with connected(*served) as client:
        assert client.ask(b"qC") == b"QC01"


def test_run_goes_back_to_where_the_session_began(client: Client, timeline: Timeline[Kernel], main_at: int) -> None:
    client.ask(b"!")
    client.stop(b"c")
    assert client.ask(b"vKill;1") == b"OK"
    assert client.ask(b"vRun;").startswith(b"T05")
    assert timeline.position == main_at
    client.stop(b"s")
    client.send(packet(b"R00"))
    assert client.settle() == b"+" and timeline.position == main_at


def test_a_client_that_does_not_read_hangs_alone(served: tuple[GdbServer, Stub]) -> None:
    server, stub = served
    with connected(server, stub) as client:
        client.ask(b"QStartNoAckMode")
        wanted = packet(b"g") * (1 << 18)
        sent, progress = 0, [-1]
        while sent > progress[-1]:                               # until it is not read any more
            progress.append(sent)
            for _ in range(20):
                with contextlib.suppress(BlockingIOError):
                    sent += client.socket.send(wanted)
                server.turn(stub, 0)
        assert sent < 64 << 20
        start = time.monotonic()
        server.turn(stub, 0)
        assert time.monotonic() - start < 1
    with connected(*served) as other:
        assert other.ask(b"qC") == b"QC01"


def test_a_port_in_use_and_an_address_of_others_are_one_sentence(served: tuple[GdbServer, Stub]) -> None:
    server, _ = served
    with pytest.raises(UsageError, match=f"^cannot listen on port {server.port} of 127.0.0.1: Address already in use$"):
        GdbServer(port=server.port)
    with pytest.raises(UsageError, match=r"^192\.0\.2\.1|^cannot listen on port \d+ of 192.0.2.1"):
        GdbServer("192.0.2.1", 0)
    with pytest.raises(UsageError, match="is no address of this computer"):
        GdbServer("no-such-host.invalid", 0)
    with pytest.raises(UsageError, match="from 0 to 65535"):
        GdbServer(port=70_000)


# -- monitor ----------------------------------------------------------------------------------------------------
def test_monitor_commands_answer_at_the_present_moment(client: Client, timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.length)
    pointer = next(event.address for event in timeline.trace if event.function == "kmalloc")
    assert client.monitor(f"whatis {pointer:#x}") == f"{timeline.kernel.whatis(pointer)}\n"
    assert client.monitor("slabs") == client.monitor("kmastat")
    assert "kmalloc-64" in client.monitor("slabs")
    assert client.monitor("validate") == client.monitor("kmem_verify") == "heap: sound\n"
    assert client.monitor("findleaks") == "no leaks\n"
    assert client.monitor("walk kmalloc") == \
        f"{timeline.kernel.machine.paging.explain(timeline.kernel.symbols['kmalloc'])}\n"
    history = client.monitor(f"history {pointer:#x}")
    assert "1 life" in history and all(f"@{event.entered:,} {event.function}" in history
                                       for event in timeline.trace if event.address == pointer)
    found = timeline.who_wrote(pointer, 8)
    assert str(found) in client.monitor(f"who-wrote {pointer:#x} 8")
    assert client.monitor("trace 1").split()[2].startswith("kfree(")
    assert client.monitor("when").startswith(f"@{timeline.length:,} of {timeline.length:,}")
    assert client.monitor("help").startswith("goto MOMENT")


@pytest.mark.parametrize(("command", "sentence"), [
    ("goto 99999999999", "instruction 99,999,999,999 is outside the run"),
    ("nonsense", "no command is called 'nonsense'"),
    ("whatis no_such_label", "no symbol is called 'no_such_label'"), ("who-wrote 0x1234", "does not translate"),
    ("goto", "which instruction?"), ("whatis \xff", ""), ("slabs no-such-cache", "no cache is called"),
])
def test_a_monitor_command_that_is_wrong_is_one_sentence(client: Client, command: str, sentence: str) -> None:
    answer = client.monitor(command)
    assert answer.count("\n") == 1 and sentence in answer and "defect" not in answer


def test_monitor_goto_says_how_gdb_sees_it(client: Client, timeline: Timeline[Kernel]) -> None:
    first = timeline.trace[0]
    assert "maintenance flush register-cache" in client.monitor("goto #0")
    assert timeline.position == first.entered
    client.monitor("hints off")
    assert "maintenance" not in client.monitor("goto end")


# -- hostility --------------------------------------------------------------------------------------------------
def test_ten_megabytes_of_noise_are_passed_over(client: Client) -> None:
    noise = bytes(range(256)).replace(b"$", b"") * (10 * (1 << 20) // 255)
    start = time.monotonic()
    client.send(noise)
    client.send(b"$" + noise[: 1 << 20].replace(b"#", b"") + b"#00")
    client.settle()
    assert client.ask(b"qC") == b"QC01"
    assert time.monotonic() - start < 10


LETTERS = st.sampled_from([*(bytes((letter,)) for letter in b"?!gGpPmMXZzHTRDqQvbiyA"), b"vCont;r", b"qRcmd,", b"vRun",
                           b"qXfer:features:read:", b"qSupported:", b"Qqemu.", b"qqemu."])
REST = st.one_of(st.binary(max_size=40), st.text("0123456789abcdef,:;=-", max_size=40).map(str.encode))
HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda letter, rest: frame(letter + rest), LETTERS, REST),
    st.builds(lambda letter, rest, end: b"$" + letter + rest + b"#" + end, LETTERS, REST, st.binary(max_size=3)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(HOSTILE, max_size=6))
def test_whatever_is_sent_a_valid_session_works_afterwards(served: tuple[GdbServer, Stub], timeline: Timeline[Kernel],
                                                           pieces: list[bytes]) -> None:
    with connected(*served) as hostile:
        for piece in pieces:
            hostile.send(piece)
        answers = hostile.settle(5)
        assert b"defect" not in answers
        if not hostile.closed:
            hostile.send(b"\x03+" + packet(b"qC"))
            assert b"$QC01#f5" in hostile.settle(5)
    with connected(*served) as good:
        assert good.ask(b"?").startswith(b"T05")
        assert timeline.start <= timeline.position <= timeline.length
