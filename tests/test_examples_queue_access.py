# The two examples of docs/own-transport.rst keep the promises that the page makes for them.

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from examples_by_path import load
from orc_trio import (
    BootstrapInfo,
    CallRefusedError,
    Certainty,
    DisconnectedError,
    DisconnectKind,
    NoControllerError,
    Session,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.wire import Message

queue_access = load("queue_access")
queue_transport = load("queue_transport")


class Rig:
    """A session attached over a queue, and what its functions noticed."""

    session: Session
    controller: Any
    tags: dict[str, int]

    def __init__(self) -> None:
        self.started = trio.Event()
        self.stopped = trio.Event()

    def address(self, name: str) -> int:
        """The address of a wrapper function."""
        return int(self.controller.bootstrap.symbols[name])


async def ask(args: bytes) -> bytes:
    return b"answer to " + args


@asynccontextmanager
async def attached(capacity: int = 16) -> AsyncGenerator[Rig]:
    """Both ends of a queue, attached."""
    rig = Rig()
    executor_end, controller_end = queue_access.open_queue(capacity)
    async with trio.open_nursery() as nursery, orc_trio.open_session() as session:
        rig.session = session
        bootstrap = BootstrapInfo.for_session(session)
        rig.tags = {"ask": bootstrap.add_tag("ask"), "unknown": bootstrap.add_tag("unknown")}

        async def back(args: bytes) -> bytes:
            return await session.call_controller(rig.tags["ask"], args) + b"!"

        def no(_args: bytes) -> bytes:
            raise WrapperFunctionError("No", "not today")

        def stumble(_args: bytes) -> bytes:
            raise KeyError("a secret")

        async def hang(_args: bytes) -> bytes:
            rig.started.set()
            try:
                await trio.sleep_forever()
            finally:
                rig.stopped.set()

        async def leave(_args: bytes) -> bytes:
            await session.detach()
            return b"never seen"

        for function in (back, no, stumble, hang, leave):
            bootstrap.add_wrapper(function.__name__, function)

        closing = trio.Event()

        async def controller(task_status: trio.TaskStatus[None]) -> None:
            registry = orc_trio.HandlerRegistry()
            registry.handler("ask")(ask)
            async with queue_access.open_queue_controller(controller_end, registry) as rig.controller:
                task_status.started()
                await closing.wait()

        async with trio.open_nursery() as inner:
            inner.start_soon(session.attach, queue_access.QueueAccess(executor_end), bootstrap)
            await nursery.start(controller)
        try:
            yield rig
        finally:
            closing.set()


async def test_calls_both_ways() -> None:
    """A call over the queue, and the call back it makes while it runs, give their results."""
    async with attached() as rig:
        assert await rig.controller.call_wrapper(rig.address("back"), b"x") == b"answer to x!"
        assert await rig.session.call_controller(rig.tags["ask"], b"y") == b"answer to y"


async def test_many_calls_through_a_narrow_queue() -> None:
    """A queue with room for no message at all only makes callers wait."""
    async with attached(capacity=0) as rig, trio.open_nursery() as nursery:
        answers = []

        async def call(number: int) -> None:
            answers.append(await rig.controller.call_wrapper(rig.address("back"), b"%d" % number))

        for number in range(50):
            nursery.start_soon(call, number)
        with trio.fail_after(5):
            while len(answers) < 50:
                await trio.sleep(0.001)
    assert sorted(answers) == sorted(b"answer to %d!" % number for number in range(50))


async def test_errors(caplog: pytest.LogCaptureFixture) -> None:
    """G9, G10: a deliberate error crosses, an accident's text does not, an unknown tag is an error; all live on."""
    async with attached() as rig:
        with pytest.raises(WrapperFunctionError, match="not today") as info:
            await rig.controller.call_wrapper(rig.address("no"), b"")
        assert info.value.remote_type == "No"
        with pytest.raises(WrapperFunctionError) as info:
            await rig.controller.call_wrapper(rig.address("stumble"), b"")
        assert (info.value.remote_type, info.value.message) == ("HandlerFailed", "")
        assert "a secret" in caplog.text
        with pytest.raises(UnknownHandlerTagError):
            await rig.controller.call_wrapper(0x1234, b"")
        with pytest.raises(UnknownHandlerTagError):
            await rig.session.call_controller(rig.tags["unknown"], b"")
        assert await rig.controller.call_wrapper(rig.address("back"), b"x") == b"answer to x!"


async def test_cancellation_travels() -> None:
    """G5: a cancelled caller is released, and the function at the other end is cancelled."""
    async with attached() as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.controller.call_wrapper, rig.address("hang"), b"")
            await rig.started.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await rig.stopped.wait()
        assert await rig.controller.call_wrapper(rig.address("back"), b"x") == b"answer to x!"


