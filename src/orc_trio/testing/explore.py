"""Every interleaving of a small world, breadth-first: two real protocol cores and a channel between them.

There is no model: what is explored is `orc_trio.protocol.Peer` as shipped.  A state is two ends (each a core with what
its program knows), and what is under way in each direction.

Theory
------
A core is a pure value machine, so what a step of one end does depends on that end alone.  A step is carried out once
for each pair of end and action: the end is woken up (`orc_trio.testing._explore_states`), steps, has every law checked,
and is put back to sleep; then the result is remembered.  So most of the search is table look-ups.

Rules
-----
* Breadth-first: the first violation found has a shortest history, in steps.
* In every state: the laws of each end (`orc_trio.testing._explore_oracle`), and those that need both ends' logs: a call
  that failed as not sent or not started never reaches a handler, whatever came first (G4); nobody has an answer that no
  handler gave (G1).
* *Machine steps* are those that happen by themselves: sending, receiving, handlers that answer, closing.  A state
  without one must be quiet: every call settled, and both ends open or both over.  And from every state a quiet one is
  reached by machine steps alone: no livelock, no deadlock.
* A soft stop cuts nothing off: in a world where nothing else ends the connection, no call's fate is unknown; and it
  hangs up when every result has arrived.
* If the channel is not cut and nobody gives up, an orderly end is heard: a stream that ends before its hang-up is a
  violation (G16).

Not covered: clocks (deadlines and bounds are choices, not times), what the Trio shell does between two steps, bytes
that are no messages.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import attrs

from orc_trio.exceptions import OrcError
from orc_trio.protocol import Peer, Role
from orc_trio.testing._explore_end import End
from orc_trio.testing._explore_oracle import Violation
from orc_trio.testing._explore_states import BROKEN, ENDED, OPEN, Ends, Wires, pack, unpack
from orc_trio.testing.explore_plan import World
from orc_trio.testing.explore_report import Counterexample, Line
from orc_trio.wire.messages import Message, Opcode, ResultKind

__all__ = ["Exploration", "explore_world"]

Step: TypeAlias = tuple[int, str, int]
"""Which end (2: the channel), what it does, and with what."""

ONE_MESSAGE: Final = 1
ALL_MESSAGES: Final = 1 << 30


@attrs.frozen(kw_only=True)
class Exploration:
    """What was found.

    Attributes:
        world: Its name, or "".
        states: Different states reached.
        transitions: Steps from one state to another.
        ends: Different states of one end.
        steps: Steps of the real core that were carried out.
        depth: The length of the longest shortest history.
        quiet: States in which nothing happens by itself.
        seconds: How long it took.
        complete: Whether every state was reached; False: ``max_states`` was, or a law was broken.
        counterexample: A shortest history that breaks a law; None: every law holds in every state.
    """

    world: str
    states: int
    transitions: int
    ends: int
    steps: int
    depth: int
    quiet: int
    seconds: float
    complete: bool
    counterexample: Counterexample | None

    def __str__(self) -> str:
        rate = self.states / max(self.seconds, 1e-9)
        text = (
            f"{self.world or 'world'}: {self.states:,} states, {self.transitions:,} transitions, depth {self.depth}, "
            f"{self.quiet:,} quiet; {self.ends:,} ends, {self.steps:,} core steps; "
            f"{self.seconds:.1f} s, {rate:,.0f} states/s"
        )
        if self.counterexample is not None:
            return f"{text}\n{self.counterexample}"
        return text if self.complete else f"{text}; NOT complete"


def explore_world(
    world: World,
    *,
    name: str = "",
    left: type[Peer] = Peer,
    right: type[Peer] = Peer,
    max_states: int = 10_000_000,
    progress: Callable[[str], object] | None = None,
) -> Exploration:
    """Try everything that can happen in a world.

    Args:
        world: What may happen.
        name: Its name, for people.
        left: The controller's core: `Peer`, or a class derived from it whose objects can be pickled.
        right: The executor's.
        max_states: Stop after so many; at least 1.  A million take about half a gigabyte.
        progress: Called with a line of text now and then.

    Returns:
        What was found.  A broken law does not raise: see `Exploration.counterexample`.
    """
    return _Explorer(world, (left, right), progress).run(name, max_states)


class _Explorer:
    def __init__(
        self, world: World, peers: tuple[type[Peer], type[Peer]], progress: Callable[[str], object] | None
    ) -> None:
        self._world = world
        self._progress = progress
        self._ends, self._wires = Ends(), Wires()
        self._done: dict[tuple[int, str, Any], tuple[int, tuple[Message, ...], bool]] = {}
        self._states: list[int] = []
        self._parents = array("I")
        self._index: dict[int, int] = {}
        # Machine steps, as one list of targets and where each state's part of it begins.
        self._targets = array("I")
        self._offsets = array("Q", [0])
        plans = (world.left, world.right)
        first, second = (
            self._ends.add(
                End.start(peers[i], (Role.CONTROLLER, Role.EXECUTOR)[i], plans[i], plans[1 - i], gentle=world.gentle)
            )
            for i in range(2)
        )
        wire = self._wires.add((), OPEN)
        self._start = pack(first, second, wire, wire, world.cuts)

    # The search

    def run(self, name: str, max_states: int) -> Exploration:
        begun = time.perf_counter()
        found: Counterexample | None = None
        transitions = depth = current = 0
        self._add_state(self._start, 0)
        level_end, complete = 1, True
        quiet = array("I")
        try:
            while current < len(self._states):
                if current == level_end:
                    level_end, depth = len(self._states), depth + 1
                    self._tell(name, depth, current, begun)
                if len(self._states) >= max_states:
                    complete = False
                    break
                transitions += self._expand(current, quiet)
                current += 1
            else:
                self._check_progress(quiet)
        except _Found as exc:
            complete = False
            found = self._explain(exc)
        return Exploration(
            world=name,
            states=len(self._states),
            transitions=transitions,
            ends=len(self._ends),
            steps=len(self._done),
            depth=depth,
            quiet=len(quiet),
            seconds=time.perf_counter() - begun,
            complete=complete,
            counterexample=found,
        )

    def _expand(self, current: int, quiet: array[int]) -> int:
        state = self._states[current]
        count = machine_steps = 0
        for step, machine in self._steps(state):
            try:
                after = self._after(state, step)
            except Violation as exc:
                raise _Found(current, step, str(exc)) from None
            count += 1
            target = self._index.get(after)
            if target is None:
                target = self._add_state(after, current)
                if law := self._broken(after):
                    raise _Found(target, None, law)
            if machine:
                machine_steps += 1
                self._targets.append(target)
        self._offsets.append(len(self._targets))
        if not machine_steps:
            quiet.append(current)
            if law := self._not_settled(state):
                raise _Found(current, None, law)
        return count

    def _check_progress(self, quiet: array[int]) -> None:
        """From every state a quiet one is reached by machine steps (liveness)."""
        good = bytearray(len(self._states))
        for index in quiet:
            good[index] = 1
        targets, offsets, changed = self._targets, self._offsets, True
        while changed:
            changed = False
            for index in range(len(good) - 1, -1, -1):
                if not good[index] and any(good[targets[i]] for i in range(offsets[index], offsets[index + 1])):
                    good[index] = changed = True
        if (bad := good.find(0)) >= 0:
            raise _Found(bad, None, "liveness: from here on it goes round in circles and never comes to rest")

    def _tell(self, name: str, depth: int, expanded: int, begun: float) -> None:
        if self._progress is not None:
            waiting = len(self._states) - expanded
            seconds = time.perf_counter() - begun
            self._progress(f"{name}: depth {depth}, {len(self._states):,} states, {waiting:,} to do, {seconds:.0f} s")

    # What can happen in a state

    def _steps(self, state: int) -> Iterator[tuple[Step, bool]]:
        left, right, outward, inward, cuts = unpack(state)
        ends, wires = (left, right), (self._wires[outward], self._wires[inward])
        world, facts_of = self._world, self._ends.facts
        for side in (0, 1):
            facts = facts_of[ends[side]]
            for (what, which), machine in facts.steps:
                yield (side, what, which), machine
            if facts.closed:
                continue
            messages, status = wires[side]
            if facts.has_output and len(messages) < world.capacity:
                yield (side, "take", ONE_MESSAGE), True
                if world.batches and facts.has_output > 1:
                    yield (side, "take", ALL_MESSAGES), True
            if status == BROKEN and not facts.latched:
                yield (side, "send failed", 0), False
            if facts.heard_end:
                continue
            messages, status = wires[1 - side]
            if messages:
                yield (side, "receive", 1), True
                if world.batches and len(messages) > 1:
                    yield (side, "receive", len(messages)), True
            elif status != OPEN:
                yield (side, "end of stream", int(status == ENDED)), True
        if cuts:
            for side in (0, 1):
                messages, status = wires[side]
                if status == OPEN or messages:
                    for keep in range(len(messages) + 1):
                        yield (2, ("cut left to right", "cut right to left")[side], keep), False

    def _after(self, state: int, step: Step) -> int:
        ends_and_wires = list(unpack(state))
        side, what, which = step
        if side == 2:
            wire = 2 if what == "cut left to right" else 3
            messages, _ = self._wires[ends_and_wires[wire]]
            ends_and_wires[wire] = self._wires.add(messages[:which], BROKEN)
            ends_and_wires[4] -= 1
            return pack(*ends_and_wires)
        outward, inward = (2, 3) if side == 0 else (3, 2)
        argument: Any = which
        if what == "receive":
            messages, status = self._wires[ends_and_wires[inward]]
            argument = messages[:which]
            ends_and_wires[inward] = self._wires.add(messages[which:], status)
        if what == "hang up" and any(map(_answers, self._wires[ends_and_wires[outward]][0])):
            raise Violation("G12: finished, but a result is still on its way")
        end, sent, closed = self._do(ends_and_wires[side], what, argument)
        ends_and_wires[side] = end
        messages, status = self._wires[ends_and_wires[outward]]
        if sent and status == OPEN:
            status = ENDED if sent[-1].opcode == Opcode.HANG_UP else OPEN
            ends_and_wires[outward] = self._wires.add(messages + sent, status)
        if closed:
            # What was sent may still arrive; what comes now is lost.
            ends_and_wires[outward] = self._wires.add(messages, BROKEN if status == OPEN else status)
            ends_and_wires[inward] = self._wires.add((), BROKEN)
        return pack(*ends_and_wires)

    def _do(self, number: int, what: str, argument: Any) -> tuple[int, tuple[Message, ...], bool]:
        """A step of one end: done once, then remembered."""
        key = (number, what, argument)
        known = self._done.get(key)
        if known is None:
            end, sent, _ = self._really_do(number, what, argument)
            known = self._done[key] = (self._ends.add(end), sent, what in ("close", "give up"))
        return known

    def _really_do(self, number: int, what: str, argument: Any) -> tuple[End, tuple[Message, ...], list[str]]:
        end = self._ends.wake(number)
        sent: list[Message] = []
        try:
            if what == "take":
                sent = end.take(argument)
            elif what == "receive":
                end.receive(argument)
            elif what == "end of stream":
                end.end_of_stream(in_order=bool(argument))
            else:
                end.do((what, argument))
        except Violation:
            raise
        except (OrcError, LookupError, AttributeError, TypeError, ValueError, AssertionError) as exc:
            raise Violation(f"the core raised {type(exc).__name__}: {exc}") from exc
        notes, end.notes = end.notes, []
        return end, tuple(sent), notes

    # The laws that need both ends

    def _broken(self, state: int) -> str | None:
        first, second, *_ = unpack(state)
        facts_of = self._ends.facts
        for ours, theirs in ((first, second), (second, first)):
            mine, other = facts_of[ours], facts_of[theirs]
            if mine.untouched & other.dispatched:
                return f"G4: {_first(mine.untouched & other.dispatched)} failed as never started, but a handler had it"
            if mine.has_answer & ~other.answered:
                return f"G1: {_first(mine.has_answer & ~other.answered)} has an answer that no handler gave"
        return None

    def _not_settled(self, state: int) -> str | None:
        first, second, *_ = unpack(state)
        facts_of = self._ends.facts
        ends = facts_of[first], facts_of[second]
        if any(facts.finishing for facts in ends):
            return "G12: nothing happens any more, and a soft stop has not come to its end"
        if not all(facts.settled for facts in ends):
            return "G1: nothing happens any more, and a call is not settled"
        if ends[0].closed != ends[1].closed or (ends[0].latched and not ends[0].closed):
            return "G11: nothing happens any more, and only one end knows that it is over"
        return None

    def _add_state(self, state: int, parent: int) -> int:
        number = self._index[state] = len(self._states)
        self._states.append(state)
        self._parents.append(parent)
        return number

    # Explaining

    def _explain(self, found: _Found) -> Counterexample:
        path = [found.state]
        while path[-1]:
            path.append(self._parents[path[-1]])
        path.reverse()
        lines: list[Line] = []
        for before, after in itertools.pairwise(path):
            steps = (step for step, _ in self._steps(self._states[before]))
            target = self._states[after]
            lines.append(self._line(before, next(s for s in steps if self._leads_to(before, s, target))))
        if found.step is not None:
            lines.append(self._line(found.state, found.step))
        return Counterexample(found.law, tuple(lines))

    def _leads_to(self, before: int, step: Step, target: int) -> bool:
        return self._after(self._states[before], step) == target

    def _line(self, before: int, step: Step) -> Line:
        side, what, which = step
        numbers = unpack(self._states[before])
        if side == 2:
            wire = numbers[2 if what == "cut left to right" else 3]
            return Line(side, what, which, self._wires[wire][0][which:], ())
        argument: Any = which
        if what == "receive":
            argument = self._wires[numbers[3 - side]][0][:which]
        try:
            _, messages, notes = self._really_do(numbers[side], what, argument)
        except Violation as exc:
            return Line(side, what, which, argument if what == "receive" else exc.messages, ())
        return Line(side, what, which, argument if what == "receive" else messages, tuple(notes))


class _Found(Exception):
    """A law is broken: in a state, or by a step from it."""

    def __init__(self, state: int, step: Step | None, law: str) -> None:
        self.state, self.step, self.law = state, step, law


def _answers(message: Message) -> bool:
    """Whether it is the result of a call that a handler had."""
    return message.opcode == Opcode.RESULT and message.aux != ResultKind.REFUSED


def _first(bits: int) -> str:
    return f"call {(bits & -bits).bit_length() - 1}"
