"""G18 and G19: owners that are cancelled, and what is left behind."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import trio
import trio.testing

from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import DisconnectedError
from orc_trio.reasons import DisconnectReason
from orc_trio.registry import HandlerRegistry
from orc_trio.session import Session, open_session
from orc_trio.statistics import SessionState
from orc_trio.testing.conformance.bench import Bench, check, expect
from orc_trio.testing.conformance.call import Call, calls
from orc_trio.testing.conformance.checks.lasting import large
from orc_trio.testing.conformance.noting import nothing_said
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import Ending, Rig, attached, endings
from orc_trio.testing.conformance.stepping import Steps, cancelled_after
from orc_trio.testing.leaks import Leaks, no_leaks

__all__ = ["check_cancelling_the_owner", "check_quiet"]


_AT_ONCE: Final = 10


@check("G18", "cancelling the owner")
async def check_cancelling_the_owner(bench: Bench) -> None:
    """The owner of either end may be cancelled at any moment: a bounded goodbye, and the Cancelled goes on.

    * Cancelled at its first, second, third … suspension, from opening to leaving: `trio.Cancelled` leaves, nothing
      else; what it had opened is over; the other end, if it was connected, has heard a goodbye.
    * While nothing moves: within the bound.
    * The body's own exception leaves as it is, in no group.
    """
    # At once, since many wait for their bound.
    async with trio.open_nursery() as nursery:
        for life in (_life_of_a_session, _life_of_a_controller):
            nursery.start_soon(_cancelled_everywhere, bench, life)
            nursery.start_soon(_body_raises, bench, life)
            if bench.has("freeze"):
                nursery.start_soon(_cancelled_while_frozen, bench, life)


async def _cancelled_everywhere(bench: Bench, life_of: LifeOf) -> None:  # noqa: ASYNC910
    for first in range(1, 100, _AT_ONCE):
        missed: list[int] = []
        async with trio.open_nursery() as nursery:
            for limit in range(first, first + _AT_ONCE):
                nursery.start_soon(_cancelled_at, bench, life_of, limit, missed)
        if missed:
            break


class _Life:
    """Both ends, of which one is the subject, in a task of its own."""

    def __init__(self) -> None:
        self.connected = False
        self.finished = False
        self.session: Session | None = None
        self.other_told: list[DisconnectReason] = []
        self.freeze: Callable[[], Awaitable[object]] | None = None
        self.ready: trio.Event | None = None  # set when it is connected, and then it waits for ever
        self.error: Exception | None = None  # what the body raises when it is connected
        self.left: trio.Event = trio.Event()

    async def body(self, call: Callable[[], Awaitable[object]], end: Callable[[], Awaitable[object]]) -> None:
        self.connected = True
        if self.error is not None:
            raise self.error
        if self.ready is not None:
            self.ready.set()
            await trio.sleep_forever()
        for _ in range(3):
            await call()
            await trio.lowlevel.checkpoint()
        await end()


Run: TypeAlias = Callable[[Callable[[], Awaitable[None]]], Awaitable[object]]
"""Runs the owner's task, and does something to it."""
LifeOf: TypeAlias = Callable[[Bench, _Life, Run], Awaitable[None]]


async def _echo(args: bytes) -> bytes:  # noqa: ASYNC124, ASYNC910
    return args  # noqa: ASYNC910


async def _life_of_a_session(bench: Bench, life: _Life, run: Run) -> None:
    registry = HandlerRegistry()
    registry.handler("echo")(_echo)
    async with bench.pair() as pair, trio.open_nursery() as nursery:
        life.freeze = pair.freeze

        async def other() -> None:  # noqa: ASYNC910
            try:
                async with pair.open_controller(registry, on_disconnect=life.other_told.append) as end:
                    await end.wait_disconnected()
            except DisconnectedError:
                pass  # it was never connected
            life.left.set()

        async def owner() -> None:
            async with open_session(service_timeout=bench.figures.drain_timeout) as session:
                life.session = session
                bootstrap = BootstrapInfo.for_session(session)
                tag = bootstrap.add_tag("echo")
                await session.attach(pair.access, bootstrap)
                await life.body(partial(session.call_controller, tag, b"x"), session.detach)
            life.finished = True

        nursery.start_soon(other)
        try:
            await run(owner)
            await _other_end_is_over(bench, life)
        finally:
            nursery.cancel_scope.cancel()


async def _life_of_a_controller(bench: Bench, life: _Life, run: Run) -> None:
    registry = HandlerRegistry()
    async with bench.pair() as pair, trio.open_nursery() as nursery:
        life.freeze = pair.freeze

        async def other() -> None:
            async with open_session(service_timeout=bench.figures.drain_timeout) as session:
                session.on_disconnect(life.other_told.append)
                bootstrap = BootstrapInfo.for_session(session)
                bootstrap.add_wrapper("echo", _echo)
                try:
                    await session.attach(pair.access, bootstrap)
                except DisconnectedError:
                    pass  # it was never connected
                else:
                    await session.wait_detached()
            life.left.set()

        async def owner() -> None:
            async with pair.open_controller(registry) as end:
                address = end.bootstrap.symbols["echo"]
                await life.body(partial(end.call_wrapper, address, b"x"), end.disconnect)
            life.finished = True

        nursery.start_soon(other)
        try:
            await run(owner)
            await _other_end_is_over(bench, life)
        finally:
            nursery.cancel_scope.cancel()


