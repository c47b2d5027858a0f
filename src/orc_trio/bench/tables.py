"""A report as tables, for a terminal or a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from orc_trio.bench.fairness import Fairness
from orc_trio.bench.figures import Figure, show_size
from orc_trio.bench.growth import Curve
from orc_trio.bench.report import Report

__all__ = ["Table", "tables"]


@attrs.frozen
class Table:
    """A table.

    Attributes:
        head: The headings of the columns.
        rows: The texts below them.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """In columns; all but the first are numbers."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        return "\n".join(
            "  ".join(
                [
                    line[0].ljust(widths[0]),
                    *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)),
                ]
            )
            for line in (self.head, *self.rows)
        )


def tables(report: Report) -> Iterator[Table]:
    """What was measured: the cells, small calls beside large ones, and each of the curves."""
    if report.results:
        head = ("", "speed", "quartiles", "CPU", "calls/s here")
        rows = [
            (str(each.cell), *_show(each.speed), f"{each.cpu.median:.2f}", f"{each.rate:,.0f}")
            for each in report.results
        ]
        yield Table(head, rows)
    if report.fairness:
        yield _fairness(report.fairness)
    for curve in report.curves:
        yield _curve(curve)


def _fairness(found: Sequence[Fairness]) -> Table:
    head = ("99 of 100 calls of 16 B beside 64 MiB", "alone", "beside", "ratio", "quartiles", "MiB/s of 64 MiB")
    rows = [
        (
            each.mode,
            f"{each.alone * 1000:.2f} ms",
            f"{each.beside * 1000:.2f} ms",
            *_show(each.ratio),
            f"{each.rate / 1024 / 1024:,.0f}",
        )
        for each in found
    ]
    return Table(head, rows)


def _curve(curve: Curve) -> Table:
    head = (curve.name, curve.unit, *((f"times {curve.against}", "quartiles") if curve.against else ()))
    rows = [
        (
            show_size(point.at) if "bytes" in curve.name else f"{point.at:,}",
            f"{point.value:,.2f}",
            *(() if point.ratio is None else _show(point.ratio)),
        )
        for point in curve.points
    ]
    return Table(head, rows)


def _show(figure: Figure) -> tuple[str, str]:
    return f"{figure.median:.2f}", f"{figure.low:.2f} … {figure.high:.2f}"
