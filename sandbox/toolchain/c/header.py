"""``sandbox.h``, what a module in C knows of the kernel: rendered from :mod:`sandbox.abi` and the kernel's comments.

    python -m sandbox.toolchain.c.header

writes ``sandbox/libc/include/sandbox.h``; the file is committed, and a test keeps it current. Numbers, structures and
their notes come from :mod:`sandbox.abi`, functions and what they do from the comments above them in ``kernel_asm``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import IntFlag
from pathlib import Path

from ... import abi
from ...layout import Field, NestedField, PointerField, Struct, TextField
from ..image import Image
from .header_functions import functions
from .header_text import CPP_KEYWORDS, comment, define, heading, noted, plain

_POINTERS: dict[str, str] = {
    "list_head.next": "struct list_head *", "list_head.prev": "struct list_head *",
    "boot_info.main": "int (*{})(void)", "boot_info.stack_top": "void *", "boot_info.ist_top": "void *",
    "page.next": "struct list_head *", "page.prev": "struct list_head *", "page.cache": "struct kmem_cache *",
    "page.freelist": "void *", "page.head": "struct page *",
    "magazine.next": "struct magazine *", "magazine.objects": "void *",
    "kmalloc_info.name": "const char *",
    "kmem_cache_cpu.top": "void **", "kmem_cache_cpu.limit": "void **",
    "kmem_cache_cpu.loaded": "struct magazine *", "kmem_cache_cpu.previous": "struct magazine *",
    "percpu.self": "struct percpu *",
    "kmem_cache.ctor": "void (*{})(void *object)", "kmem_cache.random_seq": "u16 *",
    "kmem_cache.depot_full": "struct magazine *", "kmem_cache.depot_empty": "struct magazine *",
    "panic_record.regs": "struct pt_regs *",
}
"""What pointers point at, which the guest's memory does not tell."""

_POINTER_CONSTANTS = {"ZERO_SIZE_PTR": "void *", "LIST_POISON1": "struct list_head *",
                      "LIST_POISON2": "struct list_head *"}
RENAMED = {name: f"DEBUG_{name}" for name in ("EXIT_SUCCESS", "EXIT_FAILURE", "EXIT_PANIC")}
"""Numbers that have another name in C, where ``stdlib.h`` has these names for what ``main`` returns."""

_HEAD = """\
/*
 * sandbox.h: what a module in C knows of the kernel.
 *
 * Generated from sandbox/abi.py and from the comments in kernel_asm/ by
 *     python -m sandbox.toolchain.c.header
 * Do not edit; a test keeps it current.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
"""

_HELPERS = """\
/* The structure of which a member lies at pointer. */
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* Each structure of a list that is linked through a member: list_for_each_entry(cache, &slab_caches, list) ... */
#define list_for_each_entry(entry, head, member)                                        \\
    for (entry = container_of((head)->next, __typeof__(*entry), member);                \\
         &entry->member != (head);                                                      \\
         entry = container_of(entry->member.next, __typeof__(*entry), member))

static inline bool list_empty(const struct list_head *head)
{
    return head->next == head;
}

/* This CPU's own data: GS points at it. */
static inline struct percpu *this_cpu(void)
{
    struct percpu *self;

    __asm__ __volatile__("{movq %%gs:%c1, %0|mov %0, gs:%c1}" : "=r"(self) : "i"(offsetof(struct percpu, self)));
    return self;
}

static inline u8 inb(u16 port)
{
    u8 value;

    __asm__ __volatile__("{inb %1, %0|in %0, %1}" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void outb(u8 value, u16 port)
{
    __asm__ __volatile__("{outb %0, %1|out %1, %0}" : : "a"(value), "Nd"(port));
}
"""

_CHECKS = """\
#if defined(__cplusplus) && __cplusplus >= 201103L
#define SANDBOX_CHECK(condition) static_assert(condition, #condition)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define SANDBOX_CHECK(condition) _Static_assert(condition, #condition)
#else
#define SANDBOX_CHECK(condition) struct list_head
#endif
#define SANDBOX_SIZE(type, size) SANDBOX_CHECK(sizeof(struct type) == (size))
#define SANDBOX_FIELD(type, field, offset, size) \\
    SANDBOX_CHECK(offsetof(struct type, field) == (offset) && sizeof(((struct type *)0)->field) == (size))
"""

_TAIL = """\
#undef SANDBOX_FIELD
#undef SANDBOX_SIZE
#undef SANDBOX_CHECK

#ifdef __cplusplus
}
#endif

#endif /* SANDBOX_H */
"""


