"""Where the time of a call goes: ``python -m profiles`` (with ``PYTHONPATH=bench``).

Both ends run in one process, in which a timer of the processor's time strikes some hundred times in a second; then the
line that is running counts for the room that it stands in, and one that is a system call for the system.  (To stop the
process and to look from outside favours system calls: it made 6 % of them 60 %.)
"""

from __future__ import annotations

import argparse
import json
import linecache
import platform
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Final

import trio

from orc_trio.bench.figures import show_size
from orc_trio.bench.subjects import RoundTrip, open_here

FILE: Final = Path(__file__).with_name("profiles.json")
CELLS: Final = ((1, 16), (64, 16), (1, 1024 * 1024))
"""Calls in flight, and bytes in each."""
SYSTEM: Final = "the system: reading, writing, waiting"
OTHER: Final = "Python's own library"
ROOMS: Final = {
    "the benchmark itself": r"/profiles\.py$|/orc_trio/bench/",
    "wire: encoding, decoding, buffers": r"/orc_trio/wire/",
    "protocol: what may happen, and what follows": r"/orc_trio/protocol/",
    "sockets, pumps: moving messages": r"/orc_trio/(sockets|streams|pumps)[./]",
    "calling, connection, controller: making a call": r"/orc_trio/(calling|connection|controller|nesting)[./]",
    "handlers, dispatch, session: serving a call": r"/orc_trio/",
    "Trio: tasks, scopes, waiting": r"/(trio|outcome)/",
}
"""The rooms, and the files that belong to each; the first that fits counts."""
_SYSTEM_CALL: Final = re.compile(r"\bos\.(read|readv|write|writev)\(|_epoll\.(poll|modify|register)\(|\bmmap\(")
_MADE: Final = "<attrs generated methods "
_WARM_UP: Final = 1.0
_EVERY: Final = 0.003


def main() -> None:
    """Look at all cells, and write the results; or be the process that is looked at."""
    parser = argparse.ArgumentParser(prog="profiles", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to look at each cell (20)")
    parser.add_argument("--results", type=Path, default=FILE, help="the results file")
    parser.add_argument("--be", nargs=2, type=int, metavar=("CALLS", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        print(json.dumps(trio.run(look, *arguments.be, arguments.seconds)))
        return
    cells = []
    for calls, size in CELLS:
        print(f"{calls} × {show_size(size)}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "profiles", "--be", str(calls), str(size), "--seconds", str(arguments.seconds)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found = Counter[str](json.loads(done.stdout))
        shares = {room: round(number / found.total(), 4) for room, number in found.most_common()}
        cells.append({"calls": calls, "size": size, "shares": shares})
    document = {"versions": {"python": platform.python_version(), "trio": version("trio")}, "cells": cells}
    arguments.results.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(cells: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows: a room in each, that with the most to do in all cells first."""
    rooms = {room for cell in cells for room in cell["shares"]}
    by_cost = sorted(rooms, key=lambda room: -sum(cell["shares"].get(room, 0) for cell in cells))
    head = ["Room", *(f"{cell['calls']} × {show_size(cell['size'])}" for cell in cells)]
    return head, [[room, *(f"{cell['shares'].get(room, 0):.0%}" for cell in cells)] for room in by_cost]


def room(path: str, line: int) -> str:
    """The room that a line belongs to."""
    if path.startswith(_MADE):
        path = f"/{path.removeprefix(_MADE).replace('.', '/')}"
    if _SYSTEM_CALL.search(linecache.getline(path, line)):
        return SYSTEM
    return next((name for name, pattern in ROOMS.items() if re.search(pattern, path)), OTHER)


async def look(calls: int, size: int, seconds: float) -> Counter[str]:
    """Both ends: so many calls in flight, of such a size.

    Returns:
        How often each room was seen running.
    """
    seen: Counter[tuple[str, int]] = Counter()

    def count(_number: int, frame: FrameType | None) -> None:
        if frame is not None:
            seen[frame.f_code.co_filename, frame.f_lineno] += 1

    async def go_on(round_trip: RoundTrip, until: float) -> None:
        payload = bytes(size)
        while time.monotonic() < until:
            for _ in range(10):
                await round_trip(payload)

    async def all_go_on(round_trips: Sequence[RoundTrip], until: float) -> None:
        async with trio.open_nursery() as nursery:
            for round_trip in round_trips:
                nursery.start_soon(go_on, round_trip, until)

    async with open_here("orc_trio", calls) as round_trips:
        await all_go_on(round_trips, time.monotonic() + _WARM_UP)
        signal.signal(signal.SIGPROF, count)
        signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)
        await all_go_on(round_trips, time.monotonic() + seconds)
        signal.setitimer(signal.ITIMER_PROF, 0)
    rooms: Counter[str] = Counter()
    for (path, line), number in seen.items():
        rooms[room(path, line)] += number
    return rooms


if __name__ == "__main__":
    main()
