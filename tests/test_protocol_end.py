# The end: the latch, what each call is told, what still goes out, and what is dropped.

from __future__ import annotations

import pytest

from orc_trio.exceptions import CallRefusedError, DisconnectedError, LocalProtocolError
from orc_trio.protocol import (
    CallReceived,
    CallSettled,
    CancelReceived,
    Disconnected,
    InboundState,
    Latched,
    Limits,
    OutboundState,
    Peer,
    PeerHungUp,
    PeerState,
    Refused,
    ResultAccepted,
    Role,
    Value,
)
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.wire import Message, Opcode, PartOf
from orc_trio.wire.messages import ResultKind
from strategies import HANG_UP, KIB, assert_empty, deliver, of, outcomes, pair, received, running, settle

EOF = DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP)
REMOTE_HANG_UP = DisconnectReason(DisconnectKind.REMOTE_HANGUP)


def certainties(peer: Peer) -> list[Certainty]:
    found = []
    for outcome in outcomes(peer):
        assert isinstance(outcome, Disconnected)
        assert outcome.reason == peer.cause
        found.append(outcome.certainty)
    return found


def test_what_calls_are_told_when_this_end_hangs_up() -> None:
    """G4: what was not handed over is NOT_SENT; what was is UNKNOWN."""
    peer = running()
    peer.call(1, b"")
    peer.take()
    peer.call(2, b"")
    peer.call(3, b"")
    peer.latch(HANG_UP)
    assert certainties(peer) == [Certainty.UNKNOWN, Certainty.NOT_SENT, Certainty.NOT_SENT]


@pytest.mark.parametrize("dispatched", [0, 1, 2, 3])
def test_what_calls_are_told_by_the_peers_watermark(dispatched: int) -> None:
    """G4: a call above the highest number the peer dispatched is NOT_STARTED; any other that was sent is UNKNOWN."""
    controller, executor = pair(Limits())
    for tag in range(3):
        controller.call(tag, b"")
    sent = controller.take()
    queued = controller.call(9, b"")
    for message in sent[:dispatched]:
        executor.receive(message)
    executor.latch(HANG_UP)
    for message in sent[dispatched:]:
        executor.receive(message)  # dropped
    assert len(received(executor)) == dispatched
    deliver(executor, controller)
    expected = [Certainty.UNKNOWN] * dispatched + [Certainty.NOT_STARTED] * (3 - dispatched)
    assert certainties(controller) == [*expected, Certainty.NOT_SENT]
    assert controller.cause == REMOTE_HANG_UP
    assert queued.state is OutboundState.SETTLED


def test_the_watermark_is_fixed_at_the_latch() -> None:
    """G4: the hang-up says the highest number dispatched before the latch, with gaps and answered calls counted."""
    peer = running()
    peer.receive(Message(Opcode.CALL, 3))
    peer.respond(received(peer)[0], Value(b""))
    peer.take()
    peer.receive(Message(Opcode.NESTED_CALL, 17))
    peer.latch(HANG_UP)
    peer.receive(Message(Opcode.CALL, 18))
    assert [message[:4] for message in peer.take()] == [(Opcode.HANG_UP, 0, 0, 17)]


def test_a_watermark_that_lies_hurts_only_the_peer() -> None:
    """G4: a peer that claims to have dispatched more than it was sent gets nothing by it."""
    peer = running()
    peer.call(1, b"")
    peer.take()
    peer.call(2, b"")
    peer.receive(Message(Opcode.HANG_UP, aux=2**64 - 1, payload=b"\xf6"))
    assert certainties(peer) == [Certainty.UNKNOWN, Certainty.NOT_SENT]


