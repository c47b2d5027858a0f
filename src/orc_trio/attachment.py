"""A session's one attachment: runs its controller access, is its host, and says how it ended.

An access may be written by somebody else, and may be wrong.  What a wrong one does here:

* `run` raises: the end is INTERNAL_ERROR (or the cause in force), and the exception is kept for the session's owner.
* `run` returns something that is no reason: the same, with a TypeError.
* `run` returns before it was connected: a failed attach, ``CONNECT_FAILED`` (G20), with what it returned as its cause.
* `begin_disconnect` or `begin_finish` raises: `run` is cancelled; that exception is kept.
* `run` does not return: the session waits, until its owner is cancelled and the bound has run out (G18); then `run` is
  cancelled.
* It runs wrapper functions when it is over: they are refused (G13).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from orc_trio.abc import ControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.dispatch import Dispatcher
from orc_trio.exceptions import CallRefusedError, DisconnectedError
from orc_trio.interrupts import interruptible_async
from orc_trio.reasons import OWN_ENDS, Certainty, DisconnectKind, DisconnectReason, cause_of, describe_error

__all__ = ["Attachment"]

_log = logging.getLogger("orc_trio")


class Attachment:
    """One controller access, attached; its `orc_trio.abc.AccessHost`.

    Args:
        access: The access.
        bootstrap: What to tell the controller; sealed from here on.
        dispatcher: Runs the wrapper functions.
        on_connected: Called when the controller has accepted us.

    Attributes:
        end: How it ended; None while it has not.
    """

    def __init__(
        self,
        access: ControllerAccess,
        bootstrap: BootstrapInfo,
        dispatcher: Dispatcher,
        on_connected: Callable[[], None],
    ) -> None:
        self.access = access
        self.bootstrap = bootstrap
        self.end: DisconnectReason | None = None
        self._error: BaseException | None = None
        self._was_connected = False
        self._awaited = True  # by `wait_connected`
        self._settled = trio.Event()
        self._dispatcher = dispatcher
        self._on_connected = on_connected
        self._scope = trio.CancelScope()
        bootstrap.seal()

    # What the access sees

    def connected(self) -> None:
        """The controller has accepted us."""
        if not self._was_connected and self.end is None:
            self._was_connected = True
            self._on_connected()
            self._settled.set()

    async def run_wrapper(self, tag: int, args: bytes | memoryview, nested: bool = False) -> bytes | memoryview:
        """Run a wrapper function; see `orc_trio.abc.AccessHost.run_wrapper`.

        Raises:
            CallRefusedError: It is over, or the session is shutting down.
            BaseException: What the function raised.

        Checkpoints:
            If the function does.

        Cancellation:
            Reaches an async function; lets a threaded one go.
        """
        if self.end is not None:
            raise CallRefusedError("the session is detached")
        serving = self._dispatcher.serve(tag, args, nested)
        del args  # the function's alone from here on
        return await serving

    def running(self) -> tuple[str, ...]:
        """The names of the wrapper functions that are running."""
        return self._dispatcher.running

    # What the session sees

    def begin_disconnect(self, reason: DisconnectReason) -> DisconnectReason:
        """Stop being open, now.

        Returns:
            The cause in force; the end, if it is over.
        """
        return self._ask(lambda: self.access.begin_disconnect(reason), reason)

    def begin_finish(self, within: float) -> DisconnectReason:
        """Stop being open when the calls in flight have finished, or after ``within`` seconds.

        Returns:
            The cause in force, or what it will be; the end, if it is over.
        """
        reason = DisconnectReason(DisconnectKind.LOCAL_HANGUP)
        if not self._was_connected:  # nothing can be in flight
            return self.begin_disconnect(reason)
        return self._ask(lambda: self.access.begin_finish(within), reason)

    def _ask(self, question: Callable[[], DisconnectReason], reason: DisconnectReason) -> DisconnectReason:
        if self.end is not None:
            return self.end
        try:
            return question()
        except Exception as exc:
            self._error = self._error or exc
            self._scope.cancel()
            return reason

    async def wait_connected(self) -> None:
        """Wait until the controller has accepted us; once.

        Raises:
            DisconnectedError: It did not.
            BaseException: What the access raised instead of connecting.

        Checkpoints:
            Always.

        Cancellation:
            Gives up.
        """
        try:
            await self._settled.wait()
        except BaseException:
            self._awaited = False
            self.begin_disconnect(DisconnectReason(DisconnectKind.LOCAL_HANGUP))
            raise
        if not self._was_connected:
            if self._error is not None:
                raise self._error
            assert self.end is not None
            raise DisconnectedError(cause_of(self.end), Certainty.NOT_SENT)

    def settle(self) -> BaseException | None:
        """It is over, and everybody was told.

        Returns:
            What the access raised, unless it was raised by `wait_connected`.
        """
        self._settled.set()
        return self._error if self._was_connected or not self._awaited else None

    def hurry(self, deadline: float) -> None:
        """Be over at ``deadline``, on Trio's clock."""
        self._scope.deadline = min(self._scope.deadline, deadline)

    async def run(self) -> None:  # noqa: ASYNC910
        """Run the access until it is over.

        Checkpoints:
            If the access does.

        Cancellation:
            Is the access's.
        """
        end: object = None
        try:
            with self._scope:
                end = await interruptible_async(self.access.run, self)
                if not isinstance(end, DisconnectReason):
                    raise TypeError(f"a controller access must return how it ended, not {end!r}")
        except BaseException as exc:  # noqa: ASYNC103
            self._error = self._error or exc
        if not isinstance(end, DisconnectReason):
            detail = "the controller access did not end in time, and was cancelled"
            if self._error is None:
                _log.warning("%s", detail)
            else:
                detail = describe_error(self._error)
            end = self.begin_disconnect(DisconnectReason(DisconnectKind.INTERNAL_ERROR, detail))
        self.end = end if self._was_connected else _not_connected(end)


def _not_connected(end: DisconnectReason) -> DisconnectReason:
    """How an attachment ended that never came to be."""
    if end.kind is DisconnectKind.DRAIN_TIMEOUT and end.cause is not None:
        return attrs.evolve(end, cause=_not_connected(end.cause))  # G11: around the cause, not inside it
    if end.kind in OWN_ENDS:
        return end
    return DisconnectReason(DisconnectKind.CONNECT_FAILED, "the controller did not accept us", end)
