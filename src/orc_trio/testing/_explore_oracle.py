"""What a program knows of its own end, and the laws that it checks in every state.

`Oracle` is written apart from the core it watches.  It knows which calls were made, which frames were handed to the
channel, what the handlers saw, and what the core reported.  What does not fit is a `Violation`, which names the
guarantee.

Rules
-----
* Nothing here looks inside the core: it uses what a shell may use, and `Peer.statistics`.
* Calls are told apart by their tags: the tag of a call is the number of its caller.
* What is known is kept small, so that histories which no law can tell apart are equal: a settled call is one `Fate`.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from typing import Final, NoReturn, assert_never

import attrs

from orc_trio.protocol import (
    AGREED_FIELDS,
    Agreed,
    CallReceived,
    CallSettled,
    Cancelled,
    CancelReceived,
    Disconnected,
    Event,
    Failed,
    InboundCall,
    Latched,
    OutboundCall,
    Outcome,
    Peer,
    PeerHungUp,
    PeerState,
    PongReceived,
    Refused,
    ResultAccepted,
    Value,
)
from orc_trio.protocol.outcomes import FINISHING, encode_result
from orc_trio.reasons import Certainty, DisconnectReason
from orc_trio.testing.explore_plan import Answer, Caller, EndPlan
from orc_trio.wire.messages import Message, Opcode

__all__ = ["ANSWERED", "CALLS", "UNTOUCHED", "Fate", "Oracle", "Violation", "argument", "require", "result"]

CALLS: Final = (Opcode.CALL, Opcode.NESTED_CALL)


class Violation(Exception):
    """A law does not hold."""

    messages: tuple[Message, ...] = ()
    """What was being sent, for people."""


class Fate(enum.Enum):
    """What became of a caller, as its own program knows it."""

    IDLE = "has not called"
    OPEN = "waits"
    LEFT = "left a call that was sent"
    LEFT_DONE = "left, and the call had its result"
    LEFT_UNSENT = "left before the call was sent"
    REFUSED = "was refused at once"
    VALUE = "got its value"
    ERROR = "got an error"
    REFUSED_BY_PEER = "was refused by the peer"
    TURNED_AWAY = "was turned away by the peer, which stops softly"
    NOT_SENT = "failed, not sent"
    NOT_STARTED = "failed, not started"
    UNKNOWN = "failed, nothing is known"


UNTOUCHED: Final = frozenset({Fate.LEFT_UNSENT, Fate.REFUSED, Fate.TURNED_AWAY, Fate.NOT_SENT, Fate.NOT_STARTED})
"""No handler may ever see such a call (G4)."""
ANSWERED: Final = frozenset({Fate.VALUE, Fate.ERROR, Fate.REFUSED_BY_PEER})
"""A handler must have answered such a call."""


def require(holds: object, law: str) -> None:
    """Raise a violation of ``law`` unless it holds."""
    if not holds:
        raise Violation(law)


@functools.cache
def argument(tag: int, size: int) -> bytes:
    """The argument bytes of a call."""
    return bytes([tag + 1]) * size


@functools.cache
def result(tag: int, size: int) -> bytes:
    """The result bytes of a call."""
    return bytes([tag + 129]) * size


@attrs.define(eq=False)
class Oracle:
    """What one end knows, and the laws it checks.

    Attributes:
        peer: The core.
        plan: What this end's program may do.
        other: What the other end's program may do (its callers say what our handlers answer).
        gentle: Nothing ends the connection but a soft stop.
        fates: Of each caller.
        calls: Of each caller whose call is open.
        seqs: The numbers of the calls that have one.
        sent: Callers whose call was handed to the channel and is not settled.
        begun: Callers of whose call a part was handed to the channel, and not yet all, with the bytes so far.
        last_sent: The highest number handed to the channel.
        made: Callers whose call is open, in order.
        dispatched: A bit for each call of the peer that a handler was given.
        answered: A bit for each call of the peer that a handler has answered.
        serving: The peer's calls with a handler, by number.
        parents: For each nested call: the number of the call that its handler serves.
        results: Numbers of the calls answered whose results were not handed over, in order, with their sizes, or what
            is left of them.
        turned_away: Those of them that a soft stop refused.
        in_hand: Bytes of the results handed over last: they may still be on their way into the channel.
        outside: Numbers of those that wait for room, in order.
        arriving: The numbers of the calls that arrive in parts.
        watermark: The highest number dispatched.
        peer_watermark: The same, as the peer's hang-up told.
        latched: The cause, once the latch has fallen.
        heard_end: The peer hung up, or its stream has ended.
        hung_up: The hang-up was handed over.
        notes: What happened in the last step, for people.
    """

    peer: Peer
    plan: EndPlan
    other: EndPlan
    gentle: bool
    fates: list[Fate] = attrs.field(init=False)
    calls: dict[int, OutboundCall] = attrs.field(factory=dict)
    seqs: dict[int, int] = attrs.field(factory=dict)
    sent: list[int] = attrs.field(factory=list)
    begun: dict[int, int] = attrs.field(factory=dict)
    last_sent: int = 0
    made: list[int] = attrs.field(factory=list)
    dispatched: int = 0
    answered: int = 0
    serving: dict[int, InboundCall] = attrs.field(factory=dict)
    parents: dict[int, int] = attrs.field(factory=dict)
    results: dict[int, int] = attrs.field(factory=dict)
    turned_away: dict[int, None] = attrs.field(factory=dict)
    in_hand: int = 0
    outside: list[int] = attrs.field(factory=list)
    arriving: list[int] = attrs.field(factory=list)
    watermark: int = 0
    peer_watermark: int | None = None
    cancels: int = 0
    disconnects: int = 0
    finishes: int = 0
    pings: int = 0
    ping_out: bool = False
    agreed: bool = False
    latched: DisconnectReason | None = None
    heard_end: bool = False
    hung_up: bool = False
    notes: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.fates = [Fate.IDLE] * len(self.plan.callers)

    # What it knows

    @property
    def closed(self) -> bool:
        """Whether it is over for this end."""
        return self.peer.state is PeerState.CLOSED

    @property
    def finishing(self) -> bool:
        """Whether it stops softly, and is still open."""
        return bool(self.finishes) and not self.latched

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do for the calls of either end, as far as this one knows."""
        return not (self.made or self.serving or self.results or Fate.LEFT in self.fates)

    def _heard_result(self, seq: int) -> None:
        for tag, number in list(self.seqs.items()):
            if number == seq and self.fates[tag] is Fate.LEFT:
                self.fates[tag] = Fate.LEFT_DONE
                self._forget(tag)

    def _forget(self, tag: int) -> None:
        self.seqs.pop(tag, None)
        self.parents.pop(tag, None)
        self.begun.pop(tag, None)
        if tag in self.sent:
            self.sent.remove(tag)

    # What the core reports

    def _act(self) -> None:
        drained: list[tuple[bool, int]] = []
        while events := self.peer.poll_events():
            for event in events:
                self._on_event(event, drained)
        for tag, call in self.calls.items():
            if call.seq:
                self.seqs[tag] = call.seq
        self._check()

    def _on_event(self, event: Event, drained: list[tuple[bool, int]]) -> None:
        match event:
            case Agreed():
                require(not self.agreed and not self.latched, "the ends agree once, and before the end")
                self.agreed = True
                for name in AGREED_FIELDS:
                    require(getattr(self.peer.limits, name) == self._limit(name), f"G8: {name} is not the smaller one")
                self.notes.append("open")
            case CallReceived(call):
                self._on_call(call)
            case CancelReceived(call):
                require(not self.latched and call.seq in self.serving, "G5: a cancel for a call that is not served")
                self.notes.append(f"handler of call {call.tag} is cancelled")
            case CallSettled(call, outcome):
                self._on_settled(call, outcome, drained)
            case ResultAccepted(call):
                require(self.outside[:1] == [call.seq], "G8: results are not let in first come, first served")
                del self.outside[0]
            case Latched(cause):
                self._on_latched(cause, drained)
            case PeerHungUp():
                self.heard_end = True
            case PongReceived():
                require(not self.latched, "G14: a pong was heard after the latch")
            case _:  # pragma: no cover
                assert_never(event)

    def _on_call(self, call: InboundCall) -> None:
        caller, bit = self.other.callers[call.tag], 1 << call.tag
        require(not self.latched, "G13: a call was accepted after the latch")
        require(call.nested or not self.finishing, "G12: a new call was accepted during a soft stop")
        require(not self.dispatched & bit, "G1: a call was dispatched twice")
        require(call.payload == argument(call.tag, caller.size), "a call arrived with other bytes")
        require(call.nested is caller.nested, "G7: the nested mark was lost or made up")
        call.payload = b""
        self.dispatched |= bit
        self.watermark = max(self.watermark, call.seq)
        self.serving[call.seq] = call
        self.notes.append(f"handler of call {call.tag} starts")

    def _on_settled(self, call: OutboundCall, outcome: Outcome, drained: list[tuple[bool, int]]) -> None:
        tag = call.tag
        require(self.fates[tag] is Fate.OPEN, f"G1: call {tag} settled again: it {self.fates[tag].value}")
        caller = self.plan.callers[tag]
        match outcome:
            case Value(payload):
                require(caller.answer is Answer.VALUE, "G10: a value where the handler gave none")
                require(payload == result(tag, caller.result), "a value arrived with other bytes")
                fate = Fate.VALUE
            case Failed(_, message):
                self._expect_answer(caller, Answer.ERROR, message == str(tag))
                fate = Fate.ERROR
            case Refused(message) if message == FINISHING:
                require(self.other.finishes and not caller.nested, "G12: turned away, but nobody stops softly")
                fate = Fate.TURNED_AWAY
            case Refused(message):
                self._expect_answer(caller, Answer.REFUSE, message == str(tag))
                fate = Fate.REFUSED_BY_PEER
            case Cancelled():
                _fail("G5: cancelled, but its caller has not left")
            case Disconnected(reason, certainty):
                require(reason == self.peer.cause, "G11: a call carries another cause than the connection")
                fate = self._certainty(tag, call, certainty)
                drained.append((not call.seq, call.seq or self.made.index(tag)))
            case _:  # pragma: no cover
                assert_never(outcome)
        require(isinstance(outcome, Disconnected) or tag in self.sent, "a call that was not sent has a result")
        self.fates[tag] = fate
        if not isinstance(outcome, Disconnected):
            self.made.remove(tag)
        del self.calls[tag]
        self._forget(tag)
        self.notes.append(f"call {tag} {fate.value}")

    @staticmethod
    def _expect_answer(caller: Caller, answer: Answer, same: bool) -> None:
        require(caller.answer is answer and same, f"G10: an answer ({answer.value}) that the handler did not give")

    def _certainty(self, tag: int, call: OutboundCall, certainty: Certainty) -> Fate:
        if tag in self.begun:
            require(
                certainty is Certainty.NOT_STARTED, f"G4: call {tag} was not complete, but failed as {certainty.name}"
            )
            return Fate.NOT_STARTED
        if tag not in self.sent:
            require(certainty is Certainty.NOT_SENT, f"G4: call {tag} was not sent, but failed as {certainty.name}")
            return Fate.NOT_SENT
        require(certainty is not Certainty.NOT_SENT, f"G4: call {tag} was sent, but failed as NOT_SENT")
        if certainty is Certainty.NOT_STARTED:
            return Fate.NOT_STARTED  # whether that is true, the other end's log knows
        known = self.peer_watermark is not None and call.seq > self.peer_watermark
        require(not known, f"G4: the peer said that it never started call {tag}, but it failed as UNKNOWN")
        require(not self.gentle, f"G12: a soft stop cut call {tag} off")
        return Fate.UNKNOWN

    def _on_latched(self, cause: DisconnectReason, drained: list[tuple[bool, int]]) -> None:
        require(self.latched is None, "G11: the latch fell twice")
        open_calls = [tag for tag in self.made if self.fates[tag] is Fate.OPEN]
        require(not open_calls, f"G14: the latch fell, and call {open_calls[:1]} is not settled")
        require(drained == sorted(drained), "G14: the latch did not settle the calls in the order they were made")
        require("protocol violation" not in str(cause), f"two ends that keep the protocol: {cause}")
        self.latched = cause
        self.arriving.clear()
        self.made.clear()
        for tag, fate in enumerate(self.fates):
            if fate is Fate.LEFT:
                self.fates[tag] = Fate.LEFT_DONE
                self._forget(tag)
        require(not self.outside, "G14: a result still waits for room after the latch")
        self.notes.append(f"LATCH: {cause}")

    # The laws of one end, in every state

    def _limit(self, name: str) -> int:
        ours: int = getattr(self.plan.limits, name)
        theirs: int = getattr(self.other.limits, name)
        return min(ours, theirs)

    def _held(self) -> int:
        """Bytes of results that are queued, or on their way into the channel."""
        return self.in_hand + sum(size for seq, size in self.results.items() if seq not in self.outside)

    def _turn_away(self, seq: int) -> None:
        """A call that comes during a soft stop is answered by the core itself."""
        size = len(encode_result(Refused(FINISHING))[1])
        if self.outside or self._held() + size > self._limit("max_bytes"):
            self.outside.append(seq)
        self.results[seq] = size
        self.turned_away[seq] = None

    def _occupying(self, nested: bool) -> list[int]:
        """The callers whose calls have a place of that kind."""
        return [tag for tag in self.seqs if self.plan.callers[tag].nested is nested]

    def _bytes(self, tags: Sequence[int]) -> int:
        return sum(self.plan.callers[tag].size for tag in tags)

    def _fits(self, caller: Caller) -> bool:
        tags = self._occupying(caller.nested)
        most = self._limit("max_nested_calls" if caller.nested else "max_calls")
        return len(tags) < most and self._bytes(tags) + caller.size <= self._limit("max_bytes")

    def _check(self) -> None:
        require(self.peer.cause == self.latched, f"G11: the cause {self.latched} became {self.peer.cause}")
        found = self.peer.statistics()
        state = PeerState.NEW
        if self.latched:
            state = PeerState.CLOSED if found.state is PeerState.CLOSED else PeerState.DRAINING
        elif self.agreed:
            state = PeerState.FINISHING if self.finishes else PeerState.RUNNING
        require(found.state is state, f"the state is {found.state.value}, not {state.value}")
        waiting = [tag for tag in self.made if tag not in self.seqs]
        require(found.pending_calls + found.abandoned_calls == len(self.seqs), "G1: the table and the callers disagree")
        require(found.abandoned_calls == self.fates.count(Fate.LEFT), "G1: tombstones that should not be, or are not")
        require(found.waiting_calls == len(waiting), "G8: calls wait that should not, or do not")
        require(found.bytes_in_flight == self._bytes(list(self.seqs)), "G8: the bytes in flight are not counted right")
        if self.latched:
            require(not found.served_calls, "G1: calls are still in the table after the latch")
            return
        self._check_limits()
        self._check_order(waiting)
        served = len(self.serving) + len(self.results) + len(self.arriving)
        require(found.served_calls == served, "G1: the calls served and the handlers' log disagree")
        require(found.waiting_results == len(self.outside), "G8: results wait that should not, or do not")
        unsent = [tag for tag in self.seqs if tag not in self.sent]
        held = self._held()
        require(held <= self._limit("max_bytes"), f"G8: {held} bytes of results are held")
        queued = self._bytes(unsent) - sum(self.begun.values()) + held
        require(found.queued_bytes == queued, "G8: the bytes that are queued are not counted right")
        most = len(unsent) + found.abandoned_calls + len(self.results) - len(self.outside) + 3
        require(found.queued_messages <= most, f"G8: {found.queued_messages} messages are queued")

    def _check_limits(self) -> None:
        for nested in (False, True):
            tags = self._occupying(nested)
            most = self._limit("max_nested_calls" if nested else "max_calls")
            require(len(tags) <= most, f"G8: {len(tags)} calls have a place, {most} are agreed")
            require(self._bytes(tags) <= self._limit("max_bytes"), "G8: more bytes are in flight than agreed")

    def _check_order(self, waiting: list[int]) -> None:
        callers = self.plan.callers
        placed = [tag for tag in self.made if tag in self.seqs and not callers[tag].nested]
        if waiting:
            require(not self._fits(callers[waiting[0]]), "G8: a call waits although there is room")
            behind = [self.made.index(tag) for tag in placed]
            require(max(behind, default=-1) < self.made.index(waiting[0]), "G8: a call overtook one that waits")
        numbers = [self.seqs[tag] for tag in placed]
        require(numbers == sorted(numbers), "G8: calls are not numbered first come, first served")


def _fail(law: str) -> NoReturn:
    raise Violation(law)
