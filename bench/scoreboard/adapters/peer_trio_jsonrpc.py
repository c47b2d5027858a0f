"""trio-jsonrpc over a WebSocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio_websocket
from ends import Far, Owned, Reporter, listening, main, near_trio, start_far
from trio_jsonrpc import Dispatch, JsonRpcConnection, open_jsonrpc_ws
from trio_jsonrpc.main import jsonrpc_server
from trio_jsonrpc.transport.ws import WebSocketTransport


class Connection:
    def __init__(self, owned: Owned[JsonRpcConnection]) -> None:
        self.owned = owned

    async def call(self, name: str) -> object:
        return await self.owned.value.request(name, {})

    async def close(self) -> None:
        await self.owned.close()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    url = start_far(report)
    async with trio.open_nursery() as nursery:
        yield Connection(await Owned.on_trio(open_jsonrpc_ws(url), nursery))


def far(report: Reporter, handlers: Far) -> None:
    dispatch = Dispatch()

    @dispatch.handler
    async def wait() -> None:
        await handlers.wait_async(trio.sleep)

    @dispatch.handler
    async def echo() -> None:
        pass

    async def accept(request: trio_websocket.WebSocketRequest) -> None:
        socket = await request.accept()
        results_in, results_out = trio.open_memory_channel(10)

        async def answer() -> None:
            async for call, result in results_out:
                await connection.respond_with_result(call, result)

        async with trio.open_nursery() as nursery:
            connection = jsonrpc_server(WebSocketTransport(socket), nursery)
            nursery.start_soon(answer)
            async for call in connection.iter_requests():
                nursery.start_soon(dispatch.handle_request, call, results_in)
            nursery.cancel_scope.cancel()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(trio_websocket.serve_websocket, accept, "127.0.0.1", 0, None)
            listening(f"ws://127.0.0.1:{server.port}/")

    trio.run(serve)


if __name__ == "__main__":
    main(near_trio(connect), far)
