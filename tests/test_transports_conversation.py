"""A whole conversation over every transport: calls both ways, and the two ways it can end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

import orc_trio
from harness import nothing_left
from orc_trio import Certainty, Controller, DisconnectedError, DisconnectKind, HandlerRegistry, MessageTransport
from transport_helpers import KINDS, connected

MIB = 1024 * 1024


@asynccontextmanager
async def conversation(
    kind: str, wrapper: Callable[[bytes, orc_trio.Session, int, MessageTransport], Awaitable[bytes]]
) -> AsyncIterator[tuple[Controller, int, list[orc_trio.DisconnectReason]]]:
    """A controller, the address of one wrapper function in its executor, and how it ended for the executor."""
    ends: list[orc_trio.DisconnectReason] = []
    registry = HandlerRegistry()

    @registry.handler("reverse")
    async def reverse(args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return args[::-1]

    async with connected(kind) as (here, there), trio.open_nursery() as nursery:

        async def execute() -> None:
            async with orc_trio.open_session() as session:
                info = orc_trio.BootstrapInfo.for_session(session)
                tag = info.add_tag("reverse")

                async def wrapped(args: bytes) -> bytes:
                    return await wrapper(args, session, tag, there)

                info.add_wrapper("wrapped", wrapped)
                await session.attach(orc_trio.StreamControllerAccess(there), info)
                ends.append(await session.wait_detached())

        nursery.start_soon(execute)
        async with orc_trio.open_controller(here, registry) as controller:
            yield controller, controller.bootstrap.symbols["wrapped"], ends


async def call_back(args: bytes, session: orc_trio.Session, tag: int, _transport: MessageTransport) -> bytes:
    return await session.call_controller(tag, args)


async def drop(_args: bytes, _session: orc_trio.Session, _tag: int, transport: MessageTransport) -> bytes:
    await transport.aclose()
    raise AssertionError("cancelled before this, or dropped after it")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_and_its_orderly_end(kind: str) -> None:
    """G16: calls go both ways, small and large, and the hang-up arrives: each end says who hung up."""
    async with conversation(kind, call_back) as (controller, wrapped, ends):
        for args in (b"", b"stressed", bytes(3 * MIB) + b"end"):
            assert await controller.call_wrapper(wrapped, args) == args[::-1]
        reason = await controller.disconnect()
    assert reason.kind is DisconnectKind.LOCAL_HANGUP
    assert [each.kind for each in ends] == [DisconnectKind.REMOTE_HANGUP]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_that_is_cut_off(kind: str) -> None:
    """G17: an end that closes without a word is noticed at once; the pending call may have run."""
    async with conversation(kind, drop) as (controller, wrapped, _ends):
        with pytest.raises(DisconnectedError) as caught, trio.fail_after(3):
            await controller.call_wrapper(wrapped, b"x")
    assert caught.value.reason.kind in {DisconnectKind.EOF_WITHOUT_HANGUP, DisconnectKind.TRANSPORT_ERROR}
    assert caught.value.certainty is Certainty.UNKNOWN


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_leaves_nothing_open(kind: str) -> None:
    """G19: after the end, no descriptor is open that was not before."""
    async with connected(kind):
        pass
    with nothing_left(threads=True):
        async with conversation(kind, call_back) as (controller, wrapped, _ends):
            assert await controller.call_wrapper(wrapped, b"ab") == b"ba"
