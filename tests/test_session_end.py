# Ending a session from everywhere: tasks, threads, wrapper functions, services, callbacks, keepalive holders.

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
from harness import RawPeer, connected_ends, connected_pair, every_transport, every_virtual, no_hang, quiet
from orc_trio import DisconnectKind, SessionState
from orc_trio.protocol import Role
from orc_trio.wire import Opcode
from session_fakes import LOCAL, REMOTE, FakeAccess, Recorder, Threads, attached

ENDS = ["detach", "shutdown"]
either_end = pytest.mark.parametrize("end", ENDS)


def of_portal(portal: orc_trio.SessionPortal, end: str) -> Callable[[], Any]:
    return getattr(portal, end)  # type: ignore[no-any-return]


# --- many at once ---


@either_end
@every_transport
@pytest.mark.parametrize("number", [8, pytest.param(300, id="hundreds")])
async def test_many_tasks(kind: str, end: str, number: int) -> None:
    """G12, G24: any number of tasks: none returns before the terminal state, and all get the same end."""
    results: list[Any] = []

    async def wrapper(_args: bytes) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
        raise AssertionError

    async def call() -> None:
        with pytest.raises(orc_trio.DisconnectedError):
            await ends.call("wrapper")

    async def stop() -> None:
        results.append(await getattr(ends.session, end)())
        assert ends.session.state in ((SessionState.SHUT_DOWN,) if end == "shutdown" else tuple(SessionState)[2:])
        assert not ends.session.statistics().running_wrappers

    async with connected_ends(kind, wrappers={"wrapper": wrapper}) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while not ends.session.statistics().running_wrappers:
                await trio.lowlevel.checkpoint()
            for _ in range(number):
                nursery.start_soon(stop)
        assert results == [LOCAL] * number


