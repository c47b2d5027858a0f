# Trace refinement: what the Trio shell did to each protocol core, checked step by step against the core's own rules.
#
# During a run each end's core is a `RecordingPeer`: the shipped core, which also writes down what is done to it, in
# order.  Afterwards `refine` does the same to a fresh core, with the oracle of the exploration looking on: every law is
# checked after every step, and what the core hands out must be what it handed out in the run.  So the shell used the
# core as it may, and what the oracle knows at the end (the fate of each call) must be what the programs saw.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from orc_trio.exceptions import OrcError
from orc_trio.protocol import (
    CallSettled,
    Cancelled,
    Disconnected,
    Event,
    InboundCall,
    Limits,
    OutboundCall,
    Peer,
    Refused,
    Role,
    Setup,
)
from orc_trio.protocol.outcomes import FINISHING, encode_result
from orc_trio.reasons import DisconnectReason
from orc_trio.testing._explore_end import End
from orc_trio.testing._explore_oracle import Fate, Violation, argument, require
from orc_trio.testing.explore_plan import EndPlan
from orc_trio.wire.messages import Message, Opcode

Entry: TypeAlias = tuple[Any, ...]
CALLS = (Opcode.CALL, Opcode.NESTED_CALL)


class RecordingPeer(Peer):
    """The shipped core, with a log of what is done to it from outside."""

    def __init__(self, role: Role, limits: Limits | None = None, *, setup: Setup | None = None) -> None:
        super().__init__(role, limits, setup=setup)
        self.log: list[Entry] = []
        self._inside = False

    def _record(self, entry: Entry, function: Callable[[], Any]) -> Any:
        if self._inside:
            return function()
        self.log.append(entry)
        at = len(self.log) - 1
        self._inside = True
        try:
            result = function()
        except OrcError as exc:
            self.log[at] = (*entry, type(exc).__name__)
            raise
        finally:
            self._inside = False
        self.log[at] = (*entry, result)
        return result

    def call(self, tag: int, payload: Any, *, nested: bool = False, deadline: float = 0.0) -> OutboundCall:
        made: OutboundCall = self._record(
            ("call", tag, bytes(payload), nested),
            lambda: Peer.call(self, tag, payload, nested=nested, deadline=deadline),
        )
        return made

    def cancel(self, call: OutboundCall) -> None:
        self._record(("cancel", call.tag), lambda: Peer.cancel(self, call))

    def respond(self, call: InboundCall, outcome: Any) -> bool:
        return bool(self._record(("respond", call.seq, outcome), lambda: Peer.respond(self, call, outcome)))

    def ping(self) -> int | None:
        number: int | None = self._record(("ping",), lambda: Peer.ping(self))
        return number

    def take(self, now: float = 0.0, max_bytes: int = 256 * 1024) -> list[Message]:
        messages: list[Message] = self._record(("take", max_bytes), lambda: Peer.take(self, now, max_bytes))
        return messages

    def receive(self, message: Message) -> None:
        self._record(("receive", message), lambda: Peer.receive(self, message))

    def violation(self, detail: str) -> None:
        self._record(("violation", detail), lambda: Peer.violation(self, detail))

    def finish(self) -> None:
        self._record(("finish",), lambda: Peer.finish(self))

    def latch(self, cause: DisconnectReason, *, watermark: int | None = None) -> DisconnectReason:
        found: DisconnectReason = self._record(("latch", cause), lambda: Peer.latch(self, cause, watermark=watermark))
        return found

    def end(self) -> None:
        self._record(("end",), lambda: Peer.end(self))

    @property
    def taken(self) -> list[Message]:
        """Everything it handed out, in order."""
        return [message for entry in self.log if entry[0] == "take" for message in entry[2]]


