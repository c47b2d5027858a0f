"""One cell: two subjects side by side, with so many calls of such a size in flight."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio

from orc_trio.bench.figures import Figure, Plan, show_size
from orc_trio.bench.processes import Slice, open_server, take_slice, take_turns
from orc_trio.bench.subjects import SUBJECTS

__all__ = ["CELLS", "SIZES", "Cell", "Result", "measure"]

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


SIZES: Final = (16, _KIB, 64 * _KIB, _MIB)
"""In bytes."""
CELLS: Final = (
    *(Cell("orc_trio", "floor", kind, 1, size) for kind in ("unix", "tcp") for size in SIZES),
    *(Cell("orc_trio", "floor", "unix", 64, size) for size in SIZES),
    *(Cell("orc_trio, send buffer of 1 MiB", "floor", "unix", calls, _MIB) for calls in (1, 64)),
    *(Cell("orc_trio, any stream", "floor", "unix", calls, _KIB) for calls in (1, 64)),
    Cell("orc_trio, in process", "orc_trio", "unix", 1, _KIB),
    Cell("orc_trio, upload", "floor, upload", "unix", 1, 64 * _MIB),
    *(Cell("skeleton", "floor", "unix", calls, 16) for calls in (1, 64)),
)
"""What ``orc-trio bench`` measures."""


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

    @classmethod
    def of(cls, cell: Cell, pairs: Sequence[tuple[Slice, Slice]]) -> Result:
        """Of at least two pairs of slices: the subject's, and the other's beside it."""
        return cls(
            cell,
            speed=Figure.of([ours.rate / theirs.rate for ours, theirs in pairs]),
            cpu=Figure.of([ours.cost / theirs.cost for ours, theirs in pairs]),
            rate=statistics.median(ours.rate for ours, _ in pairs),
        )


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
    pairs: list[tuple[Slice, Slice]] = []
    await trio.lowlevel.checkpoint()
    for _ in range(plan.sets):
        pairs += await _compare(cell, plan)
    return Result.of(cell, pairs)


async def _compare(cell: Cell, plan: Plan) -> list[tuple[Slice, Slice]]:
    """Slices of the subject and of what it is measured against, each with its neighbour."""
    payload = os.urandom(cell.size)
    subject, against = SUBJECTS[cell.subject], SUBJECTS[cell.against]
    async with (
        open_server(cell.kind, one_core=cell.calls == 1) as server,
        subject.open(server.connecting(cell.subject), cell.calls) as ours,
        against.open(server.connecting(cell.against), cell.calls) as theirs,
    ):
        take_ours, take_theirs = (partial(take_slice, server, each, payload) for each in (ours, theirs))
        for warm_up in (take_ours, take_theirs):
            await warm_up(plan.seconds / 4)
        return await take_turns(take_ours, take_theirs, plan)
