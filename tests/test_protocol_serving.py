# The calls an end serves: what the peer may have in flight, room for results, and large messages in parts.

from __future__ import annotations

import math
import tracemalloc

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import LocalProtocolError
from orc_trio.protocol import (
    CallReceived,
    Cancelled,
    CancelReceived,
    Failed,
    InboundState,
    Limits,
    OutboundState,
    Peer,
    Refused,
    ResultAccepted,
    Value,
)
from orc_trio.protocol.outcomes import RESULT_TOO_LARGE
from orc_trio.wire import Message, Opcode, PartOf, ResultKind
from strategies import (
    HANG_UP,
    KIB,
    assert_empty,
    cut,
    deliver,
    of,
    outcomes,
    pair,
    received,
    running,
    settle,
    violation,
)


def calling(seq: int, payload: bytes = b"", *, nested: bool = False, aux: int = 0) -> Message:
    return Message(Opcode.NESTED_CALL if nested else Opcode.CALL, seq, 5, aux, payload)


def part(kind: int, seq: int, total: int, payload: bytes) -> Message:
    return Message(Opcode.PART, seq, kind, total, payload)


def feed(peer: Peer, *sent: Message) -> None:
    for message in sent:
        peer.receive(message)


def assert_violation(peer: Peer, text: str) -> None:
    assert text in (violation(peer) or "no violation")


# -- what the peer may do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 3, 4])
def test_call_numbers_rise(number: int) -> None:
    """G25: a call number not above the last is a violation, answered or not; gaps are allowed."""
    peer = running()
    feed(peer, calling(4))
    peer.respond(received(peer)[0], Value(b""))
    peer.take()
    feed(peer, calling(number))
    assert_violation(peer, f"call number {number} is not above the last one, 4")


def test_gaps_are_allowed_up_to_the_last_number() -> None:
    """G25: every number up to 2⁶⁴−1 may be used, with gaps."""
    peer = running()
    feed(peer, calling(7), calling(2**64 - 1, nested=True))
    assert [call.seq for call in received(peer)] == [7, 2**64 - 1]


@pytest.mark.parametrize("nested", [False, True])
def test_one_call_too_many(nested: bool) -> None:
    """G8, G25: one call over the agreed limit is a violation, of either kind; the other kind has its own places."""
    peer = running(Limits(max_calls=2, max_nested_calls=2))
    feed(peer, calling(1, nested=nested), calling(2, nested=nested), calling(3, nested=not nested))
    assert len(received(peer)) == 3
    feed(peer, calling(4, nested=nested))
    assert_violation(peer, "call 4 is over the agreed limits of 2 nested calls" if nested else "limits of 2 calls")


@pytest.mark.parametrize("nested", [False, True])
def test_one_byte_too_many(nested: bool) -> None:
    """G8, G25: one byte over the agreed bytes in flight is a violation, of either kind."""
    peer = running(Limits(max_bytes=64 * KIB, max_message=64 * KIB))
    feed(peer, calling(1, bytes(40 * KIB), nested=nested), calling(2, bytes(24 * KIB), nested=nested))
    feed(peer, calling(3, b"x", nested=not nested), calling(4, b"", nested=nested))
    assert violation(peer) is None
    feed(peer, calling(5, b"x", nested=nested))
    assert_violation(peer, "65536 bytes in flight")


@pytest.mark.parametrize("over", [0, 1])
def test_one_message_too_large(over: int) -> None:
    """G25: a call over the agreed message size is a violation."""
    peer = running(Limits(max_message=64 * KIB))
    feed(peer, calling(1, bytes(64 * KIB + over)))
    assert (peer.cause is not None) is bool(over)
    if over:
        assert_violation(peer, "call 1 has 65537 bytes; 65536 agreed")


