# G11 to G19: what holds for the end of a connection, on every transport; at the controller.

from __future__ import annotations

import gc
import logging
import socket
import struct
import threading
import types
import weakref
from contextlib import suppress
from typing import Any

import cbor2
import pytest
import trio
import trio.testing

import orc_trio
from harness import (
    TAG,
    FaultyStream,
    RawPeer,
    call_message,
    cancelled_everywhere,
    collect,
    connected_ends,
    connected_pair,
    controller_and_raw,
    every_stream,
    every_transport,
    every_virtual,
    nothing_left,
    quiet,
    result_message,
)
from orc_trio import Certainty, DisconnectKind
from orc_trio.protocol import Role
from orc_trio.wire import Message, Opcode, encode

LOCAL = orc_trio.DisconnectReason(DisconnectKind.LOCAL_HANGUP)


async def echo(args: bytes) -> bytes:
    return args


# --- G11 ---


@every_transport
async def test_one_cause_one_end(kind: str) -> None:
    """G11: The cause is carried by every call it failed; the end is told once, and returned by every disconnect."""
    causes, ends = [], []

    async def call() -> None:
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await both.call("forever")
        causes.append(caught.value.reason)

    async def forever(_args: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def disconnect() -> None:
        ends.append(await both.controller.disconnect())

    async with connected_ends(kind, wrappers={"forever": forever}) as both:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
            while both.controller.statistics().pending_calls < 5:
                await trio.lowlevel.checkpoint()
            for _ in range(5):
                nursery.start_soon(disconnect)
        assert await both.controller.disconnect() == LOCAL
        assert (await both.session.wait_detached()).kind is DisconnectKind.REMOTE_HANGUP
    assert causes == [LOCAL] * 5
    assert ends == [LOCAL] * 5
    assert both.told == [LOCAL]
    assert both.controller.disconnect_reason == LOCAL


@every_transport
async def test_both_ends_at_once_each_see_their_own(kind: str) -> None:
    """G11: When both hang up at once, each end sees its own hang-up."""
    async with connected_ends(kind) as both:
        both.controller.begin_disconnect()
        both.session.begin_detach()
        assert await both.controller.disconnect() == LOCAL
        assert await both.session.wait_detached() == LOCAL


@every_transport
async def test_the_peer_vanishes(kind: str) -> None:
    """G11, G17: A peer that closes without a hang-up is noticed at once, and never "closed cleanly"."""
    async with controller_and_raw(kind) as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(orc_trio.DisconnectedError) as caught:
                    await controller.call_wrapper(1, b"")
                assert caught.value.reason.kind is DisconnectKind.EOF_WITHOUT_HANGUP
                assert caught.value.certainty is Certainty.UNKNOWN

            await raw.expect(Opcode.CALL)
            await raw.close()
        reason = await controller.wait_disconnected()
        assert reason.kind is DisconnectKind.EOF_WITHOUT_HANGUP
        assert not reason.orderly


@every_stream
async def test_the_stream_ends_inside_a_message(kind: str) -> None:
    """G11: An end inside a message says so."""
    async with controller_and_raw(kind) as (controller, raw):
        await raw.send_bytes(b"\x5a\x00\x00\x00")
        await raw.close()
        assert str(await controller.wait_disconnected()) == ("end of stream without a hang-up: inside a message")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_peer_that_closes_with_unread_input(kind: str, goodbye: bool) -> None:
    """G11, G16: A peer that closes with unread input resets the connection; a hang-up it sent still counts."""

    async def call() -> None:
        with pytest.raises(orc_trio.DisconnectedError):
            await controller.call_wrapper(1, bytes(1000))

    async with controller_and_raw(kind) as (controller, raw):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while controller.statistics().pending_calls < 1 or controller.statistics().queued_messages:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.01)
            if goodbye:
                await raw.hang_up()
            await raw.close()
        reason = await controller.wait_disconnected()
        if goodbye:
            assert reason.kind is DisconnectKind.REMOTE_HANGUP
        else:
            assert reason.kind is DisconnectKind.TRANSPORT_ERROR
            assert "reset" in reason.detail


async def test_a_tcp_reset_is_a_transport_error() -> None:
    """G11: A connection that was reset says that."""
    async with controller_and_raw("tcp") as (controller, raw):
        raw.end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await raw.close()
        reason = await controller.wait_disconnected()
        assert reason.kind is DisconnectKind.TRANSPORT_ERROR
        assert "reset" in str(reason)


@every_transport
async def test_an_error_in_the_peers_hang_up(kind: str) -> None:
    """G11: A hang-up with a reason ends as REMOTE_ERROR, the peer's reason in the detail, on one line."""
    async with controller_and_raw(kind) as (controller, raw):
        payload = cbor2.dumps({"kind": "internal error", "detail": "disk\nfull\x1b[2J"})
        await raw.send(Message(Opcode.HANG_UP, payload=payload))
        await raw.read_to_the_end()
        reason = await controller.wait_disconnected()
        assert reason.kind is DisconnectKind.REMOTE_ERROR
        assert reason.detail == r"internal error: disk\nfull\x1b[2J"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, type("Odd", (BaseException,), {})])
