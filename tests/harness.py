# What the tests of connections share: connected ends on every transport, a peer that speaks by hand, faulty streams.

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import orc_trio
from orc_trio.abc import MessageTransport
from orc_trio.protocol import Role, Setup
from orc_trio.protocol.setup import encode_setup
from orc_trio.sockets import as_transport
from orc_trio.testing import PAIR_KINDS, PairKind, StreamKind, connected_pair, open_pair
from orc_trio.testing.leaks import open_descriptors, wait_for_workers
from orc_trio.wire import Message, Opcode
from orc_trio.wire.messages import NO_DEADLINE, ResultKind

STREAMS: list[StreamKind] = ["memory", "unix", "tcp", "pipes"]
KINDS = PAIR_KINDS
"""Every transport on which an end can differ."""
VIRTUAL: list[PairKind] = ["memory", "inprocess"]
"""Those without a kernel: time can jump."""

every_transport = pytest.mark.parametrize("kind", KINDS)
every_stream = pytest.mark.parametrize("kind", STREAMS)
every_virtual = pytest.mark.parametrize("kind", VIRTUAL)

SMALL = orc_trio.Limits(max_message=64 * 1024, max_bytes=64 * 1024)

End = Any  # a trio.abc.Stream or a MessageTransport


def no_hang() -> AbstractContextManager[Any]:
    """A hang is a failure, after two minutes of real time; where time jumps, after a day of it."""
    jumps = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    return trio.fail_after(24 * 3600 if jumps else 120)


# --- both ends ---


@attrs.define(eq=False)
class Ends:
    """A controller and an executor that are connected."""

    controller: orc_trio.Controller
    session: orc_trio.Session
    symbols: dict[str, int]
    told: list[orc_trio.DisconnectReason]

    async def call(self, name: str, args: bytes = b"", **kwargs: Any) -> bytes | memoryview:
        """Call the wrapper function of that name."""
        return await self.controller.call_wrapper(self.symbols[name], args, **kwargs)


Wrapper = Callable[[Any], Any]


@asynccontextmanager
async def connected_ends(
    kind: PairKind,
    *,
    wrappers: dict[str, Wrapper] | None = None,
    threaded: dict[str, Wrapper] | None = None,
    handlers: dict[str, Wrapper] | None = None,
    registry: orc_trio.HandlerRegistry | None = None,
    limits: orc_trio.Limits | None = None,
    executor_limits: orc_trio.Limits | None = None,
    pair: tuple[End, End] | None = None,
) -> AsyncIterator[Ends]:
    """A controller and an executor over a transport of that kind.  ``handlers`` are reached by the tags of their names.

    In the executor, ``wrappers`` and ``threaded`` are found by name; ``handlers`` have tags there.
    """
    in_threads = {name: orc_trio.Handler(function, name, threaded=True) for name, function in (threaded or {}).items()}
    with no_hang():
        async with open_pair(
            kind,
            wrappers={**(wrappers or {}), **in_threads},
            handlers=handlers or {},
            registry=registry,
            limits=limits,
            executor_limits=executor_limits,
            ends=pair,
        ) as both:
            yield Ends(both.controller, both.session, dict(both.symbols), both.told)


# --- one end, and a peer that speaks by hand ---


class RawPeer:
    """Speaks messages by hand, right or wrong."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.transport: MessageTransport = as_transport(end)
        self._received: list[Message] = []

    async def send(self, *messages: Message) -> None:
        """Send them in one piece."""
        await self.transport.send(messages)

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes that may be no message; only over a stream."""
        await self.end.send_all(data)

    async def receive(self) -> Message | None:
        """The next message; None: the end of the stream."""
        if not self._received:
            self._received = list(await self.transport.receive())
        return self._received.pop(0) if self._received else None

    async def expect(self, opcode: Opcode) -> Message:
        """The next message, which must be of that kind."""
        message = await self.receive()
        assert message is not None, f"the end of the stream instead of {opcode!r}"
        assert message.opcode == opcode, message
        return message._replace(payload=bytes(message.payload))

    async def expect_end(self) -> None:
        """The end of the stream."""
        assert await self.receive() is None

    async def settle(self, role: Role, limits: orc_trio.Limits | None = None, **more: Any) -> None:
        """Exchange setups."""
        await self.send(setup_message(role, limits, **more))
        await self.expect(Opcode.SETUP)

    async def hang_up(self, watermark: int = 0) -> None:
        """Say goodbye in order."""
        await self.send(Message(Opcode.HANG_UP, aux=watermark, payload=b"\xf6"))

    async def goodbye(self) -> Message:
        """Read on to the hang-up of the other end, answer it, read to the end, close."""
        while (message := await self.receive()) is not None and message.opcode != Opcode.HANG_UP:
            pass
        assert message is not None
        with trio.CancelScope(shield=True):
            with suppress(trio.BrokenResourceError):
                await self.hang_up()
            await self.close()
        return message

    async def read_to_the_end(self) -> None:
        """Read on to the hang-up of the other end, or the end of the stream, and close."""
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError, orc_trio.RemoteProtocolError):
            while (message := await self.receive()) is not None and message.opcode != Opcode.HANG_UP:
                pass
        await self.close()

    async def close(self) -> None:
        """Close, at once."""
        await self.transport.aclose()


