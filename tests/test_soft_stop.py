# Stopping softly: new calls are refused, those in flight finish within a bound, then comes the end; and what handlers
# that are running at the latch may still do.

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import (
    FaultyStream,
    RawPeer,
    connected_ends,
    connected_pair,
    controller_and_raw,
    every_transport,
    every_virtual,
    quiet,
)
from orc_trio import CallRefusedError, Certainty, DisconnectedError, DisconnectKind, SessionState
from orc_trio.protocol import Role
from orc_trio.testing import PairKind
from orc_trio.wire import Message, Opcode
from session_fakes import LOCAL, FakeAccess, Recorder, attached

ENDS = ["controller", "session"]
either_end = pytest.mark.parametrize("by", ENDS)


class Gate:
    """A function that waits until it is let go, and says so."""

    def __init__(self) -> None:
        self.running = 0
        self.open = trio.Event()
        self.left: list[str] = []

    async def __call__(self, args: bytes) -> bytes:
        self.running += 1
        try:
            await self.open.wait()
            self.left.append("finished")
        except trio.Cancelled:
            self.left.append("cancelled")
            raise
        finally:
            self.running -= 1
        return b"done with " + args

    async def wait_running(self, count: int) -> None:
        while self.running < count:
            await trio.lowlevel.checkpoint()


def stop(both: Any, by: str, finish_within: float) -> Any:
    """The soft stop of that end, to be awaited."""
    end = both.controller.disconnect if by == "controller" else both.session.detach
    return end(finish_within=finish_within)


def begin(both: Any, by: str, finish_within: float) -> orc_trio.DisconnectReason:
    end = both.controller.begin_disconnect if by == "controller" else both.session.begin_detach
    reason = end(finish_within=finish_within)
    assert isinstance(reason, orc_trio.DisconnectReason)
    return reason


async def refused(call: Any) -> None:
    with pytest.raises(CallRefusedError, match="about to end"):
        await call


# --- what it does ---


@either_end
@every_transport
async def test_calls_in_flight_finish(kind: str, by: str) -> None:
    """G12: A soft stop refuses new calls at both ends, lets those in flight finish both ways, and hangs up then."""
    gate, results, ends = Gate(), [], []

    async def call_wrapper() -> None:
        results.append(await both.call("gate", b"one"))

    async def call_controller() -> None:
        results.append(await both.session.call_controller(both.symbols["gate_here"], b"other"))

    async def stopper() -> None:
        ends.append(await stop(both, by, math.inf))

    async with connected_ends(kind, wrappers={"gate": gate}, handlers={"gate_here": gate}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_wrapper)
            nursery.start_soon(call_controller)
            await gate.wait_running(2)
            nursery.start_soon(stopper)
            nursery.start_soon(stopper)
            statistics = (
                both.controller.statistics if by == "controller" else lambda: both.session.statistics().connection
            )
            while statistics().state == "running":
                await trio.lowlevel.checkpoint()
            assert statistics().state == "finishing"
            await refused(both.call("gate"))
            await refused(both.session.call_controller(both.symbols["gate_here"], b""))
            assert ends == []
            gate.open.set()
        assert sorted(results) == [b"done with one", b"done with other"]
        assert ends == [LOCAL, LOCAL]
        other = both.session.wait_detached if by == "controller" else both.controller.wait_disconnected
        assert (await other()).kind is DisconnectKind.REMOTE_HANGUP
    assert gate.left == ["finished"] * 2


@either_end
@every_transport
async def test_with_nothing_in_flight_it_is_over_at_once(kind: str, by: str) -> None:
    """G12: A soft stop of a connection that is idle does not wait."""
    async with connected_ends(kind) as both:
        assert await stop(both, by, math.inf) == LOCAL


@every_transport
async def test_calls_that_wait_for_room_finish_too(kind: str) -> None:
    """G8, G12: What was accepted before a soft stop goes on, also if it waited for a place then."""
    gate, results = Gate(), []

    async def call(number: int) -> None:
        results.append(await both.call("gate", b"%d" % number))

    one = orc_trio.Limits(max_calls=1)
    async with connected_ends(kind, wrappers={"gate": gate}, limits=one) as both:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(call, number)
            while both.controller.statistics().waiting_calls < 2:
                await trio.lowlevel.checkpoint()
            begin(both, "controller", math.inf)
            gate.open.set()
        assert (await both.controller.wait_disconnected()) == LOCAL
    assert sorted(results) == [b"done with 0", b"done with 1", b"done with 2"]