@pytest.mark.parametrize("how", ["async", "sync", "threaded", "group"])
async def test_an_interrupt_in_a_handler(interrupt: type[BaseException], how: str) -> None:
    """G11: A BaseException from a handler ends the connection as INTERNAL_ERROR and is raised to the owner."""

    async def grouped(_args: bytes) -> bytes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise interrupt("secret")

    async def in_task(_args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        raise interrupt("secret")

    def plain(_args: bytes) -> bytes:
        raise interrupt("secret")

    handler: Any = {"async": in_task, "group": grouped}.get(how, plain)
    told: list[orc_trio.DisconnectReason] = []
    with pytest.raises(BaseException) as caught:  # noqa: PT011, PT012
        async with controller_and_raw(
            "memory", handler=handler, threaded=how == "threaded", on_disconnect=told.append
        ) as (_, raw):
            await raw.send(call_message(1, TAG))
            bye = await raw.goodbye()
            await trio.sleep_forever()
    assert _contains(caught.value, interrupt)
    assert [reason.kind for reason in told] == [DisconnectKind.INTERNAL_ERROR]
    assert b"secret" not in bye.payload
    assert b"internal error" in bye.payload


def _contains(exc: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return any(_contains(each, kind) for each in exc.exceptions)
    return isinstance(exc, kind)


async def test_several_interrupts_are_all_raised() -> None:
    """G11: When several handlers raise a BaseException, none is lost."""
    ready = trio.Event()

    async def handler(args: bytes) -> bytes:
        try:
            await ready.wait()
        finally:
            if args == b"first":
                raise KeyboardInterrupt
            raise SystemExit(5)
        raise AssertionError

    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with controller_and_raw("memory", handler=handler) as (_, raw):
            await raw.send(call_message(1, TAG, b"first"), call_message(2, TAG, b"second"))
            await trio.testing.wait_all_tasks_blocked()
            ready.set()
            await raw.goodbye()
            await trio.sleep_forever()
    assert _contains(caught.value, KeyboardInterrupt)
    assert _contains(caught.value, SystemExit)


async def test_a_raising_callback() -> None:
    """G11: What on_disconnect raises is raised to the owner, and everyone is still told the end."""

    def on_disconnect(_reason: orc_trio.DisconnectReason) -> None:
        raise LookupError("no")

    controller = None
    with pytest.RaisesGroup(LookupError, flatten_subgroups=True):
        async with controller_and_raw("memory", on_disconnect=on_disconnect) as (controller, _raw):
            pass
    assert controller is not None
    assert controller.disconnect_reason == LOCAL


async def test_a_stray_cancelled_is_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """G11: A Cancelled that a handler kept from elsewhere and raises again fails its call, and nothing else."""
    kept: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            kept.append(exc)

    async def handler(args: bytes) -> bytes:
        if args == b"alone":
            raise kept[0]
        if args == b"group":
            raise BaseExceptionGroup("several", kept)
        return args

    async with controller_and_raw("memory", handler=handler) as (controller, raw):
        for seq, args in enumerate([b"alone", b"group"], 1):
            await raw.send(call_message(seq, TAG, args))
            assert b"HandlerFailed" in (await raw.expect(Opcode.RESULT)).payload
        await raw.send(call_message(3, TAG, b"fine"))
        assert (await raw.expect(Opcode.RESULT)).payload == b"fine"
        assert controller.disconnect_reason is None
    assert len(caplog.records) == 2


# --- G12 ---


@every_transport
async def test_disconnect_from_everywhere_at_once(kind: str) -> None:
    """G12: Tasks and threads that disconnect at once all return in the terminal state, with the same end."""
    ends: list[Any] = []

    async def disconnect() -> None:
        ends.append(await both.controller.disconnect())
        assert both.controller.statistics().state == "closed"

    def from_thread() -> None:
        ends.append(portal.disconnect())

    async with connected_ends(kind, wrappers={"echo": echo}) as both:
        portal = both.controller.thread_portal()
        threads = [threading.Thread(target=from_thread) for _ in range(3)]  # threads that Trio did not start
        for thread in threads:
            thread.start()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(disconnect)
            for _ in range(3):
                nursery.start_soon(trio.to_thread.run_sync, from_thread)
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
        await disconnect()
    await disconnect()
    from_thread_after = await trio.to_thread.run_sync(portal.disconnect)
    assert ends == [LOCAL] * 28
    assert from_thread_after == LOCAL
    assert both.told == [LOCAL]


async def test_disconnect_after_the_run() -> None:
    """G12: After the Trio run has ended a thread can still ask, and a call says that there is no connection."""
    # Another run, in a thread: the portal outlives it.
    portals: list[orc_trio.ControllerPortal] = []

    async def main() -> None:
        async with connected_ends("memory") as both:
            portals.append(both.controller.thread_portal())

    def run() -> tuple[Any, Any]:
        trio.run(main)
        with pytest.raises(orc_trio.NoControllerError):
            portals[0].call_wrapper(1, b"")
        return portals[0].disconnect(), portals[0].disconnect()

    assert await trio.to_thread.run_sync(run) == (LOCAL, LOCAL)


@every_transport
async def test_a_handler_that_disconnects_does_not_wait_for_itself(kind: str) -> None:
    """G12: A handler, its child task, or its thread that disconnects starts it and gets the cause."""
    got: list[Any] = []

    async def child() -> None:
        with trio.CancelScope(shield=True):
            got.append(await controller.disconnect())

    async def handler(args: bytes) -> bytes:
        match args:
            case b"self":
                with trio.CancelScope(shield=True):
                    got.append(await controller.disconnect())
            case b"child":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)
            case b"thread":
                with trio.CancelScope(shield=True):
                    got.append(await trio.to_thread.run_sync(portal.disconnect))
        return b""

    for who in (b"self", b"child", b"thread"):
        async with controller_and_raw(kind, handler=handler) as (controller, raw):
            portal = controller.thread_portal()
            await raw.send(call_message(1, TAG, who))
            await raw.goodbye()
            assert await controller.wait_disconnected() == LOCAL
    assert got == [LOCAL] * 3


@every_virtual
async def test_a_handler_disconnects_while_others_wait(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G12: A handler that disconnects while others wait for the end gets the cause at once, and holds up nobody."""
    got: list[Any] = []

    async def handler(_args: bytes) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(60, shield=True):
                got.append(await controller.disconnect())
        raise AssertionError

    async def disconnect() -> None:
        assert await controller.disconnect() == LOCAL

    async with controller_and_raw(kind, handler=handler) as (controller, raw):
        await raw.send(call_message(1, TAG))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.goodbye)
            nursery.start_soon(disconnect)
            nursery.start_soon(disconnect)
        assert trio.current_time() == began
    assert got == [LOCAL]


async def test_a_handler_that_disconnects_is_cancelled_there() -> None:
    """G12: A handler that disconnects and does not shield itself is cancelled at that moment."""
    went_on = []

    async def handler(_args: bytes) -> bytes:
        await controller.disconnect()
        went_on.append(1)
        return b""

    async with controller_and_raw("memory", handler=handler) as (controller, raw):
        await raw.send(call_message(1, TAG))
        await raw.goodbye()
        assert await controller.wait_disconnected() == LOCAL
    assert went_on == []


async def test_a_threaded_handler_that_disconnects() -> None:
    """G12: A thread that runs a handler gets the cause at once, and the end does not wait for it."""
    got: list[Any] = []
    done = threading.Event()

    def handler(_args: bytes) -> bytes:
        got.append(portal.disconnect())
        done.set()
        return b""

    async with controller_and_raw("unix", handler=handler, threaded=True) as (controller, raw):
        portal = controller.thread_portal()
        await raw.send(call_message(1, TAG))
        await raw.goodbye()
        assert await controller.wait_disconnected() == LOCAL
    await trio.to_thread.run_sync(done.wait)
    assert got == [LOCAL]


async def test_a_disconnect_from_the_callback() -> None:
    """G12: The on_disconnect callback may ask for the disconnect too, and gets the cause."""
    got: list[Any] = []

    async with controller_and_raw("memory", on_disconnect=lambda _: got.append(controller.begin_disconnect())) as (
        controller,
        _raw,
    ):
        pass
    assert got == [LOCAL]


@every_virtual
async def test_a_cancelled_waiter_leaves_the_disconnect_running(kind: str) -> None:
    """G12: A task that is cancelled while it waits for the end does not stop it; nobody else is disturbed."""
    async with controller_and_raw(kind, frozen=True) as (controller, raw):
        with trio.move_on_after(0.01) as scope:
            await controller.disconnect()
        assert scope.cancelled_caught
        assert controller.statistics().state == "draining"
        await raw.expect(Opcode.HANG_UP)
        await raw.hang_up()
        await raw.close()
        assert await controller.disconnect() == LOCAL


@every_transport
async def test_a_disconnect_cancelled_everywhere(kind: str) -> None:
    """G12: Cancelled at any suspension, a disconnect goes on to its end."""
    ends: list[Any] = []
    current: list[Any] = []

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True):
                started = trio.Event()
                nursery.start_soon(background, started)
                await started.wait()
            await current[-1].disconnect()

    async def background(started: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            async with connected_ends(kind) as both:
                current.append(both.controller)
                started.set()
                ends.append(await both.controller.wait_disconnected())

    async def check() -> None:
        assert ends[-1] == LOCAL

    assert await cancelled_everywhere(scenario, check) >= 2


async def test_portals_refuse_the_trio_thread() -> None:
    """G12: A portal's methods raise RuntimeError on the Trio thread."""
    async with connected_ends("memory") as both:
        portal = both.controller.thread_portal()
        with pytest.raises(RuntimeError, match="await"):
            portal.disconnect()
        with pytest.raises(RuntimeError, match="await"):
            portal.call_wrapper(1, b"")


# --- G13 ---


@every_transport
async def test_the_terminal_state(kind: str) -> None:
    """G13: When a disconnect returns, no handler is running, their finally blocks have run, and all is released."""
    running: set[int] = set()

    async def handler(args: bytes) -> bytes:
        number = args[0]
        running.add(number)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.005 * number)
            running.discard(number)
        raise AssertionError

    with nothing_left():
        async with controller_and_raw(kind, handler=handler) as (controller, raw):
            await raw.send(*(call_message(seq, TAG, bytes([seq])) for seq in range(1, 11)))
            while len(running) < 10:
                await trio.sleep(0.001)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(raw.goodbye)
                assert await controller.disconnect() == LOCAL
            assert running == set()
            counts = controller.statistics()
            assert counts == orc_trio.ConnectionStatistics(state="closed")
            with pytest.raises(orc_trio.NoControllerError):
                await controller.call_wrapper(1, b"")


@every_transport
async def test_no_handler_starts_after_the_latch(kind: str) -> None:
    """G13: Calls that come with a hang-up, or after the latch, start nothing."""
    ran = []

    def handler(args: bytes) -> bytes:
        ran.append(args)
        return args

    async with controller_and_raw(kind, handler=handler) as (controller, raw):
        hang_up = Message(Opcode.HANG_UP, payload=b"\xf6")
        await raw.send(*(call_message(seq, TAG) for seq in range(1, 30)), hang_up)
        await raw.read_to_the_end()
        await controller.wait_disconnected()
        before = list(ran)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert ran == before == []


async def test_threads_that_did_not_start_do_not() -> None:
    """G13: A threaded call that waits for a thread when the latch falls never starts."""
    release = threading.Event()
    ran = []

    def handler(args: bytes) -> bytes:
        ran.append(args)
        release.wait(10)
        return b""

    async with controller_and_raw("unix", handler=handler, threaded=True) as (controller, raw):
        controller._dispatcher._limiter.total_tokens = 2
        await raw.send(*(call_message(seq, TAG) for seq in range(1, 6)))
        while len(ran) < 2:
            await trio.sleep(0.001)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.goodbye)
            await controller.disconnect()
        assert controller.statistics().running_handlers == ("handler", "handler")
        release.set()
        while controller.statistics().running_handlers:
            await trio.sleep(0.001)
    assert len(ran) == 2