def setup_message(role: Role, limits: orc_trio.Limits | None = None, **more: Any) -> Message:
    """A setup message as it should be."""
    if role is Role.EXECUTOR:
        more = {"triple": "none", "page_size": 4096} | more
    return Message(Opcode.SETUP, payload=encode_setup(Setup.of(role, limits or orc_trio.Limits(), **more)))


def call_message(seq: int, tag: int, payload: bytes = b"", *, aux: int = NO_DEADLINE, nested: bool = False) -> Message:
    """A call."""
    return Message(Opcode.NESTED_CALL if nested else Opcode.CALL, seq, tag, aux, payload)


def result_message(seq: int, payload: bytes = b"") -> Message:
    """A result that is a value."""
    return Message(Opcode.RESULT, seq, 0, ResultKind.VALUE, payload)


TAG = 77


@asynccontextmanager
async def controller_and_raw(
    kind: PairKind,
    *,
    handler: Wrapper | None = None,
    threaded: bool = False,
    limits: orc_trio.Limits | None = None,
    peer_limits: orc_trio.Limits | None = None,
    wrap: Callable[[End], End] = lambda end: end,
    frozen: bool = False,
    **kwargs: Any,
) -> AsyncIterator[tuple[orc_trio.Controller, RawPeer]]:
    """A controller, and an executor that speaks by hand; a handler is under `TAG`.

    After the body the peer reads to the end and closes, unless it is ``frozen``.
    """
    here, there = await connected_pair(kind)
    registry = orc_trio.HandlerRegistry()
    if handler is not None:
        registry.register(TAG, handler, name="handler", threaded=threaded)
    raw = RawPeer(there)
    try:
        with no_hang():
            async with trio.open_nursery() as nursery:
                settled = trio.Event()

                @nursery.start_soon
                async def settle() -> None:
                    await raw.settle(Role.EXECUTOR, peer_limits)
                    settled.set()

                async with orc_trio.open_controller(wrap(here), registry, limits=limits, **kwargs) as controller:
                    await settled.wait()
                    try:
                        yield controller, raw
                    finally:
                        if not frozen:
                            nursery.start_soon(raw.read_to_the_end)
    finally:
        with trio.CancelScope(shield=True):
            await raw.close()


# --- faulty streams ---


class FaultyStream(trio.abc.HalfCloseableStream):
    """A stream whose methods fail, or wait, on demand.

    Attributes:
        fail_send, fail_receive, fail_eof, fail_close: What to raise instead.
        blocked: While not None, a send waits for it (and goes on then).
        most: The most bytes a receive gives.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.fail_send: BaseException | None = None
        self.fail_receive: BaseException | None = None
        self.fail_eof: BaseException | None = None
        self.fail_close: BaseException | None = None
        self.blocked: trio.Event | None = None
        self.most = 2**30
        self.sent = 0

    async def send_all(self, data: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.blocked is not None:
            await self.blocked.wait()
        if self.fail_send is not None:
            raise self.fail_send
        await self.inner.send_all(data)
        self.sent += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.fail_eof is not None:
            raise self.fail_eof
        await self.inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        if self.fail_receive is not None:
            await trio.lowlevel.checkpoint()
            raise self.fail_receive
        return await self.inner.receive_some(min(max_bytes or self.most, self.most))

    async def aclose(self) -> None:
        try:
            await self.inner.aclose()
        finally:
            if self.fail_close is not None:
                raise self.fail_close


# --- what must not be left ---


@contextmanager
def nothing_left(*, threads: bool = False) -> Iterator[None]:
    """G19: after the block, the same descriptors are open as before it."""
    wait_for_workers()
    before = open_descriptors()
    alive = threading.active_count()
    yield
    wait_for_workers()
    after = open_descriptors()
    assert after == before, after.items() ^ before.items()
    assert threads or threading.active_count() <= alive


def quiet(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether nothing of note was logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO] == []


def collect() -> None:
    """Have everything forgotten that nobody holds."""
    for _ in range(3):
        gc.collect()


# --- cancelling everywhere ---


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when one task has made so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self.hit = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        if task is self.task and not self.hit:
            if self.steps == 0:
                self.hit = True
                self.scope.cancel()
            self.steps -= 1


async def cancelled_everywhere(
    scenario: Callable[[], Awaitable[None]], check: Callable[[], Awaitable[None]], *, most: int = 200, stride: int = 1
) -> int:
    """Run ``scenario`` again and again, cancelled at its first, second, third … suspension, and ``check`` each time.

    Returns:
        How many suspensions there were.
    """
    for steps in range(0, most, stride):
        canceller = CancelAt(steps)
        trio.lowlevel.add_instrument(canceller)
        try:
            async with trio.open_nursery() as nursery:

                async def run(canceller: CancelAt = canceller) -> None:
                    canceller.task = trio.lowlevel.current_task()
                    with canceller.scope:
                        await scenario()
                    canceller.task = None

                nursery.start_soon(run)
        finally:
            trio.lowlevel.remove_instrument(canceller)
        await check()
        if not canceller.hit:
            return steps
    raise AssertionError(f"not over after {most} suspensions")
