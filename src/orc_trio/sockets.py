"""A message transport over a `trio.SocketStream`, past its methods: straight to the socket.

A socket stream guards every call against misuse, and makes two trips through the scheduler for what is often one system
call.  A connection needs neither: it has one reader and one writer.

Rules
-----
* What can be sent at once is sent at once, by whoever has something to send (`send_now`); the writer's task waits for
  the rest.  The rest stays at the head of the queue, so no message is torn by another (G3).
* After each wait up to `_TURN` bytes are read, so that a socket that always has something does not keep the others
  waiting; a large payload straight into its own buffer.
* Neither copies a large payload.

It refuses nothing: whoever uses the stream beside it breaks the connection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.streams import JOIN_UP_TO, StreamTransport
from orc_trio.wire.framing import HEAD_SIZE, FrameDecoder, encode_head
from orc_trio.wire.messages import Message

__all__ = ["SocketTransport", "as_transport"]

_READ_SIZE: Final = 64 * 1024 + 2 * HEAD_SIZE
"""A message of 64 KiB can come in one read, and it can be seen that there is no more."""
_TURN: Final = 256 * 1024
"""After so many bytes it is the others' turn."""
_MOST_BUFFERS: Final = 64


class SocketTransport(StreamTransport):
    """Moves messages over a socket.

    Args:
        stream: The stream; it belongs to the transport from here on.
    """

    stream: trio.SocketStream
    activity: int
    can_send_now: bool = True
    has_send_buffer: bool = True

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._rest: list[bytes | memoryview] = []
        self._late: OSError | None = None

    def set_send_buffer(self, size: int) -> None:
        """Have the system hold so many bytes on their way, or as many as it allows; see `Limits`."""
        with suppress(OSError):  # it is closed, which others find out
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def send_now(self, messages: Sequence[Message]) -> bool:
        """Send messages as far as that goes without waiting; see `MessageTransport.send_now`.

        Raises:
            trio.BrokenResourceError: They cannot be sent.
        """
        self._rest += _joined(messages)
        return self._push()

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages, in order, behind what `send_now` has left; see `MessageTransport.send`.

        Raises:
            trio.BrokenResourceError: They cannot be sent.

        Checkpoints:
            Always.

        Cancellation:
            May leave a message half sent.
        """
        self._rest += _joined(messages)
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._push():
            await trio.lowlevel.wait_writable(self._fileno())
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _push(self) -> bool:
        """Send of the rest what the socket takes.

        Returns:
            Whether nothing is left.
        """
        number = self._fileno()
        rest, sent = self._rest, 0
        while rest and sent < _TURN:
            try:
                size = os.write(number, rest[0]) if len(rest) == 1 else os.writev(number, rest[:_MOST_BUFFERS])
            except BlockingIOError:
                break
            except OSError as exc:
                raise trio.BrokenResourceError from exc
            self.activity += 1
            sent += size
            while rest and size >= len(rest[0]):
                size -= len(rest.pop(0))
            if size:
                rest[0] = memoryview(rest[0])[size:]
        return not rest

    async def aclose(self) -> None:
        """Close the socket at once.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        self._rest.clear()
        await super().aclose()

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
        while True:
            number = self._fileno()
            await trio.lowlevel.wait_readable(number)
            if self._decoder is None:  # closed a moment ago: the number may be somebody else's
                raise trio.ClosedResourceError("the socket was closed")
            try:
                messages = self._read(number, decoder)
            except OSError as exc:
                raise trio.BrokenResourceError from exc
            if messages is None:
                return []
            if messages:
                return messages

    def _read(self, number: int, decoder: FrameDecoder) -> list[Message] | None:
        """Read what is there, but not for ever.

        Returns:
            The messages that became complete; None: nothing will come any more.

        Raises:
            RemoteProtocolError: Malformed bytes.
            OSError: Nothing can be read.
        """
        if self._late is not None:
            raise self._late
        messages: list[Message] = []
        turn = _TURN
        while turn > 0:
            wanted = None if self._garbage else decoder.wanted()
            try:
                if wanted is None:
                    data = os.read(number, _READ_SIZE)
                    size = len(data)
                else:
                    data = b""
                    size = os.readv(number, [wanted])
            except BlockingIOError:
                break
            except OSError as exc:
                if not messages:
                    raise
                self._late = exc  # they come first; and the system tells it once
                break
            if not size:
                return messages or None  # found again by the next read
            self.activity += 1
            turn -= size
            try:
                if wanted is not None:
                    messages += decoder.filled(size)
                elif not self._garbage:
                    messages += decoder.feed(data)
            except RemoteProtocolError:
                if messages:  # they come first; the error is raised by the next call
                    break
                self._garbage = True
                raise
            if wanted is None and size < _READ_SIZE:
                break
        return messages

    def _fileno(self) -> int:
        number = self.stream.socket.fileno()
        if number < 0:
            raise trio.ClosedResourceError("the socket was closed")
        return number


def _joined(messages: Sequence[Message]) -> list[bytes | memoryview]:
    """The bytes of ``messages``: small frames joined, large payloads as they are."""
    buffers: list[bytes | memoryview] = []
    small: list[bytes | memoryview] = []
    for message in messages:
        small.append(encode_head(message))
        if len(message.payload) <= JOIN_UP_TO:
            small.append(message.payload)
        else:
            buffers += (b"".join(small), message.payload)
            small = []
    if small:
        buffers.append(b"".join(small))
    return buffers


def as_transport(stream_or_transport: trio.abc.Stream | MessageTransport) -> MessageTransport:
    """A transport as it is; a stream in the one for its kind.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(stream_or_transport, MessageTransport):
        return stream_or_transport
    if isinstance(stream_or_transport, trio.SocketStream):
        return SocketTransport(stream_or_transport)
    if isinstance(stream_or_transport, trio.abc.Stream):
        return StreamTransport(stream_or_transport)
    raise TypeError(f"a connection needs a trio.abc.Stream or a MessageTransport, not {stream_or_transport!r}")