async def test_detach_with_a_call_pending() -> None:
    """G1, G13: detaching fails the pending call, ends its function first, and both ends say how it ended."""
    async with attached() as rig, trio.open_nursery() as nursery:
        errors = []

        async def call() -> None:
            with pytest.raises(DisconnectedError) as info:
                await rig.controller.call_wrapper(rig.address("hang"), b"")
            errors.append(info.value)

        nursery.start_soon(call)
        await rig.started.wait()
        end = await rig.session.detach()
        assert rig.stopped.is_set()
        assert end.kind is DisconnectKind.LOCAL_HANGUP
        assert rig.session.state is orc_trio.SessionState.DETACHED
        with pytest.raises(NoControllerError):
            await rig.session.call_controller(rig.tags["ask"], b"")
    assert [(e.reason.kind, e.certainty) for e in errors] == [(DisconnectKind.REMOTE_HANGUP, Certainty.UNKNOWN)]


async def test_detach_from_within() -> None:
    """G12: a wrapper function that detaches its own session does not wait for itself."""
    async with attached() as rig:
        with trio.fail_after(5):
            with pytest.raises(DisconnectedError):
                await rig.controller.call_wrapper(rig.address("leave"), b"")
            assert (await rig.session.wait_detached()).kind is DisconnectKind.LOCAL_HANGUP


async def test_detach_tells_everybody_the_same() -> None:
    """G12: many who detach at once all get the same end."""
    async with attached() as rig:
        ends = []

        async def detach() -> None:
            ends.append(await rig.session.detach())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(detach)
        assert len(ends) == 5
        assert len(set(ends)) == 1


async def test_controller_vanishes() -> None:
    """G11: the end of the queue without a goodbye is not a clean end."""
    executor_end, (send, receive) = queue_access.open_queue()
    async with orc_trio.open_session() as session, trio.open_nursery() as nursery:
        bootstrap = BootstrapInfo.for_session(session)
        tag = bootstrap.add_tag("ask")
        nursery.start_soon(session.attach, queue_access.QueueAccess(executor_end), bootstrap)
        await send.send(("hello", {}))
        await trio.testing.wait_all_tasks_blocked()
        assert session.state is orc_trio.SessionState.ATTACHED
        errors = []

        async def call() -> None:
            with pytest.raises(DisconnectedError) as info:
                await session.call_controller(tag, b"")
            errors.append(info.value)

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        send.close()
        receive.close()
        end = await session.wait_detached()
    assert end.kind is DisconnectKind.EOF_WITHOUT_HANGUP
    assert [(e.reason, e.certainty) for e in errors] == [(end, Certainty.UNKNOWN)]


async def test_controller_freezes(autojump_clock: trio.testing.MockClock) -> None:
    """G4, G15: a controller that reads nothing holds up neither callers nor the end; who was not sent knows it."""
    executor_end, (send, receive) = queue_access.open_queue(1)
    async with orc_trio.open_session() as session:
        bootstrap = BootstrapInfo.for_session(session)
        tag = bootstrap.add_tag("ask")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.attach, queue_access.QueueAccess(executor_end), bootstrap)
            await send.send(("hello", {}))
        certainties = []

        async def call() -> None:
            with pytest.raises(DisconnectedError) as info:
                await session.call_controller(tag, b"")
            certainties.append(info.value.certainty)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            end = await session.detach()
        assert certainties == [Certainty.NOT_SENT] * 3  # our hello filled the queue
        assert end.kind is DisconnectKind.DRAIN_TIMEOUT
        assert end.cause is not None
        assert end.cause.kind is DisconnectKind.LOCAL_HANGUP
        assert trio.current_time() >= 5
    send.close()
    receive.close()


