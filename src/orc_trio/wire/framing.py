"""Messages to bytes and back: a CBOR sequence of byte strings, each embedding one array of five.

Format
------
A connection is a CBOR sequence (RFC 8742) of byte strings.  Each embeds one array: opcode, sequence number, tag, aux,
payload.  We write it with fixed-width heads, so that one `struct` packs or checks the whole head:

====== ============ =====================================
offset bytes        is
====== ============ =====================================
0      ``5a`` + u32 length of the rest
5      ``85``       array of 5
6      ``00``-``17`` opcode
7      ``1b`` + u64 sequence number
16     ``1b`` + u64 tag
25     ``1b`` + u64 aux
34     ``5a`` + u32 payload length
39     …            payload
====== ============ =====================================

Rules of the reader
-------------------
* Every definite-length encoding of the same array is accepted: the shape above by `struct`, any other by walking its
  six heads.  (Not by a general CBOR decoder: an array of five whose last item is not a byte string could make one
  build objects many times the size of the message.)
* The length is checked against the limit before anything is allocated for it (G25).  Until the first message is
  complete, the limit is that of a setup message.
* What is cut, large or malformed is treated as the module `orc_trio.wire.decoding` says.

Refused: indefinite lengths, tags, other types, wrong counts, trailing bytes inside a frame, lengths over the limit.
"""

from __future__ import annotations

import struct
from typing import Final

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire.decoding import OWN_BUFFER_FROM, Decoder
from orc_trio.wire.messages import Message, new_message

__all__ = ["FIRST_MESSAGE_MAX", "HEAD_SIZE", "FrameDecoder", "encode", "encode_head"]

_HEAD: Final = struct.Struct(">BIBBBQBQBQBI")
HEAD_SIZE: Final = _HEAD.size
"""Bytes before the payload in a frame as we write it."""
_PREFIX: Final = 5
_INNER_HEAD: Final = HEAD_SIZE - _PREFIX
_MAX_INNER_HEAD: Final = 9 * 6
"""What the six inner heads (array, four integers, payload) can take when another encoder writes them."""

FIRST_MESSAGE_MAX: Final = 1024 * 1024
"""The largest payload of a connection's first message, in bytes."""

_UINT, _BYTES, _ARRAY = 0, 2, 4


def encode_head(message: Message) -> bytes:
    """The `HEAD_SIZE` bytes that come before ``message.payload``.

    Raises:
        struct.error: An integer is out of range, or the payload has 2³² bytes or more.  The caller's fault.
    """
    opcode, seq, tag, aux, payload = message
    size = len(payload)
    return _HEAD.pack(0x5A, _INNER_HEAD + size, 0x85, opcode, 0x1B, seq, 0x1B, tag, 0x1B, aux, 0x5A, size)


def encode(message: Message) -> bytes:
    """The whole frame: head and payload."""
    return b"".join((encode_head(message), message.payload))


