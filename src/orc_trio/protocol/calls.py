"""Calls: one record for each, as seen from the end that made it and from the end that serves it.

End of life
-----------
An `OutboundCall` is WAITING (for room), then QUEUED (numbered, registered, its frame in the outbox), then SENT (its
frame, or the first part of it, was handed to the transport), then SETTLED.  Its caller may leave it at any point:
WAITING and QUEUED calls vanish without a trace on the wire; a SENT one becomes ABANDONED, a tombstone that waits for
its one result.

An `InboundCall` is RUNNING, then ANSWERED (its result is queued, or waits for room), then DONE (its result was handed
to the transport, or dropped because the latch had fallen).

The payload reference is given up as soon as the frame is handed over: what the library holds is what is queued (G8).  A
SENT call that still has some was handed over in part: the peer cannot have begun it.
"""

from __future__ import annotations

import enum
import math
from typing import Any

import attrs

from orc_trio.protocol.outcomes import Outcome
from orc_trio.wire.messages import NO_DEADLINE, Message, Opcode, PartOf, new_message

__all__ = ["InboundCall", "InboundState", "OutboundCall", "OutboundState"]


class OutboundState(enum.Enum):
    """Where a call is, at the end that made it."""

    WAITING = "waiting"
    QUEUED = "queued"
    SENT = "sent"
    ABANDONED = "abandoned"
    SETTLED = "settled"


class InboundState(enum.Enum):
    """Where a call is, at the end that serves it."""

    RUNNING = "running"
    ANSWERED = "answered"
    DONE = "done"


@attrs.define(eq=False)
class OutboundCall:
    """A call this end made.

    Attributes:
        tag: Handler tag or executor address.
        payload: The argument bytes, until they are handed over.
        size: Their length.
        nested: Whether it was made while serving a call.
        deadline: When its caller stops waiting, on this end's clock; `math.inf`: never.
        seq: Its number; 0 while it waits for room.
        state: See the module's header.
        outcome: How it settled, once it did.
        waiter: Belongs to the shell: what to wake.
    """

    tag: int
    payload: bytes | memoryview
    size: int
    nested: bool = False
    deadline: float = math.inf
    seq: int = 0
    state: OutboundState = OutboundState.WAITING
    outcome: Outcome | None = None
    waiter: Any = None

    def part(self, size: int) -> Message:
        """Its next part, not the last, which is handed over now."""
        view = memoryview(self.payload)
        self.payload = view[size:]
        self.state = OutboundState.SENT
        return new_message((Opcode.PART, self.seq, PartOf.CALL, self.size, view[:size]))

    def sent(self, now: float) -> Message:
        """Its frame, or the last piece of it, which is handed over now (G4)."""
        payload, self.payload = self.payload, b""
        self.state = OutboundState.SENT
        aux = NO_DEADLINE
        if self.deadline < math.inf:
            # A deadline may be minus infinity, and a far one infinity after the multiplication.
            aux = int(min(max(0.0, (self.deadline - now) * 1_000_000), NO_DEADLINE - 1))
        return new_message((Opcode.NESTED_CALL if self.nested else Opcode.CALL, self.seq, self.tag, aux, payload))


@attrs.define(eq=False)
class InboundCall:
    """A call the peer made.

    Attributes:
        seq: Its number.
        tag: Handler tag or executor address.
        payload: The argument bytes; the shell takes them.
        size: Their length.
        nested: Whether it was made while serving a call.
        remaining: Seconds its caller still waits, as of its sending; `math.inf`: for ever.
        state: See the module's header.
        cancel_requested: Whether its caller has left.
        result: The result message, once it is answered.
        result_size: The length of its payload, once a part of it was handed over.
        waiter: Belongs to the shell: what to wake when the result has found room.
    """

    seq: int
    tag: int
    payload: bytes | memoryview
    size: int
    nested: bool
    remaining: float
    state: InboundState = InboundState.RUNNING
    cancel_requested: bool = False
    result: Message | None = None
    result_size: int = 0
    waiter: Any = None

    def part(self, size: int) -> Message:
        """The next part of its result, not the last, which is handed over now."""
        assert self.result is not None
        view = memoryview(self.result.payload)
        self.result_size = self.result_size or len(view)
        self.result = self.result._replace(payload=view[size:])
        return new_message((Opcode.PART, self.seq, PartOf.RESULT, self.result_size, view[:size]))