def test_calls_settle_in_the_order_they_were_made() -> None:
    """G14: at the latch calls settle in order, then those waiting for room, then the latch is reported."""
    peer = running(Limits(max_calls=3, max_nested_calls=1))
    calls = [peer.call(tag, b"") for tag in range(6)]
    peer.take()
    nested = peer.call(9, b"", nested=True)
    peer.cancel(calls[1])
    peer.cancel(calls[4])
    peer.latch(HANG_UP)
    *settled, latched = peer.poll_events()
    assert [event.call for event in settled if isinstance(event, CallSettled)] == [
        calls[0],
        calls[2],
        nested,
        calls[3],
        calls[5],
    ]
    assert latched == Latched(HANG_UP)
    assert calls[1].state is OutboundState.SETTLED
    assert calls[1].outcome is None
    assert peer.statistics().pending_calls == peer.statistics().abandoned_calls == 0


def test_the_first_cause_stays() -> None:
    """G11: the cause is fixed at the latch; a second one changes nothing and is not reported."""
    peer = running()
    peer.call(1, b"")
    assert peer.latch(HANG_UP) == HANG_UP
    peer.poll_events()
    assert peer.latch(EOF) == HANG_UP
    peer.violation("late")
    assert peer.cause == HANG_UP
    assert peer.poll_events() == []
    peer.end()
    assert peer.latch(EOF) == HANG_UP
    assert len(peer.take()) == 0


def test_both_ends_at_once() -> None:
    """G11: when both hang up at once each sees its own."""
    controller, executor = pair()
    controller.call(1, b"")
    controller.latch(HANG_UP)
    executor.latch(HANG_UP)
    settle(controller, executor)
    for peer in (controller, executor):
        assert peer.cause == HANG_UP
        assert of(peer, PeerHungUp) == [PeerHungUp()]
        assert peer.hang_up_taken
        peer.end()
        assert_empty(peer)


def test_whoever_receives_a_hang_up_answers_with_its_own() -> None:
    """G16: the hang-up is answered, in order, and nothing follows it."""
    controller, executor = pair()
    controller.latch(HANG_UP)
    assert not controller.hang_up_taken
    (message,) = deliver(controller, executor)
    assert controller.hang_up_taken
    assert (message.opcode, message.payload) == (Opcode.HANG_UP, b"\xf6")
    assert [type(event) for event in executor.poll_events()] == [Latched, PeerHungUp]
    assert executor.cause == REMOTE_HANG_UP
    assert [message.opcode for message in deliver(executor, controller)] == [Opcode.HANG_UP]
    assert [type(event) for event in controller.poll_events()] == [Latched, PeerHungUp]
    assert not controller.has_output


def test_a_violation_is_reported_to_both() -> None:
    """G11: a violation is reported to us and told to them, with the same reason."""
    controller, executor = pair()
    executor.receive(Message(17))
    assert executor.cause == DisconnectReason(DisconnectKind.PROTOCOL_VIOLATION, "unknown opcode 17")
    deliver(executor, controller)
    assert controller.cause == DisconnectReason(DisconnectKind.REMOTE_ERROR, "protocol violation: unknown opcode 17")


def test_results_go_out_before_the_hang_up() -> None:
    """G4, G14: at the latch calls, cancels and pings leave the queue; results stay, in order, the hang-up last."""
    controller, executor = pair(Limits(max_calls=6, max_bytes=64 * KIB, max_message=64 * KIB))
    calls = [executor.call(tag, b"") for tag in range(5)]
    deliver(executor, controller)
    served = received(controller)
    left = controller.call(1, b"")
    controller.take()
    assert controller.respond(served[0], Value(bytes(60 * KIB)))
    controller.cancel(left)
    controller.call(2, b"queued")
    controller.ping()
    controller.receive(Message(Opcode.PING, aux=1))
    assert not controller.respond(served[1], Value(bytes(30 * KIB)))
    assert not controller.respond(served[2], Value(b"x"))
    controller.poll_events()
    controller.latch(HANG_UP)
    events = controller.poll_events()
    assert [type(event) for event in events] == [CallSettled, ResultAccepted, ResultAccepted, Latched]
    assert controller.statistics().queued_bytes == 90 * KIB + 1
    assert controller.respond(served[3], Value(b"late")), "dropped"
    sent = deliver(controller, executor)
    assert [(message.opcode, message.seq) for message in sent] == [
        (Opcode.RESULT, 1),
        (Opcode.RESULT, 2),
        (Opcode.RESULT, 3),
        (Opcode.HANG_UP, 0),
    ]
    assert [type(call.outcome) for call in calls] == [Value, Value, Value, Disconnected, Disconnected]
    controller.end()
    assert_empty(controller)