@every_virtual
@pytest.mark.parametrize("number", [8, pytest.param(200, id="hundreds")])
async def test_many_threads(kind: str, number: int) -> None:
    """G12, G24: any number of threads that Trio did not start, detaching and shutting down among each other."""
    async with connected_ends(kind) as ends:
        portal, session = ends.session.thread_portal(), ends.session
        log: list[str] = []
        session.add_service(Recorder("service", log))

        def detach() -> Any:
            assert portal.detach() == portal.disconnect() == LOCAL
            return session.disconnect_reason

        def shutdown() -> Any:
            assert portal.shutdown() == LOCAL
            assert session.state is SessionState.SHUT_DOWN
            return session.disconnect_reason

        detaching, shutting_down = Threads(number // 2, detach), Threads(number // 2, shutdown)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(session.detach)
                nursery.start_soon(session.shutdown)
        assert await detaching.joined() + await shutting_down.joined() == [LOCAL] * number
        assert log == ["service detached", "service shut down"]


@either_end
async def test_threads_wait_for_the_terminal_state(end: str) -> None:
    """G12, G13: a thread returns only in the terminal state."""
    async with orc_trio.open_session() as session:
        access = FakeAccess()
        access.may_end = trio.Event()
        await attached(session, access)
        log: list[str] = access.log
        portal = session.thread_portal()
        threads = Threads(4, lambda: (of_portal(portal, end)(), log.append("returned")))
        while not access.latched.is_set():
            await trio.lowlevel.checkpoint()
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert log == []
        access.may_end.set()
        await threads.joined()
        assert log == ["access ended"] + ["returned"] * 4


# --- at any time ---


async def test_before_attach() -> None:
    """G12: before anything was attached; every caller gets the same, and the session is at its end."""
    async with orc_trio.open_session() as session:
        portal = session.thread_portal()
        log: list[str] = []
        session.add_service(Recorder("service", log))
        detaching = Threads(4, portal.detach)
        assert await session.detach() == LOCAL
        assert log == ["service detached"]
        assert await detaching.joined() == [LOCAL] * 4
        assert await Threads(4, portal.shutdown).joined() == [None] * 4
        assert await session.shutdown() is None
        assert await Threads(1, portal.detach).joined() == [LOCAL]


@either_end
async def test_while_attaching(end: str) -> None:
    """G12, G24: while attaching."""
    async with orc_trio.open_session() as session, trio.open_nursery() as nursery:
        access = FakeAccess(connects=False)

        @nursery.start_soon
        async def attach() -> None:
            with pytest.raises(orc_trio.DisconnectedError):
                await attached(session, access)

        await access.running.wait()
        threads = Threads(4, of_portal(session.thread_portal(), end))
        assert await getattr(session, end)() == LOCAL
        assert await threads.joined() == [LOCAL] * 4


@either_end
async def test_in_the_same_step_as_attach(end: str) -> None:
    """G12: before the access has begun to run."""
    async with orc_trio.open_session() as session, trio.open_nursery() as nursery:
        for function in (session.begin_detach, session.begin_shutdown):

            @nursery.start_soon
            async def attach() -> None:
                with pytest.raises(orc_trio.OrcError):
                    await attached(session)

            nursery.start_soon(trio.lowlevel.checkpoint)
            function()
        assert await getattr(session, end)() in (LOCAL, None)


@either_end
async def test_after_the_other_end_left(end: str) -> None:
    """G11, G12: after the connection ended by itself everybody gets that end."""
    async with orc_trio.open_session() as session:
        access = await attached(session)
        access.begin_disconnect(REMOTE)
        assert await session.wait_detached() == REMOTE
        assert await getattr(session, end)() == REMOTE
        assert await Threads(3, of_portal(session.thread_portal(), end)).joined() == [REMOTE] * 3
        assert session.begin_detach() == REMOTE


@pytest.mark.parametrize("attach", [False, True])
def test_after_the_run(attach: bool, caplog: pytest.LogCaptureFixture) -> None:
    """G12, G19: after the Trio run, from any thread: calls fail, ends say how it ended, releases are silent."""

    async def main() -> tuple[orc_trio.SessionPortal, orc_trio.Session]:
        async with orc_trio.open_session() as session:
            if attach:
                access = await attached(session)
                access.begin_disconnect(REMOTE)
            return session.thread_portal(), session

    caplog.set_level(logging.DEBUG, "orc_trio")
    portal, session = trio.run(main)
    for run in (lambda f: f(), lambda f: Threads(1, f).join()[0]):
        assert run(portal.detach) == (REMOTE if attach else LOCAL)
        assert run(portal.disconnect) == (REMOTE if attach else LOCAL)
        assert run(portal.shutdown) == (REMOTE if attach else None)
    with pytest.raises(orc_trio.NoControllerError, match="run has ended"):
        portal.call_controller(1, b"")
    assert session.state is SessionState.SHUT_DOWN
    assert quiet(caplog)


def test_threads_across_the_end_of_the_run() -> None:
    """G12: threads that stop and call all the time, while the run ends: none hangs, none sees Cancelled."""

    async def main() -> list[Threads]:
        async with orc_trio.open_session() as session:
            portal = session.thread_portal()
            await attached(session)

            def work() -> list[Any]:
                seen: list[Any] = []
                while over.wait(0) is False:
                    seen.extend((portal.detach(), portal.shutdown()))
                    try:
                        portal.call_controller(1, b"")
                    except BaseException as exc:
                        seen.append(type(exc))
                return seen

            return [Threads(6, work)]

    over = threading.Event()
    (threads,) = trio.run(main)
    over.set()
    for seen in threads.join():
        assert set(seen) <= {LOCAL, orc_trio.NoControllerError, orc_trio.DisconnectedError}


# --- who cannot wait for themselves ---


@either_end
@every_transport
async def test_from_an_async_wrapper(kind: str, end: str) -> None:
    """G12, G24: a wrapper function that ends its own session starts it and gets the cause, after a checkpoint."""
    seen: list[Any] = []

    async def wrapper(_args: bytes) -> bytes:
        try:
            await getattr(ends.session, end)()
            seen.append("not cancelled")
        except trio.Cancelled:
            seen.append("cancelled")
            with trio.CancelScope(shield=True):
                seen.append(await getattr(ends.session, end)())
            raise
        raise AssertionError

    async with connected_ends(kind, wrappers={"wrapper": wrapper}) as ends:
        with pytest.raises(orc_trio.DisconnectedError):
            await ends.call("wrapper")
        assert await ends.session.wait_detached() == LOCAL
    assert seen == ["cancelled", LOCAL]


@either_end
@every_transport
async def test_from_a_child_of_a_wrapper(kind: str, end: str) -> None:
    """G12: who it is is decided by task ancestry."""
    seen: list[Any] = []

    async def child() -> None:
        with trio.CancelScope(shield=True):
            seen.append(await getattr(ends.session, end)())

    async def wrapper(_args: bytes) -> bytes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        return b""

    async with connected_ends(kind, wrappers={"wrapper": wrapper}) as ends:
        with pytest.raises(orc_trio.DisconnectedError):
            await ends.call("wrapper")
        assert await getattr(ends.session, end)() == LOCAL
    assert seen == [LOCAL]


@either_end
@every_transport
async def test_from_a_threaded_wrapper(kind: str, end: str) -> None:
    """G12, G24: a thread that runs a wrapper function does not wait either, also after it was let go."""
    seen: list[Any] = []

    def wrapper(_args: bytes) -> bytes:
        seen.append(of_portal(portal, end)())
        seen.append(of_portal(portal, end)())
        return b""

    async with connected_ends(kind, threaded={"wrapper": wrapper}) as ends:
        portal = ends.session.thread_portal()
        with pytest.raises(orc_trio.DisconnectedError):
            await ends.call("wrapper")
        assert await getattr(ends.session, end)() == LOCAL
        await ends.session.shutdown()
    assert seen == [LOCAL, LOCAL]


@either_end
@pytest.mark.parametrize("where", ["detaching", "shutting_down"])
@pytest.mark.parametrize("by", ["task", "child", "thread"])
@pytest.mark.parametrize("attach", [False, True])
async def test_from_a_service(end: str, where: str, by: str, attach: bool) -> None:
    """G12, G24: a service, what it starts and its threads do not wait; a shutdown asked for there is not lost."""
    log: list[str] = []
    results: list[Any] = []

    async def stop() -> None:
        results.append(await getattr(session, end)())

    async def run() -> None:
        match by:
            case "task":
                await stop()
            case "child":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stop)
            case "thread":
                results.append(await trio.to_thread.run_sync(of_portal(portal, end)))

    service = Recorder("service", log)
    setattr(service, where, run)
    async with orc_trio.open_session(service_timeout=30) as session:
        portal = session.thread_portal()
        session.add_service(service)
        if attach:
            await attached(session)
        with trio.fail_after(20):
            await (session.shutdown() if where == "shutting_down" else session.detach())
            if end == "shutdown":
                await session._shut_down.wait()
    assert log == ["service detached", "service shut down"]
    assert results == [LOCAL if attach or end == "detach" else None]


