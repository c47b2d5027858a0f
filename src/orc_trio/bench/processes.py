"""A pair of processes, this one and a serving one; and slices of time in which they do something."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from orc_trio.bench.figures import Plan
from orc_trio.bench.server import CLOCK, TIME, connect
from orc_trio.bench.subjects import SUBJECTS, Connect, RoundTrip

__all__ = ["Server", "Slice", "open_server", "take_slice", "take_turns"]


@attrs.frozen
class Slice:
    """What was done in a slice of time.

    Attributes:
        calls: How many round trips.
        seconds: How long it was.
        cpu: Processor time of both processes, in seconds.
    """

    calls: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Round trips per second."""
        return self.calls / self.seconds

    @property
    def cost(self) -> float:
        """Processor time for each round trip."""
        return self.cpu / self.calls


@attrs.frozen
class Server:
    """A serving process.

    Attributes:
        address: Where it listens.
        clock: Tells its processor time.
    """

    address: str
    clock: trio.SocketStream

    def connecting(self, subject: str) -> Connect:
        """What makes connections to a subject's serving end."""
        return partial(connect, self.address, list(SUBJECTS).index(subject))

    async def cpu(self) -> float:
        """Processor time of both processes so far, in seconds.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the clock unusable.
        """
        await self.clock.send_all(b"?")
        data = await self.clock.receive_some(TIME.size)
        return float(TIME.unpack(data)[0]) + time.process_time()


@asynccontextmanager
async def open_server(kind: str, *, one_core: bool) -> AsyncIterator[Server]:
    """Start a serving process; it ends with the block.

    Args:
        kind: How to connect: ``"unix"`` or ``"tcp"``.
        one_core: Keep both processes on one core, as they never run at the same time; else each has its own.

    Raises:
        OSError: No process could be started.

    Checkpoints:
        Always.

    Cancellation:
        Leaves nothing.
    """
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "bench") if kind == "unix" else "127.0.0.1:0"
        command = [sys.executable, "-m", "orc_trio.bench.server", address]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            os.sched_setaffinity(0, {cores[0]})
            os.sched_setaffinity(process.pid, {cores[0] if one_core else cores[-1]})
            address = (await process.stdout.receive_some()).decode().strip()
            async with await connect(address, CLOCK) as clock:
                yield Server(address, clock)
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


async def take_slice(server: Server, round_trips: Sequence[RoundTrip], payload: bytes, seconds: float) -> Slice:
    """Do round trips for some time, each of them again and again, at least once.

    Args:
        server: Where they go.
        round_trips: As many as shall be in flight.
        payload: What they carry.
        seconds: How long.

    Checkpoints:
        Always.

    Cancellation:
        Leaves the round trips where they were.
    """
    calls = 0
    cpu = await server.cpu()
    began = time.perf_counter()
    end = began + seconds

    async def go_on(round_trip: RoundTrip) -> None:  # noqa: ASYNC910
        nonlocal calls
        while True:
            await round_trip(payload)
            calls += 1
            if time.perf_counter() >= end:
                break

    async with trio.open_nursery() as nursery:
        for round_trip in round_trips:
            nursery.start_soon(go_on, round_trip)
    took = time.perf_counter() - began
    return Slice(calls, took, await server.cpu() - cpu)


async def take_turns(
    ours: Callable[[float], Awaitable[Slice]], theirs: Callable[[float], Awaitable[Slice]], plan: Plan
) -> list[tuple[Slice, Slice]]:
    """Slices of the one and of the other, A B B A, each with its neighbour.

    Args:
        ours: Takes a slice of so many seconds.
        theirs: The same, of what it is measured against.
        plan: How many, and how long.

    Raises:
        BaseException: What one of the two raises.

    Checkpoints:
        If the two do.

    Cancellation:
        Is theirs.
    """
    pairs = []
    for number in range(plan.rounds):
        if number % 2:
            our = await ours(plan.seconds)
            their = await theirs(plan.seconds)
        else:
            their = await theirs(plan.seconds)
            our = await ours(plan.seconds)
        pairs.append((our, their))
    return pairs  # noqa: ASYNC910
