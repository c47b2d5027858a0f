"""SPS, LLVM's Simple Packed Serialization: typed bytes without a description of themselves.

Whoever reads must know what was written, so both ends name the type: a `Codec`, made of the ones here.

======================== ==================================================== =====================================
codec                    bytes                                                in Python
======================== ==================================================== =====================================
`BOOL`                   one, 0 or 1                                          `bool`
`U8` … `U64`, `I8` …     little-endian, 1 to 8                                `int` in range
`ADDRESS`                as `U64`                                             `int`: an executor address
`STRING`                 count (u64), then so many                            `str`; not UTF-8: surrogates
`BYTES`                  the same                                             `bytes`
`Sequence`               count (u64), then the elements, no padding           `list`
`Tuple`                  the elements                                         `tuple`
`Optional`               a bool, then the value if there is one               the value, or None
`ERROR`                  a bool, then a string if it is one                   None, or a `Failure`
`Expected`               a bool, then the value, or a string if there is none the value, or a `Failure`
`SYMBOL`                 an address, two bytes of flags                       a `Symbol`
======================== ==================================================== =====================================

Rules
-----
* What is read may be anything (G25).  A count is compared with the bytes that are left before anything is made for it,
  a bool is 0 or 1, and nothing may be left over.
* What is written is the caller's: a value of another type, or out of range, is a `TypeError` or a `ValueError`.
* An argument list is a `Tuple`; a `Signature` is the argument list and the result of a wrapper function.
"""

from __future__ import annotations

import abc
import struct
from collections.abc import Sequence as AnySequence
from typing import Any, ClassVar, Final, Generic, TypeVar

import attrs

from orc_trio.exceptions import RemoteProtocolError

__all__ = [
    "ADDRESS",
    "BOOL",
    "BYTES",
    "ERROR",
    "I8",
    "I16",
    "I32",
    "I64",
    "STRING",
    "SYMBOL",
    "U8",
    "U16",
    "U32",
    "U64",
    "Codec",
    "Expected",
    "Failure",
    "Optional",
    "Sequence",
    "Signature",
    "Symbol",
    "Tuple",
]

T = TypeVar("T")
_COUNT: Final = struct.Struct("<Q")


@attrs.frozen
class Failure:
    """An error that was passed as a value.

    Attributes:
        message: What it says.
    """

    message: str


@attrs.frozen
class Symbol:
    """Where a symbol is, and what it is.

    Attributes:
        address: Its address; 0: a weak reference that was not found.
        flags: LLVM's symbol flags; `EXPORTED` is one of them.
        target_flags: Flags of the machine: Arm's Thumb, for example.
    """

    address: int
    flags: int = 0
    target_flags: int = 0

    EXPORTED: ClassVar[int] = 16


class _Input:
    """Bytes that are read from the front."""

    __slots__ = ("_at", "_data")

    def __init__(self, data_untrusted: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data_untrusted)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> memoryview:
        if size > self.left:
            raise RemoteProtocolError(f"SPS: {size} bytes are needed, {self.left} are left")
        self._at += size
        return self._data[self._at - size : self._at]

    def count(self, least: int) -> int:
        """How many elements follow; each takes ``least`` bytes or more."""
        (count,) = _COUNT.unpack(self.take(_COUNT.size))
        if count * least > self.left:
            raise RemoteProtocolError(f"SPS: {count} elements are announced, {self.left} bytes are left")
        return int(count)


class Codec(abc.ABC, Generic[T]):
    """One type: how its values become bytes, and come back.

    Attributes:
        least: The fewest bytes that a value takes.
        none: Whether None is one of its values.
        failure: Whether a `Failure` is.
    """

    least: int
    none: bool = False
    failure: bool = False

    @abc.abstractmethod
    def write(self, value: T, output: bytearray) -> None:
        """Append a value's bytes.

        Raises:
            TypeError, ValueError: It is no value of this type.  The caller's fault.
        """

    @abc.abstractmethod
    def read(self, source: _Input) -> T:
        """Take a value off the front.

        Raises:
            RemoteProtocolError: There is none.
        """

    def pack(self, value: T) -> bytes:
        """A value's bytes.

        Raises:
            TypeError, ValueError: It is no value of this type.  The caller's fault.
        """
        output = bytearray()
        self.write(value, output)
        return bytes(output)

    def unpack(self, data: bytes | bytearray | memoryview) -> T:
        """The value that these bytes are, all of them.

        Raises:
            RemoteProtocolError: They are something else.  The peer's fault.
        """
        source = _Input(data)
        value = self.read(source)
        if source.left:
            raise RemoteProtocolError(f"SPS: {source.left} bytes are left over")
        return value


