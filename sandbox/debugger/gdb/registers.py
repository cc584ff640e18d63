"""The registers as gdb sees them: QEMU's names, order and sizes, and their values as bytes.

The order is that of QEMU's ``gdb-xml/i386-64bit.xml``, so that scripts written for QEMU work here: the general
registers, segments, ``fs_base gs_base k_gs_base``, ``cr0 cr2 cr3 cr4 cr8 efer``, and then x87 and SSE, which this
machine does not show: their values are told as unavailable, and not as zeros. CR8 is the task priority of a local
APIC; this PC has none, and the guest reads 0. The types name the bits of flags and control registers. (QEMU has SSE in
the core feature; in gdb's own one it stays out of ``info registers``.)

GDB manual, appendix G "Target Descriptions".
"""

from __future__ import annotations

from dataclasses import dataclass

from ...layout import Register
from ...machine.cpu import Cpu
from ...x86 import Cr0, Cr4, Efer, Rflags

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
_X87_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_TYPES = {"rbp": "data_ptr", "rsp": "data_ptr", "rip": "code_ptr", "eflags": "x64_eflags", "cr0": "x64_cr0",
          "cr4": "x64_cr4", "efer": "x64_efer"}
_FLAGS: dict[str, type[Register]] = {"eflags": Rflags, "cr0": Cr0, "cr4": Cr4, "efer": Efer}
_VECTOR = """\
<vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/>
<vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128">
<field name="v4_float" type="v4f"/>
<field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/>
<field name="v8_int16" type="v8i16"/>
<field name="v4_int32" type="v4i32"/>
<field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/>
</union>"""


@dataclass(frozen=True)
class RemoteRegister:
    """One register of the description; ``source`` is its name in the machine, empty where the machine has none."""

    name: str
    bits: int
    type: str
    source: str = ""
    group: str = ""

    @property
    def size(self) -> int:
        """Bytes of its value on the wire."""
        return self.bits // 8

    def read(self, cpu: Cpu) -> str:
        """Its value as hexadecimal digits, lowest byte first; ``xx`` for each byte of what cannot be known."""
        if self.name == "cr8":
            return "00" * self.size
        if not self.source:
            return "xx" * self.size
        return (cpu[self.source] & ((1 << self.bits) - 1)).to_bytes(self.size, "little").hex()

    def __str__(self) -> str:
        group = f' group="{self.group}"' if self.group else ""
        return f'<reg name="{self.name}" bitsize="{self.bits}" type="{self.type}"{group}/>'


def _known(name: str, bits: int = 64) -> RemoteRegister:
    """A register that the machine has."""
    return RemoteRegister(name, bits, _TYPES.get(name, f"int{bits}"), "rflags" if name == "eflags" else name)


REGISTERS: tuple[RemoteRegister, ...] = (
    *(_known(name) for name in (*_GENERAL, "rip")),
    *(_known(name, 32) for name in ("eflags", *_SEGMENTS)),
    *(_known(name) for name in ("fs_base", "gs_base", "k_gs_base", "cr0", "cr2", "cr3", "cr4")),
    RemoteRegister("cr8", 64, "int64"),
    _known("efer"),
    *(RemoteRegister(f"st{number}", 80, "i387_ext") for number in range(8)),
    *(RemoteRegister(name, 32, "int", group="float") for name in _X87_CONTROL),
    *(RemoteRegister(f"xmm{number}", 128, "vec128") for number in range(16)),
    RemoteRegister("mxcsr", 32, "int", group="vector"),
)
"""Every register, in the order of gdb's ``g`` packet; its place is its number in ``p``."""
NUMBERS = {register.name: number for number, register in enumerate(REGISTERS)}
"""The number of each register."""
EXPEDITED = tuple(NUMBERS[name] for name in ("rbp", "rsp", "rip"))
"""Those that a stop reply tells, so that gdb need not ask for them."""


def target_xml() -> str:
    """The target description: a 64-bit PC, whatever the file of symbols says."""
    sse = NUMBERS["xmm0"]
    flags = [line for name, layout in _FLAGS.items() for line in _flags(REGISTERS[NUMBERS[name]], layout)]
    return "\n".join([
        '<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
        "<target>", "<architecture>i386:x86-64</architecture>",
        '<feature name="org.gnu.gdb.i386.core">', *flags, *map(str, REGISTERS[:sse]), "</feature>",
        '<feature name="org.gnu.gdb.i386.sse">', _VECTOR, *map(str, REGISTERS[sse:]), "</feature>", "</target>", "",
    ])


def _flags(register: RemoteRegister, layout: type[Register]) -> list[str]:
    """The type of a register whose bits have names. The bit that is always 1 is listed without one."""
    return [f'<flags id="{register.type}" size="{register.size}">',
            *(f'<field name="{"" if bit.name == "FIXED" else bit.name}" start="{bit.low}" '
              f'end="{bit.low + bit.width - 1}"/>' for bit in sorted(layout.bits, key=lambda bit: bit.low)),
            "</flags>"]
