"""The states of an explored world, as numbers: ends asleep, what is under way, and both packed together.

Theory
------
An end that is not being stepped is bytes: pickled, with every plain value replaced by its number, so that equal ends
are equal bytes.  (Different bytes may still be equal ends: that costs time, and hides nothing.)  Ends and wires are
numbered as they are met; a state is one integer made of five such numbers.
"""

from __future__ import annotations

import io
import pickle  # our own objects, in our own memory
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import attrs

from orc_trio.protocol import InboundState, Limits, OutboundState, PeerState, Role
from orc_trio.reasons import DisconnectReason
from orc_trio.testing._explore_end import Action, End
from orc_trio.testing._explore_oracle import ANSWERED, UNTOUCHED, Fate
from orc_trio.testing.explore_plan import EndPlan
from orc_trio.wire.messages import Message, Opcode

__all__ = ["BROKEN", "ENDED", "OPEN", "Ends", "Facts", "Wire", "Wires", "pack", "unpack"]

OPEN: Final = "open"
ENDED: Final = "ended"
"""Its sender has sent its hang-up and closed its half."""
BROKEN: Final = "broken"
"""It was cut, or one of its ends closed without a hang-up: what is sent is lost."""

Wire: TypeAlias = tuple[tuple[Message, ...], str]
"""What is under way in one direction, and the direction's state."""

_PLAIN: Final = (bytes, memoryview, Message, EndPlan, Limits, DisconnectReason)
_ENUMS: Final = (Fate, InboundState, OutboundState, PeerState, Role, Opcode)
_INTERNED: Final = frozenset[type]({type, *_PLAIN, *_ENUMS})
_BITS: Final = 24
_MASK: Final = (1 << _BITS) - 1


@attrs.frozen
class Facts:
    """What the search needs to know of an end, as bit sets over callers where it is about calls."""

    steps: tuple[tuple[Action, bool], ...]
    untouched: int
    has_answer: int
    dispatched: int
    answered: int
    settled: bool
    closed: bool
    heard_end: bool
    latched: bool
    finishing: bool
    has_output: int

    @classmethod
    def of(cls, end: End) -> Facts:
        """What is to be known of ``end``."""
        steps = [(action, False) for action in end.choices()] + [(action, True) for action in end.duties()]
        return cls(
            steps=tuple(steps),
            untouched=_bits(tag for tag, fate in enumerate(end.fates) if fate in UNTOUCHED),
            has_answer=_bits(tag for tag, fate in enumerate(end.fates) if fate in ANSWERED),
            dispatched=end.dispatched,
            answered=end.answered,
            settled=end.settled,
            closed=end.closed,
            heard_end=end.heard_end,
            latched=end.latched is not None,
            finishing=end.finishing,
            has_output=end.output,
        )


class Ends:
    """Every different end met so far, by number."""

    def __init__(self) -> None:
        self._sleep = _Sleep()
        self._asleep: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self.facts: list[Facts] = []

    def __len__(self) -> int:
        return len(self._asleep)

    def add(self, end: End) -> int:
        """The number of an end."""
        asleep = self._sleep.put(end)
        number = self._numbers.setdefault(asleep, len(self._asleep))
        if number == len(self._asleep):
            self._asleep.append(asleep)
            self.facts.append(Facts.of(end))
        return number

    def wake(self, number: int) -> End:
        """A new copy of the end with that number."""
        return self._sleep.wake(self._asleep[number])


class Wires:
    """Every different content of a direction met so far, by number."""

    def __init__(self) -> None:
        self._wires: list[Wire] = []
        self._numbers: dict[Wire, int] = {}

    def __getitem__(self, number: int) -> Wire:
        return self._wires[number]

    def add(self, messages: tuple[Message, ...], status: str) -> int:
        """The number of a content."""
        wire = (messages, status)
        number = self._numbers.setdefault(wire, len(self._wires))
        if number == len(self._wires):
            self._wires.append(wire)
        return number


def pack(left: int, right: int, outward: int, inward: int, cuts: int) -> int:
    """A state: the numbers of both ends and both wires (from the left end, and to it), and the cuts left."""
    return (((left << _BITS | right) << _BITS | outward) << _BITS | inward) << _BITS | cuts


def unpack(state: int) -> tuple[int, int, int, int, int]:
    """The numbers that were packed."""
    return (
        state >> 4 * _BITS,
        state >> 3 * _BITS & _MASK,
        state >> 2 * _BITS & _MASK,
        state >> _BITS & _MASK,
        state & _MASK,
    )


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, identify: Callable[[Any], int | None]) -> None:
        super().__init__(file, protocol=5)
        self._identify = identify

    def persistent_id(self, obj: Any) -> int | None:
        return self._identify(obj)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, values: list[Any]) -> None:
        super().__init__(file)
        self._known = values

    def persistent_load(self, pid: Any) -> Any:
        return self._known[pid]


class _Sleep:
    """Puts ends to sleep and wakes them up: equal ends are equal bytes."""

    def __init__(self) -> None:
        self._ids: dict[tuple[type, Any], int] = {}
        self._values: list[Any] = []

    def put(self, end: End) -> bytes:
        buffer = io.BytesIO()
        _Pickler(buffer, self._persistent_id).dump(end)
        return buffer.getvalue()

    def wake(self, asleep: bytes) -> End:
        end: End = _Unpickler(io.BytesIO(asleep), self._values).load()
        return end

    def _persistent_id(self, value: Any) -> int | None:
        # Values that are equal become one object: whether they were one before is nobody's business.
        kind = type(value)
        if kind not in _INTERNED:
            return None
        if kind is memoryview:
            value = bytes(value)
        number = self._ids.setdefault((kind, value), len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number


def _bits(tags: Iterable[int]) -> int:
    return sum(1 << tag for tag in tags)
