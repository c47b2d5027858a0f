"""A message transport to an end that speaks LLVM's own protocol.

    transport = SimpleRemoteTransport(stream, Role.CONTROLLER)
    async with open_controller(transport, registry) as controller:
        ...

Everything above it is as ever: connection, session and controller do not know what is at the other end.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.llvm.translation import Translation
from orc_trio.protocol import Role
from orc_trio.streams import RECEIVE_SIZE, StreamTransport
from orc_trio.wire.messages import Message
from orc_trio.wire.simple_remote import Dialect, FrameReader, encode_frame_head

__all__ = ["SimpleRemoteTransport"]


class SimpleRemoteTransport(StreamTransport):
    """Speaks LLVM's protocol over a byte stream.

    Args:
        stream: The stream; it belongs to the transport from here on.
        role: Which end we are.
        dialect: Which LLVM is at the other end.
    """

    activity: int
    has_pings: bool = False
    has_parts: bool = False

    def __init__(self, stream: trio.abc.Stream, role: Role, *, dialect: Dialect = Dialect.UP_TO_23) -> None:
        super().__init__(stream)
        self._translation = Translation(role, dialect)
        self._ready = self._translation.at_start()
        self._waiting: trio.CancelScope | None = None
        self._reader: FrameReader | None = None
        self._over = False
        self._tcp: trio.socket.SocketType | None = None
        if (
            hasattr(socket, "TCP_QUICKACK")
            and isinstance(stream, trio.SocketStream)
            and stream.socket.family in (socket.AF_INET, socket.AF_INET6)
        ):
            self._tcp = stream.socket

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages, in order; see `MessageTransport.send`.

        Raises:
            trio.BrokenResourceError: They cannot be sent.

        Checkpoints:
            Always.

        Cancellation:
            May leave a message half sent.
        """
        frames, back = self._translation.outgoing(messages)
        await trio.lowlevel.checkpoint()
        if self._over:  # LLVM closes both ways at once, and takes a last word for an error
            return
        await self._send_frames((encode_frame_head(frame), frame.payload) for frame in frames)
        if back:
            self._ready += back
            if self._waiting is not None:
                self._waiting.cancel()

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
        reader = self._reader = self._reader or FrameReader(self.max_payload)
        reader.max_payload = self.max_payload
        try:
            if not self._garbage:
                reader.raise_pending()
            while True:
                if self._ready:
                    await trio.lowlevel.checkpoint()
                    ready, self._ready = self._ready, []
                    return ready
                if self._tcp is not None:  # LLVM sends a head and its payload apart, and waits between
                    self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                data: bytes | bytearray | None = None
                with trio.CancelScope() as self._waiting:
                    data = await self.stream.receive_some(RECEIVE_SIZE)
                if data is None:
                    continue
                if not data:
                    self._over = True
                    return []
                self.activity += 1
                if not self._garbage and (frames := reader.feed(data)):
                    return [self._translation.incoming(frame) for frame in frames]
        except RemoteProtocolError:
            self._garbage = True
            raise
        finally:
            self._waiting = None

    @property
    def at_boundary(self) -> bool:
        """Whether what came so far ends at the end of a frame; see `MessageTransport`."""
        return self._reader is None or self._reader.at_boundary

    async def aclose(self) -> None:
        """Close the stream at once.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        self._reader = None
        await super().aclose()
