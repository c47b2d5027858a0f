# Two real peers, a channel that delays and cuts, and a hypothesis state machine that does to them whatever a program
# or a network might.
#
# The oracle is written apart from the code under test: it knows only what was called, which bytes were put on the
# channel, what the handlers saw, and what each call settled to.  Large messages may be sent in parts, their last piece
# held back while other messages pass.

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orc_trio.exceptions import DisconnectedError, MessageTooLargeError, NestingLimitError, NoControllerError
from orc_trio.protocol import (
    Agreed,
    CallReceived,
    CallSettled,
    Cancelled,
    CancelReceived,
    Disconnected,
    Failed,
    InboundCall,
    Latched,
    Limits,
    OutboundCall,
    Peer,
    PeerHungUp,
    PeerState,
    PongReceived,
    Refused,
    ResultAccepted,
    Role,
    Value,
)
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.wire import NO_DEADLINE, FrameDecoder, Message, Opcode, PartOf, ResultKind, encode
from strategies import KIB, assert_empty, check_by_oracle

CALLS = (Opcode.CALL, Opcode.NESTED_CALL)
SIZE = [0, 1, 100, 3000, 30 * KIB, 64 * KIB, 64 * KIB + 1]
SIZES = st.sampled_from(SIZE)
PICKS = st.integers(0, 50)
LIMITS = st.builds(
    Limits,
    max_calls=st.integers(1, 3),
    max_nested_calls=st.integers(0, 2),
    max_bytes=st.sampled_from([64 * KIB, 100 * KIB]),
    max_message=st.just(64 * KIB),
)


@attrs.define(eq=False)
class Made:
    """What the oracle knows of a call."""

    call: OutboundCall
    payload: bytes
    deadline: float
    order: int
    sent: bool = False
    settled: int = 0
    cancelled: bool = False
    sent_when_cancelled: bool = False


