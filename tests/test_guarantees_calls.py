# G1 to G10: what holds for calls, on every transport.

from __future__ import annotations

import contextvars
import threading
import tracemalloc
import weakref
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import (
    TAG,
    FaultyStream,
    call_message,
    cancelled_everywhere,
    collect,
    connected_ends,
    controller_and_raw,
    every_transport,
    every_virtual,
    result_message,
)
from orc_trio import Certainty, DisconnectKind
from orc_trio.protocol.outcomes import Failed, Refused, encode_result
from orc_trio.testing import PairKind
from orc_trio.wire import Message, Opcode
from orc_trio.wire.messages import ResultKind

REFUSED = (ResultKind.REFUSED, encode_result(Refused("busy"))[1])


async def echo(args: bytes) -> bytes:
    return args


# --- G1 ---


@every_transport
async def test_each_way_to_settle(kind: str) -> None:
    """G1: A call settles once: by a result, an error, a refusal, the end, or its caller's own cancellation."""
    outcomes: dict[int, Any] = {}

    async def one(number: int) -> None:
        with trio.CancelScope() as scopes[number]:
            try:
                outcomes[number] = await controller.call_wrapper(number, b"x")
            except orc_trio.OrcError as exc:
                outcomes[number] = exc
            return
        outcomes[number] = "cancelled"

    scopes: dict[int, trio.CancelScope] = {}
    async with controller_and_raw(kind) as (controller, raw):
        async with trio.open_nursery() as nursery:
            for number in range(1, 6):
                nursery.start_soon(one, number)
            seqs = {}
            for _ in range(5):
                call = await raw.expect(Opcode.CALL)
                seqs[call.tag] = call.seq
            scopes[5].cancel()
            await raw.expect(Opcode.CANCEL)
            await raw.send(
                result_message(seqs[1], b"value"),
                Message(Opcode.RESULT, seqs[2], 0, *encode_result(Failed("Odd", "why"))),
                Message(Opcode.RESULT, seqs[3], 0, *REFUSED),
            )
            while len(outcomes) < 4:
                await trio.sleep(0.001)
            assert controller.statistics().abandoned_calls == 1
            nursery.start_soon(controller.disconnect)
            await raw.goodbye()
    assert outcomes[1] == b"value"
    assert isinstance(outcomes[2], orc_trio.WrapperFunctionError)
    assert str(outcomes[2]) == "Odd: why"
    assert isinstance(outcomes[3], orc_trio.CallRefusedError)
    assert isinstance(outcomes[4], orc_trio.DisconnectedError)
    assert outcomes[4].certainty is Certainty.UNKNOWN
    assert outcomes[5] == "cancelled"
    counts = controller.statistics()
    assert (counts.pending_calls, counts.waiting_calls, counts.abandoned_calls, counts.served_calls) == (0, 0, 0, 0)


