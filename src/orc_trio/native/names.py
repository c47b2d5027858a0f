"""The names and the payloads by which a controller drives native code in an executor: both ends import this.

Each is an ordinary wrapper function, published among the executor's bootstrap symbols. Arguments and results are
CBOR maps with text keys, read strictly: a missing, unknown or ill-typed entry is an error.

=====================================  ====================================================  ======================
symbol                                 arguments                                             result
=====================================  ====================================================  ======================
`orc_trio.native.load_object`          name: text, objects: [bytes, …], tags: {text: uint},  program: uint
                                       dylibs: [text, …]
`orc_trio.native.lookup`               program: uint, symbol: text                           address: uint
`orc_trio.native.run_main`             program: uint, argv: [bytes, …]                       status: int
`orc_trio.native.unload`               program: uint                                         (empty)
=====================================  ====================================================  ======================

The executor's values `cpu` and `features` are LLVM's words for its machine, `llvm` its version of LLVM.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire.cbor import dumps, loads_strict

__all__ = ["BAD_ARGUMENTS", "LINK_ERROR", "LOAD_OBJECT", "LOOKUP", "RUN_MAIN", "UNLOAD", "Fields", "dumps"]

LOAD_OBJECT: Final = "orc_trio.native.load_object"
LOOKUP: Final = "orc_trio.native.lookup"
RUN_MAIN: Final = "orc_trio.native.run_main"
UNLOAD: Final = "orc_trio.native.unload"

BAD_ARGUMENTS: Final = "BadArguments"
"""The error type of a call whose arguments are not what the table says."""

LINK_ERROR: Final = "LinkError"
"""The error type of a program, library or symbol that cannot be loaded or found."""

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Fields:
    """A received map whose entries are taken out one by one.

    Args:
        data: the CBOR, from the other end.
        what: names the payload in messages.

    Raises:
        RemoteProtocolError: this is not one strict CBOR map with text keys.
    """

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self._what = what
        item = loads_strict(data, what=what)
        if type(item) is not dict or not all(type(key) is str for key in item):
            raise RemoteProtocolError(f"{what}: expected a map with text keys")
        self._rest: dict[str, Any] = item

    def take(self, key: str, kind: type[T]) -> T:
        """Take out the entry `key`, of exactly this type."""
        value = self._rest.pop(key, None)
        if type(value) is not kind:
            raise RemoteProtocolError(f"{self._what}: expected {key!r}: {kind.__name__}")
        return value

    def take_unsigned(self, key: str) -> int:
        """Take out an integer of 0 to 2**64-1."""
        value = self.take(key, int)
        if not 0 <= value < 2**64:
            raise RemoteProtocolError(f"{self._what}: {key!r} is out of range")
        return value

    def take_list(self, key: str, kind: type[T]) -> list[T]:
        """Take out a list with entries of exactly this type."""
        values = self.take(key, list)
        if not all(type(value) is kind for value in values):
            raise RemoteProtocolError(f"{self._what}: expected {key!r}: a list of {kind.__name__}")
        return values

    def take_map(self, key: str, key_kind: type[K], kind: type[V]) -> dict[K, V]:
        """Take out a map with keys and values of exactly these types."""
        values = self.take(key, dict)
        if not all(type(name) is key_kind and type(value) is kind for name, value in values.items()):
            kinds = f"{key_kind.__name__} to {kind.__name__}"
            raise RemoteProtocolError(f"{self._what}: expected {key!r}: a map of {kinds}")
        return values

    def end(self) -> None:
        """Refuse what has not been taken out."""
        if self._rest:
            raise RemoteProtocolError(f"{self._what}: unknown entries: {', '.join(sorted(self._rest))[:200]}")
