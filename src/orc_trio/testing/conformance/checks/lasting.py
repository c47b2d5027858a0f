"""G15 to G17: peers that are frozen, busy, or killed."""

from __future__ import annotations

import trio
import trio.testing

from orc_trio.reasons import DisconnectKind
from orc_trio.testing.conformance.bench import Bench, check, expect
from orc_trio.testing.conformance.call import Call, calls
from orc_trio.testing.conformance.checks.ending import BROKEN, LOCAL, REMOTE
from orc_trio.testing.conformance.pair import NotApplicable
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import attached

__all__ = ["check_bounded", "check_killed_peers_are_noticed", "check_reasons_arrive", "large"]


def large(bench: Bench) -> int:
    """The size of a large payload."""
    return min(bench.figures.max_message or 256 * 1024, 256 * 1024)


@check("G15", "bounded")
async def check_bounded(bench: Bench) -> None:
    """A peer that is frozen, or that sends without end, does not hold a disconnect beyond its bound; at either end.

    * Frozen, with calls pending and large ones stuck: over within the bound, as DRAIN_TIMEOUT with the hang-up inside;
      never as success.  When it thaws, the other end is over too.
    * A peer that calls without end: over, and in order.
    """
    bench.needs("freeze")
    async with trio.open_nursery() as nursery:
        for side in (0, 1):
            for pending in (False, True):
                nursery.start_soon(_frozen, bench, side, pending)
    for side in (0, 1):
        await _flooded(bench, side)


async def _frozen(bench: Bench, side: int, pending: bool) -> None:
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        assert rig.pair.freeze is not None
        party = rig.parties[side]
        made: list[Call] = []
        if pending:
            made = calls(nursery, party, "hang", [b"pending"])
            await party.other.until_busy("hang")
        await rig.pair.freeze()
        if pending:
            made += calls(nursery, party, "echo", [bytes(large(bench)) for _ in range(2 * bench.places)])
            await trio.testing.wait_all_tasks_blocked()
        with bench.soon(
            f"{party} is over although its peer is frozen",
            "a peer that has stopped must not take us with it",
            within=bench.drain_bound,
        ):
            end = await party.disconnect()
        expect(
            end.kind is DisconnectKind.DRAIN_TIMEOUT and end.cause is not None and end.cause.kind is LOCAL,
            expected="a drain timeout, with the local hang-up as its cause",
            got=str(end),
            why="the other end has not heard that it is over: that is no success",
        )
        for call in made:
            await call.disconnected()
        if rig.pair.thaw is not None:
            await rig.pair.thaw()
            await rig.over()


async def _flooded(bench: Bench, side: int) -> None:
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        party = rig.parties[side]
        for _ in range(8):
            nursery.start_soon(_call_without_end, party.other, b"flood")
        await party.until(lambda: party.count("echo") > 20, "the calls arrive")
        with bench.soon(f"{party} is over although its peer calls without end", within=bench.drain_bound):
            end = await party.disconnect()
        expect(end.kind is LOCAL, expected="a local hang-up", got=str(end), why="the peer heard it, and answered")


async def _call_without_end(party: Party, args: bytes) -> None:
    while True:
        call = await Call(party, "echo", args).make()
        if not isinstance(call.outcome, bytes):
            await call.failed()
            return