def test_a_full_queue_cannot_keep_the_hang_up_out() -> None:
    """G15: the hang-up has a reserved place, whatever is queued and whatever waits."""
    peer = running(Limits(max_calls=50, max_bytes=64 * KIB, max_message=64 * KIB))
    for seq in range(1, 51):
        peer.receive(Message(Opcode.CALL, seq))
        peer.call(1, bytes(64 * KIB))
    for call in received(peer):
        peer.respond(call, Value(bytes(64 * KIB)))
    peer.latch(HANG_UP)
    sent = []
    while peer.has_output:
        sent += peer.take()
    assert [message.opcode for message in sent] == [Opcode.RESULT] * 50 + [Opcode.HANG_UP]


def test_handlers_are_told_nothing_more_and_their_answers_are_dropped() -> None:
    """G13: after the latch every served call is done: answers are dropped, as often as they come, nothing is sent."""
    peer = running()
    peer.receive(Message(Opcode.CALL, 1))
    peer.receive(Message(Opcode.CALL, 2))
    first, second = received(peer)
    peer.respond(first, Value(b""))
    peer.latch(HANG_UP)
    assert (first.state, second.state) == (InboundState.DONE, InboundState.DONE)
    assert peer.statistics().served_calls == 0
    for call in (first, second, second):
        assert peer.respond(call, Value(b"late"))
    assert [message.opcode for message in peer.take()] == [Opcode.RESULT, Opcode.HANG_UP]
    assert of(peer, CancelReceived) == []


@pytest.mark.parametrize("opcode", range(12))
def test_after_the_latch_what_comes_in_is_dropped(opcode: int) -> None:
    """G14: after the latch messages are read and dropped, good or bad; only a hang-up is still heard."""
    peer = running()
    call = peer.call(1, b"")
    peer.take()
    peer.latch(HANG_UP)
    peer.take()
    outcome = call.outcome
    peer.poll_events()
    peer.receive(Message(opcode, 1, payload=b"\xf6" if opcode == Opcode.HANG_UP else b""))
    assert peer.poll_events() == ([PeerHungUp()] if opcode == Opcode.HANG_UP else [])
    assert (call.outcome, peer.cause) == (outcome, HANG_UP)
    assert not peer.has_output


def test_nothing_follows_the_peers_hang_up() -> None:
    """G16: what a peer sends behind its hang-up is dropped, a second hang-up too."""
    peer = running()
    bye = Message(Opcode.HANG_UP, payload=b"\xf6")
    peer.receive(bye)
    peer.poll_events()
    for message in (bye, Message(Opcode.CALL, 1), Message(99)):
        peer.receive(message)
    assert peer.poll_events() == []
    assert [message.opcode for message in peer.take()] == [Opcode.HANG_UP]


@pytest.mark.parametrize("latched", [False, True])
def test_a_malformed_hang_up(latched: bool) -> None:
    """G25: a hang-up that is none is a violation; after our own latch it changes nothing."""
    peer = running()
    call = peer.call(1, b"")
    peer.take()
    if latched:
        peer.latch(HANG_UP)
    peer.receive(Message(Opcode.HANG_UP, aux=0, payload=b"\x00"))
    assert peer.cause is not None
    assert peer.cause.kind is (DisconnectKind.LOCAL_HANGUP if latched else DisconnectKind.PROTOCOL_VIOLATION)
    assert isinstance(call.outcome, Disconnected)
    assert call.outcome.certainty is Certainty.UNKNOWN, "what a broken peer says about its watermark is not believed"
    assert of(peer, PeerHungUp) == []


