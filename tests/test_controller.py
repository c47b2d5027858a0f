# The controller's end, as its owner sees it: entering, leaving, ending it from everywhere, failing.

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import orc_trio
from harness import (
    TAG,
    RawPeer,
    call_message,
    connected_ends,
    connected_pair,
    controller_and_raw,
    every_transport,
    every_virtual,
    nothing_left,
    quiet,
)
from orc_trio import Certainty, DisconnectKind
from orc_trio.controller import Controller
from orc_trio.ownership import only_cancelled
from orc_trio.protocol import Role
from orc_trio.sockets import as_transport
from orc_trio.wire import Message, Opcode
from session_fakes import LOCAL, Threads


async def forever(_args: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


# --- entering ---


@every_transport
@pytest.mark.parametrize("how", ["end of stream", "garbage", "hang-up", "wrong role", "missing symbol"])
async def test_a_failed_connect(kind: str, how: str) -> None:
    """G19, G20: no agreement: CONNECT_FAILED, NOT_SENT, on_disconnect once; nothing is left open."""
    told: list[orc_trio.DisconnectReason] = []
    registry = orc_trio.HandlerRegistry()
    if how == "missing symbol":
        registry.handler("missing")(forever)
    with nothing_left():
        here, there = await connected_pair(kind)
        raw = RawPeer(there)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def peer() -> None:
                match how:
                    case "garbage":
                        await raw.send(Message(Opcode.CALL, 1, 1))
                    case "hang-up":
                        await raw.hang_up()
                    case "wrong role":
                        await raw.settle(Role.CONTROLLER)
                    case "missing symbol":
                        await raw.settle(Role.EXECUTOR)
                        await raw.goodbye()
                await raw.close()

            with pytest.raises(orc_trio.DisconnectedError) as caught:
                async with orc_trio.open_controller(here, registry, on_disconnect=told.append):
                    pytest.fail("entered")
    assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
    assert caught.value.certainty is Certainty.NOT_SENT
    assert told == [caught.value.reason]


async def test_what_fails_while_connecting_is_raised() -> None:
    """G11: what our own on_disconnect raises after a failed connect leaves unwrapped, not beside its echo."""

    def fail(_reason: orc_trio.DisconnectReason) -> None:
        raise ValueError("callback")

    here, there = await connected_pair("memory")
    await there.aclose()
    with pytest.raises(ValueError, match="callback"):
        async with orc_trio.open_controller(here, orc_trio.HandlerRegistry(), on_disconnect=fail):
            pytest.fail("entered")


async def test_bootstrap_before_it_is_known() -> None:
    """G20: what the executor said is not there before it said it."""
    here, there = await connected_pair("memory")
    controller = Controller(as_transport(here), orc_trio.HandlerRegistry(), orc_trio.Limits(), None)
    with pytest.raises(orc_trio.NoControllerError):
        _ = controller.bootstrap
    with pytest.raises(orc_trio.NoControllerError):
        await controller.call_wrapper(1, b"")
    # G12: a connection that is never run can be disconnected too; there is nobody to wait for.
    assert controller.begin_disconnect() == LOCAL
    assert controller.disconnect_reason is None
    await here.aclose()
    await there.aclose()


def test_a_portal_of_a_connection_never_run() -> None:
    """G12: after the run, the portal of a connection that was never run says the cause, at once."""

    async def main() -> orc_trio.ControllerPortal:
        here, there = await connected_pair("memory")
        await there.aclose()
        return Controller(as_transport(here), orc_trio.HandlerRegistry(), orc_trio.Limits(), None).thread_portal()

    portal = trio.run(main)
    assert portal.disconnect() == LOCAL
    assert Threads(3, portal.disconnect).join() == [LOCAL] * 3
    with pytest.raises(orc_trio.NoControllerError):
        portal.call_wrapper(1, b"")


# --- ending it ---


@every_transport
async def test_on_disconnect_is_told_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """G11, G14, G19: told once, with the end, when everything is over; quietly."""
    caplog.set_level(logging.DEBUG, "orc_trio")
    async with connected_ends(kind, wrappers={"forever": forever}) as ends:
        controller = ends.controller
        assert controller.disconnect_reason is None
        assert await controller.disconnect() == LOCAL
        assert ends.told == [LOCAL]
        assert controller.disconnect_reason == await controller.wait_disconnected() == LOCAL
        assert controller.statistics().state == "closed"
        with pytest.raises(orc_trio.NoControllerError):
            await ends.call("forever")
    assert ends.told == [LOCAL]
    assert quiet(caplog)


@every_virtual
@pytest.mark.parametrize("number", [8, pytest.param(200, id="hundreds")])
async def test_everyone_disconnects(kind: str, number: int) -> None:
    """G12: any number of tasks and threads; none returns before the terminal state; all get the same end."""
    served = 0

    async def handler(_args: bytes) -> bytes:
        nonlocal served
        served += 1
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            served -= 1
        raise AssertionError

    async def call() -> None:
        with pytest.raises(orc_trio.OrcError):
            await ends.session.call_controller(ends.symbols["handler"], b"")

    def in_thread() -> Any:
        return portal.disconnect(), served, ends.controller.disconnect_reason

    async def in_task() -> None:
        assert await ends.controller.disconnect() == LOCAL
        assert served == 0

    async with connected_ends(kind, handlers={"handler": handler}) as ends:
        portal = ends.controller.thread_portal()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
            while served < 3:
                await trio.lowlevel.checkpoint()
            threads = Threads(number, in_thread)
            for _ in range(number):
                nursery.start_soon(in_task)
        assert await threads.joined() == [(LOCAL, 0, LOCAL)] * number
        assert ends.told == [LOCAL]


@every_transport
@pytest.mark.parametrize("threaded", [False, True])
async def test_a_handler_disconnects(kind: str, threaded: bool) -> None:
    """G12: a handler starts the disconnect of its own connection, and gets the cause; nobody hangs."""
    seen: list[Any] = []

    async def in_task(_args: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            seen.append(await ends.disconnect())
        return b""

    def in_thread(_args: bytes) -> bytes:
        seen.append(portal.disconnect())
        return b""

    registry = orc_trio.HandlerRegistry()
    registry.register(TAG, in_thread if threaded else in_task, threaded=threaded)
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.settle, Role.EXECUTOR)
        async with orc_trio.open_controller(here, registry) as ends:
            portal = ends.thread_portal()
            await raw.send(call_message(1, TAG))
            nursery.start_soon(raw.goodbye)
            assert await ends.wait_disconnected() == LOCAL
            while not seen:
                await trio.sleep(0.001)
    assert seen == [LOCAL]


@pytest.mark.parametrize("method", ["disconnect", "wait_disconnected"])
async def test_a_cancelled_waiter(method: str) -> None:
    """G12: cancelled while waiting, it leaves the disconnect running."""
    async with controller_and_raw("memory") as (controller, raw):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(getattr(controller, method))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert (controller.statistics().state == "draining") is (method == "disconnect")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.goodbye)
            assert await controller.disconnect() == LOCAL


