"""What was measured, as a document; and whether it is worse than what was measured before."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import attrs

from orc_trio.bench.cells import Cell, Result
from orc_trio.bench.fairness import Fairness
from orc_trio.bench.figures import Figure, Plan
from orc_trio.bench.growth import Curve, Point

__all__ = ["Report", "regressions"]

_FORMAT: Final = 1


def _machine() -> dict[str, str | int]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("orc_trio", "trio", "cbor2")},
    }


@attrs.define
class Report:
    """What a run measured.

    Attributes:
        plan: For how long each was looked at.
        results: The cells.
        fairness: Small calls beside large ones.
        curves: How things grow.
        machine: Where.
        versions: Of Python, and of the packages that matter.
        problems: What could not be measured, and why.
    """

    plan: Plan
    results: list[Result] = attrs.Factory(list)
    fairness: list[Fairness] = attrs.Factory(list)
    curves: list[Curve] = attrs.Factory(list)
    machine: Mapping[str, str | int] = attrs.Factory(_machine)
    versions: Mapping[str, str] = attrs.Factory(_versions)
    problems: Mapping[str, str] = attrs.Factory(dict)

    def save(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OSError: It cannot be written.
        """
        document = {"format": _FORMAT, **attrs.asdict(self)}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read it back.

        Raises:
            OSError: It cannot be read.
            ValueError: It is something else.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']!r}")
            return cls(
                Plan(**document["plan"]),
                [_result(each) for each in document["results"]],
                [Fairness(**{**each, "ratio": Figure(**each["ratio"])}) for each in document["fairness"]],
                [
                    Curve(**{**each, "points": [_point(point) for point in each["points"]]})
                    for each in document["curves"]
                ],
                document["machine"],
                document["versions"],
                document["problems"],
            )
        except (ValueError, LookupError, TypeError) as exc:
            raise ValueError(f"not a report of orc-trio bench ({type(exc).__name__}: {exc})") from exc


def _result(document: Mapping[str, Any]) -> Result:
    speed, cpu = Figure(**document["speed"]), Figure(**document["cpu"])
    return Result(Cell(**document["cell"]), speed=speed, cpu=cpu, rate=document["rate"])


def _curve(document: Mapping[str, Any]) -> Curve:
    return Curve(**{**document, "points": [_point(point) for point in document["points"]]})


def _point(document: Mapping[str, Any]) -> Point:
    ratio = document["ratio"]
    return Point(document["at"], document["value"], ratio and Figure(**ratio))


def regressions(before: Report, now: Report, tolerance: float) -> list[str]:
    """What has become worse.

    Only ratios are compared, and bytes, as they mean the same on any machine.

    Args:
        before: What it is compared with.  What only one of the two has is left out.
        now: What was measured.
        tolerance: The share by which a figure may be worse, as those of the same program differ from run to run.

    Returns:
        A line for each.
    """
    old = {name: figure for name, figure, _ in _figures(before)}
    lines = []
    for name, figure, more_is_better in _figures(now):
        if name not in old:
            continue
        share = figure / old[name]
        if share < 1 - tolerance if more_is_better else share > 1 / (1 - tolerance):
            lines.append(f"{name}: {figure:.2f}, was {old[name]:.2f}")
    return lines


def _figures(report: Report) -> Iterator[tuple[str, float, bool]]:
    """Every figure with its name, and whether more of it is better."""
    for result in report.results:
        yield str(result.cell), result.speed.median, True
    for fairness in report.fairness:
        yield str(fairness), fairness.ratio.median, False
    for curve in report.curves:
        for point in curve.points:
            figure = point.value if point.ratio is None else point.ratio.median
            yield f"{curve.name}, {point.at}", figure, curve.more_is_better
