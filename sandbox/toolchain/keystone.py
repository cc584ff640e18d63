"""The Keystone back end: the only door to that library, opened on first use.

No option is ever set: ``syntax`` and ``sym_resolver`` switch the number radix to 16 for the whole process.
"""

from __future__ import annotations

from ..errors import EngineError
from .backend import Rejected

_REASONS = {
    "KS_ERR_ASM_INVALIDOPERAND": "the instruction does not take these operands",
    "KS_ERR_ASM_MNEMONICFAIL": "there is no such instruction, or it does not take these operands",
    "KS_ERR_ASM_MISSINGFEATURE": "the assembler does not know this instruction in 64-bit mode",
    "KS_ERR_ASM_FIXUP_INVALID": "the target is out of the instruction's reach",
}


class Keystone:
    """Keystone in its default Intel syntax."""

    needs_index = True
    """``[n]`` is made relative to RIP in code below 2 GiB, and takes 8 bytes beside the accumulator."""

    def __init__(self) -> None:
        try:
            import keystone
        except ImportError as error:
            raise EngineError(f"keystone cannot be loaded: {error}") from None
        self._library = keystone
        self._engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)

    def assemble(self, text: str, base: int) -> bytes:
        """The bytes of ``text`` linked at ``base``; Keystone never says which line it rejects."""
        try:
            data, _ = self._engine.asm(text.encode("ascii"), base, as_bytes=True)
        except self._library.KsError as error:
            shown = str(error)
            code = shown[shown.find("(") + 1 : shown.rfind(")")]
            raise Rejected(_REASONS.get(code, shown)) from None
        return bytes(data or b"")
