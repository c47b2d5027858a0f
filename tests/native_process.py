"""An executor for tests: `native_process.py FD [THREADS]` serves native code on an inherited socket."""

from __future__ import annotations

import logging
import os
import socket
import sys

import trio

import orc_trio
from orc_trio.native import install_native


async def main(descriptor: int, threads: int) -> None:
    logging.basicConfig(level=logging.INFO)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
    async with orc_trio.open_session() as session:
        bootstrap = orc_trio.BootstrapInfo.for_session(session)
        support = install_native(session, bootstrap, threads=threads)

        async def statistics(_args: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            return repr((session.statistics().keepalives, support.statistics())).encode()

        bootstrap.add_wrapper("statistics", statistics)
        bootstrap.add_tag("input")
        bootstrap.add_tag("log")
        bootstrap.add_tag("upper")
        await session.attach(orc_trio.StreamControllerAccess(stream), bootstrap)
        await session.wait_detached()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64)
    sys.stdout.flush()
    os._exit(0)
