# orc_trio.connection, pumps, handlers and liveness: what the tests of the guarantees do not reach.

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import (
    FaultyStream,
    RawPeer,
    call_message,
    connected_pair,
    controller_and_raw,
    every_virtual,
    result_message,
    setup_message,
)
from orc_trio import DisconnectKind
from orc_trio.connection import Connection
from orc_trio.liveness import wait_for_silence
from orc_trio.protocol import Role
from orc_trio.sockets import as_transport
from orc_trio.streams import StreamTransport
from orc_trio.wire import Message, Opcode

LOCAL = orc_trio.DisconnectReason(DisconnectKind.LOCAL_HANGUP)


async def refuse(_tag: int, _args: bytes | memoryview, _nested: bool) -> bytes:
    raise orc_trio.CallRefusedError("not now")


def connection(end: Any, limits: orc_trio.Limits | None = None, **kwargs: Any) -> Connection:
    transport = end if isinstance(end, orc_trio.MessageTransport) else StreamTransport(end)
    return Connection(transport, Role.CONTROLLER, limits or orc_trio.Limits(), kwargs.pop("serve", refuse), **kwargs)


async def test_a_connection_is_run_once() -> None:
    """A second run is refused, during the first and after it."""
    one, other = await connected_pair("memory")
    subject = connection(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(orc_trio.LocalProtocolError, match="run once"):
            await subject.run()
        await other.aclose()
    with pytest.raises(orc_trio.LocalProtocolError, match="run once"):
        await subject.run()


@every_virtual
async def test_latched_before_it_is_run(kind: str) -> None:
    """G12: A connection that was given up before it was run sends nothing, closes, and ends with that cause."""
    one, other = await connected_pair(kind)
    subject = connection(one)
    assert subject.latch() == LOCAL
    assert subject.latch(orc_trio.DisconnectReason(DisconnectKind.INTERNAL_ERROR)) == LOCAL
    assert subject.end is None
    assert await subject.run() == LOCAL
    assert subject.end == LOCAL
    assert await RawPeer(other).receive() is None
    assert subject.statistics().state == "closed"


async def test_latched_before_it_is_run_and_failing_to_close() -> None:
    """G18: What closing raises, and should not, reaches the owner also then."""
    one, _other = await connected_pair("memory")
    faulty = FaultyStream(one)
    faulty.fail_close = LookupError("bug")
    subject = connection(faulty)
    subject.latch()
    with pytest.raises(LookupError):
        await subject.run()
    assert subject.end == LOCAL


async def test_cancelling_what_runs_it() -> None:
    """G18: A run that is cancelled says goodbye, and then Cancelled goes on; it does not return."""
    one, other = await connected_pair("memory")
    raw = RawPeer(other)
    subject = connection(one)
    scope = trio.CancelScope()
    returned: list[object] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            with scope:
                returned.append(await subject.run())

        await raw.settle(Role.EXECUTOR)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await raw.goodbye()
    assert scope.cancelled_caught
    assert returned == []
    assert subject.end == orc_trio.DisconnectReason(DisconnectKind.OWNER_CANCELLED)


async def test_a_call_before_both_ends_agreed() -> None:
    """G21: Before both ends agreed a call fails, nothing is sent, and there is a checkpoint."""
    one, _ = await connected_pair("memory")
    subject = connection(one)
    with trio.testing.assert_checkpoints():
        with pytest.raises(orc_trio.NoControllerError):
            await subject.call(1, b"")


async def test_a_cancelled_call_makes_no_call() -> None:
    """G1: A call made in a cancelled scope is not made."""
    one, other = await connected_pair("memory")
    raw = RawPeer(other)
    subject = connection(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        await raw.settle(Role.EXECUTOR)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await subject.call(1, b"")
        assert scope.cancelled_caught
        subject.latch()
        assert (await raw.goodbye()).opcode == Opcode.HANG_UP


def test_an_interrupt_of_the_program() -> None:
    """G11, G18: Ctrl-C in the task that runs a connection ends it within the bound; KeyboardInterrupt goes on."""
    ended: list[Any] = []

    async def main() -> None:
        one, other = await connected_pair("memory")
        raw = RawPeer(other)
        subject = connection(one, limits=orc_trio.Limits(drain_timeout=1))

        async def peer() -> None:
            await raw.settle(Role.EXECUTOR)
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGINT)
            with trio.CancelScope(shield=True):
                await raw.goodbye()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.enable_ki_protection(peer))
            try:
                await subject.run()
            finally:
                ended.append(subject.end)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored: in the background
    try:
        with pytest.RaisesGroup(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    (end,) = ended
    assert end.kind is DisconnectKind.INTERNAL_ERROR
    assert "KeyboardInterrupt" in str(end)


async def test_our_own_bug_ends_it() -> None:
    """G11: An exception in our own code is an INTERNAL_ERROR, raised to the owner; the stream is closed."""
    one, other = await connected_pair("memory")

    def bug(_setup: object) -> None:
        raise ZeroDivisionError("bug")

    subject = connection(one, on_agreed=bug, limits=orc_trio.Limits(drain_timeout=0.1))
    await other.send_all(b"")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def peer() -> None:
            raw = RawPeer(other)
            await raw.settle(Role.EXECUTOR)
            await raw.goodbye()

        with pytest.raises(ZeroDivisionError):
            await subject.run()
    assert subject.end is not None
    assert subject.end.kind is DisconnectKind.INTERNAL_ERROR


async def test_our_own_bug_at_the_root_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """G11: The same holds for the root of the task tree: everything is closed, whatever happened."""
    one, other = await connected_pair("memory")
    subject = connection(one)

    async def bug(_nursery: object) -> None:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(subject, "_until_latched", bug)
    with pytest.RaisesGroup(ZeroDivisionError):
        await subject.run()
    assert subject.end is not None
    assert subject.end.kind is DisconnectKind.INTERNAL_ERROR
    await RawPeer(other).read_to_the_end()


async def test_a_failing_answer_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """G11: A bug of ours while an answer is queued is an INTERNAL_ERROR, not a call without an answer."""
    one, other = await connected_pair("memory")
    raw = RawPeer(other)
    subject = connection(one)

    def bug(_call: object, _answer: object) -> bool:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(subject._handlers, "_respond", bug)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            with pytest.raises(ZeroDivisionError):
                await subject.run()

        await raw.settle(Role.EXECUTOR)
        await raw.send(call_message(1, 1))
        await raw.goodbye()


async def test_a_refusal_is_its_own_kind_of_result() -> None:
    """G1: A dispatcher's refusal is told as one."""
    one, other = await connected_pair("memory")
    raw = RawPeer(other)
    subject = connection(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.run)
        await raw.settle(Role.EXECUTOR)
        await raw.send(call_message(1, 1))
        result = await raw.expect(Opcode.RESULT)
        assert result.aux == 3
        assert b"not now" in result.payload
        subject.latch()
        await raw.goodbye()


async def test_a_setup_and_a_hang_up_in_one_piece() -> None:
    """G14: A peer that agrees and hangs up in one breath is connected, and then over."""
    one, other = await connected_pair("memory")
    raw = RawPeer(other)
    agreed: list[object] = []
    subject = connection(one, on_agreed=agreed.append)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            assert (await subject.run()).kind is DisconnectKind.REMOTE_HANGUP

        await raw.send(setup_message(Role.EXECUTOR), Message(Opcode.HANG_UP, payload=b"\xf6"))
        await raw.expect(Opcode.SETUP)
        await raw.expect(Opcode.HANG_UP)
    assert len(agreed) == 1


# --- liveness ---


async def test_silence(autojump_clock: trio.testing.MockClock) -> None:
    """G17: Three silent looks of four within the bound are one too many; each of them asks."""
    asked: list[float] = []
    await wait_for_silence(8, alive=lambda: False, ping=lambda: asked.append(trio.current_time()), over=trio.Event())
    assert trio.current_time() == 6
    assert asked == [2, 4, 6]


async def test_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    """G17: After a sign of life the bound begins anew."""
    signs = iter([False, False, True, False, True, False, False, False])
    await wait_for_silence(8, alive=lambda: next(signs), ping=lambda: None, over=trio.Event())
    assert trio.current_time() == 16


async def test_nobody_wants_to_know_any_more(autojump_clock: trio.testing.MockClock) -> None:
    """G17: The check ends with the connection."""
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: wait_for_silence(8, alive=lambda: True, ping=lambda: None, over=over))
        await trio.sleep(101)
        over.set()
    assert trio.current_time() == 101


