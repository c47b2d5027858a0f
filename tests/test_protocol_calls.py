# The calls an end makes: places, order, sizes, nesting, deadlines, cancellation, results.

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import (
    DisconnectedError,
    LocalProtocolError,
    MessageTooLargeError,
    NestingLimitError,
    NoControllerError,
)
from orc_trio.protocol import (
    CallReceived,
    CallSettled,
    Cancelled,
    CancelReceived,
    Failed,
    Limits,
    OutboundState,
    Peer,
    PeerState,
    PongReceived,
    Refused,
    Role,
    Value,
)
from orc_trio.reasons import Certainty
from orc_trio.wire import NO_DEADLINE, Message, Opcode, ResultKind
from orc_trio.wire.messages import U64_MAX
from strategies import (
    HANG_UP,
    KIB,
    SMALL,
    assert_empty,
    deliver,
    of,
    outcomes,
    pair,
    received,
    running,
    settle,
    violation,
)

ANSWERS = [Value(b""), Value(b"x" * 100), Failed("Busy", "later"), Refused("full"), Cancelled()]


# -- one call ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("nested", [False, True])
def test_a_call_settles_once_with_its_answer(answer: Value | Failed | Refused | Cancelled, nested: bool) -> None:
    """G1: a call settles exactly once, with what the other end answered, and then no table holds anything."""
    controller, executor = pair()
    call = controller.call(0x7F00, b"arguments", nested=nested)
    deliver(controller, executor)
    (served,) = received(executor)
    assert (served.tag, bytes(served.payload), served.nested, served.seq) == (0x7F00, b"arguments", nested, call.seq)
    assert executor.respond(served, answer)
    assert outcomes(controller) == []
    deliver(executor, controller)
    assert of(controller, CallSettled) == [CallSettled(call, answer)]
    assert (call.state, call.outcome) == (OutboundState.SETTLED, answer)
    for peer in (controller, executor):
        assert_empty(peer)


def test_calls_go_both_ways() -> None:
    """G1: each direction counts its own calls; both may be under way with the same number."""
    controller, executor = pair()
    first, second = controller.call(1, b"to the executor"), executor.call(2, b"to the controller")
    assert first.seq == second.seq == 1
    settle(controller, executor)
    for peer, answer in ((executor, b"e"), (controller, b"c")):
        (served,) = received(peer)
        peer.respond(served, Value(answer))
    settle(controller, executor)
    assert (first.outcome, second.outcome) == (Value(b"e"), Value(b"c"))


def test_numbers_rise_and_are_not_reused() -> None:
    """G25: call numbers strictly increase; a call that never left leaves a gap."""
    controller, executor = pair(Limits())
    calls = [controller.call(tag, b"") for tag in range(4)]
    controller.cancel(calls[1])
    sent = deliver(controller, executor)
    assert [(message.seq, message.tag) for message in sent] == [(1, 0), (3, 2), (4, 3)]
    assert controller.call(9, b"").seq == 5


@pytest.mark.parametrize("nested", [False, True])
def test_calls_of_an_end_that_is_not_running(nested: bool) -> None:
    """G21: before both agreed and after the end there is no controller; in between the cause, NOT_SENT."""
    new = Peer(Role.CONTROLLER)
    with pytest.raises(NoControllerError, match="new"):
        new.call(1, b"", nested=nested)
    for peer in (new, running()):
        peer.latch(HANG_UP)
        with pytest.raises(DisconnectedError) as caught:
            peer.call(1, b"", nested=nested)
        assert (caught.value.reason, caught.value.certainty) == (HANG_UP, Certainty.NOT_SENT)
        peer.end()
        with pytest.raises(NoControllerError, match="closed"):
            peer.call(1, b"", nested=nested)


@pytest.mark.parametrize("tag", [-1, U64_MAX + 1])
def test_a_tag_out_of_range_hurts_only_its_caller(tag: int) -> None:
    """G26: a tag that no frame can hold is its caller's error, and not one for the writer to find."""
    peer = running()
    with pytest.raises(LocalProtocolError, match="out of range"):
        peer.call(tag, b"")
    assert_empty(peer)
    peer.call(U64_MAX, b"")


