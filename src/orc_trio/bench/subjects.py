"""What is measured: the library in several ways, and what it is measured against.

Each has a serving end and a calling one.  What is called gives back the bytes it was given, but for an upload, which
gives back nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs
import trio

from orc_trio.abc import MessageTransport
from orc_trio.access import StreamControllerAccess
from orc_trio.bench import floor, skeleton
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.controller import open_controller
from orc_trio.protocol import Limits
from orc_trio.registry import HandlerRegistry
from orc_trio.session import open_session
from orc_trio.transports import in_process_pair

__all__ = ["LIMITS", "SUBJECTS", "WAIT", "Connect", "RoundTrip", "Subject", "open_here"]

RoundTrip: TypeAlias = Callable[[bytes], Awaitable[object]]
"""Sends a payload, and waits until it is back."""
Connect: TypeAlias = Callable[[], Awaitable[trio.SocketStream]]
"""Makes one more connection to the serving end."""
LIMITS: Final = Limits(max_calls=128 * 1024, max_bytes=1024 * 1024 * 1024)
"""At both ends, so that they stop nobody."""
WAIT: Final = "wait"
"""The symbol of a function that never answers."""
_PART: Final = 64 * 1024


@attrs.frozen
class Subject:
    """One thing that is measured.

    Attributes:
        serve: Is the serving end of one connection, until the other end closes.
        open: Opens the calling end, and gives as many round trips as shall be in flight at once.
    """

    serve: Callable[[trio.SocketStream], Awaitable[None]]
    open: Callable[[Connect, int], AbstractAsyncContextManager[Sequence[RoundTrip]]]


def _any_stream(stream: trio.SocketStream) -> trio.abc.Stream:
    """The same, not to be known as a socket."""
    return trio.StapledStream(stream, stream)


async def _echo(args: memoryview) -> memoryview:  # noqa: ASYNC124, ASYNC910
    return args  # noqa: ASYNC910


async def _swallow(_args: memoryview) -> bytes:  # noqa: ASYNC124, ASYNC910
    return b""  # noqa: ASYNC910


async def _wait(_args: memoryview) -> bytes:
    await trio.sleep_forever()


async def _execute(end: trio.abc.Stream | MessageTransport, *, limits: Limits = LIMITS) -> None:
    async with open_session() as session:
        bootstrap = BootstrapInfo.for_session(session)
        for name, function in (("echo", _echo), ("swallow", _swallow), (WAIT, _wait)):
            bootstrap.add_wrapper(name, function, zero_copy=True)
        await session.attach(StreamControllerAccess(end, limits=limits), bootstrap)
        await session.wait_detached()


@asynccontextmanager
async def _control(
    end: trio.abc.Stream | MessageTransport, number: int, *, symbol: str = "echo", limits: Limits = LIMITS
) -> AsyncIterator[Sequence[RoundTrip]]:
    async with open_controller(end, HandlerRegistry(), limits=limits) as controller:
        address = controller.bootstrap.symbols[symbol]
        yield [partial(controller.call_wrapper, address, zero_copy=True)] * number


@asynccontextmanager
async def _open_floor(
    connect: Connect, number: int, *, do: Callable[[trio.SocketStream, bytes], Awaitable[None]] = floor.ping_pong
) -> AsyncIterator[Sequence[RoundTrip]]:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await connect()) for _ in range(number)]
        yield [partial(do, stream) for stream in streams]


@asynccontextmanager
async def _open_skeleton(connect: Connect, number: int) -> AsyncIterator[Sequence[RoundTrip]]:
    async with skeleton.open_callers(await connect(), number) as round_trips:
        yield round_trips


@asynccontextmanager
async def _open(
    connect: Connect, number: int, *, symbol: str = "echo", limits: Limits = LIMITS
) -> AsyncIterator[Sequence[RoundTrip]]:
    async with _control(await connect(), number, symbol=symbol, limits=limits) as round_trips:
        yield round_trips


@asynccontextmanager
async def _open_any(connect: Connect, number: int) -> AsyncIterator[Sequence[RoundTrip]]:
    async with _control(_any_stream(await connect()), number) as round_trips:
        yield round_trips


@asynccontextmanager
async def _open_64(connect: Connect, _number: int) -> AsyncIterator[Sequence[RoundTrip]]:
    async with _control(await connect(), 64) as round_trips:
        yield round_trips


@asynccontextmanager
async def _open_in_process(_connect: Connect, number: int) -> AsyncIterator[Sequence[RoundTrip]]:
    here, there = in_process_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_execute, there)
        async with _control(here, number) as round_trips:
            yield round_trips


async def _serve_any(stream: trio.SocketStream) -> None:
    await _execute(_any_stream(stream))


def _limited(**figures: int) -> Subject:
    """The library with other limits, at both ends."""
    limits = attrs.evolve(LIMITS, **figures)
    return Subject(serve=partial(_execute, limits=limits), open=partial(_open, limits=limits))


SUBJECTS: Final = MappingProxyType(
    {
        "floor": Subject(serve=floor.serve, open=_open_floor),
        "floor, upload": Subject(serve=floor.swallow, open=partial(_open_floor, do=floor.upload)),
        "skeleton": Subject(serve=skeleton.serve, open=_open_skeleton),
        "orc_trio": Subject(serve=_execute, open=_open),
        "orc_trio, any stream": Subject(serve=_serve_any, open=_open_any),
        "orc_trio, in process": Subject(serve=_execute, open=_open_in_process),
        "orc_trio, in parts": _limited(part_size=_PART),
        "orc_trio, in small parts": _limited(part_size=_PART // 2, send_buffer=_PART),
        "orc_trio, send buffer of 1 MiB": _limited(send_buffer=1024 * 1024),
        "orc_trio, upload": Subject(serve=_execute, open=partial(_open, symbol="swallow")),
        "orc_trio, 64 calls": Subject(serve=_execute, open=_open_64),
    }
)
"""By name."""


@asynccontextmanager
async def open_here(name: str, number: int) -> AsyncIterator[Sequence[RoundTrip]]:
    """Both ends of a subject in this process, over one connection.

    Args:
        name: Of the subject.
        number: Of round trips that shall be in flight at once.

    Yields:
        The round trips.

    Checkpoints:
        Entering and leaving, always.

    Cancellation:
        Ends it.
    """
    near, far = map(trio.SocketStream, trio.socket.socketpair())

    async def connect() -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        return near

    async def be_the_other_end() -> None:
        async with far:
            await SUBJECTS[name].serve(far)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_the_other_end)
        async with SUBJECTS[name].open(connect, number) as round_trips:
            yield round_trips