def test_nothing_happens_after_the_end() -> None:
    """G13: a closed end takes no message, no call, no answer, and gives none; its tables are empty."""
    peer = running()
    peer.receive(Message(Opcode.CALL, 1))
    peer.receive(Message(Opcode.CALL, 2))
    peer.receive(Message(Opcode.PART, 3, PartOf.CALL, 10, b"abc"))
    served, unanswered = received(peer)
    call = peer.call(1, b"")
    peer.take()
    peer.receive(Message(Opcode.PART, 1, PartOf.RESULT, 10, b"abc"))
    peer.respond(served, Value(b"never sent"))
    peer.latch(EOF)
    peer.end()
    assert peer.state is PeerState.CLOSED
    assert_empty(peer)
    peer.poll_events()
    peer.receive(Message(Opcode.HANG_UP, payload=b"\xf6"))
    peer.receive(Message(Opcode.RESULT, call.seq))
    peer.cancel(call)
    assert peer.respond(unanswered, Value(b""))
    assert peer.ping() is None
    assert peer.take() == []
    assert peer.poll_events() == []


def test_a_call_that_races_the_latch_is_drained_or_refused() -> None:
    """G2: a call came before the latch and is drained by it, or came after and is refused; there is no third."""
    peer = running()
    before = peer.call(1, b"")
    peer.latch(HANG_UP)
    assert of(peer, CallSettled) == [CallSettled(before, Disconnected(HANG_UP, Certainty.NOT_SENT))]
    with pytest.raises(DisconnectedError):
        peer.call(1, b"")
    peer.take()
    assert_empty(peer)


def test_the_setup_goes_out_even_if_the_latch_was_first() -> None:
    """G16: an end that gives up before it said anything still says setup and hang-up, in this order."""
    peer = Peer(Role.EXECUTOR)
    peer.latch(HANG_UP)
    assert [message.opcode for message in peer.take()] == [Opcode.SETUP, Opcode.HANG_UP]
    peer.end()
    assert_empty(peer)


def test_one_end_latches_before_it_agreed() -> None:
    """G4: an end that gave up before it agreed dispatched nothing: calls of the other are NOT_STARTED."""
    controller, executor = Peer(Role.CONTROLLER), Peer(Role.EXECUTOR)
    deliver(executor, controller)
    call = controller.call(1, b"")
    executor.latch(HANG_UP)
    settle(controller, executor)
    assert isinstance(call.outcome, Disconnected)
    assert call.outcome.certainty is Certainty.NOT_STARTED


# --- the soft stop ---


def test_a_soft_stop_refuses_and_serves() -> None:
    """G7, G12: after `finish` ordinary calls are refused, nested ones go on; `finished` when all had their results."""
    controller, executor = pair(Limits())
    first = controller.call(1, b"")
    deliver(controller, executor)
    (serving,) = received(executor)
    assert not executor.finished
    executor.finish()
    executor.finish()
    assert executor.state is PeerState.FINISHING
    assert executor.open
    with pytest.raises(CallRefusedError, match="takes no new calls"):
        executor.call(2, b"")
    nested = executor.call(2, b"", nested=True)
    controller.call(3, b"")
    deeper = controller.call(4, b"", nested=True)
    deliver(controller, executor)
    (deep,) = received(executor)
    assert deep.tag == 4
    assert executor.ping() == 1
    executor.respond(deep, Value(b"deep"))
    executor.respond(serving, Value(b"first"))
    deliver(executor, controller)
    assert first.outcome == Value(b"first")
    assert deeper.outcome == Value(b"deep")
    called_back, *settled = controller.poll_events()
    assert [type(event.outcome) for event in settled if isinstance(event, CallSettled)] == [Refused, Value, Value]
    assert not executor.finished  # its own nested call
    assert isinstance(called_back, CallReceived)
    controller.respond(called_back.call, Value(b"back"))
    deliver(controller, executor)
    assert nested.outcome == Value(b"back")
    assert not executor.finished  # whether everything has arrived there, is not known yet
    deliver(executor, controller)
    deliver(controller, executor)
    assert executor.finished


