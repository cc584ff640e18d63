"""``sandbox.h``, judged by compilers: what they make of it must be what the kernel has."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

import sandbox
from sandbox import abi
from sandbox.layout import Struct
from sandbox.toolchain.c import header
from sandbox.toolchain.c.header_functions import LEFT_OUT
from sandbox.toolchain.image import Image
from sandbox.toolchain.prototype import prototypes

INCLUDE = Path(sandbox.__file__).parent / "libc" / "include"
TEXT = (INCLUDE / "sandbox.h").read_text()
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
KERNEL = ("-mcmodel=kernel", "-mgeneral-regs-only", "-fno-pic")
CALLER_SAVED = {"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "eax", "edi", "sil",
                "r8-r10", "r8-r11", "nothing", "else"}


@pytest.fixture(params=["gcc", "clang"])
def cc(request: pytest.FixtureRequest) -> str:
    """Each C compiler that is here."""
    return _found(request.param)


def _found(command: str) -> str:
    if shutil.which(command) is None or platform.machine() != "x86_64":
        pytest.skip(f"no {command} for x86-64")
    return command


def _compile(cc: str, directory: Path, text: str, *flags: str) -> Path:
    """An object of ``text``, which sees the header alone, without the rest of our C library."""
    (directory / "sandbox.h").write_text(TEXT)
    source = directory / ("t.cc" if cc.endswith("++") else "t.c")
    source.write_text(text)
    done = subprocess.run([cc, "-c", "-I.", "-o", "t.o", source.name, *flags], cwd=directory, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "t.o"


def _data(path: Path) -> bytes:
    with path.open("rb") as file:
        return bytes(ELFFile(file).get_section_by_name(".data").data())


def test_the_committed_header_is_what_the_kernel_and_its_numbers_render(kernel_image: Image) -> None:
    assert header.render(kernel_image) == TEXT, "run python -m sandbox.toolchain.c.header"


# -- warnings ---------------------------------------------------------------------------------------------------

USES = """
{before}
#include "sandbox.h"
{after}
int uses(struct kmem_cache *cache, char *text);
int uses(struct kmem_cache *cache, char *text)
{{
    struct kmem_cache *each;
    u64 count = 0;
    list_for_each_entry(each, &slab_caches, list)
        count += each->objects;
    if (list_empty(&cache->full) || kmalloc(0) == ZERO_SIZE_PTR || cache->list.next == LIST_POISON1)
        kprintf("%s %lu %p\\n", cache->name, PROGRAM_BASE, (void *)mem_map);
    outb(DEBUG_EXIT_FAILURE, DEBUG_EXIT_PORT);
    if (strscpy(text, cache->name, sizeof cache->name) == -E2BIG)
        panic("%s", "too long");
    return (int)(count + inb(SERIAL_PORT) + this_cpu()->cpu);
}}
"""
LIBRARY = "#include <errno.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <limits.h>\n"


@pytest.mark.parametrize("flags", ["-std=c99 -O0", "-std=c11 -O2", "-std=gnu11 -Os -masm=intel", "-std=c2x -O1"])
def test_c_compilers_of_every_standard_have_nothing_to_say(cc: str, tmp_path: Path, flags: str) -> None:
    twice = '#include "sandbox.h"\n'
    for before, after in (("", twice + LIBRARY), (LIBRARY, twice)):
        text = USES.format(before=before, after=after)
        _compile(cc, tmp_path, text, *STRICT, *KERNEL, *flags.split())


@pytest.mark.parametrize("first", [True, False])
def test_it_stands_before_and_behind_every_header_of_our_library(cc: str, tmp_path: Path, first: bool) -> None:
    names = sorted(path.relative_to(INCLUDE).as_posix() for path in INCLUDE.rglob("*.h") if path.name != "sandbox.h")
    every = "".join(f"#include <{name}>\n" for name in names)
    text = USES.format(before="" if first else every, after=every if first else "")
    _compile(cc, tmp_path, text, *STRICT, *KERNEL, "-std=gnu11", "-nostdinc", f"-I{INCLUDE}", "-ffreestanding")


@pytest.mark.parametrize("standard", ["c++98", "c++11", "c++20"])
@pytest.mark.parametrize("command", ["g++", "clang++"])
def test_the_header_is_cpp_too(tmp_path: Path, command: str, standard: str) -> None:
    text = USES.format(before=LIBRARY, after='#include "sandbox.h"')
    _compile(_found(command), tmp_path, text, *STRICT, *KERNEL[::2], f"-std={standard}", "-O2")


def test_a_format_that_does_not_fit_its_argument_is_a_warning(cc: str, tmp_path: Path) -> None:
    text = '#include "sandbox.h"\nvoid f(void);\nvoid f(void) { kprintf("%s", 1); }\n'
    with pytest.raises(AssertionError, match="format"):
        _compile(cc, tmp_path, text, *STRICT)


# -- structures and numbers -------------------------------------------------------------------------------------

def _layouts(path: Path) -> dict[str, tuple[int, dict[str, tuple[int, int]]]]:
    """Size, and offset and size of each member, of every structure in an object's DWARF."""
    with path.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        entries = {die.offset: die for unit in dwarf.iter_CUs() for die in unit.iter_DIEs()}
        found = {}
        for die in entries.values():
            if die.tag == "DW_TAG_structure_type" and "DW_AT_byte_size" in die.attributes:
                members = {child.attributes["DW_AT_name"].value.decode():
                           (child.attributes["DW_AT_data_member_location"].value, _size(child))
                           for child in die.iter_children()}
                found[die.attributes["DW_AT_name"].value.decode()] = (die.attributes["DW_AT_byte_size"].value, members)
    return found


