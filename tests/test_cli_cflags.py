"""``sandbox cflags``: one line for a Makefile, and what it makes of a source."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from sandbox.cli import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of the command."""
    assert main(["cflags", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    return out.rstrip("\n")


def test_the_flags_are_one_line_that_a_shell_reads(capsys: pytest.CaptureFixture[str]) -> None:
    flags = shlex.split(printed(capsys))
    assert {"-ffreestanding", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fno-pic",
            "-fno-stack-protector", "-g"} <= set(flags)
    assert not [flag for flag in flags if flag.startswith(("-O", "-W", "-std"))]      # a Makefile's own
    assert Path(flags[flags.index("-isystem") + 1], "sandbox.h").is_file()


def test_include_prints_the_directory_of_the_headers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert Path(printed(capsys, "--include"), "sandbox.h").is_file()


def test_an_argument_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cflags", "my.c"]) == 2 and "error: " in capsys.readouterr().err


@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_a_makefile_with_them_makes_an_object_for_the_guest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cc: str
) -> None:
    if shutil.which(cc) is None or shutil.which("make") is None:
        pytest.skip(f"{cc} or make is not here")
    (tmp_path / "my.c").write_text("#include <sandbox.h>\n#include <string.h>\n"
                                   "int main(void) { void *p = kmalloc(8); kfree(p); return strlen(\"abc\") != 3; }\n")
    (tmp_path / "Makefile").write_text(f"CC = {cc}\nCFLAGS = -O2 -Wall -Werror {printed(capsys)}\nmy.o: my.c\n")
    subprocess.run(["make", "-s", "my.o"], cwd=tmp_path, check=True)
    file = ELFFile(io.BytesIO((tmp_path / "my.o").read_bytes()))
    assert (file["e_machine"], file["e_type"]) == ("EM_X86_64", "ET_REL")
    assert file.get_section_by_name(".eh_frame") is None