def test_places_are_free_when_the_result_is_handed_over() -> None:
    """G8: a place is taken until the result leaves; then the peer may use it again, for ever."""
    peer = running(Limits(max_calls=1, max_bytes=64 * KIB, max_message=64 * KIB))
    for seq in range(1, 20):
        feed(peer, calling(seq, bytes(64 * KIB)))
        (call,) = received(peer)
        assert peer.respond(call, Value(b""))
        assert (call.state, peer.statistics().served_calls) == (InboundState.ANSWERED, 1)
        assert call.payload == b""
        assert [message.seq for message in peer.take()] == [seq]
        assert (call.state, peer.statistics().served_calls) == (InboundState.DONE, 0)
    feed(peer, calling(20), calling(21))
    assert_violation(peer, "call 21 is over")


@pytest.mark.parametrize(
    ("seq", "text"), [(0, "call 0, which was never made"), (3, "call 3, which was never made"), (2, None), (1, None)]
)
def test_cancels(seq: int, text: str | None) -> None:
    """G25: a cancel for a number never used is a violation; for one answered, or left out, it is absorbed."""
    peer = running()
    feed(peer, calling(2))
    received(peer)
    feed(peer, Message(Opcode.CANCEL, seq))
    if text is not None:
        assert_violation(peer, text)
    else:
        assert len(of(peer, CancelReceived)) == (seq == 2)
        assert peer.cause is None


def test_a_cancel_has_no_payload() -> None:
    """G25: a cancel with a payload is a violation."""
    peer = running()
    feed(peer, calling(1), Message(Opcode.CANCEL, 1, payload=b"x"))
    assert_violation(peer, "CANCEL has a payload")


@pytest.mark.parametrize("opcode", [9, 23, 24, 2**64 - 1])
def test_an_unknown_opcode_is_a_violation(opcode: int) -> None:
    """G25: an unknown opcode is a violation."""
    peer = running()
    feed(peer, Message(opcode))
    assert_violation(peer, f"unknown opcode {opcode}")


# -- results -------------------------------------------------------------------------------------------------------


def test_a_call_is_answered_once() -> None:
    """G1: a second answer is our own bug and says so, before and after the first was handed over."""
    peer = running()
    feed(peer, calling(1))
    (call,) = received(peer)
    peer.respond(call, Value(b""))
    with pytest.raises(LocalProtocolError, match="call 1 was answered already"):
        peer.respond(call, Value(b""))
    assert len(peer.take()) == 1
    with pytest.raises(LocalProtocolError, match="call 1 was answered already"):
        peer.respond(call, Value(b""))
    assert not peer.has_output


@pytest.mark.parametrize("over", [0, 1])
def test_an_oversize_result_becomes_an_error(over: int) -> None:
    """G26: an oversize result becomes an error result of that call, and the connection lives."""
    controller, executor = pair()
    call = controller.call(1, b"")
    deliver(controller, executor)
    executor.respond(received(executor)[0], Value(bytes(64 * KIB + over)))
    deliver(executor, controller)
    if over:
        assert isinstance(call.outcome, Failed)
        assert call.outcome.remote_type == RESULT_TOO_LARGE
        assert "65537 bytes" in call.outcome.message
    else:
        assert call.outcome == Value(bytes(64 * KIB))
    assert controller.cause is executor.cause is None


def test_results_wait_for_room_in_order() -> None:
    """G8: queued results are bounded by max_bytes; the others wait outside, in order, and are told when they are in."""
    peer = running(Limits(max_bytes=64 * KIB, max_message=64 * KIB))
    feed(peer, *[calling(seq) for seq in range(1, 6)])
    calls = received(peer)
    sizes = [40, 30, 0, 30, 64]
    assert [peer.respond(call, Value(bytes(size * KIB))) for call, size in zip(calls, sizes, strict=True)] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert peer.statistics().waiting_results == 4
    assert peer.statistics().queued_bytes == 40 * KIB
    order = []
    while peer.has_output:
        sent = peer.take()
        order += [message.seq for message in sent]
        assert sum(len(message.payload) for message in sent) <= 64 * KIB
        assert peer.statistics().queued_bytes <= 64 * KIB
        entered = [event.call.seq for event in of(peer, ResultAccepted)]
        assert entered == [seq for seq in order if seq > 1][-len(entered) :]
    assert order == [1, 2, 3, 4, 5]
    peer.take()
    assert_empty(peer)


