"""Tools for tests, of this library and of what stands on it.

* `open_pair`, `connected_pair`: both ends of a conversation, or of what carries one.
* `TrickleStream`, `FailingStream`: streams with faults.
* `no_leaks`: what is left when something is over.
* `run_scheduled`: a Trio run whose order of tasks can be had again.
* `explore_world`: every interleaving of two protocol cores.
"""

from orc_trio.testing.explore import Exploration, explore_world
from orc_trio.testing.explore_plan import DEFAULT_WORLDS, WORLDS, Answer, Caller, EndPlan, World
from orc_trio.testing.explore_report import Counterexample
from orc_trio.testing.leaks import LeakError, Leaks, no_leaks
from orc_trio.testing.pairs import PAIR_KINDS, End, OpenPair, PairKind, StreamKind, connected_pair, open_pair
from orc_trio.testing.schedules import run_scheduled
from orc_trio.testing.streams import FailingStream, FailurePhase, TrickleStream

__all__ = [
    "DEFAULT_WORLDS",
    "PAIR_KINDS",
    "WORLDS",
    "Answer",
    "Caller",
    "Counterexample",
    "End",
    "EndPlan",
    "Exploration",
    "FailingStream",
    "FailurePhase",
    "LeakError",
    "Leaks",
    "OpenPair",
    "PairKind",
    "StreamKind",
    "TrickleStream",
    "World",
    "connected_pair",
    "explore_world",
    "no_leaks",
    "open_pair",
    "run_scheduled",
]
