"""orc_trio: a controller and its executor process."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from ends import Far, Reporter, main, near_trio

import orc_trio


class Connection:
    def __init__(self, controller: orc_trio.ExecutorProcess) -> None:
        self.controller = controller

    async def call(self, name: str) -> bytes:
        return await self.controller.call_wrapper(self.controller.bootstrap.symbols[name], b"")

    async def close(self) -> orc_trio.DisconnectReason:
        return await self.controller.disconnect()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    limits = orc_trio.Limits(liveness_timeout=float(sys.argv[-1])) if "--liveness" in sys.argv else None
    command = [sys.executable, sys.argv[0], "far", report.path]
    async with orc_trio.open_executor_process(command, orc_trio.HandlerRegistry(), limits=limits) as controller:
        yield Connection(controller)


def far(report: Reporter, handlers: Far) -> None:
    async def wait(args: bytes) -> bytes:
        await handlers.wait_async(trio.sleep)
        return args

    def prepare(session: orc_trio.Session, bootstrap: orc_trio.BootstrapInfo) -> None:
        bootstrap.add_wrapper("wait", wait)
        bootstrap.add_wrapper("echo", lambda args: args)

    orc_trio.run_executor(prepare)


if __name__ == "__main__":
    main(near_trio(connect), far)
