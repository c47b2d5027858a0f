"""A gate between two ends: it can be frozen, thawed and cut, and can let through something that is no message.

Rules
-----
* A frozen gate holds what is sent in the sender, and what has come in the receiver: the one waits as if all buffers
  were full, the other as if nothing had come.  Nothing is lost by it.
* A cut gate is the end of the stream for whoever receives, and broken for whoever sends, also for those who wait
  already.  The inner ends stay open until they are closed by whoever owns them, so that a check can see that they are.
* What is garbled comes to the receiver as the next thing, in place of what was on its way.

Streams are gated as streams: what stands on them sees bytes.  For message transports the gate stands above them, and
what is garbled is a message with an opcode that does not exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from orc_trio.abc import MessageTransport, WrappedTransport
from orc_trio.registry import Buffer
from orc_trio.testing.pairs import End
from orc_trio.testing.streams import WrappedStream
from orc_trio.wire.messages import Message

__all__ = ["Gate", "GatedStream", "GatedTransport", "gated"]

GARBAGE: Final = b"\xff\x00 this is no message \xff" * 4
NO_SUCH_OPCODE: Final = 23


class Gate:
    """What two gated ends have in common."""

    def __init__(self) -> None:
        self.is_cut: bool = False
        self.sides: list[Side] = []
        self._thawed = trio.Event()
        self._thawed.set()

    @property
    def is_frozen(self) -> bool:
        """Whether nothing passes at the moment."""
        return not self._thawed.is_set()

    def sever(self) -> None:
        """Break the way."""
        self.is_cut = True
        self._thawed.set()
        for side in self.sides:
            side.interrupt()

    async def cut(self) -> None:
        """Break the way; a hook for `AccessPair`.

        Checkpoints:
            Always.

        Cancellation:
            It is broken all the same.
        """
        self.sever()
        await trio.lowlevel.checkpoint()

    async def freeze(self) -> None:
        """Let nothing pass.

        Checkpoints:
            Always.

        Cancellation:
            It is frozen all the same.
        """
        if not self.is_cut:
            self._thawed = trio.Event()
        await trio.lowlevel.checkpoint()

    async def thaw(self) -> None:
        """Let everything pass again.

        Checkpoints:
            Always.

        Cancellation:
            It is thawed all the same.
        """
        self._thawed.set()
        await trio.lowlevel.checkpoint()

    async def wait_open(self) -> None:  # noqa: ASYNC910
        """Wait until it is not frozen.

        Checkpoints:
            If it is.

        Cancellation:
            Changes nothing.
        """
        while self.is_frozen:
            await self._thawed.wait()


class Side:
    """Whoever sends, or whoever receives, at one end of a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._scope: trio.CancelScope | None = None
        self._closed = False
        gate.sides.append(self)

    def interrupt(self) -> None:
        """Wake whoever waits."""
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        self.interrupt()

    async def wait(self, function: Callable[[], Awaitable[None]]) -> bool:  # noqa: ASYNC910
        """Do what may have to wait.

        Returns:
            Whether it was done; otherwise it was interrupted.

        Raises:
            trio.ClosedResourceError: This end is closed.

        Checkpoints:
            If the function does.

        Cancellation:
            As the function.
        """
        done = False
        with trio.CancelScope() as self._scope:
            if self._closed or self._gate.is_cut:
                self._scope.cancel()
            await function()
            done = True
        self._scope = None
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        return done

    async def send(self, function: Callable[[], Awaitable[None]]) -> None:
        """Send, when the gate is open.

        Raises:
            trio.BrokenResourceError: The gate is cut.
            trio.ClosedResourceError: This end is closed.

        Checkpoints:
            Always.

        Cancellation:
            As the function.
        """

        async def when_open() -> None:
            await self._gate.wait_open()
            await function()

        if not await self.wait(when_open):
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("the way was cut")


