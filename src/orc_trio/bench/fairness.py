"""Whether large messages hold up small ones: with messages in parts, and without."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Final

import attrs
import trio

from orc_trio.bench.figures import Figure, Plan
from orc_trio.bench.processes import open_server
from orc_trio.bench.subjects import SUBJECTS, RoundTrip

__all__ = ["MODES", "Fairness", "measure_fairness"]

MODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "whole": "orc_trio",
        "in parts of 64 KiB": "orc_trio, in parts",
        "in parts of 32 KiB, send buffer of 64 KiB": "orc_trio, in small parts",
    }
)
"""How large messages are sent, and the subject that does it."""
_SMALL, _LARGE = 16, 64 * 1024 * 1024
_SLICES: Final = 4
"""A slice is so many times as long as one of a cell: few transfers fit into one of those."""


@attrs.frozen
class Fairness:
    """Small calls beside large ones, over one connection.

    Attributes:
        mode: How the large ones are sent; see `MODES`.
        alone: The time that 99 of 100 small calls stay below without large ones beside them, in seconds.
        beside: The same with a large one always under way.
        ratio: The second as a multiple of the first.
        rate: Bytes per second of large calls, there and back counted once.
    """

    mode: str
    alone: float
    beside: float
    ratio: Figure
    rate: float

    def __str__(self) -> str:
        return f"16 B beside 64 MiB, {self.mode}"


async def measure_fairness(plan: Plan) -> list[Fairness]:
    """Measure each of the `MODES`, in turns with small calls alone.

    Args:
        plan: How long.

    Raises:
        OSError: No process could be started.

    Checkpoints:
        Always.

    Cancellation:
        Leaves nothing.
    """
    alone: list[float] = []
    beside: dict[str, list[float]] = {mode: [] for mode in MODES}
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    await trio.lowlevel.checkpoint()
    for _ in range(plan.sets):
        async with open_server("unix", one_core=False) as server, AsyncExitStack() as stack:
            opened: dict[str, RoundTrip] = {}
            for mode, name in MODES.items():
                (opened[mode],) = await stack.enter_async_context(SUBJECTS[name].open(server.connecting(name), 1))
                await _watch(opened[mode], plan.seconds * _SLICES, with_large=True)
            for number in range(plan.rounds):
                modes = list(opened) if number % 2 else list(reversed(opened))
                p99, _rate = await _watch(opened[modes[0]], plan.seconds, with_large=False)
                alone.append(p99)
                for mode in modes:
                    p99, rate = await _watch(opened[mode], plan.seconds * _SLICES, with_large=True)
                    beside[mode].append(p99)
                    rates[mode].append(rate)
    return [
        Fairness(
            mode,
            alone=statistics.median(alone),
            beside=statistics.median(beside[mode]),
            ratio=Figure.of([late / early for late, early in zip(beside[mode], alone, strict=True)]),
            rate=statistics.median(rates[mode]),
        )
        for mode in MODES
    ]


async def _watch(round_trip: RoundTrip, seconds: float, *, with_large: bool) -> tuple[float, float]:
    """The time that 99 of 100 small calls stay below, and the bytes of large ones in a second."""
    small, large = os.urandom(_SMALL), os.urandom(_LARGE)
    took: list[float] = []
    moved = 0
    began = time.perf_counter()

    async def send_small() -> None:  # noqa: ASYNC910
        while not took or time.perf_counter() < began + seconds:
            at = time.perf_counter()
            await round_trip(small)
            took.append(time.perf_counter() - at)

    async def send_large() -> None:  # noqa: ASYNC910
        nonlocal moved
        while not moved or time.perf_counter() < began + seconds:
            await round_trip(large)
            moved += _LARGE

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_small)
        if with_large:
            nursery.start_soon(send_large)
    rate = moved / (time.perf_counter() - began)
    took.sort()
    return took[len(took) * 99 // 100], rate
