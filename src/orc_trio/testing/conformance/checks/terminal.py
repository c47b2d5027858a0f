"""G13 and G14: what is true when it is over, and in which order it comes to that."""

from __future__ import annotations

import threading

import trio
import trio.testing

from orc_trio.session import Session
from orc_trio.testing.conformance.bench import Bench, check, expect
from orc_trio.testing.conformance.call import Call, calls
from orc_trio.testing.conformance.noting import Recorder
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import Ending, attached, endings

__all__ = ["check_order_of_the_end", "check_terminal_state"]


@check("G13", "the terminal state")
async def check_terminal_state(bench: Bench) -> None:
    """When it is over, nothing runs, nothing starts, and nothing is accepted; at either end, however it ended.

    * Functions whose clean-up takes long have finished it before anybody is told.
    * Calls that are under way when it ends do not start afterwards.
    * When `run` of the access returns, none of its functions is running.
    * A function in a thread cannot be stopped: it is named in the statistics until it returns, and its late result
      is dropped.
    """
    for end in endings(bench).values():
        for side in (0, 1):
            await _nothing_runs(bench, side, end)
    await _a_thread_that_runs_on(bench)


async def _nothing_runs(bench: Bench, side: int, end: Ending) -> None:
    async def slow(party: Party, _args: bytes) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(30):
                    await trio.lowlevel.checkpoint()
        raise AssertionError

    async with attached(bench, {"slow": slow}) as rig, trio.open_nursery() as nursery:
        count = min(3, bench.places)
        for party in rig.parties:
            calls(nursery, party.other, "slow", [b"%d" % number for number in range(count)])
        for party in rig.parties:
            await party.until_busy("slow", count)
        for party in rig.parties:  # and more, that are under way when it ends
            calls(nursery, party.other, "slow", [b"late %d" % number for number in range(bench.places + 3)])
        await end(rig, rig.parties[side])
        for party in rig.parties:
            with bench.soon(f"it is over at {party}", within=bench.drain_bound):
                await party.wait()
            running, started = party.busy(), len(party.started)
            expect(
                running == 0,
                expected=f"no function of {party} is running when it is over there",
                got=f"{running} are",
                why="after the end their memory may be freed",
            )
            refused = await Call(party, "echo", b"after the end").make()
            await refused.failed()
            await trio.testing.wait_all_tasks_blocked()
            expect(
                len(party.started) == started,
                expected=f"no function of {party} starts after the end",
                got=f"{len(party.started) - started} did",
                why="the peer's calls are not accepted any more",
            )
            party.empty()
        expect(
            rig.access.left_running == 0,
            expected="when the access's run() returns none of its functions is running",
            got=f"{rig.access.left_running} were",
            why="the session takes down what they use",
        )


async def _a_thread_that_runs_on(bench: Bench) -> None:
    started, release = threading.Event(), threading.Event()

    def block(args: bytes) -> bytes:
        started.set()
        release.wait()
        return args

    try:
        async with attached(bench, threaded={"block": block}) as rig, trio.open_nursery() as nursery:
            (call,) = calls(nursery, rig.controller, "block", [b"late"])
            with bench.soon("the thread starts"):
                await trio.to_thread.run_sync(started.wait, abandon_on_cancel=True)
            with bench.soon("a thread that cannot be stopped does not hold up the end", within=bench.drain_bound):
                await rig.executor.disconnect()
            await call.disconnected()
            named = rig.session.statistics().running_wrappers
            expect(
                named == ("wrapper block",),
                expected="the function that runs on in its thread is named in the session's statistics",
                got=repr(named),
                why="somebody may have to wait for it",
            )
            release.set()
            await bench.poll(
                lambda: not rig.session.statistics().running_wrappers, "its late result is dropped, and it is forgotten"
            )
    finally:
        release.set()


@check("G14", "the order of the end")
async def check_order_of_the_end(bench: Bench) -> None:
    """The end goes in one order: calls settle, functions end, callbacks are told, services, those who wait.

    * At both ends: every pending call has settled, and every function has ended, before on-disconnect is told; that
      comes before anybody who disconnects returns.
    * At the executor: then every service's ``on_detach``; with the shutdown, when the keepalives are released, every
      ``on_shutdown``, in reverse.
    * Results that are given when it ends still go out before the hang-up, if the pair can freeze.
    """
    for side in (0, 1):
        await _the_order(bench, side)
    if bench.has("freeze") and bench.has("thaw"):
        for side in (0, 1):
            await _results_before_the_hang_up(bench, side)


async def _the_order(bench: Bench, side: int) -> None:
    order: list[str] = []

    def prepare(session: Session) -> None:
        for name in ("first", "second"):
            session.add_service(Recorder(name, order))

    async with attached(bench, prepare=prepare, order=order) as rig:
        breaker = rig.parties[side]
        release = trio.Event()

        async def hold() -> None:
            with rig.session.keepalive("held"):
                await release.wait()
                order.append("keepalive released")

        async def call(party: Party) -> None:
            await Call(party, "hang", b"pending").make()
            order.append(f"{party.name}'s call settled")

        async def disconnect(party: Party) -> None:
            await party.disconnect()
            order.append(f"{party.name} over")

        async def shut_down() -> None:
            await rig.session.shutdown()
            order.append("shut down")

        async with trio.open_nursery() as nursery:
            for party in rig.parties:
                nursery.start_soon(call, party)
            for party in rig.parties:
                await party.until_busy("hang")
            with bench.soon("it is over at both ends", within=bench.drain_bound):
                async with trio.open_nursery() as ending:
                    ending.start_soon(disconnect, breaker)
                    await trio.lowlevel.checkpoint()
                    ending.start_soon(disconnect, breaker.other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(shut_down)
            await trio.testing.wait_all_tasks_blocked()
            release.set()
    for name in ("executor", "controller"):
        for earlier in (f"{name}'s call settled", f"{name}'s hang ended"):
            _in_order(order, earlier, f"{name} told", f"{name} over")
    _in_order(order, "executor told", "first detached", "second detached", "keepalive released")
    _in_order(order, "keepalive released", "second shut down", "first shut down", "shut down")


def _in_order(order: list[str], *names: str) -> None:
    places = [order.index(name) if name in order else -1 for name in names]
    expect(
        -1 not in places and places == sorted(places),
        expected=" → ".join(names),
        got=" → ".join(order),
        why="whoever is told of the end relies on what has to come before",
    )


async def _results_before_the_hang_up(bench: Bench, side: int) -> None:
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        assert rig.pair.freeze is not None
        assert rig.pair.thaw is not None
        caller, server = rig.parties[side], rig.parties[1 - side]
        count = min(3, bench.places)
        made = calls(nursery, caller, "hold", [b"result %d" % number for number in range(count)])
        await server.until_busy("hold", count)
        await rig.pair.freeze()
        server.release.set()
        await server.until_busy("hold", 0, "the functions return")
        await trio.testing.wait_all_tasks_blocked()
        server.begin()
        await trio.testing.wait_all_tasks_blocked()
        await rig.pair.thaw()
        for call in made:
            result = await call.result()
            expect(result == call.args, expected=f"{call} has its result", got=repr(result), why="it was given")
        await rig.over()