# --- G14 ---


@every_virtual
async def test_the_order_of_the_end(kind: str) -> None:
    """G14: Pending calls settle in the order they were made; handlers end; the hang-up is last; then on_disconnect."""
    order: list[str] = []
    made: list[str] = []
    settled: list[str] = []

    class Watch(trio.abc.Instrument):
        def task_scheduled(self, task: trio.lowlevel.Task) -> None:
            if task.name.startswith("call "):
                settled.append(task.name)

    async def handler(_args: bytes) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            order.append("handler")
        raise AssertionError

    async def call(number: int) -> None:
        made.append(f"call {number}")
        with pytest.raises(orc_trio.DisconnectedError):
            await controller.call_wrapper(number, b"")
        order.append("call")

    async with controller_and_raw(kind, handler=handler, on_disconnect=lambda _: order.append("told")) as (
        controller,
        raw,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(call, number, name=f"call {number}")
            await raw.send(call_message(1, TAG))
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(Watch())
            async with trio.open_nursery() as inner:
                inner.start_soon(raw.goodbye)
                await controller.disconnect()
                order.append("disconnected")
    assert len(made) == 5
    assert settled == made
    assert sorted(order[:6]) == ["call"] * 5 + ["handler"]
    assert order[6:] == ["told", "disconnected"]


@every_transport
async def test_after_the_latch_input_is_read_and_dropped(kind: str) -> None:
    """G14: After the latch what comes is read to the end and dropped, whatever it is; only a hang-up counts."""
    ran: list[bytes] = []

    def handler(args: bytes) -> bytes:
        ran.append(args)
        return args

    async with controller_and_raw(kind, handler=handler) as (controller, raw):
        controller.begin_disconnect()
        await raw.expect(Opcode.HANG_UP)
        bad_setup = Message(Opcode.SETUP, payload=b"\x00")
        await raw.send(call_message(1, TAG), call_message(1, TAG), result_message(99), Message(20), bad_setup)
        await raw.hang_up()
        assert await controller.wait_disconnected() == LOCAL
        assert ran == []
        assert controller.statistics().served_calls == 0


@every_transport
async def test_half_closed_behind_the_hang_up(kind: str) -> None:
    """G14, G16: Behind the hang-up our side of the stream is closed, while we still read for the answer."""
    async with controller_and_raw(kind) as (controller, raw):
        controller.begin_disconnect()
        await raw.expect(Opcode.HANG_UP)
        await raw.expect_end()
        assert controller.disconnect_reason is None
        await raw.hang_up()
        assert await controller.wait_disconnected() == LOCAL


# --- G15 ---


def limits(**more: Any) -> orc_trio.Limits:
    return orc_trio.Limits(**{"max_message": 64 * 1024, "max_bytes": 512 * 1024, "drain_timeout": 0.1} | more)


@every_transport
async def test_a_frozen_peer_does_not_hold_a_disconnect(kind: str) -> None:
    """G15: With a peer that reads nothing and full buffers, a disconnect ends within the bound, as DRAIN_TIMEOUT."""
    errors = []

    async def call() -> None:
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await controller.call_wrapper(1, bytes(64 * 1024))
        errors.append(caught.value.reason)

    with nothing_left():
        async with controller_and_raw(kind, limits=limits(), frozen=True) as (controller, _raw):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked(0.01)
                began = trio.current_time()
                reason = await controller.disconnect()
                assert 0.09 < trio.current_time() - began < 5
    assert reason.kind is DisconnectKind.DRAIN_TIMEOUT
    assert reason.cause == LOCAL
    assert not reason.orderly
    assert errors == [LOCAL] * 20


@every_virtual
async def test_a_flooding_peer_does_not_hold_a_disconnect(kind: str) -> None:
    """G15: A peer that sends without end and never says goodbye is given up at the bound."""

    async def flood() -> None:
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):  # noqa: PT012
            while True:
                await raw.send(*[Message(Opcode.PONG)] * 100)
                await trio.sleep(0.001)

    async with controller_and_raw(kind, limits=limits(), frozen=True) as (controller, raw):
        controller.begin_disconnect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            assert (await controller.disconnect()).kind is DisconnectKind.DRAIN_TIMEOUT
            if kind == "memory":
                nursery.start_soon(raw.close)