async def test_both_hang_up_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """G11: two goodbyes that cross end both ends in order, each seeing its own, also in a queue without room."""
    ends = []
    first, second = queue_access.open_queue(0)
    one, other = queue_access.QueueEnd(first), queue_access.QueueEnd(second)

    async def run(end: Any, met: trio.Event) -> None:
        async def serve(_tag: int, _args: bytes, _nested: bool) -> bytes:
            raise AssertionError

        ends.append(await end.run({}, serve, lambda _hello: met.set()))

    async with trio.open_nursery() as nursery:
        met = [trio.Event(), trio.Event()]
        nursery.start_soon(run, one, met[0])
        nursery.start_soon(run, other, met[1])
        for event in met:
            await event.wait()
        await trio.testing.wait_all_tasks_blocked()
        one.begin_disconnect()
        other.begin_disconnect()
    assert [end.kind for end in ends] == [DisconnectKind.LOCAL_HANGUP] * 2
    assert trio.current_time() < 1


async def test_attach_to_nobody() -> None:
    """G20: an end of the queue before the hello is a failed attach, and the one attach is used up."""
    executor_end, (send, receive) = queue_access.open_queue()
    send.close()
    receive.close()
    async with orc_trio.open_session() as session:
        with pytest.raises(DisconnectedError) as info:
            await session.attach(queue_access.QueueAccess(executor_end), BootstrapInfo.for_session(session))
        assert info.value.reason.kind is DisconnectKind.CONNECT_FAILED
        assert info.value.certainty is Certainty.NOT_SENT
        assert session.state is orc_trio.SessionState.DETACHED


async def test_nonsense_ends_the_conversation() -> None:
    """G25: a message that is none ends the conversation, and says why."""
    executor_end, (send, _receive) = queue_access.open_queue()
    async with orc_trio.open_session() as session:
        async with trio.open_nursery() as nursery:
            bootstrap = BootstrapInfo.for_session(session)
            nursery.start_soon(session.attach, queue_access.QueueAccess(executor_end), bootstrap)
            await send.send(("hello", {}))
        await send.send("nonsense")
        await send.send(("bye", ""))
        end = await session.wait_detached()
    assert end.kind is DisconnectKind.PROTOCOL_VIOLATION
    assert "nonsense" in end.detail


async def test_a_refusal_crosses() -> None:
    """A call that the other end refused before starting it fails with CallRefusedError, and the conversation lives."""
    first, second = queue_access.open_queue()
    one, other = queue_access.QueueEnd(first), queue_access.QueueEnd(second)
    met = trio.Event()

    async def refuse(_tag: int, _args: bytes, _nested: bool) -> bytes:
        raise CallRefusedError("full")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run, {}, refuse, lambda _hello: met.set())
        nursery.start_soon(other.run, {}, refuse, lambda _hello: None)
        await met.wait()
        for _ in range(2):
            with pytest.raises(CallRefusedError, match="full"):
                await one.call(1, b"")
        one.begin_disconnect()


async def test_owner_is_cancelled() -> None:
    """G18: cancelling the owner of an attached session says goodbye, and ends as cancelled."""
    with trio.CancelScope() as scope:
        async with attached() as rig:
            session = rig.session
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert session.disconnect_reason is not None
    assert session.disconnect_reason.kind in (DisconnectKind.OWNER_CANCELLED, DisconnectKind.REMOTE_HANGUP)


async def test_message_transport_over_a_queue() -> None:
    """The message transport of the page carries calls both ways, and a clean end."""
    to_one = trio.open_memory_channel[Message](0)
    to_other = trio.open_memory_channel[Message](0)
    one = queue_transport.QueueTransport(to_other[0], to_one[1])
    other = queue_transport.QueueTransport(to_one[0], to_other[1])
    registry = orc_trio.HandlerRegistry()
    registry.handler("ask")(ask)

    async def executor() -> None:
        async with orc_trio.open_session() as session:
            bootstrap = BootstrapInfo.for_session(session)
            tag = bootstrap.add_tag("ask")

            async def back(args: bytes) -> bytes:
                return await session.call_controller(tag, args)

            bootstrap.add_wrapper("back", back)
            await session.attach(orc_trio.StreamControllerAccess(other), bootstrap)
            assert (await session.wait_detached()).kind is DisconnectKind.REMOTE_HANGUP

    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor)
        async with orc_trio.open_controller(one, registry) as controller:
            assert await controller.call_wrapper(controller.bootstrap.symbols["back"], b"z") == b"answer to z"
            assert (await controller.disconnect()).kind is DisconnectKind.LOCAL_HANGUP
