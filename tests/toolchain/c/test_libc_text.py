"""The C library's functions on text: the host's own C library is the oracle."""

from __future__ import annotations

import ctypes
import platform
import random
import shutil
import subprocess
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_long, c_size_t, c_ulong, c_void_p
from pathlib import Path
from typing import Any

import pytest

from sandbox.toolchain.c.flags import INCLUDE
from sandbox.toolchain.c.library import DEFINES, SOURCES

EINVAL, ERANGE, EOVERFLOW = 22, 34, 75


class Pair:
    """Our sources as a shared library of the host, and the host's own library: ``pair(name, ...)`` calls both."""

    def __init__(self, path: Path) -> None:
        self.ours, self.hosts = ctypes.CDLL(str(path)), ctypes.CDLL(None, use_errno=True)

    def __call__(self, name: str, *arguments: Any, result: Any = c_int) -> tuple[Any, Any]:
        found = []
        for library in (self.ours, self.hosts):
            function = getattr(library, name)
            function.restype = result
            found.append(function(*arguments))
        return found[0], found[1]

    def errno(self, value: int | None = None) -> tuple[int, int]:
        """Both numbers; a value sets them."""
        ours = c_int.in_dll(self.ours, "errno")
        if value is not None:
            ours.value = value
            ctypes.set_errno(value)
        return ours.value, ctypes.get_errno()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """What is left undefined, memcpy and its kin, is the host's in both."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    if ctypes.sizeof(c_void_p) != 8 or platform.libc_ver()[0] != "glibc":
        pytest.skip("needs a 64-bit Linux with the GNU C library")
    out = tmp_path_factory.mktemp("libc") / "ours.so"
    sources = ("format", "snprintf", "string_copy", "string_search", "string_span", "strings", "strtol", "qsort",
               "bsearch", "ctype", "strerror", "errno", "div")
    subprocess.run(["gcc", "-O1", "-std=gnu11", "-ffreestanding", "-nostdinc", f"-I{INCLUDE}", "-fPIC", "-shared",
                    "-nostdlib", "-Wl,-Bsymbolic", "-o", out, *(SOURCES / f"{name}.c" for name in sources)], check=True)
    return Pair(out)


LENGTHS: dict[str, Callable[[int], Any]] = {
    "": lambda number: c_int(number), "hh": lambda number: c_int(number), "h": lambda number: c_int(number),
    **dict.fromkeys(("l", "ll", "z", "j", "t"), lambda number: c_long(number))}
EDGES = (0, 1, -1, 7, 8, 9, 10, 255, 256, -128, 127, 32768, 65535, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63))


def conversion(rng: random.Random) -> tuple[str, list[Any]]:
    """One conversion that C11 defines, and its arguments."""
    letter = rng.choice("ddiuxXocsp%")
    if letter == "%":
        return "%%", []
    allowed = {"d": "-+ 0", "i": "-+ 0", "u": "-0", "x": "-#0", "X": "-#0", "o": "-#0"}.get(letter, "-")
    arguments: list[Any] = []
    text = "%" + "".join(rng.choices(allowed, k=rng.randrange(4)))
    width, precision = rng.randrange(5), rng.randrange(5) if letter not in "cp" else 0
    if width == 1:
        text += "*"
        arguments.append(c_int(rng.randrange(-30, 30)))
    elif width > 2:
        text += str(rng.randrange(1, 40))
    if precision == 1:
        text += ".*"
        arguments.append(c_int(rng.randrange(-5, 30)))
    elif precision > 2:
        text += rng.choice((".", ".0", ".1", ".7", ".30"))
    if letter == "s":
        arguments.append(rng.choice((b"", b"a", b"some text", b"x" * 50)))
    elif letter == "c":
        arguments.append(c_int(rng.randrange(1, 256)))
    elif letter == "p":
        arguments.append(c_void_p(rng.choice((None, 1, 0xFFFF888000000000))))
    else:
        length = rng.choice(list(LENGTHS))
        text += length
        arguments.append(LENGTHS[length](rng.choice((*EDGES, rng.randrange(-(1 << 63), 1 << 63)))))
    return text + letter, arguments


def test_snprintf_prints_and_returns_what_the_host_s_does(pair: Pair) -> None:
    rng = random.Random(6)
    for _ in range(4000):
        parts = [conversion(rng) for _ in range(rng.randrange(1, 4))]
        text = "".join(rng.choice(("", "a", " = ", "\n")) + part for part, _ in parts).encode()
        arguments = [argument for _, more in parts for argument in more]
        size = rng.choice((0, 1, 2, 10, 30, 200))
        buffers = [ctypes.create_string_buffer(b"\xee" * 200, 200) for _ in range(2)]
        results = [library.snprintf(buffer, c_size_t(size), text, *arguments)
                   for library, buffer in zip((pair.ours, pair.hosts), buffers, strict=True)]
        assert results[0] == results[1], (text, arguments, size)
        assert buffers[0].raw == buffers[1].raw, (text, arguments, size)


def test_n_counts_the_bytes_so_far_those_included_that_did_not_fit(pair: Pair) -> None:
    for length, kind in (("hh", ctypes.c_byte), ("h", ctypes.c_short), ("", c_int), ("l", c_long), ("j", c_long)):
        count = kind(-1)
        assert pair.ours.snprintf(None, c_size_t(0), f"%300d%{length}n".encode(), 1, ctypes.byref(count)) == 300
        assert count.value == kind(300).value


def test_a_text_longer_than_an_int_is_eoverflow(pair: Pair) -> None:
    for text in (b"%2147483648d", b"%.2147483648d", b"%99999999999999999999d"):
        buffer = ctypes.create_string_buffer(b"\xee" * 8, 8)
        pair.errno(0)
        assert pair.ours.snprintf(buffer, c_size_t(8), b"ab" + text, 1) == -1
        assert pair.errno()[0] == EOVERFLOW
        assert buffer.value == b"ab"


def test_what_is_no_conversion_stands_as_it_is(pair: Pair) -> None:
    buffer = ctypes.create_string_buffer(64)
    for text in (b"%", b"100%", b"%y", b"%5", b"%f %lc", b"%-08.3q"):
        assert pair.ours.snprintf(buffer, c_size_t(64), text) == len(text)
        assert buffer.value == text


def test_numbers_are_read_as_the_host_reads_them(pair: Pair) -> None:
    rng = random.Random(7)
    digits = "0123456789abcdefxXzZ 9"
    texts = ["", " ", "+", "-", "0", "0x", "0xg", " \t\n\v\f\r-0x1fz", "0X7", "08", "9223372036854775807", "0b1",
             "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
             "18446744073709551616", "-18446744073709551615", "-18446744073709551616", "zzzzzzzzzzzzzz", "+-1"]
    texts += ["".join(rng.choices(digits, k=rng.randrange(1, 24))) for _ in range(300)]
    texts += [rng.choice(("", "-", "+", " ")) + str(rng.randrange(1 << rng.randrange(1, 70))) for _ in range(300)]
    for text in texts:
        for base in (0, 2, 8, 10, 16, 36, rng.randrange(2, 37)):
            for name in ("strtol", "strtoull"):
                found = []
                for library in (pair.ours, pair.hosts):
                    function = getattr(library, name)
                    function.restype = c_long
                    buffer, end = ctypes.create_string_buffer(text.encode()), c_void_p()
                    pair.errno(0)
                    value = function(buffer, ctypes.byref(end), base)
                    errno = pair.errno()[library is pair.hosts]
                    consumed = (end.value or 0) - ctypes.addressof(buffer)
                    found.append((value, consumed, errno if errno == ERANGE else 0))
                assert found[0] == found[1], (name, text, base)
    pair.errno(0)
    assert pair.ours.strtol(b"12", None, 1) == 0
    assert pair.errno()[0] == EINVAL
    for text in ("12", " -7x", "99999999999", ""):
        assert len(set(pair("atoi", text.encode()))) == len(set(pair("atol", text.encode(), result=c_long))) == 1


SEARCHES: dict[str, str] = {
    # t: text, w: text to look for, b: byte, n: a size within the text
    "memchr": "tbn", "memrchr": "tbn", "memmem": "tnwm", "strchr": "tb", "strchrnul": "tb", "strrchr": "tb",
    "strstr": "tw", "strpbrk": "tw", "index": "tb", "rindex": "tb"}
COUNTS = {"strspn": "tw", "strcspn": "tw", "strcasecmp": "tw", "strncasecmp": "twn", "bcmp": "twm"}
COPIES = {"strncpy": "dtn", "stpncpy": "dtn", "strcat": "dt", "strncat": "dtn", "stpcpy": "dt", "mempcpy": "dtn",
          "memccpy": "dtbn"}


def texts(rng: random.Random) -> dict[str, Any]:
    """Arguments by the letters of the tables: few different characters, so that much is found."""
    text, wanted = (bytes(rng.choices(b"aAbBc\xc3", k=rng.randrange(most))) for most in (12, 4))
    return {"t": text, "w": wanted, "b": c_int(rng.choice((97, 98, 0, 67, 0xC3, -61))),
            "n": c_size_t(rng.randrange(len(text) + 1)), "m": c_size_t(min(len(wanted), len(text)))}


def test_strings_are_searched_as_the_host_searches_them(pair: Pair) -> None:
    rng = random.Random(8)
    for name, letters in SEARCHES.items():
        for _ in range(200):
            given = texts(rng)
            if letters == "tnwm":
                given["m"] = c_size_t(len(given["w"]))
            buffer = ctypes.create_string_buffer(given["t"])
            given["t"] = buffer
            ours, hosts = pair(name, *(given[letter] for letter in letters), result=c_void_p)
            assert ours == hosts, (name, buffer.raw, given)
    for name, letters in COUNTS.items():
        for _ in range(200):
            given = texts(rng)
            ours, hosts = pair(name, *(given[letter] for letter in letters))
            if "cmp" in name:
                ours, hosts = ((value > 0) - (value < 0) for value in (ours, hosts))
            assert ours == hosts, (name, given)


def test_strings_are_copied_as_the_host_copies_them(pair: Pair) -> None:
    rng = random.Random(9)
    for name, letters in COPIES.items():
        for _ in range(200):
            given, found = texts(rng), []
            for library in (pair.ours, pair.hosts):
                buffer = ctypes.create_string_buffer(b"begin\0" + b"\xee" * 26, 32)
                function = getattr(library, name)
                function.restype = c_void_p
                result = function(*(buffer if letter == "d" else given[letter] for letter in letters))
                found.append((buffer.raw, result and result - ctypes.addressof(buffer)))
            assert found[0] == found[1], (name, given)


def test_strlcpy_and_strlcat_cut_and_tell_the_length_that_was_wanted(pair: Pair) -> None:
    for size in range(12):
        for before in (b"", b"ab", b"abcdef"):
            for text in (b"", b"x", b"xyzxyz"):
                buffer = ctypes.create_string_buffer(before, 16)
                assert pair.ours.strlcat(buffer, text, c_size_t(size)) == min(len(before), size) + len(text)
                assert buffer.value == (before if len(before) >= size else (before + text)[: size - 1])
                buffer = ctypes.create_string_buffer(b"\xee" * 16, 16)
                assert pair.ours.strlcpy(buffer, text, c_size_t(size)) == len(text)
                assert buffer.raw.rstrip(b"\xee") == (text[: size - 1] + b"\0" if size else b"")


def test_strings_are_cut_into_the_fields_that_the_host_finds(pair: Pair) -> None:
    rng = random.Random(10)
    for name in ("strtok_r", "strsep"):
        for _ in range(150):
            text = bytes(rng.choices(b"ab,;", k=rng.randrange(12)))
            found = []
            for library in (pair.ours, pair.hosts):
                function = getattr(library, name)
                function.restype = c_char_p
                buffer = ctypes.create_string_buffer(text)
                rest = c_void_p(ctypes.addressof(buffer))
                first, fields = buffer if name == "strtok_r" else None, []
                while True:
                    field = function(first, b",;", ctypes.byref(rest)) if name == "strtok_r" else \
                        function(ctypes.byref(rest), b",;")
                    if field is None:
                        break
                    fields.append(field)
                    first = None
                found.append(fields)
            assert found[0] == found[1], (name, text)


def test_characters_are_of_the_kinds_that_the_host_gives_them(pair: Pair) -> None:
    for name in DEFINES["ctype.c"]:
        for character in range(-1, 256):
            ours, hosts = pair(name, character)
            assert (ours, bool(ours)) == (hosts, bool(hosts)) if name.startswith("to") else bool(ours) == bool(hosts)


def test_bits_are_found_and_errors_named_as_by_the_host(pair: Pair) -> None:
    for bit in range(-1, 64):
        number = 0 if bit < 0 else 1 << bit | 1 << 63
        assert pair("ffsll", c_ulong(number)) == (bit + 1, bit + 1)
        assert len(set(pair("ffs", c_int(number & 0xFFFFFFFF)))) == 1
    for number in (0, 1, 2, 4, 5, 7, 9, 11, 12, 13, 14, 16, 17, 19, 22, 32, 33, 34, 38, 75, 84, 95, 110, -1, 4000):
        ours, hosts = pair("strerror", number, result=c_char_p)
        assert ours == hosts


def test_arrays_are_sorted_and_elements_found(pair: Pair) -> None:
    compare_type = ctypes.CFUNCTYPE(c_int, ctypes.POINTER(c_int), ctypes.POINTER(c_int))
    calls = 0

    def compare(left: Any, right: Any) -> int:
        nonlocal calls
        calls += 1
        return int(left[0]) - int(right[0])

    callback, rng = compare_type(compare), random.Random(11)
    pair.ours.bsearch.restype = c_void_p
    for count in (0, 1, 2, 3, 10, 200):
        for most in (2, 1000):
            values = [rng.randrange(most) for _ in range(count)]
            array = (c_int * count)(*values)
            calls = 0
            pair.ours.qsort(array, c_size_t(count), c_size_t(4), callback)
            assert list(array) == sorted(values)
            assert calls <= 3 * max(count, 2) * max(count, 2).bit_length()
            for wanted in range(0, most, 13):
                key = c_int(wanted)
                found = pair.ours.bsearch(ctypes.byref(key), array, c_size_t(count), c_size_t(4), callback)
                index = ((found or 0) - ctypes.addressof(array)) // 4
                assert values.count(wanted) == 0 if found is None else array[index] == wanted