@pytest.mark.parametrize("kind", ["memory", "inprocess"])
async def test_the_bound_counts_from_the_latch(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G15: The bound covers everything from the latch to the close, and is the one that was set."""
    async with controller_and_raw(kind, limits=limits(drain_timeout=7.0), frozen=True) as (controller, _raw):
        began = trio.current_time()
        assert (await controller.disconnect()).kind is DisconnectKind.DRAIN_TIMEOUT
        assert trio.current_time() - began == pytest.approx(7.0)


async def test_a_latch_before_the_first_step_is_bounded_too(autojump_clock: trio.testing.MockClock) -> None:
    """G15: An owner that is cancelled before the connection made its first step is not held by a frozen peer."""
    for _ in range(20):  # the first step of either task may come first
        here, there = await connected_pair("inprocess")
        began = trio.current_time()
        with trio.move_on_after(0) as scope:
            async with orc_trio.open_controller(here, orc_trio.HandlerRegistry(), limits=limits(drain_timeout=3)):
                raise AssertionError
        assert scope.cancelled_caught
        assert trio.current_time() - began <= 3.001
        await there.aclose()


@every_transport
async def test_the_hang_up_has_a_reserved_place(kind: str) -> None:
    """G15: A full queue does not keep the hang-up out, if the peer takes what was begun."""
    async with controller_and_raw(kind, limits=limits(drain_timeout=10.0), frozen=True) as (controller, raw):
        async with trio.open_nursery() as nursery:
            for _ in range(20):

                @nursery.start_soon
                async def call() -> None:
                    with pytest.raises(orc_trio.DisconnectedError):
                        await controller.call_wrapper(1, bytes(64 * 1024))

            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(controller.disconnect)
            await raw.goodbye()
        assert controller.disconnect_reason == LOCAL


@every_virtual
async def test_a_queue_full_of_results_and_the_hang_up(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G4, G15: Results fill the queue and wait for room when the latch falls: they all go out, the hang-up behind."""
    blocked = trio.Event()

    def wrap(end: Any) -> Any:
        return end if kind == "inprocess" else FaultyStream(end)

    async with controller_and_raw(
        kind, handler=lambda _args: bytes(64 * 1024), limits=limits(max_bytes=128 * 1024, drain_timeout=10), wrap=wrap
    ) as (controller, raw):
        if kind == "memory":  # it would take everything
            controller._connection._transport.stream.blocked = blocked  # type: ignore[attr-defined]
        await raw.send(*(call_message(seq, TAG) for seq in range(1, 9)))
        await trio.testing.wait_all_tasks_blocked()
        assert controller.statistics().waiting_results > 0
        controller.begin_disconnect()
        blocked.set()
        for _ in range(8):
            await raw.expect(Opcode.RESULT)
        assert (await raw.expect(Opcode.HANG_UP)).aux == 8
        await raw.hang_up()
        assert await controller.wait_disconnected() == LOCAL


@every_virtual
async def test_a_handler_that_shields_itself_is_named(
    kind: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """G15: Our own handler that shields itself delays the end; after the bound it is logged by name."""

    async def handler(_args: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        return b""

    async with controller_and_raw(kind, handler=handler, limits=limits(drain_timeout=2)) as (controller, raw):
        await raw.send(call_message(1, TAG))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.goodbye)
            began = trio.current_time()
            assert await controller.disconnect() == LOCAL
            assert trio.current_time() - began >= 20 - 2
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "handlers hold up the end of the connection: handler"


# --- G16 ---


@every_stream
async def test_a_failed_send_lets_the_reader_decide(kind: str) -> None:
    """G16: A failed send does not latch; the peer's hang-up that is still to be read decides the cause."""
    streams: list[FaultyStream] = []

    def wrap(end: Any) -> FaultyStream:
        streams.append(FaultyStream(end))
        return streams[-1]

    async with controller_and_raw(kind, wrap=wrap) as (controller, raw):
        streams[0].fail_send = trio.BrokenResourceError("gone")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(orc_trio.DisconnectedError) as caught:
                    await controller.call_wrapper(1, b"")
                assert caught.value.reason.kind is DisconnectKind.REMOTE_ERROR

            await trio.testing.wait_all_tasks_blocked(0.01)
            assert controller.disconnect_reason is None
            assert controller.statistics().state == "running"
            await raw.send(Message(Opcode.HANG_UP, payload=cbor2.dumps({"kind": "bad", "detail": "why"})))
        assert str(await controller.wait_disconnected()) == "remote error: bad: why"


@pytest.mark.parametrize("error", [trio.BrokenResourceError("gone"), OSError(5, "I/O"), trio.ClosedResourceError()])
async def test_a_failed_send_with_nothing_to_read(error: Exception, autojump_clock: trio.testing.MockClock) -> None:
    """G16: If the reader finds nothing within the bound, the failed send is the cause."""
    streams: list[FaultyStream] = []

    def wrap(end: Any) -> FaultyStream:
        streams.append(FaultyStream(end))
        return streams[-1]

    async with controller_and_raw("memory", wrap=wrap, limits=limits(drain_timeout=3), frozen=True) as (controller, _):
        streams[0].fail_send = error
        began = trio.current_time()
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await controller.call_wrapper(1, b"")
        assert caught.value.reason.kind is DisconnectKind.TRANSPORT_ERROR
        assert "sending failed" in caught.value.reason.detail
        end = await controller.wait_disconnected()
        assert trio.current_time() - began <= 6.001
        assert caught.value.reason in (end, end.cause)


async def test_a_failing_receive_is_a_transport_error() -> None:
    """G16: A receive that fails is the cause, with its words."""
    streams: list[FaultyStream] = []

    def wrap(end: Any) -> FaultyStream:
        streams.append(FaultyStream(end))
        streams[-1].most = 10_000
        return streams[-1]

    for error in (OSError(104, "it was reset"), trio.BrokenResourceError("it was reset")):
        async with controller_and_raw("memory", wrap=wrap) as (controller, raw):
            streams[-1].fail_receive = error
            await raw.send(Message(Opcode.PING, aux=1))
            reason = await controller.wait_disconnected()
            assert reason.kind is DisconnectKind.TRANSPORT_ERROR
            assert "it was reset" in reason.detail


@every_transport
async def test_whoever_receives_a_hang_up_answers_it(kind: str) -> None:
    """G16: A hang-up is answered with a hang-up, and then the stream ends."""
    async with controller_and_raw(kind) as (controller, raw):
        await raw.hang_up()
        assert (await raw.expect(Opcode.HANG_UP)).payload == b"\xf6"
        await raw.expect_end()
        assert (await controller.wait_disconnected()).kind is DisconnectKind.REMOTE_HANGUP


@every_transport
async def test_reasons_arrive_with_input_unread(kind: str) -> None:
    """G16: What we say to a peer that broke the protocol arrives, although we stop acting on what it sends."""
    async with controller_and_raw(kind, frozen=True) as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def talk() -> None:
                await raw.send(Message(20), *(call_message(seq, TAG, bytes(1000)) for seq in range(1, 900)))

            bye = await raw.expect(Opcode.HANG_UP)
            assert b"unknown opcode 20" in bye.payload
        await raw.hang_up()
        await raw.close()
        assert (await controller.wait_disconnected()).kind is DisconnectKind.PROTOCOL_VIOLATION


@pytest.mark.parametrize("where", ["fail_eof", "fail_close"])
async def test_a_stream_that_fails_to_close(where: str) -> None:
    """G16, G18: A failing half-close or close changes nothing about the end."""
    streams: list[FaultyStream] = []

    def wrap(end: Any) -> FaultyStream:
        streams.append(FaultyStream(end))
        return streams[-1]

    async with controller_and_raw("memory", wrap=wrap) as (controller, raw):
        setattr(streams[0], where, trio.BrokenResourceError("odd"))
        await raw.hang_up()
        assert (await controller.wait_disconnected()).kind is DisconnectKind.REMOTE_HANGUP


async def test_a_stream_with_a_bug() -> None:
    """G11: A stream that raises what no stream should is an INTERNAL_ERROR, and raised to the owner."""
    for where in ("fail_send", "fail_receive", "fail_close"):
        streams: list[FaultyStream] = []

        def wrap(end: Any, streams: list[FaultyStream] = streams) -> FaultyStream:
            streams.append(FaultyStream(end))
            return streams[-1]

        with pytest.RaisesGroup(LookupError, flatten_subgroups=True):
            async with controller_and_raw("memory", wrap=wrap, limits=limits()) as (_controller, raw):
                setattr(streams[0], where, LookupError("bug"))
                await raw.send(Message(Opcode.PING, aux=1))
                await trio.sleep(0.05)


@every_stream
async def test_a_half_closed_peer_still_hears(kind: str) -> None:
    """G16: A peer that half-closes without a hang-up has ended, and still hears our hang-up."""
    async with controller_and_raw(kind) as (controller, raw):
        await raw.transport.send_eof()
        await raw.expect(Opcode.HANG_UP)
        assert (await controller.wait_disconnected()).kind is DisconnectKind.EOF_WITHOUT_HANGUP


# --- G17 ---


def living(seconds: float) -> orc_trio.Limits:
    return orc_trio.Limits(liveness_timeout=seconds, drain_timeout=1)


@every_virtual
async def test_a_frozen_peer_is_noticed(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G17: With the check on, a silent peer is given up within the bound, not before three quarters of it."""
    async with controller_and_raw(kind, limits=living(8), frozen=True) as (controller, _raw):
        began = trio.current_time()
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await controller.call_wrapper(1, b"")
        assert 6 <= trio.current_time() - began <= 8.1
        assert caught.value.reason.kind is DisconnectKind.LIVENESS_TIMEOUT
        assert (await controller.wait_disconnected()).kind is DisconnectKind.DRAIN_TIMEOUT


@every_virtual
async def test_an_idle_peer_that_answers_pings_lives(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G17: An idle connection between two living ends lives, with the check on at one end or both."""
    for executor_limits in (living(4), orc_trio.Limits()):
        async with connected_ends(
            kind, wrappers={"echo": echo}, limits=living(4), executor_limits=executor_limits
        ) as both:
            await trio.sleep(300)
            assert await both.call("echo", b"x") == b"x"


@every_virtual
async def test_a_busy_handler_does_not_look_dead(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G17: A peer whose handler takes longer than the bound does not look dead."""

    async def slow(_args: bytes) -> bytes:
        await trio.sleep(100)
        return b"done"

    async with connected_ends(kind, wrappers={"slow": slow}, limits=living(4)) as both:
        assert await both.call("slow") == b"done"


async def test_a_trickling_stream_does_not_look_dead(autojump_clock: trio.testing.MockClock) -> None:
    """G17: Any inbound byte counts as life: a message that takes longer than the bound to come does not look dead."""
    async with controller_and_raw("memory", handler=echo, limits=living(4)) as (controller, raw):
        for byte in encode(call_message(1, TAG, b"slowly")):
            await trio.sleep(0.9)
            await raw.send_bytes(bytes([byte]))
        while (message := await raw.receive()) is not None and message.opcode == Opcode.PING:
            pass
        assert message is not None
        assert message.payload == b"slowly"
        assert controller.disconnect_reason is None


async def test_progress_of_our_own_send_counts(autojump_clock: trio.testing.MockClock) -> None:
    """G17: A peer that says nothing but takes a long message, piece by piece, does not look dead."""

    class Slow(FaultyStream):
        async def send_all(self, data: Any) -> None:
            await trio.sleep(len(data) / 64 / 1024)
            await super().send_all(data)

    async with controller_and_raw("memory", limits=living(4), wrap=Slow) as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await controller.call_wrapper(1, bytes(2 * 1024 * 1024)) == b"done"

            message = await raw.expect(Opcode.CALL)
            await raw.send(result_message(message.seq, b"done"))
        assert trio.current_time() > 30


async def test_our_own_standstill_is_not_the_peers(mock_clock: trio.testing.MockClock) -> None:
    """G17: After our own event loop stood still, what the peer sent meanwhile is read before it is judged."""
    async with connected_ends("memory", wrappers={"echo": echo}, limits=living(4)) as both:
        for _ in range(10):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(100)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
        assert await both.call("echo", b"x") == b"x"


# --- G18 ---


@every_transport
async def test_cancelling_the_owner_says_goodbye(kind: str) -> None:
    """G18: Cancelling the owner says goodbye, bounded and shielded, and Cancelled goes on."""
    async with trio.open_nursery() as nursery:
        here, there = await connected_pair(kind)
        raw = RawPeer(there)
        told: list[orc_trio.DisconnectReason] = []
        scope = trio.CancelScope()

        @nursery.start_soon
        async def owner() -> None:
            with scope:
                async with orc_trio.open_controller(here, orc_trio.HandlerRegistry(), on_disconnect=told.append):
                    await trio.sleep_forever()
            assert scope.cancelled_caught

        await raw.settle(Role.EXECUTOR)
        await trio.testing.wait_all_tasks_blocked(0.01)
        scope.cancel()
        await raw.goodbye()
    assert [reason.kind for reason in told] == [DisconnectKind.OWNER_CANCELLED]


@every_transport
async def test_open_controller_cancelled_everywhere(kind: str) -> None:
    """G18, G19: Cancelled at any suspension of its life, a controller ends, closes everything, and leaves no task."""
    ends: list[Any] = []

    async def executor(raw: RawPeer) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
            await raw.settle(Role.EXECUTOR)
            call = await raw.expect(Opcode.CALL)
            await raw.send(result_message(call.seq, b"x"))
            await raw.goodbye()
        await raw.close()

    async def scenario() -> None:
        with trio.CancelScope(shield=True):
            here, there = await connected_pair(kind)
            nursery.start_soon(executor, RawPeer(there))
        async with orc_trio.open_controller(here, orc_trio.HandlerRegistry(), on_disconnect=ends.append) as controller:
            assert await controller.call_wrapper(1, b"") == b"x"
            await controller.disconnect()

    async def check() -> None:
        while nursery.child_tasks:
            await trio.lowlevel.checkpoint()
        assert ends.pop().kind in (DisconnectKind.LOCAL_HANGUP, DisconnectKind.OWNER_CANCELLED)

    before = trio.lowlevel.current_statistics().tasks_living
    with nothing_left():
        async with trio.open_nursery() as nursery:
            assert await cancelled_everywhere(scenario, check) >= 4
    assert ends == []
    assert trio.lowlevel.current_statistics().tasks_living == before


@every_virtual
async def test_the_bodys_exception_leaves_unwrapped(kind: str) -> None:
    """G18: The body's own exception leaves open_controller unwrapped."""
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def peer() -> None:
            await raw.settle(Role.EXECUTOR)
            await raw.goodbye()

        with pytest.raises(LookupError, match="mine"):
            async with orc_trio.open_controller(here, orc_trio.HandlerRegistry()):
                raise LookupError("mine")


async def test_a_frozen_peer_does_not_hold_a_cancelled_owner(autojump_clock: trio.testing.MockClock) -> None:
    """G18: The goodbye of a cancelled owner is bounded."""
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        with trio.move_on_after(2) as scope:
            async with controller_and_raw("inprocess", limits=limits(drain_timeout=3), frozen=True):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() - began == pytest.approx(5)
        nursery.cancel_scope.cancel()


# --- G19 ---


@every_transport
async def test_a_clean_shutdown_is_quiet(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """G19: A clean shutdown logs nothing and leaves no task, descriptor or thread."""
    caplog.set_level(logging.INFO)
    before = trio.lowlevel.current_statistics().tasks_living
    with nothing_left():
        async with connected_ends(kind, wrappers={"echo": echo}) as both:
            await both.call("echo", bytes(200_000))
    assert quiet(caplog)
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.parametrize("ending", ["disconnect", "drain timeout", "violation", "vanish"])
async def test_nothing_is_held_after_the_end(ending: str) -> None:
    """G19: After the end nothing of the connection is alive: no payload, no transport, no controller."""

    references: list[weakref.ref[Any]] = []

    async def scenario() -> None:
        async with controller_and_raw(
            "unix", handler=echo, limits=limits(drain_timeout=0.05), frozen=ending == "drain timeout"
        ) as (controller, raw):
            references.append(weakref.ref(controller))
            references.append(weakref.ref(controller._connection))
            references.append(weakref.ref(controller._connection._transport))
            await raw.send(call_message(1, TAG, bytes(50_000)))
            await raw.expect(Opcode.RESULT)
            with trio.move_on_after(0.01):
                await controller.call_wrapper(1, bytes(50_000))
            match ending:
                case "violation":
                    await raw.send(Message(20))
                    await controller.wait_disconnected()
                case "vanish":
                    await raw.close()
                    await controller.wait_disconnected()
                case _:
                    pass

    with nothing_left():
        await scenario()
    await trio.testing.wait_all_tasks_blocked()
    collect()
    assert [reference() for reference in references] == [None] * 3


async def test_a_late_thread_after_the_run_is_silent(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """G19: A thread that comes back after the Trio run has ended is silent."""
    release, done = threading.Event(), threading.Event()
    started = threading.Event()

    def blocks(_args: bytes) -> bytes:
        started.set()
        release.wait(10)
        done.set()
        raise ValueError("late")

    async def main() -> None:
        async with controller_and_raw("unix", handler=blocks, threaded=True) as (_controller, raw):
            await raw.send(call_message(1, TAG))
            await trio.to_thread.run_sync(started.wait)

    await trio.to_thread.run_sync(trio.run, main)
    release.set()
    await trio.to_thread.run_sync(done.wait)
    await trio.sleep(0.01)
    assert quiet(caplog)
    assert list(recwarn) == []
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_disconnect_from_a_generator_that_was_left_behind() -> None:
    """G12: a finalizer that Trio runs when the run ends, outside of all tasks of the user's, disconnects too."""
    ends: list[orc_trio.DisconnectReason] = []
    left: list[Any] = []

    async def generator(controller: orc_trio.Controller) -> Any:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                ends.append(await controller.disconnect())

    async def main() -> None:
        async with connected_ends("memory") as both:
            left.append(generator(both.controller))
            await anext(left[0])

    trio.run(main)
    assert ends == [LOCAL]


@pytest.mark.parametrize("kind", ["generator", "future"])
async def test_whatever_can_be_awaited_is_awaited(kind: str) -> None:
    """A function may return any awaitable, not only a coroutine."""

    @types.coroutine
    def old_style(args: bytes) -> Any:
        yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105
        return args

    class Later:
        def __init__(self, args: bytes) -> None:
            self.args = args

        def __await__(self) -> Any:
            yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105
            return self.args

    async with connected_ends("memory", wrappers={"echo": old_style if kind == "generator" else Later}) as both:
        assert await both.call("echo", b"x") == b"x"
