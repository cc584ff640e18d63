"""Numbers as they are written at the prompt, against the guest that they are about; breakpoints by number."""

from __future__ import annotations

import pytest

import sandbox
from sandbox import Kernel, SymbolNotFound, TranslationError, UsageError
from sandbox.debugger.breakpoints import Breakpoints
from sandbox.debugger.expressions import Expressions
from sandbox.debugger.search import Watch


@pytest.fixture
def expressions(kernel: Kernel) -> Expressions:
    return Expressions(kernel.symbols, kernel.registers, kernel.memory)


@pytest.mark.parametrize(("text", "value"), [
    ("40", 40), ("0x28", 40), ("115,301", 115_301), ("1_000_000", 1_000_000), ("2 * (3 + 4)", 14), ("1 << 12", 4096),
    ("-1", (1 << 64) - 1), ("~0", (1 << 64) - 1),
])
def test_numbers_are_read_as_they_are_shown_and_as_c_has_them(expressions: Expressions, text: str, value: int) -> None:
    assert expressions.value(text) == value


def test_names_are_registers_then_labels_then_constants(expressions: Expressions, kernel: Kernel) -> None:
    rsp, kmalloc = kernel.registers["rsp"], int(kernel.symbols["kmalloc"])
    assert expressions.value("rsp") == expressions.value("$rsp") == rsp
    assert expressions.value("kmalloc+0x12") == kmalloc + 0x12
    assert expressions.value("boot_cpu + percpu.slots") == int(kernel.symbols["boot_cpu"]) + \
        kernel.image.constants["percpu.slots"]


def test_sixteen_digits_with_a_letter_among_them_are_an_address_as_the_panes_show_it(expressions: Expressions) -> None:
    assert expressions.value("ffff88800025e020") == 0xFFFF88800025E020
    assert expressions.value("00007FFF12345678 + 8") == 0x7FFF12345680
    assert expressions.value("1234567812345678") == 1234567812345678
    with pytest.raises(SymbolNotFound):
        expressions.value("ffff88800025e02")


def test_a_name_of_sixteen_digits_is_that_name() -> None:
    source = ".equ deadbeefdeadbeef, 7\nmain: xor eax, eax\n ret\ncafecafecafecafe: ret\n"
    with sandbox.record(source) as timeline:
        kernel = timeline.kernel
        expressions = Expressions(kernel.symbols, kernel.registers, kernel.memory)
        assert expressions.value("deadbeefdeadbeef + 1") == 8
        assert expressions.value("cafecafecafecafe") == int(kernel.symbols["cafecafecafecafe"])


def test_memory_is_read_with_the_size_that_is_asked_for(expressions: Expressions, kernel: Kernel) -> None:
    at = int(kernel.symbols["boot_params"])
    assert expressions.value("[boot_params]") == kernel.memory.u64(at)
    assert expressions.value("dword ptr [boot_params]") == kernel.memory.u32(at)
    assert expressions.value("byte [boot_params + 1]") == kernel.memory.u8(at + 1)
    assert expressions.value("[[boot_params]]") == kernel.memory.u64(kernel.memory.u64(at))


def test_the_dollar_is_the_last_value(expressions: Expressions) -> None:
    expressions.last = 0x1000
    assert expressions.value("$ + 8") == 0x1008


@pytest.mark.parametrize(("text", "error", "words"), [
    ("", UsageError, "missing"), ("0x10 +", UsageError, "ends too early"), ("kmallocc", SymbolNotFound, "kmalloc"),
    ("[0]", TranslationError, "not present"), ("1 / 0", UsageError, "division by zero"), ("a b", UsageError, "b"),
    ("99999999999999999999999", UsageError, "64 bits"), ("[rsp", UsageError, "cannot read"),
])
def test_what_cannot_be_read_is_one_sentence(expressions: Expressions, text: str, error: type[Exception],
                                             words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        expressions.value(text)
    assert "\n" not in str(caught.value)


def test_breakpoints_keep_their_numbers_when_others_go() -> None:
    points = Breakpoints()
    first, second = points.add("main", (1, 2)), points.add("0x10", (), Watch(0x10, 8))
    assert (first.number, second.number, first.kind, second.kind) == (1, 2, "breakpoint", "watch")
    points.delete(1)
    assert points.add("kmalloc", (2,)).number == 3 and points.addresses == {2} and points.watches == (Watch(0x10, 8),)
    with pytest.raises(UsageError, match="no breakpoint has the number 1; there are 2, 3"):
        points.delete(1)
    assert points.clear() == 2 and not len(points)


def test_a_watch_goes_by_gdbs_names() -> None:
    points = Breakpoints()
    kinds = [points.add("", (), Watch(0, 1, read, write)).kind for read, write in
             ((False, True), (True, False), (True, True))]
    assert kinds == ["watch", "rwatch", "awatch"]
