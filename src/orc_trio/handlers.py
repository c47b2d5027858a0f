"""The tasks that serve a peer's calls, in the connection's nursery: one for each call in flight.

A task that has served its call waits for another one, because starting one costs as much as the rest of a small call.
Each call has a context of its own.  It has the task's cancel scope for itself; if the call was cancelled or had a
deadline, the next one gets a new scope.

Rules
-----
* A handler's scope is checked in the step that calls user code: after the latch none starts (G13).
* A handler's scope ends with its caller's deadline, its caller's cancel, or the latch, whichever comes first (G5, G6).
  Where handlers have a grace, it ends that long after the latch, if its function was called before; in a thread, one
  that waits for its turn was not.
* Nothing of an unexpected exception crosses; its owner reads it in the log (G9).  What is no `Exception` (an interrupt,
  an exit) ends the connection and goes to the owner (G11).
* A result that finds no room is waited for here, in the handler's task, never by the reader (G8).

End of life: a call is over when its answer is queued, or dropped because the latch has fallen; the tasks end when the
connection dismisses them, or when enough others wait already.  A handler that shields
itself or blocks holds up the end of the connection; it is named in a warning when the bound has run out (G15).
"""

from __future__ import annotations

import contextvars
import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeAlias

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

__all__ = ["Answer", "HandlerTasks", "Serve", "waits_for_a_call"]

_log = logging.getLogger("orc_trio")
Answer: TypeAlias = Value | Failed | Refused | Cancelled
_TOO_LATE: Final[Answer] = Failed(DEADLINE_EXCEEDED, "the caller's deadline had passed")
"""The answer of a call that was cancelled before its function was called, or by its deadline."""
_PARKED_MAX: Final = 256
_PARKED: Final = object()


class Serve(Protocol):
    """Serves one call of the peer: see `orc_trio.abc.AccessHost.run_wrapper`."""

    def __call__(self, tag: int, args: bytes | memoryview, nested: bool) -> Awaitable[bytes | memoryview]:
        """Run the function under ``tag``."""


