# A session's life: states, attaching, calls, services and callbacks that come late, and the order of the end.

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

import orc_trio
from harness import (
    FaultyStream,
    RawPeer,
    call_message,
    connected_ends,
    connected_pair,
    every_transport,
    every_virtual,
    quiet,
)
from orc_trio import Certainty, DisconnectKind, SessionState
from orc_trio.protocol import Role
from orc_trio.sockets import as_transport
from orc_trio.wire import Message, Opcode
from session_fakes import LOCAL, REMOTE, FakeAccess, Recorder, attached, given_up

# --- G20: states ---


@every_transport
async def test_states(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """G19, G20: start, attached, detached, shut down; never back; each step is quiet."""
    caplog.set_level(logging.DEBUG, "orc_trio")
    async with connected_ends(kind) as ends:
        session = ends.session
        assert session.state is SessionState.ATTACHED
        assert session.disconnect_reason is None
        await session.detach()
        assert session.state is SessionState.DETACHED
        await session.shutdown()
        assert session.state is SessionState.SHUT_DOWN
        assert await session.detach() == await session.shutdown() == session.disconnect_reason == LOCAL
        assert session.state is SessionState.SHUT_DOWN
        assert ends.session.statistics().state is SessionState.SHUT_DOWN
    assert quiet(caplog)


async def test_it_attaches_once() -> None:
    """G20: attached at most once: not while attaching, attached, detached or shut down."""
    async with orc_trio.open_session() as session:

        async def refused(state: str) -> None:
            access = FakeAccess()
            with pytest.raises(orc_trio.LocalProtocolError, match=state):
                await attached(session, access)
            assert not access.running.is_set()

        assert session.state is SessionState.START
        async with trio.open_nursery() as nursery:
            access = FakeAccess(connects=False)
            nursery.start_soon(attached, session, access)
            await access.running.wait()
            assert session.state is SessionState.START
            await refused("attaching")
            access.host.connected()
            access.host.connected()
        assert session.state is SessionState.ATTACHED
        await refused("attached")
        await session.detach()
        access.host.connected()
        await refused("detached")
        await session.shutdown()
        access.host.connected()
        await refused("shut down")


@pytest.mark.parametrize("end", ["detach", "shutdown", "begin_shutdown"])
async def test_no_attach_after_an_end(end: str) -> None:
    """G20, G22: nor after a detach or a shutdown that came first, or was only asked for."""
    async with orc_trio.open_session() as session:
        if end == "begin_shutdown":
            session.begin_shutdown()
        else:
            await getattr(session, end)()
        with pytest.raises(orc_trio.LocalProtocolError):
            await attached(session)


async def test_a_cancelled_attach_that_had_not_begun() -> None:
    """G20: an attach cancelled before it began has not been the one."""
    async with orc_trio.open_session() as session:
        with trio.CancelScope() as scope:
            scope.cancel()
            await attached(session)
        assert scope.cancelled_caught
        await attached(session)


async def test_a_cancelled_attach() -> None:
    """G18, G20: a cancelled attach is given up, and was the one."""
    told: list[orc_trio.DisconnectReason] = []
    async with orc_trio.open_session() as session:
        session.on_disconnect(told.append)
        await given_up(session, FakeAccess(connects=False))
        assert await session.wait_detached() == LOCAL
        assert told == [LOCAL]
        with pytest.raises(orc_trio.LocalProtocolError, match="detached"):
            await attached(session)


@every_transport
@pytest.mark.parametrize("how", ["end of stream", "garbage", "hang-up", "wrong role"])
async def test_a_failed_attach(kind: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """G20: a failed attach consumes it: CONNECT_FAILED, NOT_SENT; on-disconnect runs once, services are told."""
    told, log = list[orc_trio.DisconnectReason](), list[str]()
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with orc_trio.open_session() as session:
        session.on_disconnect(told.append)
        session.add_service(service := Recorder("service", log))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def peer() -> None:
                match how:
                    case "garbage":
                        await raw.send(Message(Opcode.CALL, 1, 1))
                    case "hang-up":
                        await raw.hang_up()
                    case "wrong role":
                        await raw.settle(Role.EXECUTOR)
                await raw.close()

            with pytest.raises(orc_trio.DisconnectedError) as caught:
                await session.attach(orc_trio.StreamControllerAccess(here), orc_trio.BootstrapInfo.for_session(session))
            assert told == [caught.value.reason]
            assert log == ["service detached"]
        assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
        assert caught.value.certainty is Certainty.NOT_SENT
        assert service.reason == session.disconnect_reason == await session.detach() == caught.value.reason
        assert session.state is SessionState.DETACHED
        with pytest.raises(orc_trio.LocalProtocolError):
            await attached(session)
        with pytest.raises(orc_trio.NoControllerError):
            await session.call_controller(1, b"")
    assert told == [caught.value.reason]


@every_virtual
async def test_a_silent_controller(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G20: a controller that says nothing is a failed attach after the setup timeout."""
    here, there = await connected_pair(kind)
    async with orc_trio.open_session() as session:
        access = orc_trio.StreamControllerAccess(here, limits=orc_trio.Limits(setup_timeout=3))
        with pytest.raises(orc_trio.DisconnectedError, match="within 3 s") as caught:
            await attached(session, access)
        assert caught.value.reason.cause is not None or caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
        assert trio.current_time() <= 3 + orc_trio.Limits().drain_timeout
    await RawPeer(there).close()


async def test_disconnected_while_attaching() -> None:
    """G12, G20: a detach while attaching ends both with the same end."""
    async with orc_trio.open_session() as session, trio.open_nursery() as nursery:
        access = FakeAccess(connects=False)

        @nursery.start_soon
        async def attach() -> None:
            with pytest.raises(orc_trio.DisconnectedError) as caught:
                await attached(session, access)
            assert caught.value.reason == LOCAL

        await access.running.wait()
        assert await session.detach() == LOCAL


async def test_an_attach_that_was_short() -> None:
    """G20: an access that connected has attached, however soon it ended."""

    class Short(FakeAccess):
        async def run(self, host: Any) -> orc_trio.DisconnectReason:
            host.connected()
            return REMOTE

    async with orc_trio.open_session() as session:
        await attached(session, Short())
        assert await session.wait_detached() == REMOTE


# --- G21: calls ---


@every_transport
async def test_calls_at_every_time(kind: str) -> None:
    """G21: before attach and after detach NoControllerError; between latch and end the cause, NOT_SENT."""
    release = trio.Event()

    async def shielded(_args: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            await release.wait()
        return b""

    async def handler(args: bytes) -> bytes:
        return args

    async with orc_trio.open_session() as fresh:
        with pytest.raises(orc_trio.NoControllerError, match="not attached yet"):
            await fresh.call_controller(1, b"")
    async with connected_ends(kind, wrappers={"shielded": shielded}, handlers={"handler": handler}) as ends:
        session, tag = ends.session, ends.symbols["handler"]
        assert await session.call_controller(tag, b"x") == b"x"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(orc_trio.DisconnectedError):
                    await ends.call("shielded")

            while not session.statistics().running_wrappers:
                await trio.lowlevel.checkpoint()
            cause = session.begin_detach()
            with pytest.raises(orc_trio.DisconnectedError) as caught:
                await session.call_controller(tag, b"x")
            assert caught.value.reason == cause
            assert caught.value.certainty is Certainty.NOT_SENT
            release.set()
        await session.wait_detached()
        with pytest.raises(orc_trio.NoControllerError, match="detached"):
            await session.call_controller(tag, b"x")
        await session.shutdown()
        with pytest.raises(orc_trio.NoControllerError, match="shut down"):
            await session.call_controller(tag, b"x")


async def test_calls_while_attaching() -> None:
    """G21: while it is attaching there is no controller yet."""
    async with orc_trio.open_session() as session, trio.open_nursery() as nursery:
        access = FakeAccess(connects=False)
        nursery.start_soon(attached, session, access)
        await access.running.wait()
        with pytest.raises(orc_trio.NoControllerError, match="attaching"):
            await session.call_controller(1, b"")
        access.host.connected()
        assert await session.call_controller(1, b"x") == b"x"


async def test_a_call_is_a_checkpoint() -> None:
    """G18: a call that cannot be made is a checkpoint all the same."""
    async with orc_trio.open_session() as session:
        with trio.CancelScope() as scope:
            scope.cancel()
            await session.call_controller(1, b"")
        assert scope.cancelled_caught


async def test_wait_detached_of_a_session_never_attached() -> None:
    """G12: there is no end to wait for where nothing was attached."""
    async with orc_trio.open_session() as session:
        assert await session.detach() == LOCAL
        assert session.disconnect_reason is None
        with pytest.raises(orc_trio.NoControllerError):
            await session.wait_detached()
        assert await session.shutdown() is None


# --- statistics ---


@every_transport
async def test_statistics(kind: str) -> None:
    """G22: statistics name who holds a keepalive, and what runs; a threaded wrapper that was let go stays in them."""
    started, go = threading.Event(), threading.Event()

    def stuck(_args: bytes) -> bytes:
        started.set()
        go.wait(20)
        return b""

    async with connected_ends(kind, threaded={"stuck": stuck}) as ends:
        assert ends.session.statistics().connection is not None
        with ends.session.keepalive("mine"):
            assert ends.session.statistics().keepalives == ("mine",)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.call, "stuck")
                await trio.to_thread.run_sync(started.wait)
                nursery.cancel_scope.cancel()
            ends.session.begin_detach()
            await ends.session.wait_detached()
            statistics = ends.session.statistics()
            assert statistics.state is SessionState.DETACHED
            assert statistics.keepalives == ("mine", "stuck")
            assert statistics.running_wrappers == ("stuck",)
            assert statistics.connection is not None
            assert statistics.connection.running_handlers == ("stuck",)
            go.set()
    assert ends.session.statistics().keepalives == ends.session.statistics().running_wrappers == ()


async def test_statistics_without_a_connection() -> None:
    """G22: nothing was attached: no connection; an access that has no statistics of its own has empty ones."""
    async with orc_trio.open_session() as session:
        assert session.statistics().connection is None
        await attached(session)
        assert session.statistics().connection == orc_trio.ConnectionStatistics()


# --- G14: the order of the end ---


@every_virtual
async def test_the_order_of_the_end(kind: str) -> None:
    """G14: the whole end, from the latch to the last on_shutdown, is one sequence."""
    log: list[str] = []
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    gate = trio.Event()

    class Logged(orc_trio.MessageTransport):
        """Logs what matters of another transport; sends when the gate is open."""

        inner = as_transport(here)
        blocked = False

        async def send(self, messages: Any) -> None:
            if self.blocked:
                await gate.wait()
            log.extend(f"sent {Opcode(message.opcode).name}" for message in messages)
            await self.inner.send(messages)

        async def receive(self) -> Any:
            messages = await self.inner.receive()
            log.extend(f"read {Opcode(message.opcode).name}" for message in messages)
            return messages

        async def send_eof(self) -> None:
            log.append("half-closed")
            await self.inner.send_eof()

        async def aclose(self) -> None:
            log.append("closed")
            await self.inner.aclose()

    transport = Logged()

    async def quick(_args: bytes) -> bytes:
        transport.blocked = True
        return b"queued"

    async def slow(_args: bytes) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            log.append("handler ended")
        raise AssertionError

    async def call(i: int) -> None:
        with pytest.raises(orc_trio.DisconnectedError):
            await session.call_controller(i, b"")
        assert not [entry for entry in log if entry.startswith(("handler", "half", "closed"))]
        called.append(i)

    called: list[int] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, orc_trio.open_session() as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            addresses = [bootstrap.add_wrapper("slow", slow), bootstrap.add_wrapper("quick", quick)]
            session.on_disconnect(lambda reason: log.append(f"told {reason}"))
            session.on_disconnect(lambda reason: log.append(f"told {reason} again"))
            for name in "one", "two":
                session.add_service(Recorder(name, log))
            nursery.start_soon(raw.settle, Role.CONTROLLER)
            await session.attach(orc_trio.StreamControllerAccess(transport), bootstrap)
            for i in 1, 2:
                nursery.start_soon(call, i)
            keepalive = session.keepalive("held")
            await raw.expect(Opcode.CALL)
            await raw.expect(Opcode.CALL)
            await raw.send(*(call_message(i + 1, address) for i, address in enumerate(addresses)))
            while not transport.blocked:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            log.clear()

            # From here on, what is logged is the end.
            session.begin_shutdown()
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(called) == [1, 2]
            gate.set()
            await raw.expect(Opcode.RESULT)
            while (message := await raw.receive()) is not None and message.opcode != Opcode.HANG_UP:
                log.append("an answer in between")
            await raw.send(Message(Opcode.PING))
            await raw.hang_up()
            await raw.close()
            await session.wait_detached()
            await trio.testing.wait_all_tasks_blocked()
            log.append("keepalive released")
            keepalive.release()
            await session.shutdown()
            log.append("shutdown returned")
    assert [entry for entry in log if entry != "handler ended"] == [
        "sent RESULT",
        "sent HANG_UP",
        "half-closed",
        "read PING",
        "read HANG_UP",
        "closed",
        "told local hang-up",
        "told local hang-up again",
        "one detached",
        "two detached",
        "keepalive released",
        "two shut down",
        "one shut down",
        "shutdown returned",
    ]
    # The handler's end is not in the way of the goodbye, and comes before anybody is told (G13).
    assert log.index("handler ended") < log.index("told local hang-up")


@every_transport
async def test_the_terminal_state(kind: str) -> None:
    """G13: when a detach returns no wrapper function runs, none starts, and its `finally` blocks have finished."""
    running = 0

    async def wrapper(_args: bytes) -> bytes:
        nonlocal running
        running += 1
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            running -= 1
        raise AssertionError

    async def call() -> None:
        with pytest.raises(orc_trio.OrcError):
            await ends.call("wrapper")

    async with connected_ends(kind, wrappers={"wrapper": wrapper}) as ends:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)
            while running < 5:
                await trio.lowlevel.checkpoint()
            await ends.session.detach()
            assert running == 0
            assert ends.session.statistics().running_wrappers == ()
            connection = ends.session.statistics().connection
            assert connection is not None
            assert (connection.state, connection.pending_calls, connection.served_calls) == ("closed", 0, 0)


# --- what comes late ---


async def test_late_callbacks_run_at_once() -> None:
    """G14: a callback registered when the end is known runs at once, also from a callback or an on_detach."""
    told: list[tuple[int, orc_trio.DisconnectReason]] = []
    service = Recorder("service", [])
    async with orc_trio.open_session() as session:

        def first(reason: orc_trio.DisconnectReason) -> None:
            told.append((1, reason))
            session.on_disconnect(lambda reason: told.append((2, reason)))
            assert told[-1][0] == 2

        async def detaching() -> None:
            session.on_disconnect(lambda reason: told.append((3, reason)))

        service.detaching = detaching
        session.add_service(service)
        session.on_disconnect(first)
        await attached(session)
        await session.detach()
        session.on_disconnect(lambda reason: told.append((4, reason)))
    session.on_disconnect(lambda reason: told.append((5, reason)))
    assert told == [(i, LOCAL) for i in (1, 2, 3, 4, 5)]


async def test_a_late_callback_that_raises() -> None:
    """G14: what a callback raises that runs at once is its registrar's."""

    def fail(_reason: orc_trio.DisconnectReason) -> None:
        raise ValueError("late")

    async with orc_trio.open_session() as session:
        await attached(session)
        await session.detach()
        with pytest.raises(ValueError, match="late"):
            session.on_disconnect(fail)


async def test_callbacks_of_a_session_never_attached() -> None:
    """G14: nothing was attached, so there is no disconnect to be told of."""
    async with orc_trio.open_session() as session:
        session.on_disconnect(lambda _reason: pytest.fail("told"))
        await session.detach()
        session.on_disconnect(lambda _reason: pytest.fail("told"))


@pytest.mark.parametrize("attach", [False, True])
async def test_late_services(attach: bool) -> None:
    """G23: a service added after the detach is told at once; after the shutdown it is refused."""
    log: list[str] = []
    async with orc_trio.open_session() as session:
        session.add_service(early := Recorder("early", log))
        if attach:
            await attached(session)
        await session.detach()
        assert log == ["early detached"]
        session.add_service(late := Recorder("late", log))
        await trio.testing.wait_all_tasks_blocked()
        assert log == ["early detached", "late detached"]
        assert early.reason == late.reason == (LOCAL if attach else None)
        # And one whose on_detach has not run when the shutdown is asked for.
        session.add_service(Recorder("last", log))
        await session.shutdown()
        assert log[2:] == ["last detached", "last shut down", "late shut down", "early shut down"]
        with pytest.raises(orc_trio.LocalProtocolError, match="shut down"):
            session.add_service(Recorder("too late", log))


async def test_services_of_a_session_never_attached() -> None:
    """G23: on_detach for all, also if nothing was ever attached."""
    log: list[str] = []
    async with orc_trio.open_session() as session:
        session.add_service(service := Recorder("service", log))
    assert log == ["service detached", "service shut down"]
    assert service.reason is None


async def test_a_service_added_by_on_shutdown() -> None:
    """G23: a service added while services are shut down is told of both, and not lost."""
    log: list[str] = []
    service = Recorder("service", log)
    async with orc_trio.open_session() as session:

        async def add() -> None:
            session.add_service(Recorder("late", log))

        service.shutting_down = add
        session.add_service(service)
    assert log == ["service detached", "service shut down", "late detached", "late shut down"]


# --- G22: keepalives ---


@every_transport
async def test_shutdown_waits_for_keepalives(kind: str) -> None:
    """G22: shutdown waits for every keepalive; new ones are denied from the moment it is requested."""
    log: list[str] = []
    async with connected_ends(kind) as ends:
        session = ends.session
        session.add_service(Recorder("service", log))
        held = [session.keepalive(f"k{i}") for i in range(3)]
        session.begin_shutdown()
        with pytest.raises(orc_trio.KeepaliveDeniedError):
            session.keepalive("late")
        await session.wait_detached()
        for keepalive in held:
            assert log == ["service detached"]
            assert session.state is SessionState.DETACHED
            await trio.to_thread.run_sync(keepalive.release)
            with trio.move_on_after(0.01):
                await trio.sleep_forever()
        await session.shutdown()
        assert log == ["service detached", "service shut down"]
        assert session.state is SessionState.SHUT_DOWN


async def test_wrappers_are_refused_once_shutdown_is_requested() -> None:
    """G13, G22: a wrapper call that comes after the request is refused; and after the end, for another reason."""
    async with orc_trio.open_session() as session:
        address = session.wrappers.add(lambda args: args, name="echo")
        access = await attached(session)
        assert await access.host.run_wrapper(address, b"x") == b"x"
        session.begin_shutdown()
        with pytest.raises(orc_trio.CallRefusedError, match="shutting down"):
            await access.host.run_wrapper(address, b"x")
    async with orc_trio.open_session() as session:
        address = session.wrappers.add(lambda args: args, name="echo")
        access = await attached(session)
        await session.detach()
        with pytest.raises(orc_trio.CallRefusedError, match="detached"):
            await access.host.run_wrapper(address, b"x")
        assert access.host.running() == ()


async def test_wrapper_calls_beside_a_shutdown() -> None:
    """G14, G22: from the step in which a shutdown is asked for no wrapper call begins; its caller hears of the end."""
    log: list[str] = []

    async def stop(_args: bytes) -> bytes:
        ends.session.begin_shutdown()
        log.append("stop")
        return b""

    async def probe(_args: bytes) -> bytes:
        log.append("probe")
        return b""

    async def call(name: str) -> None:
        with suppress(orc_trio.DisconnectedError):
            await ends.call(name)

    # Which of the handlers that start together comes first is Trio's choice.
    for _ in range(20):
        async with connected_ends("memory", wrappers={"stop": stop, "probe": probe}) as ends:
            async with trio.open_nursery() as nursery:
                for name in ["probe"] * 3 + ["stop"] + ["probe"] * 3:
                    nursery.start_soon(call, name)
        assert log.pop() == "stop"
    assert "probe" in log


async def test_a_faulty_transport_under_a_session() -> None:
    """G11: the session's end is that of its connection."""
    here, there = await connected_pair("memory")
    faulty = FaultyStream(here)
    async with trio.open_nursery() as nursery, orc_trio.open_session() as session:
        raw = RawPeer(there)
        nursery.start_soon(raw.settle, Role.CONTROLLER)
        await attached(session, orc_trio.StreamControllerAccess(faulty))
        faulty.fail_receive = trio.BrokenResourceError("it broke")
        with pytest.raises(orc_trio.DisconnectedError) as caught:  # noqa: PT012
            async with trio.open_nursery() as calling:

                @calling.start_soon
                async def answer() -> None:
                    await raw.expect(Opcode.CALL)
                    await raw.send(Message(Opcode.PING))

                try:
                    await session.call_controller(1, b"")
                except orc_trio.DisconnectedError as exc:
                    failure = exc
            raise failure
        assert caught.value.reason == await session.wait_detached()
        assert caught.value.reason.kind is DisconnectKind.TRANSPORT_ERROR
        await raw.close()