def _size(die: Any) -> int:
    """Bytes of what an entry's type describes."""
    kind = die.get_DIE_from_attribute("DW_AT_type")
    if kind.tag == "DW_TAG_array_type":
        counts = [child.attributes for child in kind.iter_children()]
        count = next(each["DW_AT_count"].value if "DW_AT_count" in each else each["DW_AT_upper_bound"].value + 1
                     for each in counts)
        return int(count) * _size(kind)
    if kind.tag == "DW_TAG_pointer_type":
        return 8
    return int(kind.attributes["DW_AT_byte_size"].value) if "DW_AT_byte_size" in kind.attributes else _size(kind)


@pytest.fixture(scope="module", params=["gcc -O0", "gcc -Os", "clang -O0", "clang -O2"])
def layouts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
            ) -> dict[str, tuple[int, dict[str, tuple[int, int]]]]:
    """The structures as a compiler lays them out."""
    command, level = request.param.split()
    text = '#include "sandbox.h"\n' + "".join(f"struct {each.__name__} an_{each.__name__};\n" for each in abi.STRUCTS)
    return _layouts(_compile(_found(command), tmp_path_factory.mktemp("layouts"), text, "-g", level, *STRICT))


@pytest.mark.parametrize("struct", abi.STRUCTS, ids=lambda struct: struct.__name__)
def test_compilers_lay_a_structure_out_as_the_kernel_does(
        struct: type[Struct], layouts: dict[str, tuple[int, dict[str, tuple[int, int]]]]) -> None:
    size, members = layouts[struct.__name__]
    assert size == struct.size
    assert members == {field.name: (field.offset, field.size) for field in struct.fields}


def test_a_structure_of_another_layout_does_not_compile(cc: str, tmp_path: Path) -> None:
    text = TEXT.replace("    u32 lock;", "    u64 lock;", 1).replace("SANDBOX_H", "OTHER_H")
    assert text.count("u64 lock;") == 1
    with pytest.raises(AssertionError, match="kmem_cache"):
        _compile(cc, tmp_path, text, "-std=c11")


def test_every_number_is_the_kernels(cc: str, tmp_path: Path, kernel_image: Image) -> None:
    bits = {name: value for name, value in kernel_image.constants.items() if name.startswith("PTE_")}
    numbers = dict(abi.constants()) | bits | {"PANIC_VECTOR": abi.PANIC_VECTOR}
    assert len(bits) >= 7
    table = ", ".join(f"(u64){header.RENAMED.get(name, name)}" for name in numbers)
    data = _data(_compile(cc, tmp_path, f'#include "sandbox.h"\nu64 table[] = {{ {table} }};\n', "-fno-pic"))
    values = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    assert dict(zip(numbers, values, strict=True)) == {name: value % (1 << 64) for name, value in numbers.items()}


