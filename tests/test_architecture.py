"""The shape of the house, read from its source text: who imports whom, one door for each native library."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox import abi

PACKAGE = Path(sandbox.__file__).parent
ROOT = PACKAGE.parent
CHECKOUT = (ROOT / "pyproject.toml").exists()

# A room imports only from rooms above it. This is DESIGN's list; recording and the first interface stand on the kernel,
# and the benchmark measures what people see too.
ROOMS = (
    "errors", "address", "layout", "x86", "abi", "machine", "toolchain", "guest", "heap", "trace", "debugger",
    "kernel", "recording", "slab_allocator", "view", "isolated", "bench", "conformance", "lessons", "pytest_plugin",
    "cli",
)
NATIVE = {"unicorn": "machine/engine.py", "keystone": "toolchain/keystone.py", "capstone": "toolchain/disassembler.py"}
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "sandbox", "kernel_asm", "tests", "examples"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts)


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, text: str) -> Iterator[str]:
    """The full dotted names that a file imports anywhere, late and typing-only imports included."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "sandbox":
                yield from (f"sandbox.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                yield module


def violations(path: Path, text: str) -> list[str]:
    """The rooms below its own that a file imports from."""
    own = room(path)
    found = []
    for name in imports(path, text):
        parts = name.split(".")
        if parts[0] == "sandbox" and len(parts) > 1 and parts[1] != own:
            if parts[1] not in ROOMS:
                found.append(f"{name} is in no room")
            elif ROOMS.index(parts[1]) > ROOMS.index(own):
                found.append(f"{name} lies below {own}")
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_room_imports_only_from_rooms_above_it(path: Path) -> None:
    if room(path) in ("__init__", "__main__"):
        pytest.skip("the door of the house opens to all rooms")
    assert room(path) in ROOMS, f"{relative(path)} belongs to no room of DESIGN's list"
    assert violations(path, path.read_text()) == []


@pytest.mark.parametrize(("file", "text"), [
    ("machine/fake.py", "from ..guest import boot"),
    ("machine/fake.py", "from ..guest.boot import load"),
    ("heap/fake.py", "import sandbox.kernel"),
    ("abi.py", "from .machine.paging import walk"),
    ("guest/fake.py", "def f():\n    from .. import cli"),
    ("guest/fake.py", "from sandbox import trace"),
    ("kernel.py", "from .helpers import x"),
])
def test_the_layer_rule_notices_an_import_from_below(file: str, text: str) -> None:
    assert violations(PACKAGE / file, text)


@pytest.mark.parametrize("library", NATIVE)
def test_each_native_library_has_exactly_one_door(library: str) -> None:
    doors = [relative(path) for path in FILES
             if any(name.split(".")[0] == library for name in imports(path, path.read_text()))]
    assert doors == [NATIVE[library]]


def test_importing_the_package_loads_no_native_library_and_every_public_name_is_there() -> None:
    code = ("import sys, sandbox; heavy = sys.modules.keys() & {'unicorn', 'keystone', 'capstone', 'numpy'}; "
            "assert not heavy, heavy; assert all(getattr(sandbox, name) for name in sandbox.__all__); "
            "assert set(sandbox.__all__) <= set(dir(sandbox))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    with pytest.raises(AttributeError, match="no attribute 'bott'"):
        _ = sandbox.bott


@pytest.mark.parametrize("path", [path for path in FILES if room(path) != "cli"], ids=relative)
def test_the_library_prints_nothing_and_keeps_no_global_state(path: Path) -> None:
    tree = ast.parse(path.read_text())
    prints = [node.lineno for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"]
    changes = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    stars = [node.lineno for node in ast.walk(tree)
             if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)]
    assert (prints, changes, stars) == ([], [], [])


@pytest.mark.skipif(not CHECKOUT, reason="only a checkout has a top level")
def test_the_top_level_has_the_fixed_entries_and_nothing_else() -> None:
    generated = {"build", "dist", "__pycache__"}
    entries = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - generated
    assert {entry for entry in entries if not entry.endswith(".egg-info")} == TOP_LEVEL


@pytest.mark.skipif(not CHECKOUT, reason="only a checkout has kernel_asm/ beside the package")
def test_abi_inc_is_what_abi_py_renders() -> None:
    assert (ROOT / "kernel_asm" / "abi.inc").read_text() == abi.render()


@pytest.mark.skipif(not CHECKOUT, reason="only a checkout has kernel_asm/ beside the package")
def test_sources_lists_every_file_of_the_kernel_once() -> None:
    listed = (ROOT / "kernel_asm" / "SOURCES").read_text().split()
    listed = [name for name in listed if name.endswith(".asm")]
    assert len(listed) == len(set(listed))
    assert set(listed) | {"selftest.asm"} == {path.name for path in (ROOT / "kernel_asm").glob("*.asm")}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    if path.name == "__main__.py":
        pytest.skip("a program, not a module")
    module = importlib.import_module(module_name(path))
    missing = [] if inspect.getdoc(module) else ["the module"]
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) and not inspect.getdoc(value):
            missing.append(name)
        elif inspect.isclass(value):
            if not inspect.getdoc(value):
                missing.append(name)
            missing += [f"{name}.{attribute}" for attribute, member in vars(value).items()
                        if not attribute.startswith("_") and is_method(member)
                        and not inspect.getdoc(getattr(value, attribute, member))]
    assert missing == []


def is_method(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
