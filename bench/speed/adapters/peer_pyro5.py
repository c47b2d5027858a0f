"""Pyro5, with the serializer that sends bytes as they are."""

from __future__ import annotations

from collections.abc import Callable

import Pyro5.api
import Pyro5.server
from ends import listening, main, near_threads

Pyro5.config.SERIALIZER = "marshal"
Pyro5.config.THREADPOOL_SIZE = 100


def connect(address: str) -> Callable[[bytes], object]:
    return Pyro5.api.Proxy(f"PYRO:bench@./u:{address}").echo


@Pyro5.server.expose
class Service:
    def echo(self, payload: bytes) -> bytes:
        return payload


def far(address: str) -> None:
    with Pyro5.server.Daemon(unixsocket=address) as daemon:
        daemon.register(Service, "bench")
        listening(address)
        daemon.requestLoop()


if __name__ == "__main__":
    main(near_threads(connect), far)
