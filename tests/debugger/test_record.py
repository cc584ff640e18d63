"""Records: a run that was saved opens as the same run, and nothing else opens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox import Kernel, RecordError
from sandbox.debugger import record as files
from sandbox.debugger.timeline import Timeline
from sandbox.toolchain import packaged

from .programs import busy


def same(left: Timeline[Kernel], right: Timeline[Kernel]) -> None:
    """Both stand at the same moment of the same run."""
    assert (left.start, left.length, left.position) == (right.start, right.length, right.position)
    assert left.kernel.machine.memory.image() == right.kernel.machine.memory.image()
    assert left.kernel.machine.cpu.save_values() == right.kernel.machine.cpu.save_values()
    assert left.kernel.console == right.kernel.console
    assert str(left.kernel.failure) == str(right.kernel.failure) and str(left.result) == str(right.result)


def test_a_program_with_interrupts_and_faults_opens_as_the_same_run(tmp_path: Path) -> None:
    timeline = sandbox.record(busy(300), ram="4M", hz=1000)
    timeline.goto(110_000)
    timeline.save(tmp_path / "busy.rec")
    assert timeline.position == 110_000
    opened = sandbox.open_record(tmp_path / "busy.rec")
    same(timeline, opened)
    for position in (opened.length, 60_000, 0):
        timeline.goto(position)
        opened.goto(position)
        same(timeline, opened)
    assert opened.trace.events() == timeline.trace.events() and opened.notes == ()
    assert (tmp_path / "busy.rec").stat().st_size < 200_000, "inputs alone, not the past"


def test_everything_that_python_did_is_in_it(tmp_path: Path) -> None:
    with sandbox.boot(ram="4M", slab_debug="U,kmalloc-64", seed=5, freelist_random=True) as kernel:
        timeline = sandbox.record(kernel)
        pointer = kernel.call("kmalloc", 64)
        kernel.memory.write(pointer, b"bytes from outside")
        kernel.physical.write(0x3000, b"low")
        kernel.registers["rbx"] = 5
        kernel.interrupt_at(kernel.instructions + 30, 0)
        kernel.receive(b"typed\n")
        kernel.inject("cache=kmalloc-128:2")
        assert [bool(kernel.call("kmalloc", 128)) for _ in range(3)] == [True, False, True]
        kernel.snapshot()
        for _ in range(1500):                            # enough for checkpoints that the history takes by itself
            kernel.call("kfree", kernel.call("kmalloc", 700))
        kernel.call("kprintf", "%s %d\n", "text", 7)
        timeline.save(tmp_path / "calls.rec")
        same(timeline, sandbox.open_record(tmp_path / "calls.rec"))


@pytest.mark.parametrize("name", ["14", "15", "16", "18"])
def test_what_the_shadow_found_is_found_again_at_the_same_moment(name: str, tmp_path: Path) -> None:
    timeline = sandbox.record(name, shadow=True)
    with timeline.kernel:
        timeline.save(tmp_path / "shadow.rec")
        opened = sandbox.open_record(tmp_path / "shadow.rec")
        same(timeline, opened)
        assert type(opened.kernel.failure) is type(timeline.kernel.failure)


def test_a_failed_call_is_the_end_of_the_opened_run_too(tmp_path: Path) -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)
        kernel.call("kmalloc", 64)
        with pytest.raises(sandbox.GuestPanic):
            kernel.call("kfree", 1 << 50)
        timeline.save(tmp_path / "panic.rec")
        opened = sandbox.open_record(tmp_path / "panic.rec")
        same(timeline, opened)
        assert isinstance(opened.kernel.failure, sandbox.GuestPanic)
        opened.kernel.rewind()
        assert opened.kernel.call("kmalloc", 64)


def test_a_call_that_a_hook_broke_off_ends_where_it_did(tmp_path: Path) -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)

        def refuse(address: int) -> None:
            raise ValueError("enough")

        hook = kernel.machine.cpu.hook_code([int(kernel.symbols["slab_create"])], refuse)
        with pytest.raises(ValueError, match="enough"):
            kernel.call("kmalloc", 64)
        hook.remove()
        timeline.save(tmp_path / "hook.rec")
        opened = sandbox.open_record(tmp_path / "hook.rec")
        assert opened.length == timeline.length
        assert opened.moment.rip == kernel.symbols["slab_create"] == timeline.moment.rip


# -- what does not open ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "good.rec"
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)
        kernel.call("kmalloc", 64)
        timeline.save(path)
    return path


def changed(good: Path, change: Callable[[files.Record], files.Record]) -> Path:
    path = good.with_name("changed.rec")
    files.write(path, change(files.read(good)))
    return path


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda data: b"", "it is no record"),
    (lambda data: b"#!/bin/sh\n", "it is no record"),
    (lambda data: data.replace(b"record 1", b"record 9", 1), "it is a record of version 9, and this program reads 1"),
    (lambda data: data[:-1], "it is damaged"),
    (lambda data: data[:-1] + bytes((data[-1] ^ 1,)), "it is damaged"),
    (lambda data: data[:60], "it is damaged"),
])
def test_a_damaged_or_foreign_file_is_named_in_one_sentence(good: Path, spoil: Callable[[bytes], bytes],
                                                            sentence: str) -> None:
    path = good.with_name("bad.rec")
    path.write_bytes(spoil(good.read_bytes()))
    with pytest.raises(RecordError, match=sentence) as error:
        sandbox.open_record(path)
    assert error.value.path == path and "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No such file"):
        sandbox.open_record(tmp_path / "missing.rec")
    with pytest.raises(RecordError):
        sandbox.open_record(tmp_path)


def test_whole_but_senseless_contents_are_refused(good: Path) -> None:
    def packed(text: bytes) -> bytes:
        body = zlib.compress(text)
        return b"slab-sandbox record 1\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    path = good.with_name("senseless.rec")
    for text in (b"", b"[]", b"{}", b"7", b'{"end": -1}', b"\xff", b"[" * 100_000):
        path.write_bytes(packed(text))
        with pytest.raises(RecordError, match="no record that this program can read"):
            sandbox.open_record(path)


def test_a_record_that_does_not_lead_where_it_led_is_refused(good: Path) -> None:
    path = changed(good, lambda record: dataclasses.replace(record, checksum=record.checksum ^ 1))
    with pytest.raises(RecordError, match="does not lead where it led"):
        sandbox.open_record(path)
    path = changed(good, lambda record: dataclasses.replace(record, options={"boot": {"ram": "1K"}, "shadow": None,
                                                                             "console_limit": 100}))
    with pytest.raises(RecordError, match="cannot be booted: 1K of RAM is too small"):
        sandbox.open_record(path)


@pytest.mark.parametrize("spoil", [
    lambda data: data["options"].pop("console_limit"),
    lambda data: data["options"].update(shadow={"no": 1}),
    lambda data: data.pop("allocator"),
    lambda data: data.update(position=10**9),
    lambda data: data.update(kernel="{}"),
    lambda data: data["journal"]["entries"].append([10**9, "call", 2**70, [], 5]),
    lambda data: data["journal"]["entries"].append([10**9, "call", 5, [], 2**70]),
    lambda data: data["journal"]["entries"].append([10**9, "register", "rax", -1]),
    lambda data: data["journal"]["entries"].append([10**9, "register", "rax", True]),
    lambda data: data["journal"]["entries"].append([10**9, "register", "raxx", 1]),
    lambda data: data["journal"]["entries"].append([10**9, "write", 5, {"hex": "00"}, None]),
    lambda data: data["journal"]["entries"].append([10**9, "interrupt", 5, 16]),
    lambda data: data.update(failed=["run", 0]),
])
def test_what_makes_no_sense_is_refused_as_a_record(good: Path, spoil: Callable[[dict[str, Any]], object]) -> None:
    """Whole files with the right checksum, in which somebody has changed a thing."""
    data = json.loads(zlib.decompress(good.read_bytes().split(b"\n", 2)[2]))
    spoil(data)
    packed = zlib.compress(json.dumps(data).encode())
    path = good.with_name("spoiled.rec")
    path.write_bytes(b"slab-sandbox record 1\n" + hashlib.sha256(packed).hexdigest().encode() + b"\n" + packed)
    with pytest.raises(RecordError) as error:
        sandbox.open_record(path)
    assert error.value.path == path and "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["/", ".", "a\0b", "/nonexistent/x.rec", "/proc/x.rec"])
def test_a_place_that_cannot_be_written_is_named(path: str) -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)
        with pytest.raises(RecordError):
            timeline.save(path)
        assert timeline.position == timeline.length


def test_an_allocator_of_somebody_else_is_in_the_record(tmp_path: Path) -> None:
    with sandbox.boot(allocator=packaged.examples_directory() / "20_your_allocator.asm") as kernel:
        timeline = sandbox.record(kernel)
        pointer = kernel.allocator.allocate(100)
        kernel.memory.write(pointer, b"mine")
        kernel.allocator.deallocate(pointer)
        timeline.save(tmp_path / "mine.rec")
        with sandbox.open_record(tmp_path / "mine.rec") as opened:
            same(timeline, opened)
            assert opened.kernel.allocator.allocate(100) == pointer


def test_a_record_says_that_the_kernel_has_changed_and_runs_with_its_own(good: Path) -> None:
    def other(record: files.Record) -> files.Record:
        return dataclasses.replace(record, kernel=dataclasses.replace(
            record.kernel, source_hash="another", constants={**record.kernel.constants, "kmem_cache.partial": 1}))

    opened = sandbox.open_record(changed(good, other))
    assert opened.notes[0].startswith("the kernel has changed since this was recorded")
    assert "kmem_cache.partial" in opened.notes[1] and packaged.kernel_image().source_hash != "another"
    with opened.kernel:
        assert opened.length > opened.start


def test_only_records_look_like_records(good: Path, tmp_path: Path) -> None:
    assert files.is_record(good) and not files.is_record(tmp_path) and not files.is_record("01")
    assert not files.is_record(good.with_name("none.rec"))
