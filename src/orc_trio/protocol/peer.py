"""One end of a connection as a pure value machine.

Theory
------
`Peer` decides everything that has to be decided: which call gets a place, which message goes out next, whether what
came in was allowed, what a call settles to, when the connection stops being open.  It has no tasks, no clock, no I/O,
and nothing in it waits.  A shell (`orc_trio.connection`, or a test that explores all interleavings) moves messages and
wakes tasks:

* messages that arrived go to `receive`; messages to send come from `take`;
* whatever happened is in `events`, which the shell takes after every other method and acts on without a checkpoint
  between.

Rules
-----
* The states and their transitions are the table in `orc_trio.protocol.states`.
* What may be received when is the table `_RECEIVERS` below; anything else is a violation, and a violation latches.
* The latch settles every call in one step, in order (G14), and fixes the cause (G11) and the watermark (G4).
* After the latch what comes in is dropped, except the peer's hang-up, which says that nothing more will come.

It refuses: calls while it is not open, new ones while it stops softly, payloads over the agreed size, nested calls over
their budget — each by an exception to the one who asked, with nothing changed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from orc_trio.exceptions import (
    CallRefusedError,
    DisconnectedError,
    LocalProtocolError,
    MessageTooLargeError,
    NoControllerError,
    RemoteProtocolError,
)
from orc_trio.protocol.assembly import Assemblies
from orc_trio.protocol.calls import InboundCall, InboundState, OutboundCall, OutboundState
from orc_trio.protocol.events import (
    Agreed,
    CallReceived,
    CallSettled,
    CancelReceived,
    Event,
    Latched,
    PeerHungUp,
    PongReceived,
    ResultAccepted,
)
from orc_trio.protocol.limits import Limits, agree
from orc_trio.protocol.outbox import Outbox
from orc_trio.protocol.outcomes import (
    FINISHING,
    RESULT_TOO_LARGE,
    Cancelled,
    Disconnected,
    Failed,
    Outcome,
    Refused,
    Value,
    decode_hang_up,
    decode_result,
    encode_hang_up,
    encode_result,
)
from orc_trio.protocol.pending import PendingCalls
from orc_trio.protocol.pings import Pings
from orc_trio.protocol.serving import ServedCalls
from orc_trio.protocol.setup import Role, Setup, decode_setup, encode_setup
from orc_trio.protocol.states import PeerState, Trigger, next_state
from orc_trio.protocol.statistics import PeerStatistics
from orc_trio.reasons import OWN_ENDS, Certainty, DisconnectKind, DisconnectReason
from orc_trio.wire.messages import U64_MAX, Message, Opcode, PartOf, new_message

__all__ = ["Peer"]

_MUCH: Final = 16


class Peer:
    """One end of a connection.

    Args:
        role: Which end this is.
        limits: What it is willing to hold.
        setup: What it says about itself; default: its role and limits.
    """

    def __init__(self, role: Role, limits: Limits | None = None, *, setup: Setup | None = None) -> None:
        self.role = role
        self.limits: Limits = limits or Limits()
        """The limits in force: this end's own until both agree."""
        self.state: PeerState = PeerState.NEW
        self.cause: DisconnectReason | None = None
        """Why the latch fell; None while it has not (G11)."""
        self.events: deque[Event] = deque()
        """What happened and was not acted on, in order."""
        self._outbox = Outbox(self.limits.max_bytes, self.limits.part_size)
        self._pending = PendingCalls(self.limits, self._outbox.put_call)
        self._served = ServedCalls(self.limits)
        self._results_arriving = Assemblies()
        self._pings = Pings()
        self._probe = 0  # the ping that asks whether everything has arrived; 0: none is out
        self._all_arrived = False
        self._turned_away: set[InboundCall] = set()  # refused by a soft stop, and the refusal is queued
        self.hang_up_taken: bool = False
        """Whether the hang-up was handed over: nothing follows it."""
        self._peer_hung_up = False
        self._outbox.put(Message(Opcode.SETUP, payload=encode_setup(setup or Setup.of(role, self.limits))))

    # What this end does

    def call(
        self, tag: int, payload: bytes | memoryview, *, nested: bool = False, deadline: float = math.inf
    ) -> OutboundCall:
        """Accept a call: give it a number and queue its frame, or let it wait for room (G2, G8).

        Args:
            tag: Handler tag or executor address, 0 … 2⁶⁴−1.
            payload: The argument bytes; must not change until the call settles or is cancelled.
            nested: It is made while serving a call (G7).
            deadline: When its caller stops waiting, on the clock of `take`.

        Returns:
            The call; its outcome comes with a `CallSettled` event.

        Raises:
            LocalProtocolError: The tag is out of range.
            NoControllerError: The connection is not open yet, or over.
            DisconnectedError: The latch has fallen.
            CallRefusedError: This end stops softly, and the call is not nested.
            MessageTooLargeError: The payload is over the agreed limit (G26).
            NestingLimitError: The nested budget is used up.
        """
        if not 0 <= tag <= U64_MAX:
            raise LocalProtocolError(f"the tag {tag:#x} is out of range")
        if self.state is not PeerState.RUNNING:
            if self.state is PeerState.DRAINING:
                assert self.cause is not None
                raise DisconnectedError(self.cause, Certainty.NOT_SENT)  # G21
            if not self.open:
                raise NoControllerError(f"the connection is {self.state.value}")
            if self.state is PeerState.FINISHING and not nested:
                raise CallRefusedError(FINISHING)
        if len(payload) > self.limits.max_message:
            raise MessageTooLargeError(len(payload), self.limits.max_message)
        call = OutboundCall(tag, payload, len(payload), nested, deadline)
        self._pending.submit(call)
        self._probe, self._all_arrived = 0, False
        return call

    def cancel(self, call: OutboundCall) -> None:
        """The caller has left (G5).  Nothing happens if the call has settled already."""
        match call.state:
            case OutboundState.WAITING:
                self._pending.leave(call)
                self._ask_whether_all_arrived()
            case OutboundState.QUEUED:
                self._outbox.remove(call)
                self._pending.leave(call)
                self._ask_whether_all_arrived()
            case OutboundState.SENT:
                if call.payload:
                    self._outbox.remove(call)
                    call.payload = b""
                call.state = OutboundState.ABANDONED
                self._results_arriving.discard(call.seq)
                self._outbox.put(Message(Opcode.CANCEL, call.seq))
                return
            case _:
                return
        call.state = OutboundState.SETTLED
        call.payload = b""

    def respond(self, call: InboundCall, outcome: Value | Failed | Refused | Cancelled) -> bool:
        """Answer a call, once.

        A value over the agreed size becomes an error result (G26); so does an answer to a call whose caller has left
        become "cancelled" (G5).  After the latch the answer is dropped.

        Returns:
            Whether it is done with; False: the result waits for room, and `ResultAccepted` will come.

        Raises:
            LocalProtocolError: The call was answered already.
        """
        if self.cause is not None:
            return True  # the latch settled it
        if call.state is not InboundState.RUNNING:
            raise LocalProtocolError(f"call {call.seq} was answered already")
        call.state = InboundState.ANSWERED
        if call.cancel_requested and not isinstance(outcome, Refused):
            outcome = Cancelled()
        elif isinstance(outcome, Value) and len(outcome.payload) > self.limits.max_message:
            outcome = Failed(
                RESULT_TOO_LARGE,
                f"a result of {len(outcome.payload)} bytes is over the agreed limit of {self.limits.max_message} bytes",
            )
        return self._queue_result(call, outcome)

    def ping(self) -> int | None:
        """Queue a ping (G17).

        Returns:
            Its number; None: the last one was not answered yet, or the connection is not open.
        """
        message = self._pings.ping() if self.open else None
        if message is None:
            return None
        self._outbox.put(message)
        return message.aux

    # Sending

    @property
    def has_output(self) -> bool:
        """Whether `take` would give something."""
        # Results that wait outside enter when `take` says that what was taken has been sent: one of them always fits.
        return bool(self._outbox)

    @property
    def worth_sending(self) -> bool:
        """Whether to send at once: much is queued; or half of what little there is in flight.

        Then the peer can work on the one half while the other half is made here.
        """
        queued = len(self._outbox.entries)
        return queued >= _MUCH or len(self._pending.placed) + len(self._served.calls) <= min(2 * queued, _MUCH)

    def take(self, now: float = 0.0, max_bytes: int = 256 * 1024) -> list[Message]:
        """Hand over the next messages, in order; what was taken before has been sent.

        From here on their calls count as sent (G4).

        Args:
            now: The time, on the clock of the calls' deadlines.
            max_bytes: Stop after this many payload bytes, or one part; at least one message is handed over.
        """
        self.sent()
        max_bytes = min(max_bytes, self._outbox.part_size)
        messages: list[Message] = []
        size = 0
        while size < max_bytes and (entry := self._outbox.take()) is not None:
            if isinstance(entry, OutboundCall):
                message = entry.sent(now)
            elif isinstance(entry, InboundCall):
                assert entry.result is not None
                message, entry.result = entry.result, None
                if entry.state is not InboundState.DONE:
                    self._served.finish(entry)
                self._turned_away.discard(entry)
            else:
                message = entry
                if message.opcode == Opcode.PONG:
                    self._pings.pong_taken()
                elif message.opcode == Opcode.HANG_UP:
                    self.hang_up_taken = True
            messages.append(message)
            size += len(message.payload) + 64
        self._ask_whether_all_arrived()
        return messages

    def sent(self) -> None:
        """What was taken has been sent; `take` says so too."""
        for served in self._outbox.release():
            self.events.append(ResultAccepted(served))

    # Receiving

    def receive(self, message: Message) -> None:
        """Act on a message from the peer.  Whatever it is, this does not raise (G25)."""
        if self.state is PeerState.CLOSED or self._peer_hung_up:
            return
        if self.state is PeerState.DRAINING and message.opcode != Opcode.HANG_UP:
            return  # G14: read and drop
        try:
            receiver = _RECEIVERS.get(message.opcode)
            if receiver is None:
                raise RemoteProtocolError(f"unknown opcode {message.opcode}")
            if self.state is PeerState.NEW and message.opcode not in (Opcode.SETUP, Opcode.HANG_UP):
                raise RemoteProtocolError(f"{Opcode(message.opcode).name} came before the setup message")
            receiver(self, message)
        except RemoteProtocolError as exc:
            self.violation(str(exc))

    def violation(self, detail: str) -> None:
        """The peer broke the protocol (also: its bytes were no messages)."""
        self.latch(DisconnectReason(DisconnectKind.PROTOCOL_VIOLATION, detail))

    def _on_setup(self, message: Message) -> None:
        if self.state is not PeerState.NEW:
            raise RemoteProtocolError("a second setup message")
        try:
            setup = decode_setup(message.payload, expect=self.role.other)
            agreed = agree(self.limits, dict(setup.limits))
        except RemoteProtocolError as exc:
            self.latch(DisconnectReason(DisconnectKind.CONNECT_FAILED, str(exc)))
            return
        self.state = next_state(self.state, Trigger.AGREE)
        self.limits = agreed
        self._outbox.max_bytes = agreed.max_bytes
        self._pending = PendingCalls(agreed, self._outbox.put_call)
        self._served = ServedCalls(agreed)
        self.events.append(Agreed(setup))

    def _on_hang_up(self, message: Message) -> None:
        reason = decode_hang_up(message.payload)
        self.latch(reason, watermark=message.aux)
        self._peer_hung_up = True
        self.events.append(PeerHungUp())

    def _on_call(self, message: Message) -> None:
        call = self._served.begin(message)
        if self.state is PeerState.FINISHING and not call.nested:
            call.state = InboundState.ANSWERED
            self._turned_away.add(call)
            self._queue_result(call, Refused(FINISHING))
            return
        self._served.dispatch(call)
        self._probe, self._all_arrived = 0, False
        self.events.append(CallReceived(call))

    def _on_cancel(self, message: Message) -> None:
        _expect_empty(message)
        call = self._served.cancel(message.seq)
        if call is None:
            return
        if call.state is InboundState.RUNNING:
            self.events.append(CancelReceived(call))
        else:
            self._queue_result(call, Cancelled())

    def _on_result(self, message: Message) -> None:
        call = self._pending.get(message.seq)
        if call is None:
            raise RemoteProtocolError(f"a result for call {message.seq}, which is not pending")
        if call.payload:
            raise RemoteProtocolError(f"a result for call {message.seq}, of which not all was sent")
        arriving = self._results_arriving
        payload = arriving.complete(message.seq, message.payload) if arriving.size else None
        if payload is None:
            payload = message.payload
        if len(payload) > self.limits.max_message:
            raise RemoteProtocolError(f"a result of {len(payload)} bytes; {self.limits.max_message} agreed")
        if call.state is OutboundState.ABANDONED:
            # G5: nobody waits for it, and of one in parts the bytes were not kept.
            self._pending.free(call)
            call.state = OutboundState.SETTLED
            self._ask_whether_all_arrived()
            return
        outcome = decode_result(message.aux, payload)
        self._pending.free(call)
        self._settle(call, outcome)
        self._ask_whether_all_arrived()

    def _on_part(self, message: Message) -> None:
        if message.tag == PartOf.CALL:
            self._served.part(message)
            return
        if message.tag != PartOf.RESULT:
            raise RemoteProtocolError(f"a part of an unknown kind {message.tag}")
        call = self._pending.get(message.seq)
        if call is None:
            raise RemoteProtocolError(f"a part of a result for call {message.seq}, which is not pending")
        self._results_arriving.part(message, self._check_result, keep=call.state is OutboundState.SENT)

    def _check_result(self, total: int) -> None:
        if total > self.limits.max_message or self._results_arriving.size + total > 2 * self.limits.max_bytes:
            raise RemoteProtocolError(f"a result in parts announces {total} bytes, over the agreed limits")

    def _on_ping(self, message: Message) -> None:
        _expect_empty(message)
        self._outbox.put(self._pings.pong(message))

    def _on_pong(self, message: Message) -> None:
        _expect_empty(message)
        self._pings.answered(message)
        if message.aux == self._probe:
            self._probe = 0
            self._all_arrived = not self._in_flight
        self._ask_whether_all_arrived()
        self.events.append(PongReceived(message.aux))

    # The end

    @property
    def open(self) -> bool:
        """Whether both ends have agreed, and the latch has not fallen."""
        return self.state in (PeerState.RUNNING, PeerState.FINISHING)

    def finish(self) -> None:
        """Stop softly: refuse new calls of both ends, and let those in flight go on, with the nested calls they make.

        What follows, when `finished` or before, is the latch.  Nothing happens if this was said before.

        Raises:
            LocalProtocolError: This end is not open.
        """
        if self.state is not PeerState.FINISHING:
            self.state = next_state(self.state, Trigger.FINISH)
            self._ask_whether_all_arrived()

    @property
    def finished(self) -> bool:
        """Whether this end stops softly, and no call is in flight: each has had its result, and the peer has it."""
        return self.state is PeerState.FINISHING and self._all_arrived and not self._in_flight

    @property
    def _in_flight(self) -> bool:
        # Not those turned away: as long as the peer goes on asking, there would always be one.
        served = len(self._served) - len(self._turned_away)
        return bool(len(self._pending) or self._pending.waiting or served)

    def _ask_whether_all_arrived(self) -> None:
        # A pong says that all has arrived which was sent before its ping, and brings all that was sent before it.
        asked = self._probe or self._all_arrived
        if self.state is PeerState.FINISHING and not (self._in_flight or asked) and (message := self._pings.ping()):
            self._probe = message.aux
            self._outbox.put(message)

    def latch(self, cause: DisconnectReason, *, watermark: int | None = None) -> DisconnectReason:
        """Stop being open, for this cause; nothing happens if the latch has fallen already.

        Args:
            cause: Why.  Before both ends agreed, what happened to the connection becomes ``CONNECT_FAILED``.
            watermark: The highest call number the peer dispatched, if it said so.

        Returns:
            The cause in force.
        """
        if self.cause is not None:
            return self.cause
        if self.state is PeerState.NEW and cause.kind not in OWN_ENDS:
            cause = DisconnectReason(DisconnectKind.CONNECT_FAILED, "before both ends had agreed", cause)
        self.state = next_state(self.state, Trigger.LATCH)
        self.cause = cause
        # G14: in the order in which the calls were made, then those that waited, in one step.
        for call in self._pending.drain():
            match call.state:
                case OutboundState.ABANDONED:
                    call.state = OutboundState.SETTLED
                case OutboundState.SENT:
                    # G4: above the peer's watermark it was never handed to a handler; nor was one that is not complete.
                    known = bool(call.payload) or (watermark is not None and call.seq > watermark)
                    certainty = Certainty.NOT_STARTED if known else Certainty.UNKNOWN
                    self._settle(call, Disconnected(cause, certainty))
                case _:
                    self._settle(call, Disconnected(cause, Certainty.NOT_SENT))
        self._results_arriving.clear()
        hang_up = Message(Opcode.HANG_UP, aux=self._served.watermark, payload=encode_hang_up(cause))
        for served in self._outbox.close(hang_up):
            self.events.append(ResultAccepted(served))
        self._served.drain()
        self._turned_away.clear()
        self._pings.forget()
        self.events.append(Latched(cause))
        return cause

    def end(self) -> None:
        """The transport is closed: forget everything that is left.

        Raises:
            LocalProtocolError: The latch has not fallen.
        """
        self.state = next_state(self.state, Trigger.END)
        self._outbox.clear()

    # What happened

    def poll_events(self) -> list[Event]:
        """Take all `events`."""
        events = list(self.events)
        self.events.clear()
        return events

    def statistics(self) -> PeerStatistics:
        """A snapshot of the counts."""
        return PeerStatistics(
            state=self.state,
            pending_calls=len(self._pending) - self._pending.abandoned,
            waiting_calls=self._pending.waiting,
            abandoned_calls=self._pending.abandoned,
            bytes_in_flight=self._pending.bytes_in_flight,
            served_calls=len(self._served),
            waiting_results=self._outbox.results_outside,
            queued_messages=len(self._outbox),
            queued_bytes=self._outbox.call_bytes + self._outbox.result_bytes,
        )

    def _settle(self, call: OutboundCall, outcome: Outcome) -> None:
        call.state = OutboundState.SETTLED
        call.outcome = outcome
        call.payload = b""
        self.events.append(CallSettled(call, outcome))

    def _queue_result(self, call: InboundCall, outcome: Value | Failed | Refused | Cancelled) -> bool:
        kind, payload = encode_result(outcome)
        call.result = new_message((Opcode.RESULT, call.seq, 0, kind, payload))
        call.payload = b""
        return self._outbox.put_result(call)


def _expect_empty(message: Message) -> None:
    if message.payload:
        raise RemoteProtocolError(f"{Opcode(message.opcode).name} has a payload")


_RECEIVERS: Final = MappingProxyType[int, Callable[[Peer, Message], None]](
    {
        Opcode.SETUP: Peer._on_setup,
        Opcode.HANG_UP: Peer._on_hang_up,
        Opcode.RESULT: Peer._on_result,
        Opcode.CALL: Peer._on_call,
        Opcode.CANCEL: Peer._on_cancel,
        Opcode.PING: Peer._on_ping,
        Opcode.PONG: Peer._on_pong,
        Opcode.NESTED_CALL: Peer._on_call,
        Opcode.PART: Peer._on_part,
    }
)
