"""G6 to G8: deadlines, calls within calls, and room."""

from __future__ import annotations

import trio
import trio.testing

from orc_trio.exceptions import (
    NestingLimitError,
    WrapperFunctionError,
)
from orc_trio.reasons import Certainty
from orc_trio.session import Session
from orc_trio.testing.conformance.bench import Bench, check, expect
from orc_trio.testing.conformance.call import CANCELLED, Call, calls
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import attached, endings
from orc_trio.threads import SessionPortal

__all__ = ["check_back_pressure", "check_deadlines", "check_reader_never_waits"]

SHORT = 0.05
"""Seconds of a deadline that shall run out."""
LONG = 3.0
"""Seconds of one that shall not."""


@check("G6", "deadlines travel")
async def check_deadlines(bench: Bench) -> None:
    """The caller's deadline at the moment of the call travels with it, and both ends enforce it; in both directions.

    * The function sees the remaining time, and of a call without a deadline none that was left from another.
    * A deadline that passes releases the caller, and cancels the function.
    * A deadline that the caller moves away after the call runs out at the other end: ``"DeadlineExceeded"``.
    """
    seen: list[float] = []

    async def look(_party: Party, args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        seen.append(trio.current_effective_deadline() - trio.current_time())
        return args

    async with attached(bench, {"look": look}) as rig:
        for caller in rig.parties:
            with trio.move_on_after(LONG):
                await caller.call("look", b"deadline")
            with trio.CancelScope(shield=True):
                await caller.call("look", b"none")
            with_deadline, without = seen[-2:]
            expect(
                0 < with_deadline <= LONG,
                expected=f"a call with a deadline in {LONG:g} s is served with at most as much time",
                got=f"the function at the other end had {with_deadline:g} s",
                why="work that its caller does not wait for any more must end by itself, also if the caller is gone",
            )
            expect(
                without > LONG,
                expected="a call without a deadline is served without one",
                got=f"the function had {without:g} s",
                why="a deadline belongs to its call",
            )
            await _deadline_that_passes(caller)
            await _deadline_that_moved(caller)


async def _deadline_that_passes(caller: Party) -> None:
    server = caller.other
    call = Call(caller, "hang", b"passes")
    with caller.bench.soon("a caller whose deadline has passed is released"), trio.move_on_after(SHORT) as scope:
        await call.run()
    timed_out = isinstance(call.outcome, WrapperFunctionError) and call.outcome.remote_type == "DeadlineExceeded"
    expect(
        scope.cancelled_caught or timed_out,
        expected="a caller whose deadline has passed is cancelled, or told DeadlineExceeded",
        got=repr(call.outcome),
        why="a deadline is the caller's word on how long it waits",
    )
    what = "the function is cancelled when its caller's deadline has passed"
    await server.until_busy("hang", 0, what, "work that nobody waits for must not go on")


async def _deadline_that_moved(caller: Party) -> None:
    server = caller.other
    call = Call(caller, "hang", b"moved")
    async with trio.open_nursery() as nursery:
        call.scope.deadline = trio.current_time() + SHORT
        nursery.start_soon(call.run)
        await server.until(lambda: server.busy("hang") or call.outcome is not None, "the function starts")
        call.scope.deadline = float("inf")
        with caller.bench.soon(
            "the deadline at the moment of the call is enforced by the other end",
            "only what travelled with the call is known there, and that has run out",
        ):
            await call.settled()
    # On a slow machine it may have passed here before it could be moved.
    expect(
        call.outcome == CANCELLED
        or (isinstance(call.outcome, WrapperFunctionError) and call.outcome.remote_type == "DeadlineExceeded"),
        expected="WrapperFunctionError of type DeadlineExceeded",
        got=repr(call.outcome),
        why="the caller, whose own clock has not run out, must learn what happened",
    )


@check("G7", "the reader never waits")
async def check_reader_never_waits(bench: Bench) -> None:
    """Functions that wait hold up nothing but themselves, and mutual recursion ends under any limits.

    * With every place in both directions taken by functions that wait, results, cancels and the hang-up pass.
    * Recursions back and forth, deeper than there are places and several at once, end: at the bottom, or with
      `NestingLimitError` at the innermost call.
    * So does one through more threads than are given to ordinary calls.
    """
    await _everything_taken(bench)
    await _recursions(bench)
    await _recursion_through_threads(bench)


async def _everything_taken(bench: Bench) -> None:
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        held = {}
        for caller in rig.parties:
            arguments = [b"%d" % number for number in range(bench.places)]
            held[caller] = calls(nursery, caller, "hold", arguments)
        for caller in rig.parties:
            server = caller.other
            await server.until_busy("hold", bench.places, "every place is taken")
        for caller in rig.parties:
            server = caller.other
            first = held[caller][0]
            first.scope.cancel()
            passes = "a cancel passes, with every place taken in both directions"
            await server.until_busy("hold", bench.places - 1, passes, "the reader must not wait for functions")
            (call,) = calls(nursery, caller, "echo", [b"passes"])
            await call.echoed()
        rig.executor.begin()
        for caller in rig.parties:
            for call in held[caller][1:]:
                await call.disconnected()
        await rig.over()


async def _recursions(bench: Bench) -> None:
    async def down(party: Party, args: bytes) -> bytes:
        if args == b"0":
            return b"bottom"  # noqa: ASYNC910
        try:
            return await party.call("down", b"%d" % (int(args) - 1))
        except NestingLimitError as exc:
            raise WrapperFunctionError("TooDeep") from exc

    depth, width = min(2 * bench.places + 4, 100), min(bench.places, 16)
    async with attached(bench, {"down": down}) as rig, trio.open_nursery() as nursery:
        for caller in rig.parties:
            made = calls(nursery, caller, "down", [b"%d" % (depth + number % 2) for number in range(width)])
            for call in made:
                await _ended(call, f"{width} recursions, {depth} deep, with {bench.places} places")


async def _recursion_through_threads(bench: Bench) -> None:
    portals: list[SessionPortal] = []
    tags: dict[str, int] = {}

    def prepare(session: Session) -> None:
        portals.append(session.thread_portal())

    def dive(args: bytes) -> bytes:
        return b"bottom" if args == b"0" else portals[0].call_controller(tags["bounce"], args)

    async def bounce(party: Party, args: bytes) -> bytes:
        return await party.call("dive", b"%d" % (int(args) - 1))

    async with attached(bench, {"bounce": bounce}, threaded={"dive": dive}, prepare=prepare) as rig:
        tags.update(rig.tags)
        call = Call(rig.controller, "dive", b"45")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run)
            await _ended(call, "a recursion through 45 threads")