async def test_a_task_that_a_service_left_behind_waits() -> None:
    """G12: what a service started elsewhere waits like any other, once the service has been told."""
    async with trio.open_nursery() as nursery, orc_trio.open_session() as session:
        go = trio.Event()
        states: list[SessionState] = []

        async def stop() -> None:
            await go.wait()
            await session.shutdown()
            states.append(session.state)

        async def detaching() -> None:
            nursery.start_soon(stop)

        service = Recorder("service", [])
        service.detaching = detaching
        session.add_service(service)
        await session.detach()
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert states == [SessionState.SHUT_DOWN]


async def test_shutdown_asked_from_on_detach_is_scheduled() -> None:
    """G24: a shutdown asked for while the services are told of the detach comes after all were told."""
    log: list[str] = []
    async with orc_trio.open_session() as session:
        first = Recorder("first", log)
        first.detaching = session.shutdown
        session.add_service(first)
        session.add_service(Recorder("second", log))
        await attached(session)
        await session.detach()
        assert log == ["first detached", "second detached"]
        await trio.testing.wait_all_tasks_blocked()
        assert session.state is SessionState.SHUT_DOWN
        assert log == ["first detached", "second detached", "second shut down", "first shut down"]


async def test_from_an_on_disconnect_callback() -> None:
    """G12, G24: a callback may start everything, and knows the end."""
    seen: list[Any] = []

    def callback(reason: orc_trio.DisconnectReason) -> None:
        seen.extend((reason, session.begin_detach(), session.disconnect_reason))
        with pytest.raises(RuntimeError):
            portal.shutdown()
        session.begin_shutdown()

    async with orc_trio.open_session() as session:
        portal = session.thread_portal()
        session.on_disconnect(callback)
        await attached(session)
        await session.detach()
        await trio.testing.wait_all_tasks_blocked()
        assert session.state is SessionState.SHUT_DOWN
    assert seen == [LOCAL] * 3


