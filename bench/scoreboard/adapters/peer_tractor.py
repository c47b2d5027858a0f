"""tractor: an actor in a process of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import tractor
import trio
from ends import Far, Reporter, main, near_trio


async def wait(path: str) -> None:
    await Far(Reporter(path)).wait_async(trio.sleep)


async def echo(path: str) -> None:
    Far(Reporter(path))


class Connection:
    def __init__(self, portal: tractor.Portal, path: str) -> None:
        self.portal = portal
        self.path = path

    async def call(self, name: str) -> object:
        return await self.portal.run({"wait": wait, "echo": echo}[name], path=self.path)

    async def close(self) -> object:
        return await self.portal.cancel_actor()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # the actor imports this program
    async with tractor.open_nursery() as actors:
        connection = Connection(await actors.start_actor("far", enable_modules=[__name__]), report.path)
        await connection.call("echo")
        yield connection


def far(report: Reporter, handlers: Far) -> None:
    raise NotImplementedError("the far end is tractor's own program")


if __name__ == "__main__":
    main(near_trio(connect), far)
