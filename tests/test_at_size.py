# The same laws with many: a thousand that disconnect, ten thousand callers, recursion two hundred deep, fifty times.

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import (
    TAG,
    FaultyStream,
    call_message,
    connected_ends,
    controller_and_raw,
    every_transport,
    result_message,
)
from orc_trio import Certainty, DisconnectedError, DisconnectKind, SessionState
from orc_trio.wire import Opcode
from session_fakes import LOCAL, REMOTE, Recorder, Threads

MIB = 1024 * 1024


# --- everybody disconnects ---


@pytest.mark.parametrize("kind", ["unix", "inprocess"])
@pytest.mark.parametrize("number", [8, 1000])
async def test_everybody_disconnects(kind: str, number: int) -> None:
    """G1, G12, G13, G24: of a thousand closers at both ends, half of them threads, none returns before it is over."""
    log: list[str] = []
    failed: list[DisconnectedError] = []

    async def slow_to_leave(_args: bytes) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
            log.append("handler ended")
        raise AssertionError

    async def call() -> None:
        with pytest.raises(DisconnectedError) as caught:
            await both.call("slow")
        failed.append(caught.value)

    def controller_is_over(end: Any) -> Any:
        counts = both.controller.statistics()
        assert (counts.state, counts.pending_calls, both.told) == ("closed", 0, [end])
        return end

    def session_is_over(end: Any) -> Any:
        assert both.session.state is SessionState.SHUT_DOWN
        assert both.session.statistics().running_wrappers == ()
        assert log == ["handler ended"] * 10 + ["service detached", "service shut down"]
        return end

    async with connected_ends(kind, wrappers={"slow": slow_to_leave}) as both:
        both.session.add_service(Recorder("service", log))
        here, there = both.controller.thread_portal(), both.session.thread_portal()
        ends: list[Any] = []

        async def disconnect() -> None:
            ends.append(controller_is_over(await both.controller.disconnect()))

        async def shutdown() -> None:
            ends.append(session_is_over(await both.session.shutdown()))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)
            while len(both.session.statistics().running_wrappers) < 10:
                await trio.lowlevel.checkpoint()
            threads = Threads(number // 4, lambda: controller_is_over(here.disconnect()))
            more_threads = Threads(number // 4, lambda: session_is_over(there.shutdown()))
            for _ in range(number // 4):
                nursery.start_soon(disconnect)
                nursery.start_soon(shutdown)
        ends += await threads.joined() + await more_threads.joined()
        assert len(ends) == number
        # Whoever came first: each end has one end.
        assert both.controller.disconnect_reason in (LOCAL, REMOTE)
        assert both.session.disconnect_reason in (LOCAL, REMOTE)
        assert set(ends) == {both.controller.disconnect_reason, both.session.disconnect_reason}
    assert len(failed) == 10


# --- a stalled peer and ten thousand callers ---


class Woken(trio.abc.Instrument):
    """The tasks that became ready to run, in order."""

    def __init__(self) -> None:
        self.tasks: list[trio.lowlevel.Task] = []

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.tasks.append(task)


def held_by_orc_trio() -> int:
    """Bytes that were allocated by lines of the library and are still there."""
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/orc_trio/*")])
    return sum(each.size for each in snapshot.statistics("filename"))


NUMBER = 10_000


async def stalled_callers(argument: bytes, limits: orc_trio.Limits) -> int:
    """Ten thousand callers of a peer that reads nothing, then a disconnect.

    Returns:
        What the library held for them, in bytes.
    """
    certainties: list[Certainty] = []
    callers: list[trio.lowlevel.Task] = []
    streams: list[FaultyStream] = []

    async def call() -> None:
        callers.append(trio.lowlevel.current_task())
        try:
            await controller.call_wrapper(1, argument)
        except DisconnectedError as exc:
            assert exc.reason == LOCAL
            certainties.append(exc.certainty)

    def stalled(end: Any) -> FaultyStream:
        streams.append(FaultyStream(end))
        return streams[0]

    async with controller_and_raw("unix", limits=limits, wrap=stalled, frozen=True) as (controller, _raw):
        streams[0].blocked = trio.Event()
        before = held_by_orc_trio()
        async with trio.open_nursery() as nursery:
            for _ in range(NUMBER):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            counts = controller.statistics()
            assert counts.pending_calls + counts.waiting_calls == NUMBER
            assert counts.bytes_in_flight <= limits.max_bytes
            assert counts.queued_bytes <= limits.max_bytes
            held = held_by_orc_trio() - before
            woken = Woken()
            trio.lowlevel.add_instrument(woken)
            controller.begin_disconnect()
            trio.lowlevel.remove_instrument(woken)
            counts = controller.statistics()
            assert (counts.pending_calls, counts.waiting_calls, counts.bytes_in_flight) == (0, 0, 0)
            ours = set(callers)
            assert [task for task in woken.tasks if task in ours] == callers
        assert certainties.count(Certainty.NOT_SENT) >= NUMBER - limits.max_calls
        assert len(certainties) == NUMBER
        assert (await controller.disconnect()).kind is DisconnectKind.DRAIN_TIMEOUT
    return held


@pytest.mark.slow
async def test_ten_thousand_callers_of_a_stalled_peer() -> None:
    """G8, G14: ten thousand callers share a large argument: the library holds none of it twice; all fail in order."""
    limits = orc_trio.Limits(max_calls=64, max_bytes=8 * MIB, max_message=MIB, drain_timeout=0.05)
    tracemalloc.start()
    try:
        of_nothing = await stalled_callers(b"", limits)
        of_much = await stalled_callers(bytes(MIB), limits)
    finally:
        tracemalloc.stop()
    assert of_much - of_nothing < MIB
    assert of_nothing < NUMBER * 4096


# --- a frozen peer that thaws ---


@every_transport
async def test_a_peer_that_thaws_in_time(kind: str) -> None:
    """G11, G14, G15: a peer that takes the frame begun, the results and the hang-up in time: an orderly end."""
    limits = orc_trio.Limits(max_message=64 * 1024, max_bytes=512 * 1024, drain_timeout=20.0)
    served: list[int] = []

    def handler(args: bytes) -> bytes:
        served.append(args[0])
        return bytes(args) * 20_000

    async with controller_and_raw(kind, limits=limits, handler=handler, frozen=True) as (controller, raw):
        async with trio.open_nursery() as nursery:
            for _ in range(30):

                @nursery.start_soon
                async def call() -> None:
                    with pytest.raises(DisconnectedError) as caught:
                        await controller.call_wrapper(1, bytes(60_000))
                    assert caught.value.reason == LOCAL

            await trio.testing.wait_all_tasks_blocked(0.01)
            await raw.send(*[call_message(number, TAG, bytes([number])) for number in range(1, 11)])
            while len(served) < 10:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.01)
            ends: list[Any] = []

            @nursery.start_soon
            async def disconnect() -> None:
                ends.append(await controller.disconnect())

            while controller.statistics().state == "running":
                await trio.lowlevel.checkpoint()
            # It thaws.
            results = []
            while (message := await raw.receive()) is not None and message.opcode != Opcode.HANG_UP:
                if message.opcode == Opcode.RESULT:
                    results.append((message.seq, bytes(message.payload)))
            assert message is not None
            assert bytes(message.payload) == b"\xf6"  # our reason: in order
            assert message.aux == 10
            assert results == [(number, bytes([number]) * 20_000) for number in served]  # in the order of the answers
            await raw.hang_up()
            await raw.close()
        assert ends == [LOCAL]


# --- recursion ---

ONE = orc_trio.Limits(max_calls=1, max_nested_calls=1024)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["tasks", "threads"])
async def test_fifty_chains_two_hundred_deep(how: str) -> None:
    """G7: fifty chains at once, two hundred deep, with one ordinary call allowed each way: all come back."""
    depth = 200

    async def down(args: bytes) -> bytes:
        left = int(args) - 1
        return await both.session.call_controller(both.symbols["up"], b"%d" % left) if left else b"bottom"

    async def up(args: bytes) -> bytes:
        left = int(args) - 1
        return bytes(await both.call("down", b"%d" % left)) if left else b"bottom"

    def threaded(args: bytes) -> bytes:
        left = int(args) - 1
        return portal.call_controller(both.symbols["up"], b"%d" % left) if left else b"bottom"

    async def from_controller() -> None:
        assert await both.call("down", b"%d" % depth) == b"bottom"
        done.append(1)

    async def from_session() -> None:
        assert await both.session.call_controller(both.symbols["up"], b"%d" % depth) == b"bottom"
        done.append(1)

    done: list[int] = []
    wrapper: dict[str, dict[str, Callable[[Any], Any]]] = {
        "tasks": {"wrappers": {"down": down}},
        "threads": {"threaded": {"down": threaded}},
    }
    async with connected_ends("unix", **wrapper[how], handlers={"up": up}, limits=ONE) as both:  # type: ignore[arg-type]
        portal = both.session.thread_portal()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(from_controller)
                if how == "tasks":
                    nursery.start_soon(from_session)
        assert len(done) == (100 if how == "tasks" else 50)
        assert both.controller.statistics().pending_calls == 0


async def test_a_chain_deeper_than_the_budget() -> None:
    """G4, G7: the call that finds the nested budget used up fails at once, unsent; the chain unwinds, all goes on."""
    deepest = []

    async def down(args: bytes) -> bytes:
        try:
            return await both.session.call_controller(both.symbols["up"], args)
        except orc_trio.NestingLimitError:
            deepest.append(next(depths))
            return b"deep enough"

    async def up(args: bytes) -> bytes:
        next(depths)
        try:
            return bytes(await both.call("down", args))
        except orc_trio.NestingLimitError:
            deepest.append(next(depths))
            return b"deep enough"

    for budget in (0, 1, 50):
        depths = itertools.count()
        limits = orc_trio.Limits(max_calls=1, max_nested_calls=budget)
        async with connected_ends("memory", wrappers={"down": down}, handlers={"up": up}, limits=limits) as both:
            for _ in range(3):
                assert await both.call("down", b"") == b"deep enough"
            assert both.controller.statistics().pending_calls == 0
    assert len(deepest) == 9


async def test_a_result_that_comes_back_to_nobody_is_absorbed_at_size() -> None:
    """G1, G5: a thousand callers that leave, and their results that come all the same: no table keeps anything."""
    async with controller_and_raw("memory") as (controller, raw):
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(controller.call_wrapper, 1, b"")
            numbers = [(await raw.expect(Opcode.CALL)).seq for _ in range(1000)]
            nursery.cancel_scope.cancel()
        assert controller.statistics().abandoned_calls == 1000
        await raw.send(*map(result_message, numbers))
        while controller.statistics().abandoned_calls:
            await trio.lowlevel.checkpoint()
        assert controller.statistics().pending_calls == 0
