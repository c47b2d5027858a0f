"""The calls the peer made: what it may have in flight, and the numbers it may use.

Rules (G25)
-----------
* A call's number is above that of every call before it.  A large call takes its number with its first part.
* The peer keeps the agreed limits; one call too many, or one byte, is a violation.  (It cannot happen to a peer that
  counts: its places are freed by our results, ours a moment before it reads them.)
* A cancel for a call that was answered is absorbed; for a number never used, it is a violation.
* The watermark is the highest number handed to a handler.
"""

from __future__ import annotations

import math
from typing import Final

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.protocol.assembly import Assemblies
from orc_trio.protocol.calls import InboundCall, InboundState
from orc_trio.protocol.limits import Limits
from orc_trio.wire.messages import NO_DEADLINE, Message, Opcode

__all__ = ["ServedCalls"]

_MICRO: Final = 1e-6


class ServedCalls:
    """The table of calls the peer made.

    Args:
        limits: The agreed limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.calls: dict[int, InboundCall] = {}
        self._cut_off: set[InboundCall] = set()  # cancelled before their last piece came
        self._arriving = Assemblies()
        self._counts = {False: 0, True: 0}
        self._sizes = {False: 0, True: 0}
        self._last_seq = 0
        self.watermark: int = 0

    def __len__(self) -> int:
        return len(self.calls) + len(self._arriving)

    def part(self, message: Message) -> None:
        """Take a part of a call."""

        def check(total: int) -> None:
            self._number(message.seq)
            if total > self._limits.max_message:
                raise RemoteProtocolError(
                    f"call {message.seq} announces {total} bytes; {self._limits.max_message} agreed"
                )
            self._check_room(message.seq, total)

        self._arriving.part(message, check)

    def begin(self, message: Message) -> InboundCall:
        """Take a call message (the whole call, or its last piece).

        Raises:
            RemoteProtocolError: It breaks a rule.
        """
        seq = message.seq
        payload = self._arriving.complete(seq, message.payload) if self._arriving.size else None
        if payload is None:
            self._number(seq)
            payload = message.payload
        size, nested = len(payload), message.opcode == Opcode.NESTED_CALL
        if size > self._limits.max_message:
            raise RemoteProtocolError(f"call {seq} has {size} bytes; {self._limits.max_message} agreed")
        if self._arriving.size or self._cut_off:
            self._check_room(seq, size)
        max_calls = self._limits.max_nested_calls if nested else self._limits.max_calls
        if self._counts[nested] >= max_calls or self._sizes[nested] + size > self._limits.max_bytes:
            kind = "nested calls" if nested else "calls"
            raise RemoteProtocolError(
                f"call {seq} is over the agreed limits of {max_calls} {kind}, {self._limits.max_bytes} bytes in flight"
            )
        remaining = math.inf if message.aux == NO_DEADLINE else message.aux * _MICRO
        call = self.calls[seq] = InboundCall(seq, message.tag, payload, size, nested, remaining)
        self._counts[nested] += 1
        self._sizes[nested] += size
        return call

    def dispatch(self, call: InboundCall) -> None:
        """A handler gets the call."""
        self.watermark = max(self.watermark, call.seq)

    def cancel(self, seq: int) -> InboundCall | None:
        """Take a cancel.

        Returns:
            The call to cancel: RUNNING, or not begun (its parts were incomplete) and then to be answered by the
            caller of this method.  None: it was answered already.
        """
        call = self.calls.get(seq)
        if call is not None:
            call.cancel_requested = True
            return call if call.state is InboundState.RUNNING else None
        if self._arriving.forget(seq):
            # In the table, but in neither budget: its last piece, which would say which, will not come.
            call = self.calls[seq] = InboundCall(seq, 0, b"", 0, False, math.inf, InboundState.ANSWERED, True)
            self._cut_off.add(call)
            return call
        if seq == 0 or seq > self._last_seq:
            raise RemoteProtocolError(f"a cancel for call {seq}, which was never made")
        return None

    def finish(self, call: InboundCall) -> None:
        """The call's result was handed over: its place is free."""
        del self.calls[call.seq]
        if call in self._cut_off:
            self._cut_off.remove(call)
        else:
            self._counts[call.nested] -= 1
            self._sizes[call.nested] -= call.size
        call.state = InboundState.DONE

    def drain(self) -> None:
        """Empty the table."""
        for call in self.calls.values():
            call.state = InboundState.DONE
        self.calls.clear()
        self._cut_off.clear()
        self._arriving.clear()
        self._counts = {False: 0, True: 0}
        self._sizes = {False: 0, True: 0}

    def _check_room(self, seq: int, size: int) -> None:
        # Whether a call in parts is nested is known only at its end, so this is about both kinds together.
        limits = self._limits
        taken = sum(self._sizes.values()) + self._arriving.size
        if len(self) >= limits.max_calls + limits.max_nested_calls or taken + size > 2 * limits.max_bytes:
            raise RemoteProtocolError(f"call {seq} is over the agreed limits of calls and bytes in flight")

    def _number(self, seq: int) -> None:
        if seq <= self._last_seq:
            raise RemoteProtocolError(f"call number {seq} is not above the last one, {self._last_seq}")
        self._last_seq = seq
