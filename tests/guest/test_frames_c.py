"""The call stack through C, compared at every instruction with one that is kept by watching calls and returns."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import sandbox
from sandbox.abi import PROGRAM_BASE
from sandbox.errors import GuestPanic
from sandbox.guest.options import BootOptions
from sandbox.kernel import boot_images
from sandbox.toolchain import packaged
from sandbox.toolchain.c.definitions import Outside
from sandbox.toolchain.c.link import link
from sandbox.toolchain.c.objects import ObjectFile
from sandbox.toolchain.flow import Flow
from sandbox.toolchain.image import Image
from sandbox.toolchain.unwind import Unwind

from ..compilers import is_here
from .test_frames import Watched, assert_exact

C = r"""
typedef unsigned long u64;
void *kmalloc(u64 size);
void kfree(void *pointer);
struct node { struct node *left, *right; u64 key; };
struct large { u64 words[6]; };
static volatile u64 sink;
static struct node nodes[8];

static struct node *insert(struct node *tree, u64 key) {
    if (!tree) {
        tree = key < 7 ? &nodes[key] : kmalloc(sizeof *tree);
        tree->left = tree->right = 0;
        tree->key = key;
    } else if (key < tree->key)
        tree->left = insert(tree->left, key);
    else
        tree->right = insert(tree->right, key);
    return tree;
}
static void walk(struct node *tree, void (*visit)(struct node *)) {
    if (!tree) return;
    walk(tree->left, visit);
    struct node *right = tree->right;
    visit(tree);
    walk(right, visit);
}
static void count(struct node *tree) { sink += tree->key; }
static void drop(struct node *tree) {
    if (tree->key >= 7) kfree(tree);                                    // a tail call, when it is optimized
}

