"""pycapnp: Cap'n Proto over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import capnp
from ends import Far, Reporter, listening, main, near_asyncio, start_far

PROBE = capnp.load(str(Path(__file__).with_name("probe.capnp"))).Probe


class Connection:
    def __init__(self, client: capnp.TwoPartyClient) -> None:
        self.client = client
        self.probe = client.bootstrap().cast_as(PROBE)

    async def call(self, name: str) -> object:
        return await getattr(self.probe, name)()

    async def close(self) -> None:
        self.client.close()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    host, port = start_far(report).split(":")
    async with capnp.kj_loop():
        stream = await capnp.AsyncIoStream.create_connection(host=host, port=int(port))
        yield Connection(capnp.TwoPartyClient(stream))


def far(report: Reporter, handlers: Far) -> None:
    class Service(PROBE.Server):
        async def wait(self, **_: object) -> None:
            await handlers.wait_asyncio()

        async def echo(self, **_: object) -> None:
            pass

    async def accept(stream: capnp.AsyncIoStream) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=Service()).on_disconnect()

    async def serve() -> None:
        async with capnp.kj_loop():
            server = await capnp.AsyncIoStream.create_server(accept, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            listening(f"127.0.0.1:{port}")
            await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
