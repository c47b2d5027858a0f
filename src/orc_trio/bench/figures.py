"""What every measurement shares: for how long, and what comes out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import attrs

__all__ = ["Figure", "Plan", "show_size"]


@attrs.frozen
class Plan:
    """How long to look.

    Attributes:
        sets: Fresh pairs of processes.
        rounds: Slices of each subject in one, at least 2.
        seconds: The length of a slice.
    """

    sets: int
    rounds: int
    seconds: float


@attrs.frozen
class Figure:
    """A median of ratios, and the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Of at least two values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def show_size(size: int) -> str:
    """A number of bytes, for people."""
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