def test_after_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """G12, G19: after the run, from any thread: a disconnect says how it ended, a call fails."""

    async def main() -> orc_trio.ControllerPortal:
        async with connected_ends("memory") as ends:
            await ends.session.detach()
            return ends.controller.thread_portal()

    portal = trio.run(main)
    assert portal.disconnect().kind is DisconnectKind.REMOTE_HANGUP
    assert {reason.kind for reason in Threads(3, portal.disconnect).join()} == {DisconnectKind.REMOTE_HANGUP}
    with pytest.raises(orc_trio.NoControllerError):
        portal.call_wrapper(1, b"")
    assert quiet(caplog)


# --- failing ---


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), BaseException("bare")])
@pytest.mark.parametrize("body", ["waits", "calls", "nursery"])
@every_virtual
async def test_a_base_exception_of_a_handler(kind: str, body: str, error: BaseException) -> None:
    """G11: a BaseException of a handler reaches the owner unwrapped, whatever its body is doing."""

    async def handler(_args: bytes) -> bytes:
        raise error

    told: list[orc_trio.DisconnectReason] = []
    registry = orc_trio.HandlerRegistry()
    registry.register(TAG, handler)
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.settle, Role.EXECUTOR)
        with pytest.raises(type(error)) as caught:  # noqa: PT012
            async with orc_trio.open_controller(here, registry, on_disconnect=told.append) as controller:
                await raw.send(call_message(1, TAG))
                nursery.start_soon(raw.goodbye)
                match body:
                    case "waits":
                        await trio.sleep_forever()
                    case "calls":
                        await controller.call_wrapper(1, b"")
                    case "nursery":
                        async with trio.open_nursery() as inner:
                            for _ in range(3):
                                inner.start_soon(controller.call_wrapper, 1, b"")
                            await trio.sleep_forever()
    assert caught.value is error
    assert [reason.kind for reason in told] == [DisconnectKind.INTERNAL_ERROR]


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt()])
async def test_a_raising_on_disconnect(error: BaseException) -> None:
    """G11: what on_disconnect raises cancels the body and reaches the owner unwrapped; everyone waiting is released."""

    def fail(_reason: orc_trio.DisconnectReason) -> None:
        raise error

    ends: list[Any] = []
    async with trio.open_nursery() as nursery:
        here, there = await connected_pair("memory")
        raw = RawPeer(there)
        nursery.start_soon(raw.settle, Role.EXECUTOR)
        with pytest.raises(type(error)) as caught:  # noqa: PT012
            async with orc_trio.open_controller(here, orc_trio.HandlerRegistry(), on_disconnect=fail) as controller:
                threads = Threads(3, controller.thread_portal().disconnect)
                nursery.start_soon(raw.goodbye)
                await trio.sleep_forever()
        ends = await threads.joined()
    assert caught.value is error
    assert ends == [LOCAL] * 3


