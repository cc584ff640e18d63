"""The allocators of other people: where their sources are, and how they are compiled and called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .packages import Package

OWN = {"allocate": "allocate", "reallocate": "reallocate", "deallocate": "deallocate", "stats": None}
"""The roles that every shim has, by their own names."""
LVGL = "cb/18/159d7a3efe6f2024926ecf59020f429c04e58e4ab95b645b66ac43a9baef/lvgl-0.1.1b0.tar.gz"
PLAIN = "-DUSE_LOCKS=0 -DHAVE_MREMAP=0 -DMALLOC_ALIGNMENT=16"
"""dlmalloc for one thread, with chunks as System V wants them."""
LMMS = "pool/main/l/lmms/lmms_1.2.2+dfsg1.orig.tar.xz"
SC3 = "pool/main/s/supercollider-sc3-plugins/supercollider-sc3-plugins_3.9.1~repack.orig.tar.xz"


def debian(path: str) -> tuple[str, ...]:
    """Where a file of Debian's is, for as long as there is Debian."""
    return tuple(f"https://{host}/{path}" for host in (
        "deb.debian.org/debian", "archive.debian.org/debian", "snapshot.debian.org/archive/debian/20230701T000000Z"))


@dataclass(frozen=True)
class Allocator:
    """A package, the allocator's own source in it, what is linked with it, and how it is called.

    ``zeroed`` and ``aligned``: it has the functions. ``arena`` bounds its memory. ``breaks`` are the promises of
    ``sandbox check`` that it does not keep when it manages an arena.
    """

    package: Package
    source: str
    files: tuple[str, ...]
    cflags: str
    zeroed: bool
    aligned: bool
    breaks: frozenset[str] = frozenset()
    arena: str = "1M"
    arena_files: tuple[str, ...] = ()
    arena_cflags: str = ""

    def placed(self, directory: Path) -> None:
        """See to it that the files of the package are there."""
        if not (directory / self.source).exists():
            self.package.extract(directory)

    @property
    def symbols(self) -> dict[str, str | None]:
        """Its roles, where it is one of a shim."""
        names = {"allocate_zeroed": self.zeroed, "allocate_aligned": self.aligned}
        return {**OWN, **{name: name for name, there in names.items() if there}}

    @property
    def has_shim(self) -> bool:
        """Whether it is called by the names of a shim; else it is ``malloc`` and its family."""
        return self.files[0].endswith("shim.c")

    @property
    def driven(self) -> str:
        """The flags for the driver: what it calls."""
        return " ".join(f"-D{role.upper()}={name}" for role, name in self.symbols.items() if name and self.has_shim)


ALLOCATORS = {
    "dlmalloc": Allocator(
        Package(("https://registry.npmjs.org/ffi/-/ffi-2.3.0.tgz",),
                "6c5d2c84f8e9aad81d9b7cf40aada9898bebb6c40d9c67c13aa0d11874042a4c",
                {"package/deps/libffi/src/dlmalloc.c": "dlmalloc.c"}),
        "dlmalloc.c", ("dlmalloc.c",),
        # It takes memory by mmap, and gives it back by both, from sizes on that the driver has.
        f"{PLAIN} -DDEFAULT_MMAP_THRESHOLD=8192ul -DDEFAULT_TRIM_THRESHOLD=16384ul",
        zeroed=True, aligned=True, breaks=frozenset({"wild_free"}), arena_files=("dlmalloc/mspace.c", "dlmalloc.c"),
        arena_cflags=f"{PLAIN} -DHAVE_MMAP=0 -DONLY_MSPACES=1"),
    "tlsf": Allocator(
        Package(debian(SC3), "78d0036d09ea2df84659b5075615fc24fbc0f537f1f6e930d2340d2f05b5fc58",
                {f"supercollider-sc3-plugins/external_libraries/TLSF-2.4.6/src/tlsf.{suffix}": f"tlsf/tlsf.{suffix}"
                 for suffix in "ch"}),
        "tlsf/tlsf.c", ("tlsf/shim.c", "tlsf/tlsf.c"), "", zeroed=True, aligned=False,
        breaks=frozenset({"sizes", "double_free", "wild_free", "zeroed"})),
    "lvgl": Allocator(
        Package((f"https://files.pythonhosted.org/packages/{LVGL}",),
                "a6c10df340e3e6c11e83bce58b61f06155296cc4541ba80eb914c9884bef34c9",
                {"lvgl-0.1.1b0/src/lvgl/src/misc/lv_tlsf.c": "lvgl/misc/lv_tlsf.c"}),
        "lvgl/misc/lv_tlsf.c", ("lvgl/shim.c",), "", zeroed=False, aligned=True,
        breaks=frozenset({"alignment", "sizes", "wild_free"})),
    "rpmalloc": Allocator(
        Package(debian(LMMS), "efa7403dee9d8acc675b3e4005e64e599bb338bc983c7d77967363f55de42657",
                {f"lmms/src/3rdparty/rpmalloc/rpmalloc/rpmalloc/rpmalloc.{suffix}": f"rpmalloc/rpmalloc.{suffix}"
                 for suffix in "ch"}),
        # One thread needs no thread-local storage. Its aligned chunks must not be reallocated (test_third_party.py).
        "rpmalloc/rpmalloc.c", ("rpmalloc/shim.c", "rpmalloc/rpmalloc.c"),
        "-D__thread= -Irpmalloc -DDEFAULT_SPAN_MAP_COUNT=4", zeroed=True, aligned=False, arena="16M"),
}
