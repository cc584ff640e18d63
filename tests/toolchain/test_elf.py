"""The file for gdb, read back by three programs that know nothing of this one: pyelftools, readelf and gdb."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox import abi
from sandbox.errors import ExportError
from sandbox.guest.export import QEMU, export, qemu_command
from sandbox.guest.options import BootOptions
from sandbox.toolchain import packaged
from sandbox.toolchain.disassembler import Disassembler
from sandbox.toolchain.dwarf_encoding import sleb, uleb
from sandbox.toolchain.image import Image
from sandbox.toolchain.source import Source
from sandbox.toolchain.symbols_file import source_paths, write_symbols
from sandbox.toolchain.unwind import Unwind

elftools = pytest.importorskip("elftools")
from elftools.dwarf.callframe import FDE  # noqa: E402
from elftools.dwarf.structs import DWARFStructs  # noqa: E402
from elftools.elf.elffile import ELFFile  # noqa: E402

DWARF_NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)),
               "rip")


class Written:
    """A file of symbols, and what it was made from."""

    def __init__(self, path: Path, images: tuple[Image, ...]) -> None:
        self.path = path
        self.images = images
        self.unwind = Unwind(*images)
        self.rules = {address: rule for image in images for address, _, rule in self.unwind.rules(image)}
        self.sources = write_symbols(path, images, self.unwind)

    def gdb(self, *commands: str) -> str:
        """What gdb answers to these commands; a complaint of its reader of symbols fails the test."""
        if shutil.which("gdb") is None:
            pytest.skip("no gdb")
        arguments = [word for command in commands for word in ("-ex", command)]
        done = subprocess.run(["gdb", "-nx", "-q", "-batch", "-iex", "set complaints 100", *arguments, self.path],
                              capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL)
        assert "During symbol reading" not in done.stdout + done.stderr
        assert done.stderr.strip() == "", done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def kernel() -> Image:
    return packaged.kernel_image()


@pytest.fixture(scope="module")
def program(kernel: Image) -> Image:
    path = packaged.example("12")
    return packaged.program_image(Source.read(path, f"examples/{path.name}"), kernel)


@pytest.fixture(scope="module")
def written(kernel: Image, program: Image, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("elf") / "kernel.elf", (kernel, program))


@pytest.fixture(scope="module")
def elf(written: Written) -> Any:
    with written.path.open("rb") as file:
        yield ELFFile(file)


@pytest.fixture(scope="module")
def dwarf(elf: Any) -> Any:
    return elf.get_dwarf_info()


# -- the container ----------------------------------------------------------------------------------------------
def test_the_segments_hold_the_images_with_their_rights(elf: Any, written: Written) -> None:
    wanted = [(section.address, section.data, section.rights) for image in written.images
              for section in image.sections]
    rights = {5: "r-x", 4: "r--", 6: "rw-"}
    assert [(segment["p_vaddr"], segment.data(), rights[segment["p_flags"]])
            for segment in elf.iter_segments()] == wanted
    assert elf["e_entry"] == written.images[0].symbols["_start"] and elf["e_type"] == "ET_EXEC"
    assert [elf.get_section_by_name(name)["sh_addr"] for name in (".text", ".data", ".text.program")] == [
        written.images[0].base, written.images[0].section("data").address, written.images[1].base]


def test_every_label_is_a_symbol_up_to_the_next_one(elf: Any, written: Written) -> None:
    found = {symbol.name: symbol for symbol in elf.get_section_by_name(".symtab").iter_symbols() if symbol.name}
    for image in written.images:
        for name, address in image.symbols.items():
            symbol = found.pop(name)
            section = elf.get_section(symbol["st_shndx"])
            assert symbol["st_value"] == address
            assert section["sh_addr"] <= address <= section["sh_addr"] + section["sh_size"]
            kind = "STT_FUNC" if section["sh_flags"] & 4 else "STT_OBJECT"
            assert symbol["st_info"]["type"] == kind
            if name in image.functions:
                start, end = image.functions[name]
                assert symbol["st_size"] == end - start
    assert not found


def test_readelf_has_nothing_to_complain_about(written: Written) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    done = subprocess.run(["readelf", "--wide", "--all", "--debug-dump=info,abbrev,decodedline,aranges,frames-interp",
                           str(written.path)], capture_output=True, text=True, check=True)
    assert done.stderr == "" and not re.search(r"(?i)warning|error:|corrupt|unknown(?! \(mask\)|\))", done.stdout)


# -- lines and functions ----------------------------------------------------------------------------------------
def table_of_lines(dwarf: Any) -> dict[int, tuple[str, int]]:
    """The line of each address at which one begins, as pyelftools reads them."""
    found: dict[int, tuple[str, int]] = {}
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        header = program.header
        for entry in program.get_entries():
            state = entry.state
            if state is None or state.end_sequence:
                continue
            file = header["file_entry"][state.file - 1]
            directory = header["include_directory"][file.dir_index - 1].decode() if file.dir_index else ""
            found[state.address] = (f"{directory}/{file.name.decode()}".lstrip("/"), state.line)
    return found


def test_every_instruction_has_its_source_line(dwarf: Any, written: Written) -> None:
    lines = table_of_lines(dwarf)
    for image in written.images:
        now = None
        for found in Disassembler().code(image, image.base, image.text_end):
            now = lines.get(found.address, now)
            place = image.line(found.address)
            assert place is not None and now == (place.file, place.number), place


def test_data_in_the_text_has_no_line(dwarf: Any, written: Written) -> None:
    ends = []
    for unit in dwarf.iter_CUs():
        for entry in dwarf.line_program_for_CU(unit).get_entries():
            if entry.state is not None and entry.state.end_sequence:
                ends.append(entry.state.address)
    kernel = written.images[0]
    assert {start for start, _ in kernel.data_in_text} | {kernel.text_end} <= set(ends)


def test_every_label_of_the_code_is_a_function_with_its_range_and_place(dwarf: Any, written: Written) -> None:
    found = {}
    for unit in dwarf.iter_CUs():
        for entry in unit.iter_DIEs():
            if entry.tag == "DW_TAG_subprogram":
                low = entry.attributes["DW_AT_low_pc"].value
                found[entry.attributes["DW_AT_name"].value.decode()] = (
                    low, low + entry.attributes["DW_AT_high_pc"].value, entry.attributes["DW_AT_decl_line"].value)
    for image in written.images:
        for name, (start, end) in image.functions.items():
            place = image.line(start)
            assert place is not None and found.pop(name) == (start, end, place.number)
    assert not found


def test_each_image_is_a_unit_that_is_found_by_its_addresses(dwarf: Any, written: Written) -> None:
    ranges = dwarf.get_aranges()
    units = list(dwarf.iter_CUs())
    for image, unit in zip(written.images, units, strict=True):
        assert ranges.cu_offset_at_addr(image.base) == unit.cu_offset
        assert ranges.cu_offset_at_addr(image.text_end - 1) == unit.cu_offset
        top = unit.get_top_DIE().attributes
        assert top["DW_AT_comp_dir"].value.decode() == str(written.sources)
        assert top["DW_AT_language"].value == 0x8001


# -- frames -----------------------------------------------------------------------------------------------------
def described(found: Any) -> object:
    """A register's rule as pyelftools has it: an offset from the CFA, a register's name, or a word."""
    if found is None or found.type == "SAME_VALUE":
        return "same"
    if found.type == "REGISTER":
        return DWARF_NAMES[found.arg]
    return {"UNDEFINED": "lost", "OFFSET": found.arg}[found.type]


def test_the_frame_information_is_the_rules(dwarf: Any, written: Written) -> None:
    compared = 0
    for entry in dwarf.CFI_entries():
        if not isinstance(entry, FDE):
            continue
        start, size, rows = entry["initial_location"], entry["address_range"], entry.get_decoded().table
        for address in (at for at in range(start, start + size) if at in written.rules):
            row = [row for row in rows if row["pc"] <= address][-1]
            rule = written.rules[address]
            assert rule is not None and entry.cie["augmentation"] == (b"zS" if rule.interrupt else b"")
            assert (DWARF_NAMES[row["cfa"].reg], row["cfa"].offset) == (rule.cfa_register, rule.cfa_offset)
            for number, name in enumerate(DWARF_NAMES):
                wanted = rule.saved.get(name, rule.held.get(name, "lost" if name in rule.lost else "same"))
                assert described(row.get(number)) == wanted, (hex(address), name)
            compared += 1
    assert compared == len(written.rules) > 5000


def arguments(dwarf: Any) -> dict[int, list[list[tuple[int, int, bytes]]]]:
    """For each function by its address: of each argument in a register, from where to where it is found how."""
    lists = dwarf.location_lists()
    found: dict[int, list[list[tuple[int, int, bytes]]]] = {}
    for unit in dwarf.iter_CUs():
        base = unit.get_top_DIE().attributes["DW_AT_low_pc"].value
        for entry in unit.iter_DIEs():
            if entry.tag == "DW_TAG_formal_parameter":
                where = entry.attributes["DW_AT_location"]
                if where.form == "DW_FORM_sec_offset":
                    found.setdefault(entry.get_parent().attributes["DW_AT_low_pc"].value, []).append([
                        (base + item.begin_offset, base + item.end_offset, bytes(item.loc_expr))
                        for item in lists.get_location_list_at_offset(where.value, entry)])
    return found


def test_every_argument_is_where_the_file_says_it_is(dwarf: Any, written: Written) -> None:
    declared = arguments(dwarf)
    ranges = sorted((start, end) for image in written.images for start, end in image.functions.values())
    compared = 0
    given: dict[tuple[int, int], dict[str, int]] = {}        # by function and CFA: the registers at its entry
    with sandbox.boot("12") as kernel:
        assert kernel.symbols.images == written.images
        for _ in range(2500):
            now = dict(kernel.machine.cpu.registers())
            rip, rule = now["rip"], written.rules[now["rip"]]
            function = next(start for start, end in reversed(ranges) if start <= rip)
            assert rule is not None
            frame = (function, now[rule.cfa_register] + rule.cfa_offset)
            if rip == function:
                given[frame] = now
            for register, places in zip(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), declared.get(function, []),
                                        strict=False):
                for how in (how for start, end, how in places if start <= rip < end and frame in given):
                    value = (now[DWARF_NAMES[how[0] - 0x50]] if how[0] != 0x91
                             else kernel.memory.u64(frame[1] + fbreg(how)))
                    assert value == given[frame][register], (kernel.symbolize(rip), register)
                    compared += 1
            kernel.machine.step()
    assert compared > 2000


def fbreg(code: bytes) -> int:
    """The offset in a DW_OP_fbreg."""
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8)
    return int(structs.Dwarf_sleb128("").parse(code[1:]))


# -- what gdb makes of it ---------------------------------------------------------------------------------------
def test_gdb_finds_functions_lines_and_sources(written: Written, kernel: Image, program: Image) -> None:
    kmalloc = kernel.line(kernel.symbols["kmalloc"])
    slab = next((address, line) for address, (file, line) in sorted(kernel.lines.items())
                if file == "kernel_asm/slab.asm" and line >= 120)
    assert kmalloc is not None
    out = written.gdb("info line kmalloc", f"break slab.asm:{slab[1]}", "list kmalloc", "info symbol kmalloc",
                      "info scope kmalloc", "break main", f"list slab.asm:{slab[1]},{slab[1]}")
    assert f'Line {kmalloc.number} of "kernel_asm/kmalloc.asm" starts at address {kernel.symbols["kmalloc"]:#x}' in out
    assert f"Breakpoint 1 at {slab[0]:#x}: file kernel_asm/slab.asm, line {slab[1]}." in out
    assert f"{kmalloc.number}\t{kmalloc.text}" in out
    assert "kmalloc in section .text" in out
    assert re.search("Breakpoint 2 at .*: file examples/12_page_fault.asm", out)
    assert kernel.files["kernel_asm/slab.asm"].splitlines()[slab[1] - 1] in out


def test_gdb_breaks_at_the_first_instruction_when_told_that_asm_is_assembly(written: Written, program: Image) -> None:
    out = written.gdb("set extension-language .asm asm", "break main")
    assert f"Breakpoint 1 at {program.symbols['main']:#x}" in out


def test_gdb_knows_the_kernels_structures_and_numbers(written: Written) -> None:
    fields = [(struct, field) for struct in abi.STRUCTS for field in struct.fields]
    numbers = list(abi.constants())
    out = written.gdb(*(f"print sizeof(struct {struct.__name__})" for struct in abi.STRUCTS),
                      *(f"print/d &((struct {struct.__name__} *) 0)->{field.name}" for struct, field in fields),
                      *(f"print sizeof(((struct {struct.__name__} *) 0)->{field.name})" for struct, field in fields),
                      *(f"print/d {name}" for name, _ in numbers))
    found = [int(line.partition(" = ")[2]) & (1 << 64) - 1 for line in out.splitlines()]
    assert found == [*(struct.size for struct in abi.STRUCTS), *(field.offset for _, field in fields),
                     *(field.size for _, field in fields), *(value for _, value in numbers)]


def test_gdb_knows_what_a_variable_a_field_or_a_function_is(written: Written) -> None:
    kinds = {
        "mem_map": "struct page *", "slab_caches": "struct list_head", "kmem_cache_cache": "struct kmem_cache",
        "kmalloc_caches": "struct kmem_cache *[13]", "free_areas": "struct free_area [11]",
        "boot_params": "struct boot_info *", "panic_info": "struct panic_record", "max_pfn": "u64",
        "((struct page *) 0)->cache": "struct kmem_cache *", "((struct page *) 0)->freelist": "void *",
        "((struct page *) 0)->next": "struct list_head *", "((struct kmem_cache *) 0)->name": "char [32]",
        "((struct kmem_cache *) 0)->partial": "struct list_head", "((struct page *) 0)->inuse": "u16",
        "kmalloc": "void *(u64)", "kfree": "void (void *)", "kprintf": "int (char *, ...)",
        "slab_create": "struct page *(struct kmem_cache *)", "strscpy": "s64 (char *, char *, u64)",
        "kmem_cache_create": "struct kmem_cache *(char *, u64, u64, u32, void *)", "trap_entry": "void (void)",
        "kmem_cache_alloc_bulk": "int (struct kmem_cache *, u64, void **)",
    }
    out = written.gdb(*(f"whatis {expression}" for expression in kinds))
    found = [line.removeprefix("type = ") for line in out.splitlines()]
    assert found == [kind.replace("struct ", "") for kind in kinds.values()]


# -- a session in QEMU ------------------------------------------------------------------------------------------
LOOP = """
.text
main:
    push rbp
    mov rbp, rsp