# -- functions --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The functions that the header declares, by name, as gcc understands them."""
    directory = tmp_path_factory.mktemp("functions")
    _compile(_found("gcc"), directory, '#include "sandbox.h"\n', "-aux-info", "functions")
    lines = re.findall(r"/\* sandbox\.h:.*?\*/ extern (.*);", (directory / "functions").read_text().replace("./", ""))
    return {match[1]: line for line in lines if (match := re.search(r"(\w+) \((?!\*)", line))}


def test_every_function_that_is_declared_is_in_the_kernel(declared: dict[str, str], kernel_image: Image) -> None:
    assert len(declared) > 80 and not set(declared) - set(kernel_image.symbols)


def test_every_public_function_of_the_kernel_is_declared_or_left_out_for_a_reason(
        declared: dict[str, str], kernel_image: Image) -> None:
    public = {name for name, found in prototypes(kernel_image).items() if not found.result.startswith("static")}
    assert set(declared) == public - set(LEFT_OUT)
    assert set(LEFT_OUT) <= public and all(LEFT_OUT.values())


def test_variables_that_are_declared_are_in_the_kernel(kernel_image: Image) -> None:
    names = re.findall(r"(?m)^extern [^(\n]*?(\w+)(?:\[[^]]*\])?;", TEXT)
    assert len(names) > 8 and not set(names) - set(kernel_image.symbols)


@pytest.mark.parametrize(("name", "meant"), [
    ("kmalloc", "void *kmalloc (size_t)"),
    ("set_trap_handler", "trap_handler (*set_trap_handler (unsigned int, trap_handler (*)))"),
    ("kmem_cache_create",
     "struct kmem_cache *kmem_cache_create (const char *, size_t, size_t, u32, void (*)(void *))"),
    ("map_page", "int map_page (u64, u64, u64)"),
    ("kprintf", "int kprintf (const char *, ...)"),
    ("panic", "void panic (const char *, ...)"),
])
def test_a_declaration_means_what_the_comment_says(declared: dict[str, str], name: str, meant: str) -> None:
    assert re.sub(r"\s+", "", declared[name]) == re.sub(r"\s+", "", meant)


def test_functions_that_are_declared_keep_the_rules_of_system_v(declared: dict[str, str], kernel_image: Image) -> None:
    """By their comments: arguments in order in RDI RSI RDX RCX R8 R9, the result in RAX, no callee-saved register."""
    order = ("rdi edi dil", "rsi esi sil", "rdx edx dl", "rcx ecx cl", "r8 r8d", "r9 r9d")
    checked, known = 0, prototypes(kernel_image)
    for text in kernel_image.files.values():
        for name, body in re.findall(r"(?m)^# (?!static)[a-z].*?(\w+)\([^.\n]*\)\n((?:#.*\n)+)\1:", text):
            if name not in declared or declared[name].endswith("...)"):
                continue
            joined = re.sub(r"\n#\s{8,}", " ", body)
            given = re.search(r"(?m)^#   in +(.*)$", joined)
            registers = re.findall(r"(?:^|[,;] )(\w+) = ", given[1]) if given else []
            assert all(register in order[at].split() for at, register in enumerate(registers)), (name, registers)
            assert len(registers) in (0, len(known[name].parameters)), name
            out = re.search(r"(?m)^#   out +(\w+)", joined)
            assert out is None or out[1] in ("rax", "eax"), name
            clobbers = re.search(r"(?m)^#   clobbers +(.*)$", joined)
            assert clobbers is None or set(clobbers[1].split()) <= CALLER_SAVED, name
            checked += 1
    assert checked > 70


# -- helpers ----------------------------------------------------------------------------------------------------

