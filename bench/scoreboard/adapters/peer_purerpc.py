"""purerpc on Trio, with the empty message of protobuf."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import purerpc
import trio
from ends import Far, Owned, Reporter, listening, main, near_trio, start_far
from google.protobuf.empty_pb2 import Empty
from purerpc.rpc import Cardinality, RPCSignature

SIGNATURE = RPCSignature(Cardinality.UNARY_UNARY, Empty, Empty)


class Connection:
    def __init__(self, owned: Owned) -> None:
        self.owned = owned
        self.client = purerpc.Client("probe.Probe", owned.value)

    async def call(self, name: str) -> object:
        return await self.client.get_method_stub(name, SIGNATURE)(Empty())

    async def close(self) -> None:
        await self.owned.close()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    host, port = start_far(report).split(":")
    async with trio.open_nursery() as nursery:
        yield Connection(await Owned.on_trio(purerpc.insecure_channel(host, int(port)), nursery))


def far(report: Reporter, handlers: Far) -> None:
    async def wait(request: Empty) -> Empty:
        await handlers.wait_async(trio.sleep)
        return request

    async def echo(request: Empty) -> Empty:
        return request

    service = purerpc.Service("probe.Probe")
    for function in (wait, echo):
        service.add_method(function.__name__, function, SIGNATURE)
    server = purerpc.Server(0)
    server.add_service(service)

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.serve_async)
            listening(f"127.0.0.1:{port}")

    trio.run(serve)


if __name__ == "__main__":
    main(near_trio(connect), far)
