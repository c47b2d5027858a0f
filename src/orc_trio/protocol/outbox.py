"""What is queued for the peer, in order, until the writer takes it.

Rules
-----
* First in, first out: calls, results, cancels, pings and pongs share one queue, so a cancel never overtakes its call.
* Calls are bounded by their places (`orc_trio.protocol.pending`); results by ``max_bytes`` here: one that does not fit
  waits outside, in order, and is let in when there is room (G8).  What was handed over but is still being sent counts
  until the next hand-over.
* What is larger than a part is taken part by part, and stands in line again behind each: small messages pass (G8).
* A queued call whose caller leaves is taken out, and so is the rest of one: it costs nothing any more.
* At the latch calls, cancels, pings and pongs leave; results stay; the hang-up goes last and always has a place (G15).
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TypeAlias

from orc_trio.protocol.calls import InboundCall, OutboundCall
from orc_trio.wire.messages import Message, Opcode

__all__ = ["Outbox"]

Entry: TypeAlias = OutboundCall | InboundCall | Message


class Outbox:
    """The queue.

    Args:
        max_bytes: The bound on queued result payloads, in bytes.
        part_size: The size of a part, in bytes; None: nothing is cut.
    """

    def __init__(self, max_bytes: int, part_size: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.part_size: int = part_size or sys.maxsize
        self.entries: OrderedDict[Entry, None] = OrderedDict()
        self._results_outside: deque[InboundCall] = deque()
        self._result_bytes = 0
        self._in_hand = 0  # result bytes of the last hand-over
        self._closing = False
        self.call_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.entries or self._results_outside)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def result_bytes(self) -> int:
        """Result payload bytes held here, those being sent included."""
        return self._result_bytes + self._in_hand

    @property
    def results_outside(self) -> int:
        """How many results wait for room."""
        return len(self._results_outside)

    def put(self, message: Message) -> None:
        """Queue a small message."""
        self.entries[message] = None

    def put_call(self, call: OutboundCall) -> None:
        """Queue a call."""
        self.entries[call] = None
        self.call_bytes += call.size

    def put_result(self, call: InboundCall) -> bool:
        """Queue a result.

        Returns:
            Whether there was room; otherwise it waits, and `release` will say when it is in.
        """
        size = _size(call)
        if self._results_outside or not self._has_room(size):
            self._results_outside.append(call)
            return False
        self._enter(call, size)
        return True

    def remove(self, call: OutboundCall) -> None:
        """Take a queued call out again, or what is left of it."""
        del self.entries[call]
        self.call_bytes -= len(call.payload)

    def take(self) -> Entry | None:
        """The next entry, or a part of it; None: nothing is queued."""
        if not self.entries:
            return None
        entry, _ = self.entries.popitem(last=False)
        if isinstance(entry, OutboundCall):
            size = len(entry.payload)
            if size > self.part_size:
                self.call_bytes -= self.part_size
                return self._part(entry)
            self.call_bytes -= size
        elif isinstance(entry, InboundCall):
            size = _size(entry)
            if size > self.part_size:
                self._result_bytes -= self.part_size
                self._in_hand += self.part_size
                return self._part(entry)
            self._result_bytes -= size
            self._in_hand += size
        return entry

    def _part(self, entry: OutboundCall | InboundCall) -> Message:
        self.entries[entry] = None
        if self._closing:  # before the hang-up, and nothing comes that could pass
            self.entries.move_to_end(entry, last=False)
        return entry.part(self.part_size)

    def release(self) -> list[InboundCall]:
        """Say that what was taken so far was sent.

        Returns:
            The results that found room by that.
        """
        self._in_hand = 0
        entered = []
        while self._results_outside and self._has_room(size := _size(self._results_outside[0])):
            call = self._results_outside.popleft()
            self._enter(call, size)
            entered.append(call)
        return entered

    def close(self, hang_up: Message) -> Iterator[InboundCall]:
        """Keep what the end still has to say, and put ``hang_up`` behind it.

        Returns:
            The results that were waiting and are queued now.  (No more memory than they took outside.)
        """
        keep = [
            entry
            for entry in self.entries
            if isinstance(entry, InboundCall) or (isinstance(entry, Message) and entry.opcode == Opcode.SETUP)
        ]
        self.entries = OrderedDict.fromkeys(keep)
        self.call_bytes = 0
        entered = list(self._results_outside)
        self._results_outside.clear()
        for call in entered:
            self._enter(call, _size(call))
        self.entries[hang_up] = None
        self._closing = True
        return iter(entered)

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self._results_outside.clear()
        self.call_bytes = self._result_bytes = self._in_hand = 0

    def _has_room(self, size: int) -> bool:
        return self.result_bytes + size <= self.max_bytes

    def _enter(self, call: InboundCall, size: int) -> None:
        self.entries[call] = None
        self._result_bytes += size


def _size(call: InboundCall) -> int:
    return 0 if call.result is None else len(call.result.payload)