class GatedStream(WrappedStream):
    """One end of a pair of streams, behind a gate."""

    def __init__(self, inner: trio.abc.Stream, gate: Gate) -> None:
        super().__init__(inner)
        self._gate = gate
        self._sends, self._receives = Side(gate), Side(gate)
        self._held = b""
        self._garbage = b""
        self._ended = False

    async def send_all(self, data: Buffer) -> None:
        """Send, when the gate is open.

        Raises:
            trio.BrokenResourceError: The gate is cut.

        Checkpoints:
            Always.

        Cancellation:
            As the inner stream.
        """
        await self._sends.send(lambda: WrappedStream.send_all(self, data))

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, when the gate is open.

        Raises:
            trio.BrokenResourceError: As the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """

        async def receive() -> None:
            if not (self._held or self._garbage or self._ended):
                data = await self._inner.receive_some(max_bytes)
                self._held, self._ended = bytes(data), not data
            await self._gate.wait_open()
            await trio.lowlevel.checkpoint()

        while not await self._receives.wait(receive):
            if self._gate.is_cut:
                await trio.lowlevel.checkpoint()
                return b""
        if self._garbage:
            self._held, self._garbage = self._garbage, b""
        size = len(self._held) if max_bytes is None else max_bytes
        given, self._held = self._held[:size], self._held[size:]
        return given

    async def aclose(self) -> None:
        """Close the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        self._sends.close()
        self._receives.close()
        self._held = self._garbage = b""
        await super().aclose()

    async def garble(self) -> None:
        """Have garbage received.

        Checkpoints:
            Always.

        Cancellation:
            It is received all the same.
        """
        self._garbage = GARBAGE
        self._receives.interrupt()
        await trio.lowlevel.checkpoint()

    async def _send_eof(self) -> None:
        await self._sends.send(super()._send_eof)


class GatedTransport(WrappedTransport):
    """One end of a pair of message transports, behind a gate."""

    def __init__(self, inner: MessageTransport, gate: Gate) -> None:
        super().__init__(inner)
        self._gate = gate
        self._sends, self._receives = Side(gate), Side(gate)
        self._held: list[Message] = []
        self._garbage: list[Message] = []
        self._ended = False

    async def send(self, messages: Sequence[Message]) -> None:
        """Send, when the gate is open.

        Raises:
            trio.BrokenResourceError: The gate is cut.

        Checkpoints:
            Always.

        Cancellation:
            As the inner transport.
        """
        await self._sends.send(lambda: WrappedTransport.send(self, messages))

    async def receive(self) -> Sequence[Message]:
        """Receive, when the gate is open.

        Raises:
            RemoteProtocolError: As the inner transport.
            trio.BrokenResourceError: As the inner transport.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """

        async def receive() -> None:
            if not (self._held or self._garbage or self._ended):
                messages = await self._inner.receive()
                self._held, self._ended = list(messages), not messages
            await self._gate.wait_open()
            await trio.lowlevel.checkpoint()

        while not await self._receives.wait(receive):
            if self._gate.is_cut:
                await trio.lowlevel.checkpoint()
                return []
        given, self._held, self._garbage = self._garbage or self._held, [], []
        return given

    async def send_eof(self) -> None:
        """Say so, when the gate is open.

        Raises:
            trio.BrokenResourceError: The gate is cut.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the channel to `aclose`.
        """
        await self._sends.send(super().send_eof)

    async def aclose(self) -> None:
        """Close the inner transport.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        self._sends.close()
        self._receives.close()
        self._held, self._garbage = [], []
        await super().aclose()

    async def garble(self) -> None:
        """Have garbage received.

        Checkpoints:
            Always.

        Cancellation:
            It is received all the same.
        """
        self._garbage = [Message(NO_SUCH_OPCODE)]
        self._receives.interrupt()
        await trio.lowlevel.checkpoint()


def gated(end: End, gate: Gate) -> GatedStream | GatedTransport:
    """An end behind a gate."""
    return GatedTransport(end, gate) if isinstance(end, MessageTransport) else GatedStream(end, gate)
