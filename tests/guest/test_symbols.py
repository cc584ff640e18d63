"""Names for addresses, and C prototypes out of comments, on images made by hand."""

from __future__ import annotations

import pytest

from sandbox.address import VirtAddr
from sandbox.errors import SymbolNotFound
from sandbox.guest.symbols import Symbols
from sandbox.toolchain.image import Image, Section

BASE = 0xFFFF_FFFF_8000_0000
SOURCE = """# A file.

# void *kmalloc(size_t size)
# Take memory.
#   in        rdi = size
kmalloc:
    ret
# int printf_like(const char *format, ...)
printf_like:
    ret
# struct kmem_cache *create(const char *name, u32 size, void (*ctor)(void *object, int flags), u32 align)
create:
    ret
# noreturn stop(void)
stop:
    ret
# u64 old()
old:
    ret
# A sentence with elsewhere(in brackets)
plain:
    ret
# int (*handler(int vector))(void)
handler:
    ret
# u64 nowhere(u64 value)
"""
NAMES = ("kmalloc", "printf_like", "create", "stop", "old", "plain", "handler")


@pytest.fixture
def symbols() -> Symbols:
    lines = SOURCE.split("\n")
    image = Image(
        BASE, (Section("text", BASE, bytes(4096), "r-x"), Section("data", BASE + 4096, bytes(4096), "rw-")),
        {**{name: BASE + 16 * number for number, name in enumerate(NAMES)}, "variable": BASE + 4096 + 8},
        lines={BASE + 16 * number: ("kmalloc.asm", lines.index(f"{name}:") + 2)
               for number, name in enumerate(NAMES)},
        files={"kmalloc.asm": SOURCE}, text_end=BASE + 16 * len(NAMES))
    return Symbols(image)


@pytest.mark.parametrize(("name", "parameters", "variadic", "wants"), [
    ("kmalloc", 1, False, "1 argument"), ("printf_like", 1, True, "at least 1 argument"),
    ("create", 4, False, "4 arguments"), ("stop", 0, False, "0 arguments"), ("old", 0, False, "0 arguments"),
])
def test_a_prototype_is_read_from_the_comment_above_its_label(
    symbols: Symbols, name: str, parameters: int, variadic: bool, wants: str
) -> None:
    prototype = symbols.prototype(name)
    assert prototype is not None
    assert (len(prototype.parameters), prototype.variadic, prototype.wants) == (parameters, variadic, wants)
    for count in range(6):
        assert prototype.accepts(count) == (count >= parameters if variadic else count == parameters)


@pytest.mark.parametrize("name", ["plain", "handler", "nowhere", "missing"])
def test_what_declares_nothing_has_no_prototype(symbols: Symbols, name: str) -> None:
    assert symbols.prototype(name) is None


def test_an_address_is_named_by_the_label_before_it_in_its_section(symbols: Symbols) -> None:
    assert str(symbols.locate(BASE)) == "kmalloc (kmalloc.asm:7)"
    assert str(symbols.locate(BASE + 3)) == "kmalloc+0x3 (kmalloc.asm:7)"
    assert str(symbols.locate(BASE + 16)) == "printf_like (kmalloc.asm:10)"
    assert symbols.locate(BASE + 4096 + 20).symbol == "variable"
    before = symbols.locate(BASE + 4096)
    assert (before.symbol, str(before)) == ("", f"0x{BASE + 4096:016x}")
    assert str(symbols.locate(7)) == "0x0000000000000007"


def test_an_unknown_name_brings_suggestions(symbols: Symbols) -> None:
    with pytest.raises(SymbolNotFound) as caught:
        symbols["kmallok"]
    assert caught.value.suggestions == ("kmalloc",)
    assert symbols.get("kmallok", 5) == 5
    assert symbols["kmalloc"] == BASE
    assert type(symbols["kmalloc"]) is VirtAddr
    assert set(symbols) == {*NAMES, "variable"}


def test_only_code_is_text(symbols: Symbols) -> None:
    assert symbols.in_text(BASE)
    assert not symbols.in_text(BASE + 4096)
    assert not symbols.in_text(0)
