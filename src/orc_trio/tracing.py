"""Traces: what crossed a connection, in a file that any CBOR tool reads.

Format
------
A trace is a CBOR sequence (RFC 8742) of records.  Each is an array of three:

========== ============================================================================================
item       is
========== ============================================================================================
time       float, seconds since 1970
direction  text: ``"sent"`` or ``"received"``, as seen by the end that traces
what       byte string: one frame, exactly as on the wire (a frame *is* a CBOR byte string) · null: the
           end of the stream in that direction · text: the error that ended it
========== ============================================================================================

So the third items of one direction, one after the other, are a raw capture of it; `read_records` reads that too.

Rules
-----
* A record of a sent message is written before the message is handed to the transport, one of a received message
  before it is handed to the connection: after a crash, the last record is the message that did it.
* A message that came in another legal encoding is written in ours: the same five values.
* A trace that cannot be written (the disk is full) ends; the connection goes on.  `TraceWriter.error` says so.
* A reader takes nothing for granted: it never allocates more than the file has, and says where what is wrong.

Refused: anything else in a trace; a capture of both directions mixed together.

A trace contains every byte of every call.  Treat it like the data itself.
"""

from __future__ import annotations

import enum
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final

import attrs

from orc_trio.abc import MessageTransport, WrappedTransport
from orc_trio.exceptions import OrcError, RemoteProtocolError
from orc_trio.wire.framing import FrameDecoder, encode
from orc_trio.wire.messages import Message

__all__ = ["Direction", "MalformedCaptureError", "Record", "TraceWriter", "TracingTransport", "read_records"]

_CHUNK: Final = 1024 * 1024
_MAX_FRAME: Final = 2**32 - 1
_UINT, _BYTES, _TEXT, _ARRAY, _OTHER = 0, 2, 3, 4, 7
_NULL, _FLOAT64 = 22, 27


class Direction(enum.Enum):
    """Which way a message went, as seen by the end that traces."""

    SENT = "sent"
    RECEIVED = "received"


class MalformedCaptureError(OrcError):
    """A file is no trace and no capture, or stops being one.

    Attributes:
        offset: Where, in bytes from the beginning of the file.
        why: What is wrong there.
    """

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(offset, why)
        self.offset = offset
        self.why = why

    def __str__(self) -> str:
        return f"offset {self.offset}: {self.why}"


def _wall_clock() -> Callable[[], float]:
    """Seconds since 1970 that never go back."""
    began, start = time.time(), time.perf_counter()
    return lambda: began + time.perf_counter() - start


class TraceWriter:
    """Writes a trace.

    Args:
        file: Opened for writing bytes; the caller closes it.  What was written is flushed after every batch.
        clock: Gives the time; default: the system's, never going back.
    """

    def __init__(self, file: BinaryIO, *, clock: Callable[[], float] | None = None) -> None:
        self._file = file
        self._clock = clock or _wall_clock()
        self.error: OSError | None = None
        """Why the trace is incomplete; None: it is not."""

    def messages(self, direction: Direction, messages: Sequence[Message]) -> None:
        """Record messages."""
        head = self._head(direction)
        self._write([piece for message in messages for piece in (head, encode(message))])

    def end(self, direction: Direction, error: str | None = None) -> None:
        """Record the end of the stream in one direction, or the error that ended it."""
        text = (error or "").encode("utf-8", "backslashreplace")
        item = b"\xf6" if error is None else b"\x7a" + len(text).to_bytes(4, "big") + text
        self._write([self._head(direction), item])

    def _head(self, direction: Direction) -> bytes:
        name = direction.value.encode()
        return b"\x83\xfb" + struct.pack(">d", self._clock()) + bytes([_TEXT << 5 | len(name)]) + name

    def _write(self, pieces: list[bytes]) -> None:
        if self.error is None:
            try:
                self._file.write(b"".join(pieces))
                self._file.flush()
            except OSError as exc:
                self.error = exc


class TracingTransport(WrappedTransport):
    """Another transport, with a record of every message.

    Args:
        inner: What moves the messages; belongs to this from here on.
        trace: Where the records go.
    """

    def __init__(self, inner: MessageTransport, trace: TraceWriter) -> None:
        super().__init__(inner)
        self._trace = trace

    async def send(self, messages: Sequence[Message]) -> None:
        """Record messages, then send them.

        Raises:
            trio.BrokenResourceError: They cannot be sent.

        Checkpoints:
            Always.

        Cancellation:
            As the inner transport's.
        """
        self._trace.messages(Direction.SENT, messages)
        try:
            await super().send(messages)
        except Exception as exc:
            self._trace.end(Direction.SENT, _describe(exc))
            raise

    @property
    def can_send_now(self) -> bool:  # type: ignore[override]
        """The inner transport's."""
        return self._inner.can_send_now

    def send_now(self, messages: Sequence[Message]) -> bool:
        """Record messages, then send them as far as that goes without waiting.

        Raises:
            trio.BrokenResourceError: They cannot be sent.
        """
        self._trace.messages(Direction.SENT, messages)
        try:
            return self._inner.send_now(messages)
        except Exception as exc:
            self._trace.end(Direction.SENT, _describe(exc))
            raise

    async def receive(self) -> Sequence[Message]:
        """Wait for messages, and record them.

        Raises:
            RemoteProtocolError: What came is no message, or is over ``max_payload``.
            trio.BrokenResourceError: Nothing can be received.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """
        try:
            messages = await super().receive()
        except Exception as exc:
            self._trace.end(Direction.RECEIVED, _describe(exc))
            raise
        if messages:
            self._trace.messages(Direction.RECEIVED, messages)
        else:
            self._trace.end(Direction.RECEIVED)
        return messages

    async def send_eof(self) -> None:
        """Record the end of what is sent, and say it.

        Raises:
            trio.BrokenResourceError: The channel is gone.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the channel to `aclose`.
        """
        self._trace.end(Direction.SENT)
        await super().send_eof()


