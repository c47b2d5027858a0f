"""grpcio's asyncio API, with messages that are plain bytes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from ends import Far, Reporter, listening, main, near_asyncio, start_far

KEEPALIVE = [
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.http2.max_pings_without_data", 0),
]


class Connection:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def call(self, name: str) -> bytes:
        return await self.channel.unary_unary(f"/probe.Probe/{name}")(b"")

    async def close(self) -> None:
        await self.channel.close()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    options = KEEPALIVE if "--keepalive" in sys.argv else []
    channel = grpc.aio.insecure_channel(start_far(report), options=options)
    await channel.channel_ready()
    yield Connection(channel)


def far(report: Reporter, handlers: Far) -> None:
    async def wait(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await handlers.wait_asyncio()
        return request

    async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return request

    async def serve() -> None:
        server = grpc.aio.server()
        methods = {f.__name__: grpc.unary_unary_rpc_method_handler(f) for f in (wait, echo)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("probe.Probe", methods)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        listening(f"127.0.0.1:{port}")
        await server.wait_for_termination()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
