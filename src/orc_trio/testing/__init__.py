"""Tools for tests, of this library and of what stands on it."""

from orc_trio.testing.explore import Exploration, explore_world
from orc_trio.testing.explore_plan import DEFAULT_WORLDS, WORLDS, Answer, Caller, EndPlan, World
from orc_trio.testing.explore_report import Counterexample

__all__ = [
    "DEFAULT_WORLDS",
    "WORLDS",
    "Answer",
    "Caller",
    "Counterexample",
    "EndPlan",
    "Exploration",
    "World",
    "explore_world",
]