.Lagain:
    mov edi, 40
    call kmalloc
    mov rdi, rax
    call kfree
    jmp .Lagain
"""
FOLLOWED = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15", "rip")


@pytest.fixture(scope="module")
def session(kernel: Image, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What gdb said, line by line, of a guest in QEMU: at a call, and in a timer interrupt."""
    if shutil.which("gdb") is None or shutil.which(QEMU) is None:
        pytest.skip("no gdb, or no QEMU")
    directory = tmp_path_factory.mktemp("session")
    options = BootOptions()
    program = packaged.program_image(Source("loop.asm", LOOP, directory), kernel)
    (directory / "image").write_bytes(export(kernel, program, options))
    write_symbols(directory / "symbols", (kernel, program))
    machine = [*qemu_command("image", options), "-S", "-gdb", "stdio"]
    machine[machine.index("-serial") + 1] = "null"        # standard output is gdb's
    commands = [
        f"target remote | exec {shlex.join(machine)}", "hbreak *kmalloc", "continue", "backtrace", "finish",
        "delete", "hbreak timer_interrupt", "continue", "backtrace", "set $regs = (struct pt_regs *) $rdi",
        "up 3", *(f"printf \"{name} %lx %lx\\n\", ${name}, $regs->{name}" for name in FOLLOWED), "kill"]
    arguments = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(["gdb", "-nx", "-q", "-batch", *arguments, "symbols"], cwd=directory, timeout=60,
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.splitlines()


def test_gdb_walks_a_call_in_qemu_and_finishes_it(session: list[str]) -> None:
    at = session.index("#0  kmalloc (size=40) at kernel_asm/kmalloc.asm:64")
    assert re.fullmatch(r"#1  0xffffffffa000000e in main \(\) at loop\.asm:8", session[at + 1])
    assert session[at + 2 : at + 4] == ["main () at loop.asm:9", "9\t    mov rdi, rax"]
    assert re.fullmatch(r"Value returned is \$1 = \(void \*\) 0xffff8880\w{8}", session[at + 4])


def test_gdb_walks_through_an_interrupt_in_qemu_to_the_interrupted_registers(session: list[str]) -> None:
    at = next(number for number, line in enumerate(session) if line.startswith("#0  timer_interrupt (regs=0x"))
    regs = session[at].partition("regs=")[2].partition(")")[0]
    assert re.fullmatch(rf"#1  0x\w+ in trap_handle \(regs={regs}\) at kernel_asm/traps.asm:\d+", session[at + 1])
    assert session[at + 2] == "#2  <signal handler called>"
    assert any(re.match(r"#\d+ .* ?main \(\) at loop.asm:", line) for line in session[at + 3 :])
    found = {words[0]: words[1:] for words in map(str.split, session) if words and words[0] in FOLLOWED}
    assert set(found) == set(FOLLOWED) and all(shown == saved for shown, saved in found.values())


# -- the files --------------------------------------------------------------------------------------------------
def test_the_sources_lie_beside_the_file_as_they_were_assembled(written: Written) -> None:
    for image in written.images:
        for name, text in image.files.items():
            assert (written.sources / name).read_text("utf-8") == text


def test_the_same_program_gives_the_same_file_whatever_the_order_of_hashes(kernel: Image, tmp_path: Path) -> None:
    path = tmp_path / "kernel.elf"
    write_symbols(path, (kernel,))
    first = path.read_bytes()
    script = ("import sys; from pathlib import Path; from sandbox.toolchain.packaged import kernel_image;"
              "from sandbox.toolchain.symbols_file import write_symbols;"
              "write_symbols(Path(sys.argv[1]), (kernel_image(),))")
    subprocess.run([sys.executable, "-c", script, path], check=True, cwd=Path(abi.__file__).parent.parent,
                   env={**os.environ, "PYTHONHASHSEED": "12345"})
    assert path.read_bytes() == first


@pytest.mark.parametrize(("names", "paths"), [
    (["kernel_asm/slab.asm"], ["kernel_asm/slab.asm"]),
    (["/home/me/x.asm", "../x.asm", "x.asm"], ["home/me/x.asm", "x.asm", "other/x.asm"]),
    (["../../etc/passwd", "a/./b.asm", "C:\\work\\p.asm"], ["etc/passwd", "a/b.asm", "C:/work/p.asm"]),
])
def test_no_source_is_written_outside_its_directory_or_over_another(names: list[str], paths: list[str]) -> None:
    assert list(source_paths(names).values()) == paths


def test_a_place_that_cannot_be_written_is_one_sentence(written: Written, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file or directory"):
        write_symbols(tmp_path / "nowhere" / "file", written.images, written.unwind)
    (tmp_path / "file.src").write_text("in the way")
    with pytest.raises(ExportError, match=r"file\.src"):
        write_symbols(tmp_path / "file", written.images, written.unwind)


@pytest.mark.parametrize("value", [0, 1, 63, 64, 127, 128, 129, 300, 0xFFFF_FFFF_FFFF_FFFF])
def test_numbers_are_written_as_the_standard_says(value: int) -> None:
    stream = io.BytesIO(uleb(value) + sleb(value) + sleb(-value))
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8)
    assert [structs.Dwarf_uleb128("").parse_stream(stream), structs.Dwarf_sleb128("").parse_stream(stream),
            structs.Dwarf_sleb128("").parse_stream(stream)] == [value, value, -value]
    assert not stream.read()
