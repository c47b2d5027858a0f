# The usual controller access, by itself: before it runs, when it cannot, and that it is run once.

from __future__ import annotations

import pytest
import trio

import orc_trio
from harness import RawPeer, connected_pair, every_virtual, nothing_left, setup_message
from orc_trio import DisconnectKind
from orc_trio.abc import AccessHost
from orc_trio.protocol import Role
from orc_trio.wire import Opcode
from session_fakes import LOCAL


class Host(AccessHost):
    """What a session would offer."""

    def __init__(self, **symbols: int) -> None:
        self.accepted = trio.Event()
        self._bootstrap = orc_trio.BootstrapInfo(triple="t", page_size=4096, symbols=symbols)

    @property
    def bootstrap(self) -> orc_trio.BootstrapInfo:
        return self._bootstrap

    def connected(self) -> None:
        self.accepted.set()

    async def run_wrapper(self, tag: int, args: bytes | memoryview, nested: bool = False) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(args)

    def running(self) -> tuple[str, ...]:
        return ("something",)


@every_virtual
async def test_its_life(kind: str) -> None:
    """G20, G21: no call before it is connected, calls both ways then, none after; `run` returns how it ended."""
    here, there = await connected_pair(kind)
    access, host, raw = orc_trio.StreamControllerAccess(here, identity="me"), Host(), RawPeer(there)
    with pytest.raises(orc_trio.NoControllerError):
        await access.call_controller(1, b"")
    assert access.statistics().state == "new"
    ends = []

    async def run() -> None:
        ends.append(await access.run(host))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        setup = await raw.expect(Opcode.SETUP)
        assert b"me" in setup.payload
        with pytest.raises(orc_trio.NoControllerError):
            await access.call_controller(1, b"")
        await raw.send(setup_message(Role.CONTROLLER))
        await host.accepted.wait()
        assert access.statistics().state == "running"
        assert access.statistics().running_handlers == ("something",)
        assert access.begin_disconnect() == LOCAL
        assert access.begin_disconnect(orc_trio.DisconnectReason(DisconnectKind.OWNER_CANCELLED)) == LOCAL
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await access.call_controller(1, b"")
        assert caught.value.reason == LOCAL
        assert caught.value.certainty is orc_trio.Certainty.NOT_SENT
        await raw.goodbye()
    assert ends == [LOCAL]
    assert access.begin_disconnect() == LOCAL
    assert access.statistics().state == "closed"
    with pytest.raises(orc_trio.LocalProtocolError, match="once"):
        await access.run(host)


@every_virtual
async def test_disconnected_before_it_runs(kind: str) -> None:
    """G12: disconnected before it is run, it sends nothing, closes, and ends with the first cause."""
    here, there = await connected_pair(kind)
    access, host = orc_trio.StreamControllerAccess(here), Host()
    cause = orc_trio.DisconnectReason(DisconnectKind.OWNER_CANCELLED)
    assert access.begin_disconnect(cause) == cause
    assert access.begin_disconnect() == cause
    assert await access.run(host) == cause
    await RawPeer(there).expect_end()
    assert not host.accepted.is_set()


async def test_a_bootstrap_that_does_not_fit() -> None:
    """G19, G25: what does not fit into a setup message is the executor's own error; the transport is closed."""
    here, there = await connected_pair("unix")
    with nothing_left():
        pair = await connected_pair("unix")
        access = orc_trio.StreamControllerAccess(pair[0])
        with pytest.raises(orc_trio.LocalProtocolError):
            await access.run(Host(**{f"{i:01000d}": i for i in range(1100)}))
        await RawPeer(pair[1]).expect_end()
        await pair[1].aclose()
    await here.aclose()
    await there.aclose()


async def test_a_bootstrap_that_makes_no_setup() -> None:
    """G19: nor does a bootstrap that makes no setup message leave the transport open."""
    with nothing_left():
        here, there = await connected_pair("unix")
        host = Host()
        del host.bootstrap.page_size
        with pytest.raises(AttributeError):
            await orc_trio.StreamControllerAccess(here).run(host)
        await there.aclose()


async def test_it_is_run_once() -> None:
    """G20: a second run is refused, and leaves the first alone."""
    here, there = await connected_pair("memory")
    access, host = orc_trio.StreamControllerAccess(here), Host()
    raw = RawPeer(there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.run, host)
        await raw.settle(Role.CONTROLLER)
        await host.accepted.wait()
        with pytest.raises(orc_trio.LocalProtocolError, match="once"):
            await access.run(host)
        assert access.statistics().state == "running"
        access.begin_disconnect()
        await raw.goodbye()


async def test_cancelled() -> None:
    """G18: cancelled, it says goodbye and raises Cancelled."""
    here, there = await connected_pair("memory")
    access, host, raw = orc_trio.StreamControllerAccess(here), Host(), RawPeer(there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.run, host)
        await raw.settle(Role.CONTROLLER)
        await host.accepted.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await raw.goodbye()
    assert access.begin_disconnect().kind is DisconnectKind.OWNER_CANCELLED
