"""tractor: an actor that was started by itself, over TCP: it has no Unix sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import tractor
import trio
from ends import Echo, listening, main, near_trio


async def echo(payload: bytes) -> bytes:
    return payload


@asynccontextmanager
async def connect(address: str, calls: int) -> AsyncIterator[Sequence[Echo]]:
    host, port = address.split(":")
    where = (host, int(port))
    async with tractor.open_root_actor(arbiter_addr=where), tractor.get_arbiter(*where) as portal:

        async def call(payload: bytes) -> object:
            return await portal.run(echo, payload=payload)

        yield [call] * calls


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def far(_address: str) -> None:
    async def serve() -> None:
        where = ("127.0.0.1", free_port())  # it does not tell which port it was given
        async with tractor.open_root_actor(arbiter_addr=where, enable_modules=[__name__]):
            listening("{}:{}".format(*where))
            await trio.sleep_forever()

    trio.run(serve)


if __name__ == "__main__":
    main(near_trio(connect), far)
