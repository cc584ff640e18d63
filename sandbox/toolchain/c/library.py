"""The C library of guest modules: which of its sources, in ``sandbox/libc``, defines a name.

It is an archive in the sense of ``ar``: a source is compiled and linked only where a name is still undefined that it
defines. ``DEFINES`` is the archive's index (``ranlib``); a test compiles every source and compares.
"""

from __future__ import annotations

from pathlib import Path

from .flags import INCLUDE

SOURCES = INCLUDE.parent
"""The directory of the sources."""

_MALLOC = ("free", "malloc", "malloc_usable_size", "memalign", "realloc")
TOGETHER = frozenset(_MALLOC)
"""Names of one heap: who defines one of them himself does not get another one from here."""
DEFINES: dict[str, tuple[str, ...]] = {
    "abort.c": ("abort",),
    "aligned_alloc.c": ("aligned_alloc", "posix_memalign", "valloc"),
    "assert.c": ("__assert_fail",),
    "bsearch.c": ("bsearch",),
    "calloc.c": ("calloc", "reallocarray"),
    "ctype.c": ("isalnum", "isalpha", "isascii", "isblank", "iscntrl", "isdigit", "isgraph", "islower", "isprint",
                "ispunct", "isspace", "isupper", "isxdigit", "tolower", "toupper"),
    "div.c": ("abs", "div", "imaxabs", "imaxdiv", "labs", "ldiv", "llabs", "lldiv"),
    "division.c": ("__divti3", "__modti3", "__udivmodti4", "__udivti3", "__umodti3"),
    "errno.c": ("errno",),
    "exit.c": ("_Exit", "_exit", "exit"),
    "file.c": ("close", "open", "read", "write"),
    "format.c": ("__format",),
    "getenv.c": ("getenv",),
    "heap.c": ("__heap_entry", "__heap_flags", "__heap_map", "__heap_unmap"),
    "malloc.c": _MALLOC,
    "malloc_allocator.c": _MALLOC,
    "mappings.c": ("__mapping_covers", "__mapping_cut", "__mapping_forget", "__mapping_grow", "__mapping_reserve"),
    "mmap.c": ("mmap", "munmap"),
    "mprotect.c": ("madvise", "mprotect"),
    "mremap.c": ("mremap",),
    "popcount.c": ("__popcountdi2", "__popcountsi2"),
    "printf.c": ("fprintf", "printf", "vfprintf", "vprintf"),
    "qsort.c": ("qsort",),
    "rand.c": ("rand", "rand_r", "random", "srand", "srandom"),
    "sbrk.c": ("brk", "sbrk"),
    "snprintf.c": ("snprintf", "sprintf", "vsnprintf", "vsprintf"),
    "stdio.c": ("__stderr", "__stdout", "fflush", "fileno", "fputc", "fputs", "fwrite", "perror", "putc", "putchar",
                "puts", "setbuf", "setvbuf"),
    "strdup.c": ("strdup", "strndup"),
    "strerror.c": ("strerror",),
    "string_compare.c": ("strcoll", "strxfrm"),
    "string_copy.c": ("memccpy", "mempcpy", "stpcpy", "stpncpy", "strcat", "strlcat", "strlcpy", "strncat", "strncpy"),
    "string_search.c": ("memchr", "memmem", "memrchr", "strchr", "strchrnul", "strrchr", "strstr"),
    "string_span.c": ("strcspn", "strpbrk", "strsep", "strspn", "strtok", "strtok_r"),
    "strings.c": ("bcmp", "bcopy", "bzero", "ffs", "ffsl", "ffsll", "index", "rindex", "strcasecmp", "strncasecmp"),
    "strtol.c": ("atoi", "atol", "atoll", "strtoimax", "strtol", "strtoll", "strtoul", "strtoull", "strtoumax"),
    "sysconf.c": ("getpagesize", "getpid", "sysconf"),
    "time.c": ("clock", "time"),
}
"""The names that each source defines for others."""

REPLACES = frozenset({"snprintf", "vsnprintf"})
"""Names that the kernel has too, with another meaning: without # j t and n, its ``vsnprintf`` on an array of arguments.
A module means the C library's. All other names of the kernel that C knows behave as C says, and are not here again."""

_LEFT_OUT = {False: "malloc_allocator.c", True: "malloc.c"}
_BY_NAME = {allocator: {name: source for source, defined in DEFINES.items() if source != left_out for name in defined}
            for allocator, left_out in _LEFT_OUT.items()}


def file_of(name: str, allocator: bool) -> Path | None:
    """The source that defines a name, or None. ``allocator``: malloc and its kin stand on the allocator under test."""
    source = _BY_NAME[allocator].get(name)
    return None if source is None else SOURCES / source


def names(allocator: bool) -> frozenset[str]:
    """All that the library defines."""
    return frozenset(_BY_NAME[allocator])
