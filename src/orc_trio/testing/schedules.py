"""Trio runs whose tasks take turns in an order that a seed decides, so that a failure can be had again.

Theory
------
Trio runs what is ready in batches, and shuffles each.  Two private names of its scheduler make the order a function of
a random generator's state; Hypothesis uses them for the same purpose.  What is cancelled first, of the tasks in one
scope and of the scopes with one deadline, is the order of a set, and of addresses: tasks and scopes are given numbers
that the seed draws, as their hashes and their ``id``.  All this is touched here and nowhere else, and put back when
the run is over.

What the seed does not decide: the clock (use a `trio.testing.MockClock`), the kernel, threads, and everything else that
comes from outside.  With memory streams and a mock clock a run is the same each time.

Refused, with a clear error: a version of Trio whose scheduler has other names.  Runs at the same time in other threads
use the same generator, and disturb each other.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, TypeVarTuple

import trio

__all__ = ["deterministic", "run_scheduled"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
_RANDOM: Final = "_r"


def run_scheduled(
    seed: int,
    async_fn: Callable[[*_Ts], Awaitable[_T]],
    *args: *_Ts,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> _T:
    """Run an async function in a Trio run of its own, in an order of tasks that is a function of the seed.

    Args:
        seed: Decides the order.
        async_fn: What to run.
        *args: Its arguments.
        clock: As for `trio.run`.
        instruments: As for `trio.run`.

    Returns:
        What it returned.

    Raises:
        RuntimeError: This version of Trio cannot do that.
        BaseException: What it raised, with a note that tells the seed.
    """
    with deterministic(seed):
        try:
            return trio.run(async_fn, *args, clock=clock, instruments=instruments)
        except BaseException as exc:
            exc.add_note(f"the same order of tasks again: orc_trio.testing.run_scheduled({seed}, …)")
            raise


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Have the Trio run that is started inside take turns in an order that is a function of the seed.

    Args:
        seed: Decides the order.

    Raises:
        RuntimeError: This version of Trio cannot do that.
    """
    scheduler, dice = _scheduler()
    switch, state = getattr(scheduler, _SWITCH), dice.getstate()
    setattr(scheduler, _SWITCH, True)
    dice.seed(seed)
    scheduler.id = scheduler.Task.__hash__ = scheduler.CancelStatus.__hash__ = _numbering(seed)
    try:
        yield
    finally:
        del scheduler.id, scheduler.Task.__hash__, scheduler.CancelStatus.__hash__
        setattr(scheduler, _SWITCH, switch)
        dice.setstate(state)


def _numbering(seed: int) -> Callable[[object], int]:
    """Gives everything a number, drawn when it is first asked for."""
    dice = random.Random(seed)  # noqa: S311
    numbers: dict[int, int] = {}
    things: list[object] = []  # as long as these are there, no other thing has their addresses

    def number(thing: object) -> int:
        key = id(thing)
        if key not in numbers:
            numbers[key] = dice.getrandbits(60)
            things.append(thing)
        return numbers[key]

    return number


def _scheduler() -> tuple[Any, random.Random]:
    scheduler: Any = getattr(getattr(trio, "_core", None), "_run", None)
    dice = getattr(scheduler, _RANDOM, None)
    switch = getattr(scheduler, _SWITCH, None)
    known = all(hasattr(scheduler, name) for name in ("Task", "CancelStatus"))
    if not (known and isinstance(switch, bool) and isinstance(dice, random.Random)):
        raise RuntimeError(
            f"Trio {trio.__version__} has no trio._core._run.{_SWITCH}, {_RANDOM}, Task and CancelStatus: "
            "orc_trio.testing.schedules knows no other way to decide the order of tasks"
        )
    return scheduler, dice