__attribute__((noinline)) static u64 many(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, struct large h) {
    return a + b * c + d + e - f + g + h.words[a % 6];
}
__attribute__((noinline)) static u64 choose(u64 n, u64 x) {
    switch (n) {
    case 0: return many(1, 2, 3, 4, 5, 6, 7, (struct large){{x, 2, 3, 4, 5, 6}});
    case 1: return x * 3;
    case 2: sink = x; return sink;
    case 3: return many(x, x, x, x, x, x, x, (struct large){{0}});
    case 4: return choose(1, x) + 1;
    case 5: return ~x;
    default: return 0;
    }
}
__attribute__((noinline)) static u64 room(u64 n) {
    u64 words[n];                                                       // moves the stack pointer by what nobody knows
    for (u64 i = 0; i < n; i++) words[i] = choose(i, n);
    return words[n - 1] + choose(n % 6, words[0]);
}
__attribute__((noinline)) static u64 aligned(u64 x) {
    u64 words[4] __attribute__((aligned(64)));
    words[x & 3] = choose(x, (u64)words & 63);
    return words[x & 3];
}
__attribute__((noinline, noreturn)) static void ends(u64 x) {
    sink = x;
    __builtin_trap();
}
int main(void) {
    struct node *tree = 0;
    for (u64 i = 0; i < 4; i++) tree = insert(tree, i * 5 % 7 + (i == 3) * 7);
    walk(tree, count);
    walk(tree, drop);
    u64 x = room(6);
    for (u64 i = 3; i < 5; i++) x += aligned(i);
    ends(x);
}
"""
CONTRACT = ("-ffreestanding", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fno-pic", "-fno-pie",
            "-fno-stack-protector", "-fcf-protection=none", "-g")
OURS = ("-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer")
THEIRS = ("-fasynchronous-unwind-tables", "-fomit-frame-pointer")


def compiled(directory: Path, command: Sequence[str]) -> ObjectFile:
    (directory / "c.c").write_text(C)
    done = subprocess.run([*command, *CONTRACT, "-c", "c.c", "-o", "c.o"], cwd=directory, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ObjectFile("c.c", (directory / "c.o").read_bytes(), directory)


@pytest.fixture(scope="module")
def kernel() -> Image:
    return packaged.kernel_image()


@pytest.fixture
def linked(kernel: Image, tmp_path: Path) -> Callable[..., Image]:
    """``linked(compiler, *flags)`` is the program."""

    def build(*command: str) -> Image:
        if not is_here(command[0]):
            pytest.skip(f"no {command[0]}")
        return link([compiled(tmp_path, command)], PROGRAM_BASE, Outside(kernel.exports))

    return build


@pytest.mark.parametrize("command", [
    ("gcc", "-O0", *OURS), ("gcc", "-O2", *OURS), ("gcc", "-Os", *OURS), ("gcc", "-O2", *THEIRS),
    ("clang", "-O0", *OURS), ("clang", "-O2", *OURS)], ids=lambda command: " ".join(command[:3]))
def test_every_frame_of_c_is_exact_at_every_instruction(linked: Callable[..., Image], kernel: Image,
                                                        command: tuple[str, ...]) -> None:
    """In prologues and epilogues, recursion, callbacks from and to the kernel, tail calls, and in the handler of
    the exception that ends it."""
    image = linked(*command)
    with boot_images(kernel, image, BootOptions(hz=0)) as guest:
        watched = Watched(guest.machine, guest.symbols)
        inside = depth = count = 0
        while not guest.memory.u32(guest.symbols["panic_info"]) and count < 20_000:
            count += 1
            if image.base <= watched.registers["rip"] < image.text_end:
                inside += 1
                depth = max(depth, assert_exact(watched, 1))
            elif count % 31 == 0:
                assert_exact(watched, 1)
            else:
                watched.step()
        assert guest.memory.u32(guest.symbols["panic_info"]) and inside > 300 and depth >= 5


@pytest.mark.parametrize("command", [("gcc", "-O2", *OURS), ("gcc", "-O2", *THEIRS), ("clang", "-O2", *OURS)],
                         ids=" ".join)
def test_code_of_compilers_can_be_followed_without_their_help(linked: Callable[..., Image], kernel: Image,
                                                              command: tuple[str, ...]) -> None:
    """As of an object that was stripped: jump tables, tail calls, what never returns, padding. What is worked out
    agrees with what the compiler says, where both count from the same register."""
    image = linked(*command)
    bare = Image(image.base, image.sections, image.symbols, text_end=image.text_end)
    flow, alone, told = Flow(bare, (Flow(kernel),)), Unwind(kernel, bare), Unwind(kernel, image)
    assert flow.steps and flow.entries
    compared = 0
    for address, _, rule in alone.rules(bare):
        truth = told.rule(address)
        if rule is not None and truth is not None and rule.cfa_register == truth.cfa_register:
            assert rule.cfa_offset == truth.cfa_offset and rule.saved["rip"] == truth.saved["rip"] == -8
            compared += 1
    assert compared > 20


@pytest.fixture(scope="module", params=[("gcc", "-O0"), ("gcc", "-O2"), ("clang", "-Os")], ids=" ".join)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> sandbox.Kernel:
    cc, flags = request.param
    if not is_here(cc):
        pytest.skip(f"no {cc}")
    path = tmp_path_factory.mktemp("c") / "stacks.c"
    path.write_text("""\
#include <sandbox.h>
static __attribute__((noinline)) void *inner(int n)
{
    char *p = kmalloc(n);
    *p = 1;
    return p;
}
static __attribute__((noinline)) void outer(int n)
{
    kfree(inner(n));
    if (n == 40)
        panic("no %d", n);
    inner(n);
}
int main(void)
{
    outer(30);
    outer(40);
    return 0;
}
""")
    return sandbox.boot(path, ram="4M", hz=0, cc=cc, cflags=flags)


def test_traces_backtraces_and_panics_name_the_lines_of_c(program: sandbox.Kernel) -> None:
    with program as kernel, kernel.trace() as trace:
        result = kernel.run()

    def places(frames: Sequence[str]) -> list[str]:
        return [re.sub(r"^(\w+)\S* \(.*?([\w.]+:\d+)\)$", r"\1 \2", frame) for frame in frames][:3]

    first, *_, last = [places(event.stack) for event in trace]
    assert first == ["inner stacks.c:4", "outer stacks.c:10", "main stacks.c:17"]
    assert last == ["outer stacks.c:10", "main stacks.c:18", *last[2:]] and last[2].startswith("kernel_ready")
    assert isinstance(result.error, GuestPanic)
    assert places(result.error.backtrace)[:2] == ["outer stacks.c:12", "main stacks.c:18"]
    written = [int(word, 16) for word in re.findall(r"0x[0-9a-f]{16}", kernel.console.partition("backtrace:")[2])]
    named = [kernel.symbols.locate(address - 1) for address in written]
    assert [place.symbol for place in named][:3] == ["outer", "main", "kernel_ready"]
    assert [place.source.number for place in named[:2] if place.source] == [12, 18]
