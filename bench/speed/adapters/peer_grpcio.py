"""grpcio's asyncio API, with messages that are plain bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from ends import Echo, listening, main, near_asyncio

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@asynccontextmanager
async def connect(address: str, calls: int) -> AsyncIterator[Sequence[Echo]]:
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        await channel.channel_ready()
        yield [channel.unary_unary("/bench.Bench/echo")] * calls


def far(address: str) -> None:
    async def echo(request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return request

    async def serve() -> None:
        server = grpc.aio.server(options=OPTIONS)
        methods = {"echo": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Bench", methods)])
        server.add_insecure_port(f"unix:{address}")
        await server.start()
        listening(f"unix:{address}")
        await server.wait_for_termination()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
