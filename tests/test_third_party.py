"""Allocators of other people, from the source packages of registries, compile unchanged, and are traced, shadowed and
checked as ours are.

The packages are fetched (``tests/third_party/packages.py``); ours are a shim each, which gives functions the names that
the sandbox knows, and the driver.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import sandbox
from sandbox.conformance import check
from sandbox.conformance.workloads import WORKLOADS
from sandbox.trace.ledger import held

from .third_party import model
from .third_party.allocators import ALLOCATORS, PLAIN, Allocator
from .third_party.packages import Package

OURS = Path(__file__).parent / "third_party"
COMPILERS = ("gcc", "clang")
SEED, ROUNDS, LARGE, LONG = 20, 1200, 12_000, 60_000
KEPT = ("overlap", "registers", "reuse", "exhaustion", "leak")
"""What every one of them promises as well as the conformance pack asks for it."""

pytestmark = [pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="neither gcc nor clang is here"),
              pytest.mark.filterwarnings("ignore::sandbox.errors.CompileWarning")]

EVERY = [pytest.param(name, marks=pytest.mark.soak) if name in ("tlsf", "rpmalloc") else name
         for name in ALLOCATORS]
"""Those of the suite, whose packages never change their place, and those that the soak has besides."""


class Ran:
    """A kernel on which the driver has run to its end, what is held then as its trace saw it, and what was expected."""

    def __init__(self, directory: Path, subject: Allocator, rounds: int, *, shadow: bool = True, cc: str | None = None,
                 cflags: str = "") -> None:
        subject.placed(directory)
        self.expected = model.play(SEED, rounds, LARGE, aligned=subject.aligned)
        self.kernel = sandbox.boot(
            "driver.c", "32M", allocator=subject.files, arena=subject.arena,
            symbols=subject.symbols if subject.has_shim else None, shadow=shadow, cc=cc,
            cflags=f"{subject.cflags} {subject.driven} -DSEED={SEED} -DROUNDS={rounds} -DLARGE={LARGE} {cflags}")
        with self.kernel.trace() as trace:
            self.result = self.kernel.run()
        self.held = held(trace.walk())
        self.end = self.kernel.snapshot()

    def require_expected(self) -> None:
        """It printed what the model prints, and holds chunks of the model's sizes."""
        assert self.result.kind == "success" and self.kernel.console == self.expected.text
        assert sorted(self.held.values()) == sorted(self.expected.held)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ours and the files of the packages, side by side: the current directory, so that names are the same always."""
    directory = tmp_path_factory.mktemp("third_party")
    shutil.copytree(OURS, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        yield directory


@pytest.fixture(scope="module", params=EVERY)
def finished(request: pytest.FixtureRequest, directory: Path) -> Iterator[Ran]:
    ran = Ran(directory, ALLOCATORS[request.param], ROUNDS)
    with ran.kernel:
        yield ran


@pytest.fixture()
def ran(finished: Ran) -> Iterator[Ran]:
    yield finished
    finished.kernel.restore(finished.end)


@pytest.mark.parametrize("name", EVERY)
def test_its_source_is_a_thousand_lines_and_more(directory: Path, name: str) -> None:
    ALLOCATORS[name].placed(directory)
    assert (directory / ALLOCATORS[name].source).read_bytes().count(b"\n") > 1000


def test_a_thousand_calls_leave_every_byte_alone_and_the_ledger_of_the_model(ran: Ran) -> None:
    ran.require_expected()
    assert ran.kernel.heap.validate() == []
    with ran.kernel.trace() as trace:
        assert ran.kernel.call("drain") == len(ran.held)
    assert held(trace.walk(), ran.held) == {} and ran.kernel.heap.validate() == []


@pytest.mark.parametrize(("function", "kind", "guilty"), [
    ("overflow", {"out-of-bounds", "metadata-write", "use-after-free"}, "writes one too many"),
    ("use_after_free", {"use-after-free"}, "reads what is free")])
def test_a_bug_of_its_user_is_found_at_the_line_of_c(ran: Ran, function: str, kind: set[str], guilty: str) -> None:
    with pytest.raises(sandbox.ShadowError) as caught:
        ran.kernel.call(function)
    line = next(number for number, text in enumerate((OURS / "driver.c").read_text().splitlines(), 1) if guilty in text)
    assert caught.value.kind in kind
    assert re.search(rf"{function}\+0x[0-9a-f]+ \(\S*driver\.c:{line}\)", str(caught.value))


def test_python_calls_it_and_every_byte_is_its_owners(ran: Ran) -> None:
    allocator, memory, draw = ran.kernel.allocator, ran.kernel.memory, random.Random(SEED)
    ran.kernel.call("drain")
    chunks: dict[int, bytes] = {}
    with ran.kernel.trace() as trace:
        for _ in range(150):
            if len(chunks) < 20 or draw.random() < 0.5:
                size = draw.choice((draw.randint(1, 100), draw.randint(1, 3000)))
                pointer = allocator.allocate(size)
                assert pointer and not pointer % (16 if size >= 16 else 8)
            else:
                old = draw.choice(list(chunks))
                content = chunks.pop(old)
                assert memory.read(old, len(content)) == content
                size = draw.randint(1, 2000)
                if draw.random() < 0.5:
                    assert allocator.deallocate(old)
                    continue
                pointer = allocator.reallocate(old, size)
                kept = min(size, len(content))
                assert memory.read(pointer, kept) == content[:kept]
            assert all(pointer + size <= other or other + len(chunks[other]) <= pointer for other in chunks)
            chunks[pointer] = draw.randbytes(size)
            memory[pointer : pointer + size] = chunks[pointer]
    assert all(memory.read(pointer, len(content)) == content for pointer, content in chunks.items())
    assert held(trace.walk()) == {pointer: len(content) for pointer, content in sorted(chunks.items())}


@pytest.mark.parametrize(("cc", "cflags"), [
    pytest.param("clang", "-O2", marks=pytest.mark.soak), pytest.param("clang", "-O0", marks=pytest.mark.soak),
    pytest.param("gcc", "-O0", marks=pytest.mark.soak), pytest.param("gcc", "-O2", marks=pytest.mark.soak)])
def test_it_does_the_same_with_each_compiler_at_each_level(directory: Path, cc: str, cflags: str) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not here")
    ran = Ran(directory, ALLOCATORS["lvgl"], 400, shadow=False, cc=cc, cflags=cflags)
    with ran.kernel:
        ran.require_expected()


@pytest.mark.soak
@pytest.mark.parametrize("name", ["lvgl", "dlmalloc", "tlsf"])
def test_the_conformance_pack_finds_what_it_does_not_promise(directory: Path, name: str) -> None:
    subject = ALLOCATORS[name]
    subject.placed(directory)
    report = check(subject.arena_files or subject.files, symbols=subject.symbols,
                   cflags=subject.arena_cflags or subject.cflags, shorten=False)
    failed = {line.name for line in report.failed}
    assert failed >= subject.breaks and not failed & {*KEPT, *WORKLOADS}
    assert "stats" not in {line.name for line in report}
    assert report["instructions"].figures["calls"] > 2000


@pytest.mark.soak
def test_malloc_on_sbrk_and_mmap_keeps_every_promise(directory: Path) -> None:
    subject = ALLOCATORS["dlmalloc"]
    subject.placed(directory)
    report = check(subject.files, cflags=PLAIN, shorten=False)
    assert report.passed


@pytest.mark.soak
def test_thread_local_storage_is_refused_by_name_and_line(directory: Path) -> None:
    subject = ALLOCATORS["rpmalloc"]
    subject.placed(directory)
    with pytest.raises(sandbox.LinkError, match=r"rpmalloc\.c:\d+.*'_memory_thread_heap' is thread-local"):
        sandbox.boot(allocator=subject.files, symbols=subject.symbols, cflags="-Irpmalloc")


@pytest.mark.soak
def test_a_bug_of_the_allocator_itself_is_seen_by_the_driver(directory: Path) -> None:
    # rpmalloc 1.3.0, on any host: rprealloc of an aligned chunk forgets how far into its block the chunk begins.
    ran = Ran(directory, replace(ALLOCATORS["rpmalloc"], aligned=True), LONG, shadow=False)
    with ran.kernel:
        assert ran.result.kind == "failure" and "its bytes have changed" in ran.kernel.console


@pytest.mark.soak
@pytest.mark.parametrize("name", ALLOCATORS)
def test_sixty_thousand_calls_under_trace_and_shadow(directory: Path, name: str) -> None:
    ran = Ran(directory, ALLOCATORS[name], LONG)
    with ran.kernel:
        ran.require_expected()


def archive_of(text: bytes, path: Path) -> str:
    """An archive with one file, and one that would lie outside; returns its hash."""
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../../outside.c", "package/x.c"):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_is_fetched_once_and_only_the_wanted_files_come_out_of_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digest = archive_of(b"int x;\n", tmp_path / "x.tgz")
    package = Package(("file:///nowhere", (tmp_path / "x.tgz").as_uri()), digest, {"package/x.c": "a/b.c"})
    package.extract(tmp_path / "1")
    (tmp_path / "x.tgz").unlink()
    package.extract(tmp_path / "2")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.c"))] == ["1/a/b.c", "2/a/b.c"]


def test_a_package_that_changed_is_an_error_and_one_that_is_out_of_reach_a_skip_but_not_in_ci(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive_of(b"int x;\n", tmp_path / "x.tgz")
    with pytest.raises(AssertionError, match="it is not what it was"):
        Package(((tmp_path / "x.tgz").as_uri(),), "0" * 64, {"package/x.c": "x.c"}).extract(tmp_path)
    gone = Package(("file:///nowhere",), "0" * 64, {"package/x.c": "x.c"})
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="file:///nowhere"):
        gone.extract(tmp_path)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="file:///nowhere"):
        gone.extract(tmp_path)
