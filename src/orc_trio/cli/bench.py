"""``orc-trio bench``: how fast the library is here, as multiples of what is measured beside it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import attrs
import click

from orc_trio.bench.cells import CELLS, Cell, measure
from orc_trio.bench.fairness import measure_fairness
from orc_trio.bench.figures import Plan
from orc_trio.bench.growth import GROWTHS, Growth
from orc_trio.bench.report import Report, regressions
from orc_trio.bench.tables import tables
from orc_trio.cli.exits import ExitCode, Failure
from orc_trio.cli.signals import run_command

__all__ = ["bench"]

_Step: TypeAlias = Callable[[Report], Awaitable[None]]
_FAIRNESS = "fairness: 16 B beside 64 MiB"


def bench(
    *,
    only: Sequence[str],
    plan: Plan,
    json_path: str | None,
    plot_path: str | None,
    compare: str | None,
    tolerance: float,
) -> int:
    """Measure, and show tables.

    Args:
        only: Parts of the names of what to measure; none: all.
        plan: How long to look.
        json_path: Where to write the report as JSON.
        plot_path: Where to draw it.
        compare: A report of earlier, not to be worse than.
        tolerance: By how much a figure may be worse, as a share.

    Returns:
        The exit code: 1 if something is worse.

    Raises:
        click.UsageError: Nothing has such a name.
        Failure: A file cannot be read or written, or what draws is not installed.
    """
    steps = [(name, step) for name, step in _steps() if not only or any(part in name for part in only)]
    if not steps:
        names = "; ".join(name for name, _ in _steps())
        raise click.UsageError(f"--only: nothing is named like that; there are: {names}")
    before = None if compare is None else _load(compare)
    draw = None if plot_path is None else _drawing(plot_path)
    report = Report(plan)

    async def work() -> int:
        for number, (name, step) in enumerate(steps, 1):
            if sys.stderr.isatty():
                click.echo(f"[{number}/{len(steps)}] {name}", err=True)
            await step(report)
        return ExitCode.OK  # noqa: ASYNC910

    status = run_command(work)
    if shown := "\n\n".join(map(str, tables(report))):
        click.echo(shown)
    if status:  # interrupted: what was measured until then is shown
        return status
    if json_path is not None:
        _write(report.save, json_path)
    if draw is not None:
        draw(report)
    worse = [] if before is None else regressions(before, report, tolerance)
    for line in worse:
        click.echo(f"orc-trio: worse than before: {line}", err=True)
    return ExitCode.FAILED if worse else ExitCode.OK


def _steps() -> Iterator[tuple[str, _Step]]:
    """What can be measured, by name."""

    async def add_cell(cell: Cell, report: Report) -> None:
        report.results.append(await measure(cell, report.plan))

    async def add_fairness(report: Report) -> None:
        report.fairness += await measure_fairness(report.plan)

    async def add_curve(growth: Growth, report: Report) -> None:  # noqa: ASYNC910
        points = [await growth.point(at, report.plan) for at in growth.steps]
        report.curves.append(attrs.evolve(growth.curve, points=points))

    for cell in CELLS:
        yield str(cell), partial(add_cell, cell)
    yield _FAIRNESS, add_fairness
    for growth in GROWTHS:
        yield str(growth), partial(add_curve, growth)


def _drawing(path: str) -> Callable[[Report], None]:
    """What draws to that file, if it can."""
    try:
        from orc_trio.bench import plots
    except ImportError as exc:
        raise Failure(f"--plot needs matplotlib: pip install 'orc-trio[plot]' ({exc})", ExitCode.USAGE) from exc
    if Path(path).suffix not in plots.formats():
        raise click.UsageError(f"--plot: {path}: the name must end in one of {', '.join(plots.formats())}")
    return lambda report: _write(partial(plots.save, report), path)


def _load(path: str) -> Report:
    try:
        return Report.load(Path(path))
    except OSError as exc:
        raise Failure(f"{path}: {exc.strerror or exc}", ExitCode.USAGE) from exc
    except ValueError as exc:
        raise Failure(f"{path}: {exc}", ExitCode.USAGE) from exc


def _write(write: Callable[[Path], None], path: str) -> None:
    try:
        write(Path(path))
    except OSError as exc:
        raise Failure(f"{path}: {exc.strerror or exc}", ExitCode.USAGE) from exc
