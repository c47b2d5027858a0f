"""``orc-trio bench``: how fast the library is here, as multiples of what is measured beside it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import attrs
import click

from orc_trio.bench.cells import CELLS, Plan, Result, measure
from orc_trio.cli.exits import ExitCode, Failure
from orc_trio.cli.signals import run_command

__all__ = ["bench"]


def bench(*, only: Sequence[str], plan: Plan, json_path: str | None) -> int:
    """Measure, and show a table.

    Args:
        only: Parts of the names of the cells to measure; none: all.
        plan: How long to look.
        json_path: Where to write the results as JSON.

    Returns:
        The exit code.

    Raises:
        click.UsageError: No cell has such a name.
        Failure: The results cannot be written.
    """
    cells = [cell for cell in CELLS if not only or any(part in str(cell) for part in only)]
    if not cells:
        raise click.UsageError(f"--only: no cell is named like that; there are: {'; '.join(map(str, CELLS))}")
    results: list[Result] = []

    async def work() -> int:
        for number, cell in enumerate(cells, 1):
            if sys.stderr.isatty():
                click.echo(f"[{number}/{len(cells)}] {cell}", err=True)
            results.append(await measure(cell, plan))
        return ExitCode.OK  # noqa: ASYNC910

    if status := run_command(work):
        return status
    click.echo(_table(results))
    if json_path is not None:
        try:
            Path(json_path).write_text(json.dumps(_document(plan, results), indent=1) + "\n", encoding="utf-8")
        except OSError as exc:
            raise Failure(f"{json_path}: {exc.strerror or exc}", ExitCode.USAGE) from exc
    return ExitCode.OK


def _table(results: Sequence[Result]) -> str:
    lines = [("", "speed", "quartiles", "CPU", "calls/s here")]
    for result in results:
        speed = result.speed
        lines.append(
            (
                str(result.cell),
                f"{speed.median:.2f}",
                f"{speed.low:.2f} … {speed.high:.2f}",
                f"{result.cpu.median:.2f}",
                f"{result.rate:,.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _document(plan: Plan, results: Sequence[Result]) -> dict[str, object]:
    return {
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": len(os.sched_getaffinity(0))},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("orc_trio", "trio", "cbor2")},
        },
        "plan": attrs.asdict(plan),
        "results": [attrs.asdict(result) for result in results],
    }