@every_transport
async def test_what_waits_at_the_other_end_is_turned_away(kind: str) -> None:
    """G4, G12: A call that waits for room at the other end is refused when it comes, and did not run."""
    gate, other, log = Gate(), Gate(), []

    async def call() -> None:
        try:
            log.append(bytes(await both.call("gate")))
        except CallRefusedError:
            log.append(b"refused")

    async def call_back() -> None:
        log.append(await both.session.call_controller(both.symbols["other"], b""))

    one = orc_trio.Limits(max_calls=1)
    async with connected_ends(kind, wrappers={"gate": gate}, handlers={"other": other}, limits=one) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_back)
            for _ in range(4):
                nursery.start_soon(call)
            while both.controller.statistics().waiting_calls < 3:
                await trio.lowlevel.checkpoint()
            await gate.wait_running(1)
            await other.wait_running(1)
            begin(both, "session", math.inf)
            gate.open.set()
            while len(log) < 4:
                await trio.lowlevel.checkpoint()
            other.open.set()
        assert (await both.session.wait_detached()) == LOCAL
    assert sorted(log) == [b"done with ", b"done with ", b"refused", b"refused", b"refused"]
    assert gate.left == ["finished"]


@either_end
@every_transport
async def test_nested_calls_pass(kind: str, by: str) -> None:
    """G7, G12: What is in flight may call back, and be called back, as deep as it needs, during a soft stop."""
    started, go = trio.Event(), trio.Event()

    async def down(args: bytes) -> bytes:
        depth = int(args)
        if depth == 20:
            started.set()
            await go.wait()
        return await both.session.call_controller(both.symbols["up"], b"%d" % (depth - 1)) if depth else b"bottom"

    async def up(args: bytes) -> bytes:
        return bytes(await both.call("down", args))

    async def call() -> None:
        assert await both.call("down", b"20") == b"bottom"

    async with connected_ends(kind, wrappers={"down": down}, handlers={"up": up}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await started.wait()
            begin(both, by, math.inf)
            begin(both, ENDS[by == "controller"], math.inf)
            go.set()
        assert (await both.controller.wait_disconnected()).orderly


@either_end
async def test_a_result_may_be_on_its_way_for_longer_than_a_drain(
    by: str, autojump_clock: trio.testing.MockClock
) -> None:
    """G12, G15: A soft stop ends when the last result has arrived: the bound of the drain does not cut it off."""
    here, there = await connected_pair("memory")
    slow = FaultyStream(here if by == "controller" else there)
    ends = (slow, there) if by == "controller" else (here, slow)
    answers: list[bytes] = []
    before = trio.current_time()

    async def serve(_args: bytes) -> bytes:
        slow.blocked = trio.Event()
        return b"slow"

    async def call(both: Any) -> None:
        calls = both.session.call_controller if by == "controller" else both.controller.call_wrapper
        answers.append(await calls(both.symbols["serve"], b""))

    serves: Any = {"handlers" if by == "controller" else "wrappers": {"serve": serve}}
    async with connected_ends("memory", pair=ends, limits=orc_trio.Limits(drain_timeout=1), **serves) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, both)
            while slow.blocked is None:
                await trio.lowlevel.checkpoint()
            begin(both, by, math.inf)
            await trio.sleep(10)
            slow.blocked.set()
        ended = both.controller.wait_disconnected if by == "controller" else both.session.wait_detached
        assert await ended() == LOCAL
    assert answers == [b"slow"]
    assert trio.current_time() - before < 11