class _Integer(Codec[int]):
    def __init__(self, name: str, code: str) -> None:
        self._name = name
        self._struct = struct.Struct(f"<{code}")
        self.least: int = self._struct.size

    def __repr__(self) -> str:
        return self._name

    def write(self, value: int, output: bytearray) -> None:
        if not isinstance(value, int):
            raise TypeError(f"{self._name}: an integer is needed, not {type(value).__name__}")
        try:
            output += self._struct.pack(value)
        except struct.error:
            raise ValueError(f"{self._name}: {value} is out of range") from None

    def read(self, source: _Input) -> int:
        return int(self._struct.unpack(source.take(self.least))[0])


class _Bool(Codec[bool]):
    least: int = 1

    def __repr__(self) -> str:
        return "BOOL"

    def write(self, value: bool, output: bytearray) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"BOOL: a bool is needed, not {type(value).__name__}")
        output.append(value)

    def read(self, source: _Input) -> bool:
        (byte,) = source.take(1)
        if byte > 1:
            raise RemoteProtocolError(f"SPS: a bool is {byte}")
        return bool(byte)


class _Bytes(Codec[bytes]):
    least: int = _COUNT.size

    def __repr__(self) -> str:
        return "BYTES"

    def write(self, value: bytes, output: bytearray) -> None:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"BYTES: bytes are needed, not {type(value).__name__}")
        data = memoryview(value).cast("B")
        output += _COUNT.pack(len(data))
        output += data

    def read(self, source: _Input) -> bytes:
        return bytes(source.take(source.count(1)))


class _String(Codec[str]):
    least: int = _COUNT.size

    def __repr__(self) -> str:
        return "STRING"

    def write(self, value: str, output: bytearray) -> None:
        if not isinstance(value, str):
            raise TypeError(f"STRING: a text is needed, not {type(value).__name__}")
        BYTES.write(value.encode("utf-8", "surrogateescape"), output)

    def read(self, source: _Input) -> str:
        return BYTES.read(source).decode("utf-8", "surrogateescape")


class Sequence(Codec[list[T]]):
    """Any number of values of one type.

    Args:
        of: That type.

    Raises:
        ValueError: Its values may take no bytes at all, so that a count says nothing about what follows.
    """

    least: int = _COUNT.size

    def __init__(self, of: Codec[T]) -> None:
        if not of.least:
            raise ValueError(f"a sequence of {of!r}, which takes no bytes, cannot be read safely")
        self._of = of

    def __repr__(self) -> str:
        return f"Sequence({self._of!r})"

    def write(self, value: AnySequence[T], output: bytearray) -> None:
        """Append a value's bytes; see `Codec.write`."""
        if isinstance(value, (str, bytes)) or not isinstance(value, AnySequence):
            raise TypeError(f"{self!r}: a sequence is needed, not {type(value).__name__}")
        output += _COUNT.pack(len(value))
        for each in value:
            self._of.write(each, output)

    def read(self, source: _Input) -> list[T]:
        """Take a value off the front; see `Codec.read`."""
        return [self._of.read(source) for _ in range(source.count(self._of.least))]


class Tuple(Codec[tuple[Any, ...]]):
    """A fixed number of values, of a type each.

    Args:
        *of: Those types.
    """

    def __init__(self, *of: Codec[Any]) -> None:
        self._of = of
        self.least: int = sum(each.least for each in of)

    def __repr__(self) -> str:
        return f"Tuple({', '.join(map(repr, self._of))})"

    def write(self, value: AnySequence[Any], output: bytearray) -> None:
        """Append a value's bytes; see `Codec.write`."""
        if isinstance(value, (str, bytes)) or not isinstance(value, AnySequence):
            raise TypeError(f"{self!r}: a tuple is needed, not {type(value).__name__}")
        if len(value) != len(self._of):
            raise ValueError(f"{self!r}: {len(self._of)} values are needed, not {len(value)}")
        for codec, each in zip(self._of, value, strict=True):
            codec.write(each, output)

    def read(self, source: _Input) -> tuple[Any, ...]:
        """Take a value off the front; see `Codec.read`."""
        return tuple([codec.read(source) for codec in self._of])