def test_an_oversize_call_fails_by_itself() -> None:
    """G26: an oversize call fails before anything is sent, and the connection lives."""
    controller, executor = pair(Limits(), SMALL)
    with pytest.raises(MessageTooLargeError) as caught:
        controller.call(1, bytes(64 * KIB + 1))
    assert (caught.value.size, caught.value.limit) == (64 * KIB + 1, 64 * KIB)
    assert_empty(controller)
    controller.call(1, bytes(64 * KIB))
    deliver(controller, executor)
    assert violation(executor) is None


# -- places --------------------------------------------------------------------------------------------------------


def test_calls_beyond_the_limit_wait_in_order() -> None:
    """G8: at most max_calls are under way; the others get their place first come, first served."""
    controller, executor = pair()  # two places
    calls = [controller.call(tag, b"") for tag in range(5)]
    assert [call.state for call in calls] == [OutboundState.QUEUED] * 2 + [OutboundState.WAITING] * 3
    assert controller.statistics().waiting_calls == 3
    order = []
    while controller.has_output:
        deliver(controller, executor)
        for served in received(executor):
            order.append(served.tag)
            assert controller.statistics().pending_calls <= 2
            executor.respond(served, Value(b""))
            deliver(executor, controller)
    assert order == [0, 1, 2, 3, 4]
    assert violation(executor) is None


def test_a_small_call_does_not_overtake_a_large_one() -> None:
    """G8: back-pressure in bytes is first come, first served too."""
    controller, executor = pair(Limits(max_calls=10, max_bytes=64 * KIB, max_message=64 * KIB))
    first = controller.call(1, bytes(60 * KIB))
    large, small = controller.call(2, bytes(5 * KIB)), controller.call(3, b"")
    assert (large.state, small.state) == (OutboundState.WAITING, OutboundState.WAITING)
    assert controller.statistics().bytes_in_flight == 60 * KIB
    deliver(controller, executor)
    (served,) = received(executor)
    executor.respond(served, Value(b""))
    deliver(executor, controller)
    assert first.state is OutboundState.SETTLED
    assert (large.state, small.state) == (OutboundState.QUEUED, OutboundState.QUEUED)
    assert (large.seq, small.seq) == (2, 3)


def test_room_that_is_too_small_for_the_first_is_not_given_to_the_second() -> None:
    """G8: a large call at the head of the queue is not starved by small ones behind it."""
    controller, executor = pair(Limits(max_calls=10, max_bytes=64 * KIB, max_message=64 * KIB))
    controller.call(1, bytes(10 * KIB))
    controller.call(1, bytes(50 * KIB))
    large, small = controller.call(2, bytes(60 * KIB)), controller.call(3, b"")
    deliver(controller, executor)
    for served in received(executor):
        assert (large.state, small.state) == (OutboundState.WAITING, OutboundState.WAITING)
        executor.respond(served, Value(b""))
        deliver(executor, controller)
    assert (large.seq, small.seq) == (3, 4)


def test_when_a_waiting_call_leaves_those_behind_it_move_up() -> None:
    """G8: a caller that leaves while it waits does not hold up the others."""
    controller = running(Limits(max_calls=10, max_bytes=64 * KIB, max_message=64 * KIB))
    controller.call(1, bytes(60 * KIB))
    large, small = controller.call(2, bytes(60 * KIB)), controller.call(3, b"")
    controller.cancel(large)
    assert (large.state, small.state) == (OutboundState.SETTLED, OutboundState.QUEUED)
    assert outcomes(controller) == []
    assert [message.tag for message in controller.take()] == [1, 3]


def test_a_result_lets_as_many_in_as_fit() -> None:
    """G8: one result may make room for several, and no more than fit."""
    controller, executor = pair(Limits(max_calls=10, max_bytes=64 * KIB, max_message=64 * KIB))
    controller.call(1, bytes(64 * KIB))
    waiting = [controller.call(2, bytes(30 * KIB)) for _ in range(3)]
    deliver(controller, executor)
    executor.respond(received(executor)[0], Value(b""))
    deliver(executor, controller)
    assert [call.state for call in waiting] == [OutboundState.QUEUED] * 2 + [OutboundState.WAITING]