def test_results_being_sent_count() -> None:
    """G8: what was handed over counts until the next hand-over says that it was sent."""
    peer = running(Limits(max_bytes=64 * KIB, max_message=64 * KIB))
    feed(peer, calling(1), calling(2))
    first, second = received(peer)
    peer.respond(first, Value(bytes(64 * KIB)))
    assert len(peer.take()) == 1
    assert not peer.has_output
    assert peer.respond(second, Value(b"x")) is False, "the first is still being sent"
    assert peer.has_output, "taking would give it"
    assert [message.seq for message in peer.take()] == [2]
    assert of(peer, ResultAccepted) == [ResultAccepted(second)]


def test_a_hand_over_is_bounded_but_never_empty() -> None:
    """G8, G17: one hand-over stops after so many bytes, and gives at least one message."""
    peer = running(Limits())
    for _ in range(4):
        peer.call(1, bytes(1000))
    assert [len(peer.take(max_bytes=1500)), len(peer.take(max_bytes=1)), len(peer.take())] == [2, 1, 1]
    assert peer.take() == []


# -- calls in parts ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 999), max_size=6), st.booleans())
def test_a_call_in_parts(cuts: list[int], nested: bool) -> None:
    """G25: a call cut anywhere into parts, small calls between them, is the same call, dispatched when complete."""
    payload = bytes(range(250)) * 4
    pieces = [piece for piece in cut(payload, cuts) if piece] or [b""]
    peer = running(Limits(max_calls=20))
    seq = 2
    feed(peer, calling(1))
    for piece in pieces[:-1]:
        feed(peer, part(PartOf.CALL, 2, 1000, piece), calling(seq := seq + 1))
    assert 2 not in [call.seq for call in received(peer)]
    feed(peer, calling(2, pieces[-1], nested=nested, aux=7_000_000))
    (call,) = received(peer)
    assert (bytes(call.payload), call.size, call.nested, call.tag) == (payload, 1000, nested, 5)
    assert call.remaining == 7.0


BAD_PARTS = {
    "another total": ([(10, b"abc"), (11, b"d")], "a part announces 11 bytes in all, the first part said 10"),
    "an empty part": ([(10, b"abc"), (10, b"")], "more than its announced length, or empty"),
    "an empty first part": ([(10, b"")], "more than its announced length, or empty"),
    "too many bytes": ([(10, b"abc"), (10, b"x" * 8)], "more than its announced length, or empty"),
    "nothing left for the end": ([(10, b"abc"), (10, b"x" * 7)], "more than its announced length, or empty"),
    "nothing announced": ([(0, b"a")], "more than its announced length, or empty"),
}


@pytest.mark.parametrize("kind", PartOf)
@pytest.mark.parametrize(("parts", "text"), BAD_PARTS.values(), ids=BAD_PARTS.keys())
def test_parts_that_do_not_fit(parts: list[tuple[int, bytes]], text: str, kind: PartOf) -> None:
    """G25: parts that do not add up to what the first announced are a violation."""
    peer = running()
    peer.call(1, b"")
    peer.take()
    feed(peer, *[part(kind, 1, total, piece) for total, piece in parts])
    assert peer.cause is not None
    assert text in peer.cause.detail
    peer.take()
    peer.end()
    assert_empty(peer)


@pytest.mark.parametrize("kind", PartOf)
@pytest.mark.parametrize("last", [b"", b"x" * 6, b"x" * 8])
def test_a_last_piece_that_does_not_fit(kind: PartOf, last: bytes) -> None:
    """G25: a last piece that is too short or too long is a violation."""
    peer = running()
    peer.call(1, b"")
    peer.take()
    feed(peer, part(kind, 1, 10, b"abc"))
    feed(peer, calling(1, last) if kind is PartOf.CALL else Message(Opcode.RESULT, 1, payload=last))
    assert peer.cause is not None
    assert f"{len(last) + 3} bytes, 10 were announced" in peer.cause.detail


