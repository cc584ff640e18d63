"""The guest's call stack at the entry of a function: the return address, then the chain of RBP.

Every function of the kernel that calls another begins with ``push rbp; mov rbp, rsp``, and the trap entry links
the interrupted code into the chain, so the callers are found by following the saved RBPs upwards.
"""

from __future__ import annotations

from .ram import Ram

MAX_FRAMES = 32


def callers(ram: Ram, rsp: int, rbp: int, cr3: int) -> tuple[int, ...]:
    """The return addresses, innermost first, at the first instruction of a function.

    They are as the stack has them: which of them are code is for whoever gives them names to say. The walk ends
    where RBP is 0, misaligned, unmapped or no longer rising.
    """
    if rsp & 7:
        return ()
    words, translate = ram.words, ram.translate
    known = ram.walked.get(rsp >> 12)               # the walk of the last call, if the entry still says the same
    if known is not None and words[known[0]] == known[1] and known[2] == cr3:
        base = known[3] | rsp & 0xFFF
    else:
        base = translate(rsp, cr3)
        if base < 0:
            return ()
    if rbp <= rsp:
        return (words[base >> 3],)
    found = [words[base >> 3]]
    page = rsp >> 12
    base -= rsp                                     # physical = virtual + base, while in the same page
    low = rsp
    while rbp > low and not rbp & 7 and len(found) < MAX_FRAMES:
        if rbp >> 12 != page:
            physical = translate(rbp, cr3)
            if physical < 0:
                break
            page, base = rbp >> 12, physical - rbp
        at = (rbp + base) >> 3
        caller = words[at + 1] if rbp & 0xFF8 != 0xFF8 else ram.word(rbp + 8, cr3)
        if not caller:
            break
        found.append(caller)
        low, rbp = rbp, words[at]
    return tuple(found)
