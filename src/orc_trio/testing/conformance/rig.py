"""Both ends of a pair, attached, with the same functions at both, so that everything is checked in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs
import trio

from orc_trio.abc import AccessHost, ControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.reasons import DisconnectReason
from orc_trio.registry import Buffer, HandlerRegistry
from orc_trio.session import Session, open_session
from orc_trio.statistics import ConnectionStatistics
from orc_trio.testing.conformance.bench import Bench
from orc_trio.testing.conformance.pair import AccessPair
from orc_trio.testing.conformance.party import FUNCTIONS, ControllerParty, ExecutorParty, Party, Serve, wrapper_symbol

__all__ = ["Ending", "Rig", "Spy", "attached", "endings"]

_NO_FUNCTIONS: Final[Mapping[str, Serve]] = MappingProxyType({})


class Spy(ControllerAccess):
    """A controller access that passes everything on, and notes when it is over.

    Attributes:
        end: What `run` returned; None while it has not.
        left_running: How many wrapper functions were running when `run` was left.
    """

    def __init__(
        self, inner: ControllerAccess, busy: Callable[[], int], wrap: Callable[[AccessHost], AccessHost]
    ) -> None:
        self._inner = inner
        self._busy = busy
        self._wrap = wrap
        self.end: DisconnectReason | None = None
        self.left_running: int | None = None

    async def run(self, host: AccessHost) -> DisconnectReason:  # noqa: ASYNC910
        """As the inner access."""
        try:
            self.end = await self._inner.run(self._wrap(host))
        finally:
            self.left_running = self._busy()
        return self.end

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        """As the inner access."""
        return self._inner.begin_disconnect(reason)

    def begin_finish(self, within: float) -> DisconnectReason:
        """As the inner access."""
        return self._inner.begin_finish(within)

    async def call_controller(self, tag: int, args: Buffer, *, zero_copy: bool = False) -> bytes | memoryview:
        """As the inner access."""
        return await self._inner.call_controller(tag, args, zero_copy=zero_copy)

    def statistics(self) -> ConnectionStatistics:
        """As the inner access."""
        return self._inner.statistics()


@attrs.frozen(eq=False)
class Rig:
    """Both ends of a pair, attached.

    Attributes:
        bench: Where the check works.
        pair: The pair.
        session: The executor's session.
        executor: The executor's end.
        controller: The controller's end.
        access: The pair's access, as the session has it.
        tags: The controller's functions, by name.
        nursery: For tasks that may run until the rig is left.
    """

    bench: Bench
    pair: AccessPair
    session: Session
    executor: Party
    controller: Party
    access: Spy
    tags: Mapping[str, int]
    nursery: trio.Nursery

    @property
    def parties(self) -> tuple[Party, Party]:
        """Both ends."""
        return self.executor, self.controller

    @property
    def order(self) -> list[str]:
        """What happened, in order, at both ends."""
        return self.executor.order

    async def over(self) -> tuple[DisconnectReason, DisconnectReason]:
        """Wait until it is over at both ends.

        Returns:
            How it ended: at the executor's end, at the controller's.

        Raises:
            AssertionError: It is not over at one.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        ends = []
        for party in self.parties:
            with self.bench.soon(f"the conversation is over at {party}", within=self.bench.drain_bound):
                ends.append(await party.wait())
        return ends[0], ends[1]  # noqa: ASYNC910


Ending: TypeAlias = Callable[[Rig, Party], Awaitable[object]]
"""Makes a conversation end; told the end that calls."""


def endings(bench: Bench) -> dict[str, Ending]:
    """The ways in which a conversation can be made to end, seen from the end that calls."""

    async def local(_rig: Rig, caller: Party) -> None:
        caller.begin()
        await trio.lowlevel.checkpoint()

    async def remote(_rig: Rig, caller: Party) -> None:
        caller.other.begin()
        await trio.lowlevel.checkpoint()

    async def cut(rig: Rig, _caller: Party) -> None:
        assert rig.pair.cut is not None
        await rig.pair.cut()

    ways: dict[str, Ending] = {"it hangs up": local, "the other end hangs up": remote}
    return ways | {"the way is cut": cut} if bench.has("cut") else ways


@asynccontextmanager
async def attached(
    bench: Bench,
    functions: Mapping[str, Serve] = _NO_FUNCTIONS,
    *,
    threaded: Mapping[str, Callable[[bytes], bytes]] = MappingProxyType({}),
    prepare: Callable[[Session], object] | None = None,
    wrap_host: Callable[[AccessHost], AccessHost] = lambda host: host,
    order: list[str] | None = None,
    service_timeout: float = 2.0,
) -> AsyncIterator[Rig]:
    """A fresh pair, attached.

    Args:
        bench: Where the check works.
        functions: More functions at both ends.
        threaded: Functions at the executor's end that run in threads.
        prepare: Called with the session before it is attached.
        wrap_host: What the access sees of the session.
        order: Where what happens is noted, if somebody else notes there too.
        service_timeout: The session's.

    Yields:
        The rig.  When it is left by an exception, both ends are cancelled.

    Raises:
        AssertionError: It cannot be attached.

    Checkpoints:
        Always.

    Cancellation:
        Ends it.
    """
    everything = {**FUNCTIONS, **functions}
    order = [] if order is None else order
    failure: Exception | None = None
    with trio.CancelScope() as scope:
        async with bench.pair() as pair, trio.open_nursery() as nursery:
            controller = ControllerParty(bench, order, nursery)
            registry = HandlerRegistry()
            for name, function in everything.items():
                registry.handler(name)(controller.serve(name, function))
            async with open_session(service_timeout=service_timeout) as session:
                executor = ExecutorParty(bench, order, session)
                executor.other, controller.other = controller, executor
                bootstrap = BootstrapInfo.for_session(session)
                for name, function in everything.items():
                    bootstrap.add_wrapper(wrapper_symbol(name), executor.serve(name, function))
                    executor.tags[name] = bootstrap.add_tag(name)
                for name, plain in threaded.items():
                    bootstrap.add_wrapper(wrapper_symbol(name), plain, threaded=True)
                session.on_disconnect(executor.on_disconnect)
                if prepare is not None:
                    prepare(session)
                spy = Spy(pair.access, executor.busy, wrap_host)
                is_attached = trio.Event()

                async def attach() -> None:
                    await session.attach(spy, bootstrap)
                    is_attached.set()

                nursery.start_soon(attach, name="conformance attach")
                opened, leave = trio.Event(), trio.Event()

                async def control() -> None:
                    open_other_end = pair.open_controller(registry, on_disconnect=controller.on_disconnect)
                    async with open_other_end as controller.end:
                        opened.set()
                        await leave.wait()
                    left.set()

                left = trio.Event()
                nursery.start_soon(control, name="conformance controller")
                try:
                    with bench.soon("both ends connect"):
                        await opened.wait()
                        await is_attached.wait()
                    yield Rig(bench, pair, session, executor, controller, spy, executor.tags, nursery)
                except Exception as exc:
                    failure = exc
                    bench.remember(exc)
                    scope.cancel()
                finally:
                    executor.release.set()
                    controller.release.set()
                    leave.set()
                with bench.soon("the controller leaves", within=bench.drain_bound):
                    await left.wait()
    if failure is not None:
        raise failure