def test_nested_calls_do_not_wait() -> None:
    """G7: a nested call takes no ordinary place and never waits; over its budget it fails at once, nothing changed."""
    controller, executor = pair()  # one nested place
    ordinary = [controller.call(1, bytes(20 * KIB)) for _ in range(4)]
    nested = controller.call(2, bytes(64 * KIB), nested=True)
    assert [call.state for call in ordinary] == [OutboundState.QUEUED] * 2 + [OutboundState.WAITING] * 2
    assert nested.state is OutboundState.QUEUED
    before = controller.statistics()
    with pytest.raises(NestingLimitError, match="1 nested calls"):
        controller.call(2, b"", nested=True)
    assert controller.statistics() == before
    sent = deliver(controller, executor)
    assert [message.opcode for message in sent] == [Opcode.CALL, Opcode.CALL, Opcode.NESTED_CALL]
    *_, served = received(executor)
    assert served.nested
    executor.respond(served, Value(b""))
    deliver(executor, controller)
    assert nested.state is OutboundState.SETTLED
    assert ordinary[2].state is OutboundState.WAITING, "a nested place is no ordinary one"
    controller.call(2, b"", nested=True)


def test_the_nested_budget_counts_bytes_too() -> None:
    """G7, G8: nested calls have a budget of bytes of their own, and over it they fail at once."""
    controller = running(Limits(max_nested_calls=5, max_bytes=64 * KIB, max_message=64 * KIB))
    controller.call(1, bytes(64 * KIB), nested=True)
    with pytest.raises(NestingLimitError, match="65536 bytes"):
        controller.call(1, b"x", nested=True)
    controller.call(1, b"", nested=True)


def test_mutual_recursion_ends_at_any_limit() -> None:
    """G7: two ends that call each other for ever get a NestingLimitError, and everything unwinds."""
    controller, executor = pair(Limits(max_calls=1, max_nested_calls=3, max_bytes=64 * KIB, max_message=64 * KIB))
    here, there = executor, controller
    stack = [controller.call(1, b"")]
    served = []
    while True:
        settle(controller, executor)
        served.append((here, *received(here)))
        try:
            stack.append(here.call(1, b"", nested=True))
        except NestingLimitError:
            break
        here, there = there, here
    assert len(stack) == 1 + 2 * 3
    for peer, call in reversed(served):
        peer.respond(call, Value(b"done"))
        settle(controller, executor)
    assert [call.outcome for call in stack] == [Value(b"done")] * len(stack)
    assert_empty(controller)
    assert_empty(executor)


# -- deadlines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deadline", "now", "aux", "remaining"),
    [
        (math.inf, 5.0, NO_DEADLINE, math.inf),
        (12.5, 10.0, 2_500_000, 2.5),
        (10.0, 10.0, 0, 0.0),
        (9.0, 10.0, 0, 0.0),
        (-math.inf, 10.0, 0, 0.0),
        (0.0000015, 0.0, 1, 1e-6),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_deadlines_travel_as_remaining_time(
    deadline: float, now: float, aux: int, remaining: float, nested: bool
) -> None:
    """G6: the deadline travels as the time that remains when the frame is handed over, in µs."""
    controller, executor = pair()
    controller.call(1, b"", deadline=deadline, nested=nested)
    (message,) = deliver(controller, executor, now=now)
    assert message.aux == aux
    (served,) = received(executor)
    assert served.remaining == pytest.approx(remaining)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False, allow_infinity=False))
def test_any_deadline_can_be_written(deadline: float, now: float) -> None:
    """G6: no deadline, however far or long past, is mistaken for none or makes the frame unwritable."""
    controller = running()
    controller.call(1, b"", deadline=deadline)
    (message,) = controller.take(now)
    assert 0 <= message.aux <= U64_MAX
    assert (message.aux == NO_DEADLINE) is (deadline == math.inf)


# -- cancellation --------------------------------------------------------------------------------------------------