@either_end
@every_virtual
async def test_a_nested_call_may_come_in_any_step(kind: PairKind, by: str) -> None:
    """G4, G12: A call made while serving one of another connection passes, or has not run: it is never cut off."""
    fates: set[str] = set()

    async def via(_args: bytes) -> bytes:
        ready.set()
        await go.wait()
        before = ran[:]
        try:
            fate = bytes(await other.call("count")).decode()
        except (CallRefusedError, orc_trio.NoControllerError) as exc:
            fate = type(exc).__name__
        except DisconnectedError as exc:
            fate = exc.certainty.value
        assert fate != Certainty.UNKNOWN.value
        assert (ran != before) is (fate == "counted")
        fates.add(fate)
        return b""

    async def count(_args: bytes) -> bytes:
        ran.append(1)
        return b"counted"

    ran: list[int] = []
    async with connected_ends(kind, wrappers={"via": via}) as both:
        for steps in [0] * 20 + list(range(40)):
            ready, go = trio.Event(), trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(both.call, "via")
                await ready.wait()
                async with connected_ends(kind, wrappers={"count": count}) as other:
                    begin(other, by, math.inf)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    go.set()
                    assert (await other.controller.wait_disconnected()).orderly
                    assert (await other.session.wait_detached()).orderly
    assert "counted" in fates
    assert len(fates) > 1


# --- its bound ---


