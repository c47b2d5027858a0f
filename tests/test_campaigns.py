# Campaigns on the whole thing: random worlds and schedules, a cut at every byte, a failure of every use of the channel,
# a cancellation of everybody at every step.  Every run's log is checked against the core's own rules.
#
# By default a bounded slice; `nox -s campaigns` sets ORC_TRIO_SCHEDULES and ORC_TRIO_THOROUGH.  A failure names the
# world and its number: `run_world(draw(N), N)` in `campaigns.runs` does the same again, step by step.

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import attrs
import pytest

from campaigns.channel import Fault
from campaigns.crowds import run_crowd
from campaigns.programs import Victim
from campaigns.runs import Figures, run_world
from campaigns.worlds import SCRIPT, Draw, draw

SCHEDULES = int(os.environ.get("ORC_TRIO_SCHEDULES", "1600"))
FIRST = int(os.environ.get("ORC_TRIO_FIRST_SEED", "0"))
THOROUGH = "ORC_TRIO_THOROUGH" in os.environ
CHUNKS = 16

pytestmark = pytest.mark.campaign
Say = Callable[[str, Counter[str]], None]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_worlds_and_schedules(chunk: int, say: Say) -> None:
    """G1, G2, G3, G4, G5, G7, G8, G10, G11, G12, G13, G14: random programs, faults and schedules break no law."""
    figures: Figures = Counter()
    for seed in range(FIRST + chunk, FIRST + SCHEDULES, CHUNKS):
        run_world(draw(seed), seed, figures)
    say("random worlds and schedules", figures)


def faulty(**faults: Fault) -> Draw:
    return attrs.evolve(SCRIPT, world=attrs.evolve(SCRIPT.world, cuts=len(faults)), **faults)


@pytest.mark.parametrize("direction", ["outward", "inward"])
@pytest.mark.parametrize("kind", ["cut", "freeze"])
def test_a_fault_at_every_byte(kind: str, direction: str, say: Say) -> None:
    """G3, G4, G11, G13, G15: a conversation cut, or frozen, at any byte of either direction ends as it must."""
    figures: Figures = Counter()
    for seed in range(3 if THOROUGH else 1):
        lane = run_world(SCRIPT, seed)[direction == "inward"]
        for at in range(0, len(lane.tap) + 1, 1 if THOROUGH else 11):
            run_world(faulty(**{direction: Fault(kind, at)}), seed, figures)
    say(f"{kind} at every byte, {direction}", figures)


@pytest.mark.parametrize("direction", ["outward", "inward"])
@pytest.mark.parametrize("kind", ["fail send", "fail receive"])
def test_a_failure_of_every_use(kind: str, direction: str, say: Say) -> None:
    """G11, G13, G16: whichever send or receive of a conversation fails, both ends come to their end."""
    figures: Figures = Counter()
    for seed in range(100 if THOROUGH else 5):
        lane = run_world(SCRIPT, seed)[direction == "inward"]
        for at in range(lane.sends if kind == "fail send" else lane.receives):
            run_world(faulty(**{direction: Fault(kind, at)}), seed, figures)
    say(f"{kind}, {direction}", figures)


WHO = [
    "open_controller",
    "open_session",
    "attach",
    "disconnect",
    "detach",
    "shutdown",
    "wait_disconnected",
    "wait_detached",
    "call_wrapper 0",
    "call_wrapper 2",
    "call_wrapper 3",  # nested
    "call_controller 0",
    "call_controller 1",  # nested
    "call_controller 2",
]


@pytest.mark.parametrize("who", WHO)
def test_a_cancellation_at_every_step(who: str, say: Say) -> None:
    """G1, G5, G11, G12, G18: whoever is cancelled, at whichever step, everybody else sees what is so."""
    figures: Figures = Counter()
    reached = 0
    for seed in range(30 if THOROUGH else 6):
        for steps in range(1000):
            victim = Victim(who, steps)
            run_world(SCRIPT, seed, figures, victim=victim)
            if not victim.hit:
                break
            reached += 1
        else:
            raise AssertionError("it takes more steps than that?")
    assert reached
    say(f"cancelled at every step: {who}", figures)


def test_crowds_of_tasks_and_threads(say: Say) -> None:
    """G1, G4, G11, G12, G13, G24: many callers and disconnecters, tasks and threads at both ends, over a socket."""
    figures: Figures = Counter()
    for seed in range(FIRST, FIRST + (2000 if THOROUGH else 40)):
        run_crowd(seed, figures)
    say("crowds of tasks and threads", figures)


DIGESTS = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from campaigns.runs import run_world
from campaigns.worlds import draw
digests = {}
for seed in json.loads(sys.argv[2]):
    taps = [bytes(lane.tap) for lane in run_world(draw(seed), seed)]
    digests[seed] = hashlib.sha256(b"|".join(taps)).hexdigest()
print(json.dumps(digests))
"""


def test_a_run_is_reproducible() -> None:
    """The same number gives the same run, to the byte, whatever ran before it: what a failure prints is enough."""
    seeds = list(range(150))
    found = []
    for order in (seeds, seeds[::-1], seeds[7:]):
        command = [sys.executable, "-c", DIGESTS, os.path.dirname(__file__), json.dumps(order)]
        found.append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    assert found[0] == found[1]
    assert found[2].items() <= found[0].items()
