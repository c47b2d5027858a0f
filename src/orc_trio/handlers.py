"""The tasks that serve a peer's calls: one each, in the connection's nursery, in a scope of its own.

Rules
-----
* A handler's scope is checked in the step that calls user code: after the latch none starts (G13).
* A handler's scope ends with its caller's deadline, its caller's cancel, or the latch, whichever comes first (G5, G6).
  Where handlers have a grace, it ends that long after the latch, if its function was called before; in a thread, one
  that waits for its turn was not.
* Nothing of an unexpected exception crosses; its owner reads it in the log (G9).  What is no `Exception` (an interrupt,
  an exit) ends the connection and goes to the owner (G11).
* A result that finds no room is waited for here, in the handler's task, never by the reader (G8).

End of life: a task ends when its answer is queued, or dropped because the latch has fallen.  A handler that shields
itself or blocks holds up the end of the connection; it is named in a warning when the bound has run out (G15).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import attrs
import trio

from orc_trio.exceptions import (
    CallRefusedError,
    DisconnectedError,
    NoControllerError,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.interrupts import uninterrupted
from orc_trio.nesting import Serving, enter
from orc_trio.protocol import Cancelled, Failed, InboundCall, Refused, Value
from orc_trio.protocol.outcomes import DEADLINE_EXCEEDED, HANDLER_FAILED, UNKNOWN_TAG

__all__ = ["Answer", "HandlerTasks", "Serve"]

_log = logging.getLogger("orc_trio")
Answer: TypeAlias = Value | Failed | Refused | Cancelled


class Serve(Protocol):
    """Serves one call of the peer: see `orc_trio.abc.AccessHost.run_wrapper`."""

    def __call__(self, tag: int, args: bytes | memoryview, nested: bool) -> Awaitable[bytes]:
        """Run the function under ``tag``."""


@attrs.define(eq=False)
class _Handler:
    scope: trio.CancelScope
    mark: Serving


class HandlerTasks:
    """The handlers of one connection.

    Args:
        serve: Runs the function a call names.
        respond: Queues an answer; False: it waits for room, and `room` will be told.
        fail: Told of what ends the connection and goes to its owner.
        by: The connection, for the mark in the handlers' contexts.
        grace: Seconds they have after the latch.
    """

    def __init__(
        self,
        serve: Serve,
        *,
        respond: Callable[[InboundCall, Answer], bool],
        fail: Callable[[BaseException], None],
        by: object,
        grace: float,
    ) -> None:
        self._serve = serve
        self._respond = respond
        self._fail = fail
        self._by = by
        self._grace = grace
        self._open = True
        self._handlers: dict[InboundCall, _Handler] = {}
        self._idle = trio.Event()

    def start(self, call: InboundCall, nursery: trio.Nursery) -> None:
        """Begin to serve a call."""
        # Not started yet, but its caller can already cancel it.
        scope = trio.CancelScope(deadline=trio.current_time() + call.remaining)
        self._handlers[call] = _Handler(scope, Serving(self._by, call.nested))
        nursery.start_soon(self._run, call, name="orc_trio handler")

    def cancel(self, call: InboundCall) -> None:
        """Its caller has left."""
        if handler := self._handlers.get(call):
            handler.scope.cancel()

    def cancel_all(self) -> None:
        """The latch has fallen."""
        self._open = False
        for handler in self._handlers.values():
            if self._grace and handler.mark.started:
                handler.scope.deadline = min(handler.scope.deadline, trio.current_time() + self._grace)
            else:
                handler.scope.cancel()

    @staticmethod
    def room(call: InboundCall) -> None:
        """An answer that had to wait is queued."""
        if call.waiter is not None:  # None: cancelled before it was complete, so nobody ever served it
            call.waiter.set()

    async def wait_idle(self) -> None:  # noqa: ASYNC910
        """Wait until no handler is left.

        Checkpoints:
            If one is.

        Cancellation:
            Changes nothing.
        """
        while self._handlers:
            self._idle = trio.Event()
            await self._idle.wait()

    @uninterrupted
    async def _run(self, call: InboundCall) -> None:  # noqa: ASYNC910
        try:
            await self._answer(call, self._handlers[call])
        except BaseException as exc:  # our bug, or an interrupt  # noqa: ASYNC103
            self._fail(exc)
        finally:
            del self._handlers[call]
            if not self._handlers:
                self._idle.set()

    async def _answer(self, call: InboundCall, handler: _Handler) -> None:  # noqa: ASYNC910
        enter(handler.mark)
        answer: Answer = Failed(DEADLINE_EXCEEDED, "the caller's deadline had passed")
        # The latch may have fallen, its caller left, or its deadline passed before it could start.
        if not handler.scope.cancel_called:  # G13: nothing comes between this and the user's code
            try:
                with handler.scope:
                    answer = await self._call_function(call)
            except (trio.Cancelled, BaseExceptionGroup) as exc:  # noqa: ASYNC103
                # Nobody cancelled it: the function raised one it had kept, and that must not end the nursery.
                answer = self._logged(call, exc)
        handler.mark.active = False
        call.payload = b""
        call.waiter = trio.Event()
        if not self._respond(call, answer):
            await call.waiter.wait()

    async def _call_function(self, call: InboundCall) -> Answer:
        payload, call.payload = call.payload, b""
        try:
            answering = self._serve(call.tag, payload, call.nested)
            del payload  # the function's alone from here on
            return Value(await answering)
        except trio.Cancelled:
            raise
        except BaseException as exc:
            if isinstance(exc, BaseExceptionGroup) and exc.split(trio.Cancelled)[1] is None:
                raise
            answer = self._error_answer(call, exc)
        return answer  # noqa: ASYNC910

    def _error_answer(self, call: InboundCall, exc: BaseException) -> Answer:
        """What the caller is told of what the function raised."""
        match exc:
            case WrapperFunctionError(remote_type=str(remote_type), message=str(message)):
                return Failed(remote_type, message)
            case UnknownHandlerTagError():
                return Failed(UNKNOWN_TAG, str(exc))
            case CallRefusedError():
                return Refused(str(exc))
            case BaseExceptionGroup():
                return self._unexpected(call, exc.split(trio.Cancelled)[1] or exc)
            case _:
                return self._unexpected(call, exc)

    def _unexpected(self, call: InboundCall, exc: BaseException) -> Failed:
        if isinstance(exc, Exception):
            return self._logged(call, exc)
        self._fail(exc)
        return Failed(HANDLER_FAILED)  # dropped: the latch has fallen

    def _logged(self, call: InboundCall, exc: BaseException) -> Failed:
        # G19: that its own calls failed with the connection is no news, and nobody is told.
        if self._open or not _only_disconnected(exc):
            _log.error("orc_trio: the function called under %#x failed", call.tag, exc_info=exc)
        return Failed(HANDLER_FAILED, "the function failed; its owner's log says why")  # G9: and nothing else does


def _only_disconnected(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_only_disconnected(each) for each in exc.exceptions)
    return isinstance(exc, (DisconnectedError, NoControllerError))