@pytest.mark.parametrize("cancelled", [False, True])
async def test_on_disconnect_fails_beside_something_else(cancelled: bool) -> None:
    """G11: what on_disconnect raises is not lost: beside what a handler raised, or if the owner is cancelled."""

    async def handler(_args: bytes) -> bytes:
        raise SystemExit(1)

    def fail(_reason: orc_trio.DisconnectReason) -> None:
        raise ValueError("callback")

    registry = orc_trio.HandlerRegistry()
    registry.register(TAG, handler)
    here, there = await connected_pair("memory")
    raw = RawPeer(there)
    expected = pytest.RaisesGroup(SystemExit, ValueError)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.settle, Role.EXECUTOR)
        with trio.CancelScope() as scope, pytest.raises(ValueError, match="callback") if cancelled else expected:
            async with orc_trio.open_controller(here, registry, on_disconnect=fail):
                if cancelled:
                    scope.cancel()
                else:
                    await raw.send(call_message(1, TAG))
                nursery.start_soon(raw.goodbye)
                await trio.sleep_forever()


# --- the owner ---


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt(), SystemExit(3)])
@every_transport
async def test_the_bodys_exception_leaves_unwrapped(kind: str, error: BaseException) -> None:
    """G18: the body's own exception leaves unwrapped; the peer is told goodbye."""
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def peer() -> None:
            await raw.settle(Role.EXECUTOR)
            await raw.goodbye()

        with pytest.raises(type(error)) as caught:
            async with orc_trio.open_controller(here, orc_trio.HandlerRegistry()) as controller:
                raise error
    assert caught.value is error
    assert controller.disconnect_reason == LOCAL


@pytest.mark.parametrize("how", ["body", "nursery", "leaving", "connecting"])
async def test_cancelling_the_owner_is_bounded(how: str, autojump_clock: trio.testing.MockClock) -> None:
    """G15, G18: cancelled, with a peer that is frozen: a bounded goodbye, and Cancelled goes on, bare."""
    here, there = await connected_pair("memory")
    raw, told, seen = RawPeer(there), list[orc_trio.DisconnectReason](), list[BaseException]()
    async with trio.open_nursery() as nursery:
        if how != "connecting":
            nursery.start_soon(raw.settle, Role.EXECUTOR)
        with trio.move_on_after(1) as scope:
            try:
                async with orc_trio.open_controller(here, orc_trio.HandlerRegistry(), on_disconnect=told.append):
                    match how:
                        case "body":
                            await trio.sleep_forever()
                        case "nursery":
                            async with trio.open_nursery() as inner:
                                inner.start_soon(trio.sleep_forever)
                                inner.start_soon(trio.sleep_forever)
            except BaseException as exc:
                seen.append(exc)
                raise
        assert scope.cancelled_caught
    assert [only_cancelled(exc) for exc in seen] == [True]
    assert trio.current_time() <= 1 + orc_trio.Limits().drain_timeout
    (reason,) = told
    assert reason.kind is DisconnectKind.DRAIN_TIMEOUT
    assert reason.cause is not None
    assert reason.cause.kind is (DisconnectKind.LOCAL_HANGUP if how == "leaving" else DisconnectKind.OWNER_CANCELLED)
    await raw.close()