def test_a_part_of_an_unknown_kind() -> None:
    """G25: a part belongs to a call or a result."""
    peer = running()
    feed(peer, part(2, 1, 10, b"a"))
    assert_violation(peer, "a part of an unknown kind 2")


def test_a_part_is_checked_before_its_buffer_is_made() -> None:
    """G25: the announced size of a call or result in parts is checked before anything is allocated."""
    for kind in PartOf:
        peer = running()
        peer.call(1, b"")
        peer.take()
        feed(peer, part(kind, 1, 2**63, b"a"))
        assert peer.cause is not None
        assert f"announces {2**63} bytes" in peer.cause.detail


def test_a_number_is_taken_by_the_first_part() -> None:
    """G25: a large call takes its number with its first part: no other call may use it or one below it."""
    for seq in (4, 5):
        peer = running()
        feed(peer, part(PartOf.CALL, 5, 100, b"a"), calling(seq) if seq == 4 else part(PartOf.CALL, 4, 9, b"a"))
        assert_violation(peer, "call number 4 is not above the last one, 5")
    peer = running()
    feed(peer, calling(5), part(PartOf.CALL, 5, 100, b"a"))
    assert "call number 5 is not above the last one, 5" in (violation(peer) or "")


def test_calls_in_parts_are_bounded_in_number() -> None:
    """G8: calls that arrive, are being served or were cut off: together no more than both kinds of places."""
    peer = running(Limits(max_calls=2, max_nested_calls=1))
    feed(peer, calling(1), part(PartOf.CALL, 2, 10, b"a"), part(PartOf.CALL, 3, 10, b"a"))
    assert peer.statistics().served_calls == 3
    assert violation(peer) is None
    feed(peer, part(PartOf.CALL, 4, 10, b"a"))
    assert_violation(peer, "call 4 is over the agreed limits")


def test_calls_in_parts_are_bounded_in_bytes() -> None:
    """G8: what is announced in parts counts at once, together with what is being served."""
    limits = Limits(max_bytes=64 * KIB, max_message=64 * KIB)
    for breaking in (part(PartOf.CALL, 4, 1, b"a"), calling(4, b"a", nested=True)):
        peer = running(limits)
        feed(peer, part(PartOf.CALL, 1, 64 * KIB, b"a"), calling(2, bytes(60 * KIB)))
        feed(peer, part(PartOf.CALL, 3, 4 * KIB, b"a"))
        assert violation(peer) is None
        feed(peer, breaking)
        assert_violation(peer, "call 4 is over the agreed limits")


@pytest.mark.parametrize("nested", [False, True])
def test_a_call_in_parts_keeps_the_limits_of_its_kind(nested: bool) -> None:
    """G8: when its last piece says its kind, a call in parts must fit into that kind's places."""
    peer = running(Limits(max_calls=1, max_nested_calls=1))
    feed(peer, calling(1, nested=nested), part(PartOf.CALL, 2, 10, b"abc"))
    assert violation(peer) is None
    feed(peer, calling(2, b"x" * 7, nested=nested))
    assert_violation(peer, "call 2 is over the agreed limits of 1")


def test_a_call_cut_off_is_answered_cancelled() -> None:
    """G5: a call cancelled before its last piece never starts and still gets its one result."""
    peer = running()
    feed(peer, part(PartOf.CALL, 1, 10, b"abc"), Message(Opcode.CANCEL, 1))
    assert peer.poll_events() == []
    assert peer.statistics().served_calls == 1
    feed(peer, Message(Opcode.CANCEL, 1))
    (message,) = peer.take()
    assert (message.opcode, message.seq, message.aux) == (Opcode.RESULT, 1, ResultKind.CANCELLED)
    assert_empty(peer)
    feed(peer, Message(Opcode.CANCEL, 1))
    assert violation(peer) is None
    feed(peer, calling(1, b"x" * 7))
    assert_violation(peer, "call number 1 is not above")


