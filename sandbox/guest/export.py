"""The same kernel for QEMU: the RAM that the loader made, as a file that ``qemu-system-x86_64 -kernel`` boots."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..abi import DEBUG_EXIT_PORT, LOADER_PHYS
from ..errors import ExportError
from ..machine.memory import PhysicalMemory
from ..toolchain.image import Image
from .boot import load
from .options import BootOptions, format_size

QEMU = "qemu-system-x86_64"


@dataclass(frozen=True)
class QemuResult:
    """How a run in QEMU ended: the serial text, and QEMU's exit status (2 * debug exit value + 1; 0: a reset)."""

    console: str
    status: int


def export(kernel: Image, program: Image | None, options: BootOptions, modules: Image | None = None) -> bytes:
    """A multiboot 1 image: physical memory from LOADER_PHYS up to the end of what the loader placed."""
    memory = PhysicalMemory(options.ram_size)
    loaded = load(memory, kernel, program, options, modules=modules)
    return memory.read(LOADER_PHYS, loaded.end - LOADER_PHYS)


def qemu_command(image: Path | str, options: BootOptions) -> list[str]:
    """The command that boots the image in ``image`` with serial port and exit device as the kernel expects them."""
    return [
        QEMU, "-kernel", str(image), "-m", format_size(options.ram_size), "-display", "none", "-serial", "stdio",
        "-device", f"isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=0x04", "-no-reboot",
    ]


def run_qemu(image: bytes, options: BootOptions, *, timeout: float = 60.0) -> QemuResult:
    """Boot an image that :func:`export` made, and wait until the guest leaves.

    ``ExportError`` when QEMU is not installed, does not start, or does not end within ``timeout`` seconds.
    """
    if shutil.which(QEMU) is None:
        raise ExportError(f"{QEMU} is not installed (Debian: apt install qemu-system-x86)")
    with tempfile.TemporaryDirectory(prefix="sandbox-") as directory:
        path = Path(directory) / "kernel.multiboot"
        path.write_bytes(image)
        try:
            done = subprocess.run(qemu_command(path, options), stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            console = (error.stdout or b"").decode("latin-1")
            said = f"its last words were {console[-200:]!r}" if console else "it printed nothing"
            raise ExportError(f"the guest did not end within {timeout:g} seconds in QEMU; {said}") from None
        except OSError as error:
            raise ExportError(f"{QEMU} cannot be started: {error.strerror}") from None
    complaint = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode < 0 or (done.returncode == 1 and complaint):
        raise ExportError(f"{QEMU} failed with status {done.returncode}: {complaint or 'it said nothing'}")
    return QemuResult(done.stdout.decode("latin-1"), done.returncode)
