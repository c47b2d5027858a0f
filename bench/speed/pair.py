"""A pair of processes of one library, near and far, that does what it is told in slices of time.

Rules
-----
* Every wait is bounded, and nothing is left of a pair: leaving the block kills both processes.
* With one call in flight both share a core, as they never run at the same time; otherwise each has its own.
* Processor time is read from outside, so that it is the same for every library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from orc_trio.bench.processes import Slice
from scoreboard.cell import plain

PATIENCE: Final = 30.0
"""Seconds for whatever has to happen, on top of a slice."""
_PINNED: Final = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])]); os.execv(sys.argv[2], sys.argv[2:])"


class BrokenPeerError(Exception):
    """A peer that does not do its part; says why."""


class Program:
    """A process that writes lines."""

    def __init__(self, process: trio.Process, errors: Path) -> None:
        self._process = process
        self._errors = errors
        self._unread = b""

    async def read_line(self, patience: float = PATIENCE) -> str:
        """The next line.

        Raises:
            BrokenPeerError: There is none in time, or none at all.
        """
        assert self._process.stdout is not None
        with trio.move_on_after(patience):
            while b"\n" not in self._unread:
                data = await self._process.stdout.receive_some()
                if not data:
                    raise BrokenPeerError(self._last_words())
                self._unread += data
            line, _, self._unread = self._unread.partition(b"\n")
            return line.decode()
        raise BrokenPeerError(f"nothing happened for {patience:g} s")

    def _last_words(self) -> str:
        lines = [line.strip(" |") for line in self._errors.read_text(errors="replace").splitlines()]
        said = [line for line in lines if line.strip("+-")]  # what frames a group of exceptions says nothing
        return plain(said[-1]) if said else "it ended without a word"

    async def write_line(self, text: str) -> None:
        """Tell it something; that it does not listen shows when its answer is read."""
        assert self._process.stdin is not None
        with suppress(trio.BrokenResourceError):
            await self._process.stdin.send_all(f"{text}\n".encode())

    def cpu(self) -> float:
        """The processor time that it has used, all threads together, in seconds."""
        try:
            return time.clock_gettime(~self._process.pid << 3 | 2)  # as clock_getcpuclockid(3) has it
        except OSError as exc:
            raise BrokenPeerError("it is gone") from exc


class Pair:
    """The two processes."""

    def __init__(self, near: Program, far: Program) -> None:
        self._near = near
        self._far = far

    async def take_slice(self, seconds: float) -> Slice:
        """Call for so many seconds.

        Raises:
            BrokenPeerError: It does not.
        """
        before = self._near.cpu() + self._far.cpu()
        await self._near.write_line(f"{seconds}")
        said = await self._near.read_line(seconds + PATIENCE)
        used = self._near.cpu() + self._far.cpu() - before
        try:
            calls, took = said.split()
            return Slice(int(calls), float(took), used)
        except ValueError as exc:
            raise BrokenPeerError(plain(f"it said {said!r}")) from exc


@asynccontextmanager
async def open_pair(command: Sequence[str], kind: str, calls: int, size: int) -> AsyncIterator[Pair]:
    """Start a pair.

    Args:
        command: The adapter, and what runs it.
        kind: ``"unix"``: it shall serve at a path.
        calls: How many in flight.
        size: Bytes in each.

    Raises:
        BrokenPeerError: It does not get as far as that.
    """
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        where = str(Path(folder) / "far") if kind == "unix" else "127.0.0.1:0"
        async with _started([*command, "far", where], cores[0] if calls == 1 else cores[-1], folder) as far:
            address = await far.read_line()
            near_command = [*command, "near", address, str(calls), str(size)]
            async with _started(near_command, cores[0], folder) as near:
                await near.read_line()
                yield Pair(near, far)


@asynccontextmanager
async def _started(command: Sequence[str], core: int, folder: str) -> AsyncIterator[Program]:
    errors = Path(folder) / f"{command[-1].replace('/', '_')}.errors"
    with errors.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", _PINNED, str(core), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield Program(process, errors)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()
            await process.wait()
