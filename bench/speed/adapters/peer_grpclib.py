"""grpclib, with a message of protobuf that holds bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ends import Echo, listening, main, near_asyncio
from google.protobuf.wrappers_pb2 import BytesValue
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

PATH = "/bench.Bench/echo"


@asynccontextmanager
async def connect(address: str, calls: int) -> AsyncIterator[Sequence[Echo]]:
    async with Channel(path=address) as channel:
        method = UnaryUnaryMethod(channel, PATH, BytesValue, BytesValue)

        async def echo(payload: bytes) -> bytes:
            return (await method(BytesValue(value=payload))).value

        yield [echo] * calls


class Service:
    async def echo(self, stream: Stream[BytesValue, BytesValue]) -> None:
        message = await stream.recv_message()
        assert message is not None
        await stream.send_message(message)

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self.echo, Cardinality.UNARY_UNARY, BytesValue, BytesValue)}


def far(address: str) -> None:
    async def serve() -> None:
        server = Server([Service()])
        await server.start(path=address)
        listening(address)
        await server.wait_closed()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
