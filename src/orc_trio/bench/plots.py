"""A report as a picture (needs matplotlib: the extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from orc_trio.bench.cells import Result
from orc_trio.bench.growth import Curve
from orc_trio.bench.report import Report

__all__ = ["draw", "formats", "save"]

_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50, 100, 200)
_WIDTH = 9.0
_BAR = 0.3
_PANEL = 3.2


def save(report: Report, path: Path) -> None:
    """Draw a report.

    Args:
        report: The report.
        path: Where to; its suffix says in which format (``.svg``, ``.png``, ``.pdf``).

    Raises:
        OSError: The file cannot be written.
        ValueError: There is no such format; see `formats`.
    """
    draw(report).savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def formats() -> list[str]:
    """The suffixes of what can be written."""
    return [f".{name}" for name in FigureCanvasBase.get_supported_filetypes()]


def draw(report: Report) -> Figure:
    """A report as a figure: a bar for each ratio, and the curves.

    Args:
        report: The report; what it does not have is left out.
    """
    rows = (len(report.curves) + 1) // 2
    heights = [_BAR * len(report.results) + 1] * bool(report.results) + [_PANEL] * rows
    figure = Figure(figsize=(_WIDTH, sum(heights) or 1), layout="constrained")
    if not heights:
        return figure
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    if report.results:
        _bars(figure.add_subplot(grid[0, :]), report.results)
    for number, curve in enumerate(report.curves):
        _curve(figure.add_subplot(grid[number // 2 + bool(report.results), number % 2]), curve)
    return figure


def _bars(axes: Axes, results: Sequence[Result]) -> None:
    names = [str(result.cell) for result in results]
    medians = [result.speed.median for result in results]
    spread = [
        [result.speed.median - result.speed.low for result in results],
        [result.speed.high - result.speed.median for result in results],
    ]
    axes.barh(names, [median - 1 for median in medians], left=1, xerr=spread, color="tab:blue", ecolor="0.4")
    axes.axvline(1, color="0.2", linewidth=1)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in _TICKS if low <= tick <= high], minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.invert_yaxis()
    axes.set_xlabel("times as many calls in a second (median and quartiles)")
    axes.grid(visible=True, axis="x", alpha=0.3)


def _curve(axes: Axes, curve: Curve) -> None:
    at = [point.at for point in curve.points]
    axes.plot(at, [point.value for point in curve.points], "o-", color="tab:blue")
    axes.set_xscale("log")
    axes.set_xlabel(curve.name)
    axes.set_ylabel(curve.unit, color="tab:blue")
    axes.set_ylim(0, 1.1 * max(point.value for point in curve.points))
    axes.grid(visible=True, alpha=0.3)
    ratios = [(point.at, point.ratio) for point in curve.points if point.ratio is not None]
    if ratios:
        beside = axes.twinx()
        beside.errorbar(
            [at for at, _ in ratios],
            [ratio.median for _, ratio in ratios],
            yerr=[
                [ratio.median - ratio.low for _, ratio in ratios],
                [ratio.high - ratio.median for _, ratio in ratios],
            ],
            fmt="s--",
            color="tab:orange",
        )
        beside.set_ylabel(f"times {curve.against}", color="tab:orange")
        beside.set_ylim(bottom=0)