def _describe(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


# --- reading -----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Record:
    """One line of a conversation.

    Attributes:
        offset: Where in the file it begins, in bytes.
        time: Seconds since 1970; None in a raw capture.
        direction: Which way; None in a raw capture.
        message: The message; None: the stream ended.
        error: The error that ended it; "": it just ended.
    """

    offset: int
    time: float | None = None
    direction: Direction | None = None
    message: Message | None = None
    error: str = ""


def read_records(file: BinaryIO) -> Iterator[Record]:
    """Read a trace, or a raw capture of one direction; the first byte tells which.

    Args:
        file: Opened for reading bytes; need not be seekable.  May end anywhere.

    Yields:
        The records, in order, as they are read.

    Raises:
        MalformedCaptureError: What comes next is neither; says where, and what is wrong.
    """
    reader = _Reader(file)
    first = reader.peek()
    if first is None:
        raise MalformedCaptureError(0, "the file is empty")
    if first >> 5 not in (_BYTES, _ARRAY):
        raise MalformedCaptureError(
            0, f"neither a trace nor a capture: the first byte is 0x{first:02x}, not a CBOR array or byte string"
        )
    read_one = _trace_record if first >> 5 == _ARRAY else _bare_frame
    while reader.peek() is not None:
        yield read_one(reader)


class _Reader:
    """Reads CBOR heads and bodies, and knows where it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._next = b""
        self.offset = 0

    def peek(self) -> int | None:
        """The next byte; None at the end."""
        self._next = self._next or self._file.read(1)
        return self._next[0] if self._next else None

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes.  Never allocates much more than the file has."""
        pieces, missing = [self._next[:count]], count - len(self._next[:count])
        self._next = self._next[count:]
        while missing:
            piece = self._file.read(min(missing, _CHUNK))
            if not piece:
                has = count - missing
                raise MalformedCaptureError(self.offset, f"{what} is cut off: {count} bytes announced, {has} there")
            pieces.append(piece)
            missing -= len(piece)
        self.offset += count
        return b"".join(pieces)

    def head(self, what: str) -> tuple[int, int, int, bytes]:
        """One CBOR head: major type, additional information, argument, and its bytes."""
        at = self.offset
        first = self.take(1, what)
        major, info = first[0] >> 5, first[0] & 31
        if info < 24:
            return major, info, info, first
        if info > 27:
            raise MalformedCaptureError(at, f"{what} has an indefinite or reserved length (byte 0x{first[0]:02x})")
        rest = self.take(1 << (info - 24), what)
        return major, info, int.from_bytes(rest, "big"), first + rest


def _trace_record(reader: _Reader) -> Record:
    start = reader.offset
    major, _, count, _ = reader.head("a record")
    if (major, count) != (_ARRAY, 3):
        raise MalformedCaptureError(start, "not a record: a CBOR array of three is expected")
    at = reader.offset
    major, info, _, head = reader.head("a record's time")
    if (major, info) != (_OTHER, _FLOAT64):
        raise MalformedCaptureError(at, "a record's time must be a 64-bit float")
    (when,) = struct.unpack(">d", head[1:])
    at = reader.offset
    try:
        direction = Direction(_text(reader, "a record's direction"))
    except ValueError:
        raise MalformedCaptureError(at, 'a record\'s direction must be "sent" or "received"') from None
    first = reader.peek()
    if first is not None and first >> 5 == _BYTES:
        return Record(offset=start, time=when, direction=direction, message=_frame(reader))
    if first is not None and first >> 5 == _TEXT:
        return Record(offset=start, time=when, direction=direction, error=_text(reader, "a record's error"))
    at = reader.offset
    major, info, _, _ = reader.head("a record's frame")
    if (major, info) != (_OTHER, _NULL):
        raise MalformedCaptureError(at, "a record ends with a frame (a byte string), null, or the text of an error")
    return Record(offset=start, time=when, direction=direction)


def _text(reader: _Reader, what: str) -> str:
    at = reader.offset
    major, _, length, _ = reader.head(what)
    if major != _TEXT:
        raise MalformedCaptureError(at, f"{what} must be a text")
    try:
        return reader.take(length, what).decode()
    except UnicodeDecodeError as exc:
        raise MalformedCaptureError(at, f"{what} is not UTF-8: {exc.reason}") from None


def _bare_frame(reader: _Reader) -> Record:
    return Record(offset=reader.offset, message=_frame(reader))


def _frame(reader: _Reader) -> Message:
    at = reader.offset
    major, _, length, head = reader.head("a frame")
    if major != _BYTES:
        raise MalformedCaptureError(at, f"not a frame: a CBOR byte string is expected, not byte 0x{head[0]:02x}")
    body = reader.take(length, "a frame")
    try:
        (message,) = FrameDecoder(_MAX_FRAME, first_max=_MAX_FRAME).feed(head + body)
    except RemoteProtocolError as exc:
        raise MalformedCaptureError(at, str(exc)) from None
    return message