def test_a_cancelled_call_that_was_sent_waits_for_its_result() -> None:
    """G5: the peer is told, and the place is freed by the result, not by the cancel."""
    controller, executor = pair(Limits(max_calls=1))
    call, waiting = controller.call(1, b"x"), controller.call(2, b"y")
    deliver(controller, executor)
    (served,) = received(executor)
    controller.cancel(call)
    assert call.state is OutboundState.ABANDONED
    assert waiting.state is OutboundState.WAITING
    found = controller.statistics()
    assert (found.pending_calls, found.abandoned_calls, found.waiting_calls) == (0, 1, 1)
    assert [message[:2] for message in deliver(controller, executor)] == [(Opcode.CANCEL, 1)]
    assert of(executor, CancelReceived) == [CancelReceived(served)]
    assert served.cancel_requested
    executor.respond(served, Value(b"too late"))
    (message,) = deliver(executor, controller)
    assert (message.opcode, message.aux, message.payload) == (Opcode.RESULT, ResultKind.CANCELLED, b"")
    assert outcomes(controller) == [], "its caller has left"
    assert (call.state, call.outcome) == (OutboundState.SETTLED, None)
    assert waiting.state is OutboundState.QUEUED


def test_a_refusal_of_a_cancelled_call_is_still_one() -> None:
    """G5: a call that was refused before it started says so also when its caller has left."""
    controller, executor = pair()
    call = controller.call(1, b"")
    deliver(controller, executor)
    controller.cancel(call)
    deliver(controller, executor)
    executor.respond(received(executor)[0], Refused())
    (message,) = deliver(executor, controller)
    assert message.aux == ResultKind.REFUSED
    assert_empty(controller)


def test_a_call_that_was_not_sent_leaves_no_trace() -> None:
    """G5, G8: a cancelled call that was only queued frees its place at once and is never seen by the peer."""
    controller, executor = pair(Limits(max_calls=1))
    call, waiting = controller.call(1, b"x" * 100), controller.call(2, b"")
    controller.cancel(call)
    assert (call.state, waiting.state) == (OutboundState.SETTLED, OutboundState.QUEUED)
    assert [message.tag for message in deliver(controller, executor)] == [2]
    assert controller.statistics().queued_bytes == 0


@pytest.mark.parametrize("answer", ANSWERS)
def test_cancels_and_results_that_cross_are_absorbed(answer: Value | Failed | Refused | Cancelled) -> None:
    """G5, G25: a cancel for a call already answered is absorbed; so is the result that the tombstone waits for."""
    controller, executor = pair()
    call = controller.call(1, b"")
    deliver(controller, executor)
    executor.respond(received(executor)[0], answer)
    controller.cancel(call)
    deliver(controller, executor)  # finds it answered, its result still queued
    deliver(executor, controller)
    settle(controller, executor)
    second = controller.call(1, b"")
    deliver(controller, executor)
    executor.respond(received(executor)[0], answer)
    results = executor.take()
    controller.cancel(second)
    deliver(controller, executor)  # finds it done
    for message in results:
        controller.receive(message)
    assert outcomes(controller) == []
    assert of(executor, CancelReceived) == []
    assert controller.state is executor.state is PeerState.RUNNING
    executor.take()
    assert_empty(controller)
    assert_empty(executor)


def test_cancelling_what_is_settled_does_nothing() -> None:
    """G1: a cancel after the outcome changes nothing and sends nothing; so does a second cancel."""
    controller, executor = pair()
    call, left = controller.call(1, b""), controller.call(2, b"")
    deliver(controller, executor)
    first, second = received(executor)
    executor.respond(first, Value(b""))
    deliver(executor, controller)
    controller.cancel(call)
    assert call.outcome == Value(b"")
    assert not controller.has_output
    controller.cancel(left)
    controller.cancel(left)
    assert len(deliver(controller, executor)) == 1
    executor.respond(second, Value(b""))
    deliver(executor, controller)
    controller.cancel(left)
    assert not controller.has_output
    assert_empty(controller)


# -- results -------------------------------------------------------------------------------------------------------


