"""purerpc on Trio, over TCP: it has no Unix sockets.  Messages of protobuf that hold bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import purerpc
import trio
from ends import Echo, listening, main, near_trio
from google.protobuf.wrappers_pb2 import BytesValue
from purerpc.rpc import Cardinality, RPCSignature

SIGNATURE = RPCSignature(Cardinality.UNARY_UNARY, BytesValue, BytesValue)


@asynccontextmanager
async def connect(address: str, calls: int) -> AsyncIterator[Sequence[Echo]]:
    host, port = address.split(":")
    async with purerpc.insecure_channel(host, int(port)) as channel:
        method = purerpc.Client("bench.Bench", channel).get_method_stub("echo", SIGNATURE)

        async def echo(payload: bytes) -> bytes:
            return (await method(BytesValue(value=payload))).value

        yield [echo] * calls


def far(_address: str) -> None:
    async def echo(request: BytesValue) -> BytesValue:
        return request

    service = purerpc.Service("bench.Bench")
    service.add_method("echo", echo, SIGNATURE)
    server = purerpc.Server(0)
    server.add_service(service)

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.serve_async)
            listening(f"127.0.0.1:{port}")

    trio.run(serve)


if __name__ == "__main__":
    main(near_trio(connect), far)
