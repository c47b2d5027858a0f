"""One cell: two subjects side by side, with so many calls of such a size in flight."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from orc_trio.bench.server import CLOCK, TIME, connect
from orc_trio.bench.subjects import SUBJECTS, RoundTrip

__all__ = ["CELLS", "Cell", "Figure", "Plan", "Result", "measure"]

_KIB, _MIB = 1024, 1024 * 1024


@attrs.frozen
class Cell:
    """What is compared with what.

    Attributes:
        subject: What is measured.
        against: What it is measured against.
        kind: How the processes are connected: ``"unix"`` or ``"tcp"``.
        calls: How many are in flight at once.
        size: Bytes in each, both ways.
    """

    subject: str
    against: str
    kind: str
    calls: int
    size: int

    def __str__(self) -> str:
        return f"{self.subject} / {self.against}, {self.kind}, {self.calls} × {show_size(self.size)}"


def show_size(size: int) -> str:
    """A number of bytes, for people."""
    for unit, name in ((_MIB, "MiB"), (_KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


SIZES: Final = (16, _KIB, 64 * _KIB, _MIB)
CELLS: Final = (
    *(Cell("orc_trio", "floor", kind, 1, size) for kind in ("unix", "tcp") for size in SIZES),
    *(Cell("orc_trio", "floor", "unix", 64, size) for size in SIZES),
    *(Cell("orc_trio, any stream", "floor", "unix", calls, _KIB) for calls in (1, 64)),
    Cell("orc_trio, in process", "orc_trio", "unix", 1, _KIB),
)


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


@attrs.frozen
class Result:
    """What came out of a cell.

    Attributes:
        cell: The cell.
        speed: Calls per second, as a multiple of the other's.
        cpu: Processor time for each call, both processes together, as a multiple of the other's.
        rate: The subject's own calls per second, median: true of this machine at that moment.
    """

    cell: Cell
    speed: Figure
    cpu: Figure
    rate: float


@attrs.frozen
class _Slice:
    calls: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cost(self) -> float:
        return self.cpu / self.calls


async def measure(cell: Cell, plan: Plan) -> Result:
    """Measure a cell.

    Args:
        cell: What.
        plan: How long.

    Raises:
        OSError: No process could be started.

    Checkpoints:
        Always.

    Cancellation:
        Leaves nothing.
    """
    pairs: list[tuple[_Slice, _Slice]] = []
    await trio.lowlevel.checkpoint()
    for _ in range(plan.sets):
        pairs += await _compare(cell, plan)
    return Result(
        cell,
        speed=Figure.of([ours.rate / theirs.rate for ours, theirs in pairs]),
        cpu=Figure.of([ours.cost / theirs.cost for ours, theirs in pairs]),
        rate=statistics.median(ours.rate for ours, _ in pairs),
    )


async def _compare(cell: Cell, plan: Plan) -> list[tuple[_Slice, _Slice]]:
    """Slices of the subject and of what it is measured against, each with its neighbour."""
    payload = os.urandom(cell.size)
    names = list(SUBJECTS)
    async with _server(cell) as address:
        clock = await connect(address, CLOCK)
        to = {name: partial(connect, address, names.index(name)) for name in (cell.subject, cell.against)}
        async with (
            clock,
            SUBJECTS[cell.subject].open(to[cell.subject], cell.calls) as ours,
            SUBJECTS[cell.against].open(to[cell.against], cell.calls) as theirs,
        ):
            for warmed in (ours, theirs):
                await _slice(warmed, payload, plan.seconds / 4, clock)
            pairs = []
            for number in range(plan.rounds):
                order = (ours, theirs) if number % 2 else (theirs, ours)
                slices = [await _slice(each, payload, plan.seconds, clock) for each in order]
                pairs.append((slices[0], slices[1]) if number % 2 else (slices[1], slices[0]))
            return pairs


async def _slice(round_trips: Sequence[RoundTrip], payload: bytes, seconds: float, clock: trio.SocketStream) -> _Slice:
    calls = 0
    cpu = await _cpu(clock)
    began = time.perf_counter()
    end = began + seconds

    async def go_on(round_trip: RoundTrip) -> None:  # noqa: ASYNC910
        nonlocal calls
        while time.perf_counter() < end:
            await round_trip(payload)
            calls += 1

    async with trio.open_nursery() as nursery:
        for round_trip in round_trips:
            nursery.start_soon(go_on, round_trip)
    took = time.perf_counter() - began
    return _Slice(calls, took, await _cpu(clock) - cpu)


async def _cpu(clock: trio.SocketStream) -> float:
    """Processor time of both processes so far."""
    await clock.send_all(b"?")
    data = await clock.receive_some(TIME.size)
    return float(TIME.unpack(data)[0]) + time.process_time()


@asynccontextmanager
async def _server(cell: Cell) -> AsyncIterator[str]:
    """A serving process, on the cores that the cell asks for; gives its address."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "bench") if cell.kind == "unix" else "127.0.0.1:0"
        command = [sys.executable, "-m", "orc_trio.bench.server", address]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            os.sched_setaffinity(0, {cores[0]})
            os.sched_setaffinity(process.pid, {cores[0] if cell.calls == 1 else cores[-1]})
            yield (await process.stdout.receive_some()).decode().strip()
        finally:
            os.sched_setaffinity(0, cores)
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                await process.stdout.aclose()
                with trio.move_on_after(5):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
