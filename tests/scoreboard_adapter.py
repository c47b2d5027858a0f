# A peer for the scoreboard's tests that does as it is told:
#
#     python scoreboard_adapter.py near EVENTS CALL CLOSE [HELD]
#
# CALL and CLOSE say what a call and a close do: `return`, `raise`, `hang`, `exit`, or (a call) `refuse` to start.
#
# The far end is in a session of its own, as some libraries do it, and the near end has a second child that nobody knows
# of; all three hold the named pipe HELD open for as long as they live.

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "scoreboard" / "adapters"))

from ends import FOREVER, Far, Reporter, main, near_asyncio


class Connection:
    def __init__(self, report: Reporter) -> None:
        self.report = report

    async def call(self, name: str) -> None:
        do = sys.argv[3]
        if do == "refuse":
            raise LookupError("as told")
        if name == "wait":
            self.report("started")
            await asyncio.sleep(0.01)  # time for the driver to do something to it
        await act(do)

    async def close(self) -> None:
        await act(sys.argv[4])


async def act(what: str) -> None:
    match what:
        case "raise":
            raise LookupError("as told")
        case "hang":
            await asyncio.sleep(FOREVER)
        case "exit":
            print("these are my last words", file=sys.stderr, flush=True)
            os._exit(3)


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    if held := hold():
        subprocess.Popen(["sleep", str(FOREVER)], pass_fds=held)  # noqa: ASYNC220
    subprocess.Popen([sys.executable, sys.argv[0], "far", *sys.argv[2:]], start_new_session=True)  # noqa: ASYNC220
    yield Connection(report)


def far(report: Reporter, handlers: Far) -> None:
    hold()
    time.sleep(FOREVER)


def hold() -> list[int]:
    return [os.open(path, os.O_WRONLY) for path in sys.argv[5:]]


if __name__ == "__main__":
    main(near_asyncio(connect), far)
