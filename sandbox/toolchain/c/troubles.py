"""What is in the way of linking: collected first, told all at once, each with its places in the source."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import LinkError
from ..image import Image

_PLACES = 4


@dataclass
class _Trouble:
    """One reason, and the addresses at which it shows; ``file`` where it is not about an address."""

    sentence: str
    file: str = ""
    addresses: list[int] = field(default_factory=list)


class Troubles:
    """Reasons by what they are about: the same one is told once."""

    def __init__(self) -> None:
        self._found: dict[Hashable, _Trouble] = {}

    def note(self, about: Hashable, sentence: str, *, file: str = "", address: int | None = None) -> None:
        """One more reason, or one more address of a known one."""
        trouble = self._found.setdefault(about, _Trouble(sentence, file))
        if address is not None:
            trouble.addresses.append(address)

    def note_thread_local(self, label: str, *, file: str = "", address: int | None = None) -> None:
        """A variable of which each thread would have its own."""
        self.note(("thread-local", label), f"{label!r} is thread-local (_Thread_local, __thread): the guest has no "
                                           "threads, and no FS segment for them", file=file, address=address)

    def complain(self, shown: Sequence[str], image: Image | None = None) -> None:
        """Raise a :class:`LinkError` about the files ``shown`` if there is any; the lines are those of ``image``."""
        if self._found:
            raise LinkError(", ".join(shown), [_sentence(trouble, image) for trouble in self._found.values()])


def _sentence(trouble: _Trouble, image: Image | None) -> str:
    """``my.c:12, my.c:30 and 3 more: what is wrong``."""
    places = list(dict.fromkeys(_places(trouble, image)))
    shown = ", ".join(places[:_PLACES]) + (f" and {len(places) - _PLACES} more" if len(places) > _PLACES else "")
    return f"{shown}: {trouble.sentence}" if shown else trouble.sentence


def _places(trouble: _Trouble, image: Image | None) -> Iterator[str]:
    if trouble.file and not trouble.addresses:
        yield trouble.file
    for address in trouble.addresses:
        line = image.line(address) if image is not None else None
        yield str(line) if line is not None else f"0x{address:x}"