def test_a_call_cut_off_takes_no_place_of_either_kind() -> None:
    """G8: a peer whose nested call was cut off may still use all its ordinary places, and the other way round."""
    peer = running(Limits(max_calls=1, max_nested_calls=1))
    feed(peer, part(PartOf.CALL, 1, 10, b"abc"), Message(Opcode.CANCEL, 1), calling(2))
    assert violation(peer) is None
    peer = running(Limits(max_calls=1, max_nested_calls=1))
    feed(peer, part(PartOf.CALL, 1, 10, b"abc"), Message(Opcode.CANCEL, 1), calling(2, nested=True))
    assert violation(peer) is None


def test_a_flood_of_calls_cut_off_is_bounded() -> None:
    """G8: a peer that does not read cannot pile up answers by starting calls and cancelling them."""
    peer = running(Limits(max_calls=2, max_nested_calls=1))
    for seq in range(1, 4):
        feed(peer, part(PartOf.CALL, seq, 10, b"abc"), Message(Opcode.CANCEL, seq))
    assert violation(peer) is None
    feed(peer, part(PartOf.CALL, 4, 10, b"abc"))
    assert_violation(peer, "call 4 is over the agreed limits")


def test_the_watermark_is_the_highest_not_the_last() -> None:
    """G4: a call in parts that is complete after a later call does not lower the watermark."""
    peer = running()
    feed(peer, part(PartOf.CALL, 5, 4, b"abc"), calling(6), calling(5, b"d"))
    peer.latch(HANG_UP)
    assert peer.take()[-1].aux == 6


def test_parts_keep_the_watermark_down() -> None:
    """G4: a call in parts counts for the watermark when it is complete."""
    for complete in (False, True):
        peer = running()
        feed(peer, calling(3), part(PartOf.CALL, 8, 4, b"abc"))
        if complete:
            feed(peer, calling(8, b"d"))
        peer.latch(HANG_UP)
        assert peer.take()[-1][:4] == (Opcode.HANG_UP, 0, 0, 8 if complete else 3)
        peer.end()
        assert_empty(peer)


# -- results in parts ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 999), max_size=6))
def test_a_result_in_parts(cuts: list[int]) -> None:
    """G25: a result cut anywhere into parts is the same result."""
    payload = bytes(range(250)) * 4
    pieces = [piece for piece in cut(payload, cuts) if piece]
    peer = running()
    call = peer.call(1, b"")
    peer.take()
    feed(peer, *[part(PartOf.RESULT, 1, 1000, piece) for piece in pieces[:-1]])
    assert outcomes(peer) == []
    feed(peer, Message(Opcode.RESULT, 1, payload=pieces[-1]))
    assert isinstance(call.outcome, Value)
    assert bytes(call.outcome.payload) == payload
    assert_empty(peer)


@pytest.mark.parametrize("kind", ResultKind)
@pytest.mark.parametrize("when", ["before the parts", "between the parts", "before the last piece"])
def test_a_result_in_parts_for_a_caller_that_left(kind: ResultKind, when: str) -> None:
    """G5: parts of a result whose caller has left are counted and thrown away, whatever result they are of."""
    payload = cbor2.dumps({"type": "x", "message": "m" * 50})
    peer = running()
    call = peer.call(1, b"")
    peer.take()
    pieces = cut(payload, [20, 40])
    for number, moment in enumerate(("before the parts", "between the parts", "before the last piece")):
        if when == moment:
            peer.cancel(call)
        if number < 2:
            feed(peer, part(PartOf.RESULT, 1, len(payload), pieces[number]))
    assert call.state is OutboundState.ABANDONED
    feed(peer, Message(Opcode.RESULT, 1, aux=kind, payload=pieces[2]))
    assert violation(peer) is None
    assert call.state is OutboundState.SETTLED
    peer.take()
    assert_empty(peer)


