"""Code that a module may not have is found, with its line, and nothing else is taken for it."""

from __future__ import annotations

import platform
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import sandbox
from sandbox.errors import LinkError
from sandbox.toolchain.c.red_zone import red_zone
from sandbox.toolchain.c.refused import SHOWN, floating_point_helper, refused
from sandbox.toolchain.disassembler import Outline
from sandbox.toolchain.image import Image

BASE = 0xFFFFFFFFA0000000
FLOATING = ": the kernel saves no floating point registers; compile with -mgeneral-regs-only, or use integers"
Function = tuple[str, int, int]


def _tools(*commands: str) -> None:
    missing = [command for command in commands if shutil.which(command) is None]
    if missing or platform.machine() != "x86_64":
        pytest.skip(f"no {', '.join(missing)} for x86-64")


def _text(path: Path) -> tuple[bytes, list[Function]]:
    """The code of an object with one text section, and its functions."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        index = elf.get_section_index(".text")
        functions = [(symbol.name, symbol["st_value"], symbol["st_value"] + symbol["st_size"])
                     for table in elf.iter_sections("SHT_SYMTAB") for symbol in table.iter_symbols()
                     if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] == index]
        return elf.get_section(index).data(), sorted(functions, key=lambda function: function[1])


def _compile(directory: Path, text: str, command: str) -> Path:
    (directory / "my.c").write_text(text)
    subprocess.run([*command.split(), "-w", "-g", "-c", "-o", "my.o", "my.c"], cwd=directory, check=True)
    return directory / "my.o"


@pytest.fixture
def bytes_of(tmp_path: Path) -> Callable[[str], bytes]:
    """What GNU as makes of a text in Intel syntax."""
    _tools("as")

    def assemble(text: str) -> bytes:
        (tmp_path / "t.s").write_text(f".intel_syntax noprefix\n{text}\n")
        subprocess.run(["as", "-o", "t.o", "t.s"], cwd=tmp_path, check=True)
        return _text(tmp_path / "t.o")[0]

    return assemble


# -- sentences --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", ["gcc -O1", "clang -O1", "gcc -Os"])
def test_floating_point_in_c_is_named_with_its_instruction_its_function_and_its_line(
        tmp_path: Path, command: str) -> None:
    _tools(command.split()[0], "addr2line")
    path = _compile(tmp_path, "long sum(long a)\n{\n    return a + 1;\n}\nlong area(long r)\n{\n    double exact = r;\n"
                              "    return exact * 3.14;\n}\n", command)
    text, functions = _text(path)

    def line_of(address: int) -> str:
        done = subprocess.run(["addr2line", "-e", path, hex(address)], capture_output=True, text=True, check=True)
        return done.stdout.strip().split("/")[-1]

    found = refused(text, 0, functions, line_of)
    assert {sentence.split(": ")[0] for sentence in found} == {"my.c:7", "my.c:8"}
    for sentence in found:
        assert re.fullmatch(r"my\.c:[78]: '[a-z0-9]+ [^']*xmm0[^']*' in area\(\) is SSE code" + re.escape(FLOATING),
                            sentence)


def test_the_first_lines_are_named_and_the_others_counted(bytes_of: Callable[[str], bytes]) -> None:
    text = bytes_of("addss xmm1, xmm2\nret\n" * (SHOWN + 31))
    found = refused(text, BASE, [("f", BASE, BASE + len(text))], hex)
    assert len(found) == SHOWN + 1 and found[-1] == "... and 31 more"
    assert found[1] == f"{BASE + 5:#x}: 'addss xmm1, xmm2' in f() is SSE code{FLOATING}"
    assert len(refused(text[: 5 * SHOWN], BASE, [], hex)) == SHOWN


def test_a_line_is_named_once(bytes_of: Callable[[str], bytes]) -> None:
    text = bytes_of("fld1\nfaddp\naddss xmm1, xmm2\n" * 5)
    found = refused(text, BASE, [], lambda address: "my.c:3")
    assert found == [f"my.c:3: 'fld1' is x87 code{FLOATING}"]


@pytest.mark.parametrize(("name", "why"), [
    ("rdtsc", "reads the host"), ("rdtscp", "reads the host"),
    ("rdrand rax", "is random"), ("rdrand r9w", "is random"), ("rdseed ecx", "is random")])
def test_what_reads_the_host_is_refused_as_the_linter_does(
        bytes_of: Callable[[str], bytes], name: str, why: str) -> None:
    [sentence] = refused(bytes_of(f"nop\n{name}\nret"), BASE, [("clock", BASE, BASE + 9)], lambda address: "a.c:1")
    assert sentence.startswith(f"a.c:1: '{name}' in clock() is refused: {name.split()[0]} {why}")


# -- kinds ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "kind"), [
    ("fninit", "x87"), ("fwait", "x87"), ("fld qword ptr [rax]", "x87"), ("fild word ptr [rsi + 4]", "x87"),
    ("fstp st(3)", "x87"), ("fxch st(1)", "x87"), ("fnstcw [rsp]", "x87"), ("fldz", "x87"), ("fcmove st, st(1)", "x87"),
    ("emms", "MMX"), ("femms", "MMX"), ("movq mm3, rax", "MMX"), ("paddb mm1, [rdi]", "MMX"), ("pfadd mm0, mm1", "MMX"),
    ("movss xmm0, [rip + 0x10]", "SSE"), ("cvttsd2si rax, qword ptr [rdi]", "SSE"),
    ("cvtss2si eax, dword ptr [rdi]", "SSE"),
    ("movdqu [r9 + r10*8], xmm15", "SSE"), ("ldmxcsr [rsp]", "SSE"), ("stmxcsr [rsp]", "SSE"), ("fxsave [rdi]", "SSE"),
    ("fxrstor64 [rdi]", "SSE"), ("xsave [rdi]", "SSE"), ("xsavec64 [rdi]", "SSE"), ("xrstor [rdi]", "SSE"),
    ("pextrb eax, xmm3, 1", "SSE"), ("movmskps eax, xmm1", "SSE"), ("ptest xmm1, xmm2", "SSE"),
    ("aesenc xmm1, xmm2", "SSE"), ("sha256rnds2 xmm1, xmm2, xmm0", "SSE"), ("maskmovdqu xmm1, xmm2", "SSE"),
    ("vaddps xmm1, xmm2, xmm3", "AVX"), ("vmovdqu ymm1, [rdi]", "AVX"), ("vzeroupper", "AVX"),
    ("vldmxcsr [rdi]", "AVX"),
    ("vcvttss2si eax, dword ptr [rdi]", "AVX"), ("vpgatherdd ymm1, [rax + ymm2*4], ymm3", "AVX"),
    ("vextracti128 [rdi], ymm1, 1", "AVX"), ("vaddps zmm1, zmm2, zmm3", "AVX-512"), ("kmovq k1, rax", "AVX-512"),
    ("vmovdqu8 xmm1{k1}, [rdi]", "AVX-512"), ("kortestb k1, k2", "AVX-512"),
])
def test_each_register_file_is_known(bytes_of: Callable[[str], bytes], text: str, kind: str) -> None:
    [sentence] = refused(bytes_of(f"{text}\nret"), BASE, [], lambda address: "x")
    assert sentence.startswith("x: '") and sentence.endswith(f" is {kind} code{FLOATING}")


@pytest.mark.parametrize("code", ["c4e272500f", "62f17648c244c81010"])
def test_vectors_that_the_disassembler_does_not_know_are_named_by_their_bytes(code: str) -> None:
    """AVX-VNNI-INT8 and AVX512-FP16."""
    text = b"\x90" + bytes.fromhex(code) + b"\xc3"
    sentence = refused(text, BASE, [("f", BASE, BASE + len(text))], hex)[0]
    assert sentence == (f"{BASE + 1:#x}: '.byte {', '.join(map(hex, text[1:7]))}' in f() is newer than the guest's "
                        "processor: compile with -march=x86-64 -mgeneral-regs-only")


INTEGERS = """
nop; pause; endbr64; lfence; mfence; sfence; cpuid; lock cmpxchg16b [rdi]; prefetcht0 [rdi]; prefetchnta [rdi]
prefetchw [rdi]; movnti [rdi], rax; clflush [rdi]; popcnt eax, ecx; crc32 eax, byte ptr [rdi]; lzcnt eax, ecx
andn eax, ebx, ecx; bzhi rax, rbx, rcx; mulx rax, rbx, rcx; shlx eax, [rdi], ecx; pdep rax, rbx, rcx; adcx eax, ebx
nop word ptr [rax + rax*1 + 0]; cs nop word ptr [rax + rax*1 + 0]
.byte 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0
rep stosq; rep movsb; repne scasb; xlatb; verr ax; verw [rdi]; xgetbv; lar eax, cx; str eax; wrmsr; rdmsr; swapgs
movbe eax, [rdi]; xchg al, ah; bswap r9; cmovp eax, ecx; setnp al; sysretq; iretq; in al, dx; out dx, eax; ud2; int3
invlpg [rdi]; rdfsbase rax; wrgsbase rax; fs:mov eax, [rdi]; bnd jmp rax; xbegin .; xabort 1; rdpid rax; enter 16, 0
vmcall; push fs; pop gs; mov dr7, rax; mov rax, cr4; movabs rax, [0x6261666564636261]; lods eax, [rsi]; adc al, 0xd9
"""


def test_integer_instructions_of_every_age_are_welcome(bytes_of: Callable[[str], bytes]) -> None:
    for text in INTEGERS.replace("\n", ";").split(";"):
        assert refused(bytes_of(f"{text}\nnop"), BASE, [], hex) == [], text


# -- real code --------------------------------------------------------------------------------------------------

HEAP = """
typedef unsigned long size_t;
typedef struct chunk { size_t prev, head; struct chunk *fd, *bk, *child[2]; } chunk;
static struct { unsigned map; chunk *bins[66]; char bytes[2048]; struct { int a:3, b:29; } bits; } heap;
void *memset(void *, int, size_t);
static unsigned bin(size_t size)
{
    unsigned top = 63 - __builtin_clzl(size | 1);
    return (top << 1) + (size >> (top - 1) & 1);
}
static void unlink_chunk(chunk *p)
{
    chunk *f = p->fd, *b = p->bk;
    if (f == b)
        heap.map &= ~(1u << bin(p->head));
    f->bk = b;
    b->fd = f;
}
void *allocate(size_t size)
{
    size_t need = (size + 31) & ~15ul;
    unsigned at = bin(need);
    for (unsigned left = heap.map >> at; left; left &= left - 1)
        for (chunk *p = heap.bins[at + __builtin_ctz(left)]; p; p = p->fd)
            if ((p->head & ~7ul) >= need) {
                unlink_chunk(p);
                return p + 1;
            }
    return 0;
}
int kind(int letter)
{
    switch (letter) {
    case 'a': return heap.bits.a;
    case 'b': return heap.bits.b;
    case 'c': return 17 * heap.map;
    case 'd': return allocate(1) != 0;
    case 'e': return heap.map / 7;
    case 'f': return -3 % (int)(heap.map | 1);
    default: return 1;
    }
}
void clear(void)
{
    memset(&heap, 0, sizeof heap);
    for (int i = 0; i < 64; i++)
        heap.bins[i] = heap.bins[65 - i];
}
chunk copy(const chunk *p) { chunk other = *p; other.child[0] = p->child[1]; return other; }
unsigned long hash(const unsigned char *s, size_t n) { size_t h = 5381; while (n--) h = h * 33 ^ *s++; return h; }
unsigned __int128 wide(unsigned long a, unsigned long b) { return (unsigned __int128)a * b >> 3; }
long swap(long *p, long v) { return __atomic_exchange_n(p, v, 5) + __sync_fetch_and_add(p, __builtin_popcountl(v)); }
int sums(const int *p, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += p[i] ^ heap.bytes[i & 2047];
    return sum;
}
"""


@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os", "-O3"])
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_an_allocator_of_integers_passes(tmp_path: Path, cc: str, level: str) -> None:
    _tools(cc)
    text, functions = _text(_compile(
        tmp_path, HEAP, f"{cc} {level} -mgeneral-regs-only -mcmodel=kernel -mno-red-zone -ffreestanding -fno-pic"))
    assert len(functions) >= 8 and refused(text, 0, functions, hex) == []


def test_the_same_allocator_vectorized_does_not(tmp_path: Path) -> None:
    _tools("gcc")
    text, functions = _text(_compile(tmp_path, HEAP, "gcc -O3 -ffreestanding -fno-pic"))
    assert " is SSE code" in refused(text, 0, functions, hex)[0]


def test_the_kernel_has_two_such_instructions_both_of_which_put_the_unit_in_order(kernel_image: Image) -> None:
    text = kernel_image.section("text")
    assert text is not None
    functions = sorted(((name, *ends) for name, ends in kernel_image.functions.items()), key=lambda each: each[1])
    started = time.process_time()
    found = refused(text.data[: kernel_image.text_end - kernel_image.base], kernel_image.base, functions,
                    lambda address: str(kernel_image.line(address)))
    assert time.process_time() - started < 0.5          # some 20 ms
    assert [re.findall(r"'(\w+).* in (\w+)", sentence) for sentence in found] == \
        [[("fninit", "_start")], [("ldmxcsr", "_start")]]


def test_data_behind_a_function_does_not_hide_the_beginning_of_the_next(bytes_of: Callable[[str], bytes]) -> None:
    code = bytes_of("ret\n.byte 0x48, 0xb8\nmovaps xmm1, xmm2\nnop\nnop\nnop\nnop\nnop\nret")
    functions = [("first", BASE, BASE + 1), ("second", BASE + 3, BASE + len(code))]
    [sentence] = refused(code, BASE, functions, hex)
    assert f"{BASE + 3:#x}: 'movaps xmm1, xmm2' in second()" in sentence
    assert refused(code, BASE, [("first", BASE, BASE + len(code))], hex) == []


def test_code_without_functions_is_judged_as_far_as_it_is_code(bytes_of: Callable[[str], bytes]) -> None:
    code = bytes_of("mov eax, 1\naddps xmm0, xmm1\nret\n.byte 0x06, 0x62, 0xc5, 0xc5\nmovaps xmm1, xmm2\nrdtsc")
    assert [sentence.split("'")[1] for sentence in refused(code, BASE, [], hex)] == ["addps xmm0, xmm1"]


# -- a second opinion -------------------------------------------------------------------------------------------

# What uses none of those registers, though GNU as has it only beside them: from SSE's time, and bounds registers.
_NO_REGISTERS = re.compile(r"prefetch|[lms]fence|movnti|clflush|crc32|popcnt|pause|bnd")


def _candidates() -> list[bytes]:
    """Instructions of the one-byte, 0f, 0f38, 0f3a, VEX and EVEX maps, with every prefix that chooses among them."""
    rng, found = random.Random(6), []
    operands = (b"\xc1", b"\x0f", b"\x44\xc8\x10", b"\x35\x10\x00\x00\x00")
    for prefix in (b"", b"\x66", b"\xf2", b"\xf3", b"\x48", b"\xf3\x48"):
        for opcode in range(256):
            for table in (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"):
                for operand in rng.sample(operands, 1):
                    found.append(prefix + table + bytes((opcode,)) + operand)
    for opcode in range(256):
        for space in (1, 2, 3):
            for vector in ((0xC4, 0xE0 | space, rng.choice((0x71, 0xF5, 0x72, 0xF3))),
                           (0x62, 0xF0 | space, rng.choice((0x75, 0xFD, 0x76)), 0x48)):
                found.append(bytes((*vector, opcode)) + rng.choice(operands))
        for escape in range(0xD8, 0xE0):
            found.append(bytes((escape, opcode)) + b"\x10\0\0\0\0")
    return found


def test_gnu_as_without_those_units_refuses_the_same_instructions(tmp_path: Path) -> None:
    """objdump reads each candidate, and ``as`` is asked whether it assembles for a processor that has no x87, MMX,
    SSE or AVX but all the rest."""
    _tools("as", "objdump")
    slot, candidates = 24, _candidates()
    candidates = [each.ljust(slot, b"\x10") for each in candidates]
    (tmp_path / "all.bin").write_bytes(b"".join(candidates))
    listing = subprocess.run(["objdump", "-D", "-w", "-b", "binary", "-m", "i386:x86-64", "--insn-width=16", "all.bin"],
                             cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    read = {int(at, 16): (len(code.split()), text.split("#")[0].strip()) for at, code, text in re.findall(
        r"(?m)^ *([0-9a-f]+):\t((?:[0-9a-f]{2} )+) *\t(.*)$", listing)}
    slots = {at // slot: read[at] for at in range(0, slot * len(candidates), slot)
             if at in read and "(bad)" not in read[at][1] and read[at][0] < 15}
    texts = list(slots.values())

    def complaints(limits: str) -> set[int]:
        (tmp_path / "t.s").write_text(limits + "\n" + "\n".join(text for _, text in texts) + "\n")
        done = subprocess.run(["as", "-o", "t.o", "t.s"], cwd=tmp_path, capture_output=True, text=True, check=False)
        return {int(line) - 2 for line in re.findall(r"(?m)^t\.s:(\d+): Error", done.stderr)}

    syntax = complaints("")
    without = complaints(".arch .no87; .arch .nommx; .arch .nosse; .arch .noavx; .arch .nofxsr; .arch .noxsave")
    judged, wrong = 0, []
    for number, (index, (size, text)) in enumerate(slots.items()):
        if number in syntax:
            continue
        expected = number in without and not _NO_REGISTERS.search(text)
        found = refused(candidates[index][:size], BASE, [("f", BASE, BASE + size)], hex)
        judged += 1
        if bool(found) != expected and not re.search("rdrand|rdseed|rdtsc|kl |encodekey|^cmp[a-z]+xadd", text):
            wrong.append((candidates[index][:size].hex(), text, expected))
    assert judged > 2000 and not wrong, "\n".join(map(str, wrong[:70]))


# -- helpers ----------------------------------------------------------------------------------------------------

HELPERS = """__adddf3 __subsf3 __mulxf3 __divtf3 __muldc3 __negdf2 __powidf2 __eqdf2 __unordsf2 __extendsfdf2
__trunctfdf2 __fixdfdi __fixunssfsi __fixunsdfti __floatsidf __floatunsisf __floatundidf __floattisf __gnu_h2f_ieee
__truncdfhf2 __bid_addsd3"""
OTHERS = """__udivti3 __divti3 __multi3 __popcountdi2 __clzdi2 __ashlti3 __negti2 __cmpti2 __mulvdi3 __addvsi3
__bswapsi2 adddf3 __adddf3x _ memcpy printf __stack_chk_fail"""


def test_functions_of_floating_point_in_software_are_told_from_others() -> None:
    assert [name for name in HELPERS.split() if not floating_point_helper(name)] == []
    assert [name for name in OTHERS.split() if floating_point_helper(name)] == []


def test_what_clang_calls_for_floating_point_in_software_is_known(tmp_path: Path) -> None:
    _tools("clang", "nm")
    text = "volatile long n; volatile unsigned u;\n"
    for kind, x in (("float", "f"), ("double", "d"), ("__float128", "q")):
        text += (f"volatile {kind} {x};\nvoid compute_{x}(void) {{ {x} = {x} * {x} + n / {x} - u; n = {x}; "
                 f"u = {x} < n; n = (unsigned long){x}; }}\n")
    path = _compile(tmp_path, text, "clang -O1 -mgeneral-regs-only -ffreestanding")
    done = subprocess.run(["nm", "-u", path], capture_output=True, text=True, check=True)
    names = done.stdout.replace(" U ", " ").split()
    assert len(names) >= 15 and [name for name in names if not floating_point_helper(name)] == []


LEAF = "int leaf(int a, int b) { int t[8]; for (int i = 0; i < 8; i++) t[i] = a * i; return t[b & 7]; }\n"


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-Os"])
def test_data_below_rsp_is_refused_and_a_frame_of_its_own_is_not(cc: str, level: str, tmp_path: Path) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not here")
    (tmp_path / "leaf.c").write_text(LEAF)
    for flags, said in (((), True), (("-mno-red-zone",), False)):
        subprocess.run([cc, level, "-g", "-mgeneral-regs-only", "-fno-pic", "-mcmodel=kernel", "-fno-stack-protector",
                        *flags, "-c", "leaf.c"], cwd=tmp_path, check=True)
        try:
            with sandbox.boot(modules=[tmp_path / "leaf.o"]) as kernel:
                assert not said and kernel.call("leaf", 5, 3) == 15
        except LinkError as error:
            assert said and "leaf.c:1: " in str(error) and "in leaf() lies in the red zone below RSP" in str(error)


@pytest.mark.parametrize(("code", "guilty"), [
    (["mov qword ptr [rsp - 8], rdi", "ret"], 0),
    (["push rbp", "mov rbp, rsp", "mov dword ptr [rbp - 4], edi", "pop rbp"], 2),
    (["push rbp", "mov rbp, rsp", "sub rsp, 0x10", "mov dword ptr [rbp - 0x10], edi", "leave"], None),
    (["push rbp", "mov rbp, rsp", "add rsp, -0x80", "mov dword ptr [rbp - 0x74], edi", "leave"], None),
    (["sub rsp, 8", "mov dword ptr [rsp + rcx*4 - 4], edi", "add rsp, 8"], None),
    (["push rbp", "mov rbp, rsp", "and rsp, 0xffffffffffffffe0", "mov dword ptr [rbp - 0x74], edi", "leave"], None),
])
def test_the_depth_of_a_frame_decides_what_lies_below_it(code: list[str], guilty: int | None) -> None:
    steps = [Outline(at, 1, *line.split(" ", 1)) if " " in line else Outline(at, 1, line, "")
             for at, line in enumerate(code)]
    found = red_zone(steps)
    assert (None if found is None else found.address) == guilty
