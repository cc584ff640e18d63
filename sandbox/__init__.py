"""A sandbox for kernel memory: a long-mode kernel and its slab allocator on an emulated x86-64 machine.

::

    import sandbox

    kernel = sandbox.boot()
    pointer = kernel.call("kmalloc", 64)
    kernel.heap.find(pointer).cache.name          # "kmalloc-64"

The names below are the public ones. What needs the emulator is imported when it is first asked for, so that
``import sandbox`` is quick and works where a native library is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .address import PhysAddr, VirtAddr
from .errors import (
    AssemblyError,
    CalleeSavedError,
    CompileError,
    CompilerMissing,
    CompileWarning,
    EngineCrashed,
    EngineError,
    EngineHung,
    EngineTooLarge,
    ExportError,
    GuestError,
    GuestFault,
    GuestLimit,
    GuestMemoryError,
    GuestNeedsRewind,
    GuestPanic,
    GuestStop,
    HeapCorruption,
    LinkError,
    PhysicalAddressError,
    PositionError,
    ProgramError,
    RecordError,
    SandboxError,
    ShadowError,
    SymbolNotFound,
    TranslationError,
    UsageError,
)

if TYPE_CHECKING:
    from .debugger.moment import Access, Moment
    from .debugger.timeline import Timeline
    from .isolated import IsolatedResult, run_isolated
    from .kernel import Kernel, boot
    from .recording import open_record, record
    from .slab_allocator import Slab, SlabAllocator, SlabBlock

__version__ = "0.1.0"

_HOMES = {
    "run_isolated": "isolated", "IsolatedResult": "isolated",
    "boot": "kernel", "Kernel": "kernel",
    "Timeline": "debugger.timeline", "Moment": "debugger.moment", "Access": "debugger.moment",
    "record": "recording", "open_record": "recording",
    "SlabAllocator": "slab_allocator", "Slab": "slab_allocator", "SlabBlock": "slab_allocator",
}

__all__ = [
    "Access",
    "AssemblyError",
    "CalleeSavedError",
    "CompileError",
    "CompileWarning",
    "CompilerMissing",
    "EngineCrashed",
    "EngineError",
    "EngineHung",
    "EngineTooLarge",
    "ExportError",
    "GuestError",
    "GuestFault",
    "GuestLimit",
    "GuestMemoryError",
    "GuestNeedsRewind",
    "GuestPanic",
    "GuestStop",
    "HeapCorruption",
    "IsolatedResult",
    "Kernel",
    "LinkError",
    "Moment",
    "PhysAddr",
    "PhysicalAddressError",
    "PositionError",
    "ProgramError",
    "RecordError",
    "SandboxError",
    "ShadowError",
    "Slab",
    "SlabAllocator",
    "SlabBlock",
    "SymbolNotFound",
    "Timeline",
    "TranslationError",
    "UsageError",
    "VirtAddr",
    "boot",
    "open_record",
    "record",
    "run_isolated",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