@attrs.define(eq=False)
class End:
    """One peer, what its program did, and the channel that leads *to* it."""

    peer: Peer
    limits: Limits
    now: float
    other: End = attrs.field(init=False)
    decoder: FrameDecoder = attrs.field(init=False)
    channel: bytearray = attrs.field(factory=bytearray)
    cut: bool = False
    heard_end: bool = False
    held: dict[tuple[int, int], Message] = attrs.field(factory=dict)  # last pieces not put on the channel yet
    made: list[Made] = attrs.field(factory=list)
    by_number: dict[int, Made] = attrs.field(factory=dict)
    serving: list[InboundCall] = attrs.field(factory=list)
    dispatched: list[int] = attrs.field(factory=list)
    answers: dict[int, Any] = attrs.field(factory=dict)
    results_sent: list[int] = attrs.field(factory=list)
    results_heard: set[int] = attrs.field(factory=set)
    outside: list[InboundCall] = attrs.field(factory=list)
    causes: list[DisconnectReason] = attrs.field(factory=list)
    agreed: int = 0
    hang_up_sent: bool = False
    hang_up_heard: int = 0
    watermark: int | None = None

    def __attrs_post_init__(self) -> None:
        self.decoder = FrameDecoder(self.limits.max_message)

    def put(self, message: Message) -> None:
        """One message onto the channel to the other end; checked by the oracle."""
        assert not self.hang_up_sent, "G14: the hang-up is the last frame"
        frame = encode(message)
        check_by_oracle(frame, message)
        if message.opcode == Opcode.HANG_UP:
            self.hang_up_sent = True
            self.other.watermark = message.aux
            assert message.aux == max(self.dispatched, default=0), "G4: the watermark is the highest dispatched"
        if not self.other.cut:
            self.other.channel += frame

    def release(self) -> None:
        for message in self.held.values():
            self.put(message)
        self.held.clear()

    def send(self, message: Message, chunk: int | None) -> None:
        """What a writer does with a message it took: whole, or in parts with the last piece held back."""
        seq = message.seq
        if message.opcode in CALLS:
            self.note_numbers()
            made = self.by_number[seq]
            assert not made.sent
            assert not made.settled, "a call that failed as NOT_SENT was sent"
            assert bytes(message.payload) == made.payload
            if message.aux == NO_DEADLINE:
                assert made.deadline == math.inf
            else:
                remaining = max(0, made.deadline - self.now)
                assert message.aux * 1e-6 == pytest.approx(remaining, abs=2e-6), "G6"
            made.sent = True
        elif message.opcode == Opcode.RESULT:
            assert seq in self.dispatched or message.aux == ResultKind.CANCELLED
            assert seq not in self.results_sent, "G1: one result for each call frame"
            self.results_sent.append(seq)
        elif message.opcode == Opcode.CANCEL:
            self.held.pop((PartOf.CALL, seq), None)  # the rest of a call nobody wants is not sent
        elif message.opcode == Opcode.HANG_UP:
            self.release()
        if chunk and len(message.payload) > chunk and message.opcode in (*CALLS, Opcode.RESULT):
            kind = PartOf.RESULT if message.opcode == Opcode.RESULT else PartOf.CALL
            total, view = len(message.payload), memoryview(message.payload)
            stop = (total - 1) // chunk * chunk
            for start in range(0, stop, chunk):
                self.put(Message(Opcode.PART, seq, kind, total, view[start : start + chunk]))
            self.held[kind, seq] = message._replace(payload=view[stop:])
        else:
            self.put(message)

    def note_numbers(self) -> None:
        for made in self.made:
            if made.call.seq:
                assert self.by_number.setdefault(made.call.seq, made) is made, "a number used twice"

    def occupies(self, made: Made) -> bool:
        """Whether a call has a place, as far as this end can know."""
        if not made.call.seq or made.settled:
            return False
        return not made.cancelled or (made.sent_when_cancelled and made.call.seq not in self.results_heard)

    def act(self) -> None:
        """What the shell does after every step: act on the events; and what the oracle thinks of them."""
        drained: list[Made] = []
        for event in self.peer.poll_events():
            match event:
                case Agreed():
                    self.agreed += 1
                case CallReceived(call):
                    assert not self.causes, "G13: no handler starts after the latch"
                    made = self.other.by_number[call.seq]
                    assert made.sent
                    assert (bytes(call.payload), call.nested) == (made.payload, made.call.nested)
                    assert call.seq not in self.dispatched
                    self.dispatched.append(call.seq)
                    self.serving.append(call)
                case CancelReceived(call):
                    assert call in self.serving
                    assert self.other.by_number[call.seq].cancelled
                case CallSettled(call, outcome):
                    (made,) = [made for made in self.made if made.call is call]
                    made.settled += 1
                    assert made.settled == 1, "G1: settled twice"
                    assert not made.cancelled, "settled after its caller had left"
                    if isinstance(outcome, Disconnected):
                        drained.append(made)
                        self.check_certainty(made, outcome)
                    else:
                        answer = self.other.answers[call.seq]
                        assert type(outcome) is type(answer)
                        if isinstance(outcome, Value):
                            assert bytes(outcome.payload) == answer.payload
                        else:
                            assert outcome == answer
                case ResultAccepted(call):
                    assert call is self.outside.pop(0), "G8: first come, first served"
                case Latched(cause):
                    self.causes.append(cause)
                    assert not self.outside
                    assert all(made.settled or made.cancelled for made in self.made), "G14: settled before the latch"
                    placed = [made.call.seq for made in drained if made.call.seq]
                    waited = [made.order for made in drained if not made.call.seq]
                    assert placed == sorted(placed)
                    assert waited == sorted(waited)
                    assert [bool(made.call.seq) for made in drained] == [True] * len(placed) + [False] * len(waited)
                case PeerHungUp():
                    self.hang_up_heard += 1
                case PongReceived():
                    pass

    def check_certainty(self, made: Made, outcome: Disconnected) -> None:
        """G4: exactly what can be known, and never wrong."""
        assert outcome.reason == self.peer.cause
        by_hang_up = outcome.reason.kind in (DisconnectKind.REMOTE_HANGUP, DisconnectKind.REMOTE_ERROR)
        if not made.sent:
            assert outcome.certainty is Certainty.NOT_SENT
        elif by_hang_up and self.watermark is not None and made.call.seq > self.watermark:
            assert outcome.certainty is Certainty.NOT_STARTED
        else:
            assert outcome.certainty is Certainty.UNKNOWN
        if outcome.certainty is not Certainty.UNKNOWN:
            assert made.call.seq not in self.other.dispatched or not made.call.seq

    def deliver(self, count: int) -> None:
        """Read up to ``count`` bytes of what was sent to this end; at the end of a cut channel: EOF."""
        if self.heard_end or self.peer.state is PeerState.CLOSED:
            self.channel.clear()
            return
        data = bytes(self.channel[:count])
        del self.channel[:count]
        if data:
            for message in self.decoder.feed(data):
                self.peer.receive(message)
                if message.opcode == Opcode.RESULT:
                    self.results_heard.add(message.seq)
            self.decoder.raise_pending()
            if self.agreed == 0 and self.peer.state is PeerState.RUNNING:
                self.decoder.max_payload = self.peer.limits.max_message
        elif self.cut and not self.channel:
            self.heard_end = True
            self.peer.latch(DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP))
        self.act()

    def take(self, max_bytes: int = 256 * KIB, chunk: int | None = None) -> None:
        promised = self.peer.has_output
        taken = self.peer.take(self.now, max_bytes)
        assert bool(taken) is promised
        for message in taken:
            self.send(message, chunk)
        self.act()


