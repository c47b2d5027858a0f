"""grpclib, with the empty message of protobuf."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ends import Far, Reporter, listening, main, near_asyncio, start_far
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream


class Connection:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def call(self, name: str) -> object:
        return await UnaryUnaryMethod(self.channel, f"/probe.Probe/{name}", Empty, Empty)(Empty())

    async def close(self) -> None:
        self.channel.close()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    host, port = start_far(report).split(":")
    connection = Connection(Channel(host, int(port)))
    await connection.call("echo")  # connects
    yield connection


class Service:
    def __init__(self, handlers: Far) -> None:
        self.handlers = handlers

    async def wait(self, stream: Stream[Empty, Empty]) -> None:
        await stream.recv_message()
        await self.handlers.wait_asyncio()

    async def echo(self, stream: Stream[Empty, Empty]) -> None:
        await stream.recv_message()
        await stream.send_message(Empty())

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/probe.Probe/{f.__name__}": Handler(f, Cardinality.UNARY_UNARY, Empty, Empty)
            for f in (self.wait, self.echo)
        }


def far(report: Reporter, handlers: Far) -> None:
    async def serve() -> None:
        server = Server([Service(handlers)])
        listener = socket.create_server(("127.0.0.1", 0))
        await server.start(sock=listener)
        listening("{}:{}".format(*listener.getsockname()))
        await server.wait_closed()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
