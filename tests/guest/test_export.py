"""The image for QEMU; and, where QEMU is installed, that both machines print the same."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import abi
from sandbox.errors import ExportError
from sandbox.guest.boot import load
from sandbox.guest.export import QEMU, export, qemu_command, run_qemu
from sandbox.guest.options import BootOptions
from sandbox.machine.machine import Machine
from sandbox.machine.memory import PhysicalMemory
from sandbox.toolchain.image import Image

SELFTEST = Path(__file__).parents[2] / "kernel_asm" / "selftest.asm"
Build = Callable[["str | Path"], Image]
needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")

HELLO = """
.text
main:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + text]
    mov rsi, rsp
    call kprintf
    mov eax, 0
    pop rbp
    ret
.rodata
text: .asciz "the stack is at %p\\n"
"""
UNINITIALISED = """
.text
main:                                   # add up all free pages below 1 MiB and in the last 2 MiB, before they are used
    push rbp
    mov rbp, rsp
    xor eax, eax
    mov rsi, DIRECT_MAP + 0x1000
    mov ecx, (HOLE_START - 0x1000) / 8
    call add_up
    mov rsi, DIRECT_MAP + 0xe00000
    mov ecx, 0x200000 / 8
    call add_up
    lea rdi, [rip + text]
    mov rsi, rax
    call kprintf
    xor eax, eax
    pop rbp
    ret
add_up:
    add rax, [rsi]
    add rsi, 8
    dec ecx
    jnz add_up
    ret
.rodata
text: .asciz "%lx\\n"
"""


def test_the_image_is_the_ram_that_the_loader_made(kernel_image: Image, build: Build) -> None:
    options = BootOptions("8M")
    program = build(HELLO)
    memory = PhysicalMemory(options.ram_size)
    end = load(memory, kernel_image, program, options).end
    assert export(kernel_image, program, options) == memory.read(abi.LOADER_PHYS, end - abi.LOADER_PHYS)


def test_the_header_is_a_multiboot_header_with_addresses(kernel_image: Image) -> None:
    """Multiboot Specification 0.6.96, section 3.1."""
    image = export(kernel_image, None, BootOptions())
    magic, flags, checksum, header, load_start, load_end, bss_end, entry = struct.unpack_from("<8I", image)
    assert (magic, flags) == (0x1BADB002, 1 << 16)
    assert (magic + flags + checksum) % (1 << 32) == 0
    assert header == load_start == abi.LOADER_PHYS
    assert load_end == bss_end == abi.LOADER_PHYS + len(image)
    assert load_start + struct.calcsize("<8I") <= entry < load_start + abi.PAGE_SIZE


def test_the_command_line_names_the_devices_that_the_kernel_uses() -> None:
    assert qemu_command("kernel.img", BootOptions("64M")) == [
        "qemu-system-x86_64", "-kernel", "kernel.img", "-m", "64M", "-display", "none", "-serial", "stdio",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-no-reboot"]


def test_a_machine_without_qemu_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="qemu-system-x86_64 is not installed"):
        run_qemu(b"", BootOptions())


def test_a_qemu_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / QEMU
    script.write_text("#!/bin/sh\necho 'no such machine' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ExportError, match="failed with status 1: no such machine"):
        run_qemu(b"", BootOptions())


@needs_qemu
def test_a_guest_that_hangs_is_stopped_with_its_last_words(kernel_image: Image, build: Build) -> None:
    program = build(HELLO.replace("    mov eax, 0", "hang:\n    jmp hang"))
    options = BootOptions()
    with pytest.raises(ExportError, match=r"did not end within 2 seconds in QEMU; its last words were 'the stack is"):
        run_qemu(export(kernel_image, program, options), options, timeout=2)


PROGRAMS = {
    "hello": HELLO,
    "memory that nobody wrote": UNINITIALISED,
    "failure": ".text\nmain:\n mov eax, 7\n ret\n",
    "page fault": ".text\nmain:\n xor eax, eax\n mov [rax], al\n",
    "stack overflow": ".text\nmain:\n call main\n",
    "jump to nowhere": ".text\nmain:\n mov eax, 0x123\n call rax\n",
    "double fault": ".text\nmain:\n xor esp, esp\n push rax\n",
    "panic": '.text\nmain:\n push rax\n lea rdi, [rip + text]\n call panic\n.rodata\ntext: .asciz "enough"\n',
    "callee-saved register": ".text\nmain:\n xor eax, eax\n mov r12, rax\n ret\n",
    "slabinfo": ".text\nmain:\n push rax\n call slabinfo\n xor eax, eax\n pop rcx\n ret\n",
    "selftest": SELFTEST,
}


@needs_qemu
@pytest.mark.parametrize("name", PROGRAMS)
def test_both_machines_print_the_same_and_end_the_same(kernel_image: Image, build: Build, name: str) -> None:
    program = build(PROGRAMS[name])
    options = BootOptions()
    with Machine(options.ram_size) as machine:
        start = load(machine.memory, kernel_image, program, options)
        machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
        stop = machine.run(100_000_000)
        ours = (machine.serial.text, stop.qemu_status)
    theirs = run_qemu(export(kernel_image, program, options), options)
    assert (theirs.console, theirs.status) == ours


@needs_qemu
@pytest.mark.parametrize("ram", ["4M", "5000K"])
def test_qemu_boots_small_and_odd_machines(kernel_image: Image, build: Build, ram: str) -> None:
    options = BootOptions(ram)
    result = run_qemu(export(kernel_image, build(HELLO), options), options)
    assert result.status == 33
    assert result.console.startswith("the stack is at 0xffffc9000000")
