"""RPyC: a service on a threaded server."""

from __future__ import annotations

import threading
import time

import rpyc
from ends import Far, Reporter, listening, main, near_threads, start_far
from rpyc.utils.server import ThreadedServer


class Connection:
    def __init__(self, connection: rpyc.Connection) -> None:
        self.connection = connection

    def call(self, name: str) -> object:
        return getattr(self.connection.root, name)()

    def close(self) -> None:
        self.connection.close()


def connect(report: Reporter) -> Connection:
    host, port = start_far(report).split(":")
    return Connection(rpyc.connect(host, int(port)))


def far(report: Reporter, handlers: Far) -> None:
    class Service(rpyc.Service):
        exposed_wait = staticmethod(handlers.wait_blocking)
        exposed_echo = staticmethod(lambda: None)

    server = ThreadedServer(Service, hostname="127.0.0.1", port=0)
    threading.Thread(target=server.start).start()
    while not server.active:
        time.sleep(0.01)
    listening(f"127.0.0.1:{server.port}")


if __name__ == "__main__":
    main(near_threads(connect), far)
