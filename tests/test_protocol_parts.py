# Large messages sent in parts: what passes them, what is left of them, and what is known of them at the end.

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio import Certainty, DisconnectKind, DisconnectReason, Limits
from orc_trio.protocol import Disconnected, Peer, Role, Value
from orc_trio.protocol.setup import Setup, encode_setup
from orc_trio.wire import Message, Opcode, PartOf

HANG_UP = DisconnectReason(DisconnectKind.LOCAL_HANGUP)


def connected(part_size: int | None, **limits: int) -> Peer:
    """A controller that has agreed with an executor."""
    peer = Peer(Role.CONTROLLER, Limits(part_size=part_size, **limits))
    peer.receive(Message(Opcode.SETUP, payload=encode_setup(Setup.of(Role.EXECUTOR, Limits()))))
    assert [message.opcode for message in peer.take()] == [Opcode.SETUP]
    peer.poll_events()
    return peer


def taken(peer: Peer) -> list[tuple[int, int, int]]:
    """All that it has to send: opcode, number, size."""
    found = []
    while messages := peer.take():
        found += [(message.opcode, message.seq, len(message.payload)) for message in messages]
    return found


def test_small_ones_pass() -> None:
    """G8: What is behind a large call gets its turn after each of its parts; numbers begin in order."""
    peer = connected(10)
    peer.call(1, bytes(35))
    peer.call(2, bytes(10))
    peer.call(3, bytes(11))
    assert peer.statistics().queued_bytes == 56
    assert taken(peer) == [
        (Opcode.PART, 1, 10),
        (Opcode.CALL, 2, 10),
        (Opcode.PART, 3, 10),
        (Opcode.PART, 1, 10),
        (Opcode.CALL, 3, 1),
        (Opcode.PART, 1, 10),
        (Opcode.CALL, 1, 5),
    ]
    assert peer.statistics().queued_bytes == 0


def test_one_hand_over_is_one_part() -> None:
    """G8: No more than a part is handed over at once: what comes next has not long to wait."""
    peer = connected(1000)
    peer.call(1, bytes(5000))
    assert [len(message.payload) for message in peer.take()] == [1000]
    peer.call(2, b"small")
    assert [message.seq for message in peer.take()] == [1]
    assert [message.seq for message in peer.take()] == [2, 1]


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(1, 40))
def test_the_other_end_puts_them_together(args: bytes, answer: bytes, size: int) -> None:
    """G25: Whatever the sizes are, it is the same call and the same result."""
    one, other = Peer(Role.CONTROLLER, Limits(part_size=size)), Peer(Role.EXECUTOR, Limits(part_size=size))

    def move() -> None:
        while (sent := one.take()) or (back := other.take()):
            for message in sent:
                other.receive(message)
            for message in back if not sent else ():
                one.receive(message)

    move()
    call = one.call(7, args)
    move()
    (received,) = [event.call for event in other.poll_events() if hasattr(event, "call")]
    assert bytes(received.payload) == args
    assert other.respond(received, Value(answer))
    move()
    assert isinstance(call.outcome, Value)
    assert bytes(call.outcome.payload) == answer
    assert one.statistics().queued_bytes == other.statistics().queued_bytes == 0


def test_the_rest_of_a_call_that_was_left() -> None:
    """G5: It is not sent; the peer is told, and answers, as for any other call."""
    peer = connected(10)
    call = peer.call(1, bytes(100))
    peer.take()
    peer.cancel(call)
    assert taken(peer) == [(Opcode.CANCEL, 1, 0)]
    assert peer.statistics().abandoned_calls == 1
    assert peer.statistics().queued_bytes == 0
    peer.receive(Message(Opcode.RESULT, 1, 0, 3))
    assert peer.statistics().abandoned_calls == 0
    assert peer.cause is None


def test_what_is_not_complete_has_not_started() -> None:
    """G4: A call of which a part was not sent cannot run, whatever the watermark says; nor is the part sent now."""
    peer = connected(10)
    cut, whole, queued = (peer.call(tag, bytes(size)) for tag, size in ((1, 100), (2, 1), (3, 1)))
    peer.take(max_bytes=1)
    peer.take(max_bytes=1)
    peer.latch(HANG_UP, watermark=2)
    assert cut.outcome == Disconnected(HANG_UP, Certainty.NOT_STARTED)
    assert whole.outcome == Disconnected(HANG_UP, Certainty.UNKNOWN)
    assert queued.outcome == Disconnected(HANG_UP, Certainty.NOT_SENT)
    assert taken(peer) == [(Opcode.HANG_UP, 0, 1)]


def test_results_are_completed_before_the_hang_up() -> None:
    """G14: A result of which parts were sent is completed, in its turn, before the hang-up."""
    peer = connected(10)
    calls = []
    for seq, size in ((1, 25), (2, 15)):
        peer.receive(Message(Opcode.CALL, seq, 5, 2**64 - 1))
        (event,) = peer.poll_events()
        calls.append(event.call)  # type: ignore[union-attr]
        assert peer.respond(calls[-1], Value(bytes(size)))
    assert [message.seq for message in peer.take()] == [1]
    assert [message.seq for message in peer.take()] == [2]
    peer.latch(HANG_UP)
    assert taken(peer) == [(Opcode.PART, 1, 10), (Opcode.RESULT, 1, 5), (Opcode.RESULT, 2, 5), (Opcode.HANG_UP, 0, 1)]


def test_a_result_before_its_call() -> None:
    """G25: A result for a call of which not all was sent is a violation."""
    peer = connected(10)
    peer.call(1, bytes(100))
    peer.take()
    peer.receive(Message(Opcode.RESULT, 1, 0, 0, b"early"))
    assert peer.cause is not None
    assert "a result for call 1, of which not all was sent" in str(peer.cause)


def test_what_is_being_sent_counts() -> None:
    """G8: Parts of results that were handed over count until they are sent."""
    peer = connected(64 * 1024, max_bytes=128 * 1024, max_message=128 * 1024)
    for seq in (1, 2):
        peer.receive(Message(Opcode.CALL, seq, 5, 2**64 - 1))
        (event,) = peer.poll_events()
        accepted = peer.respond(event.call, Value(bytes(128 * 1024)))  # type: ignore[union-attr]
        assert accepted is (seq == 1)
    assert peer.statistics().queued_bytes == 128 * 1024
    (first,) = peer.take()
    assert (first.opcode, first.tag, first.aux) == (Opcode.PART, PartOf.RESULT, 128 * 1024)
    assert peer.statistics().queued_bytes == 128 * 1024
    assert [message.opcode for message in peer.take()] == [Opcode.RESULT]
    assert peer.statistics().waiting_results == 1
    assert [message.seq for message in peer.take()] == [2]
    assert peer.statistics().waiting_results == 0


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "1"])
def test_a_size_that_is_none(size: object) -> None:
    """G25: A part has at least one byte."""
    with pytest.raises(ValueError, match="part_size must be a whole number of at least 1"):
        Limits(part_size=size)  # type: ignore[arg-type]
