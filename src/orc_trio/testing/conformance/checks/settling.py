"""G1 to G5: how calls settle, and what is known of those that failed."""

from __future__ import annotations

import random

import attrs
import trio
import trio.testing

from orc_trio.abc import AccessHost
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import (
    CallRefusedError,
    DisconnectedError,
    NoControllerError,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.reasons import Certainty
from orc_trio.testing.conformance.bench import Bench, check, expect
from orc_trio.testing.conformance.call import CANCELLED, Call, calls
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import Ending, Rig, attached, endings
from orc_trio.testing.conformance.stepping import cancelled_after, spread

__all__ = [
    "check_cancellation_travels",
    "check_certainty",
    "check_exactly_once",
    "check_one_step",
    "check_whole_frames",
]

NOWHERE = 0x7FFF_DEAD_0000
"""Nothing is registered here."""


@check("G1", "exactly once")
async def check_exactly_once(bench: Bench) -> None:
    """Calls in every way to settle do settle, each in its own way and once; in both directions.

    * Results, a deliberate error, an unknown tag, a caller that is cancelled; and calls that are pending when their own
      end hangs up, when the other one does, and when the way is cut.
    * A call that the executor refuses before it starts is a refusal for the controller, and the conversation lives.
    * When it is over neither end holds a call any more.
    """
    for end in endings(bench).values():
        for side in (0, 1):
            async with attached(bench) as rig, trio.open_nursery() as nursery:
                caller = rig.parties[side]
                await _every_outcome(nursery, rig, caller, end)
                await rig.over()
                for party in rig.parties:
                    party.empty()
    async with attached(bench, wrap_host=_RefusingHost) as rig:
        for _ in range(2):
            call = await Call(rig.controller, "echo", b"x").make()
            expect(
                isinstance(call.outcome, CallRefusedError),
                expected="a call that the executor refused fails with CallRefusedError",
                got=repr(call.outcome),
                why="whoever gets a refusal knows that the call never started, and may make it elsewhere",
            )
        call = await Call(rig.executor, "echo", b"still here").make()
        await call.result()


async def _every_outcome(nursery: trio.Nursery, rig: Rig, caller: Party, end: Ending) -> None:
    server = caller.other
    (left,) = calls(nursery, caller, "hang", [b"left"])
    await server.until_busy("hang")
    answered = calls(nursery, caller, "echo", [b"answer %d" % number for number in range(3)])
    (error,) = calls(nursery, caller, "refuse", [b"why"])
    left.scope.cancel()
    for each in answered:
        await each.echoed()
    await error.settled()
    expect(
        isinstance(error.outcome, WrapperFunctionError),
        expected="a deliberate error of the function is a WrapperFunctionError for its caller",
        got=repr(error.outcome),
        why="errors are one of the ways in which a call settles",
    )
    try:
        unknown: object = await caller.call_tag(NOWHERE)
    except UnknownHandlerTagError as exc:
        unknown = exc
    expect(
        isinstance(unknown, UnknownHandlerTagError),
        expected="a call to nothing fails with UnknownHandlerTagError",
        got=repr(unknown),
        why="it is one of the ways in which a call settles",
    )
    await left.settled()
    expect(left.outcome == CANCELLED, expected=f"{left} is cancelled", got=repr(left.outcome), why="its caller was")
    count = min(3, caller.bench.places)
    pending = calls(nursery, caller, "hang", [b"pending %d" % number for number in range(count)])
    await server.until_busy("hang", count)
    await end(rig, caller)
    for each in pending:
        await each.disconnected()


@attrs.frozen
class _RefusingHost:
    """A session that refuses every call."""

    _host: AccessHost

    @property
    def bootstrap(self) -> BootstrapInfo:
        return self._host.bootstrap

    def connected(self) -> None:
        self._host.connected()

    async def run_wrapper(self, tag: int, args: bytes | memoryview, nested: bool = False) -> bytes:
        await trio.lowlevel.checkpoint()
        raise CallRefusedError("not now")

    def running(self) -> tuple[str, ...]:
        return self._host.running()


@check("G2", "one step")
async def check_one_step(bench: Bench) -> None:  # noqa: ASYNC910
    """Calls that race the end, from many tasks and at every small offset, are drained or refused: none is forgotten.

    * Tasks at both ends call again and again while one of them hangs up, or the way is cut, a few steps later.
    * A call made in the step after the hang-up is refused, and was not sent.
    """
    for how, end in endings(bench).items():
        for offset in range(8):
            async with attached(bench) as rig, trio.open_nursery() as nursery:
                made: list[Call] = []
                for party in rig.parties:
                    for _ in range(3):
                        nursery.start_soon(_call_until_it_fails, party, made)
                for _ in range(offset):
                    await trio.lowlevel.checkpoint()
                await end(rig, rig.executor)
                if how == "it hangs up":
                    late = await Call(rig.executor, "echo", b"late").make()
                    await late.failed()
                    certainty = getattr(late.outcome, "certainty", Certainty.NOT_SENT)
                    expect(
                        certainty is Certainty.NOT_SENT and ("echo", b"late") not in rig.controller.started,
                        expected="a call made after the hang-up fails as NOT_SENT",
                        got=f"{late.outcome!r}; what ran at the other end: {rig.controller.started}",
                        why="after the latch nothing is accepted",
                    )
                await rig.over()
                for each in made:
                    await each.settled()


async def _call_until_it_fails(party: Party, made: list[Call]) -> None:  # noqa: ASYNC910
    while True:
        call = Call(party, "echo", b"%d" % len(made))
        made.append(call)
        await call.run()
        if not isinstance(call.outcome, bytes):
            await call.failed()
            return


@check("G3", "whole frames")
async def check_whole_frames(bench: Bench) -> None:
    """Callers of large payloads that are cancelled at any moment tear nothing: the next calls get their own bytes.

    * One caller, cancelled after its first, second, third … step of the whole run, until it is not cancelled any more;
      in both directions, so that calls and results are interrupted everywhere.
    * Many callers with different bytes at once, some of them cancelled at random moments.
    * A caller that is cancelled while nothing moves, if the pair can freeze.
    """
    size = min(bench.figures.max_message or 128 * 1024, 128 * 1024)
    large = bytes(range(256)) * (size // 256)
    async with attached(bench) as rig:
        for caller in rig.parties:

            async def call(caller: Party = caller) -> None:
                await caller.call("echo", large)

            total = (await cancelled_after(call)).count
            for number, limit in enumerate(spread(total, 30)):
                await cancelled_after(call, limit)
                after = await Call(caller, "echo", b"after %d" % number).make()
                await after.echoed()
            await _some_cancelled(caller, size)
    if bench.has("freeze") and bench.has("thaw"):
        async with attached(bench) as rig:
            for caller in rig.parties:
                await _cancelled_while_frozen(rig, caller, large)


async def _some_cancelled(caller: Party, size: int) -> None:
    dice = random.Random(size)  # noqa: S311
    async with trio.open_nursery() as nursery:
        made = calls(nursery, caller, "echo", [bytes([number]) * (size // 2 + number) for number in range(12)])
        doomed = dice.sample(made, 6)
        for call in doomed:
            for _ in range(dice.randrange(8)):
                await trio.lowlevel.checkpoint()
            call.scope.cancel()
        for call in made:
            await call.settled()
            if call.outcome != CANCELLED or call not in doomed:
                await call.echoed()


async def _cancelled_while_frozen(rig: Rig, caller: Party, large: bytes) -> None:
    assert rig.pair.freeze is not None
    assert rig.pair.thaw is not None
    await rig.pair.freeze()
    async with trio.open_nursery() as nursery:
        (call,) = calls(nursery, caller, "echo", [large])
        await trio.testing.wait_all_tasks_blocked()
        call.scope.cancel()
        await call.settled()
    await rig.pair.thaw()
    after = await Call(caller, "echo", large[::-1]).make()
    await after.echoed()


@check("G4", "certainty")
async def check_certainty(bench: Bench) -> None:  # noqa: ASYNC910
    """A call that failed as NOT_SENT or NOT_STARTED never ran, by the log of the functions themselves.

    Forty calls, more than there is room for, when their own end hangs up, when the other one does, when the way is cut,
    and, if the pair can freeze, while nothing moves; in both directions.
    """
    for end in endings(bench).values():
        for side in (0, 1):
            async with attached(bench) as rig:
                await _compare_with_the_log(rig, rig.parties[side], end)
    if bench.has("freeze") and bench.has("thaw"):
        async with trio.open_nursery() as nursery:
            for side in (0, 1):
                nursery.start_soon(_certainty_while_frozen, bench, side)


async def _certainty_while_frozen(bench: Bench, side: int) -> None:
    async def end(rig: Rig, caller: Party) -> None:
        with bench.soon(f"{caller} is over although nothing moves", within=bench.drain_bound):
            await caller.disconnect()
        assert rig.pair.thaw is not None
        await rig.pair.thaw()

    async with attached(bench) as rig:
        assert rig.pair.freeze is not None
        await rig.pair.freeze()
        await _compare_with_the_log(rig, rig.parties[side], end)


async def _compare_with_the_log(rig: Rig, caller: Party, end: Ending, number: int = 40) -> None:  # noqa: ASYNC910
    made: list[Call] = []
    async with trio.open_nursery() as nursery:
        for each in range(number):
            made += calls(nursery, caller, "hang" if each % 3 else "echo", [b"call %d" % each])
            await trio.lowlevel.checkpoint()
            if each == number // 2:
                nursery.start_soon(end, rig, caller)
        await rig.over()
        for call in made:
            await call.settled()
    ran = set(caller.other.started)
    for call in made:
        outcome = call.outcome
        if isinstance(outcome, bytes):
            await call.echoed()
            continue
        certainty = Certainty.NOT_SENT if isinstance(outcome, NoControllerError) else None
        if isinstance(outcome, DisconnectedError):
            certainty = outcome.certainty
        expect(
            isinstance(certainty, Certainty),
            expected=f"{call} fails with a certainty",
            got=repr(outcome),
            why="a caller has to know whether the call may have run",
        )
        expect(
            certainty is Certainty.UNKNOWN or (call.name, bytes(call.args)) not in ran,
            expected=f"{call} failed as {certainty.name if certainty else certainty}, so it never ran",
            got="it did run, by the function's own log",
            why="whoever trusts that makes the call again, and it runs twice",
        )


@check("G5", "cancellation travels")
async def check_cancellation_travels(bench: Bench) -> None:
    """A cancelled caller is released at once, the function is cancelled, and its place is free again; both directions.

    * A function that shields itself does not hold its caller.
    * A function that does not is cancelled; again and again, more often than there are places.
    * Cancels that cross their results, at every step, disturb nobody.
    """
    for side in (0, 1):
        async with attached(bench) as rig, trio.open_nursery() as nursery:
            caller, server = rig.parties[side], rig.parties[1 - side]
            for number in range(bench.places + 3):
                (call,) = calls(nursery, caller, "hang", [b"hang %d" % number])
                await server.until_busy(
                    "hang",
                    what=f"the function starts, when {number} callers were cancelled before",
                    why="the place of a cancelled call is free when its function has ended",
                )
                call.scope.cancel()
                await server.until_busy(
                    "hang", 0, "the function is cancelled", "work that nobody waits for must not go on"
                )
            await _crossing(caller)
            (stuck,) = calls(nursery, caller, "deaf", [b"stuck"])
            await server.until_busy("deaf")
            stuck.scope.cancel()
            with bench.soon("a cancelled caller is released", "its task must end, whatever the other end does"):
                await stuck.settled()
            expect(
                server.busy("deaf") == 1 and stuck.outcome == CANCELLED,
                expected="the caller is released while the function shields itself",
                got=repr(stuck.outcome),
                why="a cancelled task must not wait for somebody else's code",
            )
            server.release.set()


async def _crossing(caller: Party) -> None:
    async def call() -> None:
        await caller.call("echo", b"small")

    total = (await cancelled_after(call)).count
    for limit in spread(total + 2, 20):
        await cancelled_after(call, limit)
        after = await Call(caller, "echo", b"after %d" % limit).make()
        await after.echoed()
