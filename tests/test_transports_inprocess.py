"""The in-process pair: a rendezvous that looks like a socket."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.transports import in_process_pair
from orc_trio.wire.messages import Message
from transport_helpers import call, receive_all


def numbers(messages: object) -> list[int]:
    assert isinstance(messages, list)
    return [each.seq for each in messages]


async def blocked(nursery: trio.Nursery, use: Callable[[], Awaitable[object]]) -> Outcome:
    """Start something that blocks; its outcome will be told."""
    outcome = Outcome()
    nursery.start_soon(outcome.of, use)
    await trio.testing.wait_all_tasks_blocked()
    assert outcome.value is None
    assert outcome.error is None
    return outcome


class Outcome:
    value: object = None
    error: BaseException | None = None

    async def of(self, use: Callable[[], Awaitable[object]]) -> None:
        try:
            self.value = await use() or "done"
        except trio.Cancelled as exc:
            self.error = exc
            raise
        except Exception as exc:
            self.error = exc


# --- the rendezvous ----------------------------------------------------------------------------------------------


async def test_a_send_waits_until_it_is_taken() -> None:
    """G8: nothing is held between the two ends: a peer that does not read stalls the writer at once."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        sending = await blocked(nursery, lambda: one.send([call(1), call(2)]))
        assert numbers(await other.receive()) == [1, 2]
        await trio.testing.wait_all_tasks_blocked()
        assert sending.value == "done"


async def test_a_waiting_receiver_is_handed_the_messages() -> None:
    """A receiver that waits gets what is sent, and the sender does not wait."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        receiving = await blocked(nursery, other.receive)
        await one.send([call(1)])
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(receiving.value) == [1]


async def test_sending_without_waiting() -> None:
    """G3: A waiting receiver is handed the messages at once; otherwise they go before what is sent next."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        receiving = await blocked(nursery, other.receive)
        assert one.send_now([call(1), call(2)])
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(receiving.value) == [1, 2]
        assert not one.send_now([call(3)])
        sending = await blocked(nursery, lambda: one.send([call(4)]))
        with pytest.raises(trio.BusyResourceError):
            one.send_now([call(5)])
        assert numbers(await other.receive()) == [3, 4]
        await trio.testing.wait_all_tasks_blocked()
        assert sending.value == "done"
        assert not one.send_now([call(6)])
        sending = await blocked(nursery, lambda: one.send([]))
        assert numbers(await other.receive()) == [6]
    assert not one.send_now([call(7)])
    await one.aclose()
    with pytest.raises(trio.ClosedResourceError):
        one.send_now([call(8)])
    with pytest.raises(trio.BrokenResourceError):
        other.send_now([call(9)])
    assert await other.receive() == []
    await other.aclose()


async def test_the_two_directions_are_apart() -> None:
    """G7: a stalled direction does not hold up the other."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        await blocked(nursery, lambda: one.send([call(1)]))
        await blocked(nursery, lambda: other.send([call(2)]))
        assert numbers(await one.receive()) == [2]
        assert numbers(await other.receive()) == [1]


async def test_messages_are_passed_as_they_are() -> None:
    """No serialization: the other end gets the same message objects, with the same payload objects."""
    one, other = in_process_pair()
    messages = [call(1, b"x" * 1000), call(2, memoryview(b"y" * 1000))]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, messages)
        first, second = await other.receive()
    assert first is messages[0]
    assert type(second.payload) is bytes
    assert second.payload is messages[1].payload.obj  # type: ignore[union-attr]


async def test_the_senders_list_is_the_senders() -> None:
    """What the sender does to its list after sending is not seen at the other end."""
    one, other = in_process_pair()
    batch = [call(1)]
    async with trio.open_nursery() as nursery:
        receiving = await blocked(nursery, other.receive)
        await one.send(batch)
        batch.clear()
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(receiving.value) == [1]


class Marked(bytes):
    """Bytes with something more to them."""


@pytest.mark.parametrize(
    "view",
    [
        memoryview(bytearray(b"abcd")),
        memoryview(bytearray(b"abcd")).toreadonly(),
        memoryview(b"_abcd_")[1:5],
        memoryview(b"dcba")[::-1],
        memoryview(b"abcd").cast("H"),
        Marked(b"abcd"),
    ],
)
async def test_what_can_change_is_copied(view: memoryview | bytes) -> None:
    """A payload that somebody can change afterwards, or that is part of something else, arrives as a copy."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, [call(1, view)])
        await trio.testing.wait_all_tasks_blocked()
        if isinstance(view, memoryview) and not view.readonly:
            view[0] = 0
        ((*_, payload),) = await other.receive()
    assert type(payload) is bytes
    assert payload == b"abcd"


