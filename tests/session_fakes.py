# A controller access written through orc_trio.abc alone, that does as it is told; threads that Trio did not start.

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import trio

import orc_trio
from orc_trio import DisconnectKind, DisconnectReason
from orc_trio.abc import AccessHost, ControllerAccess

LOCAL = DisconnectReason(DisconnectKind.LOCAL_HANGUP)
REMOTE = DisconnectReason(DisconnectKind.REMOTE_HANGUP)


class FakeAccess(ControllerAccess):
    """Connects at once, and ends when it is told to.  `host.run_wrapper` is the controller's call.

    Attributes:
        connects: It does connect.
        log: What happened.
    """

    def __init__(self, *, connects: bool = True, log: list[str] | None = None) -> None:
        self.connects = connects
        self.log = [] if log is None else log
        self.cause: DisconnectReason | None = None
        self.latched = trio.Event()
        self.may_end: trio.Event | None = None
        self.running = trio.Event()
        self.host: AccessHost
        self.nursery: trio.Nursery

    async def run(self, host: AccessHost) -> DisconnectReason:
        self.host = host
        async with trio.open_nursery() as self.nursery:
            self.running.set()
            if self.connects and self.cause is None:
                host.connected()
            await self.latched.wait()
            self.nursery.cancel_scope.cancel()
        if self.may_end is not None:
            await self.may_end.wait()
        self.log.append("access ended")
        assert self.cause is not None
        return self.cause

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        if self.cause is None:
            self.cause = reason or LOCAL
            self.latched.set()
        return self.cause

    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.cause is not None:
            raise orc_trio.DisconnectedError(self.cause, orc_trio.Certainty.NOT_SENT)
        return bytes(args)


async def attached(session: orc_trio.Session, access: ControllerAccess | None = None) -> Any:
    """Attach a session to that access, or to a fake one."""
    access = access or FakeAccess()
    await session.attach(access, orc_trio.BootstrapInfo.for_session(session))
    return access


async def given_up(session: orc_trio.Session, access: FakeAccess) -> None:
    """Begin to attach a session to an access that does not connect, and be cancelled."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attached, session, access)
            await access.running.wait()
            scope.cancel()
    assert scope.cancelled_caught


class Threads:
    """Threads that Trio did not start.  Entering starts them; `results` has what they returned, or raised."""

    def __init__(self, number: int, function: Callable[[], Any]) -> None:
        self.results: list[Any] = []
        self._threads = [threading.Thread(target=self._run, args=(function,)) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.results.append(function())
        except BaseException as exc:
            self.results.append(exc)

    def join(self) -> list[Any]:
        """Wait for them, a long time at most; for another thread than Trio's, or after the run."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "it hangs"
        return self.results

    async def joined(self) -> list[Any]:
        """Wait for them."""
        return await trio.to_thread.run_sync(self.join)


class Recorder(orc_trio.Service):
    """A service that says what it is told.

    Attributes:
        detaching, shutting_down: Awaited meanwhile.
    """

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.reason: DisconnectReason | None = None
        self.detaching: Callable[[], Any] | None = None
        self.shutting_down: Callable[[], Any] | None = None

    def __repr__(self) -> str:
        return self.name

    async def on_detach(self, reason: DisconnectReason | None) -> None:
        self.log.append(f"{self.name} detached")
        self.reason = reason
        if self.detaching is not None:
            await self.detaching()

    async def on_shutdown(self) -> None:
        self.log.append(f"{self.name} shut down")
        if self.shutting_down is not None:
            await self.shutting_down()
