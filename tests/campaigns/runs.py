# One run of one world from one number, and every check of it.

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import trio
import trio.testing

import orc_trio.connection
from campaigns.channel import Lane, channel
from campaigns.programs import SEEN, Side, Victim, be_controller, be_executor
from campaigns.refine import RecordingPeer, ReplayedEnd, refine
from campaigns.worlds import Draw
from orc_trio.protocol import Role
from orc_trio.testing import run_scheduled
from orc_trio.testing._explore_oracle import ANSWERED, UNTOUCHED, Fate, require
from orc_trio.wire import encode

LONG = 1e6  # seconds, where time jumps: nothing takes that long but a hang


Figures: TypeAlias = Counter[str]
"""What campaigns count: runs, steps of the core that were checked, what became of calls, how ends ended."""


@contextmanager
def recorded() -> Iterator[list[RecordingPeer]]:
    """Have every connection made inside use a core that records."""
    peers: list[RecordingPeer] = []

    class Recording(RecordingPeer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            peers.append(self)

    original = orc_trio.connection.Peer
    orc_trio.connection.Peer = Recording  # type: ignore[misc]
    try:
        yield peers
    finally:
        orc_trio.connection.Peer = original  # type: ignore[misc]


def run_world(
    drawn: Draw, seed: int, figures: Figures | None = None, *, victim: Victim | None = None
) -> tuple[Lane, Lane]:
    """Run a world, and check everything.

    Returns:
        What the channel's two directions have seen.

    Raises:
        Exception: Something does not hold; a note says how to see it again.
    """
    victim = victim or Victim()
    name, steps = victim.name, victim.steps
    try:
        return _run_world(drawn, seed, Counter() if figures is None else figures, victim)
    except BaseException as exc:
        exc.add_note(f"seed {seed}: {drawn}" + (f"; {name} is cancelled after {steps} steps" if name else ""))
        raise


def _run_world(drawn: Draw, seed: int, figures: Figures, victim: Victim) -> tuple[Lane, Lane]:
    dice = random.Random(seed)
    world = drawn.world
    left = Side("wrapper", world.left, world.right, dice, victim, drawn.scripted)
    right = Side("controller", world.right, world.left, dice, victim, drawn.scripted)
    one, other, lanes = channel(dice, drawn.capacity, drawn.outward, drawn.inward)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery)
            async with trio.open_nursery() as ends:
                ends.start_soon(be_controller, left, one, drawn)
                ends.start_soon(be_executor, right, other, drawn)
            nursery.cancel_scope.cancel()

    async def watch(_nursery: trio.Nursery) -> None:
        await trio.sleep(LONG)
        print(f"a hang: seed {seed}: {drawn}", file=sys.__stderr__, flush=True)
        for task in _tasks(trio.lowlevel.current_root_task()):
            print("  " * task[0], task[1], file=sys.__stderr__, flush=True)
        os._exit(70)

    with recorded() as peers:
        clock = trio.testing.MockClock(autojump_threshold=0)
        run_scheduled(seed, main, clock=clock, instruments=[victim] if victim.name else ())
    check(drawn, {Role.CONTROLLER: (left, lanes[0]), Role.EXECUTOR: (right, lanes[1])}, peers, figures)
    return lanes


def check(drawn: Draw, sides: dict[Role, tuple[Side, Lane]], peers: list[RecordingPeer], figures: Figures) -> None:
    """Every law of a run that is over."""
    ends: dict[Role, ReplayedEnd] = {}
    figures["runs"] += 1
    for peer in peers:
        side, lane = sides[peer.role]
        figures["steps of the core checked"] += len(peer.log)
        ends[peer.role] = end = refine(peer, side.plan, side.other, gentle=drawn.world.gentle)
        require(end.closed, "G13: the core is not at its end")
        sent = b"".join(map(encode, peer.taken))
        require(sent.startswith(bytes(lane.tap)), "G3: other bytes were sent than the core handed out")
        require(side.running == 0, "G13: a handler is running")
        _check_ends(side, end)
        figures[side.told[0].kind.name] += 1
    for role, (side, _) in sides.items():
        theirs = sides[role.other][0]
        if role not in ends:
            require(set(side.seen) <= {"idle", "no controller", "left"}, "calls without a connection")
            continue
        figures.update(f"calls: {seen}" for seen in side.seen)
        fates = ends[role].fates
        for tag, (seen, fate) in enumerate(zip(side.seen, fates, strict=True)):
            require(fate in SEEN[seen], f"{role.value}, call {tag}: the core says {fate.name}, the caller saw {seen!r}")
            untouched = fate in UNTOUCHED or fate is Fate.REFUSED_BY_PEER
            require(not (untouched and tag in theirs.started), f"G4: call {tag} {fate.value}, but it ran")
            answered = fate in ANSWERED and fate is not Fate.REFUSED_BY_PEER
            require(not answered or tag in theirs.started, f"G1: call {tag} has an answer that nobody gave")
        require(len(set(side.started)) == len(side.started), "G1: a function was called twice for one call")
        if role.other in ends:
            dispatched = ends[role.other].dispatched
            for tag, fate in enumerate(fates):
                require(not (fate in UNTOUCHED and dispatched >> tag & 1), f"G4: call {tag} {fate.value}: dispatched")


def _check_ends(side: Side, end: ReplayedEnd) -> None:
    require(len(side.told) == 1, f"G11: on-disconnect was told {len(side.told)} times")
    (told,) = side.told
    cause = told.cause if told.kind is orc_trio.DisconnectKind.DRAIN_TIMEOUT else told
    require(cause == end.latched, f"G11: the end {told} does not tell the cause {end.latched}")
    for found in side.ends:
        require(found is None or found == told, f"G11: one was told {told}, another {found}")


def _tasks(task: trio.lowlevel.Task, depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, task.name
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child, depth + 1)