async def _other_end_is_over(bench: Bench, life: _Life) -> None:  # noqa: ASYNC910
    if life.session is not None:
        expect(
            life.session.state is SessionState.SHUT_DOWN,
            expected="a session whose block was left is shut down",
            got=life.session.state.value,
            why="nothing of it may outlive its owner",
        )
    if life.connected and life.ready is None:
        with bench.soon("the other end is over too", within=bench.drain_bound):
            await life.left.wait()
        expect(
            len(life.other_told) == 1 and life.other_told[0].orderly,
            expected="the other end, which was connected, has heard a goodbye",
            got=", ".join(map(str, life.other_told)) or "nothing",
            why="a cancelled owner says goodbye, within a bound",
        )


async def _cancelled_at(bench: Bench, life_of: LifeOf, limit: int, missed: list[int]) -> None:
    """Cancel the owner at that suspension; if there was none, say so."""
    life = _Life()
    steps: list[Steps] = []

    async def run(owner: Callable[[], Awaitable[None]]) -> None:
        with bench.soon("a cancelled owner leaves", "its goodbye is bounded", within=bench.drain_bound):
            steps.append(await cancelled_after(owner, limit, own=True))

    await life_of(bench, life, run)
    (step,) = steps
    expect(
        life.finished or step.scope.cancelled_caught,
        expected=f"the owner, cancelled at suspension {limit}, raises Cancelled to the scope that was cancelled",
        got="it ended without",
        why="a Cancelled that gets lost leaves a task running that was told to stop",
    )
    if not step.hit:
        missed.append(limit)


async def _cancelled_while_frozen(bench: Bench, life_of: LifeOf) -> None:
    life = _Life()
    life.ready = ready = trio.Event()

    async def run(owner: Callable[[], Awaitable[None]]) -> None:
        with bench.soon(
            "a cancelled owner leaves although its peer is frozen",
            "a cancellation must not wait for ever",
            within=2 * bench.drain_bound,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(owner)
                await ready.wait()
                assert life.freeze is not None
                await life.freeze()
                nursery.cancel_scope.cancel()

    await life_of(bench, life, run)


async def _body_raises(bench: Bench, life_of: LifeOf) -> None:
    life = _Life()
    life.error = LookupError("the body's own")
    caught: list[BaseException] = []

    async def run(owner: Callable[[], Awaitable[None]]) -> None:  # noqa: ASYNC910
        try:
            with bench.soon("a body that raises is left", within=bench.drain_bound):
                await owner()
        except Exception as exc:
            caught.append(exc)

    await life_of(bench, life, run)
    expect(
        caught == [life.error],
        expected="the body's own exception, as it is",
        got=", ".join(map(repr, caught)) or "nothing",
        why="whoever catches it expects the one that was raised, and no group around it",
    )


@check("G19", "quiet")
async def check_quiet(bench: Bench) -> None:
    """A clean end logs nothing, and no end leaves anything behind: no task, thread, descriptor or payload.

    * Calls of large payloads both ways, some cancelled, some pending, until one end hangs up, or the way is cut, or, if
      the pair can freeze, the drain runs out.
    * A function in a thread that returns after the Trio run has ended does so in silence.
    """
    async with attached(bench) as rig:
        await rig.executor.call("echo", b"whatever is made at the first use only")
    ways = endings(bench)
    if bench.has("freeze"):
        ways = ways | {"it is frozen": _freeze_and_leave}
    for how, end in ways.items():
        with nothing_said(quiet="hangs up" in how), no_leaks() as leaks:
            await _busy_life(bench, leaks, end)
            await trio.lowlevel.checkpoint()  # Trio holds on to what a task was resumed with, until it is again
    with nothing_said() as forget, no_leaks():
        await _late_thread(bench, forget)


async def _freeze_and_leave(rig: Rig, caller: Party) -> None:
    assert rig.pair.freeze is not None
    await rig.pair.freeze()
    with rig.bench.soon("both ends are over although nothing moves", within=rig.bench.drain_bound):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.disconnect)
            nursery.start_soon(caller.other.disconnect)


async def _busy_life(bench: Bench, leaks: Leaks, end: Ending) -> None:
    size = large(bench)
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        for caller in rig.parties:
            result = await caller.call("echo", leaks.payload(size, f"an argument of {caller}'s call"))
            expect(len(result) == size, expected=f"{size} bytes", got=f"{len(result)}", why="they were sent")
            (left,) = calls(nursery, caller, "hang", [leaks.payload(size, f"an argument of {caller}'s cancelled call")])
            await caller.other.until_busy("hang")
            left.scope.cancel()
            await caller.other.until_busy("hang", 0, "it is cancelled")
        for caller in rig.parties:
            calls(nursery, caller, "hang", [leaks.payload(size, f"an argument of {caller}'s pending call")])
            await caller.other.until_busy("hang")
            calls(nursery, caller, "hold", [leaks.payload(size, f"an argument of {caller}'s held call")])
        await end(rig, rig.executor)
        await rig.over()


async def _late_thread(bench: Bench, forget: Callable[[], None]) -> None:
    started, release, done = threading.Event(), threading.Event(), threading.Event()

    def block(args: bytes) -> bytes:
        started.set()
        release.wait()
        done.set()
        return args

    async def main() -> None:
        # The keepalive of the thread holds up the shutdown, until its owner is cancelled and the bound has run out.
        with trio.CancelScope() as scope:
            async with attached(bench.again(), threaded={"block": block}, service_timeout=0.05) as rig:
                rig.nursery.start_soon(Call(rig.controller, "block").run)
                await trio.to_thread.run_sync(started.wait, abandon_on_cancel=True)
                scope.cancel()
                await trio.lowlevel.checkpoint()

    try:
        with bench.soon("a run whose function blocks in a thread ends", within=bench.drain_bound + 5):
            await trio.to_thread.run_sync(trio.run, main, abandon_on_cancel=True)
    finally:
        forget()  # what it said then: that the thread holds a keepalive
        release.set()
    with bench.soon("the thread returns"):
        await trio.to_thread.run_sync(done.wait, abandon_on_cancel=True)