def render(kernel: Image) -> str:
    """The text of ``sandbox.h`` for the kernel's image (with its sources)."""
    parts = [_HEAD, _numbers(), *_enums(), heading("structures"), *map(_struct, abi.STRUCTS),
             "/* What a trap calls; nonzero: dealt with, the interrupted code goes on. */\n"
             "typedef int trap_handler(struct pt_regs *regs);\n",
             heading("short words for kernel work"), _HELPERS, *functions(kernel),
             heading("the compiler lays the structures out as the kernel does"), _CHECKS, *_layouts(), _TAIL]
    return "\n".join(parts)


# -- numbers ----------------------------------------------------------------------------------------------------

def _numbers() -> str:
    """The constants, with the sections and comments that they have in ``abi.py``."""
    values = dict(abi.constants())
    lines: list[str] = []
    for line in inspect.getsource(abi).partition("\n# -- structures")[0].splitlines():
        constant = re.match(r"([A-Z][A-Z0-9_]*) = (.*?)(?:  # (.*))?$", line)
        if section := re.match(r"# -- (.*?) -+$", line):
            lines.append(heading(section[1]))
        elif constant and constant[1] in values:
            name, written, note = constant[1], constant[2].strip(), (constant[3] or "").strip()
            lines.append(define(RENAMED.get(name, name), _number(name, values[name], written), note))
        elif lines and line.startswith("# "):
            lines.append(comment(line[2:]))
        elif lines and not line and lines[-1]:
            lines.append("")
    lines.append(define("PANIC_VECTOR", str(abi.PANIC_VECTOR), "pt_regs.vector when panic() was called"))
    return "\n".join(lines) + "\n"


def _number(name: str, value: int, written: str) -> str:
    """A value in C: decimal where it is written so, and short enough to be read so where it is computed."""
    decimal = written.isdigit() or (not written.startswith("0x") and value < 1 << 16)
    text = str(value) if decimal else f"{value:#x}"
    if value >= 1 << 31:
        text += "ul"
    return f"(({_POINTER_CONSTANTS[name]}){text})" if name in _POINTER_CONSTANTS else text


def _enums() -> Iterator[str]:
    for enum in abi.ENUMS:
        notes = dict(re.findall(r"(?m)^    ([A-Z]\w+) = .*?  # (.*)$", inspect.getsource(enum)))
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.__name__).lower()
        lines = [comment(inspect.getdoc(enum) or ""), f"enum {name} {{"]
        for member in enum:
            value = f"{int(member):#x}" if issubclass(enum, IntFlag) else str(int(member))
            text = f"    {member.name} = {value}{',' if member is not list(enum)[-1] else ''}"
            note = notes.get(str(member.name), "").strip()
            lines.append(noted(text, note, 44))
        yield "\n".join([*lines, "};"]) + "\n"


# -- structures -------------------------------------------------------------------------------------------------

def _struct(struct: type[Struct]) -> str:
    lines = [comment(inspect.getdoc(struct) or ""), f"struct {struct.__name__} {{"]
    for field in struct.fields:
        if field.name in CPP_KEYWORDS:
            lines += ["#ifdef __cplusplus", _field(struct, field, CPP_KEYWORDS[field.name]),
                      "#else", _field(struct, field, field.name), "#endif"]
        else:
            lines.append(_field(struct, field, field.name))
    return "\n".join([*lines, "};"]) + "\n"


def _field(struct: type[Struct], field: Field, name: str) -> str:
    array = f"{name}[{field.count}]" if field.count > 1 else name
    if isinstance(field, TextField):
        text = f"char {array}"
    elif isinstance(field, NestedField):
        text = f"struct {field.struct.__name__} {array}"
    elif isinstance(field, PointerField):
        kind = _POINTERS[f"{struct.__name__}.{field.name}"]
        text = kind.format(array) if "{}" in kind else f"{kind}{array}"
    else:
        text = f"u{8 * field.width} {array}"
    return noted(f"    {text};", plain(field.note) if field.note not in text else "", 44)


def _layouts() -> Iterator[str]:
    for struct in abi.STRUCTS:
        name = struct.__name__
        yield f"SANDBOX_SIZE({name}, {struct.size:#x});"
        for field in struct.fields:
            check = f"SANDBOX_FIELD({name}, {field.name}, {field.offset:#x}, {field.size:#x});"
            yield f"#ifndef __cplusplus\n{check}\n#endif" if field.name in CPP_KEYWORDS else check
    yield ""


def write(kernel: Image) -> Path:
    """Write the header of this checkout."""
    path = Path(__file__).resolve().parents[2] / "libc" / "include" / "sandbox.h"
    path.write_text(render(kernel))
    return path


def main() -> None:
    """Write ``sandbox/libc/include/sandbox.h``."""
    from ..packaged import kernel_image

    write(kernel_image())


if __name__ == "__main__":
    main()