@check("G16", "reasons arrive")
async def check_reasons_arrive(bench: Bench) -> None:
    """What an end says at its end arrives, whatever the other one is sending at that moment; in both directions.

    * One end sends large calls without end, the other one hangs up: that is a remote hang-up, and no broken pipe.
    * The executor, if it is sent what is no message, tells the controller what was wrong.
    """
    for side in (0, 1):
        for offset in range(6):
            async with attached(bench) as rig, trio.open_nursery() as nursery:
                talker, leaver = rig.parties[side], rig.parties[1 - side]
                for _ in range(4):
                    nursery.start_soon(_call_without_end, talker, bytes(large(bench)))
                for _ in range(offset * 5):
                    await trio.lowlevel.checkpoint()
                leaver.begin()
                await rig.over()
                ends = await leaver.wait(), await talker.wait()
                expect(
                    [end.kind for end in ends] == [LOCAL, REMOTE],
                    expected=f"a local hang-up for {leaver}, and a remote one for {talker}, which was sending",
                    got=f"{ends[0]}; {ends[1]}",
                    why="whoever is left has to learn that it was meant, and not that something broke",
                )
    if bench.has("garble"):
        async with attached(bench) as rig:
            assert rig.pair.garble is not None
            await trio.testing.wait_all_tasks_blocked()
            await rig.pair.garble()
            _, end = await rig.over()
            expect(
                end.kind is DisconnectKind.REMOTE_ERROR and end.detail,
                expected="the executor tells the controller what was wrong: a remote error, with its detail",
                got=str(end),
                why="whoever sent it has the bug, and has to learn of it",
            )


@check("G17", "killed peers are noticed")
async def check_killed_peers_are_noticed(bench: Bench) -> None:  # noqa: ASYNC910
    """A peer that is killed is noticed at once, and a frozen one by the liveness check; at both ends.

    * The way is cut: both ends are over without doing anything; pending calls fail; it is no orderly end.
    * Frozen, with the liveness check on: given up within its bound, as LIVENESS_TIMEOUT.
    * A function that takes longer than that, and an idle conversation, do not look dead.
    """
    if bench.figures.cut is None and (bench.figures.liveness is None or bench.figures.freeze is None):
        raise NotApplicable("the pair has neither cut nor liveness with freeze")
    if bench.has("cut"):
        for idle in (False, True):
            await _cut(bench, idle)
    if bench.has("liveness"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_alive, bench)
            if bench.has("freeze"):
                nursery.start_soon(_dead, bench)


async def _cut(bench: Bench, idle: bool) -> None:
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        assert rig.pair.cut is not None
        made: list[Call] = []
        if not idle:
            for party in rig.parties:
                made += calls(nursery, party, "hang", [b"pending"])
            for party in rig.parties:
                await party.until_busy("hang")
        await rig.pair.cut()
        for party in rig.parties:
            with bench.soon(
                f"{party} notices that the other end was killed",
                "it would wait for an answer that nobody can give",
                within=bench.drain_bound,
            ):
                end = await party.wait()
            expect(
                end.kind in BROKEN and not end.orderly,
                expected="the end of the stream without a hang-up, or a transport error",
                got=str(end),
                why="a killed peer did not say goodbye",
            )
        for call in made:
            error = await call.disconnected()
            expect(not error.reason.orderly, expected="its reason is no orderly one", got=str(error), why="as above")


async def _dead(bench: Bench) -> None:
    assert bench.figures.liveness is not None
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        assert rig.pair.freeze is not None
        (call,) = calls(nursery, rig.controller, "hang", [b"pending"])
        await rig.executor.until_busy("hang")
        await rig.pair.freeze()
        with bench.soon(
            "a frozen peer is given up", "calls would hang for ever", within=bench.figures.liveness + bench.drain_bound
        ):
            ends = [await party.wait() for party in rig.parties]
        for end in ends:
            kinds = {each.kind for each in (end, end.cause) if each is not None}
            expect(
                DisconnectKind.LIVENESS_TIMEOUT in kinds,
                expected="a liveness timeout, perhaps inside a drain timeout",
                got=str(end),
                why="the end says what happened",
            )
        await call.disconnected()


async def _alive(bench: Bench) -> None:
    assert bench.figures.liveness is not None
    longer = 1.3 * bench.figures.liveness

    async def slow(_party: Party, args: bytes) -> bytes:
        await trio.sleep(longer)
        return args

    async with attached(bench, {"slow": slow}) as rig, attached(bench) as idle, trio.open_nursery() as nursery:
        made = [call for party in rig.parties for call in calls(nursery, party, "slow", [b"busy"])]
        for call in made:
            await call.settled(within=longer + bench.figures.patience / 2)
            await call.result()
        (after,) = calls(nursery, idle.controller, "echo", [b"idle"])
        await after.result()