class TwoPeers(RuleBasedStateMachine):
    """Everything two ends and the network between them can do, in any order."""

    @initialize(first=LIMITS, second=LIMITS, at_once=st.sampled_from([True, True, True, False]))
    def start(self, first: Limits, second: Limits, at_once: bool) -> None:
        self.ends = [End(Peer(Role.CONTROLLER, first), first, 0.0), End(Peer(Role.EXECUTOR, second), second, 5e6)]
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]
        if at_once:
            self.pump()

    def pump(self) -> None:
        """Move bytes until there is nothing to move."""
        moved = True
        while moved:
            moved = False
            for end in self.ends:
                while end.peer.has_output:
                    end.take()
                    moved = True
                end.peer.take(end.now)
                end.act()
                if not end.hang_up_sent:
                    end.release()
                if end.other.channel:
                    end.other.deliver(len(end.other.channel))
                    moved = True

    @rule(
        index=st.integers(0, 1),
        calls=st.lists(
            st.tuples(SIZES, st.booleans(), st.sampled_from([math.inf, 0.5, 0, -3])), min_size=1, max_size=5
        ),
        send=st.booleans(),
    )
    def call(self, index: int, calls: list[tuple[int, bool, float]], send: bool) -> None:
        for size, nested, wait in calls:
            self.call_one(index, size, nested, wait)
        if send:
            self.ends[index].take()

    def call_one(self, index: int, size: int, nested: bool, wait: float) -> None:
        end = self.ends[index]
        payload = bytes([len(end.made) % 256]) * size
        before = end.peer.statistics()
        limits = end.peer.limits
        try:
            call = end.peer.call(len(end.made), payload, nested=nested, deadline=end.now + wait)
        except NoControllerError:
            assert end.peer.state in (PeerState.NEW, PeerState.CLOSED)
        except DisconnectedError as exc:
            assert end.causes
            assert (exc.reason, exc.certainty) == (end.causes[0], Certainty.NOT_SENT)
        except MessageTooLargeError:
            assert size > limits.max_message
        except NestingLimitError:
            mine = [made.call for made in end.made if made.call.nested and end.occupies(made)]
            assert nested
            assert len(mine) >= limits.max_nested_calls or sum(c.size for c in mine) + size > limits.max_bytes
        else:
            made = Made(call, payload, end.now + wait, len(end.made))
            end.made.append(made)
            end.act()
            return
        assert end.peer.statistics() == before, "G26: it failed, and nothing changed"
        assert not end.peer.poll_events()

    @rule(index=st.integers(0, 1), pick=PICKS)
    def cancel(self, index: int, pick: int) -> None:
        end = self.ends[index]
        if not (open_calls := [made for made in end.made if not made.settled and not made.cancelled]):
            return
        made = open_calls[pick % len(open_calls)]
        made.cancelled, made.sent_when_cancelled = True, made.sent
        end.peer.cancel(made.call)
        end.act()

    @rule(index=st.integers(0, 1), max_bytes=st.sampled_from([1, 1000, 256 * KIB]), chunk=st.sampled_from([None, 2000]))
    def take(self, index: int, max_bytes: int, chunk: int | None) -> None:
        self.ends[index].take(max_bytes, chunk)

    @rule(index=st.integers(0, 1))
    def finish_parts(self, index: int) -> None:
        if not self.ends[index].hang_up_sent:
            self.ends[index].release()

    @rule(index=st.integers(0, 1), count=st.sampled_from([1, 39, 1000, 50_000, 1 << 20]))
    def deliver(self, index: int, count: int) -> None:
        self.ends[index].deliver(count)

    @rule(
        index=st.integers(0, 1),
        pick=PICKS,
        kind=st.sampled_from([Value, Value, Failed, Refused, Cancelled]),
        size=SIZES,
    )
    def respond(self, index: int, pick: int, kind: type, size: int) -> None:
        end = self.ends[index]
        if not end.serving:
            return
        call = end.serving.pop(pick % len(end.serving))
        answers = {
            Value: Value(bytes([call.seq % 256]) * size),
            Failed: Failed("Busy", "x" * (size % 9999)),
            Refused: Refused("no"),
            Cancelled: Cancelled(),
        }
        self.answer(end, call, answers[kind])

    def answer(self, end: End, call: InboundCall, answer: Any) -> None:
        expected = answer
        if isinstance(answer, Value) and len(answer.payload) > end.peer.limits.max_message:
            text = f"a result of {64 * KIB + 1} bytes is over the agreed limit of {64 * KIB} bytes"
            expected = Failed("ResultTooLarge", text)
        assert call.seq not in end.answers
        end.answers[call.seq] = expected
        accepted = end.peer.respond(call, answer)
        if end.causes:
            assert accepted
        elif not accepted:
            end.outside.append(call)
        end.act()

    def lived_enough(self) -> bool:
        """Most runs should have something to lose at the end."""
        return sum(len(end.made) for end in self.ends) >= 4 or self.ends[0].agreed == 0

    @rule(index=st.integers(0, 1))
    def ping(self, index: int) -> None:
        self.ends[index].peer.ping()

    @precondition(lambda self: not any(end.causes for end in self.ends) and self.lived_enough())
    @rule(index=st.integers(0, 1), kind=st.sampled_from(["LOCAL_HANGUP", "LIVENESS_TIMEOUT", "OWNER_CANCELLED"]))
    def hang_up(self, index: int, kind: str) -> None:
        self.ends[index].peer.latch(DisconnectReason(DisconnectKind[kind], "by the test"))
        self.ends[index].act()

    @precondition(lambda self: not any(end.cut for end in self.ends) and self.lived_enough())
    @rule(index=st.integers(0, 1), keep=st.integers(0, 100_000))
    def cut(self, index: int, keep: int) -> None:
        """The stream to one end breaks; some of what was under way is lost."""
        end = self.ends[index]
        del end.channel[keep:]
        end.cut = True

    @rule(index=st.integers(0, 1))
    def close(self, index: int) -> None:
        """The shell has closed the transport."""
        end = self.ends[index]
        if end.peer.state is PeerState.DRAINING and (end.hang_up_sent or end.heard_end):
            end.peer.end()
            assert not end.peer.poll_events()
            assert_empty(end.peer)
            end.other.cut = True

    @invariant()
    def bounds(self) -> None:
        """G8: what an end holds is within the agreed limits, whatever was asked of it."""
        for end in getattr(self, "ends", ()):
            found, limits = end.peer.statistics(), end.peer.limits
            places = limits.max_calls + limits.max_nested_calls
            assert found.state is end.peer.state
            assert found.pending_calls + found.abandoned_calls <= places
            assert found.served_calls <= places
            assert found.bytes_in_flight <= 2 * limits.max_bytes
            if end.peer.state is PeerState.RUNNING:
                assert found.queued_bytes <= 3 * limits.max_bytes
                assert found.queued_messages <= 3 * places + 2  # a call, a cancel and a result a place; ping and pong
                assert found.waiting_results == len(end.outside)
                open_calls = [made for made in end.made if end.occupies(made)]
                assert found.pending_calls + found.abandoned_calls == len(open_calls)
                assert found.bytes_in_flight == sum(len(made.payload) for made in open_calls)
                ordinary = [made for made in open_calls if not made.call.nested]
                waiting = [made for made in end.made if not made.call.seq and not made.settled and not made.cancelled]
                assert found.waiting_calls == len(waiting)
                numbers = [
                    made.call.seq for made in end.made if not made.call.nested and (made.call.seq or made in waiting)
                ]
                assert numbers == sorted(numbers, key=lambda number: number or math.inf), "G8: first come, first served"
                if waiting:  # G8: nobody waits without need
                    taken = sum(len(made.payload) for made in ordinary) + len(waiting[0].payload)
                    assert len(ordinary) == limits.max_calls or taken > limits.max_bytes
            assert len(end.causes) <= 1, "G11: one cause"
            assert end.peer.cause == (end.causes[0] if end.causes else None)
            for cause in end.causes:
                assert "protocol violation" not in str(cause), "two peers that keep the protocol"

    @invariant()
    def never_started(self) -> None:
        """G4: a call that failed as NOT_SENT or NOT_STARTED is not and will not be with a handler."""
        for end in getattr(self, "ends", ()):
            for made in end.made:
                outcome = made.call.outcome
                if isinstance(outcome, Disconnected) and outcome.certainty is not Certainty.UNKNOWN and made.call.seq:
                    assert made.call.seq not in end.other.dispatched

    def teardown(self) -> None:
        if not hasattr(self, "ends"):
            return
        self.quiesce()
        for end in self.ends:
            if end.peer.state in (PeerState.NEW, PeerState.RUNNING):
                end.peer.latch(DisconnectReason(DisconnectKind.LOCAL_HANGUP))
                end.act()
        self.quiesce()
        for end in self.ends:
            if end.peer.state is PeerState.DRAINING:
                assert end.hang_up_sent
                end.peer.end()
            assert end.peer.state is PeerState.CLOSED
            assert len(end.causes) == 1
            assert_empty(end.peer)
            assert not end.peer.poll_events()
            assert all(made.settled + made.cancelled == 1 for made in end.made), "G1: exactly once"
            assert end.hang_up_heard <= 1

    def quiesce(self) -> None:
        """Answer everything and let it arrive; if nothing broke, every call has its result then."""
        for _ in range(100):
            self.pump()
            if not any(end.serving for end in self.ends):
                break
            for end in self.ends:
                while end.serving:
                    self.answer(end, end.serving.pop(0), Value(b"at last"))
        for end in self.ends:
            if end.cut and end.peer.state is not PeerState.CLOSED:
                end.deliver(1 << 20)
                end.deliver(1)
        if all(end.peer.state is PeerState.RUNNING for end in self.ends):
            for end in self.ends:
                assert all(made.settled or made.cancelled for made in end.made), "a call was forgotten"
                assert_empty(end.peer)
                frames = [made.call.seq for made in end.made if made.sent]
                assert sorted(end.other.results_sent) == sorted(frames), "G1: one result for each call frame"


