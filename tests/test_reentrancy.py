# Several events of one step: what acting on one of them does to those behind it; and who may wait for the end.

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import (
    TAG,
    RawPeer,
    call_message,
    connected_ends,
    connected_pair,
    controller_and_raw,
    every_virtual,
    no_hang,
    quiet,
    result_message,
    setup_message,
)
from orc_trio import DisconnectKind
from orc_trio.connection import Connection
from orc_trio.protocol import Role
from orc_trio.sockets import as_transport
from orc_trio.wire import Message, Opcode

LOCAL = orc_trio.DisconnectReason(DisconnectKind.LOCAL_HANGUP)
REMOTE = orc_trio.DisconnectReason(DisconnectKind.REMOTE_HANGUP)
HANG_UP = Message(Opcode.HANG_UP, payload=b"\xf6")
OTHER = 5


async def forever(_args: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def called(controller: orc_trio.Controller | orc_trio.Session, target: int) -> bytes:
    """Call the other end, whichever end this is."""
    if isinstance(controller, orc_trio.Controller):
        return await controller.call_wrapper(target, b"question")
    return await controller.call_controller(target, b"question")


class One:
    """One end, whose function calls back the peer that speaks by hand, once its call has come.

    Attributes:
        end: A controller or a session.
        address: Where the peer reaches the function.
        got: What the function got from its own call, or what that raised.
    """

    end: Any
    address: int

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def function(self, _args: bytes) -> bytes:
        try:
            self.got.append(await called(self.end, OTHER))
        except BaseException as exc:
            self.got.append(type(exc))
            raise
        return b"answer"

    async def over(self) -> orc_trio.DisconnectReason:
        """How its connection ends."""
        wait = self.end.wait_disconnected if isinstance(self.end, orc_trio.Controller) else self.end.wait_detached
        reason: orc_trio.DisconnectReason = await wait()
        return reason


@asynccontextmanager
async def session_and_raw(kind: str) -> AsyncIterator[tuple[One, RawPeer]]:
    one = One()
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    with no_hang():
        async with trio.open_nursery() as nursery, orc_trio.open_session() as one.end:
            bootstrap = orc_trio.BootstrapInfo.for_session(one.end)
            one.address = bootstrap.add_wrapper("function", one.function)
            nursery.start_soon(raw.settle, Role.CONTROLLER)
            await one.end.attach(orc_trio.StreamControllerAccess(here), bootstrap)
            await trio.testing.wait_all_tasks_blocked()
            yield one, raw
            nursery.start_soon(raw.read_to_the_end)


@asynccontextmanager
async def controller_and_peer(kind: str) -> AsyncIterator[tuple[One, RawPeer]]:
    one = One()
    one.address = TAG
    async with controller_and_raw(kind, handler=one.function) as (one.end, raw):
        yield one, raw


every_role = pytest.mark.parametrize("opened", [session_and_raw, controller_and_peer], ids=["session", "controller"])
Opened = Callable[[str], Any]


# --- a cancel, and what is behind it ---


@every_virtual
@every_role
@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_cancel_and_the_result_of_the_call_its_function_made(
    kind: str, opened: Opened, cancel_first: bool
) -> None:
    """G5: A cancel and the result its function waits for, in one piece, are both absorbed; the connection goes on."""
    async with opened(kind) as (one, raw):
        for seq in (1, 2, 3):
            await raw.send(call_message(seq, one.address))
            nested = await raw.expect(Opcode.NESTED_CALL)
            messages = [Message(Opcode.CANCEL, seq), result_message(nested.seq, b"late")]
            await raw.send(*(messages if cancel_first else reversed(messages)))
            assert (await raw.expect(Opcode.RESULT)).seq == seq
            assert one.got == [b"late"] * seq  # G1: it had settled before its caller was cancelled
        await raw.send(call_message(4, one.address))
        await raw.send(result_message((await raw.expect(Opcode.NESTED_CALL)).seq, b"in time"))
        assert (await raw.expect(Opcode.RESULT)).payload == b"answer"
        assert one.end.disconnect_reason is None
        await raw.send(HANG_UP._replace(aux=4))
        await raw.expect(Opcode.HANG_UP)
        await raw.close()
        assert await one.over() == REMOTE


@every_virtual
@every_role
@pytest.mark.parametrize("result", [None, "before", "after"])
async def test_a_cancel_and_a_hang_up(
    kind: str, opened: Opened, result: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """G5, G11: A cancel and a hang-up, in one piece: an orderly end; the cancelled call's own call is cancelled too."""
    async with opened(kind) as (one, raw):
        await raw.send(call_message(1, one.address))
        nested = await raw.expect(Opcode.NESTED_CALL)
        messages = [Message(Opcode.CANCEL, 1), HANG_UP._replace(aux=1)]
        if result is not None:
            messages.insert(result == "after", result_message(nested.seq, b"late"))
        await raw.send(*messages)
        await raw.expect(Opcode.HANG_UP)
        await raw.close()
        assert await one.over() == REMOTE
        assert one.got == [trio.Cancelled if result is None else b"late"]
    assert quiet(caplog)


@every_virtual
@pytest.mark.parametrize("begin", ["disconnect", "detach"])
async def test_a_caller_leaves_and_so_does_its_end(kind: str, begin: str, caplog: pytest.LogCaptureFixture) -> None:
    """G5, G11: A caller that is cancelled in the step of the hang-up, with a call back on its way, changes no end."""

    async def ask(_args: bytes) -> bytes:
        return await both.session.call_controller(both.symbols["forever"], b"")

    async with connected_ends(kind, wrappers={"ask": ask}, handlers={"forever": forever}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.call, "ask")
            while not both.controller.statistics().running_handlers:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        if begin == "disconnect":
            both.controller.begin_disconnect()
        else:
            both.session.begin_detach()
        ends = [await both.controller.wait_disconnected(), await both.session.wait_detached()]
        assert ends == ([LOCAL, REMOTE] if begin == "disconnect" else [REMOTE, LOCAL])
    assert quiet(caplog)


@every_virtual
async def test_a_failure_loses_nothing_of_what_is_behind_it(kind: str) -> None:
    """G11: What acting on an event raises goes to the owner; the call and the hang-up behind it are acted on."""
    served: list[int] = []

    async def serve(tag: int, args: bytes | memoryview, nested: bool) -> bytes:
        served.append(tag)
        return b""

    def fail(_setup: object) -> None:
        raise LookupError("bug")

    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    subject = Connection(as_transport(here), Role.CONTROLLER, orc_trio.Limits(), serve, on_agreed=fail)
    with no_hang():
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def run() -> None:
                with pytest.raises(LookupError, match="bug"):
                    await subject.run()

            await raw.send(setup_message(Role.EXECUTOR), call_message(1, TAG), HANG_UP)
            await raw.expect(Opcode.SETUP)
            await raw.expect(Opcode.HANG_UP)
            await raw.close()
    assert subject.end == REMOTE
    assert served == []  # G13
    assert subject.statistics().served_calls == 0


@every_virtual
async def test_a_failure_alone_ends_the_connection(kind: str) -> None:
    """G11: What acting on an event raises is the cause, if there was none before it."""

    async def serve(tag: int, args: bytes | memoryview, nested: bool) -> bytes:
        raise AssertionError

    def fail(_setup: object) -> None:
        raise LookupError("bug")

    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    subject = Connection(as_transport(here), Role.CONTROLLER, orc_trio.Limits(), serve, on_agreed=fail)
    with no_hang():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.read_to_the_end)

            @nursery.start_soon
            async def run() -> None:
                with pytest.raises(LookupError, match="bug"):
                    await subject.run()

            await raw.send(setup_message(Role.EXECUTOR), call_message(1, TAG))
    assert subject.end is not None
    assert subject.end.kind is DisconnectKind.INTERNAL_ERROR


# --- what is news, and what is not ---


@every_virtual
@pytest.mark.parametrize("group", [False, True])
async def test_a_call_back_that_the_end_fails_is_no_news(
    kind: str, group: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """G19: A function that waits in a call back when its connection ends, and lets that escape, logs nothing."""
    failed: list[BaseException] = []

    async def ask(_args: bytes) -> bytes:
        try:
            if not group:
                return await both.session.call_controller(both.symbols["forever"], b"")
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(both.session.call_controller, both.symbols["forever"], b"")
        except BaseException as exc:
            failed.append(exc)
            raise
        raise AssertionError

    async def call() -> None:
        with pytest.raises(orc_trio.DisconnectedError):
            await both.call("ask")

    async with connected_ends(kind, wrappers={"ask": ask}, handlers={"forever": forever}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while len(both.controller.statistics().running_handlers) < 1 + group:
                await trio.lowlevel.checkpoint()
            assert await both.controller.disconnect() == LOCAL
        assert await both.session.wait_detached() == REMOTE
    assert len(failed) == 1
    assert isinstance(failed[0], BaseExceptionGroup if group else orc_trio.DisconnectedError)
    assert quiet(caplog)


@every_virtual
async def test_the_end_of_another_connection_is_news(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """G9: A function that lets the end of another connection escape, while its own is open, has failed: logged."""

    async def ask(_args: bytes) -> bytes:
        return await other.call("forever")  # type: ignore[return-value]

    async with (
        connected_ends(kind, wrappers={"forever": forever}) as other,
        connected_ends(kind, handlers={"ask": ask}) as both,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def call() -> None:
            with pytest.raises(orc_trio.WrapperFunctionError):
                await both.session.call_controller(both.symbols["ask"], b"")

        while not other.session.statistics().running_wrappers:
            await trio.lowlevel.checkpoint()
        assert await other.controller.disconnect() == LOCAL
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert f"ask failed, called under {both.symbols['ask']:#x}" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], orc_trio.DisconnectedError)


@every_virtual
async def test_another_failure_during_the_end_is_news(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """G19: What a function raises of its own is logged, also when its connection ends at that moment."""

    async def ask(_args: bytes) -> bytes:
        try:
            return await both.session.call_controller(both.symbols["forever"], b"")
        except orc_trio.DisconnectedError:
            raise LookupError("its own") from None

    async def call() -> None:
        with pytest.raises(orc_trio.DisconnectedError):
            await both.call("ask")

    async with connected_ends(kind, wrappers={"ask": ask}, handlers={"forever": forever}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while not both.controller.statistics().running_handlers:
                await trio.lowlevel.checkpoint()
            await both.controller.disconnect()
        await both.session.wait_detached()
    assert "LookupError: its own" in caplog.text


# --- who may wait for the end ---


@every_virtual
async def test_what_a_handler_started_elsewhere_waits_for_the_end(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    """G12: A task that a handler started in another nursery returns from a disconnect in the terminal state only."""
    seen: list[Any] = []

    async def background() -> None:
        reason = await both.controller.disconnect()
        seen.append((reason, both.controller.disconnect_reason, both.controller.statistics().state, tuple(left)))

    left: list[str] = []

    async def child() -> None:
        assert await both.controller.disconnect() == LOCAL
        assert both.controller.disconnect_reason is None

    async def handler(_args: bytes) -> bytes:
        try:
            application.start_soon(background)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                async with trio.open_nursery() as nursery:  # G12: what is within the handler does not wait
                    nursery.start_soon(child)
                left.append("handler")
        raise AssertionError

    async with trio.open_nursery() as application:
        async with connected_ends(kind, handlers={"handler": handler}) as both:
            with pytest.raises(orc_trio.DisconnectedError):
                await both.session.call_controller(both.symbols["handler"], b"")
            await both.controller.wait_disconnected()
    assert seen == [(LOCAL, LOCAL, "closed", ("handler",))]


@every_virtual
async def test_what_a_wrapper_started_elsewhere_waits_for_the_end(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    """G12: The same in the executor: a task started in another nursery waits for the detach, and for the shutdown."""
    seen: list[Any] = []

    async def detach() -> None:
        seen.append(("detach", await both.session.detach(), tuple(left)))

    async def shutdown() -> None:
        seen.append(("shutdown", await both.session.shutdown(), tuple(left), both.session.state))

    left: list[str] = []

    async def wrapper(_args: bytes) -> bytes:
        try:
            application.start_soon(detach)
            application.start_soon(shutdown)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                left.append("wrapper")
        raise AssertionError

    async with trio.open_nursery() as application:
        async with connected_ends(kind, wrappers={"wrapper": wrapper}) as both:
            with pytest.raises(orc_trio.DisconnectedError):
                await both.call("wrapper")
    assert sorted(seen) == [
        ("detach", LOCAL, ("wrapper",)),
        ("shutdown", LOCAL, ("wrapper",), orc_trio.SessionState.SHUT_DOWN),
    ]


async def test_a_child_of_a_keepalive_holder_does_not_wait() -> None:
    """G12: Who holds a keepalive, and its child tasks at any depth, start a shutdown and do not wait for it."""

    async def grandchild() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check)

    async def check() -> None:
        assert await session.shutdown() is None
        assert session.state is not orc_trio.SessionState.SHUT_DOWN
        checked.append(1)

    checked: list[int] = []
    with no_hang():
        async with orc_trio.open_session() as session:
            with session.keepalive("held"):
                await check()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(grandchild)
                await trio.to_thread.run_sync(session.thread_portal().shutdown)  # a thread of the holder's
                assert session.state is not orc_trio.SessionState.SHUT_DOWN
            await session.shutdown()
            assert session.state is orc_trio.SessionState.SHUT_DOWN
    assert checked == [1, 1]


async def test_a_task_that_inherited_a_keepalive_holders_context_waits(autojump_clock: trio.testing.MockClock) -> None:
    """G12: A task that a keepalive's holder started in another nursery waits for the shutdown."""
    seen: list[Any] = []

    async def background() -> None:
        await session.shutdown()
        seen.append((session.state, keepalive_released))

    keepalive_released = False
    with no_hang():
        async with trio.open_nursery() as application, orc_trio.open_session() as session:

            async def holder() -> None:
                nonlocal keepalive_released
                with session.keepalive("held"):
                    application.start_soon(background)
                    await trio.sleep(1)
                    assert seen == []
                    keepalive_released = True

            async with trio.open_nursery() as nursery:
                nursery.start_soon(holder)
            await session.shutdown()
    assert seen == [(orc_trio.SessionState.SHUT_DOWN, True)]