async def test_a_frozen_peer_with_full_buffers_is_noticed() -> None:
    """G17: A peer that takes nothing is found dead although there is always something to send."""
    one, _other = await connected_pair("unix")
    limits = orc_trio.Limits(liveness_timeout=1.0, drain_timeout=0.1, max_message=2**20, max_bytes=2**24)
    subject = connection(one, limits=limits)
    raw = RawPeer(_other)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            end = await subject.run()
            assert end.kind is DisconnectKind.DRAIN_TIMEOUT
            assert end.cause is not None
            assert end.cause.kind is DisconnectKind.LIVENESS_TIMEOUT

        await raw.settle(Role.EXECUTOR)
        await trio.testing.wait_all_tasks_blocked(0.01)
        for _ in range(5):

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(orc_trio.DisconnectedError) as caught:
                    await subject.call(1, bytes(2**20))
                assert caught.value.reason.kind is DisconnectKind.LIVENESS_TIMEOUT

    await raw.close()


class SendsNow(orc_trio.abc.WrappedTransport):
    """Sends at once, as far as somebody says."""

    can_send_now = True
    step: Callable[[Sequence[Message]], bool] | None = None
    left: list[Message]

    def __init__(self, inner: orc_trio.abc.MessageTransport) -> None:
        super().__init__(inner)
        self.left = []

    def send_now(self, messages: Sequence[Message]) -> bool:
        self.left = list(messages)
        return self.step is not None and self.step(messages)

    async def send(self, messages: Sequence[Message]) -> None:
        left, self.left = self.left, []
        await super().send([*left, *messages])


