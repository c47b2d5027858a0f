# Controller accesses that others wrote, through orc_trio.abc alone: good ones are honoured, bad ones found out.

from __future__ import annotations

import ast
import logging
import pathlib
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
import session_fakes
from harness import FaultyStream, connected_ends, quiet
from orc_trio import Certainty, DisconnectKind, SessionState
from orc_trio.abc import AccessHost
from session_fakes import LOCAL, REMOTE, FakeAccess, Recorder, attached, given_up

Reason = orc_trio.DisconnectReason


async def test_it_is_honoured(caplog: pytest.LogCaptureFixture) -> None:
    """G11, G13, G20, G21: whatever carries the calls, the session keeps its promises with it."""
    caplog.set_level(logging.DEBUG, "orc_trio")
    log: list[str] = []
    access = FakeAccess(log=log)
    results: list[Any] = []
    async with orc_trio.open_session() as session:
        bootstrap = orc_trio.BootstrapInfo.for_session(session)
        address = bootstrap.add_wrapper("echo", lambda args: args)
        session.add_service(Recorder("service", log))
        session.on_disconnect(lambda reason: log.append(str(reason)))
        await session.attach(access, bootstrap)
        assert access.host.bootstrap is bootstrap
        assert await session.call_controller(1, b"to") == b"to"
        assert await access.host.run_wrapper(address, b"from") == b"from"
        with pytest.raises(orc_trio.UnknownHandlerTagError):
            await access.host.run_wrapper(1, b"")

        async def waits() -> None:
            with trio.CancelScope(shield=True):
                results.append(await session.detach())

        # A call of its own task tree cannot wait for the session: found by ancestry.
        access.nursery.start_soon(waits)
        await session.wait_detached()
        with pytest.raises(orc_trio.NoControllerError):
            await session.call_controller(1, b"")
    assert results == [LOCAL]
    assert log == ["access ended", "local hang-up", "service detached", "service shut down"]
    assert quiet(caplog)


def test_it_needs_the_contracts_alone() -> None:
    """G20: the access of these tests imports nothing but the public names and `orc_trio.abc`."""
    path = pathlib.Path(session_fakes.__file__)
    modules = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("orc_trio")
    ]
    assert set(modules) == {"orc_trio", "orc_trio.abc"}


@pytest.mark.parametrize("kind", list(DisconnectKind))
async def test_what_it_returns_before_it_connected(kind: DisconnectKind) -> None:
    """G20: an access that returns without connecting is a failed attach, CONNECT_FAILED, unless we chose the end."""
    own = {
        DisconnectKind.CONNECT_FAILED,
        DisconnectKind.LOCAL_HANGUP,
        DisconnectKind.OWNER_CANCELLED,
        DisconnectKind.INTERNAL_ERROR,
    }

    class Early(FakeAccess):
        async def run(self, host: AccessHost) -> Reason:
            return Reason(kind, "why")

    told: list[Reason] = []
    async with orc_trio.open_session() as session:
        session.on_disconnect(told.append)
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await attached(session, Early())
        assert caught.value.certainty is Certainty.NOT_SENT
        reason = caught.value.reason
        if kind in own:
            assert reason == Reason(kind, "why")
        else:
            assert reason.kind is DisconnectKind.CONNECT_FAILED
            assert reason.cause == Reason(kind, "why")
        assert told == [reason]
        assert await session.detach() == session.disconnect_reason == reason


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt(), SystemExit(1)])
async def test_it_raises_before_it_connected(error: BaseException) -> None:
    """G11, G20: what it raises instead of connecting is raised by the attach; the end is INTERNAL_ERROR, told once."""

    class Raising(FakeAccess):
        async def run(self, host: AccessHost) -> Reason:
            await trio.lowlevel.checkpoint()
            raise error

    told: list[Reason] = []
    async with orc_trio.open_session() as session:
        session.on_disconnect(told.append)
        with pytest.raises(type(error)) as caught:
            await attached(session, Raising())
        assert caught.value is error
        assert [reason.kind for reason in told] == [DisconnectKind.INTERNAL_ERROR]
        assert type(error).__name__ in told[0].detail
        assert await session.detach() == told[0]
        assert session.state is SessionState.DETACHED
        with pytest.raises(orc_trio.LocalProtocolError):
            await attached(session)


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt()])
async def test_it_raises_when_connected(error: BaseException) -> None:
    """G11: what it raises later ends the session and reaches the owner unwrapped."""

    class Raising(FakeAccess):
        async def run(self, host: AccessHost) -> Reason:
            await super().run(host)
            raise error

    told: list[Reason] = []
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        async with orc_trio.open_session() as session:
            session.on_disconnect(told.append)
            access = await attached(session, Raising())
            access.begin_disconnect(REMOTE)
            await trio.sleep_forever()
    assert caught.value is error
    assert told == [REMOTE]  # G11: the end is the cause in force


