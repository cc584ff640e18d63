"""Which key does what. The names of keys are those of the terminal library, a character where there is one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """Keys that do the same: ``keys`` in words for the help, ``does`` in a few words."""

    keys: str
    does: str


MOVES = {"s": "step", "S": "back", "n": "next", "N": "reverse-next", "l": "next-line", "L": "reverse-next-line",
         "i": "step-line", "I": "reverse-step-line", "f": "finish", "F": "reverse-finish",
         "u": "until", "U": "reverse-until", "c": "continue", "C": "reverse-continue"}
"""Keys that are a command with the number typed before them."""
DIRECT = {"e": "next-event", "E": "previous-event", "]": "search", "[": "search-back", "<": "goto start",
          ">": "goto end", "G": "goto end"}
"""Keys that are a whole command."""
PROMPTS = {"/": ("search events: ", "search"), "g": ("go to: ", "goto"), "w": ("who wrote: ", "who-wrote"),
           "r": ("who read: ", "who-read"), "b": ("break at: ", "break"), ":": (":", "")}
"""Keys that ask for a line, and the command that it is the argument of."""

HELP: tuple[tuple[str, tuple[Key, ...]], ...] = (
    ("moving; a number before a key repeats it: 25s", (
        Key("s  S", "one instruction forwards, backwards; n N over calls and interrupts"),
        Key("l  L", "one source line forwards, backwards; i I into the program's calls"),
        Key("f  F", "finish: to this function's return, back to its call"),
        Key("u  U", "until: a later line of this function, an earlier one"),
        Key("c  C", "continue to the next breakpoint, the previous one"),
        Key("e  E", "the next event, the previous one"),
        Key("g < >", "go to 23117, +10, -10, 50%, #7 (an event); the start; the end"),
    )),
    ("finding", (
        Key("/", "search events: free, kmalloc-64, 0xffff..., size>100"),
        Key("]  [", "the next match, the previous one"),
        Key("w  r", "who wrote, who read memory last; enter goes there"),
        Key("b", "break at kmalloc, slab.asm:120, *0x...; -1 deletes; empty: list"),
        Key("h  x", "the history of the object under the cursor; this instruction explained"),
    )),
    ("looking", (
        Key("tab", "the next pane; shift+tab the previous one"),
        Key("cells", "# in use, o in a magazine, . free, ? corrupt"),
        Key("arrows", "move in it; page up, page down; escape lets go"),
        Key("enter", "on an event: go there; on an object: its history"),
        Key("z", "the pane alone on the screen, and back"),
        Key(":", "any command of sandbox step --plain (:help)"),
        Key("?  q", "this help; leave"),
    )),
)
HINT_C = "l line  i into  s instruction  f finish  capitals: back  g go  w who  ? help"
"""Where the line that is about to run is C."""
HINT = "s step  n next  f finish  u until  capitals: back  / search  g go  w who  ? help"
