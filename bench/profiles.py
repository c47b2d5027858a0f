"""Where the time of a call goes: ``python -m profiles`` (with ``PYTHONPATH=bench`` and py-spy).

Both ends run in one process, and py-spy looks some hundred times in a second at which line is running.  A line counts
for the room that it stands in; one that is a system call counts as the system's.
"""

from __future__ import annotations

import argparse
import json
import linecache
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import trio

from orc_trio.bench.figures import show_size
from orc_trio.bench.subjects import SUBJECTS, RoundTrip

FILE: Final = Path(__file__).with_name("profiles.json")
CELLS: Final = ((1, 16), (64, 16), (1, 1024 * 1024))
"""Calls in flight, and bytes in each."""
SYSTEM: Final = "the system: reading, writing, waiting"
OTHER: Final = "Python's own library"
ROOMS: Final = {
    "the benchmark itself": r"/profiles\.py$|/orc_trio/bench/",
    "wire: encoding, decoding, buffers": r"/orc_trio/wire/",
    "protocol: what may happen, and what follows": r"/orc_trio/protocol/",
    "sockets, pumps: moving messages": r"/orc_trio/(sockets|streams|pumps)\.py$",
    "calling, connection, controller: making a call": r"/orc_trio/(calling|connection|controller|nesting)\.py$",
    "handlers, dispatch, session: serving a call": r"/orc_trio/",
    "Trio: tasks, scopes, waiting": r"/(trio|outcome)/|<attrs generated methods trio",
}
"""The rooms, and the files that belong to each; the first that fits counts."""
_SYSTEM_CALL: Final = re.compile(r"\bos\.(read|readv|write|writev)\(|_epoll\.(poll|modify|register)\(|\bmmap\(")
_FRAME: Final = re.compile(r".* \((?P<path>.*):(?P<line>\d+)\)")
_WARM_UP: Final = 1.0


def main() -> None:
    """Look at all cells, and write the results; or be the process that is looked at."""
    parser = argparse.ArgumentParser(prog="profiles", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long to look at each cell (20)")
    parser.add_argument("--results", type=Path, default=FILE, help="the results file")
    parser.add_argument("--be", nargs=2, type=int, metavar=("CALLS", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        trio.run(call, *arguments.be, arguments.seconds)
        return
    cells = []
    for calls, size in CELLS:
        print(f"{calls} × {show_size(size)}", file=sys.stderr, flush=True)
        cells.append({"calls": calls, "size": size, "shares": look(calls, size, arguments.seconds)})
    versions = {"python": platform.python_version(), **{name: version(name) for name in ("trio", "py-spy")}}
    document = {"versions": versions, "cells": cells}
    arguments.results.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def look(calls: int, size: int, seconds: int) -> dict[str, float]:
    """The share of each room, the largest first."""
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        program = [sys.executable, "-m", "profiles", "--be", str(calls), str(size), "--seconds", str(seconds)]
        looking = ["py-spy", "record", "--rate", "400", "--duration", str(seconds), "--format", "raw"]
        command = [*looking, "--full-filenames", "--output", str(stacks), "--", *program]
        subprocess.run(command, check=True, capture_output=True)
        found = count(stacks.read_text(encoding="utf-8"))
    return {room: round(number / found.total(), 4) for room, number in found.most_common()}


def count(stacks: str) -> Counter[str]:
    """How often each room was seen running.

    Args:
        stacks: A line for each stack: its frames with ``;`` between, and how often it was seen.
    """
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, number = line.rpartition(" ")
        if "(<frozen importlib" not in frames:  # not yet running
            found[room(frames.rpartition(";")[2])] += int(number)
    return found


def table(cells: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows: a room in each, that with the most to do in all cells first."""
    rooms = {room for cell in cells for room in cell["shares"]}
    by_cost = sorted(rooms, key=lambda room: -sum(cell["shares"].get(room, 0) for cell in cells))
    head = ["Room", *(f"{cell['calls']} × {show_size(cell['size'])}" for cell in cells)]
    return head, [[room, *(f"{cell['shares'].get(room, 0):.0%}" for cell in cells)] for room in by_cost]


def room(frame: str) -> str:
    """The room of the line that is running."""
    if not (match := _FRAME.fullmatch(frame)):
        return OTHER
    path = match["path"]
    if _SYSTEM_CALL.search(linecache.getline(path, int(match["line"]))):
        return SYSTEM
    return next((name for name, pattern in ROOMS.items() if re.search(pattern, path)), OTHER)


async def call(calls: int, size: int, seconds: int) -> None:
    """Both ends: so many calls in flight, of such a size."""
    subject = SUBJECTS["orc_trio"]
    near, far = trio.socket.socketpair()

    async def connect() -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        return trio.SocketStream(near)

    async def go_on(round_trip: RoundTrip) -> None:
        payload = bytes(size)
        end = time.monotonic() + seconds + _WARM_UP
        while time.monotonic() < end:
            for _ in range(10):
                await round_trip(payload)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.serve, trio.SocketStream(far))
        async with subject.open(connect, calls) as round_trips, trio.open_nursery() as callers:
            for round_trip in round_trips:
                callers.start_soon(go_on, round_trip)


if __name__ == "__main__":
    main()
