"""Pairs for the conformance checks, of the two examples of docs/own-transport.rst."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import trio

from examples_by_path import load
from orc_trio import DisconnectReason, HandlerRegistry
from orc_trio.abc import MessageTransport
from orc_trio.testing import AccessPair
from orc_trio.wire import Message

queue_access = load("queue_access")
queue_transport = load("queue_transport")
GOODBYE = 0.5


def queue_transports() -> tuple[MessageTransport, MessageTransport]:
    """Two message transports over a queue without room."""
    to_one, to_other = trio.open_memory_channel[Message](0), trio.open_memory_channel[Message](0)
    one = queue_transport.QueueTransport(to_other[0], to_one[1])
    other = queue_transport.QueueTransport(to_one[0], to_other[1])
    return one, other


class Relay:
    """What is between two queues: it passes messages on, unless it is frozen or cut."""

    def __init__(self) -> None:
        self.executor_end, self.to_executor = queue_access.open_queue()
        self.controller_end, self.to_controller = queue_access.open_queue()
        self._thawed = trio.Event()
        self._thawed.set()

    async def pass_on(self, source: Any, target: Any) -> None:
        """In one direction, to the end."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for message in source[1]:
                await self._thawed.wait()
                await target[0].send(message)
        source[1].close()
        target[0].close()

    async def cut(self) -> None:
        """Break it."""
        for end in (self.to_executor, self.to_controller):
            for channel in end:
                channel.close()
        await self.thaw()

    async def freeze(self) -> None:
        """Pass nothing on."""
        self._thawed = trio.Event()
        await trio.lowlevel.checkpoint()

    async def thaw(self) -> None:
        """Pass everything on again."""
        self._thawed.set()
        await trio.lowlevel.checkpoint()

    async def garble(self) -> None:
        """Send the executor what is no message."""
        await self.to_executor[0].send("nonsense")


@asynccontextmanager
async def queue_access_pairs() -> AsyncIterator[AccessPair]:
    """A pair of the example's own access and controller."""
    relay = Relay()

    def open_controller(
        registry: HandlerRegistry, *, on_disconnect: Callable[[DisconnectReason], None] | None = None
    ) -> AbstractAsyncContextManager[Any]:
        return queue_access.open_queue_controller(  # type: ignore[no-any-return]
            relay.controller_end, registry, on_disconnect=on_disconnect, goodbye=GOODBYE
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.pass_on, relay.to_executor, relay.to_controller)
        nursery.start_soon(relay.pass_on, relay.to_controller, relay.to_executor)
        yield AccessPair(
            access=queue_access.QueueAccess(relay.executor_end, GOODBYE),
            open_controller=open_controller,
            cut=relay.cut,
            freeze=relay.freeze,
            thaw=relay.thaw,
            garble=relay.garble,
            drain_timeout=GOODBYE,
            waived={"G6": "deadlines do not travel; docs/own-transport.rst says so"},
        )
        nursery.cancel_scope.cancel()