@pytest.mark.parametrize("early", [False, True])
def test_a_tombstone_has_a_fixed_size(early: bool) -> None:
    """G1: whatever arrives in parts for a caller that has left is not kept, and what was kept is given up."""
    peer = running(Limits())
    call = peer.call(1, b"")
    peer.take()
    tracemalloc.start()
    try:
        if early:
            peer.cancel(call)
        feed(peer, part(PartOf.RESULT, 1, 16 << 20, b"a"))
        if not early:
            peer.cancel(call)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    feed(peer, Message(Opcode.RESULT, 1, payload=bytes((16 << 20) - 1)))
    assert violation(peer) is None


def test_what_was_handed_over_is_not_held() -> None:
    """G8: a call's payload is given up when its frame is handed over, a result's and an answered call's too."""
    controller, executor = pair()
    call = controller.call(1, b"arguments")
    assert call.payload == b"arguments"
    deliver(controller, executor)
    assert (call.payload, call.size) == (b"", 9)
    (served,) = received(executor)
    executor.respond(served, Value(b"answer"))
    assert served.payload == b""
    assert served.result is not None
    deliver(executor, controller)
    assert served.result is None


def test_results_in_parts_are_bounded() -> None:
    """G8: what is announced for results in parts is bounded whatever the peer does."""
    peer = running(Limits(max_calls=4, max_bytes=64 * KIB, max_message=64 * KIB))
    for _ in range(4):
        peer.call(1, b"")
    peer.take()
    feed(peer, part(PartOf.RESULT, 1, 64 * KIB, b"a"), part(PartOf.RESULT, 2, 64 * KIB, b"a"))
    assert peer.cause is None
    feed(peer, part(PartOf.RESULT, 3, 2, b"a"))
    assert peer.cause is not None
    assert "over the agreed limits" in peer.cause.detail


def test_finished_parts_give_their_room_back() -> None:
    """G8: results and calls in parts free what they took when they are complete or cut off."""
    peer = running(Limits(max_calls=2, max_nested_calls=1, max_bytes=64 * KIB, max_message=64 * KIB))
    size = 64 * KIB
    for seq in range(1, 9):
        call = peer.call(1, b"")
        peer.take()
        feed(peer, part(PartOf.RESULT, call.seq, size, b"a"))
        feed(peer, Message(Opcode.RESULT, call.seq, payload=bytes(size - 1)))
        feed(peer, part(PartOf.CALL, 2 * seq, size, b"a"), calling(2 * seq, bytes(size - 1)))
        (served,) = received(peer)
        peer.respond(served, Refused())
        feed(peer, part(PartOf.CALL, 2 * seq + 1, size, b"a"), Message(Opcode.CANCEL, 2 * seq + 1))
        peer.take()
        assert peer.cause is None
    peer.take()
    assert_empty(peer)


@pytest.mark.parametrize("seq", [0, 1, 2, 3])
def test_a_part_of_a_result_nobody_waits_for(seq: int) -> None:
    """G25: a part of a result for a number never used, not sent yet, or answered is a violation."""
    peer = running()
    peer.call(1, b"")
    peer.take()
    feed(peer, Message(Opcode.RESULT, 1))
    peer.call(1, b"")
    feed(peer, part(PartOf.RESULT, seq, 10, b"a"))
    assert peer.cause is not None
    assert f"call {seq}, which is not pending" in peer.cause.detail


# -- what handlers see ---------------------------------------------------------------------------------------------


def test_a_call_says_all_its_handler_needs() -> None:
    """G6, G7: a call carries its tag, bytes, mark and remaining time; whoever cancels it is seen on it."""
    controller, executor = pair()
    made = controller.call(9, b"abc", nested=True, deadline=math.inf)
    deliver(controller, executor)
    (event,) = of(executor, CallReceived)
    call = event.call
    assert (call.tag, call.payload, call.nested, call.remaining, call.size) == (9, b"abc", True, math.inf, 3)
    controller.cancel(made)
    settle(controller, executor)
    assert call.cancel_requested
    executor.respond(call, Cancelled())
    settle(controller, executor)
    assert_empty(controller)
