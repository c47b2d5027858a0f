"""cbor-rpc over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from cbor_rpc import CborStreamTransformer, RpcCallContext, RpcV1, RpcV1Server, TcpPipe, TcpServer
from ends import Far, Reporter, listening, main, near_asyncio, start_far


class Client(RpcV1):
    def get_id(self) -> str:
        return "near"

    async def handle_method_call(self, context: RpcCallContext, method: str, args: list[object]) -> None:
        raise LookupError(method)

    async def on_event(self, topic: str, message: object) -> None:
        pass


class Connection:
    def __init__(self, pipe: TcpPipe) -> None:
        self.pipe = pipe
        self.client = Client(CborStreamTransformer().apply_transformer(pipe))

    async def call(self, name: str) -> object:
        handle = self.client.create_call(name).call()
        try:
            return await handle.result()
        except asyncio.CancelledError:
            await handle.cancel()  # cancelling the task alone tells the other side nothing
            raise

    async def answers(self) -> bool:
        # What arrives before the server has prepared for the connection is lost.
        with suppress(Exception):
            await self.client.create_call("echo").set_timeout(500).call().result()
            return True
        return False

    async def close(self) -> None:
        await self.pipe.terminate()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    host, port = start_far(report).split(":")
    connection = Connection(await TcpPipe.create_connection(host, int(port)))
    while not await connection.answers():
        pass
    yield connection


class Listener(TcpServer):
    async def accept(self, pipe: TcpPipe) -> bool:
        return True


class Service(RpcV1Server):
    def __init__(self, handlers: Far) -> None:
        super().__init__()
        self.handlers = handlers

    async def serve(self, pipe: TcpPipe) -> None:
        await self.add_connection("near", CborStreamTransformer().apply_transformer(pipe))

    async def handle_method_call(
        self, connection_id: str, context: RpcCallContext, method: str, args: list[object]
    ) -> None:
        async def until_cancelled(_: float) -> None:
            while not context.cancelled:  # a handler is told by a flag
                await asyncio.sleep(0.01)

        if method == "wait":
            await self.handlers.wait_async(until_cancelled)


def far(report: Reporter, handlers: Far) -> None:
    async def serve() -> None:
        server = await Listener.create("127.0.0.1", 0)
        server.on("connection", Service(handlers).serve)
        listening("{}:{}".format(*server.get_address()))
        await asyncio.Future()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
