"""What a guest has said, made fit to be shown."""

from __future__ import annotations

import re

UNJUDGED = "not judged, since "
"""How the reason of a line begins that something else has kept from being judged; behind ``: `` is what it was."""
PRINTED_LINES, PRINTED = 4, 240
"""What is quoted of what an allocator printed: so many lines, of so many characters, at most."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text on one line, without what a terminal or a table would obey: such characters are shown as escapes."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def folded(reason: str, line: str, told: dict[str, str]) -> str:
    """A reason that was told before, in few words; empty for one that is new, which is noted as told by ``line``."""
    head, separator, cause = reason.partition(": ") if reason.startswith(UNJUDGED) else ("", "", reason)
    if told.setdefault(cause, line) == line:
        return ""
    return f"{head}: see {told[cause]}" if separator else f"the same as of {told[cause]}"


def last_lines(text: str) -> str:
    """The end of what was printed, in one piece."""
    lines = [line for line in text.splitlines() if line.strip()]
    end = " / ".join(lines[-PRINTED_LINES:])
    return f"...{end[-PRINTED:]}" if len(lines) > PRINTED_LINES or len(end) > PRINTED else end