async def test_a_tombstone_holds_nothing_of_its_caller() -> None:
    """G1: What stays of a cancelled call is of a fixed size: neither its payload nor its task is held."""

    async with controller_and_raw("memory") as (controller, raw):
        task: weakref.ref[trio.lowlevel.Task]

        async def caller() -> None:
            nonlocal task
            task = weakref.ref(trio.lowlevel.current_task())
            await controller.call_wrapper(1, bytes(1000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller)
            await raw.expect(Opcode.CALL)
            nursery.cancel_scope.cancel()
        assert controller.statistics().abandoned_calls == 1
        await trio.testing.wait_all_tasks_blocked()
        collect()
        assert task() is None
        await raw.hang_up()


# --- G2 ---


@every_virtual
async def test_a_call_that_races_the_latch_is_drained_or_refused(kind: str) -> None:
    """G2: Calls made at the moment of the latch, before or after it, all settle, and those after it say NOT_SENT."""
    certainties = []

    async def caller() -> None:
        with pytest.raises((orc_trio.DisconnectedError, orc_trio.NoControllerError)) as caught:  # noqa: PT012
            while True:
                await ends.call("echo", b"x")
        certainties.append(getattr(caught.value, "certainty", Certainty.NOT_SENT))

    async with connected_ends(kind, wrappers={"echo": echo}) as ends:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(caller)
            for _ in range(7):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(ends.controller.disconnect)
    assert len(certainties) == 50


@every_virtual
async def test_latched_at_any_step_of_a_call(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G2: A call whose connection ends after its first, second, third step is drained or refused, never forgotten."""
    settled = 0

    async def call() -> None:
        nonlocal settled
        with pytest.raises((orc_trio.DisconnectedError, orc_trio.NoControllerError)):
            await controller.call_wrapper(1, b"")
        settled += 1

    # Which of two tasks that are ready makes its step first is Trio's choice: so often that both were.
    for steps in [*range(4)] * 10:
        async with controller_and_raw(kind) as (controller, raw):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                controller.begin_disconnect()
                nursery.start_soon(raw.goodbye)
    assert settled == 40


# --- G3 ---


@every_transport
async def test_cancelling_a_caller_tears_nothing(kind: str) -> None:
    """G3: Callers that are cancelled at any moment tear no frame: the connection lives on."""
    big = bytes(range(256)) * 4000

    async with connected_ends(kind, wrappers={"echo": echo}) as ends:

        async def scenario() -> None:
            await ends.call("echo", big)

        async def check() -> None:
            assert await ends.call("echo", b"still here") == b"still here"

        suspensions = await cancelled_everywhere(scenario, check)
        assert suspensions >= 1
        assert ends.controller.statistics().pending_calls == 0


@pytest.mark.parametrize("kind", ["unix", "tcp", "pipes"])
async def test_a_caller_leaves_with_its_frame_half_sent(kind: str) -> None:
    """G3: A caller that is cancelled while its frame is on its way leaves it whole; the next frame is behind it."""
    size = 8 * 1024 * 1024

    async def call(fill: bytes) -> None:
        await controller.call_wrapper(1, fill * size)

    async with controller_and_raw(kind) as (controller, raw):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, b"1")
                await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, b"2")
            first = await raw.expect(Opcode.CALL)
            assert first.payload == b"1" * size
            assert (await raw.expect(Opcode.CANCEL)).seq == first.seq
            second = await raw.expect(Opcode.CALL)
            assert second.payload == b"2" * size
            await raw.send(result_message(first.seq), result_message(second.seq))


# --- G4 ---


async def test_not_sent_before_the_writer_took_it() -> None:
    """G4: A call of which no byte was handed over says NOT_SENT; one that was handed over, UNKNOWN."""
    faulty: list[FaultyStream] = []

    def wrap(end: Any) -> FaultyStream:
        faulty.append(FaultyStream(end))
        return faulty[0]

    found: dict[int, Certainty] = {}

    async def call(number: int) -> None:
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await controller.call_wrapper(number, bytes(40_000))
        found[number] = caught.value.certainty

    limits = orc_trio.Limits(max_calls=3, max_bytes=2**20, max_message=2**20, drain_timeout=0.05)
    async with controller_and_raw("memory", wrap=wrap, limits=limits) as (controller, _):
        faulty[0].blocked = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 1)
            await trio.testing.wait_all_tasks_blocked()  # handed over, stuck in the stream
            nursery.start_soon(call, 2)  # queued
            nursery.start_soon(call, 3)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(call, 4)  # waits for room
            await trio.testing.wait_all_tasks_blocked()
            assert controller.statistics().waiting_calls == 1
            nursery.start_soon(controller.disconnect)
    assert found == {1: Certainty.UNKNOWN, 2: Certainty.NOT_SENT, 3: Certainty.NOT_SENT, 4: Certainty.NOT_SENT}


@every_transport
async def test_not_started_above_the_watermark(kind: str) -> None:
    """G4: A call above the watermark in the peer's hang-up says NOT_STARTED; one at it, UNKNOWN."""
    found: dict[int, Certainty] = {}

    async def call(number: int) -> None:
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await controller.call_wrapper(number, b"x")
        found[number] = caught.value.certainty
        assert caught.value.reason.kind is DisconnectKind.REMOTE_HANGUP

    async with controller_and_raw(kind) as (controller, raw):
        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(call, number)
            tags = {}
            for _ in range(2):
                message = await raw.expect(Opcode.CALL)
                tags[message.seq] = message.tag
            await raw.hang_up(watermark=min(tags))
    assert found == {tags[min(tags)]: Certainty.UNKNOWN, tags[max(tags)]: Certainty.NOT_STARTED}


async def test_calls_behind_the_hang_up_were_never_started() -> None:
    """G4, G13: NOT_STARTED is never wrong: no handler of such a call ran."""
    ran: set[bytes] = set()
    failed: dict[bytes, Certainty] = {}

    async def wrapper(args: bytes) -> bytes:
        ran.add(args)
        if args == b"20":
            ends.session.begin_detach()
        await trio.sleep(0.01)
        return b""

    async def call(args: bytes) -> None:
        try:
            await ends.call("wrapper", args)
        except (orc_trio.DisconnectedError, orc_trio.NoControllerError) as exc:
            failed[args] = getattr(exc, "certainty", Certainty.NOT_SENT)

    async with connected_ends("unix", wrappers={"wrapper": wrapper}) as ends:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(call, str(number).encode())
                await trio.lowlevel.checkpoint()
    assert failed
    assert not {args for args, certainty in failed.items() if certainty is not Certainty.UNKNOWN} & ran


@every_transport
async def test_queued_results_go_out_before_the_hang_up(kind: str) -> None:
    """G4, G14: Results that were queued at the latch are sent, in order, and the hang-up is the last message."""
    release = trio.Event()

    async def handler(args: bytes) -> bytes:
        await release.wait()
        return args

    async with controller_and_raw(kind, handler=handler) as (controller, raw):
        for seq in range(1, 6):
            await raw.send(call_message(seq, TAG, b"%d" % seq))
        while controller.statistics().served_calls < 5:
            await trio.sleep(0.001)
        release.set()
        await trio.testing.wait_all_tasks_blocked()
        controller.begin_disconnect()
        assert {(await raw.expect(Opcode.RESULT)).payload for _ in range(5)} == {b"1", b"2", b"3", b"4", b"5"}
        assert (await raw.expect(Opcode.HANG_UP)).aux == 5
        await raw.hang_up()
        if kind != "pipes":
            await raw.expect_end()


async def test_results_that_were_not_taken_yet_go_out_too() -> None:
    """G4, G14: A frame begun is finished first, then come the results still queued at the latch, then the hang-up."""
    release = trio.Event()

    async def handler(args: bytes) -> bytes:
        await release.wait()
        return args

    streams: list[FaultyStream] = []

    def wrap(end: Any) -> FaultyStream:
        streams.append(FaultyStream(end))
        return streams[-1]

    async with controller_and_raw("memory", handler=handler, wrap=wrap) as (controller, raw):
        await raw.send(*(call_message(seq, TAG, b"%d" % seq) for seq in range(1, 4)))
        await trio.testing.wait_all_tasks_blocked()
        streams[0].blocked = trio.Event()
        await raw.send(Message(Opcode.PING, aux=1))
        await trio.testing.wait_all_tasks_blocked()  # the pong is begun, and stuck
        release.set()
        await trio.testing.wait_all_tasks_blocked()
        assert controller.statistics().queued_messages == 3
        controller.begin_disconnect()
        streams[0].blocked.set()
        await raw.expect(Opcode.PONG)
        assert {(await raw.expect(Opcode.RESULT)).payload for _ in range(3)} == {b"1", b"2", b"3"}
        await raw.expect(Opcode.HANG_UP)
        await raw.expect_end()


# --- G5 ---


@every_transport
async def test_cancellation_travels(kind: str) -> None:
    """G5: A cancelled caller is released at once, the remote handler is cancelled, and then the slot is free."""
    started, cancelled, release = trio.Event(), trio.Event(), trio.Event()

    async def slow(_args: bytes) -> bytes:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
            with trio.move_on_after(5, shield=True):
                await release.wait()
        raise AssertionError

    async with connected_ends(kind, wrappers={"slow": slow, "echo": echo}) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.call, "slow")
            await started.wait()
            nursery.cancel_scope.cancel()
        await cancelled.wait()
        assert ends.controller.statistics().abandoned_calls == 1
        release.set()
        while ends.controller.statistics().abandoned_calls:
            await trio.sleep(0.001)
        assert await ends.call("echo", b"x") == b"x"


@every_transport
async def test_a_cancel_and_a_result_that_cross_are_absorbed(kind: str) -> None:
    """G5: A cancel that crosses the result is absorbed at one end, the result at the other."""
    async with controller_and_raw(kind, handler=echo) as (controller, raw):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller.call_wrapper, 1, b"")
            call = await raw.expect(Opcode.CALL)
            nursery.cancel_scope.cancel()
        await raw.expect(Opcode.CANCEL)
        await raw.send(result_message(call.seq, b"too late"), call_message(1, TAG, b"x"))
        await raw.expect(Opcode.RESULT)
        await raw.send(Message(Opcode.CANCEL, 1), call_message(2, TAG, b"y"))
        assert (await raw.expect(Opcode.RESULT)).payload == b"y"
        assert controller.statistics().abandoned_calls == 0
        await raw.hang_up()