async def test_both_ends_count_signs_of_life() -> None:
    """G17: whatever came in or went out counts as activity."""
    one, other = in_process_pair()
    for taken_first in (True, False):
        before = one.activity, other.activity
        async with trio.open_nursery() as nursery:
            first, second = (other.receive, lambda: one.send([call(1)]))[:: 1 if taken_first else -1]
            await blocked(nursery, first)
            await second()
        assert one.activity > before[0]
        assert other.activity > before[1]


# --- the end -----------------------------------------------------------------------------------------------------


async def test_closing_withdraws_what_was_not_taken() -> None:
    """G4: a send that failed because this end was closed was not taken: the peer sees the end of file only."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        sending = await blocked(nursery, lambda: one.send([call(1)]))
        await one.aclose()
        assert list(await other.receive()) == []
        assert isinstance(sending.error, trio.ClosedResourceError)


async def test_a_closed_peer_breaks_a_blocked_send() -> None:
    """G14: closing wakes the peer's blocked send, and its messages are gone."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        sending = await blocked(nursery, lambda: one.send([call(1)]))
        await other.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(sending.error, trio.BrokenResourceError)
        with pytest.raises(trio.BrokenResourceError):
            await one.send([call(2)])
        assert list(await one.receive()) == []


async def test_what_was_handed_over_before_a_close_arrives() -> None:
    """G16: a hang-up sent just before closing arrives, though its receiver had not run yet."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        receiving = await blocked(nursery, other.receive)
        with trio.CancelScope(shield=True):
            await one.send([call(1)])
            await one.send_eof()
            await one.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(receiving.value) == [1]
        assert list(await other.receive()) == []


async def test_our_own_close_beats_what_was_handed_over() -> None:
    """G13: after aclose nothing is received any more, also what was handed over in the same moment."""
    for _ in range(20):  # Trio runs the two in either order
        one, other = in_process_pair()
        async with trio.open_nursery() as nursery:
            receiving = await blocked(nursery, other.receive)
            sending = Outcome()
            nursery.start_soon(sending.of, lambda one=one: one.send([call(1)]))
            nursery.start_soon(other.aclose)
        assert isinstance(receiving.error, trio.ClosedResourceError)
        assert sending.value == "done" or isinstance(sending.error, trio.BrokenResourceError)


async def test_half_closing() -> None:
    """G16: send_eof wakes the receiver, ends sending, can be said twice, and not after aclose."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        receiving = await blocked(nursery, lambda: receive_all(other))
        await one.send_eof()
        await one.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert receiving.value == "done"
    with pytest.raises(trio.ClosedResourceError):
        await one.send([call(1)])
    await one.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await one.send_eof()


async def test_one_task_sends_and_one_receives() -> None:
    """A second sender or receiver at the same time is told so, and the first is not disturbed."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        sending = await blocked(nursery, lambda: one.send([call(1)]))
        for use in (lambda: one.send([call(2)]), one.send_eof):
            with pytest.raises(trio.BusyResourceError, match="another task is sending"):
                await use()
        receiving = await blocked(nursery, one.receive)
        with pytest.raises(trio.BusyResourceError, match="another task is receiving"):
            await one.receive()
        assert numbers(await other.receive()) == [1]
        await other.send([call(3)])
        await trio.testing.wait_all_tasks_blocked()
        assert sending.value == "done"
        assert numbers(receiving.value) == [3]


async def test_after_a_violation_the_rest_is_dropped() -> None:
    """G16: after a message over the limit all that follows is taken and dropped, up to the end."""
    one, other = in_process_pair()
    other.max_payload = 10

    async def send() -> None:
        await one.send([call(1), call(2, bytes(11)), call(3)])
        await one.send([call(4)])
        await one.send([call(5, bytes(11))])
        await one.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert numbers(await other.receive()) == [1]
        with pytest.raises(RemoteProtocolError, match="a payload of 11 bytes is over the limit of 10 bytes"):
            await other.receive()
        assert list(await other.receive()) == []


# --- cancellation ------------------------------------------------------------------------------------------------


async def test_a_cancelled_send_sends_nothing() -> None:
    """G3: a send that was cancelled while it waited has sent nothing, and the next one is whole."""
    one, other = in_process_pair()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await blocked(nursery, lambda: one.send([call(1)]))
            scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, [call(2)])
        assert numbers(await other.receive()) == [2]


async def test_a_cancelled_receive_loses_nothing() -> None:
    """G3: a receive that was cancelled while it waited has taken nothing."""
    one, other = in_process_pair()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await blocked(nursery, other.receive)
            scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, [call(2)])
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(await other.receive()) == [2]


async def test_cancelled_from_the_start_nothing_happens() -> None:
    """G3: in a cancelled scope, neither sending nor receiving nor half-closing does anything."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        await blocked(nursery, lambda: one.send([call(1)]))
        receiving = await blocked(nursery, one.receive)
        for use in (other.receive, lambda: other.send([call(2)]), other.send_eof):
            with trio.CancelScope() as scope:
                scope.cancel()
                await use()
            assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert receiving.value is None
        assert numbers(await other.receive()) == [1]
        nursery.cancel_scope.cancel()


