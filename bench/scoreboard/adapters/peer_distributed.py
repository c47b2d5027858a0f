"""The RPC layer of dask.distributed: `distributed.core.Server` and `distributed.core.rpc`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from distributed.core import Server, rpc
from ends import Far, Reporter, listening, main, near_asyncio, start_far


class Connection:
    def __init__(self, remote: rpc) -> None:
        self.remote = remote

    async def call(self, name: str) -> object:
        return await getattr(self.remote, name)()

    async def close(self) -> None:
        await self.remote.close_rpc()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    yield Connection(rpc(start_far(report)))


def far(report: Reporter, handlers: Far) -> None:
    async def echo() -> str:
        return ""

    async def serve() -> None:
        server = Server({"wait": handlers.wait_asyncio, "echo": echo})
        await server.listen("tcp://127.0.0.1:0")
        listening(server.address)
        await server.finished()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