class FrameDecoder(Decoder[Message]):
    """Turns a stream of bytes, cut anywhere, into messages.

    Args:
        max_payload: The largest payload accepted, in bytes.  May be lowered or raised between calls.
        first_max: The same for the first message only.
    """

    def __init__(self, max_payload: int, *, first_max: int = FIRST_MESSAGE_MAX) -> None:
        super().__init__(max_payload)
        self._first_max: int | None = first_max
        self._own_head: tuple[int, int, int, int] | None = None  # None: the buffer is of a whole frame, not a payload

    def _parse(self, data: bytes, messages: list[Message]) -> None:
        at, end = 0, len(data)
        while at < end:
            if end - at >= HEAD_SIZE:
                outer, length, array, opcode, s, seq, t, tag, a, aux, p, size = _HEAD.unpack_from(data, at)
                if (
                    (outer, array, s, t, a, p) == (0x5A, 0x85, 0x1B, 0x1B, 0x1B, 0x5A)
                    and opcode < 24
                    and length == _INNER_HEAD + size
                ):
                    if size > self.max_payload or self._first_max is not None:
                        self._check_size(size)
                    stop = at + HEAD_SIZE + size
                    if stop <= end:
                        messages.append(new_message((opcode, seq, tag, aux, data[at + HEAD_SIZE : stop])))
                        self._first_max = None
                        at = stop
                        continue
                    if size > OWN_BUFFER_FROM:
                        self._own_head = (opcode, seq, tag, aux)
                        self._begin_own(size, data[at + HEAD_SIZE :])
                        return
                    self._rest_wants = stop - at
                    break
            end_of_frame = self._frame_end(data, at)
            if end_of_frame is None:
                break
            stop = end_of_frame
            if stop > end:
                if end - at < HEAD_SIZE:
                    self._rest_wants = min(HEAD_SIZE, stop - at)
                elif stop - at > OWN_BUFFER_FROM:
                    self._own_head = None
                    self._begin_own(stop - at, data[at:])
                    return
                else:
                    self._rest_wants = stop - at
                break
            messages.append(self._walk(data, at, stop))
            self._first_max = None
            at = stop
        self._rest = data[at:]

    def _completed(self, own: memoryview) -> Message:
        head = self._own_head
        message = Message(*head, own) if head is not None else self._walk(own, 0, len(own))
        self._first_max = None
        return message

    def _limit(self) -> int:
        return self.max_payload if self._first_max is None else self._first_max

    def _check_size(self, size: int) -> None:
        if size > self._limit():
            raise RemoteProtocolError(f"a payload of {size} bytes is over the limit of {self._limit()} bytes")

    def _frame_end(self, data: bytes, at: int) -> int | None:
        """Where the frame that begins at ``at`` ends; None if that cannot be told yet."""
        major, length, after = _read_head(data, at)
        if major != _BYTES:
            shown = data[at : at + 16]
            raise RemoteProtocolError(f"not an orc_trio message: {shown!r} does not begin with a CBOR byte string")
        if length is None:
            return None
        if length > self._limit() + _MAX_INNER_HEAD:
            raise RemoteProtocolError(f"a message of {length} bytes is over the limit of {self._limit()} bytes")
        return after + length

    def _walk(self, data: bytes | memoryview, at: int, stop: int) -> Message:
        """Read one complete frame whose heads have any definite width."""
        _, _, at = _read_head(data, at)
        major, count, after = _read_head(data, at, stop)
        if major != _ARRAY or count != 5:
            shown = bytes(data[at : at + 16])
            raise RemoteProtocolError(f"not an orc_trio message: {shown!r} is not a CBOR array of five")
        at = after
        numbers = []
        for name in ("opcode", "sequence number", "tag", "aux"):
            major, value, at = _read_head(data, at, stop)
            if major != _UINT or value is None:
                raise RemoteProtocolError(f"a message's {name} is not an unsigned integer")
            numbers.append(value)
        major, size, at = _read_head(data, at, stop)
        if major != _BYTES or size is None:
            raise RemoteProtocolError("a message's payload is not a byte string")
        if at + size != stop:
            raise RemoteProtocolError(f"a message's payload of {size} bytes does not end where the message ends")
        self._check_size(size)
        return Message(numbers[0], numbers[1], numbers[2], numbers[3], data[at:stop])


def _read_head(data: bytes | memoryview, at: int, stop: int | None = None) -> tuple[int, int | None, int]:
    """Read one CBOR head.

    Returns:
        Its major type, its argument (None: the bytes end before it does), and where it ends.

    Raises:
        RemoteProtocolError: Reserved or indefinite argument.
    """
    end = len(data) if stop is None else stop
    if at >= end:
        return -1, None, at
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if info < 24:
        return major, info, at
    if info > 27:
        raise RemoteProtocolError("not an orc_trio message: a CBOR length is indefinite or reserved")
    width = 1 << (info - 24)
    if at + width > end:
        return major, None, at
    return major, int.from_bytes(data[at : at + width], "big"), at + width
