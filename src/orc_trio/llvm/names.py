"""Names and signatures of the wrapper functions between LLVM's controllers and executors, and how they drift.

A name is looked up in the executor's bootstrap symbols.  `VERSIONS` says what each version of the controllers wants.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import attrs

from orc_trio.wire import sps

__all__ = ["DYLIBS", "FOUND", "MEMORY", "VERSIONS", "Version", "version_for"]

DYLIBS: Final = "__llvm_orc_SimpleExecutorDylibManager"
MEMORY: Final = "__llvm_orc_SimpleExecutorMemoryManager"
DISPATCH: Final = "__llvm_orc_SimpleRemoteEPC_dispatch"
BOOTSTRAP: Final = "__llvm_orc_bootstrap"

NOTHING: Final = sps.Tuple()
ADDRESSES: Final = sps.Sequence(sps.ADDRESS)
RANGE: Final = (sps.ADDRESS, sps.ADDRESS)
"""Where something begins, and where it ends."""
_NAMES: Final = sps.Sequence(sps.Tuple(sps.STRING, sps.BOOL))
_ACTION: Final = sps.Tuple(sps.ADDRESS, sps.BYTES)
_REQUEST: Final = sps.Tuple(
    sps.Sequence(sps.Tuple(sps.U8, sps.ADDRESS, sps.U64, sps.BYTES)), sps.Sequence(sps.Tuple(_ACTION, _ACTION))
)
"""Parts of memory (protection, address, size, content), and pairs of actions: at once, and when it is given back."""

OPEN: Final = sps.Signature(sps.Expected(sps.ADDRESS), sps.ADDRESS, sps.STRING, sps.U64)
LOOKUP_ARGUMENTS: Final = (sps.ADDRESS, sps.ADDRESS, _NAMES)
RESOLVE_ARGUMENTS: Final = (sps.ADDRESS, _NAMES)
RESERVE: Final = sps.Signature(sps.Expected(sps.ADDRESS), sps.ADDRESS, sps.U64)
FINALIZE: Final = sps.Signature(sps.ERROR, sps.ADDRESS, _REQUEST)
INITIALIZE: Final = sps.Signature(sps.Expected(sps.ADDRESS), sps.ADDRESS, _REQUEST)
RELEASE: Final = sps.Signature(sps.ERROR, sps.ADDRESS, ADDRESSES)
FRAMES: Final = sps.Signature(sps.ERROR, *RANGE)
MAIN: Final = sps.Signature(sps.I64, sps.ADDRESS, sps.Sequence(sps.STRING))
INT_FUNCTION: Final = sps.Signature(sps.I32, sps.ADDRESS, sps.I32)
VOID_FUNCTION: Final = sps.Signature(sps.I32, sps.ADDRESS)
WRITE_BUFFERS: Final = sps.Signature(NOTHING, sps.Sequence(sps.Tuple(sps.ADDRESS, sps.BYTES)))
READ_BUFFERS: Final = sps.Signature(sps.Sequence(sps.BYTES), sps.Sequence(sps.Tuple(*RANGE)))
READ_STRINGS: Final = sps.Signature(sps.Sequence(sps.STRING), ADDRESSES)
NUMBERS: Final = MappingProxyType(
    {"uint8s": sps.U8, "uint16s": sps.U16, "uint32s": sps.U32, "uint64s": sps.U64, "pointers": sps.ADDRESS}
)
"""What can be written to memory and read from it, by the part of the name that says so."""

FOUND: Final = MappingProxyType[str, sps.Codec[Any]](
    {
        "addresses": sps.Expected(ADDRESSES),
        "symbols": sps.Expected(sps.Sequence(sps.SYMBOL)),
        "maybe symbols": sps.Expected(sps.Sequence(sps.Optional(sps.SYMBOL))),
    }
)
"""What a lookup of symbols answers with."""


@attrs.frozen(kw_only=True)
class Version:
    """What a version of LLVM's controllers wants.

    Attributes:
        found: What a lookup of symbols answers with: one of `FOUND`.
        resolves: A lookup is called ``resolve``, and is not told which manager.
        initializes: Memory is initialized, deinitialized and released; otherwise finalized and deallocated.
        reads: It reads memory, and writes pointers.
        functions: It runs functions other than main.
        frames: How it has exception frames registered: ``"lookup"`` (by a function that is looked up in the process),
            ``"section"`` (by a bootstrap symbol), ``"action"`` (by an action that belongs to memory).
    """

    found: str
    resolves: bool = False
    initializes: bool = False
    reads: bool = False
    functions: bool = True
    frames: str


VERSIONS: Final = MappingProxyType(
    {
        14: Version(found="addresses", functions=False, frames="lookup"),
        16: Version(found="addresses", frames="lookup"),
        19: Version(found="symbols", frames="section"),
        22: Version(found="maybe symbols", resolves=True, initializes=True, reads=True, frames="action"),
    }
)
"""By LLVM's major version."""


def version_for(number: int) -> Version:
    """What the controllers of a major version want; one that is not known is like the one before it.

    Raises:
        ValueError: It is older than all that are known.
    """
    known = max((each for each in VERSIONS if each <= number), default=None)
    if known is None:
        raise ValueError(f"LLVM {number} is too old: {min(VERSIONS)} is the first that is known")
    return VERSIONS[known]