TwoPeers.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
test_two_peers_and_a_channel = TwoPeers.TestCase


@pytest.mark.parametrize("seed", range(8))
def test_long_walks(seed: int) -> None:
    """G1, G4, G8, G11, G14: the same laws on long random walks, which reach deeper and shrink to nothing."""
    told = Counter[str]()
    for number in range(80):
        dice = random.Random(1000 * seed + number)
        world = TwoPeers()
        world.start(*[limits_of(dice) for _ in range(2)], at_once=dice.random() < 0.9)
        for _ in range(100):
            step(world, dice)
            world.bounds()
            world.never_started()
        world.teardown()
        for made in [made for end in world.ends for made in end.made]:
            outcome = made.call.outcome
            told[outcome.certainty.name if isinstance(outcome, Disconnected) else type(outcome).__name__] += 1
    expected = {"NOT_SENT", "NOT_STARTED", "UNKNOWN", "Value", "Failed", "Refused", "Cancelled", "NoneType"}
    assert set(told) == expected, "the walks reach every outcome"


def limits_of(dice: random.Random) -> Limits:
    return Limits(
        max_calls=dice.randint(1, 4),
        max_nested_calls=dice.randint(0, 3),
        max_bytes=dice.choice([64, 100, 1000]) * KIB,
        max_message=64 * KIB,
    )


