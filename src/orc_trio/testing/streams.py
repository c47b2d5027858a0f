"""Streams that are slow in small pieces, or fail on demand: fakes for tests of what stands on a stream.

Rules
-----
* Both work over any `trio.abc.Stream`, and are half-closeable exactly if that is.
* They add no buffer: what was given to `send_all` has gone to the inner stream when it returns, and a receive takes
  from the inner stream only what it gives.
* Closing one closes the inner stream, whatever else happens: a test with faults leaves no descriptor behind.

Refused: a second sender or receiver at the same time (`trio.BusyResourceError`), as other streams do.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import trio

from orc_trio.registry import Buffer

__all__ = ["FailingStream", "FailurePhase", "TrickleStream"]


class WrappedStream(trio.abc.Stream):
    """A stream over another one, half-closeable exactly if that is."""

    _half_closeable: ClassVar[type[WrappedStream]]

    def __init_subclass__(cls) -> None:
        """Make the class's twin, which is half-closeable."""
        super().__init_subclass__()
        if not issubclass(cls, trio.abc.HalfCloseableStream):
            cls._half_closeable = type(cls.__name__, (cls, HalfCloseableWrapped), {"__module__": cls.__module__})

    def __new__(cls, inner: trio.abc.Stream, *_args: Any, **_kwargs: Any) -> Self:
        """Take the class that can do what the inner stream can."""
        half_closeable = isinstance(inner, trio.abc.HalfCloseableStream)
        return super().__new__(cls._half_closeable if half_closeable else cls)  # type: ignore[return-value]

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self._sending = False

    @contextmanager
    def _sender(self) -> Iterator[None]:
        """The one who sends: it does so in several steps, between which nobody else may come."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    async def send_all(self, data: Buffer) -> None:
        """Send through the inner stream.

        Raises:
            trio.BrokenResourceError: As the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            As the inner stream.
        """
        with self._sender():
            await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Ask the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        with self._sender():
            await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive through the inner stream.

        Raises:
            trio.BrokenResourceError: As the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        await self._inner.aclose()

    async def _send_eof(self) -> None:
        assert isinstance(self._inner, trio.abc.HalfCloseableStream)
        with self._sender():
            await self._inner.send_eof()


class HalfCloseableWrapped(WrappedStream, trio.abc.HalfCloseableStream):
    """A stream over one that is half-closeable."""

    async def send_eof(self) -> None:
        """Half-close the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            As the inner stream.
        """
        await self._send_eof()


class TrickleStream(WrappedStream):
    """A stream that gives and takes everything in small pieces, with a checkpoint between two of them.

    So a message is cut at every place where it can be, and whoever is cancelled in the middle of sending one leaves
    the rest of it unsent.

    Args:
        inner: The stream; it belongs to this one from here on.
        size: The most bytes of one piece, at least 1.
    """

    def __init__(self, inner: trio.abc.Stream, size: int = 1) -> None:
        if size < 1:
            raise ValueError(f"a piece has at least one byte, not {size}")
        super().__init__(inner)
        self._size = size

    async def send_all(self, data: Buffer) -> None:
        """Send, a piece at a time.

        Raises:
            trio.BrokenResourceError: As the inner stream.

        Checkpoints:
            Always; at least one for each piece.

        Cancellation:
            Some pieces have gone, the rest has not.
        """
        view = memoryview(data).cast("B")
        with self._sender():
            await self._inner.send_all(view[: self._size])
            for at in range(self._size, len(view), self._size):
                await trio.lowlevel.checkpoint()
                await self._inner.send_all(view[at : at + self._size])

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive one piece.

        Raises:
            trio.BrokenResourceError: As the inner stream.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """
        if isinstance(max_bytes, int) and max_bytes > self._size:
            max_bytes = self._size
        return await self._inner.receive_some(self._size if max_bytes is None else max_bytes)


class FailurePhase(enum.Enum):
    """Where a `FailingStream` fails."""

    SEND = "send"
    """Before a byte of that `send_all` has gone."""
    SEND_PARTLY = "send, in the middle"
    """When half the bytes of that `send_all` have gone (of one byte: none)."""
    SEND_EOF = "send_eof"
    """Before the half-close."""
    RECEIVE = "receive"
    """Instead of receiving; what has come stays in the inner stream."""
    CLOSE = "close"
    """When the inner stream is closed."""


class FailingStream(WrappedStream):
    """A stream one of whose methods fails from its n-th use on.

    Args:
        inner: The stream; it belongs to this one from here on.
        phase: Which method fails, and when.
        at: At which use, counted from 1; later uses fail too.
        error: What to raise; default: `trio.BrokenResourceError`.

    Attributes:
        failures: How many times it has failed.
    """

    def __init__(
        self, inner: trio.abc.Stream, phase: FailurePhase, at: int = 1, error: BaseException | None = None
    ) -> None:
        if at < 1:
            raise ValueError(f"uses are counted from 1, not from {at}")
        super().__init__(inner)
        self._phase = phase
        self._left = at
        self._error = error or trio.BrokenResourceError(f"a fault for tests: {phase.value}")
        self.failures: int = 0

    async def send_all(self, data: Buffer) -> None:
        """Send, or fail.

        Raises:
            BaseException: The error.

        Checkpoints:
            Always.

        Cancellation:
            As the inner stream.
        """
        if self._uses(FailurePhase.SEND):
            await self._fail()
        if self._uses(FailurePhase.SEND_PARTLY):
            if self.failures == 0:
                await super().send_all(memoryview(data)[: len(data) // 2])
            await self._fail()
        await super().send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, or fail.

        Raises:
            BaseException: The error.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """
        if self._uses(FailurePhase.RECEIVE):
            await self._fail()
        return await super().receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close the inner stream, and perhaps fail then.

        Raises:
            BaseException: The error.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        await super().aclose()
        if self._uses(FailurePhase.CLOSE):
            await self._fail()

    async def _send_eof(self) -> None:
        if self._uses(FailurePhase.SEND_EOF):
            await self._fail()
        await super()._send_eof()

    def _uses(self, phase: FailurePhase) -> bool:
        """Count a use; say whether it fails."""
        if phase is not self._phase:
            return False
        self._left -= 1
        return self._left <= 0

    async def _fail(self) -> None:
        await trio.lowlevel.checkpoint()
        self.failures += 1
        raise self._error.with_traceback(None)
