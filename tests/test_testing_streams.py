# orc_trio.testing.streams: streams in small pieces, and streams that fail on demand.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from orc_trio.testing import FailingStream, FailurePhase, TrickleStream, connected_pair
from orc_trio.testing.streams import WrappedStream


class Plain(trio.abc.Stream):
    """A stream that cannot be half-closed; it notes what it is told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = 0

    async def send_all(self, data: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"x" * (max_bytes or 100)

    async def aclose(self) -> None:
        self.closed += 1
        await trio.lowlevel.checkpoint()


async def wrapped(kind: Any, wrap: Callable[[Any], Any]) -> tuple[Any, Any]:
    one, other = await connected_pair(kind)
    return wrap(one), wrap(other)


@pytest.mark.parametrize("kind", ["memory", "unix", "tcp", "pipes"])
async def test_a_trickle_is_a_stream(kind: Any) -> None:
    """A trickling stream is a half-closeable stream like any other, if what is below is one."""
    await trio.testing.check_half_closeable_stream(partial(wrapped, kind, lambda end: TrickleStream(end, 4096)), None)


@pytest.mark.parametrize("kind", ["memory", "unix"])
async def test_a_stream_that_has_not_failed_yet_is_a_stream(kind: Any) -> None:
    """Before it fails, a failing stream is a stream like any other."""
    for phase in FailurePhase:
        wrap = partial(FailingStream, phase=phase, at=10**9)
        await trio.testing.check_half_closeable_stream(partial(wrapped, kind, wrap), None)


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_pieces(size: int) -> None:
    """What is sent goes in pieces of that size, with a checkpoint for each; what is received comes in such pieces."""
    inner = Plain()
    stream = TrickleStream(inner, size)
    data = bytes(range(10))
    with trio.testing.assert_checkpoints():
        await stream.send_all(memoryview(data))
    assert inner.sent == [data[at : at + size] for at in range(0, 10, size)]
    await stream.send_all(b"")
    assert inner.sent[-1] == b""
    assert len(await stream.receive_some()) == size
    assert len(await stream.receive_some(2)) == min(size, 2)
    await stream.wait_send_all_might_not_block()
    await stream.aclose()
    assert inner.closed == 1


async def test_a_cancelled_trickle_leaves_the_rest() -> None:
    """Who is cancelled in the middle has sent some pieces, and not the others."""
    inner = Plain()
    with trio.CancelScope() as scope:

        class Cancels(Plain):
            async def send_all(self, data: Any) -> None:
                await inner.send_all(data)
                if len(inner.sent) == 3:
                    scope.cancel()

        await TrickleStream(Cancels()).send_all(b"abcdef")
    assert scope.cancelled_caught
    assert b"".join(inner.sent) == b"abc"


async def test_one_at_a_time() -> None:
    """A second sender is refused: its pieces would get between those of the first."""
    stream = TrickleStream(Plain())
    with pytest.RaisesGroup(trio.BusyResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"abc")
            nursery.start_soon(stream.send_all, b"def")


async def test_what_makes_no_sense() -> None:
    """Pieces of nothing, and a zeroth use, are refused."""
    with pytest.raises(ValueError, match="at least one byte"):
        TrickleStream(Plain(), 0)
    with pytest.raises(ValueError, match="counted from 1"):
        FailingStream(Plain(), FailurePhase.SEND, 0)


async def fails(function: Callable[[], Any]) -> None:
    with trio.testing.assert_checkpoints(), pytest.raises(trio.BrokenResourceError, match="a fault for tests"):
        await function()


async def test_each_phase() -> None:
    """It fails at the n-th use of that method, stays failed, and leaves the others alone."""
    one, other = trio.testing.memory_stream_pair()
    stream = FailingStream(one, FailurePhase.SEND, at=2)
    await stream.send_all(b"first")
    for _ in range(2):
        await fails(lambda: stream.send_all(b"second"))
    assert await other.receive_some() == b"first"
    assert stream.failures == 2
    await other.send_all(b"back")
    assert await stream.receive_some() == b"back"

    stream = FailingStream(one, FailurePhase.SEND_PARTLY)
    await fails(lambda: stream.send_all(b"abcdef"))
    await fails(lambda: stream.send_all(b"ghi"))
    assert await other.receive_some() == b"abc"

    stream = FailingStream(one, FailurePhase.RECEIVE)
    await other.send_all(b"kept")
    for _ in range(2):
        await fails(lambda: stream.receive_some(10))
    assert await one.receive_some() == b"kept"

    stream = FailingStream(one, FailurePhase.SEND_EOF)
    for _ in range(2):
        await fails(stream.send_eof)  # type: ignore[attr-defined]
    await stream.send_all(b"still open")
    assert await other.receive_some() == b"still open"

    stream = FailingStream(one, FailurePhase.CLOSE)
    for _ in range(2):
        await fails(stream.aclose)
    assert await other.receive_some() == b""


async def test_with_an_error_of_ones_own() -> None:
    """Any error can be had."""
    stream = FailingStream(Plain(), FailurePhase.RECEIVE, error=OSError(5, "I/O"))
    with pytest.raises(OSError, match="I/O"):
        await stream.receive_some()


async def test_what_others_derive() -> None:
    """A class that somebody derives can be half-closed too, exactly if what is below can."""

    class Mine(WrappedStream):
        """Mine."""

    one, other = trio.testing.memory_stream_pair()
    stream = Mine(one)
    assert isinstance(stream, Mine)
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    await stream.send_eof()
    assert await other.receive_some() == b""
    assert not isinstance(Mine(Plain()), trio.abc.HalfCloseableStream)
    assert type(stream).__name__ == "Mine"
