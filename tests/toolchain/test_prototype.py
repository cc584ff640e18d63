"""C prototypes out of comments: what a debugger is told about a function's arguments."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandbox.toolchain.image import Image
from sandbox.toolchain.prototype import prototypes


@pytest.mark.parametrize(("text", "result", "declared"), [
    ("void *f(size_t size)", "void *", [("size_t", "size")]),
    ("int f(void)", "int", []),
    ("noreturn f(const char *format, ...)", "noreturn", [("const char *", "format")]),
    ("static u32 f(u64 *entries, const u64 found[7])", "static u32", [("u64 *", "entries"), ("const u64 *", "found")]),
    ("struct page *f(struct kmem_cache *cache, void (*ctor)(void *), u32 flags)", "struct page *",
     [("struct kmem_cache *", "cache"), ("void (*)()", "ctor"), ("u32", "flags")]),
    ("void f(void **array)", "void", [("void **", "array")]),
])
def test_a_prototype_names_its_result_and_the_type_of_each_argument(
        asm: Callable[..., Image], text: str, result: str, declared: list[tuple[str, str]]) -> None:
    found = prototypes(asm(f".text\nmain:\n ret\n# {text}\n# What it does.\nf:\n ret\n"))
    assert found["f"].result == result and list(found["f"].declared()) == declared
    assert "main" not in found
