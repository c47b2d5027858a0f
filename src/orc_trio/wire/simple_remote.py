"""LLVM's own wire: frames of "SimpleRemote", sans-IO.

Format
------
====== ===== ==========================================================
offset bytes is (little-endian)
====== ===== ==========================================================
0      8     size of the frame, these 32 bytes included
8      8     opcode: an `Op`
16     8     sequence number
24     8     tag
32     …     payload
====== ===== ==========================================================

======== ====================== ==================================== ============================================
opcode   sequence number        tag                                  payload (SPS)
======== ====================== ==================================== ============================================
SETUP    0                      0                                    an `ExecutorInfo`
HANG_UP  0                      0                                    an error: none, or why
RESULT   that of its call       what came: see `Dialect`             the answer, or an error's text
CALL     the sender's, from 0   executor address, or handler tag     the argument bytes
======== ====================== ==================================== ============================================

Only the executor sends a setup: a controller that gets one crashes the other way round, so we never send it.

Rules of the reader (G25)
-------------------------
* LLVM puts no bound on a frame; we do, before anything is allocated for it.
* What is cut, large or malformed is treated as the module `orc_trio.wire.decoding` says.

Refused: sizes below 32 or over the limit, unknown opcodes, numbers where there is none.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

import attrs

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire import sps
from orc_trio.wire.decoding import OWN_BUFFER_FROM, Decoder

__all__ = [
    "FRAME_HEAD_SIZE",
    "OUT_OF_BAND_ERROR",
    "VALUE",
    "Dialect",
    "ExecutorInfo",
    "Frame",
    "FrameReader",
    "Op",
    "encode_frame",
    "encode_frame_head",
]

T = TypeVar("T")
_HEAD: Final = struct.Struct("<QQQQ")
FRAME_HEAD_SIZE: Final = _HEAD.size
"""Bytes before the payload."""

VALUE: Final = 0
"""A result's tag: the payload is the answer."""
OUT_OF_BAND_ERROR: Final = 1
"""A result's tag, in `Dialect.MAIN`: the payload is the text of an error."""


class Op(enum.IntEnum):
    """What a frame is for."""

    SETUP = 0
    HANG_UP = 1
    RESULT = 2
    CALL = 3


class Dialect(enum.Enum):
    """Which LLVM one speaks to: what is in a setup, and how an error that is no answer travels in a result."""

    UP_TO_16 = "up to LLVM 16"
    """A setup has no values.  An error is an empty result, and its text is lost; a tag ends the session."""
    UP_TO_23 = "up to LLVM 23"
    """A setup has values.  Errors as before."""
    MAIN = "LLVM main"
    """A result's tag says what the payload is: `VALUE` or `OUT_OF_BAND_ERROR`."""


class Frame(NamedTuple):
    """One frame.

    Attributes:
        opcode: An `Op`.
        seq: 0 … 2⁶⁴−1.
        tag: 0 … 2⁶⁴−1.
        payload: The bytes.  A large one that was just received is a `memoryview` of a buffer of its own.
    """

    opcode: int
    seq: int = 0
    tag: int = 0
    payload: bytes | memoryview = b""


def encode_frame_head(frame: Frame) -> bytes:
    """The bytes that come before ``frame.payload``."""
    return _HEAD.pack(FRAME_HEAD_SIZE + len(frame.payload), frame.opcode, frame.seq, frame.tag)


def encode_frame(frame: Frame) -> bytes:
    """The whole frame."""
    return b"".join((encode_frame_head(frame), frame.payload))


class FrameReader(Decoder[Frame]):
    """Turns a stream of bytes, cut anywhere, into frames.

    Args:
        max_payload: The largest payload accepted, in bytes.  May be changed between calls.
    """

    def __init__(self, max_payload: int) -> None:
        super().__init__(max_payload)
        self._own_head = Frame(0)

    def _parse(self, data: bytes, messages: list[Frame]) -> None:
        at, end = 0, len(data)
        while end - at >= FRAME_HEAD_SIZE:
            size, opcode, seq, tag = _HEAD.unpack_from(data, at)
            self._check(size, opcode, seq, tag)
            stop = at + size
            if stop <= end:
                messages.append(Frame(opcode, seq, tag, data[at + FRAME_HEAD_SIZE : stop]))
                at = stop
                continue
            if size - FRAME_HEAD_SIZE > OWN_BUFFER_FROM:
                self._own_head = Frame(opcode, seq, tag)
                self._begin_own(size - FRAME_HEAD_SIZE, data[at + FRAME_HEAD_SIZE :])
                return
            self._rest_wants = size
            break
        self._rest = data[at:]

    def _completed(self, own: memoryview) -> Frame:
        return self._own_head._replace(payload=own)

    def _check(self, size: int, opcode: int, seq: int, tag: int) -> None:
        if size < FRAME_HEAD_SIZE:
            raise RemoteProtocolError(f"a frame of {size} bytes is smaller than its own head")
        if opcode not in Op._value2member_map_:
            raise RemoteProtocolError(f"unknown opcode {opcode}")
        if size - FRAME_HEAD_SIZE > self.max_payload:
            raise RemoteProtocolError(
                f"a payload of {size - FRAME_HEAD_SIZE} bytes is over the limit of {self.max_payload} bytes"
            )
        if opcode in (Op.SETUP, Op.HANG_UP) and (seq or tag):
            raise RemoteProtocolError(f"a {Op(opcode).name} frame has the sequence number {seq} and the tag {tag}")


_SYMBOLS: Final = sps.Sequence(sps.Tuple(sps.STRING, sps.ADDRESS))
_VALUES: Final = sps.Sequence(sps.Tuple(sps.STRING, sps.BYTES))
_WITH_VALUES: Final = sps.Tuple(sps.STRING, sps.U64, _VALUES, _SYMBOLS)
_WITHOUT: Final = sps.Tuple(sps.STRING, sps.U64, _SYMBOLS)


@attrs.frozen(kw_only=True)
class ExecutorInfo:
    """What an executor says of itself in its setup.

    Attributes:
        triple: Its target triple.
        page_size: Its page size, in bytes.
        values: Bootstrap values by name; None: it is LLVM 16 or older, which has none.
        symbols: Addresses by name.
    """

    triple: str
    page_size: int
    values: Mapping[str, bytes] | None
    symbols: Mapping[str, int]

    def pack(self) -> bytes:
        """The payload of the setup frame.

        Raises:
            TypeError, ValueError: Something is of another type, or out of range.
        """
        symbols = list(self.symbols.items())
        if self.values is None:
            return _WITHOUT.pack((self.triple, self.page_size, symbols))
        return _WITH_VALUES.pack((self.triple, self.page_size, list(self.values.items()), symbols))

    @classmethod
    def unpack(cls, payload: bytes | memoryview) -> ExecutorInfo:
        """Read the payload of a setup frame, of either kind.

        Raises:
            RemoteProtocolError: It is neither, or says one thing twice.
        """
        values: list[tuple[str, bytes]] | None
        try:
            triple, page_size, values, symbols = _WITH_VALUES.unpack(payload)
        except RemoteProtocolError:
            values = None
            triple, page_size, symbols = _WITHOUT.unpack(payload)
        return cls(
            triple=triple,
            page_size=page_size,
            values=None if values is None else _once(values, "value"),
            symbols=_once(symbols, "symbol"),
        )


def _once(pairs: list[tuple[str, T]], what: str) -> dict[str, T]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RemoteProtocolError(f"a setup names a bootstrap {what} twice")
    return found
