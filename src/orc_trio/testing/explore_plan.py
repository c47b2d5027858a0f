"""Worlds to explore: two ends, what their programs may do, and what may happen to the channel between them.

A world is a finite set of things that *may* happen, each a bounded number of times.  When they happen, and in which
order, is what the exploration (`orc_trio.testing.explore`) tries out: all of it.

Rules
-----
* A caller makes one call, at any moment: before the ends have agreed, while they run, or after the latch.  Callers
  with equal plans are interchangeable, so they call in the order given (a symmetry: nothing is lost).
* A *nested* caller is a handler: it calls while one of its end's handlers runs, and that handler answers only when the
  nested call is settled.  If the handler is cancelled, it leaves its nested call.
* The channel keeps messages in order.  It may hold them back, hand them over one at a time or all at once, and be cut:
  then what is under way is lost from any point on.

`WORLDS` has those that the project explores: `DEFAULT_WORLDS` in every test run, all of them in ``nox -s explore``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from orc_trio.protocol import Limits

__all__ = ["DEFAULT_WORLDS", "WORLDS", "Answer", "Caller", "EndPlan", "World"]

KIB: Final = 1024
ONE: Final = Limits(max_calls=1, max_nested_calls=1, max_bytes=64 * KIB, max_message=64 * KIB)
TWO: Final = attrs.evolve(ONE, max_calls=2)
THREE: Final = attrs.evolve(ONE, max_calls=3)
PARTS: Final = attrs.evolve(TWO, part_size=1)
HALVES: Final = attrs.evolve(THREE, part_size=32 * KIB)


class Answer(enum.Enum):
    """What the handler of a call does with it."""

    VALUE = "value"
    ERROR = "error"
    REFUSE = "refuse"


@attrs.frozen(kw_only=True)
class Caller:
    """One call that an end may make.

    Attributes:
        size: Its argument, in bytes.
        result: Its result, in bytes.
        answer: What the other end's handler does.
        nested: It is made by a handler, while it serves a call.
    """

    size: int = 0
    result: int = 0
    answer: Answer = Answer.VALUE
    nested: bool = False


@attrs.frozen(kw_only=True)
class EndPlan:
    """What the program of one end may do.

    Attributes:
        callers: The calls it may make.
        cancels: How many of its callers may leave.
        disconnects: How many tasks may disconnect; the first says "local hang-up", later ones something else.
        finishes: How many times it may ask for a soft stop; when nothing is in flight any more, it hangs up.
        pings: How many pings it may ask for.
        gives_up: Whether its drain bound may run out: it closes without waiting for the peer.
        limits: What it is willing to hold.
    """

    callers: tuple[Caller, ...] = ()
    cancels: int = 0
    disconnects: int = 0
    finishes: int = 0
    pings: int = 0
    gives_up: bool = False
    limits: Limits = ONE


@attrs.frozen(kw_only=True)
class World:
    """Two ends and a channel.

    Attributes:
        left: The controller's plan.
        right: The executor's plan.
        cuts: How often a direction of the channel may be cut.
        capacity: A writer waits while this many messages are under way.
        batches: Whether several messages may be sent, and received, in one step too.
    """

    left: EndPlan
    right: EndPlan
    cuts: int = 0
    capacity: int = 2
    batches: bool = False

    @property
    def gentle(self) -> bool:
        """Whether nothing in it can end the connection but a soft stop."""
        hard = any(end.disconnects or end.gives_up for end in (self.left, self.right))
        return not (hard or self.cuts)


CALL: Final = Caller()
LARGE: Final = 64 * KIB
_WORLDS: Final = {
    # A call, one that waits for its place, a caller that leaves, a disconnect, a cut.
    "small": World(
        left=EndPlan(callers=(CALL, CALL), cancels=1),
        right=EndPlan(disconnects=1),
        cuts=1,
    ),
    # Mutual recursion two deep, one ordinary call each way, more nested calls than the budget allows.
    "nested": World(
        left=EndPlan(callers=(CALL, Caller(nested=True)), cancels=1, disconnects=1),
        right=EndPlan(callers=(Caller(nested=True), Caller(nested=True))),
    ),
    # Back-pressure in calls: three callers and one place.
    "queue": World(
        left=EndPlan(callers=(CALL, CALL, CALL), cancels=2),
        right=EndPlan(disconnects=1),
    ),
    # Large messages in parts.
    "parts": World(
        left=EndPlan(callers=(Caller(size=3, result=2), Caller(result=2)), cancels=1, limits=PARTS),
        right=EndPlan(disconnects=1, limits=PARTS),
    ),
    # Calls both ways, both ends disconnect, a cut.
    "both-ways": World(
        left=EndPlan(callers=(CALL,), cancels=1, disconnects=1),
        right=EndPlan(callers=(CALL,), disconnects=1),
        cuts=1,
    ),
    # Two places each way, two callers each way, cancels and disconnects on both sides.
    "crowd": World(
        left=EndPlan(callers=(CALL, CALL), cancels=1, disconnects=1, limits=TWO),
        right=EndPlan(callers=(CALL, CALL), cancels=1, disconnects=1, limits=TWO),
    ),
    # Three disconnecters, messages in batches, a cut.
    "disconnects": World(
        left=EndPlan(callers=(CALL, CALL), cancels=1, disconnects=2, limits=TWO),
        right=EndPlan(disconnects=1, limits=TWO),
        cuts=1,
        batches=True,
    ),
    # Pings both ways, with everything that can end the connection.
    "pings": World(
        left=EndPlan(callers=(CALL,), pings=2, disconnects=1),
        right=EndPlan(pings=2, disconnects=1),
        cuts=1,
        batches=True,
    ),
    # Back-pressure in bytes: large and small calls in one queue.
    "bytes": World(
        left=EndPlan(callers=(Caller(size=LARGE), Caller(size=1), Caller(size=LARGE)), cancels=1, limits=TWO),
        right=EndPlan(disconnects=1, limits=TWO),
        cuts=1,
    ),
    # Results that wait for room, next to errors.
    "results": World(
        left=EndPlan(
            callers=(Caller(result=LARGE), Caller(result=1), Caller(answer=Answer.ERROR)), cancels=1, limits=THREE
        ),
        right=EndPlan(disconnects=1, limits=THREE),
        batches=True,
    ),
    # Both drain bounds may run out; refused calls.
    "giving-up": World(
        left=EndPlan(callers=(CALL, CALL), gives_up=True, disconnects=1),
        right=EndPlan(callers=(Caller(answer=Answer.REFUSE),), gives_up=True),
        cuts=1,
    ),
    # A soft stop, with calls both ways and nested ones in flight: nothing is cut off.
    "softly": World(
        left=EndPlan(callers=(CALL, CALL), cancels=1, finishes=1),
        right=EndPlan(callers=(CALL, Caller(nested=True))),
    ),
    # Both ends stop softly, and something else may come first.
    "softly-or-not": World(
        left=EndPlan(callers=(CALL,), cancels=1, finishes=1, disconnects=1),
        right=EndPlan(callers=(CALL,), finishes=2),
        cuts=1,
    ),
    # Large messages in parts both ways, small ones between them, a soft stop, and everything that can end it.
    "parts-both-ways": World(
        left=EndPlan(callers=(Caller(size=2, result=2), CALL), cancels=1, finishes=1, limits=PARTS),
        right=EndPlan(callers=(Caller(size=2),), disconnects=1, limits=PARTS),
    ),
    # Parts of results that wait for room.
    "parts-of-results": World(
        left=EndPlan(callers=(Caller(result=LARGE), Caller(result=LARGE), Caller(result=1)), cancels=1, limits=HALVES),
        right=EndPlan(disconnects=1, limits=HALVES),
    ),
    # Everything is cut twice.
    "cuts": World(
        left=EndPlan(callers=(CALL, CALL), cancels=1, limits=TWO),
        right=EndPlan(callers=(CALL,), disconnects=1, limits=TWO),
        cuts=2,
    ),
}
WORLDS: Final[Mapping[str, World]] = MappingProxyType(_WORLDS)
"""The worlds that the project explores, by name."""
DEFAULT_WORLDS: Final = ("small", "nested", "queue", "parts", "softly")
"""Those that every test run explores; the others take longer."""
