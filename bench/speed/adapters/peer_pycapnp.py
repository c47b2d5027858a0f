"""pycapnp: Cap'n Proto over a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import capnp
from ends import Echo, listening, main, near_asyncio

ECHO = capnp.load(str(Path(__file__).with_name("echo.capnp"))).Echo
NO_LIMIT = 2**61
"""In words; by default a message may have 64 MiB in all that is ever read of it."""


@asynccontextmanager
async def connect(address: str, calls: int) -> AsyncIterator[Sequence[Echo]]:
    async with capnp.kj_loop():
        stream = await capnp.AsyncIoStream.create_unix_connection(path=address)
        service = capnp.TwoPartyClient(stream, traversal_limit_in_words=NO_LIMIT).bootstrap().cast_as(ECHO)

        async def echo(payload: bytes) -> bytes:
            return (await service.echo(payload)).payload

        yield [echo] * calls


def far(address: str) -> None:
    class Service(ECHO.Server):
        async def echo(self, payload: bytes, **_: object) -> bytes:
            return payload

    async def accept(stream: capnp.AsyncIoStream) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=Service()).on_disconnect()

    async def serve() -> None:
        async with capnp.kj_loop():
            server = await capnp.AsyncIoStream.create_unix_server(accept, path=address)
            listening(address)
            await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
