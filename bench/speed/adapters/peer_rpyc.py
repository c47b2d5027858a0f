"""RPyC: a service on a threaded server."""

from __future__ import annotations

import sys
from collections.abc import Callable

import rpyc
from ends import listening, main, near_threads
from rpyc.core.channel import Channel
from rpyc.utils.server import ThreadedServer

Channel.COMPRESSION_THRESHOLD = sys.maxsize  # random bytes cannot be compressed; to try takes most of the time


def connect(address: str) -> Callable[[bytes], object]:
    return rpyc.utils.factory.unix_connect(address).root.echo


class Service(rpyc.Service):
    def exposed_echo(self, payload: bytes) -> bytes:
        return payload


def far(address: str) -> None:
    server = ThreadedServer(Service, socket_path=address)
    server._listen()  # what `start` begins with
    listening(address)
    server.start()


if __name__ == "__main__":
    main(near_threads(connect), far)
