"""The calls the peer made: what it may have in flight, and the numbers it may use.

Rules (G25)
-----------
* A call's number is above that of every call before it.  A large call takes its number with its first part.
* The peer keeps the agreed limits; one call too many, or one byte, is a violation.  (It cannot happen to a peer that
  counts: its places are freed by our results, ours a moment before it reads them.)
* A cancel for a call that was answered is absorbed; for a number never used, it is a violation.
* The watermark is the highest number handed to a handler.

Parts of large calls and results are put together here too: the buffer is allocated once, at the first part, after its
announced length was checked.
"""

from __future__ import annotations

import math
from typing import Final

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.protocol.calls import InboundCall, InboundState
from orc_trio.protocol.limits import Limits
from orc_trio.wire.messages import NO_DEADLINE, Message, Opcode

__all__ = ["Assembly", "ServedCalls"]

_MICRO: Final = 1e-6


class Assembly:
    """One large payload that arrives in parts.

    Args:
        total: Its announced length, already checked.
        keep: False: count only, the bytes are of no interest any more.
    """

    __slots__ = ("_buffer", "_filled", "total")

    def __init__(self, total: int, *, keep: bool = True) -> None:
        self.total: int = total
        self._buffer: bytearray | None = bytearray(total) if keep else None
        self._filled = 0

    def discard(self) -> None:
        """Give up the bytes, keep counting."""
        self._buffer = None

    def part(self, message: Message) -> None:
        """Take one part, not the last."""
        if message.aux != self.total:
            raise RemoteProtocolError(f"a part announces {message.aux} bytes in all, the first part said {self.total}")
        if not message.payload or self._filled + len(message.payload) >= self.total:
            raise RemoteProtocolError("the parts of a message are more than its announced length, or empty")
        self._put(message.payload)

    def last(self, payload: bytes | memoryview) -> bytes | memoryview:
        """Take the last piece.

        Returns:
            The whole payload; empty if it was discarded.
        """
        if self._filled + len(payload) != self.total:
            raise RemoteProtocolError(
                f"the parts of a message have {self._filled + len(payload)} bytes, {self.total} were announced"
            )
        self._put(payload)
        return b"" if self._buffer is None else memoryview(self._buffer)

    def _put(self, payload: bytes | memoryview) -> None:
        stop = self._filled + len(payload)
        if self._buffer is not None:
            self._buffer[self._filled : stop] = payload
        self._filled = stop


class ServedCalls:
    """The table of calls the peer made.

    Args:
        limits: The agreed limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls: dict[int, InboundCall] = {}
        self._cut_off: set[InboundCall] = set()  # cancelled before their last piece came
        self._arriving: dict[int, Assembly] = {}
        self._arriving_bytes = 0
        self._counts = {False: 0, True: 0}
        self._sizes = {False: 0, True: 0}
        self._last_seq = 0
        self.watermark: int = 0

    def __len__(self) -> int:
        return len(self._calls) + len(self._arriving)

    def part(self, message: Message) -> None:
        """Take a part of a call."""
        assembly = self._arriving.get(message.seq)
        if assembly is None:
            self._number(message.seq)
            total = message.aux
            if total > self._limits.max_message:
                raise RemoteProtocolError(
                    f"call {message.seq} announces {total} bytes; {self._limits.max_message} agreed"
                )
            self._check_room(message.seq, total)
            assembly = self._arriving[message.seq] = Assembly(total)
            self._arriving_bytes += total
        assembly.part(message)

    def begin(self, message: Message) -> InboundCall:
        """Take a call message (the whole call, or its last piece).

        Raises:
            RemoteProtocolError: It breaks a rule.
        """
        seq, payload = message.seq, message.payload
        assembly = self._forget_arriving(seq)
        if assembly is None:
            self._number(seq)
        else:
            payload = assembly.last(payload)
        size, nested = len(payload), message.opcode == Opcode.NESTED_CALL
        if size > self._limits.max_message:
            raise RemoteProtocolError(f"call {seq} has {size} bytes; {self._limits.max_message} agreed")
        self._check_room(seq, size)
        max_calls = self._limits.max_nested_calls if nested else self._limits.max_calls
        if self._counts[nested] >= max_calls or self._sizes[nested] + size > self._limits.max_bytes:
            kind = "nested calls" if nested else "calls"
            raise RemoteProtocolError(
                f"call {seq} is over the agreed limits of {max_calls} {kind}, {self._limits.max_bytes} bytes in flight"
            )
        remaining = math.inf if message.aux == NO_DEADLINE else message.aux * _MICRO
        call = self._calls[seq] = InboundCall(seq, message.tag, payload, size, nested, remaining)
        self._counts[nested] += 1
        self._sizes[nested] += size
        self.watermark = max(self.watermark, seq)
        return call

    def cancel(self, seq: int) -> InboundCall | None:
        """Take a cancel.

        Returns:
            The call to cancel: RUNNING, or not begun (its parts were incomplete) and then to be answered by the
            caller of this method.  None: it was answered already.
        """
        call = self._calls.get(seq)
        if call is not None:
            call.cancel_requested = True
            return call if call.state is InboundState.RUNNING else None
        if self._forget_arriving(seq) is not None:
            # In the table, but in neither budget: its last piece, which would say which, will not come.
            call = self._calls[seq] = InboundCall(seq, 0, b"", 0, False, math.inf, InboundState.ANSWERED, True)
            self._cut_off.add(call)
            return call
        if seq == 0 or seq > self._last_seq:
            raise RemoteProtocolError(f"a cancel for call {seq}, which was never made")
        return None

    def finish(self, call: InboundCall) -> None:
        """The call's result was handed over: its place is free."""
        del self._calls[call.seq]
        if call in self._cut_off:
            self._cut_off.remove(call)
        else:
            self._counts[call.nested] -= 1
            self._sizes[call.nested] -= call.size
        call.state = InboundState.DONE

    def drain(self) -> None:
        """Empty the table."""
        for call in self._calls.values():
            call.state = InboundState.DONE
        self._calls.clear()
        self._cut_off.clear()
        self._arriving.clear()
        self._arriving_bytes = 0
        self._counts = {False: 0, True: 0}
        self._sizes = {False: 0, True: 0}

    def _check_room(self, seq: int, size: int) -> None:
        # Whether a call in parts is nested is known only at its end, so this is about both kinds together.
        limits = self._limits
        taken = sum(self._sizes.values()) + self._arriving_bytes
        if len(self) >= limits.max_calls + limits.max_nested_calls or taken + size > 2 * limits.max_bytes:
            raise RemoteProtocolError(f"call {seq} is over the agreed limits of calls and bytes in flight")

    def _forget_arriving(self, seq: int) -> Assembly | None:
        assembly = self._arriving.pop(seq, None)
        if assembly is not None:
            self._arriving_bytes -= assembly.total
        return assembly

    def _number(self, seq: int) -> None:
        if seq <= self._last_seq:
            raise RemoteProtocolError(f"call number {seq} is not above the last one, {self._last_seq}")
        self._last_seq = seq
