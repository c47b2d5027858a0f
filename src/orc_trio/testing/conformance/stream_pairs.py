"""Pairs for the checks from any two connected ends: streams or message transports.

The access is a `StreamControllerAccess` and the other end `open_controller`, so what is checked is orc_trio itself over
what carries it.  What can be done to the way between is done by a gate (`orc_trio.testing.conformance.gate`).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from orc_trio.access import StreamControllerAccess
from orc_trio.controller import Controller, open_controller
from orc_trio.protocol.limits import Limits
from orc_trio.reasons import DisconnectReason
from orc_trio.registry import HandlerRegistry
from orc_trio.sockets import as_transport
from orc_trio.testing.conformance.gate import Gate, gated
from orc_trio.testing.conformance.pair import AccessPair, PairFactory
from orc_trio.testing.pairs import End

__all__ = ["QUICK_LIMITS", "pairs_of"]

QUICK_LIMITS: Final = Limits(
    max_calls=8,
    max_nested_calls=256,
    max_bytes=256 * 1024,
    max_message=64 * 1024,
    drain_timeout=0.5,
    liveness_timeout=0.6,
)
"""Limits that a check runs into quickly."""


def pairs_of(
    make_two_ends: Callable[[], tuple[End, End] | Awaitable[tuple[End, End]]], *, limits: Limits = QUICK_LIMITS
) -> PairFactory:
    """Make a factory of pairs for the checks from a function that makes two connected ends.

    Args:
        make_two_ends: A function, async or not, that gives two connected streams or message transports, the
            controller's first.  Both are closed when a pair is left.
        limits: Both ends' limits; they are the pairs' figures.

    Returns:
        The factory.
    """

    @asynccontextmanager
    async def factory() -> AsyncIterator[AccessPair]:
        made = make_two_ends()
        here, there = (await made) if inspect.isawaitable(made) else made
        gate = Gate()
        controllers, executors = gated(here, gate), gated(there, gate)

        def open_other_end(
            registry: HandlerRegistry, *, on_disconnect: Callable[[DisconnectReason], None] | None = None
        ) -> AbstractAsyncContextManager[Controller]:
            return open_controller(controllers, registry, limits=limits, on_disconnect=on_disconnect)

        try:
            yield AccessPair(
                access=StreamControllerAccess(executors, limits=limits),
                open_controller=open_other_end,
                cut=gate.cut,
                freeze=gate.freeze,
                thaw=gate.thaw,
                garble=executors.garble,
                max_message=limits.max_message,
                max_calls=limits.max_calls,
                drain_timeout=limits.drain_timeout,
                liveness=limits.liveness_timeout,
            )
        finally:
            with trio.CancelScope(shield=True):
                await as_transport(controllers).aclose()
                await as_transport(executors).aclose()

    return factory
