"""The functions and variables of the kernel that a module in C may use, declared: a part of ``sandbox.h``.

What a function does, wants and returns is in the comment above it, in the form that ``DESIGN.md`` fixes.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from ..image import Image
from ..prototype import Prototype, prototypes
from .header_text import CPP_KEYWORDS, WIDTH, comment, comment_lines, define, heading, noted

_BOOT = "the boot calls it, once"
_REGISTERS = "it has a register convention of its own"
_FEW = "it takes its variadic arguments in registers only"
_PRINTER = "it works on kprintf's own struct printer"
_STRING = "string.h declares it"
_STDIO = "stdio.h declares it"
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(("_start", "kernel_main", "segments_init", "traps_init", "irq_init", "timer_init", "serial_init",
                     "page_alloc_init", "random_init", "slab_init", "kmalloc_init", "freelist_random_init"), _BOOT),
    "check_main_registers": "only the return from main has what it looks at",
    **dict.fromkeys(("depot_pop", "restore_bytes", "slab_keeps_size", "count_report"), _REGISTERS),
    **dict.fromkeys(("slab_bug", "slab_fix", "slab_err"), _FEW),
    **dict.fromkeys(("print_to_console", "print_to_buffer", "print_character", "print_repeated", "print_bytes",
                     "format_text"), _PRINTER),
    **dict.fromkeys(("memset", "memcpy", "memmove", "memcmp", "strlen", "strnlen", "strcmp", "strncmp", "strcpy"),
                    _STRING),
    **dict.fromkeys(("snprintf", "vsnprintf"), _STDIO),
}
"""Functions with a prototype that the header does not declare, and why."""

_DATA: dict[str, tuple[tuple[str, str], ...]] = {
    "start.asm": (("struct boot_info *boot_params", "what the loader told the kernel"),),
    "panic.asm": (("struct panic_record panic_info", "the last words"),),
    "page_alloc.asm": (("struct page *mem_map", "max_pfn of them, one for each frame"),
                       ("u64 max_pfn", "frames of RAM"),
                       ("struct free_area free_areas[MAX_ORDER + 1]", "the free blocks of each order")),
    "inject.asm": (("struct fault_attr failslab", "for caches with SLAB_FAILSLAB"),
                   ("struct fault_attr fail_page_alloc", "for get_free_pages")),
    "kmem_cache.asm": (("struct list_head slab_caches", "every cache, through kmem_cache.list"),
                       ("u32 slab_caches_lock", "guards slab_caches")),
    "kmalloc.asm": (("struct kmem_cache *kmalloc_caches[KMALLOC_CACHES]", "by size, ascending"),),
    "slab_object.asm": (("struct slab_debug_state slab_debug_state", "reports and repairs, counted"),),
}
"""Variables of the kernel by the file that has them: the declaration, and what it is."""


def functions(kernel: Image) -> Iterator[str]:
    """One text for each file of the kernel that has anything to offer, in link order."""
    found = prototypes(kernel)
    for file, text in kernel.files.items():
        name = file.rsplit("/", 1)[-1]
        declared = [_function(prototype, text) for prototype in found.values()
                    if prototype.name not in LEFT_OUT and not prototype.result.startswith("static ")
                    and re.search(rf"(?m)^# {re.escape(prototype.text)}$", text)]
        if name == "vm.asm":
            declared.insert(0, _page_table_bits(kernel))
        if name in _DATA:
            declared.append("\n".join(noted(f"extern {variable};", note, 52) for variable, note in _DATA[name]))
        if declared:
            yield "\n\n".join([heading(name) + "\n" + comment(_purpose(text)), *declared]) + "\n"


def _page_table_bits(kernel: Image) -> str:
    macros = next(text for file, text in kernel.files.items() if file.endswith("macros.inc"))
    return "\n".join(define(name, f"{int(value, 0):#x}" + ("ul" if int(value, 0) >> 31 else ""), note.strip())
                     for name, value, note in re.findall(r"(?m)^\.set (PTE_\w+), (\w+)(?: *# (.*))?$", macros))


def _function(prototype: Prototype, text: str) -> str:
    """A declaration below what the function's comment says: what it does, what it wants, what it returns."""
    block = text[text.index(f"# {prototype.text}\n") :].splitlines()[1:]
    block = block[: next(at for at, line in enumerate(block) if not line.startswith("#"))]
    said = {"": "", "in": "", "out": "", "clobbers": ""}
    part = ""
    for line in block:
        if field := re.match(r"#   (in|out|clobbers)  +(.*)$", line):
            part = field[1]
            said[part] = field[2]
        else:
            said[part] += " " + line[1:].strip()
    sentences = [said[""].strip(), *_wants(prototype, said["in"]), _returns(prototype, said["out"])]
    comment = "\n".join(textwrap.fill(sentence, WIDTH - 6) for sentence in sentences if sentence)
    return (comment_lines(comment) + "\n" if comment else "") + _declaration(prototype)


def _declaration(prototype: Prototype) -> str:
    result, count, attributes = prototype.result, len(prototype.parameters), ""
    if result == "noreturn":
        result, attributes = "void", " __attribute__((__noreturn__))"
    if prototype.variadic:
        attributes += f" __attribute__((__format__(__printf__,\0{count},\0{count + 1})))"
    parameters = [re.sub(r"\b(" + "|".join(CPP_KEYWORDS) + r")\b", lambda found: CPP_KEYWORDS[found[0]], parameter)
                  for parameter in prototype.parameters] + ["..."] * prototype.variadic
    space = "" if result.endswith("*") else " "
    whole = ", ".join(parameter.replace(" ", "\0") for parameter in parameters) or "void"
    text = f"{result}{space}{prototype.name}(".replace(" ", "\0") + f"{whole}){attributes};"     # \0: no break here
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_long_words=False).replace("\0", " ")


_ASSIGNED = re.compile(r"(?:^|[,;] )(\w+) = ")
_ARGUMENT = {name: place for place, names in enumerate(
    ("rdi edi dil", "rsi esi sil", "rdx edx dl", "rcx ecx cl", "r8 r8d", "r9 r9d")) for name in names.split()}


def _wants(prototype: Prototype, given: str) -> Iterator[str]:
    """What the comment says of each parameter beyond its name and type (``rdi = order, 0 to MAX_ORDER``)."""
    if prototype.variadic:
        return
    names = [CPP_KEYWORDS.get(name, name) for _, name in prototype.declared()]
    pieces = _ASSIGNED.split(given)
    for register, words in zip(pieces[1::2], pieces[2::2], strict=True):
        name, words = names[_ARGUMENT[register]], words.strip()
        if " " in words and words != "struct page":
            yield words if re.match(rf"{name}\b", words) else f"{name}: {words}"


def _returns(prototype: Prototype, out: str) -> str:
    """What the comment says of RAX."""
    words = re.sub(r"[,;] (rdx|edx|ecx) = .*$", "", re.sub(r"^[re]ax = ", "", out.strip()))
    return f"returns {words}" if words and prototype.result != "void" else ""


def _purpose(text: str) -> str:
    """The first sentence of a file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        lines.append(line[2:])
    first, _, _ = (" ".join(lines) + " ").partition(". ")
    return first.rstrip(": ") + "."