@either_end
async def test_from_a_keepalive_holder(end: str) -> None:
    """G12, G24: who holds a keepalive starts it and gets the cause; when it is released the shutdown goes on."""
    log: list[str] = []
    async with orc_trio.open_session() as session:
        session.add_service(Recorder("service", log))
        await attached(session)
        with session.keepalive("task"):
            assert await getattr(session, end)() == LOCAL
        await session.shutdown()
        assert log == ["service detached", "service shut down"]


@either_end
async def test_from_a_thread_with_a_keepalive(end: str) -> None:
    """G12, G24: so does a thread that holds one, and the end waits for it to be released."""
    async with orc_trio.open_session() as session:
        portal = session.thread_portal()
        await attached(session)

        def work() -> Any:
            with session.keepalive("thread"):
                portal.detach()
                seen = of_portal(portal, end)(), session.state
            return *seen, portal.shutdown(), session.state

        ((first, state, last, at_last),) = await Threads(1, work).joined()
        assert first == last == LOCAL
        assert state is not SessionState.SHUT_DOWN
        assert at_last is SessionState.SHUT_DOWN


@either_end
async def test_who_cannot_wait_passes_a_checkpoint(end: str) -> None:
    """G12: one checkpoint, at which it is normally cancelled."""
    async with orc_trio.open_session() as session:
        await attached(session)
        with session.keepalive("task"), trio.CancelScope() as scope:
            scope.cancel()
            await getattr(session, end)()
        assert scope.cancelled_caught
        assert await session.detach() == LOCAL


async def test_a_holder_of_another_session_waits() -> None:
    """G12: only a holder of one of *this* session's keepalives does not wait."""
    async with orc_trio.open_session() as one, orc_trio.open_session() as other:
        await attached(one)
        with other.keepalive("other"):
            await one.shutdown()
            assert one.state is SessionState.SHUT_DOWN


# --- cancelled waiters ---


@pytest.mark.parametrize("end", ["detach", "shutdown", "wait_detached"])
async def test_a_cancelled_waiter(end: str) -> None:
    """G12: a caller cancelled while waiting leaves the disconnect running."""
    async with orc_trio.open_session() as session:
        access = FakeAccess()
        access.may_end = trio.Event()
        await attached(session, access)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(getattr(session, end))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert access.latched.is_set() == (end != "wait_detached")
        access.may_end.set()
        assert await session.detach() == LOCAL


# --- what fails, and to whom it goes ---


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), BaseException("bare")])
@pytest.mark.parametrize("threaded", [False, True])
@every_virtual
async def test_a_base_exception_of_a_wrapper(kind: str, threaded: bool, error: BaseException) -> None:
    """G11: a BaseException of a wrapper function ends the session and reaches its owner unwrapped."""

    async def in_task(_args: bytes) -> bytes:
        raise error

    def in_thread(_args: bytes) -> bytes:
        raise error

    told: list[orc_trio.DisconnectReason] = []
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        async with connected_ends(
            kind, **({"threaded": {"f": in_thread}} if threaded else {"wrappers": {"f": in_task}})
        ) as ends:
            ends.session.on_disconnect(told.append)
            with pytest.raises(orc_trio.DisconnectedError) as failed:
                await ends.call("f")
            assert failed.value.reason.kind is DisconnectKind.REMOTE_ERROR
            await trio.sleep_forever()
    assert caught.value is error
    assert [reason.kind for reason in told] == [DisconnectKind.INTERNAL_ERROR]
    assert type(error).__name__ in told[0].detail
    assert ends.session.disconnect_reason == told[0]


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt()])
async def test_a_raising_callback(error: BaseException) -> None:
    """G11: what an on-disconnect callback raises ends the session and reaches its owner unwrapped; the others run."""

    def fail(_reason: orc_trio.DisconnectReason) -> None:
        raise error

    told: list[orc_trio.DisconnectReason] = []
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        async with orc_trio.open_session() as session:
            session.on_disconnect(fail)
            session.on_disconnect(told.append)
            access = await attached(session)
            access.begin_disconnect(REMOTE)
            await trio.sleep_forever()
    assert caught.value is error
    assert told == [REMOTE]
    assert session.state is SessionState.SHUT_DOWN


