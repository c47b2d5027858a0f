"""asyncio and msgpack, by hand: what one writes in an afternoon.

A message is its length in 4 bytes and a msgpack array: number, payload.  Each request is served by a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgpack
from ends import Echo, listening, main, near_asyncio


async def read(reader: asyncio.StreamReader) -> list[object]:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return msgpack.unpackb(await reader.readexactly(size))


def write(writer: asyncio.StreamWriter, number: int, payload: bytes) -> None:
    data = msgpack.packb([number, payload])
    writer.write(len(data).to_bytes(4, "big") + data)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.number = 0
        self.pending: dict[int, asyncio.Future[bytes]] = {}

    async def read(self) -> None:
        while True:
            number, payload = await read(self.reader)
            self.pending.pop(number).set_result(payload)

    async def echo(self, payload: bytes) -> bytes:
        self.number += 1
        answer = self.pending[self.number] = asyncio.get_running_loop().create_future()
        write(self.writer, self.number, payload)
        await self.writer.drain()
        return await answer


@asynccontextmanager
async def connect(address: str, calls: int) -> AsyncIterator[Sequence[Echo]]:
    client = Client(*await asyncio.open_unix_connection(address))
    reading = asyncio.create_task(client.read())
    yield [client.echo] * calls
    reading.cancel()
    client.writer.close()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def answer(number: int, payload: bytes) -> None:
        write(writer, number, payload)
        await writer.drain()

    tasks = set()
    try:
        while True:
            task = asyncio.create_task(answer(*await read(reader)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except asyncio.IncompleteReadError:
        writer.close()


def far(address: str) -> None:
    async def run() -> None:
        server = await asyncio.start_unix_server(serve, address)
        listening(address)
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main(near_asyncio(connect), far)
