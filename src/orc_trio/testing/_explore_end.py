"""One end of an explored world: a real protocol core, and the shell's part around it.

`End` does to a `Peer` what the Trio shell does — call, cancel, answer, take, receive, latch, end — in one step
each, and lets its oracle act on the events and check the laws.

Rules
-----
* An end is a value: everything in it can be pickled, and the same step from the same end gives the same end.
* `choices` may happen, `duties` must happen sooner or later; what the channel does is the explorer's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, assert_never

import attrs

from orc_trio.exceptions import (
    CallRefusedError,
    DisconnectedError,
    MessageTooLargeError,
    NestingLimitError,
    NoControllerError,
)
from orc_trio.protocol import (
    Failed,
    Peer,
    Refused,
    Role,
    Value,
)
from orc_trio.protocol.outcomes import encode_result
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.testing._explore_oracle import CALLS, Fate, Oracle, Violation, argument, require, result
from orc_trio.testing.explore_plan import Answer, EndPlan
from orc_trio.wire.messages import Message, Opcode, PartOf

__all__ = ["Action", "End"]

Action: TypeAlias = tuple[str, int]
"""What an end does, and to which call; 0 where there is nothing to say."""


@attrs.define(eq=False)
class End(Oracle):
    """A peer, its oracle, and what its program does."""

    @classmethod
    def start(cls, peer: type[Peer], role: Role, plan: EndPlan, other: EndPlan, *, gentle: bool) -> End:
        """An end before anything has happened."""
        return cls(peer(role, plan.limits), plan, other, gentle)

    # What may happen now

    def choices(self) -> list[Action]:
        """What its program may do: the environment's part."""
        found: list[Action] = []
        for tag, caller in enumerate(self.plan.callers):
            if self.fates[tag] is Fate.IDLE and not self._twin_idle(tag) and (not caller.nested or self._free_parent()):
                found.append(("call", tag))
        if self.cancels < self.plan.cancels:
            found += [("cancel", tag) for tag in self.made]
        if self.pings < self.plan.pings and self.agreed and not self.latched:
            found.append(("ping", 0))
        if self.disconnects < self.plan.disconnects and not self.closed:
            found.append(("disconnect", 0))
        if self.finishes < self.plan.finishes and self.agreed and not self.latched:
            found.append(("finish", 0))
        if self.plan.gives_up and self.latched and not self.closed:
            found.append(("give up", 0))
        return found

    def duties(self) -> list[Action]:
        """What must happen sooner or later, the channel's part excepted."""
        waited_for = {self.parents[tag]: tag for tag in self.made if tag in self.parents}
        found: list[Action] = []
        for seq, call in self.serving.items():
            if seq not in waited_for:
                found.append(("answer", seq))
            elif call.cancel_requested:
                found.append(("cancel nested", waited_for[seq]))  # G5: its scope was cancelled
        if self.peer.finished:
            found.append(("hang up", 0))
        if self.latched and self.hung_up and self.heard_end and not self.closed:
            found.append(("close", 0))
        return found

    @property
    def output(self) -> int:
        """How many messages its writer could take; more than two count as two."""
        if self.hung_up or not self.peer.has_output:
            return 0
        return min(2, max(1, self.peer.statistics().queued_messages))

    def _twin_idle(self, tag: int) -> bool:
        callers = self.plan.callers
        return any(callers[i] == callers[tag] and self.fates[i] is Fate.IDLE for i in range(tag))

    def _free_parent(self) -> int:
        taken = set(self.parents.values())
        return next((seq for seq in self.serving if seq not in taken), 0)

    # What the program does

    def do(self, action: Action) -> None:
        """Take one of `choices` or `duties`, and check every law of one end.

        Raises:
            Violation: A law does not hold.
        """
        what, which = action
        match what:
            case "call":
                self._call(which)
            case "cancel":
                self.cancels += 1
                self._cancel(which)
            case "cancel nested":
                self._cancel(which)
            case "answer":
                self._answer(which)
            case "ping":
                self.pings += 1
                number = self.peer.ping()
                require(self.finishes or (number is None) == self.ping_out, "G17: one ping at a time")
                self.ping_out = True
            case "disconnect":
                self._disconnect()
            case "finish":
                self.finishes += 1
                self.peer.finish()
            case "hang up":
                answers = len(self.results) - len(self.turned_away)
                busy = len(self.made) + self.fates.count(Fate.LEFT) + len(self.serving) + answers
                require(not busy, "G12: finished, but something is in flight")
                self.peer.latch(DisconnectReason(DisconnectKind.LOCAL_HANGUP))
            case "send failed":
                self.peer.latch(DisconnectReason(DisconnectKind.TRANSPORT_ERROR, "sending failed"))
            case "close" | "give up":
                self._close()
            case _:
                raise ValueError(what)
        self._act()

    def _call(self, tag: int) -> None:
        caller = self.plan.callers[tag]
        parent = self._free_parent() if caller.nested else 0
        before = self.peer.statistics()
        try:
            call = self.peer.call(tag, argument(tag, caller.size), nested=caller.nested)
        except NoControllerError:
            require(not self.agreed or self.closed, "G21: no controller, but the connection is open")
        except DisconnectedError as exc:
            require(self.latched, "G21: disconnected, but the latch has not fallen")
            require(exc.reason == self.latched, "G11: the refusal carries another cause")
            require(exc.certainty is Certainty.NOT_SENT, "G4: a refused call was not sent")
        except CallRefusedError:
            require(self.finishing and not caller.nested, "G12: refused, but nobody stops softly")
        except NestingLimitError:
            require(caller.nested and not self._fits(caller), "G7: refused within the nested budget")
        except MessageTooLargeError:
            require(caller.size > self._limit("max_message"), "G26: refused, but not too large")
        else:
            require(caller.nested or not self.finishing, "G12: a new call was accepted during a soft stop")
            require(self.agreed and not self.latched, "G2: a call was accepted after the latch")
            require(caller.size <= self._limit("max_message"), "G26: a call over the agreed limit was accepted")
            require(not caller.nested or self._fits(caller), "G7: accepted over the nested budget")
            self.calls[tag] = call
            self.made.append(tag)
            self.fates[tag] = Fate.OPEN
            if caller.nested:
                self.parents[tag] = parent
            return
        require(self.peer.statistics() == before, "G21: a refused call changed something")
        self.fates[tag] = Fate.REFUSED

    def _cancel(self, tag: int) -> None:
        self.made.remove(tag)
        call = self.calls.pop(tag)
        if self.begun.pop(tag, 0):
            self.sent.append(tag)  # the rest is not, but there will be an answer
        self.fates[tag] = Fate.LEFT if tag in self.sent else Fate.LEFT_UNSENT
        self.parents.pop(tag, None)
        self.peer.cancel(call)
        if self.fates[tag] is Fate.LEFT_UNSENT:
            self.seqs.pop(tag, None)

    def _answer(self, seq: int) -> None:
        call = self.serving.pop(seq)
        caller = self.other.callers[call.tag]
        answer: Value | Failed | Refused
        match caller.answer:
            case Answer.VALUE:
                answer = Value(result(call.tag, caller.result))
            case Answer.ERROR:
                answer = Failed("Error", str(call.tag))
            case Answer.REFUSE:
                answer = Refused(str(call.tag))
            case _:  # pragma: no cover
                assert_never(caller.answer)
        before = self.peer.statistics()
        cancelled = call.cancel_requested and not isinstance(answer, Refused)
        accepted = self.peer.respond(call, answer)
        if self.latched:
            require(accepted and self.peer.statistics() == before, "G13: a late answer was not dropped")
            return
        self.answered |= 1 << call.tag
        self.results[seq] = 0 if cancelled else len(encode_result(answer)[1])
        if not accepted:
            self.outside.append(seq)

    def _disconnect(self) -> None:
        kind = DisconnectKind.OWNER_CANCELLED if self.disconnects else DisconnectKind.LOCAL_HANGUP
        self.disconnects += 1
        before = self.latched
        found = self.peer.latch(DisconnectReason(kind))
        require(before is None or found == before, "G11: a second disconnect was given another cause")

    def _close(self) -> None:
        self.peer.end()
        self.results.clear()
        self.turned_away.clear()
        self.in_hand = 0
        self.heard_end = True
        found = self.peer.statistics()
        counts = [value for name, value in attrs.asdict(found).items() if name != "state"]
        require(not any(counts), f"G1: after the terminal state something is held: {found}")

    # The channel

    def take(self, max_bytes: int) -> list[Message]:
        """What the writer does: hand over the next messages."""
        promised = self.peer.has_output
        taken = self.peer.take(0.0, max_bytes)
        self.in_hand = 0
        require(bool(taken) is promised, "the core promised output it did not have, or had output it did not promise")
        for event in self.peer.poll_events():  # results that found room first
            self._on_event(event, [])
        sent: list[Message] = []
        for message in taken:
            sent.append(message)
            try:
                self._sending(message)
            except Violation as exc:
                exc.messages = tuple(sent)
                raise
        self._act()
        return sent

    def receive(self, messages: Sequence[Message]) -> None:
        """What the reader does with what came."""
        for message in messages:
            if message.opcode == Opcode.HANG_UP and self.peer_watermark is None and not self.latched:
                self.peer_watermark = message.aux
            elif message.opcode == Opcode.PART and message.tag == PartOf.CALL and not self.latched:
                if message.seq not in self.arriving:
                    self.arriving.append(message.seq)
            elif message.opcode in (*CALLS, Opcode.CANCEL) and message.seq in self.arriving:
                self.arriving.remove(message.seq)
                if message.opcode == Opcode.CANCEL:  # the core answers by itself
                    self.results[message.seq] = 0
                    if self.outside:
                        self.outside.append(message.seq)
            elif message.opcode == Opcode.RESULT and not self.latched:
                self._heard_result(message.seq)
            elif message.opcode == Opcode.PONG:
                self.ping_out = False
            if message.opcode == Opcode.CALL and self.finishing:
                self._turn_away(message.seq)
            self.peer.receive(message)
        self._act()

    def end_of_stream(self, *, in_order: bool) -> None:
        """What the reader does at the end of the stream."""
        require(not in_order, "G16: the peer ended its stream in order, and its hang-up never came")
        self.heard_end = True
        self.peer.latch(DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP))
        self._act()

    def _sending(self, message: Message) -> None:
        require(not self.hung_up, "G14: something follows the hang-up")
        match message.opcode:
            case Opcode.CALL | Opcode.NESTED_CALL:
                tag = message.tag
                require(not self.latched, "G4: a call was sent after the latch")
                require(self.fates[tag] is Fate.OPEN, f"G4: call {tag} was sent although it {self.fates[tag].value}")
                require(tag not in self.sent, "G1: a call was sent twice")
                self.sent.append(tag)
                if not self.begun.pop(tag, 0):
                    self._begins(message.seq)
                self.seqs[tag] = message.seq
            case Opcode.PART if message.tag == PartOf.CALL:
                tag = next(tag for tag, seq in self.seqs.items() if seq == message.seq)
                require(not self.latched, "G4: a part of a call was sent after the latch")
                require(self.fates[tag] is Fate.OPEN, f"G5: a part of call {tag} was sent although it has left")
                if tag not in self.begun:
                    self._begins(message.seq)
                self.begun[tag] = self.begun.get(tag, 0) + len(message.payload)
            case Opcode.PART:
                require(message.seq == next(iter(self.results)), "G8: results overtake each other")
                size = len(message.payload)
                self.in_hand += size
                # It stands in line again, before what is not in line yet; after the latch it goes on at once.
                rest = self.results.pop(message.seq) - size
                behind = {seq: self.results.pop(seq) for seq in list(self.results if self.latched else self.outside)}
                self.results |= {message.seq: rest, **behind}
            case Opcode.RESULT:
                require(message.seq in self.results, "G1: a second result, or one that nobody gave")
                require(message.seq == next(iter(self.results)), "G8: results overtake each other")
                self.in_hand += len(message.payload)
                del self.results[message.seq]
                self.turned_away.pop(message.seq, None)
            case Opcode.CANCEL:
                require(message.seq <= self.last_sent, "G5: a cancel overtakes its call")
                require(not self.latched, "G14: a cancel was sent after the latch")
            case Opcode.HANG_UP:
                require(self.latched, "G14: a hang-up, but the latch has not fallen")
                require(not self.results, "G14: a result that was given is not sent before the hang-up")
                require(message.aux == self.watermark, "G4: the watermark is not the highest number dispatched")
                self.hung_up = True
            case Opcode.PING | Opcode.PONG:
                require(not self.latched, "G14: a ping or pong was sent after the latch")

    def _begins(self, seq: int) -> None:
        require(seq > self.last_sent, "G8: calls overtake each other, or a number is used twice")
        self.last_sent = seq
