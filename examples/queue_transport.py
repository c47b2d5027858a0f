"""A message transport over a message queue: two Trio memory channels, one for each direction.

This is the short way to a transport of one's own: whoever can move whole messages, in order, both ways, has all of
orc_trio on top.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

# [queue-transport]
from orc_trio.abc import MessageTransport
from orc_trio.wire import Message


class QueueTransport(MessageTransport):
    """Moves messages through a queue, without turning them into bytes."""

    def __init__(self, send: trio.MemorySendChannel[Message], receive: trio.MemoryReceiveChannel[Message]) -> None:
        self._send, self._receive = send, receive

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages, in order."""
        for message in messages:
            await self._send.send(message)
            self.activity += 1

    async def receive(self) -> Sequence[Message]:
        """Wait for a message; none: there will be no more."""
        try:
            message = await self._receive.receive()
        except trio.EndOfChannel:
            return []
        self.activity += 1
        return [message]

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._send.aclose()

    async def aclose(self) -> None:
        """Close both directions at once."""
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()