async def _ended(call: Call, what: str) -> None:
    with call.caller.bench.soon(f"{what} ends", "two ends that call each other may not wait for each other's places"):
        await call.settled()
    error = call.outcome
    too_deep = isinstance(error, NestingLimitError) or (
        isinstance(error, WrapperFunctionError) and error.remote_type in ("TooDeep", "HandlerFailed")
    )
    expect(
        error == b"bottom" or too_deep,
        expected=f"{what}: the bottom, or a nesting limit",
        got=repr(error),
        why="a call made while serving a call never waits for room: it goes through, or fails at once",
    )


@check("G8", "back-pressure")
async def check_back_pressure(bench: Bench) -> None:
    """More callers than there are places wait their turn, first come, first served; the end fails those that wait.

    * More calls than there are places, in both directions: never more at once than there are places; the others get in
      in the order in which they were made; all are answered.  Without a bound on calls: all are answered.
    * One that is cancelled while it waits leaves the queue, and never runs.
    * Those that wait when it ends are failed as NOT_SENT, however it ends.
    """
    for side in (0, 1):
        await _in_turn(bench, side)
    if not bench.has("max_calls"):
        return
    for end in endings(bench).values():
        for side in (0, 1):
            async with attached(bench) as rig, trio.open_nursery() as nursery:
                caller, server = rig.parties[side], rig.parties[1 - side]
                calls(nursery, caller, "hang", [b"%d" % number for number in range(bench.places)])
                await server.until_busy("hang", bench.places, "every place is taken")
                waiting = calls(nursery, caller, "hang", [b"waiting %d" % number for number in range(3)])
                await trio.testing.wait_all_tasks_blocked()
                await end(rig, caller)
                for call in waiting:
                    await call.disconnected(Certainty.NOT_SENT)
                await rig.over()


async def _in_turn(bench: Bench, side: int) -> None:
    turns: dict[bytes, trio.Event] = {}

    async def turn(_party: Party, args: bytes) -> bytes:
        await turns[args].wait()
        return args

    async with attached(bench, {"turn": turn}) as rig, trio.open_nursery() as nursery:
        caller, server = rig.parties[side], rig.parties[1 - side]
        places, bounded = bench.places, bench.figures.max_calls is not None
        made: list[Call] = []
        for number in range(places + min(2 * places, 16)):
            args = b"turn %d" % number
            turns[args] = trio.Event()
            made += calls(nursery, caller, "turn", [args])
            if number >= places - 1:  # from here on they wait, and the order counts
                await trio.testing.wait_all_tasks_blocked()
        at_once = places if bounded else len(made)
        await server.until(lambda: server.count("turn") >= at_once, f"{at_once} calls are served at once")
        doomed = made[at_once + 1] if bounded else None
        if doomed is not None:
            doomed.scope.cancel()
            await doomed.settled()
        order = [call for call in made if call is not doomed]
        for number, call in enumerate(order):
            expect(
                not bounded or server.busy("turn") <= places,
                expected=f"at most {places} calls at once",
                got=f"{server.busy('turn')}",
                why="the bound protects whoever serves",
            )
            turns[bytes(call.args)].set()
            await call.echoed()
            if number + at_once < len(order):
                upcoming = order[number + at_once]
                await server.until(lambda: server.count("turn") > number + at_once, f"{upcoming} has a place")  # noqa: B023
                expect(
                    server.started[-1] == ("turn", bytes(upcoming.args)),
                    expected=f"{upcoming} is next",
                    got=f"{server.started[-1]} was",
                    why="who waits longest is served first, or some wait for ever",
                )
        if doomed is not None:
            expect(
                ("turn", bytes(doomed.args)) not in server.started,
                expected="a call that was cancelled while it waited never runs",
                got="it ran",
                why="it was not sent",
            )
