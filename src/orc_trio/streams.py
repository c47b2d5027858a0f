"""A message transport over any `trio.abc.Stream`.

Messages are framed by `orc_trio.wire.framing`; everything queued goes out in one send, and everything one read brought
is decoded at once.  A large payload is sent as it is, not copied behind its head.

After malformed bytes the transport goes on reading and dropping until the end of the stream: closing with unread input
would reset a TCP connection and lose our hang-up, which says what was wrong (G16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import trio

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire.buffers import keep_memory
from orc_trio.wire.framing import FrameDecoder, encode_head
from orc_trio.wire.messages import Message

__all__ = ["StreamTransport"]

T = TypeVar("T")
RECEIVE_SIZE: Final = 64 * 1024
SEND_CHUNK: Final = 64 * 1024
"""Progress of a large send is seen this often (G17): a slow line must carry it within half the liveness timeout."""
JOIN_UP_TO: Final = 16 * 1024


class StreamTransport(MessageTransport):
    """Moves messages over a byte stream.

    Args:
        stream: The stream; it belongs to the transport from here on.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        keep_memory()
        self.stream = stream
        self.activity: int = 0
        self._decoder: FrameDecoder | None = None
        self._garbage = False

    async def send(self, messages: Sequence[Message]) -> None:  # noqa: ASYNC910
        """Send messages, in order; see `MessageTransport.send`.

        Raises:
            trio.BrokenResourceError: They cannot be sent.

        Checkpoints:
            Always.

        Cancellation:
            May leave a message half sent.
        """
        await self._send_frames((encode_head(message), message.payload) for message in messages)

    async def _send_frames(self, frames: Iterable[tuple[bytes, bytes | memoryview]]) -> None:  # noqa: ASYNC910
        """Send heads, each with its payload."""
        for chunk in _chunks(frames):
            await self.stream.send_all(chunk)
            self.activity += 1

    async def receive(self) -> Sequence[Message]:
        """Wait for messages; see `MessageTransport.receive`.

        Raises:
            RemoteProtocolError: Malformed bytes, or a message over the limit.
            trio.BrokenResourceError: Nothing can be received.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """
        decoder = self._ready_decoder()
        while data := await self.stream.receive_some(RECEIVE_SIZE):
            self.activity += 1
            if not self._garbage and (messages := self._decode(decoder.feed, data)):
                return messages
        return []

    def _ready_decoder(self) -> FrameDecoder:
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = FrameDecoder(self.max_payload)
        decoder.max_payload = self.max_payload
        if not self._garbage:
            try:
                decoder.raise_pending()
            except RemoteProtocolError:
                self._garbage = True
                raise
        return decoder

    def _decode(self, decode: Callable[[T], list[Message]], came: T) -> list[Message]:
        try:
            return decode(came)
        except RemoteProtocolError:
            self._garbage = True
            raise

    @property
    def at_boundary(self) -> bool:
        """Whether what came so far ends at the end of a message; see `MessageTransport`."""
        return self._decoder is None or self._decoder.at_boundary

    async def send_eof(self) -> None:
        """Half-close, if the stream can.

        Raises:
            trio.BrokenResourceError: The stream is gone.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the stream to `aclose`.
        """
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the stream at once.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        self._decoder = None  # G19: with what came of a message that will not be complete
        await trio.aclose_forcefully(self.stream)


def _chunks(frames: Iterable[tuple[bytes, bytes | memoryview]]) -> list[bytes | memoryview]:
    """The bytes of ``frames``: small ones joined, large payloads as they are, in pieces of `SEND_CHUNK`."""
    chunks: list[bytes | memoryview] = []
    small: list[bytes | memoryview] = []
    for head, payload in frames:
        small.append(head)
        if len(payload) <= JOIN_UP_TO:
            small.append(payload)
            continue
        view = memoryview(payload)
        first = JOIN_UP_TO  # so that the head does not travel alone
        small.append(view[:first])
        chunks.append(b"".join(small))
        small = []
        chunks += [view[at : at + SEND_CHUNK] for at in range(first, len(view), SEND_CHUNK)]
    if small:
        chunks.append(b"".join(small))
    return chunks