class ReplayedEnd(End):
    """An end to which a log is done."""

    def replay(self, entry: Entry) -> None:
        """Do one entry, and check every law."""
        match entry:
            case ("call", tag, payload, nested, result):
                caller = self.plan.callers[tag]
                require(payload == argument(tag, caller.size), "the shell changed the argument of a call")
                require(nested is caller.nested, "G7: the shell lost the nested mark, or made it up")
                refused = self.fates[tag] is not Fate.IDLE
                require(not refused, "a caller called twice")
                self.do(("call", tag))
                accepted = self.fates[tag] is Fate.OPEN
                require(accepted == (not isinstance(result, str)), f"the core accepts, the shell heard {result}")
            case ("cancel", tag, _):
                self.do(("cancel", tag))
            case ("respond", seq, outcome, accepted):
                require(self._respond(seq, outcome) == accepted, "the core answered otherwise")
            case ("ping", _):
                self.do(("ping", 0))
            case ("take", max_bytes, messages):
                _same(self.take(max_bytes), messages)
            case ("receive", message, _):
                self.receive([message])
            case ("violation", detail, _):
                self.peer.violation(detail)
                self._act()
            case ("finish", _):
                self.do(("finish", 0))
            case ("latch", cause, _):
                before = self.latched
                found = self.peer.latch(cause)
                require(before is None or found == before, "G11: a second cause")
                self._act()
            case ("end", _):
                require(self.latched, "G11: an end without a latch")
                self.do(("close", 0))
            case _:
                raise Violation(f"the shell did what nobody may do: {entry}")

    def _respond(self, seq: int, outcome: Any) -> bool:
        require(seq in self.serving, "G1: a call was answered twice, or one that nobody made")
        call = self.serving.pop(seq)
        before = self.peer.statistics()
        cancelled = call.cancel_requested and not isinstance(outcome, Refused)
        accepted = self.peer.respond(call, outcome)
        if self.latched:
            require(accepted and self.peer.statistics() == before, "G13: a late answer was not dropped")
        else:
            self.answered |= 1 << call.tag
            self.results[seq] = len(encode_result(Cancelled() if cancelled else outcome)[1])
            if not accepted:
                self.outside.append(seq)
        self._act()
        return accepted

    def _on_event(self, event: Event, drained: list[tuple[bool, int]]) -> None:
        match event:
            # The executor's session refuses by itself, when it shuts down: no plan says when.
            case CallSettled(call, Refused(message)) if message != FINISHING:
                require(self.fates[call.tag] is Fate.OPEN, "G1: settled again")
                self.fates[call.tag] = Fate.REFUSED_BY_PEER
                self.made.remove(call.tag)
                del self.calls[call.tag]
                self._forget(call.tag)
            case CallSettled(call, Disconnected()) if self.fates[call.tag] is not Fate.OPEN:
                raise Violation(f"G1: call {call.tag} settled again")
            case _:
                super()._on_event(event, drained)


def _same(replayed: Sequence[Message], recorded: Sequence[Message]) -> None:
    require(list(map(_plain, replayed)) == list(map(_plain, recorded)), "the core handed out other messages")


def _plain(message: Message) -> Message:
    """What does not depend on the clock, or on what an end says of itself."""
    if message.opcode == Opcode.SETUP:
        return Message(Opcode.SETUP)
    aux = 0 if message.opcode in CALLS else message.aux
    return message._replace(aux=aux, payload=bytes(message.payload))


def refine(peer: RecordingPeer, plan: EndPlan, other: EndPlan, *, gentle: bool) -> ReplayedEnd:
    """Check one end's log.

    Returns:
        What the oracle knows of that end now.

    Raises:
        Violation: A law does not hold; a note says where in the log.
    """
    end = ReplayedEnd(Peer(peer.role, plan.limits), plan, other, gentle)
    for number, entry in enumerate(peer.log):
        try:
            end.replay(entry)
        except (Violation, OrcError, AssertionError, LookupError) as exc:
            violation = exc if isinstance(exc, Violation) else Violation(f"the core raised {type(exc).__name__}: {exc}")
            violation.add_note(f"{peer.role.value}, entry {number} of {len(peer.log)}:")
            for line in peer.log[max(0, number - 12) : number + 1]:
                violation.add_note(f"    {_short(line)}")
            raise violation from exc
        end.notes.clear()
    return end


def _short(entry: Entry) -> str:
    return str(entry)[:200]