@either_end
@every_virtual
async def test_the_bound(kind: str, by: str, autojump_clock: trio.testing.MockClock) -> None:
    """G4, G12, G15: What has not finished within the bound is cut off, and the end says so."""
    gate, errors = Gate(), []

    async def call() -> None:
        with pytest.raises(DisconnectedError) as caught:
            await both.call("gate")
        errors.append(caught.value)

    async with connected_ends(kind, wrappers={"gate": gate}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await gate.wait_running(1)
            before = trio.current_time()
            end = await stop(both, by, 3)
            assert trio.current_time() - before == pytest.approx(3)
        counts = "1 calls made here, 0 served here" if by == "controller" else "0 calls made here, 1 served here"
        assert end == orc_trio.DisconnectReason(DisconnectKind.LOCAL_HANGUP, f"not finished in time: {counts}")
    (error,) = errors
    assert error.certainty is Certainty.UNKNOWN
    assert gate.left == ["cancelled"]


@either_end
@every_virtual
async def test_the_first_bound_to_run_out_counts(kind: str, by: str, autojump_clock: trio.testing.MockClock) -> None:
    """G12: Of several soft stops the shortest counts, and one that is not soft ends at once."""
    gate = Gate()

    async def call() -> None:
        with pytest.raises(DisconnectedError):
            await both.call("gate")

    for bounds, expected in [([5, 2, 9], 2), ([5, 0], 0), ([math.inf, 4], 4)]:
        async with connected_ends(kind, wrappers={"gate": gate}) as both:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await gate.wait_running(1)
                before = trio.current_time()
                for bound in bounds:
                    begin(both, by, bound)
                await both.controller.wait_disconnected()
                assert trio.current_time() - before == pytest.approx(expected)


@either_end
@every_virtual
async def test_it_ends_when_the_last_caller_leaves(kind: str, by: str, autojump_clock: trio.testing.MockClock) -> None:
    """G5, G12: A soft stop waits for nobody who has left, sent or not."""
    gate = Gate()
    one = orc_trio.Limits(max_calls=1)
    async with connected_ends(kind, wrappers={"gate": gate}, limits=one) as both:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(both.call, "gate")
            await gate.wait_running(1)
            before = trio.current_time()
            begin(both, by, 100)
            nursery.cancel_scope.cancel()
        assert (await both.controller.wait_disconnected()).orderly
        assert trio.current_time() == before
    assert gate.left == ["cancelled"]


async def test_it_ends_when_only_one_that_was_not_sent_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """G5, G12: A call that leaves the queue before it was sent holds up a soft stop no longer."""
    here, there = await connected_pair("memory")
    raw = RawPeer(there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.settle, Role.EXECUTOR)
        async with orc_trio.open_controller(here, orc_trio.HandlerRegistry()) as controller:
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as callers:
                    callers.start_soon(controller.call_wrapper, 1, b"")
                    scope.cancel()

            @nursery.start_soon
            async def answer() -> None:
                ping = await raw.expect(Opcode.PING)
                await raw.send(Message(Opcode.PONG, aux=ping.aux))
                await raw.goodbye()

            assert await controller.disconnect(finish_within=50) == LOCAL
            assert trio.current_time() == before


@every_virtual
async def test_a_peer_that_does_not_answer(kind: PairKind, autojump_clock: trio.testing.MockClock) -> None:
    """G12, G15: Whether all has arrived is asked within the bound too, and the end says that nobody answered."""
    async with controller_and_raw(kind) as (controller, raw):
        before = trio.current_time()
        controller.begin_disconnect(finish_within=3)
        await raw.expect(Opcode.PING)
        await raw.goodbye()
        assert trio.current_time() - before == pytest.approx(3)
        end = await controller.wait_disconnected()
        assert end.kind is DisconnectKind.LOCAL_HANGUP
        assert end.detail == "not finished in time: the peer did not say whether it has everything"


@every_transport
async def test_no_bound_is_refused_before_anything_changes(kind: str) -> None:
    """G12: A bound that is no number of seconds is an error of who gave it, and the connection lives on."""
    wrong: Any
    async with connected_ends(kind, wrappers={"echo": bytes}) as both:
        for wrong in (-1, math.nan, "1", None, 10**400):
            for function in (
                both.controller.begin_disconnect,
                both.session.begin_detach,
                both.session.begin_shutdown,
            ):
                with pytest.raises(ValueError, match="finish_within must be a number of seconds"):
                    function(finish_within=wrong)
            with pytest.raises(ValueError, match="finish_within"):
                await both.session.shutdown(finish_within=wrong)
        assert await both.call("echo", b"alive") == b"alive"


# --- who asks, and what else may happen ---


@every_transport
async def test_from_a_handler_whose_answer_arrives(kind: str) -> None:
    """G12: A function that stops softly is in flight itself: it finishes, and its caller has the result."""

    async def leave(_args: bytes) -> bytes:
        assert await both.session.detach(finish_within=math.inf) == LOCAL
        await trio.lowlevel.checkpoint()
        return b"goodbye"

    async def leave_here(_args: bytes) -> bytes:
        assert await both.controller.disconnect(finish_within=math.inf) == LOCAL
        await trio.lowlevel.checkpoint()
        return b"goodbye"

    async with connected_ends(kind, wrappers={"leave": leave}) as both:
        assert await both.call("leave") == b"goodbye"
        assert (await both.controller.wait_disconnected()).kind is DisconnectKind.REMOTE_HANGUP
    async with connected_ends(kind, handlers={"leave_here": leave_here}) as both:
        assert await both.session.call_controller(both.symbols["leave_here"], b"") == b"goodbye"
        assert (await both.session.wait_detached()).kind is DisconnectKind.REMOTE_HANGUP


@every_transport
async def test_from_threads(kind: str) -> None:
    """G12: Threads stop softly through a portal, and wait for the end; one that runs a function does not."""
    gate = Gate()
    ends: list[Any] = []

    def threaded(_args: bytes) -> bytes:
        ends.append(portal.detach(finish_within=60))
        return b"goodbye"

    async with connected_ends(kind, wrappers={"gate": gate}, threaded={"threaded": threaded}) as both:
        portal = both.session.thread_portal()
        assert await both.call("threaded") == b"goodbye"
        assert ends == [LOCAL]
        assert await trio.to_thread.run_sync(lambda: portal.shutdown(finish_within=60)) == LOCAL
    async with connected_ends(kind, wrappers={"gate": gate}) as both:
        door = both.controller.thread_portal()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.call, "gate")
            await gate.wait_running(1)
            waiter = threading.Thread(target=lambda: ends.append(door.disconnect(finish_within=60)))
            waiter.start()
            while both.controller.statistics().state == "running":
                await trio.sleep(0.001)
            assert waiter.is_alive()
            gate.open.set()
        await trio.to_thread.run_sync(waiter.join)
    assert ends == [LOCAL, LOCAL]