async def test_it_raises_when_the_attach_was_cancelled() -> None:
    """G11, G18: nobody waits for the attach any more, and what it raises reaches the owner all the same."""

    class Raising(FakeAccess):
        async def run(self, host: AccessHost) -> Reason:
            await super().run(host)
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):  # noqa: PT012
        async with orc_trio.open_session() as session:
            await given_up(session, access := Raising(connects=False))
            assert access.cause == LOCAL
            await trio.sleep_forever()


@pytest.mark.parametrize("connects", [False, True])
@pytest.mark.parametrize("returned", [None, "gone", DisconnectKind.LOCAL_HANGUP])
async def test_it_returns_no_reason(connects: bool, returned: Any) -> None:
    """G11: what it returns must be a reason: a clear error, at once, to whoever waits."""

    class Wrong(FakeAccess):
        async def run(self, host: AccessHost) -> Reason:
            if connects:
                host.connected()
            return returned  # type: ignore[no-any-return]

    with pytest.raises(TypeError, match="must return how it ended"):  # noqa: PT012
        async with orc_trio.open_session() as session:
            await attached(session, Wrong())
            assert connects
            await trio.sleep_forever()
    assert session.disconnect_reason is not None
    assert session.disconnect_reason.kind is DisconnectKind.INTERNAL_ERROR


@pytest.mark.parametrize("connects", [False, True])
@pytest.mark.parametrize("end", ["detach", "shutdown"])
async def test_its_begin_disconnect_raises(connects: bool, end: str) -> None:
    """G12: an access that cannot be told to stop is cancelled; its error is raised; nobody hangs."""

    class Wrong(FakeAccess):
        def begin_disconnect(self, reason: Reason | None = None) -> Reason:
            raise ValueError("wrong")

    access = Wrong(connects=connects)
    with pytest.raises(ValueError, match="wrong"):  # noqa: PT012
        async with orc_trio.open_session() as session:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def stop() -> None:
                    await access.running.wait()
                    await getattr(session, end)()

                try:
                    await attached(session, access)
                except ValueError as exc:
                    error = exc
                else:
                    await trio.sleep_forever()
            raise error
    assert session.disconnect_reason is not None
    assert session.disconnect_reason.kind is DisconnectKind.INTERNAL_ERROR
    assert session.state is SessionState.SHUT_DOWN


