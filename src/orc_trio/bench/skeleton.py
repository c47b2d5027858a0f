"""The skeleton: what is left of an RPC library in Trio when everything but its tasks is taken out.

There is a reader at each end, a task for each request at the serving end, and the callers; they wake each other, and do
nothing else: no protocol, no limits, no cancellation, no errors, no end.  How far a library is from the skeleton is
what the library costs.  How far the skeleton is from the floor is what the tasks cost, and what is saved where messages
share reads and writes.

A message is its length in 4 bytes, the number of its place in 4 bytes, and the payload.  It is sent at once where only
one is in flight; else those of one turn of the event loop are joined.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeAlias

import outcome
import trio

__all__ = ["open_callers", "serve"]

_PIECE = 65536
_HEAD = 8
_Message: TypeAlias = tuple[int, bytes]


class _End:
    """One end's socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._number = stream.socket.fileno()
        self._output = bytearray()
        self._more = trio.Event()
        self._busy = False

    def send(self, place: int, payload: bytes) -> None:
        self._output += (len(payload) << 32 | place).to_bytes(_HEAD, "big") + payload
        if not self._busy:
            self._push()
        if self._output:
            self._more.set()

    def _push(self) -> None:
        with suppress(BlockingIOError):
            del self._output[: os.write(self._number, self._output)]

    async def write(self) -> None:
        """Send what was not sent at once."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            self._push()
            while self._output:
                await trio.lowlevel.wait_writable(self._number)
                self._push()

    async def read(self, arrived: Callable[[_Message], None]) -> None:
        """Read until the other end closes."""
        data = b""
        while True:
            await trio.lowlevel.wait_readable(self._number)
            if not (piece := os.read(self._number, _PIECE)):
                return
            data += piece
            messages: list[_Message] = []
            begin = 0
            while begin + _HEAD <= len(data):
                head = int.from_bytes(data[begin : begin + _HEAD], "big")
                end = begin + _HEAD + (head >> 32)
                if end > len(data):
                    break
                messages.append((head & 0xFFFFFFFF, data[begin + _HEAD : end]))
                begin = end
            data = data[begin:]
            self._busy = len(messages) > 1
            for message in messages:
                arrived(message)


async def _park() -> _Message:
    message: _Message = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
    return message


async def serve(stream: trio.SocketStream) -> None:
    """Send back what comes, each message from a task, until the other end closes.

    Checkpoints:
        Always.

    Cancellation:
        Ends it.
    """
    end = _End(stream)
    parked: list[trio.lowlevel.Task] = []

    async def work(message: _Message) -> None:
        while True:
            end.send(*message)
            parked.append(trio.lowlevel.current_task())
            message = await _park()

    def arrived(message: _Message) -> None:
        if parked:
            trio.lowlevel.reschedule(parked.pop(), outcome.Value(message))
        else:
            nursery.start_soon(work, message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.write)
        await end.read(arrived)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_callers(
    stream: trio.SocketStream, number: int
) -> AsyncIterator[Sequence[Callable[[bytes], Awaitable[object]]]]:
    """The calling end, and as many round trips as shall be in flight at once.

    Checkpoints:
        Always.

    Cancellation:
        Ends it.
    """
    end = _End(stream)
    callers: dict[int, trio.lowlevel.Task] = {}

    async def round_trip(place: int, payload: bytes) -> bytes:
        end.send(place, payload)
        callers[place] = trio.lowlevel.current_task()
        return (await _park())[1]

    def arrived(message: _Message) -> None:
        trio.lowlevel.reschedule(callers.pop(message[0]), outcome.Value(message))

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(end.write)
        nursery.start_soon(end.read, arrived)
        yield [partial(round_trip, place) for place in range(number)]
        nursery.cancel_scope.cancel()