async def test_what_cannot_be_sent_at_once_is_sent_by_the_writer() -> None:
    """G3: What a transport leaves when it sends without waiting is sent by the writer, before what comes after."""
    async with controller_and_raw("memory", wrap=lambda end: SendsNow(as_transport(end))) as (controller, raw):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(controller.call_wrapper, number, b"")
            calls = [await raw.expect(Opcode.CALL) for _ in range(20)]
            assert [call.seq for call in calls] == list(range(1, 21))
            await raw.send(*(result_message(call.seq) for call in calls))


async def test_a_transport_that_fails_while_it_sends_at_once() -> None:
    """G16: So the send has failed: the reader finds out why, or else that is the reason; the caller is told."""
    transports: list[SendsNow] = []

    def fail(_messages: Sequence[Message]) -> bool:
        raise trio.BrokenResourceError("it broke")

    def wrap(end: Any) -> SendsNow:
        transports.append(SendsNow(as_transport(end)))
        return transports[0]

    limits = orc_trio.Limits(drain_timeout=0.05)
    async with controller_and_raw("memory", wrap=wrap, limits=limits) as (controller, _raw):
        transports[0].step = fail
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await controller.call_wrapper(1, b"")
        assert caught.value.reason.kind is DisconnectKind.TRANSPORT_ERROR
        assert "it broke" in caught.value.reason.detail
        assert caught.value.certainty is orc_trio.Certainty.UNKNOWN


async def test_a_transport_that_ends_the_connection_while_it_sends() -> None:
    """G12: A transport may do that from within a send: the caller whose call it was is told, and does not wait."""
    transports: list[SendsNow] = []

    def wrap(end: Any) -> SendsNow:
        transports.append(SendsNow(as_transport(end)))
        return transports[0]

    async with controller_and_raw("memory", wrap=wrap) as (controller, _raw):

        def disconnect(_messages: Sequence[Message]) -> bool:
            controller.begin_disconnect()
            return False

        transports[0].step = disconnect
        with trio.testing.assert_checkpoints(), pytest.raises(orc_trio.DisconnectedError) as caught:
            await controller.call_wrapper(1, b"")
        assert caught.value.reason.kind is DisconnectKind.LOCAL_HANGUP


async def test_who_has_the_last_word_while_sending_at_once() -> None:
    """G15: A peer that goes on reading hears of the end, also if the goodbye does not fit at once."""
    async with controller_and_raw("memory", wrap=lambda end: SendsNow(as_transport(end))) as (controller, raw):
        controller.begin_disconnect()
        await raw.expect(Opcode.HANG_UP)
        await raw.hang_up()
        assert await controller.wait_disconnected() == orc_trio.DisconnectReason(DisconnectKind.LOCAL_HANGUP)
