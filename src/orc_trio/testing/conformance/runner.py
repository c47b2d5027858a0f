"""Runs the checks: all in the current Trio run, or each in a run of its own."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Collection
from functools import partial

import trio

from orc_trio.testing.clocks import SteadyClock
from orc_trio.testing.conformance import checks as _checks  # noqa: F401  (they register themselves)
from orc_trio.testing.conformance.bench import Check, Hung, all_checks
from orc_trio.testing.conformance.pair import NotApplicable, PairFactory
from orc_trio.testing.conformance.report import Outcome, Report, Subject, Verdict
from orc_trio.testing.schedules import run_scheduled

__all__ = ["check_controller_access", "examine", "explain", "name_of", "run_conformance", "run_entry", "select"]


async def check_controller_access(factory: PairFactory) -> tuple[Verdict, ...]:
    """Check a controller access against all guarantees, in this Trio run.

    Args:
        factory: Makes the pairs.

    Returns:
        The verdicts, if none is bad.

    Raises:
        ExceptionGroup: The `AssertionError` of each check that failed, with a note that names its guarantee.

    Checkpoints:
        Always.

    Cancellation:
        Ends it; the pairs are left.
    """
    verdicts: list[Verdict] = []
    failures: list[Exception] = []
    for entry in select(()):
        began = time.perf_counter()
        outcome = Outcome.PASSED
        try:
            why = await entry.run(factory)
        except NotApplicable as exc:
            outcome, why = Outcome.NOT_APPLICABLE, str(exc)
        except AssertionError as exc:
            failures.append(exc)
            continue
        verdicts.append(_verdict(entry, outcome, why, began))
    if failures:
        raise ExceptionGroup(f"{len(failures)} guarantees are broken", failures)
    await trio.lowlevel.checkpoint()
    return tuple(verdicts)


def run_conformance(
    factory: PairFactory,
    *,
    name: str = "",
    only: Collection[str] = (),
    seed: int | None = None,
    progress: Callable[[Verdict], object] | None = None,
) -> Report:
    """Check a controller access, each guarantee in a Trio run of its own.  Not for use inside of one.

    Args:
        factory: Makes the pairs.
        name: What is checked, for people; default: the factory's name.
        only: The guarantees to check, as in ``["G4", "G12"]``; default: all.
        seed: Decides the order of tasks in every run (see `run_scheduled`); default: each run gets a new one, which its
            verdict tells.
        progress: Called with each verdict as soon as it is known.

    Returns:
        The report.  What is broken does not raise: see `Report.passed`.

    Raises:
        ValueError: ``only`` names a guarantee that does not exist.
    """
    verdicts = []
    for entry in select(only):
        verdict = examine(entry, factory, seed=seed)
        verdicts.append(verdict)
        if progress is not None:
            progress(verdict)
    return Report(subjects=(Subject(name=name or name_of(factory), verdicts=tuple(verdicts)),))


def select(only: Collection[str]) -> list[Check]:
    """The checks of these guarantees; of none: all.

    Raises:
        ValueError: There is no such guarantee.
    """
    known = {entry.guarantee: entry for entry in all_checks()}
    wanted = {name.upper() for name in only}
    if unknown := sorted(wanted - known.keys()):
        raise ValueError(f"there is no guarantee {', '.join(unknown)}; there are G1 to G{len(known)}")
    return [entry for entry in known.values() if not wanted or entry.guarantee in wanted]


def examine(
    entry: Check,
    factory: PairFactory,
    *,
    seed: int | None = None,
    on_hang: Callable[[str], object] | None = None,
) -> Verdict:
    """Run one check in a Trio run of its own.

    Args:
        entry: The check.
        factory: Makes the pairs.
        seed: Decides the order of tasks; default: a new one.
        on_hang: Told of a hang as soon as it is found, before it is known whether it can be cancelled.
    """
    chosen = new_seed() if seed is None else seed
    began = time.perf_counter()
    outcome = Outcome.PASSED
    try:
        why = run_entry(entry, factory, seed=chosen, on_hang=on_hang)
    except NotApplicable as exc:
        outcome, why = Outcome.NOT_APPLICABLE, str(exc)
    except Hung as exc:
        outcome, why = Outcome.HUNG, explain(entry, exc)
    except (Exception, SystemExit) as exc:
        outcome, why = Outcome.FAILED, explain(entry, exc)
    return _verdict(entry, outcome, why, began, chosen)


def run_entry(
    entry: Check,
    factory: PairFactory,
    *,
    seed: int | None = None,
    on_hang: Callable[[str], object] | None = None,
) -> str:
    """Run one check in a Trio run of its own, by a `SteadyClock`, and let it raise; see `Check.run`."""
    run = partial(entry.run, factory, on_hang=on_hang)
    return run_scheduled(new_seed() if seed is None else seed, run, clock=SteadyClock())


def new_seed() -> int:
    """Something to decide the order of tasks by."""
    return random.SystemRandom().randrange(2**32)


def explain(entry: Check, exc: BaseException) -> str:
    """What a check raised, for people: its text and notes, and the traceback of what it did not expect."""
    lines = [str(exc) if isinstance(exc, AssertionError) else f"{type(exc).__name__}: {exc}"]
    lines += [note for note in getattr(exc, "__notes__", ()) if note != str(entry)]
    if exc.__cause__ is not None or not isinstance(exc, AssertionError):
        lines.append("".join(traceback.format_exception(exc.__cause__ or exc)).rstrip())
    return "\n".join(lines)


def name_of(factory: PairFactory) -> str:
    """A factory's name, for people."""
    return str(getattr(factory, "__qualname__", "") or getattr(factory, "__name__", "") or type(factory).__name__)


def _verdict(entry: Check, outcome: Outcome, why: str, began: float, seed: int = 0) -> Verdict:
    seconds = time.perf_counter() - began
    return Verdict(
        guarantee=entry.guarantee, title=entry.title, outcome=outcome, why=why, seconds=round(seconds, 3), seed=seed
    )