@pytest.mark.parametrize("connects", [False, True])
async def test_it_does_not_end(
    connects: bool, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """G18: an access that ignores its disconnect is waited for, until the owner is cancelled and the bound ran out."""

    class Deaf(FakeAccess):
        async def run(self, host: AccessHost) -> Reason:
            if connects:
                host.connected()
            self.running.set()
            await trio.sleep_forever()
            raise AssertionError

    log: list[str] = []
    with trio.CancelScope() as scope:
        try:
            async with orc_trio.open_session(service_timeout=4) as session, trio.open_nursery() as nursery:
                session.add_service(Recorder("service", log))
                access = Deaf()
                nursery.start_soon(attached, session, access)
                await access.running.wait()
                session.begin_shutdown()
                await trio.sleep(1000)
                assert session.state is (SessionState.ATTACHED if connects else SessionState.START)
                scope.cancel()
                await trio.sleep_forever()
        finally:
            assert trio.current_time() == 1004
    assert scope.cancelled_caught
    assert log == ["service detached", "service shut down"]
    assert session.disconnect_reason is not None
    assert "did not end in time" in caplog.text


@pytest.mark.parametrize("end", ["detach", "shutdown", "cancel", "leave"])
async def test_it_never_connects(end: str) -> None:
    """G12, G20: an access that never says that it connected leaves the attach waiting; every end ends that."""
    access, scope = FakeAccess(connects=False), trio.CancelScope()

    async def attach() -> None:
        with scope, pytest.raises(orc_trio.DisconnectedError) as caught:
            await attached(session, access)
        assert scope.cancelled_caught or caught.value.reason == LOCAL

    async with trio.open_nursery() as nursery, orc_trio.open_session() as session:
        nursery.start_soon(attach)
        await access.running.wait()
        match end:
            case "detach":
                assert await session.detach() == LOCAL
            case "shutdown":
                assert await session.shutdown() == LOCAL
            case "cancel":
                scope.cancel()
                assert await session.wait_detached() == LOCAL
    assert session.state is SessionState.SHUT_DOWN
    assert scope.cancelled_caught is (end == "cancel")


async def test_it_says_that_it_connected_too_late() -> None:
    """G20: a word of its host after the end changes nothing."""
    async with orc_trio.open_session() as session:
        access = FakeAccess(connects=False)
        await given_up(session, access)
        await session.wait_detached()
        access.host.connected()
        assert session.state is SessionState.DETACHED


async def test_the_bootstrap_of_another() -> None:
    """G20: the usual access, used twice, is a clear error, and leaves the first session alone."""
    access = FakeAccess()
    async with orc_trio.open_session() as one:
        await attached(one, access)
        assert one.state is SessionState.ATTACHED
    here, there = trio.testing.memory_stream_pair()
    used = orc_trio.StreamControllerAccess(here)
    await there.aclose()
    async with orc_trio.open_session() as one, orc_trio.open_session() as other:
        with pytest.raises(orc_trio.DisconnectedError):
            await attached(one, used)
        with pytest.raises(orc_trio.LocalProtocolError, match="run once"):
            await attached(other, used)


async def test_a_failed_attach_whose_goodbye_was_not_taken(autojump_clock: trio.testing.MockClock) -> None:
    """G11, G20: A frozen peer that never accepted us: the failure is CONNECT_FAILED, the end the drain's, around it."""
    limits = orc_trio.Limits(setup_timeout=2.0, drain_timeout=3.0)
    told: list[Reason] = []

    async def control(stream: FaultyStream) -> None:
        registry = orc_trio.HandlerRegistry()
        async with orc_trio.open_controller(stream, registry, limits=limits, on_disconnect=told.append):
            pytest.fail("it connected")

    async def attach(stream: FaultyStream) -> None:
        async with orc_trio.open_session() as session:
            session.on_disconnect(told.append)
            await attached(session, orc_trio.StreamControllerAccess(stream, limits=limits))

    for connect in (control, attach):
        here, _there = trio.testing.memory_stream_pair()
        stream = FaultyStream(here)
        stream.blocked = trio.Event()
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await connect(stream)
        assert caught.value.certainty is Certainty.NOT_SENT
        assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
        end = told.pop()
        assert end.kind is DisconnectKind.DRAIN_TIMEOUT
        assert end.cause == caught.value.reason


async def test_an_access_that_ran_out_of_its_bound_before_it_was_connected() -> None:
    """G11, G20: An end is the drain's around its cause, never inside it."""
    lost = Reason(DisconnectKind.EOF_WITHOUT_HANGUP)
    for cause, expected in [(LOCAL, LOCAL.kind), (lost, DisconnectKind.CONNECT_FAILED)]:
        access = FakeAccess(connects=False)
        access.begin_disconnect(Reason(DisconnectKind.DRAIN_TIMEOUT, "5 s", cause))
        async with orc_trio.open_session() as session:
            with pytest.raises(orc_trio.DisconnectedError) as caught:
                await attached(session, access)
            end = await session.wait_detached()
        assert caught.value.reason.kind is expected
        assert end == Reason(DisconnectKind.DRAIN_TIMEOUT, "5 s", caught.value.reason)


async def test_an_error_of_an_access_of_ones_own_is_not_passed_on() -> None:
    """G9: what came by it does not reach the peer of a connection by accident, and does reach its own."""

    class Failing(FakeAccess):
        async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> bytes:
            await trio.lowlevel.checkpoint()
            raise orc_trio.WrapperFunctionError("Secret", "for the caller alone")

    async def ask(_args: bytes) -> bytes:
        return await session.call_controller(1, b"")

    async with orc_trio.open_session() as session, connected_ends("memory", wrappers={"ask": ask}) as both:
        access = Failing()
        address = session.wrappers.add(ask)
        await attached(session, access)
        with pytest.raises(orc_trio.WrapperFunctionError) as caught:
            await both.call("ask")
        assert caught.value.remote_type == "HandlerFailed"
        assert "alone" not in str(caught.value)
        with pytest.raises(orc_trio.WrapperFunctionError, match="Secret"):
            await access.host.run_wrapper(address, b"")
