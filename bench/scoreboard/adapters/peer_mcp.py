"""The MCP SDK: a client and a tool server over the server's stdin and stdout."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ends import Far, Owned, Reporter, main, near_asyncio
from mcp import Client, StdioServerParameters
from mcp.server import MCPServer


class Connection:
    def __init__(self, owned: Owned[Client]) -> None:
        self.owned = owned

    async def call(self, name: str) -> object:
        return await self.owned.value.call_tool(name, {})

    async def close(self) -> None:
        await self.owned.close()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    server = StdioServerParameters(command=sys.executable, args=[sys.argv[0], "far", report.path])
    yield Connection(await Owned.on_asyncio(Client(server)))


def far(report: Reporter, handlers: Far) -> None:
    server = MCPServer("probe")

    @server.tool()
    async def wait() -> str:
        await handlers.wait_asyncio()
        return ""

    @server.tool()
    async def echo() -> str:
        return ""

    server.run()


if __name__ == "__main__":
    main(near_asyncio(connect), far)