@attrs.define(eq=False)
class _Worker:
    """A task that serves one call after the other.

    Attributes:
        call: The call that it serves; None: it is parked.
        mark: That call's mark.
        scope: What that call's function runs in; the next one's too, unless this one uses it up.
        cancelled: Whether that call was cancelled.
        limited: Whether that call has a deadline.
        task: The task, once it has begun.
    """

    call: InboundCall | None
    mark: Serving
    scope: trio.CancelScope
    cancelled: bool = False
    limited: bool = False
    task: trio.lowlevel.Task | None = None

    def cancel(self) -> None:
        if self.mark.active:
            self.cancelled = True
            self.scope.cancel()

    def limit(self, deadline: float) -> None:
        if self.mark.active:
            self.limited = True
            self.scope.deadline = min(self.scope.deadline, deadline)


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
        self._context = contextvars.Context()
        self._workers: dict[InboundCall, _Worker] = {}
        self._parked: list[_Worker] = []
        self._dismissed = False
        self._idle = trio.Event()

    def begin(self) -> None:
        """From now on calls may come; each is served in a copy of the current context."""
        self._context = contextvars.copy_context()

    def start(self, call: InboundCall, nursery: trio.Nursery) -> None:
        """Begin to serve a call."""
        mark = Serving(self._by, call.nested)
        if self._parked:
            worker = self._parked.pop()
            worker.call, worker.mark = call, mark
            assert worker.task is not None
            worker.task.context = self._context.copy()
            trio.lowlevel.reschedule(worker.task)
        else:
            worker = _Worker(call, mark, trio.CancelScope())
            self._context.copy().run(partial(nursery.start_soon, self._run, worker, name="orc_trio handler"))
        self._workers[call] = worker
        if call.remaining < math.inf:
            worker.limit(trio.current_time() + call.remaining)

    def cancel(self, call: InboundCall) -> None:
        """Its caller has left."""
        if worker := self._workers.get(call):
            worker.cancel()

    def cancel_all(self) -> None:
        """The latch has fallen."""
        self._open = False
        for worker in self._workers.values():
            if self._grace and worker.mark.started:
                worker.limit(trio.current_time() + self._grace)
            else:
                worker.cancel()

    @staticmethod
    def room(call: InboundCall) -> None:
        """An answer that had to wait is queued."""
        if call.waiter is not None:  # None: cancelled before it was complete, so nobody ever served it
            call.waiter.set()

    async def wait_idle(self) -> None:  # noqa: ASYNC910
        """Wait until no call is being served.

        Checkpoints:
            If one is.

        Cancellation:
            Changes nothing.
        """
        while self._workers:
            self._idle = trio.Event()
            await self._idle.wait()

    def dismiss(self) -> None:
        """Let every task end that serves no call, now or as soon as that is so."""
        self._dismissed = True
        for worker in self._parked:
            assert worker.task is not None
            trio.lowlevel.reschedule(worker.task)
        self._parked.clear()

    @uninterrupted
    async def _run(self, worker: _Worker) -> None:  # noqa: ASYNC910
        worker.task = trio.lowlevel.current_task()
        try:
            while worker.call is not None:
                await self._serve_in_one_scope(worker)
        except BaseException as exc:  # our bug, or an interrupt  # noqa: ASYNC103
            if worker.call is None:
                raise
            self._fail(exc)
        finally:
            self._leave(worker)

    async def _serve_in_one_scope(self, worker: _Worker) -> None:  # noqa: ASYNC910
        """Serve calls in one scope until a call has used it up, or there are no more."""
        answer = _TOO_LATE
        scope = worker.scope
        try:
            with scope:
                while worker.call is not None:
                    enter(worker.mark)
                    # The latch may have fallen, its caller left, or its deadline passed before it could start.
                    if worker.cancelled or (worker.limited and scope.cancel_called):
                        break
                    answer = await self._call_function(worker.call)  # G13: nothing comes between
                    if worker.cancelled or worker.limited:  # type: ignore[redundant-expr]  # it was not, before that
                        break
                    await self._answer(worker, answer)
                    answer = _TOO_LATE  # G8: who is parked holds nothing of what it has done
                    await self._park(worker)
        except (trio.Cancelled, BaseExceptionGroup) as exc:  # noqa: ASYNC103
            if worker.call is None:
                raise
            # Nobody cancelled it: the function raised one it had kept, and that must not end the nursery.
            answer = self._logged(worker.call, exc)
        worker.scope, worker.cancelled, worker.limited = trio.CancelScope(), False, False
        if worker.call is not None:
            await self._answer(worker, answer)
            del answer
            await self._park(worker)

    async def _answer(self, worker: _Worker, answer: Answer) -> None:  # noqa: ASYNC910
        call = worker.call
        assert call is not None
        worker.mark.active = False
        call.payload = b""
        if not self._respond(call, answer):
            await call.waiter.wait()
        self._leave(worker)

    def _leave(self, worker: _Worker) -> None:
        if worker.call is not None:
            del self._workers[worker.call]
            worker.call = None
            if not self._workers:
                self._idle.set()

    async def _park(self, worker: _Worker) -> None:  # noqa: ASYNC910
        """Wait until there is another call, or there will be none."""
        if self._dismissed or len(self._parked) >= _PARKED_MAX:
            return  # noqa: ASYNC910
        assert worker.task is not None
        worker.task.context = self._context
        worker.task.custom_sleep_data = _PARKED
        self._parked.append(worker)
        await trio.lowlevel.wait_task_rescheduled(partial(self._unpark, worker))

    def _unpark(self, worker: _Worker, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._parked.remove(worker)
        return trio.lowlevel.Abort.SUCCEEDED

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
            name = self._workers[call].mark.name
            _log.error("%s failed, called under %#x", name or "the function", call.tag, exc_info=exc)
        return Failed(HANDLER_FAILED, "the function failed; its owner's log says why")  # G9: and nothing else does


def waits_for_a_call(task: trio.lowlevel.Task) -> bool:
    """Whether this is a connection's task that serves no call at the moment."""
    return task.custom_sleep_data is _PARKED


def _only_disconnected(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_only_disconnected(each) for each in exc.exceptions)
    return isinstance(exc, (DisconnectedError, NoControllerError))