def step(world: TwoPeers, dice: random.Random) -> None:
    index = dice.randrange(2)
    pick = dice.randrange(50)
    match dice.choices(
        ["call", "take", "deliver", "respond", "cancel", "parts", "ping", "end"], [4, 6, 8, 6, 2, 2, 1, 1]
    )[0]:
        case "call":
            world.call_one(index, dice.choice(SIZE), dice.random() < 0.3, dice.choice([math.inf, 0.5, 0, -3]))
        case "take":
            world.take(index, dice.choice([1, 1000, 256 * KIB]), dice.choice([None, 2000]))
        case "deliver":
            world.deliver(index, dice.choice([1, 39, 1000, 50_000, 1 << 20, 1 << 20]))
        case "respond":
            world.respond(index, pick, dice.choice([Value, Value, Failed, Refused, Cancelled]), dice.choice(SIZE))
        case "cancel":
            world.cancel(index, pick)
        case "parts":
            world.finish_parts(index)
        case "ping":
            world.ping(index)
        case "end":
            if dice.random() < 0.5:
                world.close(index)
            elif dice.random() < 0.3 and not any(end.cut for end in world.ends):
                world.cut(index, dice.choice([0, 10, 100_000]))
            elif dice.random() < 0.5 and not any(end.causes for end in world.ends):
                world.hang_up(index, "LOCAL_HANGUP")