def test_the_list_walkers_walk(cc: str, tmp_path: Path) -> None:
    text = """
#include "sandbox.h"
int main(void)
{
    struct kmem_cache a, b, *each;
    struct list_head head = { &a.list, &b.list }, empty = { &empty, &empty };
    int sum = 0;
    a.list.next = &b.list, a.list.prev = &head, a.objects = 3;
    b.list.next = &head, b.list.prev = &a.list, b.objects = 4;
    list_for_each_entry(each, &head, list)
        sum = 10 * sum + (int)each->objects;
    return sum == 34 && list_empty(&empty) && !list_empty(&head) && container_of(&b.list, struct kmem_cache, list) == &b
        ? 0 : 1;
}
"""
    _compile(cc, tmp_path, text, *STRICT)
    subprocess.run([cc, "-o", "t", "t.o"], cwd=tmp_path, check=True)
    subprocess.run(["./t"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("dialect", ["att", "intel"])
def test_this_cpu_is_one_load_through_gs(cc: str, tmp_path: Path, dialect: str) -> None:
    text = '#include "sandbox.h"\nstruct percpu *f(void);\nstruct percpu *f(void) { return this_cpu(); }\n'
    path = _compile(cc, tmp_path, text, "-O2", "-fomit-frame-pointer", "-fcf-protection=none", f"-masm={dialect}")
    with path.open("rb") as file:
        code = ELFFile(file).get_section_by_name(".text").data()
    offset = abi.percpu.self.offset.to_bytes(4, "little")
    assert code.startswith(b"\x65\x48\x8b\x04\x25" + offset + b"\xc3")


# -- in the guest -----------------------------------------------------------------------------------------------

MODULE = r"""
#include "sandbox.h"

static int constructed, traps;

static void construct(void *object)
{
    constructed++;
    *(u64 *)object = 7;
}

static int on_breakpoint(struct pt_regs *regs)
{
    traps++;
    return regs->vector == 3;
}

int count_caches(void)
{
    struct kmem_cache *cache;
    int count = 0;
    u64 flags = spin_lock_irqsave(&slab_caches_lock);

    list_for_each_entry(cache, &slab_caches, list)
        count++;
    spin_unlock_irqrestore(&slab_caches_lock, flags);
    return count;
}

int main(void)
{
    struct kmem_cache *cache = kmem_cache_create("mine", 48, 0, SLAB_NO_MAGAZINES, construct);
    void *object = kmem_cache_alloc(cache);
    struct page *page = virt_to_page(object);
    u64 frame = (u64)get_free_pages(0) - DIRECT_MAP, place = 0x7ffffffff000;
    char text[8];
    trap_handler *previous = set_trap_handler(3, on_breakpoint);

    __asm__ __volatile__("int3");
    set_trap_handler(3, previous);
    kprintf("%s %u %u %d\n", cache->name, cache->object_size, page->inuse, page->objects == constructed);
    kprintf("%d %s %d\n", (int)strscpy(text, "much too long", sizeof text), text, page->cache == cache);
    kprintf("%d %lu %d\n", boot_params->magic == BOOT_MAGIC, max_pfn, this_cpu()->self == this_cpu());
    kprintf("%u %d\n", kmalloc_caches[KMALLOC_CACHES - 1]->object_size, page > mem_map && page < mem_map + max_pfn);
    kprintf("%d %d %d\n", traps, map_page(place, frame, PTE_WRITE | PTE_NX), map_page(1, frame, 0));
    *(volatile u32 *)place = 42;
    kprintf("%u %d\n", *(u32 *)(DIRECT_MAP + frame), unmap_page(place) == frame);
    kmem_cache_free(cache, object);
    kprintf("%ld %u\n", kmem_cache_destroy(cache), failslab.probability);
    return kmalloc(0) != ZERO_SIZE_PTR;
}
"""
CONSOLE = "mine 48 1 1\n-7 much to 1\n1 4096 1\n8192 1\n1 0 -22\n42 1\n0 0\n"


def test_a_module_finds_everything_as_the_header_says(cc: str, tmp_path: Path) -> None:
    (tmp_path / "module.c").write_text(MODULE)
    kernel = sandbox.boot(tmp_path / "module.c", cc=cc, ram="16M")
    assert kernel.run().ok and kernel.console == CONSOLE
    assert kernel.call("count_caches") == len(list(kernel.heap.caches))
