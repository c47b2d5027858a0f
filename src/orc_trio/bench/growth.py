"""How cost grows with the number of calls, of connections, and of bytes."""

from __future__ import annotations

import gc
import resource
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio
import trio.testing

from orc_trio.bench.cells import Cell, measure
from orc_trio.bench.figures import Figure, Plan
from orc_trio.bench.processes import Server, open_server
from orc_trio.bench.subjects import LIMITS, WAIT
from orc_trio.controller import open_controller
from orc_trio.exceptions import DisconnectedError
from orc_trio.registry import HandlerRegistry

__all__ = ["GROWTHS", "Curve", "Growth", "Point"]

_KIB, _MIB = 1024, 1024 * 1024


@attrs.frozen
class Point:
    """One point of a curve.

    Attributes:
        at: How many calls, bytes or connections.
        value: What was measured there, in the curve's unit: true of this machine at that moment.
        ratio: The same as a multiple of what it is compared with; None: it is compared with nothing.
    """

    at: int
    value: float
    ratio: Figure | None = None


@attrs.frozen
class Curve:
    """How something grows.

    Attributes:
        name: What grows.
        unit: The unit of the values.
        against: What the ratios compare with; empty: there are none.
        points: What was measured, in order.
        more_is_better: Of the ratio, or of the value where there is none.
    """

    name: str
    unit: str
    against: str
    more_is_better: bool
    points: Sequence[Point] = ()


@attrs.frozen
class Growth:
    """How a curve is measured.

    Attributes:
        curve: The curve, without points.
        steps: Where.
        point: Measures it there.
    """

    curve: Curve
    steps: Sequence[int]
    point: Callable[[int, Plan], Awaitable[Point]]

    def __str__(self) -> str:
        return f"growth: {self.curve.name}"


async def _in_flight(calls: int, plan: Plan) -> Point:
    result = await measure(Cell("orc_trio", "orc_trio, 64 calls", "unix", calls, 16), plan)
    return Point(calls, result.rate, result.speed)


async def _payload(size: int, plan: Plan) -> Point:
    result = await measure(Cell("orc_trio", "floor", "unix", 1, size), plan)
    return Point(size, result.rate * size / _MIB, result.speed)


async def _idle(number: int, plan: Plan) -> Point:
    del plan  # memory is counted, not timed
    _allow_descriptors(number)
    async with open_server("unix", one_core=False) as server, trio.open_nursery() as nursery:
        await nursery.start(_hold, server)  # what the first one needs, and all share
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(number):
                await nursery.start(_hold, server)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        nursery.cancel_scope.cancel()
    return Point(number, (after - before) / number / _KIB)


async def _hold(server: Server, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114
    async with open_controller(await server.connecting("orc_trio")(), HandlerRegistry()):
        task_status.started()
        await trio.sleep_forever()


def _allow_descriptors(number: int) -> None:
    """As many as the system lets us have; the serving process inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * number + 100
    if soft != resource.RLIM_INFINITY and soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _failing(number: int, plan: Plan) -> Point:
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(plan.sets):
        async with open_server("unix", one_core=False) as server:
            for turn in range(2):
                for what in (ours, theirs) if turn else (theirs, ours):
                    what.append(await (_fail(server, number) if what is ours else _cancel(number)))
    ratio = Figure.of([our / their for our, their in zip(ours, theirs, strict=True)])
    return Point(number, statistics.median(ours) / number * 1e6, ratio)  # noqa: ASYNC910


async def _fail(server: Server, number: int) -> float:
    """The time from disconnecting to the end of the last of so many callers."""
    async with (
        open_controller(await server.connecting("orc_trio")(), HandlerRegistry(), limits=LIMITS) as controller,
        trio.open_nursery() as nursery,
    ):
        address = controller.bootstrap.symbols[WAIT]
        ended = 0.0

        async def call() -> None:  # noqa: ASYNC910
            nonlocal ended
            try:
                await controller.call_wrapper(address, b"")
            except DisconnectedError:
                ended = time.perf_counter()

        for _ in range(number):
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked(0.01)
        began = time.perf_counter()
        controller.begin_disconnect()
    return ended - began  # noqa: ASYNC910


async def _cancel(number: int) -> float:
    """The time from cancelling so many tasks that do nothing to the end of the last."""
    ended = 0.0

    async def wait() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            ended = time.perf_counter()

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        began = time.perf_counter()
        nursery.cancel_scope.cancel()
    return ended - began


GROWTHS: Final = (
    Growth(
        Curve("calls in flight", "calls/s", "64 in flight", more_is_better=True),
        steps=(1, 10, 100, 1000, 10_000),
        point=_in_flight,
    ),
    Growth(
        Curve("bytes in a call", "MiB/s", "the floor", more_is_better=True),
        steps=(16, 256, 4 * _KIB, 64 * _KIB, _MIB, 16 * _MIB, 64 * _MIB),
        point=_payload,
    ),
    Growth(
        Curve("idle connections", "KiB each", "", more_is_better=False),
        steps=(1, 10, 100, 1000),
        point=_idle,
    ),
    Growth(
        Curve("pending calls that fail", "µs each", "cancelling as many tasks", more_is_better=False),
        steps=(1, 10, 100, 1000, 10_000, 100_000),
        point=_failing,
    ),
)
