"""Linking objects into the guest: against GNU ld where it can say what is right, by running where it cannot."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

import sandbox
from sandbox.abi import PROGRAM_BASE
from sandbox.errors import GuestFault, LinkError, ProgramError, SandboxError
from sandbox.guest.export import export, run_qemu
from sandbox.guest.images import make_images
from sandbox.guest.options import BootOptions
from sandbox.toolchain.c.definitions import Outside
from sandbox.toolchain.c.link import link
from sandbox.toolchain.c.objects import ObjectFile
from sandbox.toolchain.image import Image
from sandbox.toolchain.packaged import kernel_image

FLAGS = ("-ffreestanding", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fno-pic",
         "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-g", "-O1")
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("ld") is None, reason="needs gcc and ld")


def compiled(directory: Path, text: str, *flags: str, name: str = "my", cc: str = "gcc") -> Path:
    """An object that the host's compiler makes, without our driver."""
    source, out = directory / f"{name}.c", directory / f"{name}.o"
    source.write_text(text)
    subprocess.run([cc, *FLAGS, *flags, "-c", "-o", out.name, source.name], check=True, cwd=directory,
                   capture_output=True)
    return out


def assembled(directory: Path, text: str, name: str = "my") -> Path:
    """An object of GNU as, in Intel syntax."""
    out = directory / f"{name}.o"
    subprocess.run(["as", "-o", out, "-"], input=f".intel_syntax noprefix\n{text}\n".encode(), check=True,
                   capture_output=True)
    return out


def linked(*paths: Path, **symbols: int) -> Image:
    """Objects linked alone."""
    return link([ObjectFile.read(path, path.name) for path in paths], PROGRAM_BASE, Outside(symbols))


def problems(*paths: Path, **symbols: int) -> tuple[str, ...]:
    """What linking says is wrong."""
    with pytest.raises(LinkError) as caught:
        linked(*paths, **symbols)
    return caught.value.problems


