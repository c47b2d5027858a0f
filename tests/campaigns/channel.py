# A byte channel between two ends that holds back, splits, cuts and freezes, as one number's dice decide.
#
# It looks like a socket: bounded, half-closeable, each direction on its own.  A cut loses what is sent from a certain
# byte on: its sender learns of it later or never, its receiver reads what came before, then the end of the stream.  A
# frozen direction moves nothing from a certain byte on, and says nothing of it.

from __future__ import annotations

import random

import attrs
import trio


@attrs.define(eq=False)
class Fault:
    """What goes wrong in one direction.

    Attributes:
        kind: "cut", "freeze", "fail send" (from a use on) or "fail receive".
        at: From which byte (of a use: which one) on, from 0.
    """

    kind: str
    at: int


@attrs.define(eq=False)
class Lane:
    """One direction."""

    dice: random.Random
    capacity: int
    fault: Fault | None
    tap: bytearray = attrs.field(factory=bytearray)  # every byte that was accepted
    buffer: bytearray = attrs.field(factory=bytearray)
    ended: bool = False  # nothing more will be sent
    cut: bool = False
    closed: bool = False  # nobody will receive
    sends: int = 0
    receives: int = 0
    changed: trio.Event = attrs.field(factory=trio.Event)

    def change(self) -> None:
        """Wake whoever waits."""
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self) -> None:
        """Wait for a change."""
        await self.changed.wait()

    def _until(self, kind: str) -> int:
        """How many bytes may still be accepted before that fault."""
        if self.fault is None or self.fault.kind != kind:
            return 1 << 60
        return max(0, self.fault.at - len(self.tap))

    def _fails(self, kind: str, use: int) -> bool:
        return self.fault is not None and self.fault.kind == kind and use > self.fault.at

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Accept bytes, as there is room."""
        self.sends += 1
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while True:
            if self.closed or self.cut or self._fails("fail send", self.sends):
                raise trio.BrokenResourceError("the channel is broken")
            if not view:
                return
            if not self._until("cut"):
                self.cut = True
                self.change()
                if self.dice.random() < 0.5:  # a kernel takes bytes that nobody will ever read
                    self.tap += view
                    return
                continue
            room = min(self.capacity - len(self.buffer), self._until("cut"), self._until("freeze"))
            if room <= 0:
                await self.wait()
                continue
            piece = view[: self.dice.randint(1, room) if self.dice.random() < 0.3 else room]
            self.buffer += piece
            self.tap += piece
            view = view[len(piece) :]
            self.change()
            if self.dice.random() < 0.2:
                await trio.lowlevel.checkpoint()

    async def receive(self, most: int) -> bytes:
        """Give bytes; none: the end."""
        self.receives += 1
        await trio.lowlevel.checkpoint()
        while not self.buffer:
            if self.closed:
                raise trio.ClosedResourceError
            if self._fails("fail receive", self.receives):
                raise trio.BrokenResourceError("the channel is broken")
            if self.ended or self.cut:
                return b""
            await self.wait()
        if self._fails("fail receive", self.receives):
            raise trio.BrokenResourceError("the channel is broken")
        size = self.dice.randint(1, most) if self.dice.random() < 0.3 else most
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.change()
        return data


class ChannelStream(trio.abc.HalfCloseableStream):
    """One end of the channel."""

    def __init__(self, outgoing: Lane, incoming: Lane) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._incoming.closed or self._outgoing.ended:
            raise trio.ClosedResourceError
        await self._outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._incoming.receive(max_bytes or 65536)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._outgoing._until("freeze"):
            self._outgoing.ended = True
            self._outgoing.change()

    async def aclose(self) -> None:
        self._outgoing.ended = True
        self._incoming.closed = True
        self._outgoing.change()
        self._incoming.change()
        await trio.lowlevel.checkpoint()


def channel(
    dice: random.Random, capacity: int, outward: Fault | None = None, inward: Fault | None = None
) -> tuple[ChannelStream, ChannelStream, tuple[Lane, Lane]]:
    """Two connected ends, and the two directions: from the first to the second, and back."""
    there, back = Lane(dice, capacity, outward), Lane(dice, capacity, inward)
    return ChannelStream(there, back), ChannelStream(back, there), (there, back)