async def test_callbacks_and_services_that_fail() -> None:
    """G11, G23: nothing of what failed is lost."""

    def fail(_reason: orc_trio.DisconnectReason) -> None:
        raise ValueError("callback")

    async def fail_too() -> None:
        raise OSError("service")

    async def body() -> None:
        async with orc_trio.open_session() as session:
            session.on_disconnect(fail)
            service = Recorder("service", [])
            service.shutting_down = fail_too
            session.add_service(service)
            await attached(session)
            await session.detach()
            await trio.sleep_forever()

    with pytest.RaisesGroup(ValueError, pytest.RaisesGroup(OSError)):
        await body()


@pytest.mark.parametrize("where", ["detaching", "shutting_down"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
async def test_an_interrupted_service(where: str, error: BaseException) -> None:
    """G11, G23: a BaseException of a service reaches the owner unwrapped, and nobody waits for ever."""
    log: list[str] = []

    async def fail() -> None:
        raise error

    service = Recorder("service", log)
    setattr(service, where, fail)
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        async with orc_trio.open_session() as session:
            session.add_service(service)
            session.add_service(Recorder("other", log))
            await attached(session)
            assert await session.detach() == LOCAL
            if where == "detaching":
                await trio.sleep_forever()
    assert caught.value is error
    assert log == ["service detached", "other detached", "other shut down", "service shut down"]


@pytest.mark.parametrize("where", ["detaching", "shutting_down"])
async def test_service_errors_are_one_group(where: str, autojump_clock: trio.testing.MockClock) -> None:
    """G23: errors of services, and bounds that ran out, are gathered into one ExceptionGroup, at the owner."""
    log: list[str] = []
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            raise ValueError(where)

        async def body() -> None:
            async with orc_trio.open_session(service_timeout=9, on_error=lambda _exc: pytest.fail("told")) as session:
                for name, does in ("a", fail), ("b", trio.sleep_forever), ("c", None), ("d", fail):
                    service = Recorder(name, log)
                    setattr(service, where, does)
                    session.add_service(service)
                await attached(session)

        nursery.cancel_scope.shield = True
        with pytest.RaisesGroup(ValueError, TimeoutError, ValueError) as caught:
            await body()
    assert "services" in caught.value.message
    assert len(log) == 8
    assert trio.current_time() == 9


async def test_the_bodys_exception_and_the_services(autojump_clock: trio.testing.MockClock) -> None:
    """G18, G23: the body's exception beside errors of services: both leave, in a group."""

    async def fail() -> None:
        raise OSError("service")

    async def body() -> None:
        async with orc_trio.open_session() as session:
            service = Recorder("service", [])
            service.detaching = fail
            session.add_service(service)
            raise ValueError("body")

    with pytest.RaisesGroup(ValueError, pytest.RaisesGroup(OSError)):
        await body()


# --- the owner is cancelled, or interrupted ---


@pytest.mark.parametrize("handled", [False, True])
async def test_service_errors_of_a_cancelled_owner(handled: bool, caplog: pytest.LogCaptureFixture) -> None:
    """G18, G23: if the owner is being cancelled, errors go to on_error or the log, and Cancelled goes on."""
    told: list[Exception] = []
    error = ValueError("service")

    async def fail() -> None:
        raise error

    with trio.CancelScope() as scope:
        try:
            async with orc_trio.open_session(on_error=told.append if handled else None) as session:
                service = Recorder("service", [])
                service.detaching = fail
                session.add_service(service)
                await attached(session)
                scope.cancel()
                await trio.sleep_forever()
        except trio.Cancelled:
            assert session.state is SessionState.SHUT_DOWN
            raise
    assert scope.cancelled_caught
    assert session.disconnect_reason is not None
    assert session.disconnect_reason.kind is DisconnectKind.OWNER_CANCELLED
    assert told == ([error] if handled else [])
    assert ("service" in caplog.text) is not handled


@pytest.mark.parametrize("how", ["body", "leaving", "nursery in the body", "deadline"])
async def test_a_keepalive_held_by_stuck_code(
    how: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """G18, G22: owner cancelled, also only while leaving: the wait is bounded, on_shutdown is not called."""
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def cancel() -> None:
            await trio.sleep(100)
            assert session.state is not SessionState.SHUT_DOWN
            scope.cancel()

        with scope:
            try:
                async with orc_trio.open_session(service_timeout=3) as session:
                    session.add_service(Recorder("service", log))
                    await attached(session)
                    keepalive = session.keepalive("stuck code")
                    match how:
                        case "body":
                            nursery.start_soon(cancel)
                            await trio.sleep_forever()
                        case "leaving":
                            nursery.start_soon(cancel)
                        case "nursery in the body":
                            nursery.start_soon(cancel)
                            async with trio.open_nursery() as inner:
                                inner.start_soon(trio.sleep_forever)
                                inner.start_soon(trio.sleep_forever)
                        case "deadline":
                            scope.deadline = 100
            except BaseException as exc:
                assert how == "nursery in the body" or isinstance(exc, trio.Cancelled)
                raise
        assert scope.cancelled_caught
        assert trio.current_time() == 103
    assert log == ["service detached"]
    assert session.state is SessionState.SHUT_DOWN
    assert session.statistics().keepalives == ("stuck code",)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "stuck code" in record.getMessage()
    assert await session.shutdown() == session.disconnect_reason
    keepalive.release()
    assert session.statistics().keepalives == ()


async def test_a_stuck_keepalive_and_a_failure(autojump_clock: trio.testing.MockClock) -> None:
    """G11, G22: a failure bounds the wait too: it reaches the owner, whoever holds a keepalive."""

    def fail(_reason: orc_trio.DisconnectReason) -> None:
        raise ValueError("callback")

    for body_ends in False, True:
        with trio.fail_after(100), pytest.raises(ValueError, match="callback"):  # noqa: PT012
            async with orc_trio.open_session() as session:
                session.on_disconnect(fail)
                access = await attached(session)
                session.keepalive("stuck")
                if not body_ends:
                    access.begin_disconnect()
                    await trio.sleep_forever()


def test_a_keepalive_held_by_a_stuck_thread(caplog: pytest.LogCaptureFixture) -> None:
    """G13, G19, G22: a wrapper's thread that outlives the run: named in log and statistics; its late release silent."""
    started, go = threading.Event(), threading.Event()

    def stuck(_args: bytes) -> bytes:
        started.set()
        go.wait(60)
        return b"late"

    async def main() -> orc_trio.Session:
        with trio.CancelScope() as scope:
            async with orc_trio.open_session(service_timeout=0.05) as session:
                session.add_service(Recorder("service", log))
                address = session.wrappers.add(stuck, name="stuck wrapper", threaded=True)
                access = await attached(session)
                access.nursery.start_soon(access.host.run_wrapper, address, b"")
                await trio.to_thread.run_sync(started.wait)
                scope.cancel()
        assert scope.cancelled_caught
        return session

    log: list[str] = []
    session = trio.run(main)
    assert log == ["service detached"]
    assert session.statistics().keepalives == session.statistics().running_wrappers == ("stuck wrapper",)
    assert "stuck wrapper" in caplog.text
    caplog.clear()
    go.set()
    while session.statistics().keepalives:
        pass
    assert session.statistics().running_wrappers == ()
    assert quiet(caplog)


BODY_ERRORS = [ValueError("v"), KeyboardInterrupt(), SystemExit(3), trio.BrokenResourceError()]


@pytest.mark.parametrize("error", BODY_ERRORS)
@every_virtual
async def test_the_bodys_exception_leaves_unwrapped(kind: str, error: BaseException) -> None:
    """G18: the body's own exception leaves unwrapped, whatever was going on; the session says goodbye first."""
    here, there = await connected_pair(kind)
    raw, log = RawPeer(there), list[str]()
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(orc_trio.DisconnectedError):
                await session.call_controller(1, b"")

        async def peer() -> None:
            await raw.settle(Role.CONTROLLER)
            await raw.goodbye()
            log.append("goodbye")

        nursery.start_soon(peer)
        with pytest.raises(type(error)) as caught:  # noqa: PT012
            async with orc_trio.open_session() as session:
                session.add_service(Recorder("service", log))
                await attached(session, orc_trio.StreamControllerAccess(here))
                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                raise error
    assert caught.value is error
    assert set(log) == {"goodbye", "service detached", "service shut down"}
    assert session.disconnect_reason == LOCAL


async def test_an_interrupted_body_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """G18, G22: an interrupt does not wait for stuck code for ever."""
    with trio.fail_after(100), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        async with orc_trio.open_session() as session:
            session.keepalive("stuck")
            raise KeyboardInterrupt


class StepCanceller(trio.abc.Instrument):
    """Cancels a scope at the nth suspension of the task."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, steps: int) -> None:
        self.task, self.scope, self.steps = task, scope, steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


async def at_every_checkpoint(scenario: Callable[[], Awaitable[None]], most: int = 300) -> int:
    """Cancel the scenario's owner at each of its suspensions: Cancelled goes out, bare, and is caught by its scope."""
    for steps in range(1, most):
        seen: list[BaseException] = []
        ended = False
        with trio.CancelScope() as scope:
            canceller = StepCanceller(trio.lowlevel.current_task(), scope, steps)
            trio.lowlevel.add_instrument(canceller)
            try:
                await scenario()
                ended = True
            except trio.Cancelled as exc:
                seen.append(exc)
                raise
            finally:
                trio.lowlevel.remove_instrument(canceller)
        assert scope.cancelled_caught is bool(seen)
        assert ended is not scope.cancelled_caught
        if ended:
            # Not cancelled at all: it has no more suspensions.  (Cancelled at the last, there is none to notice it.)
            if canceller.steps > 0:
                return steps
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("kind", ["fake", "memory", "inprocess"])
async def test_cancelled_at_every_checkpoint(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """G18, G19: the owner cancelled at every suspension of open, attach, call, detach, shutdown, leaving."""
    told: list[orc_trio.DisconnectReason] = []
    log: list[str] = []
    sessions: list[orc_trio.Session] = []

    async def life(session: orc_trio.Session, access: orc_trio.ControllerAccess, call: Any) -> None:
        sessions.append(session)
        session.on_disconnect(told.append)
        session.add_service(Recorder("service", log))
        await attached(session, access)
        with session.keepalive("k"):
            await call()
        await session.detach()
        await session.shutdown()

    async def with_fake() -> None:
        async with orc_trio.open_session() as session:
            await life(session, FakeAccess(), lambda: session.call_controller(1, b""))

    async def with_peer() -> None:
        here, there = await connected_pair(kind)
        raw = RawPeer(there)

        async def peer() -> None:
            with trio.CancelScope(shield=True):
                try:
                    await raw.settle(Role.CONTROLLER)
                    while (message := await raw.receive()) is not None and message.opcode != Opcode.HANG_UP:
                        pass
                    await raw.hang_up()
                except (trio.BrokenResourceError, AssertionError):
                    pass
                await raw.close()

        async def call() -> None:
            with trio.move_on_after(0):
                await session.call_controller(1, b"")

        try:
            async with orc_trio.open_session() as session:
                nursery.start_soon(peer)
                await life(session, orc_trio.StreamControllerAccess(here), call)
        finally:
            with trio.CancelScope(shield=True):
                await here.aclose()

    async with trio.open_nursery() as nursery:
        steps = await at_every_checkpoint(with_fake if kind == "fake" else with_peer)
    assert steps > 5
    for session in sessions:
        assert session.state is SessionState.SHUT_DOWN
        assert session.statistics().keepalives == ()
    assert log.count("service detached") == log.count("service shut down") == len(sessions)
    assert len(told) <= len(sessions)
    assert quiet(caplog)


async def test_the_goodbye_of_a_cancelled_owner_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """G18: everything a cancelled owner waits for is bounded: the access, the services, the keepalives."""

    class Deaf(FakeAccess):
        async def run(self, host: Any) -> orc_trio.DisconnectReason:
            host.connected()
            await trio.sleep_forever()
            raise AssertionError

    with trio.CancelScope() as scope:
        async with orc_trio.open_session(service_timeout=2) as session:
            for name in "a", "b":
                service = Recorder(name, [])
                service.detaching = service.shutting_down = trio.sleep_forever
                session.add_service(service)
            await attached(session, Deaf())
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() <= 2 * 5
    assert session.disconnect_reason is not None
    assert session.disconnect_reason.kind is DisconnectKind.OWNER_CANCELLED


@pytest.mark.parametrize("kind", ["fake", "memory", "inprocess"])
async def test_the_goodbye_begins_when_the_owner_is_cancelled(kind: str) -> None:
    """G18: a body that does not notice the cancellation yet, because it is shielded, holds up no goodbye."""
    ended = trio.Event()
    access: orc_trio.ControllerAccess = FakeAccess()
    with no_hang(), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            if kind != "fake":
                here, there = await connected_pair(kind)  # type: ignore[call-overload]
                raw = RawPeer(there)
                access = orc_trio.StreamControllerAccess(here)
                nursery.start_soon(raw.settle, Role.CONTROLLER)
            async with orc_trio.open_session() as session:
                session.on_disconnect(lambda _reason: ended.set())
                await attached(session, access)
                with trio.CancelScope(shield=True):
                    scope.cancel()
                    if kind != "fake":
                        await raw.goodbye()
                    await ended.wait()
                    await trio.testing.wait_all_tasks_blocked()
                    assert session.state is SessionState.SHUT_DOWN
    assert scope.cancelled_caught
    assert session.disconnect_reason is not None
    assert session.disconnect_reason.kind is DisconnectKind.OWNER_CANCELLED


@pytest.mark.parametrize("end", ["session", "controller", "pair"])
@pytest.mark.filterwarnings("ignore::trio.TrioDeprecationWarning")
def test_the_bodys_exception_in_a_run_without_strict_groups(end: str) -> None:
    """G18: the body's exception is the same whatever the run says of exception groups; and so is a group of its own."""

    async def main(error: BaseException, scope: trio.CancelScope) -> None:
        if end == "pair":
            async with connected_ends("memory"):
                scope.cancel()
                raise error
        if end == "session":
            async with orc_trio.open_session():
                scope.cancel()
                raise error
        here, there = await connected_pair("memory")
        raw = RawPeer(there)
        trio.lowlevel.spawn_system_task(raw.settle, Role.EXECUTOR)
        async with orc_trio.open_controller(here, orc_trio.HandlerRegistry()):
            trio.lowlevel.spawn_system_task(raw.goodbye)
            scope.cancel()
            raise error

    async def check() -> None:
        errors: list[Any] = [ValueError("v"), ExceptionGroup("of one", [ValueError("v")])]
        for error in errors:
            for cancelled in (False, True):
                with trio.CancelScope() as scope, pytest.raises(type(error)) as caught:
                    await main(error, scope if cancelled else trio.CancelScope())
                assert caught.value is error or caught.value.exceptions == error.exceptions

    trio.run(check, strict_exception_groups=False)


async def test_a_service_added_in_any_step_of_the_end() -> None:
    """G20, G23: it is told of the detach and shut down, once, in order; or it is refused, and told nothing."""
    refused = 0
    for steps in range(40):
        log: list[str] = []
        async with orc_trio.open_session() as session:
            session.add_service(Recorder("early", log))
            await attached(session)
            session.begin_shutdown()
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            try:
                session.add_service(Recorder("late", log))
            except orc_trio.LocalProtocolError:
                refused += 1
                assert session.state is SessionState.SHUT_DOWN
        late = [line for line in log if line.startswith("late")]
        assert late in ([], ["late detached", "late shut down"])
        assert (late == []) is (session.state is SessionState.SHUT_DOWN and refused > 0)
        assert [line for line in log if line.startswith("early")] == ["early detached", "early shut down"]
    assert 0 < refused < 40


@every_transport
async def test_a_shutdown_under_calls_back_is_quiet(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """G19, G24: functions that call the controller when the shutdown comes fail with it, and log nothing."""

    async def back_and_forth(_args: bytes) -> bytes:
        while True:
            await both.session.call_controller(both.symbols["echo"], b"x")

    async def call() -> None:
        with pytest.raises(orc_trio.DisconnectedError):
            await both.call("back_and_forth")

    async def echo(args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return args

    for steps in range(0, 30, 3):
        async with connected_ends(kind, wrappers={"back_and_forth": back_and_forth}, handlers={"echo": echo}) as both:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call)
                while both.session.statistics().running_wrappers == ():
                    await trio.lowlevel.checkpoint()
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                assert await both.session.shutdown() == LOCAL
    assert quiet(caplog)


async def test_an_access_that_raises_what_cannot_be_shown() -> None:
    """G11: an exception without a text is told like any other, and goes to the owner."""

    class Silent(Exception):
        def __str__(self) -> str:
            raise LookupError("silent")

    class Failing(FakeAccess):
        async def run(self, host: Any) -> orc_trio.DisconnectReason:
            host.connected()
            await trio.lowlevel.checkpoint()
            raise Silent

    with pytest.raises(Silent):  # noqa: PT012
        async with orc_trio.open_session() as session:
            await attached(session, Failing())
            await session.wait_detached()
    assert session.disconnect_reason is not None
    assert session.disconnect_reason.kind is DisconnectKind.INTERNAL_ERROR
    assert "Silent" in session.disconnect_reason.detail
