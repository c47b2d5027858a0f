"""Twisted's Asynchronous Messaging Protocol, on Twisted's asyncio reactor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet import asyncioreactor

loop = asyncio.new_event_loop()
asyncioreactor.install(loop)

from ends import FOREVER, Far, Reporter, drive_asyncio, listening, main, start_far  # noqa: E402
from twisted.internet import defer, endpoints, protocol, reactor, task  # noqa: E402
from twisted.protocols import amp  # noqa: E402


class Wait(amp.Command):
    """A call that stays pending."""


class Echo(amp.Command):
    """A call that returns."""


class Connection:
    def __init__(self, peer: amp.AMP) -> None:
        self.peer = peer

    async def call(self, name: str) -> object:
        return await self.peer.callRemote({"wait": Wait, "echo": Echo}[name]).asFuture(loop)

    async def close(self) -> None:
        self.peer.transport.loseConnection()


@asynccontextmanager
async def connect(report: Reporter) -> AsyncIterator[Connection]:
    endpoint = endpoints.clientFromString(reactor, start_far(report))
    yield Connection(await endpoints.connectProtocol(endpoint, amp.AMP()).asFuture(loop))


def near(report: Reporter) -> None:
    driver = loop.create_task(drive_asyncio(connect, report))
    driver.add_done_callback(lambda _: reactor.stop())
    reactor.run()


def far(report: Reporter, handlers: Far) -> None:
    class Service(amp.AMP):
        @Wait.responder
        def wait(self) -> defer.Deferred[dict[str, object]]:
            return defer.ensureDeferred(handlers.wait_async(self.sleep))

        @Echo.responder
        def echo(self) -> dict[str, object]:
            return {}

        async def sleep(self, seconds: float) -> None:
            await task.deferLater(reactor, FOREVER, lambda: None)

    endpoint = endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    listen = endpoint.listen(protocol.Factory.forProtocol(Service))
    listen.addCallback(lambda port: listening(f"tcp:127.0.0.1:{port.getHost().port}"))
    reactor.run()


if __name__ == "__main__":
    main(near, far)