async def test_a_send_that_was_taken_returns() -> None:
    """G4: cancelled in the moment it is taken, a send or receive succeeds: both ends agree about what happened."""
    one, other = in_process_pair()
    for receiver_first in (True, False):
        with trio.CancelScope() as scope:
            outcomes = Outcome(), Outcome()
            async with trio.open_nursery() as nursery:
                uses = [other.receive, lambda: one.send([call(1)])]
                if not receiver_first:
                    uses.reverse()
                nursery.start_soon(outcomes[0].of, uses[0])
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(outcomes[1].of, uses[1])
                nursery.start_soon(trio.lowlevel.cancel_shielded_checkpoint)
                # One step later the second has met the first, and neither has been resumed.
                await trio.lowlevel.cancel_shielded_checkpoint()
                scope.cancel()
        states = {type(each.error) for each in outcomes}
        assert len(states) == 1, states


async def checkpoints(use: Callable[[], Awaitable[object]]) -> None:
    with trio.testing.assert_checkpoints():
        await use()


async def test_everything_is_a_checkpoint() -> None:
    """Every operation that returns has gone through a checkpoint, whichever way it went."""
    one, other = in_process_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checkpoints, other.receive)
        await trio.testing.wait_all_tasks_blocked()
        await checkpoints(lambda: one.send([call(1)]))
        nursery.start_soon(checkpoints, lambda: one.send([call(2)]))
        await trio.testing.wait_all_tasks_blocked()
        await checkpoints(other.receive)
        await checkpoints(lambda: one.send([]))
        await checkpoints(one.send_eof)
        await checkpoints(other.receive)
        await checkpoints(one.aclose)
        await checkpoints(one.aclose)


@pytest.mark.parametrize("seed", range(20))
async def test_cancelled_at_random_moments_nothing_is_lost_or_torn(seed: int) -> None:
    """G3: with both sides cancelled at random, each message whose send returned is received, once, in order."""
    choose = random.Random(seed)
    one, other = in_process_pair()
    sent: list[int] = []
    received: list[int] = []

    async def maybe_cancelled(use: Callable[[], Awaitable[object]]) -> object | None:
        with trio.CancelScope() as scope:
            for _ in range(choose.randrange(3)):
                await trio.lowlevel.checkpoint()
            if choose.random() < 0.3:
                scope.cancel()
            elif choose.random() < 0.5:
                scope.deadline = trio.current_time() + choose.choice([0, 0.0001])
            return await use() or "done"
        return None

    async def send() -> None:
        for first in range(0, 400, 2):
            batch: list[Message] = [call(first), call(first + 1)]
            if await maybe_cancelled(lambda batch=batch: one.send(batch)):  # type: ignore[misc]
                sent.extend([first, first + 1])
        await one.send_eof()

    async def receive() -> None:
        while True:
            batch = await maybe_cancelled(other.receive)
            if batch == "done":
                return
            if batch is not None:
                received.extend(numbers(batch))

    with trio.fail_after(math.inf if seed < 0 else 20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
    assert received == sent


async def test_what_a_pair_is() -> None:
    """Both are MessageTransports at a boundary, with nobody's process behind them."""
    for end in in_process_pair():
        assert isinstance(end, MessageTransport)
        assert end.at_boundary
        assert end.exit_status is None