def test_a_refused_call_is_not_dispatched() -> None:
    """G4, G12: a call that is turned away during a soft stop does not raise the watermark, whole or in parts."""
    peer = running()
    peer.finish()
    peer.receive(Message(Opcode.PART, 5, PartOf.CALL, 4, b"ab"))
    assert not peer.finished
    peer.receive(Message(Opcode.CALL, 5, payload=b"cd"))
    assert received(peer) == []
    assert [message.opcode for message in peer.take()] == [Opcode.PING, Opcode.RESULT]
    peer.latch(HANG_UP)
    (hang_up,) = peer.take()
    assert hang_up.aux == 0


def test_a_cancel_for_a_refused_call_is_absorbed() -> None:
    """G5, G12: a caller may leave a call that is just being turned away."""
    peer = running()
    peer.finish()
    peer.receive(Message(Opcode.CALL, 1))
    peer.receive(Message(Opcode.CANCEL, 1))
    peer.take()
    peer.receive(Message(Opcode.CANCEL, 1))
    assert peer.cause is None
    assert peer.statistics().served_calls == 0


def test_it_is_finished_when_the_peer_has_everything() -> None:
    """G12: a pong that was asked for after the last result says so; one asked for before does not."""
    peer = running()
    peer.receive(Message(Opcode.CALL, 1))
    (call,) = received(peer)
    assert peer.ping() == 1  # somebody else's
    peer.finish()
    peer.respond(call, Value(b"answer"))
    assert [message.opcode for message in peer.take()] == [Opcode.PING, Opcode.RESULT]
    peer.receive(Message(Opcode.PONG, aux=1))
    assert not peer.finished
    assert [message[::3] for message in peer.take()] == [(Opcode.PING, 2)]
    # A nested call, from a chain that goes by other connections, comes before its pong.
    peer.receive(Message(Opcode.NESTED_CALL, 2))
    (nested,) = received(peer)
    peer.respond(nested, Value(b"another"))
    assert [message.opcode for message in peer.take()] == [Opcode.RESULT]
    peer.receive(Message(Opcode.PONG, aux=2))
    assert not peer.finished
    assert [message[::3] for message in peer.take()] == [(Opcode.PING, 3)]
    peer.receive(Message(Opcode.PONG, aux=3))
    assert peer.finished
    # And one more, in the last moment.
    last = peer.call(9, b"", nested=True)
    assert not peer.finished
    peer.cancel(last)
    assert not peer.finished
    assert [message[::3] for message in peer.take()] == [(Opcode.PING, 4)]
    peer.receive(Message(Opcode.PONG, aux=4))
    assert peer.finished


def test_a_peer_that_goes_on_asking_does_not_keep_it_from_its_end() -> None:
    """G12: a call that a soft stop turns away is not in flight, though its refusal has not gone out."""
    peer = running()
    peer.finish()
    assert [message[::3] for message in peer.take()] == [(Opcode.PING, 1)]
    peer.receive(Message(Opcode.CALL, 1))
    peer.receive(Message(Opcode.PONG, aux=1))
    assert peer.finished
    peer.latch(DisconnectReason(DisconnectKind.LOCAL_HANGUP))
    refusal, hang_up = peer.take()
    assert (refusal.opcode, refusal.seq, refusal.aux) == (Opcode.RESULT, 1, ResultKind.REFUSED)
    assert (hang_up.opcode, hang_up.aux) == (Opcode.HANG_UP, 0)


def test_only_what_is_open_can_be_finished() -> None:
    """G12, G21: before both ends agreed and after the latch there is nothing to finish."""
    for peer in (Peer(Role.EXECUTOR), running()):
        if peer.state is PeerState.RUNNING:
            peer.latch(HANG_UP)
        state = peer.state
        with pytest.raises(LocalProtocolError, match="finish"):
            peer.finish()
        assert peer.state is state
        assert not peer.finished


def test_the_latch_comes_first() -> None:
    """G4, G11: what is not finished when the latch falls is told what is known, as always."""
    peer = running()
    peer.call(1, b"")
    peer.take()
    peer.call(2, b"")
    peer.finish()
    peer.latch(HANG_UP)
    assert certainties(peer) == [Certainty.UNKNOWN, Certainty.NOT_SENT]
    assert not peer.finished