# -- relocations ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", [
    ".quad target, target + 5, target - 5",
    ".long target - .; .long target - . + 9; call target; jmp target; lea rax, [rip + target]",
    "mov rax, offset target; mov qword ptr [rbx], offset target; mov eax, [target]; mov eax, [target + rcx * 4]",
    ".reloc ., R_X86_64_32, small + 3; .long 0; .reloc ., R_X86_64_16, small; .word 0; .reloc ., R_X86_64_8, tiny; "
    ".byte 0",
    ".word target - .; .byte target - . ; .quad target - . + 1; .reloc ., R_X86_64_NONE, target; nop",
    ".reloc ., R_X86_64_SIZE32, target; .long 0; .reloc ., R_X86_64_SIZE64, target + 1; .quad 0",
], ids=["64", "pc-relative", "32s", "narrow", "pc16-pc8-pc64", "size"])
def test_every_relocation_writes_what_gnu_ld_writes(tmp_path: Path, text: str) -> None:
    body = f"{text}\n.p2align 4\n.globl target\n.type target, @function\ntarget: nop; ret\n.size target, 2\n"
    path = assembled(tmp_path, f".set small, 0x1234\n.set tiny, 0x12\n.globl small, tiny\n.text\n{body}")
    out = tmp_path / "out"
    subprocess.run(["ld", "-Ttext", hex(PROGRAM_BASE), "-e", "target", "--no-relax", "-o", out, path], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", out], check=True)
    expected = out.read_bytes()
    image = linked(path)
    assert image.bytes()[: len(expected)] == expected
    assert image.text_end - image.base == len(expected)


def test_position_independent_code_finds_addresses_in_a_table(tmp_path: Path) -> None:
    path = compiled(tmp_path, "extern int other; int *where(void) { return &other; } int get(void) { return other; }"
                              "int other = 41;", "-fPIC", "-mcmodel=small", "-O2")
    with sandbox.boot(modules=[path]) as kernel:
        assert kernel.call("get") == 41
        assert kernel.call("where") == kernel.symbols["other"]
        section = kernel.program.section("rodata") if kernel.program else None
        assert section is not None and kernel.symbols["other"].to_bytes(8, "little") in section.data


def test_an_address_that_does_not_fit_is_told_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    path = compiled(tmp_path, "extern int far_away;\n\nint get(void) {\n    return far_away;\n}\n", "-mcmodel=kernel")
    found = problems(path, far_away=0xFFFF_8880_0000_0000)
    assert len(found) == 1 and found[0].startswith("my.c:4: ") and "'far_away', 0xffff888000000000" in found[0]
    low = assembled(tmp_path, "mov edi, offset target\ntarget: ret", "low")
    assert "R_X86_64_32" in problems(low)[0] and "-mcmodel=kernel" in problems(low)[0]


def test_an_unsupported_relocation_is_named(tmp_path: Path) -> None:
    path = assembled(tmp_path, ".reloc ., R_X86_64_GOTOFF64, target\n.quad 0\ntarget: ret")
    assert problems(path) == ("0xffffffffa0000000: 'target' has a relocation that is not supported: R_X86_64_GOTOFF64",)


# -- names ------------------------------------------------------------------------------------------------------
MAIN = """
int kprintf(const char *format, ...);
extern int shared, tentative[4];
int twice(int value);
static __attribute__((noinline)) int helper(int value) { return value + 1; }
static const char *const names[] = {"one", "two"};
int weakly(void) { return 2; }
int __attribute__((weak)) absent(void);
int main(void)
{
    kprintf("%s %d %d %d %d %d\\n", names[1], helper(twice(4)), shared, tentative[3], weakly(), absent != 0);
    return 0;
}
"""
MORE = """
int shared = 7, tentative[4];
static int helper(int value) { return 2 * value; }
int (*table[])(int) = {helper};
int __attribute__((weak)) weakly(void) { return 1; }
int twice(int value) { return table[0](value); }
"""


@pytest.mark.parametrize(("cc", "level"), [("gcc", "-O0"), ("gcc", "-O2"), ("clang", "-O2")])
def test_modules_that_call_each_other_run(tmp_path: Path, cc: str, level: str) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not here")
    paths = [compiled(tmp_path, text, level, "-fcommon", name=name, cc=cc) for name, text in (("a", MAIN), ("b", MORE))]
    with sandbox.boot(paths[0], modules=paths[1:], shadow=True) as kernel:
        assert kernel.run().ok
        assert kernel.console.endswith("two 9 7 0 2 0\n")
    with sandbox.boot(modules=paths) as kernel:
        assert kernel.call("twice", 21) == 42


def test_a_relocatable_of_several_objects_works_the_same(tmp_path: Path) -> None:
    paths = [compiled(tmp_path, text, name=name) for name, text in (("a", MAIN), ("b", MORE))]
    subprocess.run(["ld", "-r", "-o", tmp_path / "both.o", *paths], check=True)
    with sandbox.boot(tmp_path / "both.o") as kernel:
        assert kernel.run().ok and kernel.console.endswith("two 9 7 0 2 0\n")
        assert {"helper", "helper@b.c"} <= set(kernel.symbols)
        assert str(kernel.line(kernel.symbols["twice"])).endswith("b.c:6")


def test_static_functions_of_one_name_keep_their_own(tmp_path: Path) -> None:
    paths = [compiled(tmp_path, f"static __attribute__((noinline)) int get(void) {{ return {number}; }}\n"
                                f"int get_{name}(void) {{ return get(); }}", name=name)
             for number, name in enumerate("ab")]
    image = linked(*paths)
    assert {"get", "get@b.c", "get_a", "get_b"} == set(image.symbols) and image.exports.keys() == {"get_a", "get_b"}
    with sandbox.boot(modules=paths) as kernel:
        assert [kernel.call("get_a"), kernel.call("get_b"), kernel.call("get@b.c")] == [0, 1, 1]


def test_a_static_function_may_be_called_as_one_of_the_kernel_is(tmp_path: Path) -> None:
    path = compiled(tmp_path, "static __attribute__((noinline)) int kfree(void) { return 3; }"
                              "int own(void) { return kfree(); }")
    with sandbox.boot(modules=[path]) as kernel:
        assert kernel.call("own") == 3
        kernel.call("kfree", kernel.call("kmalloc", 8))
        assert kernel.symbols["kfree"] == kernel.image.symbols["kfree"] and "kfree@my.c" in kernel.symbols


def test_a_global_that_the_kernel_has_is_refused_with_both_places(tmp_path: Path) -> None:
    path = compiled(tmp_path, "void kfree(void *p) { (void)p; }")
    with pytest.raises(LinkError, match=r"'kfree' is already defined at kernel_asm/kmalloc.asm:\d+: choose another"):
        sandbox.boot(modules=[path])


def test_what_the_c_library_defines_a_module_may_define_itself(tmp_path: Path) -> None:
    path = compiled(tmp_path, "unsigned long strlen(const char *s) { return 99; }"
                              "int own(void) { return strlen(\"a\"); }", "-fno-builtin")
    with sandbox.boot(modules=[path]) as kernel:
        assert kernel.call("own") == 99 and kernel.call("strlen", "four") == 4


def test_two_definitions_are_refused_and_name_both_objects(tmp_path: Path) -> None:
    paths = [compiled(tmp_path, "int twice(int v) { return v; }", name=name) for name in "ab"]
    assert problems(*paths) == ("'twice' is defined twice: in a.o and in b.o",)


def test_all_undefined_symbols_are_told_with_all_their_places(tmp_path: Path) -> None:
    path = compiled(tmp_path, "int kmaloc(int);\nextern int table[];\nint one(void)\n{\n    return kmaloc(1);\n}\n"
                              "int two(void)\n{\n    return kmaloc(2) + table[3];\n}\n")
    found = problems(path, kmalloc=1 << 20)
    assert sorted(found) == ["my.c:5, my.c:9: 'kmaloc' is not defined; did you mean 'kmalloc'?",
                             "my.c:9: 'table' is not defined"]
    with pytest.raises(LinkError) as caught:
        sandbox.boot(modules=[path])
    assert str(caught.value).startswith(f"{path} cannot be linked:\n    my.c:5") or "my.c:5" in str(caught.value)


# -- sections ---------------------------------------------------------------------------------------------------
def test_sections_have_their_rights(tmp_path: Path) -> None:
    path = compiled(tmp_path, """
        const int fixed[] = {1, 2, 3}; int given = 5; int zeros[2000]; void (*const pointers[])(void);
        void write_fixed(void) { *(volatile int *)fixed = 9; }
        void write_code(void) { *(volatile char *)write_fixed = 9; }
        void run_data(void) { ((void (*)(void))&given)(); }
        int sum(void) { given++; zeros[1999] = 4; return given + zeros[1999] + fixed[2]; }
    """)
    with sandbox.boot(modules=[path]) as kernel:
        assert kernel.program is not None
        assert [(section.name, section.rights) for section in kernel.program.sections] == [
            ("text", "r-x"), ("rodata", "r--"), ("data", "rw-")]
        assert kernel.call("sum") == 13
        for function, target in (("write_fixed", "fixed"), ("write_code", "write_fixed"), ("run_data", "given")):
            with pytest.raises(GuestFault) as caught:
                kernel.call(function)
            assert caught.value.address == kernel.symbols[target]
            kernel.rewind()


def test_the_text_ends_in_a_page_of_int3_and_gaps_are_int3_too(tmp_path: Path) -> None:
    paths = [compiled(tmp_path, f"int {name}(void) {{ return 1; }}", name=name) for name in ("a", "b")]
    image = linked(*paths)
    text = image.section("text")
    assert text is not None and text.data[-4096:] == b"\xcc" * 4096
    assert set(text.data[image.functions["a"][0] - image.base + 6 : image.symbols["b"] - image.base]) <= {0xCC}


@pytest.mark.parametrize(("text", "flags", "said"), [
    ("_Thread_local int mine; int get(void) { return mine; }", ("-fno-pic",), "'mine' is thread-local"),
    ("int x; __attribute__((constructor)) void begin(void) { x = 1; }", (), ".init_array: constructors"),
    ('__attribute__((section(".both,\\"awx\\"#"))) int both = 1;', (), "to be written and executed"),
])
def test_sections_that_cannot_be_are_refused(tmp_path: Path, text: str, flags: tuple[str, ...], said: str) -> None:
    assert said in "\n".join(problems(compiled(tmp_path, text, *flags)))


def test_an_image_as_json_is_the_same_image(tmp_path: Path) -> None:
    image = linked(compiled(tmp_path, MORE))
    assert image.debug and image.debug_offsets and image.local
    assert Image.from_json(image.to_json()) == image


def test_linking_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = compiled(tmp_path, MORE)
    assert linked(path).to_json() == linked(path).to_json()


# -- files that are no objects ----------------------------------------------------------------------------------
def test_files_that_are_no_x86_64_objects_are_refused_by_what_they_are(tmp_path: Path) -> None:
    good = compiled(tmp_path, MORE)
    data = bytearray(good.read_bytes())
    cases: dict[str, tuple[bytes, str]] = {
        "text": (b"int main;", "no ELF object file"), "empty": (b"", "no ELF object"),
        "archive": (b"!<arch>\n", "an archive")}
    data[18] = 183                               # EM_AARCH64
    cases["arm"] = bytes(data), "another machine (AArch64, 64 bits)"
    data[18], data[4] = 62, 1
    cases["narrow"] = bytes(data[:400]), "is"
    subprocess.run(["ld", "-e", "twice", "-o", tmp_path / "whole", good], check=True)
    cases["executable"] = (tmp_path / "whole").read_bytes(), "an executable"
    cases["cut"] = good.read_bytes()[:200], "damaged"
    for name, (content, said) in cases.items():
        path = tmp_path / f"{name}.o"
        path.write_bytes(content)
        with pytest.raises(LinkError, match=f"{name}.o: ") as caught:
            sandbox.boot(modules=[path])
        assert said in str(caught.value), name
    with pytest.raises(ProgramError, match="no such file"):
        sandbox.boot(modules=[tmp_path / "missing.o"])


def test_lto_objects_are_refused(tmp_path: Path) -> None:
    assert "-flto" in problems(compiled(tmp_path, MORE, "-flto", "-fno-fat-lto-objects"))[0]


def test_a_damaged_object_is_one_typed_error_whatever_is_damaged(tmp_path: Path) -> None:
    data, seed = compiled(tmp_path, MAIN.replace("main", "entry"), "-fcommon").read_bytes(), 6
    chance, path = random.Random(seed), tmp_path / "bad.o"
    known = dict.fromkeys(("kprintf", "shared", "tentative", "twice"), 0x1000)
    refused = 0
    for _ in range(80):
        broken = bytearray(data)
        for _ in range(chance.choice((1, 3, 30))):
            broken[chance.randrange(16 if chance.random() < 0.9 else 0, len(broken))] = chance.randrange(256)
        path.write_bytes(broken[: chance.randrange(64, len(broken))] if chance.random() < 0.2 else broken)
        try:
            linked(path, **known)
        except SandboxError:
            refused += 1
    assert refused > 10


# -- elsewhere --------------------------------------------------------------------------------------------------
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs QEMU")
def test_a_linked_program_prints_the_same_in_qemu(tmp_path: Path) -> None:
    paths = [compiled(tmp_path, text, name=name) for name, text in (("a", MAIN), ("b", MORE))]
    options = BootOptions()
    images = make_images(kernel_image(), paths[0], paths[1:])
    there = run_qemu(export(images.kernel, images.program, options, images.modules), options)
    with sandbox.boot(paths[0], modules=paths[1:]) as kernel:
        assert kernel.run().status == there.status == 33
        assert there.console == kernel.console


def test_assembly_calls_its_modules_in_c_and_c_its_module_in_assembly(tmp_path: Path) -> None:
    c = compiled(tmp_path, "int twice(int v) { return 2 * v; }")
    with sandbox.boot("main:\nmov edi, 21\ncall twice\nsub eax, 42\nret\n", modules=[c]) as kernel:
        assert kernel.run().ok and kernel.modules is not None
        assert kernel.backtrace()
    main = compiled(tmp_path, "int thrice(int v); int main(void) { return thrice(3) - 9; }", name="main")
    (tmp_path / "fast.asm").write_text("thrice: lea eax, [rdi + rdi * 2]\nret\n")
    with sandbox.boot(main, modules=[tmp_path / "fast.asm"]) as kernel:
        assert kernel.run().ok and kernel.call("thrice", 5) == 15
        timeline = sandbox.record(kernel)
        timeline.save(tmp_path / "run.rec")
    again = sandbox.open_record(tmp_path / "run.rec")
    assert again.kernel.modules is not None and again.kernel.call("thrice", 6) == 18