@either_end
@every_transport
async def test_a_cancelled_waiter_leaves_it_going(kind: str, by: str) -> None:
    """G12: The soft stop is the connection's: it goes on when who asked for it is cancelled."""
    gate = Gate()

    async def call() -> None:
        assert await both.call("gate", b"it") == b"done with it"

    async with connected_ends(kind, wrappers={"gate": gate}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await gate.wait_running(1)
            with trio.CancelScope() as scope:
                scope.cancel()
                await stop(both, by, math.inf)
            assert scope.cancelled_caught
            await refused(both.call("gate"))
            gate.open.set()
        assert (await both.controller.wait_disconnected()).orderly


@every_transport
async def test_the_peer_may_vanish_meanwhile(kind: str) -> None:
    """G11, G12: What ends the connection during a soft stop is its cause."""
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.settle, Role.EXECUTOR)
        async with orc_trio.open_controller(here, orc_trio.HandlerRegistry()) as controller:

            async def call() -> None:
                with pytest.raises(DisconnectedError) as caught:
                    await controller.call_wrapper(1, b"")
                assert caught.value.reason.kind is DisconnectKind.EOF_WITHOUT_HANGUP

            nursery.start_soon(call)
            while controller.statistics().pending_calls == 0:
                await trio.lowlevel.checkpoint()
            assert controller.begin_disconnect(finish_within=math.inf) == LOCAL
            await raw.expect(Opcode.CALL)
            await raw.close()
            assert (await controller.wait_disconnected()).kind is DisconnectKind.EOF_WITHOUT_HANGUP


@either_end
@every_transport
async def test_before_and_after(kind: str, by: str) -> None:
    """G12, G20: Where nothing can be in flight a soft stop is like any other: after the end, and before it began."""
    async with connected_ends(kind) as both:
        end = await stop(both, by, math.inf)
        assert await stop(both, by, math.inf) == end
        assert await both.session.shutdown(finish_within=math.inf) == both.session.disconnect_reason
    async with orc_trio.open_session() as session:
        assert await session.detach(finish_within=math.inf) == LOCAL
        assert await session.shutdown(finish_within=math.inf) is None
    access = FakeAccess(connects=False)
    async with orc_trio.open_session() as session, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def attach() -> None:
            with pytest.raises(DisconnectedError):
                await attached(session, access)

        await access.running.wait()
        assert await session.detach(finish_within=math.inf) == LOCAL


async def test_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """G19: A soft stop logs nothing."""
    async with connected_ends("memory", wrappers={"echo": bytes}) as both:
        assert await both.call("echo", b"x") == b"x"
        await both.controller.disconnect(finish_within=1)
    assert quiet(caplog)


# --- the session ---


@every_transport
async def test_a_soft_shutdown(kind: str) -> None:
    """G22, G23, G24: A soft shutdown gives keepalives until the connection is over; then all is as always."""
    log: list[str] = []
    go = trio.Event()
    started = trio.Event()

    async def work(_args: bytes) -> bytes:
        started.set()
        await go.wait()
        with both.session.keepalive("late"):
            assert await both.session.call_controller(both.symbols["back"], b"") == b"ok"
        return b"worked"

    async def back(_args: bytes) -> bytes:
        assert await both.call("echo", b"deep") == b"deep"  # nested: it takes a keepalive there
        return b"ok"

    async def call() -> None:
        assert await both.call("work") == b"worked"
        log.append("call returned")

    async with connected_ends(kind, wrappers={"work": work, "echo": bytes}, handlers={"back": back}) as both:
        both.session.add_service(Recorder("first", log))
        both.session.add_service(Recorder("second", log))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await started.wait()
            nursery.start_soon(lambda: both.session.shutdown(finish_within=math.inf))
            while both.session.statistics().connection.state == "running":  # type: ignore[union-attr]
                await trio.lowlevel.checkpoint()
            assert both.session.state is SessionState.ATTACHED
            go.set()
        assert both.session.state is SessionState.SHUT_DOWN
    assert log[-4:] == ["first detached", "second detached", "second shut down", "first shut down"]


async def test_a_soft_shutdown_from_within() -> None:
    """G12, G24: A holder of a keepalive asks for a soft shutdown and does not wait; it comes."""
    async with connected_ends("memory") as both:
        with both.session.keepalive("held"):
            assert await both.session.shutdown(finish_within=math.inf) == LOCAL
        assert await both.session.shutdown() == LOCAL
        assert both.session.state is SessionState.SHUT_DOWN


