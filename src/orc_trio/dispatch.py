"""Running the function a call names: in the task, or in a thread; named while it runs.

Rules
-----
* Nobody but the function reads the bytes.
* A threaded function is let go when its call is cancelled: it runs on in its thread, its name stays in the statistics,
  its late result is dropped (G13).  The keepalive is its thread's, so that what it executes is not torn down under it.
* Nested calls take no token of the thread limiter (G7): a chain of calls through threads ends at any limit.
* Whatever a function returns that is not ``bytes`` is copied: a caller must not see later changes.  But not the view
  that it was given: nobody can write to that.
* What a function lets escape of a call that *it* made (nothing is there, refused before it started; an error that came
  from another peer) says nothing about the call it serves: to its caller it has failed, like any other (G4, G9).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property

import trio

from orc_trio.exceptions import CallRefusedError, UnknownHandlerTagError, WrapperFunctionError
from orc_trio.interrupts import interruptible_async
from orc_trio.nesting import serving, started
from orc_trio.registry import Buffer, Handler

__all__ = ["Dispatcher", "as_bytes"]


def as_bytes(value: Buffer, what: str) -> bytes:
    """``value`` as bytes that nobody else can change.

    Raises:
        TypeError: It is not bytes-like.
    """
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{what} must be bytes, not {type(value).__name__}")


def _no_keepalive(_name: str) -> AbstractContextManager[object]:
    return nullcontext()


class Dispatcher:
    """Runs the functions of one table.

    Args:
        lookup: The function for a tag or address, or None.
        keepalive: Gives the right to run one function, or raises what the caller shall see.
        max_threads: How many threads ordinary calls may use at once.
        max_nested_threads: The same for nested calls, functions that were let go included.  One more is refused: it
            could not wait (G7), and its place is free as soon as its caller leaves, but the thread is not (G8).
    """

    def __init__(
        self,
        lookup: Callable[[int], Handler | None],
        *,
        keepalive: Callable[[str], AbstractContextManager[object]] = _no_keepalive,
        max_threads: float = 40,
        max_nested_threads: int = 1024,
    ) -> None:
        self._lookup = lookup
        self._keepalive = keepalive
        self._max_threads = max_threads
        self._max_nested_threads = max_nested_threads
        self._nested_threads: set[object] = set()
        self._running: dict[object, str] = {}
        self.conversation: object = None
        """What the calls come by, if they are not marked as a connection's."""

    @cached_property
    def _limiter(self) -> trio.CapacityLimiter:
        return trio.CapacityLimiter(self._max_threads)

    @cached_property
    def _nested_limiter(self) -> trio.CapacityLimiter:
        return trio.CapacityLimiter(float("inf"))

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the functions that are running, threads let go included."""
        return tuple(self._running.copy().values())

    async def serve(self, tag: int, args: bytes | memoryview, nested: bool) -> bytes | memoryview:
        """Run the function registered under ``tag``.

        Args:
            tag: Handler tag or executor address.
            args: The argument bytes.
            nested: Whether the call was made while serving a call.

        Returns:
            What it returned: bytes; or ``args``, if a zero-copy function returned what it was given.

        Raises:
            UnknownHandlerTagError: There is none.
            BaseException: What the function raised, or the keepalive (a `CallRefusedError`: it was not started).

        Checkpoints:
            If the function does.

        Cancellation:
            Reaches an async function; lets a threaded one go.
        """
        handler = self._lookup(tag)
        if handler is None:
            raise UnknownHandlerTagError(tag)
        if handler.threaded and nested and len(self._nested_threads) >= self._max_nested_threads:
            raise CallRefusedError(f"{self._max_nested_threads} threads serve nested calls, or were let go and run on")
        given = memoryview(args).toreadonly() if handler.zero_copy else bytes(args)
        keepalive = self._keepalive(handler.name)
        try:
            if handler.threaded:
                result = await self._in_thread(handler, given, keepalive, nested)
            else:
                with keepalive:
                    key = object()
                    self._running[key] = handler.name
                    started(name=handler.name)
                    try:
                        result = await interruptible_async(handler.function, given)
                    finally:
                        del self._running[key]
        except WrapperFunctionError as exc:
            if exc._origin is None or self._is_ours(exc._origin()):
                raise
            raise RuntimeError(f"{handler.name} let the answer of another connection escape") from exc
        except (UnknownHandlerTagError, CallRefusedError) as exc:
            raise RuntimeError(f"{handler.name} let the failure of a call that it made escape") from exc
        if handler.zero_copy and result is given:
            return args
        return as_bytes(result, f"what {handler.name} returns")

    def _is_ours(self, came_by: object) -> bool:
        mark = serving()
        return came_by is not None and (came_by is self.conversation or (mark is not None and came_by is mark.by))

    async def _in_thread(
        self, handler: Handler, args: bytes | memoryview, keepalive: AbstractContextManager[object], nested: bool
    ) -> Buffer:
        keepalive.__enter__()
        # Whoever takes the ticket leaves the keepalive: the thread that runs the function, or this task if it is
        # cancelled before that.  list.pop is one step for all threads.
        ticket = [object()]
        key = ticket[0]

        def leave() -> None:
            self._running.pop(key, None)
            self._nested_threads.discard(key)
            keepalive.__exit__(None, None, None)

        def body() -> Buffer:
            try:
                ticket.pop()
            except IndexError:
                return b""  # G13: let go before it started, so it does not start
            started(name=handler.name)
            try:
                return handler.function(args)  # type: ignore[return-value]
            finally:
                leave()

        self._running[key] = handler.name
        if nested:
            self._nested_threads.add(key)
        try:
            return await trio.to_thread.run_sync(
                body, abandon_on_cancel=True, limiter=self._nested_limiter if nested else self._limiter
            )
        finally:
            with suppress(IndexError):
                ticket.pop()
                leave()
