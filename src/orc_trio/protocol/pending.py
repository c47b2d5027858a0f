"""The calls this end made: who has a place, who waits for one, and what frees it.

Rules
-----
* An ordinary call takes one of ``max_calls`` places and its size of ``max_bytes``.  If either is missing it waits,
  first come, first served: a small call does not overtake a large one (G8).
* A nested call has a budget of its own and never waits (G7).
* A place is freed by the call's result, not by its cancellation: until then the peer may be busy with it (G5).  A call
  whose frame was never handed over frees its place at once.
* Sequence numbers strictly increase and are never reused.

Refused: a result for a number that was never sent or has had its result (the caller reports the violation).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from orc_trio.exceptions import NestingLimitError
from orc_trio.protocol.calls import OutboundCall, OutboundState
from orc_trio.protocol.limits import Limits

__all__ = ["PendingCalls"]


class _Budget:
    """So many calls and bytes, and what is taken of them."""

    __slots__ = ("calls", "max_bytes", "max_calls", "size")

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self.max_calls, self.max_bytes = max_calls, max_bytes
        self.calls = self.size = 0

    def fits(self, size: int) -> bool:
        return self.calls < self.max_calls and self.size + size <= self.max_bytes

    def take(self, size: int) -> None:
        self.calls += 1
        self.size += size

    def free(self, size: int) -> None:
        self.calls -= 1
        self.size -= size


class PendingCalls:
    """The table of calls this end made.

    Args:
        limits: The agreed limits.
        admitted: Told of each call that got a place and a number, in the same step.
    """

    def __init__(self, limits: Limits, admitted: Callable[[OutboundCall], None]) -> None:
        self._ordinary = _Budget(limits.max_calls, limits.max_bytes)
        self._nested = _Budget(limits.max_nested_calls, limits.max_bytes)
        self._admitted = admitted
        self._last_seq = 0
        self.placed: dict[int, OutboundCall] = {}
        self._waiting: OrderedDict[OutboundCall, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.placed)

    @property
    def waiting(self) -> int:
        """How many calls wait for room."""
        return len(self._waiting)

    @property
    def abandoned(self) -> int:
        """How many places are tombstones: their caller has left, their result has not come."""
        return sum(call.state is OutboundState.ABANDONED for call in self.placed.values())

    @property
    def bytes_in_flight(self) -> int:
        """Argument bytes of the calls that have a place."""
        return self._ordinary.size + self._nested.size

    def submit(self, call: OutboundCall) -> None:
        """Give ``call`` a place, or a place in the queue.

        Raises:
            NestingLimitError: It is nested, and the nested budget is used up.
        """
        if call.nested:
            if not self._nested.fits(call.size):
                raise NestingLimitError(
                    f"the budget of {self._nested.max_calls} nested calls ({self._nested.max_bytes} bytes) is used up"
                )
            self._place(call, self._nested)
        elif self._waiting or not self._ordinary.fits(call.size):
            self._waiting[call] = None
        else:
            self._place(call, self._ordinary)

    def get(self, seq: int) -> OutboundCall | None:
        """The call with that number whose frame was handed over and whose result has not come."""
        call = self.placed.get(seq)
        return None if call is None or call.state is OutboundState.QUEUED else call

    def leave(self, call: OutboundCall) -> None:
        """The caller of a WAITING or QUEUED call has left."""
        if call.state is OutboundState.WAITING:
            del self._waiting[call]
            self._admit()  # it may have been the one that held up the others
        else:
            self.free(call)

    def free(self, call: OutboundCall) -> None:
        """Free a call's place, and give it to those who wait."""
        del self.placed[call.seq]
        (self._nested if call.nested else self._ordinary).free(call.size)
        self._admit()

    def drain(self) -> Iterator[OutboundCall]:
        """Empty the table: calls that have a place in the order they were made, then those that wait (G14)."""
        calls = [*self.placed.values(), *self._waiting]
        self.placed.clear()
        self._waiting.clear()
        for budget in (self._ordinary, self._nested):
            budget.calls = budget.size = 0
        return iter(calls)

    def _admit(self) -> None:
        while self._waiting:
            call = next(iter(self._waiting))
            if not self._ordinary.fits(call.size):
                return
            del self._waiting[call]
            self._place(call, self._ordinary)

    def _place(self, call: OutboundCall, budget: _Budget) -> None:
        # G2: place, number, table and outbox in one step.
        budget.take(call.size)
        self._last_seq += 1
        call.seq = self._last_seq
        call.state = OutboundState.QUEUED
        self.placed[call.seq] = call
        self._admitted(call)
