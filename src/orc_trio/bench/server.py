"""The serving process: ``python -m orc_trio.bench.server ADDRESS``.

It listens at the address (a path, or ``HOST:0``), says where on its standard output, and serves every connection until
its standard input ends.  The first byte of a connection says what it is for: the number of a subject; or `CLOCK`, and
then each further byte is answered by the processor time used so far, in seconds, as a ``double``.
"""

from __future__ import annotations

import os
import struct
import sys
import time

import trio

from orc_trio.bench.subjects import SUBJECTS

__all__ = ["CLOCK", "TIME", "connect"]

CLOCK = 255
TIME = struct.Struct(">d")


async def connect(address: str, what: int) -> trio.SocketStream:
    """Connect to a serving process.

    Args:
        address: What it said.
        what: What for.

    Raises:
        OSError: Nobody is there.

    Checkpoints:
        Always.

    Cancellation:
        Leaves nothing.
    """
    if address.startswith("/"):
        stream: trio.SocketStream = await trio.open_unix_socket(address)
    else:
        host, _, port = address.rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
    try:
        await stream.send_all(bytes([what]))
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _serve(stream: trio.SocketStream) -> None:
    async with stream:
        what = (await stream.receive_some(1))[0]
        if what != CLOCK:
            await list(SUBJECTS.values())[what].serve(stream)
            return
        while await stream.receive_some(1):
            await stream.send_all(TIME.pack(time.process_time()))


async def _main(address: str) -> None:
    if address.startswith("/"):
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(address)
    else:
        host, _, port = address.rpartition(":")
        sock = trio.socket.socket()
        await sock.bind((host, int(port)))
        address = f"{host}:{sock.getsockname()[1]}"
    sock.listen(128)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, _serve, [trio.SocketListener(sock)])
        print(address, flush=True)
        async with trio.lowlevel.FdStream(os.dup(0)) as input_:
            while await input_.receive_some():
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, sys.argv[1])