class Optional(Codec[T | None]):
    """A value, or none.

    Args:
        of: The value's type.

    Raises:
        ValueError: None is one of its values.
    """

    least: int = 1
    none: bool = True

    def __init__(self, of: Codec[T]) -> None:
        if of.none:
            raise ValueError(f"{of!r} may be None itself, so what an optional one is could not be told")
        self._of = of
        self.failure: bool = of.failure

    def __repr__(self) -> str:
        return f"Optional({self._of!r})"

    def write(self, value: T | None, output: bytearray) -> None:
        """Append a value's bytes; see `Codec.write`."""
        BOOL.write(value is not None, output)
        if value is not None:
            self._of.write(value, output)

    def read(self, source: _Input) -> T | None:
        """Take a value off the front; see `Codec.read`."""
        return self._of.read(source) if BOOL.read(source) else None


class Expected(Codec[T | Failure]):
    """A value, or why there is none.

    Args:
        of: The value's type.

    Raises:
        ValueError: A `Failure` is one of its values.
    """

    least: int = 1
    failure: bool = True

    def __init__(self, of: Codec[T]) -> None:
        if of.failure:
            raise ValueError(f"{of!r} may be a Failure itself, so what an expected one is could not be told")
        self._of = of
        self.none: bool = of.none

    def __repr__(self) -> str:
        return f"Expected({self._of!r})"

    def write(self, value: T | Failure, output: bytearray) -> None:
        """Append a value's bytes; see `Codec.write`."""
        if isinstance(value, Failure):
            BOOL.write(False, output)
            STRING.write(value.message, output)
        else:
            BOOL.write(True, output)
            self._of.write(value, output)

    def read(self, source: _Input) -> T | Failure:
        """Take a value off the front; see `Codec.read`."""
        return self._of.read(source) if BOOL.read(source) else Failure(STRING.read(source))


class _Error(Codec[Failure | None]):
    least: int = 1
    none: bool = True
    failure: bool = True

    def __repr__(self) -> str:
        return "ERROR"

    def write(self, value: Failure | None, output: bytearray) -> None:
        if not isinstance(value, (Failure, type(None))):
            raise TypeError(f"ERROR: None or a Failure is needed, not {type(value).__name__}")
        BOOL.write(value is not None, output)
        if value is not None:
            STRING.write(value.message, output)

    def read(self, source: _Input) -> Failure | None:
        return Failure(STRING.read(source)) if BOOL.read(source) else None


class _Symbol(Codec[Symbol]):
    least: int = 10

    def __repr__(self) -> str:
        return "SYMBOL"

    def write(self, value: Symbol, output: bytearray) -> None:
        if not isinstance(value, Symbol):
            raise TypeError(f"SYMBOL: a Symbol is needed, not {type(value).__name__}")
        ADDRESS.write(value.address, output)
        U8.write(value.flags, output)
        U8.write(value.target_flags, output)

    def read(self, source: _Input) -> Symbol:
        return Symbol(ADDRESS.read(source), U8.read(source), U8.read(source))


BOOL: Final[Codec[bool]] = _Bool()
U8: Final[Codec[int]] = _Integer("U8", "B")
U16: Final[Codec[int]] = _Integer("U16", "H")
U32: Final[Codec[int]] = _Integer("U32", "I")
U64: Final[Codec[int]] = _Integer("U64", "Q")
I8: Final[Codec[int]] = _Integer("I8", "b")
I16: Final[Codec[int]] = _Integer("I16", "h")
I32: Final[Codec[int]] = _Integer("I32", "i")
I64: Final[Codec[int]] = _Integer("I64", "q")
ADDRESS: Final[Codec[int]] = _Integer("ADDRESS", "Q")
BYTES: Final[Codec[bytes]] = _Bytes()
STRING: Final[Codec[str]] = _String()
ERROR: Final[Codec[Failure | None]] = _Error()
SYMBOL: Final[Codec[Symbol]] = _Symbol()


class Signature(Generic[T]):
    """The signature of a wrapper function.

    Args:
        result: What it answers.
        *arguments: What it takes.

    Attributes:
        result: The same.
        arguments: The argument list.
    """

    def __init__(self, result: Codec[T], *arguments: Codec[Any]) -> None:
        self.result: Codec[T] = result
        self.arguments: Tuple = Tuple(*arguments)

    def __repr__(self) -> str:
        return f"Signature({self.result!r}, {', '.join(map(repr, self.arguments._of))})"
