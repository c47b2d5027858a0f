"""The floor of ``orc-trio bench``: ping-pong over `trio.SocketStream`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from ends import Echo, listening, main, near_trio

from orc_trio.bench.subjects import SUBJECTS

SUBJECT = SUBJECTS["floor"]


async def open_stream(address: str) -> trio.SocketStream:
    if address.startswith("/"):
        return await trio.open_unix_socket(address)
    host, port = address.split(":")
    return await trio.open_tcp_stream(host, int(port))


@asynccontextmanager
async def connect(address: str, calls: int) -> AsyncIterator[Sequence[Echo]]:
    async with SUBJECT.open(lambda: open_stream(address), calls) as echoes:
        yield echoes


async def serve(address: str) -> None:
    if address.startswith("/"):
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(address)
    else:
        sock = trio.socket.socket()
        await sock.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*sock.getsockname())
    sock.listen(128)
    listening(address)
    await trio.serve_listeners(SUBJECT.serve, [trio.SocketListener(sock)])


def far(address: str) -> None:
    trio.run(serve, address)


if __name__ == "__main__":
    main(near_trio(connect, answers=False), far)