class StepCanceller(trio.abc.Instrument):
    """Cancels a scope at the nth suspension of the task."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, steps: int) -> None:
        self.task, self.scope, self.steps = task, scope, steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


@every_virtual
@pytest.mark.parametrize("ends_by", ["leaving", "disconnect", "portal"])
async def test_cancelled_at_every_checkpoint(kind: str, ends_by: str, caplog: pytest.LogCaptureFixture) -> None:
    """G18, G19: the owner cancelled at every suspension of open, call, disconnect, leaving: a bare Cancelled."""

    async def peer(raw: RawPeer) -> None:
        with trio.CancelScope(shield=True):
            try:
                await raw.settle(Role.EXECUTOR)
                await raw.goodbye()
            except (trio.BrokenResourceError, AssertionError):
                await raw.close()

    async def life(here: Any) -> None:
        async with orc_trio.open_controller(here, orc_trio.HandlerRegistry(), on_disconnect=told.append) as controller:
            with trio.move_on_after(0):
                await controller.call_wrapper(1, b"")
            if ends_by == "disconnect":
                await controller.disconnect()
            elif ends_by == "portal":
                await trio.to_thread.run_sync(controller.thread_portal().disconnect)

    await cancelled_at_every_checkpoint(kind, life, peer, told := [])
    assert quiet(caplog)


async def cancelled_at_every_checkpoint(
    kind: str,
    life: Callable[[Any], Awaitable[None]],
    peer: Callable[[RawPeer], Awaitable[None]],
    told: list[orc_trio.DisconnectReason],
) -> None:
    for steps in range(1, 200):
        seen = 0
        told.clear()
        async with trio.open_nursery() as nursery:
            here, there = await connected_pair(kind)
            nursery.start_soon(peer, RawPeer(there))
            with trio.CancelScope() as scope:
                canceller = StepCanceller(trio.lowlevel.current_task(), scope, steps)
                trio.lowlevel.add_instrument(canceller)
                try:
                    await life(here)
                except trio.Cancelled:
                    seen += 1
                    raise
                finally:
                    trio.lowlevel.remove_instrument(canceller)
            assert scope.cancelled_caught is bool(seen)
        assert len(told) == 1
        assert told[0].kind in (
            DisconnectKind.LOCAL_HANGUP,
            DisconnectKind.OWNER_CANCELLED,
        )
        if canceller.steps > 0:
            assert steps > 3
            return
    raise AssertionError("it goes on for ever")


def test_a_handlers_thread_that_outlives_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """G13, G19: a handler's thread that outlives the run stays in the statistics; its late result is dropped."""
    started, go = threading.Event(), threading.Event()

    def stuck(_args: bytes) -> bytes:
        started.set()
        go.wait(60)
        return b"late"

    async def main() -> orc_trio.Controller:
        registry = orc_trio.HandlerRegistry()
        registry.handler("stuck", threaded=True)(stuck)
        async with trio.open_nursery() as nursery:
            here, there = await connected_pair("memory")
            raw = RawPeer(there)
            nursery.start_soon(lambda: raw.settle(Role.EXECUTOR, symbols={"stuck": TAG}))
            async with orc_trio.open_controller(here, registry) as controller:
                await raw.send(call_message(1, TAG))
                await trio.to_thread.run_sync(started.wait)
                nursery.start_soon(raw.goodbye)
                await controller.disconnect()
                return controller

    controller = trio.run(main)
    assert controller.statistics().running_handlers == ("stuck",)
    go.set()
    while controller.statistics().running_handlers:
        pass
    assert quiet(caplog)