def result(seq: int, kind: int = ResultKind.VALUE, payload: bytes = b"") -> Message:
    return Message(Opcode.RESULT, seq, 0, kind, payload)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (result(0), "call 0, which is not pending"),
        (result(3), "call 3, which is not pending"),
        (result(2), "call 2, which is not pending"),
        (result(1, 4), "unknown kind 4"),
        (result(1, ResultKind.CANCELLED, b"x"), "cancelled result has a payload"),
        (result(1, ResultKind.ERROR, b"x"), "error result"),
        (result(1, payload=bytes(64 * KIB + 1)), "65536 agreed"),
    ],
)
def test_results_that_break_the_protocol(message: Message, text: str) -> None:
    """G25: a result for a number never used or not sent yet, of an unknown kind or over the limit is a violation."""
    peer = running()
    call = peer.call(1, b"")
    peer.take()
    queued = peer.call(2, b"")
    assert queued.seq == 2
    peer.receive(message)
    settled = of(peer, CallSettled)
    assert [event.call for event in settled] == [call, queued]
    assert peer.cause is not None
    assert text in peer.cause.detail


def test_a_second_result_is_a_violation() -> None:
    """G1, G25: a call that has its result has it once; also one whose caller had left."""
    for cancelled in (False, True):
        peer = running()
        call = peer.call(1, b"")
        peer.take()
        if cancelled:
            peer.cancel(call)
        peer.receive(result(1))
        assert peer.cause is None
        peer.receive(result(1, payload=b"again"))
        detail = violation(peer)
        assert detail is not None
        assert "call 1, which is not pending" in detail
        assert call.outcome == (None if cancelled else Value(b""))


# -- pings ---------------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_by_one_pong() -> None:
    """G17: one reserved ping and one pong; the next ping only after the answer."""
    controller, executor = pair()
    assert controller.ping() == 1
    assert controller.ping() is None
    deliver(controller, executor)
    assert controller.ping() is None
    assert [message[:4] for message in deliver(executor, controller)] == [(Opcode.PONG, 0, 0, 1)]
    assert of(controller, PongReceived) == [PongReceived(1)]
    assert controller.ping() == 2
    settle(controller, executor)
    assert of(controller, PongReceived) == [PongReceived(2)]


def test_pings_only_while_running() -> None:
    """G17: nothing is asked before both agreed or after the latch."""
    peer = Peer(Role.CONTROLLER)
    assert peer.ping() is None
    peer.latch(HANG_UP)
    assert peer.ping() is None


def test_pings_pass_whatever_the_limits_hold_back() -> None:
    """G7: limits hold back calls only: pings, cancels and results pass while every place is taken."""
    controller, executor = pair(Limits(max_calls=1, max_nested_calls=0))
    call = controller.call(1, b"")
    controller.call(1, b"")
    back = executor.call(1, b"")
    settle(controller, executor)
    (served,) = received(controller)
    controller.ping()
    controller.respond(served, Value(b"r"))
    controller.cancel(call)
    sent = deliver(controller, executor)
    assert [message.opcode for message in sent] == [Opcode.PING, Opcode.RESULT, Opcode.CANCEL]
    assert back.outcome == Value(b"r")
    assert [type(event) for event in executor.poll_events()] == [CallReceived, CallSettled, CancelReceived]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ([Message(Opcode.PING, aux=1), Message(Opcode.PING, aux=2)], "a ping before the last one was answered"),
        ([Message(Opcode.PING, payload=b"x")], "PING has a payload"),
        ([Message(Opcode.PONG, aux=1)], "a pong for ping 1"),
        ([Message(Opcode.PONG, payload=b"x")], "PONG has a payload"),
    ],
)
def test_pings_and_pongs_that_break_the_protocol(sent: list[Message], text: str) -> None:
    """G8, G25: at most one pong is ever queued: a flood of pings, or a pong nobody asked for, is a violation."""
    peer = running()
    for message in sent:
        peer.receive(message)
    assert peer.cause is not None
    assert text in peer.cause.detail


def test_a_wrong_or_second_pong_is_a_violation() -> None:
    """G25: a pong answers the ping that is outstanding, once."""
    peer = running()
    peer.ping()
    peer.take()
    peer.receive(Message(Opcode.PONG, aux=1))
    assert violation(peer) is None
    peer.receive(Message(Opcode.PONG, aux=1))
    assert "not outstanding" in (violation(peer) or "")
    peer = running()
    peer.ping()
    peer.receive(Message(Opcode.PONG, aux=2))
    assert "not outstanding" in (violation(peer) or "")