async def test_a_shutdown_that_is_not_soft_comes_first() -> None:
    """G24: A plain shutdown does not wait for a soft one."""
    gate = Gate()
    async with connected_ends("memory", wrappers={"gate": gate}) as both:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(DisconnectedError):
                    await both.call("gate")

            await gate.wait_running(1)
            both.session.begin_shutdown(finish_within=math.inf)
            await both.session.shutdown()
    assert gate.left == ["cancelled"]


async def test_an_access_that_knows_no_soft_stop() -> None:
    """G12: An access of one's own that offers only the plain end ends at once; one that raises is at fault."""

    class Soft(FakeAccess):
        def begin_finish(self, within: float) -> orc_trio.DisconnectReason:
            raise ZeroDivisionError("soft")

    async with orc_trio.open_session() as session:
        await attached(session)
        assert await session.detach(finish_within=10) == LOCAL

    async def wrong() -> None:
        async with orc_trio.open_session() as session:
            await attached(session, Soft())
            await session.detach(finish_within=10)

    with pytest.raises(ZeroDivisionError, match="soft"):
        await wrong()


# --- handlers at the end ---

GRACE = orc_trio.Limits(handler_grace=3.0)


@either_end
@every_virtual
async def test_handlers_may_finish(kind: str, by: str, autojump_clock: trio.testing.MockClock) -> None:
    """G13, G14: With a grace, handlers that run at the latch go on to their end; nobody hears their answers."""
    log: list[str] = []

    async def work(_args: bytes) -> bytes:
        try:
            log.append("started")
            await trio.sleep(2)
            log.append("finished")
        except trio.Cancelled:
            log.append("cancelled")
            raise
        return b"unheard"

    async def call() -> None:
        with pytest.raises(DisconnectedError) as caught:
            await both.call("work")
        assert caught.value.certainty is Certainty.UNKNOWN
        log.append("call failed")

    async with connected_ends(kind, wrappers={"work": work}, executor_limits=GRACE) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while log == []:
                await trio.lowlevel.checkpoint()
            before = trio.current_time()
            await stop(both, by, 0)
            log.append(f"{by} is over")
            await both.session.wait_detached()
            assert trio.current_time() - before == pytest.approx(2)
            log.append("over")
    told = ["controller is over"] if by == "controller" else []
    assert [line for line in log if line != "session is over"] == ["started", "call failed", *told, "finished", "over"]


@every_virtual
async def test_the_grace_is_a_bound(
    kind: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """G13, G15: When its grace is over a handler is cancelled, and only one that goes on then is named in the log."""
    gate = Gate()

    async def call() -> None:
        with pytest.raises(DisconnectedError):
            await both.call("gate")

    async with connected_ends(kind, wrappers={"gate": gate}, executor_limits=GRACE) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await gate.wait_running(1)
            before = trio.current_time()
            await both.session.detach()
            assert trio.current_time() - before == pytest.approx(3)
    assert gate.left == ["cancelled"]
    assert quiet(caplog)


async def test_what_has_not_begun_does_not_begin_in_the_grace() -> None:
    """G13: A grace is for functions that run: one that waits for a thread, or has not been called, is not called."""
    began: list[int] = []
    release = threading.Event()
    limits = orc_trio.Limits(handler_grace=60.0, max_calls=50)

    def block(_args: bytes) -> bytes:
        began.append(1)
        release.wait(60)
        return b""

    async def call() -> None:
        with pytest.raises(DisconnectedError):
            await both.call("block")

    async with connected_ends("memory", threaded={"block": block}, executor_limits=limits) as both:
        async with trio.open_nursery() as nursery:
            for _ in range(45):
                nursery.start_soon(call)
            while len(began) < 40:  # as many as there are threads
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked()
            both.session.begin_detach()
            release.set()
            assert await both.session.wait_detached() == LOCAL
        assert both.session.statistics().running_wrappers == ()
    assert len(began) == 40