@every_virtual
async def test_a_reply_that_comes_too_late(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G5, G7: The reply to a caller that has left is absorbed, and is in the way of no other call."""

    async def stubborn(_args: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return b"late"

    async with connected_ends(kind, wrappers={"stubborn": stubborn, "echo": echo}) as ends:
        for _ in range(3):
            with trio.move_on_after(1):
                await ends.call("stubborn")
            await trio.sleep(2)
            assert await ends.call("echo", b"x") == b"x"
        assert ends.controller.statistics().abandoned_calls == 0


@every_virtual
async def test_a_handler_that_swallows_its_cancellation(kind: str) -> None:
    """G5: The answer to a cancelled call is "cancelled", whatever the handler makes of it."""
    started = trio.Event()

    async def stubborn(_args: bytes) -> bytes:
        started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return b"I do not care"
        raise AssertionError

    async with controller_and_raw(kind, handler=stubborn) as (_, raw):
        await raw.send(call_message(1, TAG))
        await started.wait()
        await raw.send(Message(Opcode.CANCEL, 1))
        result = await raw.expect(Opcode.RESULT)
        assert (result.seq, result.aux, result.payload) == (1, ResultKind.CANCELLED, b"")
        await raw.hang_up()


@every_virtual
async def test_a_call_cancelled_before_it_could_start_does_not_start(kind: str) -> None:
    """G5: A call and its cancel that come together run nothing."""
    ran = []

    def handler(args: bytes) -> bytes:
        ran.append(args)
        return args

    async with controller_and_raw(kind, handler=handler) as (_, raw):
        await raw.send(call_message(1, TAG), Message(Opcode.CANCEL, 1), call_message(2, TAG, aux=0))
        results = {}
        for _ in range(2):
            result = await raw.expect(Opcode.RESULT)
            results[result.seq] = result
        assert results[1].aux == ResultKind.CANCELLED
        assert results[2].aux == ResultKind.ERROR
        assert b"DeadlineExceeded" in results[2].payload
        await raw.hang_up()
    assert ran == []


async def test_a_threaded_function_is_let_go() -> None:
    """G5, G13: Cancelling the caller of a threaded function lets the thread go; statistics name it until it returns."""
    started, release = threading.Event(), threading.Event()

    def blocks(_args: bytes) -> bytes:
        started.set()
        release.wait(10)
        return b"late"

    async with connected_ends("unix", threaded={"blocks": blocks}, wrappers={"echo": echo}) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.call, "blocks")
            await trio.to_thread.run_sync(started.wait)
            nursery.cancel_scope.cancel()
        assert await ends.call("echo", b"x") == b"x"
        await ends.controller.disconnect()
        assert ends.session.statistics().running_wrappers == ("blocks",)
        assert ends.session.statistics().keepalives == ("blocks",)
        release.set()
        while ends.session.statistics().running_wrappers:
            await trio.sleep(0.001)


# --- G6 ---


@every_virtual
async def test_the_deadline_travels(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G6: The caller's remaining time travels with the call; no deadline is no deadline."""
    seen = []

    async def wrapper(_args: bytes) -> bytes:
        seen.append(trio.current_effective_deadline() - trio.current_time())
        await trio.sleep(1)
        return b""

    async with connected_ends(kind, wrappers={"wrapper": wrapper}) as ends:
        with trio.fail_after(30), trio.fail_after(20):
            await ends.call("wrapper")
        with trio.CancelScope(shield=True):  # from the deadlines of the test itself
            await ends.call("wrapper")
    assert seen[0] == pytest.approx(20, abs=0.1)
    assert seen[1] == float("inf")


@every_virtual
async def test_clocks_need_not_agree(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G6: What travels is the time that remains, whatever our clock says."""
    autojump_clock.jump(1e9)
    async with controller_and_raw(kind) as (controller, raw):
        with trio.move_on_after(5):
            await controller.call_wrapper(1, b"")
        assert 4_000_000 < (await raw.expect(Opcode.CALL)).aux <= 5_000_000
        await raw.hang_up()


@every_virtual
async def test_the_peers_deadline_runs_out_first(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G6: If the deadline passes at the peer first, the call fails with DeadlineExceeded."""
    finished = []

    async def handler(_args: bytes) -> bytes:
        try:
            await trio.sleep(100)
        finally:
            finished.append(trio.current_time())
        raise AssertionError

    async with controller_and_raw(kind, handler=handler) as (_, raw):
        began = trio.current_time()
        await raw.send(call_message(1, TAG, aux=3_000_000))
        result = await raw.expect(Opcode.RESULT)
        assert result.aux == ResultKind.ERROR
        assert b"DeadlineExceeded" in result.payload
        assert finished == [pytest.approx(began + 3)]
        await raw.hang_up()


@every_virtual
async def test_the_deadline_is_enforced_here_if_the_peer_does_not(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    """G6: A peer that ignores the deadline does not hold the caller."""
    async with controller_and_raw(kind) as (controller, raw):
        with trio.move_on_after(5) as scope:
            await controller.call_wrapper(1, b"")
        assert scope.cancelled_caught
        assert 0 < (await raw.expect(Opcode.CALL)).aux <= 5_000_000
        await raw.hang_up()


async def test_a_deadline_that_is_an_error_of_the_function() -> None:
    """G6: DeadlineExceeded reaches a caller whose own clock has not run out yet."""
    async with controller_and_raw("memory") as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(orc_trio.WrapperFunctionError, match="DeadlineExceeded"):
                    await controller.call_wrapper(1, b"")

            message = await raw.expect(Opcode.CALL)
            await raw.send(Message(Opcode.RESULT, message.seq, 0, *encode_result(Failed("DeadlineExceeded"))))


# --- G7 ---

ONE = orc_trio.Limits(max_calls=1, max_nested_calls=1024)


@every_transport
async def test_deep_recursion_with_one_ordinary_call(kind: str) -> None:
    """G7: Mutual recursion, 200 deep, ends with one ordinary call allowed."""

    async def down(args: bytes) -> bytes:
        depth = int(args)
        return b"bottom" if depth == 0 else await ends.session.call_controller(tag, b"%d" % (depth - 1))  # type: ignore[return-value]

    async def up(args: bytes) -> bytes:
        depth = int(args)
        return b"bottom" if depth == 0 else await ends.call("down", b"%d" % (depth - 1))  # type: ignore[return-value]

    async with connected_ends(kind, wrappers={"down": down}, handlers={"up": up}, limits=ONE) as ends:
        tag = ends.symbols["up"]
        with trio.fail_after(120):
            assert await ends.call("down", b"200") == b"bottom"


async def test_deep_recursion_through_threads() -> None:
    """G7: Recursion through threads ends too: nested calls take no token of the thread limiter."""

    def down(args: bytes) -> bytes:
        depth = int(args)
        return b"bottom" if depth == 0 else portal.call_controller(tag, b"%d" % (depth - 1))

    async def up(args: bytes) -> bytes:
        return await ends.call("down", args)  # type: ignore[return-value]

    async with connected_ends("unix", threaded={"down": down}, handlers={"up": up}, limits=ONE) as ends:
        tag, portal = ends.symbols["up"], ends.session.thread_portal()
        with trio.fail_after(120):
            assert await ends.call("down", b"100") == b"bottom"


@every_virtual
async def test_recursion_beyond_the_nested_budget_fails(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G7: A nested call that finds the budget used up fails at once, NestingLimitError, and the connection lives."""
    depths = []

    async def deeper(call: Any, name: str, args: bytes) -> bytes:
        depths.append(int(args))
        try:
            return await call(ends.symbols[name], b"%d" % (int(args) + 1))  # type: ignore[no-any-return]
        except orc_trio.NestingLimitError as exc:
            raise orc_trio.WrapperFunctionError("TooDeep", str(exc)) from None

    async def down(args: bytes) -> bytes:
        return await deeper(ends.session.call_controller, "up", args)

    async def up(args: bytes) -> bytes:
        return await deeper(ends.controller.call_wrapper, "down", args)

    limits = orc_trio.Limits(max_calls=1, max_nested_calls=3)
    async with connected_ends(kind, wrappers={"down": down, "echo": echo}, handlers={"up": up}, limits=limits) as ends:
        with pytest.raises(orc_trio.WrapperFunctionError, match="TooDeep: the budget of 3 nested calls"):
            await ends.call("down", b"0")
        assert depths == [*range(7)]
        assert await ends.call("echo", b"x") == b"x"


@every_transport
async def test_children_of_a_handler_make_nested_calls(kind: str) -> None:
    """G7: A handler's child tasks and threads make nested calls; what outlives it makes ordinary ones."""
    seen = []
    later = trio.Event()

    async def outlives() -> None:
        await later.wait()
        await controller.call_wrapper(3, b"")

    async def handler(_args: bytes) -> bytes:
        outer.start_soon(outlives)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller.call_wrapper, 1, b"")
            nursery.start_soon(trio.to_thread.run_sync, portal.call_wrapper, 2, b"")
        return b""

    async with controller_and_raw(kind, handler=handler, limits=ONE) as (controller, raw):
        portal = controller.thread_portal()
        async with trio.open_nursery() as outer:
            await raw.send(call_message(1, TAG))
            for _ in range(2):
                message = await raw.expect(Opcode.NESTED_CALL)
                seen.append(message.tag)
                await raw.send(result_message(message.seq))
            await raw.expect(Opcode.RESULT)
            later.set()
            message = await raw.expect(Opcode.CALL)
            seen.append(message.tag)
            await raw.send(result_message(message.seq))
        await raw.hang_up()
    assert sorted(seen) == [1, 2, 3]


@every_transport
async def test_the_reader_never_waits_for_handlers(kind: str) -> None:
    """G7: With every place taken by handlers that wait, results, cancels and hang-ups still pass."""
    limits = orc_trio.Limits(max_calls=2)

    async def handler(_args: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with controller_and_raw(kind, handler=handler, limits=limits) as (controller, raw):
        await raw.send(call_message(1, TAG), call_message(2, TAG))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await controller.call_wrapper(9, b"") == b"passed"

            message = await raw.expect(Opcode.CALL)
            await raw.send(
                result_message(message.seq, b"passed"), Message(Opcode.CANCEL, 1), Message(Opcode.PING, aux=7)
            )
            answers = {(await raw.receive()).opcode for _ in range(2)}  # type: ignore[union-attr]
            assert answers == {Opcode.RESULT, Opcode.PONG}
        await raw.hang_up()


@every_virtual
async def test_a_peer_that_reads_nothing_is_heard(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G7: While nothing can be sent, because the peer does not read, what it sends is read and acted on."""
    blocked = trio.Event()
    answered = trio.Event()

    def wrap(end: Any) -> Any:
        return end if kind == "inprocess" else FaultyStream(end)

    async def call() -> None:
        assert await controller.call_wrapper(9, b"") == b"heard"
        answered.set()

    async with controller_and_raw(kind, handler=echo, wrap=wrap) as (controller, raw):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            message = await raw.expect(Opcode.CALL)
            if kind == "memory":  # it would take everything
                controller._connection._transport.stream.blocked = blocked  # type: ignore[attr-defined]
            for seq in (1, 2):
                await raw.send(call_message(seq, TAG))
                await trio.testing.wait_all_tasks_blocked()
            await raw.send(result_message(message.seq, b"heard"))
            await answered.wait()
        blocked.set()
        assert [(await raw.expect(Opcode.RESULT)).seq for _ in range(2)] == [1, 2]


# --- G8 ---


@every_virtual
async def test_calls_get_room_in_the_order_they_were_made(kind: str) -> None:
    """G8: Calls wait for room first come, first served; a small one does not overtake a large one."""
    made: list[int] = []
    came: list[int] = []

    async def call(number: int) -> None:
        made.append(number)
        await controller.call_wrapper(number, bytes(64 * 1024 if number % 3 == 0 else 10))

    limits = orc_trio.Limits(max_calls=3, max_bytes=64 * 1024, max_message=64 * 1024)
    async with controller_and_raw(kind, limits=limits) as (controller, raw):
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(call, number)
            for _ in range(60):
                message = await raw.expect(Opcode.CALL)
                came.append(message.tag)
                await raw.send(result_message(message.seq))
    assert came == made


@pytest.mark.parametrize("kind", ["memory", "inprocess", "unix"])
async def test_what_the_library_holds_is_bounded(kind: str) -> None:
    """G8: With a stalled peer the library holds at most max_bytes of calls; the rest are its callers'."""
    limits = orc_trio.Limits(max_bytes=256 * 1024, max_message=64 * 1024, drain_timeout=0.05)
    async with controller_and_raw(kind, limits=limits) as (controller, _raw):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(controller.call_wrapper, 1, bytes(64 * 1024))
            await trio.testing.wait_all_tasks_blocked(0.01)
            counts = controller.statistics()
            assert counts.pending_calls == 4
            assert counts.waiting_calls == 96
            assert counts.bytes_in_flight == 256 * 1024
            assert counts.queued_bytes <= 256 * 1024
            nursery.cancel_scope.cancel()
        assert controller.statistics().waiting_calls == 0


@pytest.mark.parametrize("kind", ["memory", "inprocess", "unix"])
async def test_results_wait_for_room_in_their_handlers(kind: str) -> None:
    """G8: With a peer that does not read results, what is queued is bounded; handlers wait, the reader does not."""
    limits = orc_trio.Limits(max_bytes=256 * 1024, max_message=64 * 1024)
    blocked = trio.Event()
    answered: list[int] = []

    def handler(args: bytes) -> bytes:
        answered.append(args[0])
        return bytes(64 * 1024)

    def wrap(end: Any) -> Any:
        return end if kind == "inprocess" else FaultyStream(end)

    async with controller_and_raw(kind, handler=handler, limits=limits, wrap=wrap) as (controller, raw):
        if kind == "memory":  # it would take everything
            controller._connection._transport.stream.blocked = blocked  # type: ignore[attr-defined]
        await raw.send(*(call_message(seq, TAG, bytes([seq])) for seq in range(1, 65)))
        await trio.testing.wait_all_tasks_blocked(0.01)
        counts = controller.statistics()
        assert counts.queued_bytes <= 256 * 1024
        assert counts.waiting_results > 40
        blocked.set()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:  # results and pings still pass
                await controller.call_wrapper(9, b"")

            seen = []
            while len(seen) < 64:
                message = await raw.receive()
                assert message is not None
                if message.opcode == Opcode.CALL:
                    await raw.send(result_message(message.seq))
                else:
                    seen.append(message.seq)
        assert seen == answered
        assert controller.statistics().served_calls <= 1
        await raw.hang_up()


@every_virtual
async def test_a_cancelled_call_that_came_in_parts_waits_for_room_too(kind: str) -> None:
    """G8: A call cancelled while its parts were coming is answered, also when results wait for room."""
    limits = orc_trio.Limits(max_bytes=64 * 1024, max_message=64 * 1024)

    def handler(_args: bytes) -> bytes:
        return bytes(64 * 1024)

    async with controller_and_raw(kind, handler=handler, limits=limits) as (controller, raw):
        await raw.send(*(call_message(seq, TAG) for seq in range(1, 5)), Message(Opcode.PART, 5, 0, 100, b"begin"))
        await trio.testing.wait_all_tasks_blocked()
        await raw.send(Message(Opcode.CANCEL, 5))
        results = {}
        for _ in range(5):
            result = await raw.expect(Opcode.RESULT)
            results[result.seq] = result.aux
        assert results == {1: 0, 2: 0, 3: 0, 4: 0, 5: ResultKind.CANCELLED}
        await trio.testing.wait_all_tasks_blocked()
        assert controller.disconnect_reason is None
        await raw.hang_up()


@every_virtual
async def test_waiting_for_room_is_failed_by_the_latch(kind: str) -> None:
    """G8: A call that waits for room is failed by the latch, NOT_SENT."""
    async with controller_and_raw(kind, limits=orc_trio.Limits(max_calls=1)) as (controller, raw):
        certainties = []

        async def call() -> None:
            with pytest.raises(orc_trio.DisconnectedError) as caught:
                await controller.call_wrapper(1, b"")
            certainties.append(caught.value.certainty)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            await raw.expect(Opcode.CALL)
            await raw.hang_up(watermark=1)
        assert set(certainties) == {Certainty.UNKNOWN, Certainty.NOT_SENT}


async def test_payloads_do_not_change_and_are_not_copied_needlessly() -> None:
    """G8: Bytes are passed on as they are; a mutable buffer is copied when the call is made."""
    received: list[Any] = []

    def wrapper(args: Any) -> Any:
        received.append(args)
        return bytearray(args)

    async with connected_ends("inprocess", wrappers={"wrapper": wrapper}) as ends:
        payload = bytes(100_000)
        assert await ends.call("wrapper", payload) == payload
        assert received[0] is payload
        mutable = bytearray(b"before")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await ends.controller.call_wrapper(ends.symbols["wrapper"], memoryview(mutable)) == b"before"

            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            mutable[:] = b"after!"
        assert received[1] == b"before"


async def test_a_call_has_the_bytes_that_were_there_when_it_was_made() -> None:
    """G8: What a caller does to its buffer while the call is still queued changes nothing."""
    streams: list[FaultyStream] = []

    def wrap(end: Any) -> FaultyStream:
        streams.append(FaultyStream(end))
        return streams[-1]

    async with controller_and_raw("memory", wrap=wrap) as (controller, raw):
        streams[0].blocked = trio.Event()
        await raw.send(Message(Opcode.PING, aux=1))
        await trio.testing.wait_all_tasks_blocked()  # the pong is begun, and stuck
        mutable = bytearray(b"before")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller.call_wrapper, 1, memoryview(mutable))
            await trio.testing.wait_all_tasks_blocked()
            mutable[:] = b"after!"
            streams[0].blocked.set()
            await raw.expect(Opcode.PONG)
            message = await raw.expect(Opcode.CALL)
            await raw.send(result_message(message.seq))
        assert message.payload == b"before"


@every_transport
async def test_zero_copy(kind: str) -> None:
    """G8: Bytes by default; a function registered with zero_copy gets a memoryview, and a caller may ask for one."""
    seen: list[type] = []

    def wrapper(args: Any) -> Any:
        seen.append(type(args))
        return args

    async with connected_ends(kind) as ends:
        copying = ends.session.wrappers.add(wrapper)
        sharing = ends.session.wrappers.add(wrapper, zero_copy=True)
        for size in (10, 200_000):
            for address in (copying, sharing):
                assert await ends.controller.call_wrapper(address, bytes(size)) == bytes(size)
                shared = await ends.controller.call_wrapper(address, bytes(size), zero_copy=True)
                assert bytes(shared) == bytes(size)
    assert seen == [bytes, bytes, memoryview, memoryview] * 2


async def test_an_idle_connection_holds_no_payload() -> None:
    """G8: When a call is answered neither end holds anything of it, though its reader waits for more."""
    size = 4 * 1024 * 1024
    async with connected_ends("memory", wrappers={"swallow": lambda _args: b""}) as both:
        await both.call("swallow", bytes(size))
        tracemalloc.start()
        try:
            await both.call("swallow", bytes(size))
            await trio.testing.wait_all_tasks_blocked()
            assert tracemalloc.get_traced_memory()[1] > size
            assert tracemalloc.get_traced_memory()[0] < size // 4
        finally:
            tracemalloc.stop()


# --- G9, G10 ---


@every_transport
async def test_an_unknown_tag_is_an_error_of_that_call(kind: str) -> None:
    """G9: A tag nobody registered fails that call only, in both directions."""
    async with connected_ends(kind, wrappers={"echo": echo}) as ends:
        with pytest.raises(orc_trio.UnknownHandlerTagError) as caught:
            await ends.controller.call_wrapper(12345, b"")
        assert caught.value.tag == 12345
        with pytest.raises(orc_trio.UnknownHandlerTagError):
            await ends.session.call_controller(54321, b"")
        assert await ends.call("echo", b"x") == b"x"


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret /home/somebody"),
        ExceptionGroup("secret", [ValueError("secret"), OSError("secret")]),
        _Unprintable("secret"),
        StopIteration("secret"),
        orc_trio.CallRefusedError("secret"),
        orc_trio.UnknownHandlerTagError(0x5EC7E7),
        orc_trio.DisconnectedError(
            orc_trio.DisconnectReason(DisconnectKind.TRANSPORT_ERROR, "secret"), Certainty.UNKNOWN
        ),
        orc_trio.WrapperFunctionError(b"secret"),  # type: ignore[arg-type]
        orc_trio.WrapperFunctionError("Secret", 5),  # type: ignore[arg-type]
    ],
    ids=lambda error: type(error).__name__ if isinstance(error, BaseException) else None,
)
@pytest.mark.parametrize("how", ["async", "sync", "threaded"])
async def test_nothing_of_an_unexpected_exception_crosses(
    error: BaseException, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """G9: Whatever escapes a handler becomes "handler failed"; its details are in the owner's log only."""

    async def in_task(_args: bytes) -> bytes:
        raise error

    def plain(_args: bytes) -> bytes:
        raise error

    handler = in_task if how == "async" else plain
    async with controller_and_raw("memory", handler=handler, threaded=how == "threaded") as (_, raw):
        await raw.send(call_message(1, TAG))
        result = await raw.expect(Opcode.RESULT)
        assert result.aux == ResultKind.ERROR
        assert b"HandlerFailed" in result.payload
        assert b"ecret" not in result.payload.replace(b"handler", b"")
        assert b"5ec7e7" not in result.payload
        await raw.hang_up()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None


@every_virtual
@pytest.mark.parametrize("threaded", [False, True])
async def test_an_error_of_another_connection_is_not_passed_on(kind: PairKind, threaded: bool) -> None:
    """G9: What one peer says reaches another only if the function between them says it: by raising it anew."""

    async def fail(_args: bytes) -> bytes:
        raise orc_trio.WrapperFunctionError("Secret", "for the caller alone")

    async def ask(tag: int) -> bytes:
        return bytes(await other.call("fail")) if tag else await both.session.call_controller(both.symbols["fail"], b"")

    async def passes(args: bytes) -> bytes:
        if args == b"anew":
            try:
                return await ask(1)
            except orc_trio.WrapperFunctionError as exc:
                raise orc_trio.WrapperFunctionError("Public", "what may be said") from exc
        return await ask(args == b"other")

    def passes_in_thread(args: bytes) -> bytes:
        return bytes(trio.from_thread.run(passes, args))

    wrappers: Any = {"threaded" if threaded else "wrappers": {"passes": passes_in_thread if threaded else passes}}
    async with (
        connected_ends(kind, wrappers={"fail": fail}) as other,
        connected_ends(kind, handlers={"fail": fail}, **wrappers) as both,
    ):
        for said, remote_type in [(b"other", "HandlerFailed"), (b"anew", "Public"), (b"own", "Secret")]:
            with pytest.raises(orc_trio.WrapperFunctionError) as caught:
                await both.call("passes", said)
            assert caught.value.remote_type == remote_type
            assert ("alone" in str(caught.value)) is (said == b"own")


async def test_what_a_handler_returns_must_be_bytes(caplog: pytest.LogCaptureFixture) -> None:
    """G9: A handler that returns something else has failed; the connection lives."""

    def handler(args: bytes) -> Any:
        return [None, "text", 5, [b"x"], object()][args[0]]

    async with controller_and_raw("memory", handler=handler) as (_, raw):
        for seq in range(1, 6):
            await raw.send(call_message(seq, TAG, bytes([seq - 1])))
            assert b"HandlerFailed" in (await raw.expect(Opcode.RESULT)).payload
        await raw.hang_up()
    assert "must be bytes" in caplog.text


@every_transport
async def test_errors_are_not_bytes(kind: str) -> None:
    """G10: An error has a type and a message, is distinct from any bytes, and is bounded in size."""

    def wrapper(args: bytes) -> bytes:
        if args == b"fail":
            raise orc_trio.WrapperFunctionError("T" * 100_000, "m\ud800" * 1_000_000)
        return args

    async with connected_ends(kind, wrappers={"wrapper": wrapper}) as ends:
        with pytest.raises(orc_trio.WrapperFunctionError) as caught:
            await ends.call("wrapper", b"fail")
        assert caught.value.remote_type.startswith("TTT")
        assert len(caught.value.remote_type) <= 300
        assert len(caught.value.message) <= 9000
        assert await ends.call("wrapper", b"WrapperFunctionError") == b"WrapperFunctionError"
        assert await ends.call("wrapper", b"") == b""


# --- contexts ---

_request: contextvars.ContextVar[bytes] = contextvars.ContextVar("request")


@pytest.mark.parametrize("threaded", [False, True])
async def test_contexts_do_not_leak_between_calls(threaded: bool) -> None:
    """G19: What one call sets in its context is seen by no other."""

    def handler(args: bytes) -> bytes:
        seen = _request.get(b"nothing")
        _request.set(args)
        return seen

    async with controller_and_raw("memory", handler=handler, threaded=threaded) as (_, raw):
        for seq in range(1, 6):
            await raw.send(call_message(seq, TAG, b"mine"))
            assert (await raw.expect(Opcode.RESULT)).payload == b"nothing"
        await raw.hang_up()


async def test_a_bad_argument_is_the_callers_own(recwarn: pytest.WarningsRecorder) -> None:
    """G1: What is no address, or no bytes, fails in the caller, and the connection lives."""
    async with connected_ends("unix", wrappers={"echo": echo}) as ends:
        for address in (-1, 2**64):
            with pytest.raises(orc_trio.LocalProtocolError):
                await ends.controller.call_wrapper(address, b"")
        with pytest.raises(TypeError):
            await ends.controller.call_wrapper(1.5, b"")  # type: ignore[arg-type]
        for args in ("text", None, 5, [b"x"]):
            with pytest.raises(TypeError):
                await ends.call("echo", args)  # type: ignore[arg-type]
        assert await ends.call("echo", b"x") == b"x"
