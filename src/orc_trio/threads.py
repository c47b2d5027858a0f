"""The door for threads: call and stop from any thread, also one Trio did not start, at any time.

Rules
-----
* A portal's methods block the calling thread.  On the Trio thread they raise RuntimeError: they would block everything.
* They work at any time: before the connection, during, after it, and after the Trio run has ended.  Then there is
  nothing to wait for: a call fails, and a disconnect says how it ended (G12).
* A call made in a thread that serves a call is nested, as it is in a task (G7): the thread's context carries the mark.
* A failed call never surfaces as `trio.Cancelled` (G11): a foreign thread has no cancel scope that could catch it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

import trio

from orc_trio.exceptions import DisconnectedError, NoControllerError
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.registry import Buffer

__all__ = ["ControllerPortal", "Portal", "RunEnded", "SessionPortal"]

T = TypeVar("T")


class RunEnded(Exception):
    """The Trio run that a portal leads to has ended, or is ending."""


class Portal:
    """Runs async functions in one Trio run, from other threads.  The base of the session's and controller's portals.

    Made on the Trio thread.
    """

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def _run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run ``function`` and wait for it.

        Raises:
            RunEnded: The run has ended.
            RuntimeError: This is the Trio thread.
        """
        if trio.lowlevel.in_trio_run():
            raise RuntimeError("a thread portal blocks its thread: on the Trio thread, await the async method instead")
        try:
            return trio.from_thread.run(function, trio_token=self._token)
        except trio.RunFinishedError as exc:
            raise RunEnded from exc

    def _end(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run what waits for the end, to its end: nothing takes longer than that, and a thread cannot be cancelled.

        Raises:
            RunEnded: The run has ended.
            RuntimeError: This is the Trio thread.
        """

        async def shielded() -> T:
            with trio.CancelScope(shield=True):
                result = await function()
            return result  # noqa: RET504  (mypy takes a return inside for one that may not happen)

        return self._run(shielded)

    def _call(
        self,
        function: Callable[[int, Buffer], Awaitable[bytes | memoryview]],
        where: int,
        args: Buffer,
        end: Callable[[], DisconnectReason | None],
    ) -> bytes:
        """Make a call and wait for its result."""
        try:
            return bytes(self._run(partial(function, where, args)))
        except RunEnded as exc:
            raise NoControllerError("the Trio run has ended") from exc
        except trio.Cancelled as exc:
            # G11: the run is ending, and with it everything that was connected.
            reason = end() or DisconnectReason(DisconnectKind.OWNER_CANCELLED, "the Trio run has ended")
            raise DisconnectedError(reason, Certainty.UNKNOWN) from exc  # noqa: ASYNC104


class _Controller(Protocol):
    @property
    def disconnect_reason(self) -> DisconnectReason | None: ...
    def begin_disconnect(self) -> DisconnectReason: ...
    async def call_wrapper(self, address: int, args: Buffer) -> bytes | memoryview: ...
    async def disconnect(self, *, finish_within: float) -> DisconnectReason: ...


class _Session(Protocol):
    @property
    def disconnect_reason(self) -> DisconnectReason | None: ...
    def begin_detach(self) -> DisconnectReason: ...
    async def call_controller(self, tag: int, args: Buffer) -> bytes | memoryview: ...
    async def detach(self, *, finish_within: float) -> DisconnectReason: ...
    async def shutdown(self, *, finish_within: float) -> DisconnectReason | None: ...


class ControllerPortal(Portal):
    """A controller's door for threads.  Made by `Controller.thread_portal`."""

    def __init__(self, controller: _Controller) -> None:
        super().__init__()
        self._controller = controller

    def call_wrapper(self, address: int, args: Buffer) -> bytes:
        """Call a wrapper function in the executor and wait for its result; see `Controller.call_wrapper`.

        Raises:
            RuntimeError: This is the Trio thread.
            OrcError: As for `Controller.call_wrapper`.
        """
        return self._call(self._controller.call_wrapper, address, args, lambda: self._controller.disconnect_reason)

    def disconnect(self, *, finish_within: float = 0.0) -> DisconnectReason:
        """Hang up and wait until it is over; see `Controller.disconnect`.  A thread that runs a handler does not wait.

        Args:
            finish_within: Seconds that calls in flight have to finish.

        Returns:
            How it ended.

        Raises:
            RuntimeError: This is the Trio thread.
            ValueError: ``finish_within`` is negative.
        """
        try:
            return self._end(partial(self._controller.disconnect, finish_within=finish_within))
        except RunEnded:
            return self._controller.disconnect_reason or self._controller.begin_disconnect()


class SessionPortal(Portal):
    """A session's door for threads.  Made by `Session.thread_portal`."""

    def __init__(self, session: _Session) -> None:
        super().__init__()
        self._session = session

    def call_controller(self, tag: int, args: Buffer) -> bytes:
        """Call a handler of the controller and wait for its result; see `Session.call_controller`.

        Raises:
            RuntimeError: This is the Trio thread.
            OrcError: As for `Session.call_controller`.
        """
        return self._call(self._session.call_controller, tag, args, lambda: self._session.disconnect_reason)

    def detach(self, *, finish_within: float = 0.0) -> DisconnectReason:
        """Detach and wait until it is over; see `Session.detach`.  A thread that runs a wrapper function does not wait.

        Args:
            finish_within: Seconds that calls in flight have to finish.

        Returns:
            How it ended.

        Raises:
            RuntimeError: This is the Trio thread.
            ValueError: ``finish_within`` is negative.
        """
        try:
            return self._end(partial(self._session.detach, finish_within=finish_within))
        except RunEnded:
            return self._session.disconnect_reason or self._session.begin_detach()

    disconnect = detach

    def shutdown(self, *, finish_within: float = 0.0) -> DisconnectReason | None:
        """Shut the session down and wait until it is; see `Session.shutdown`.

        Args:
            finish_within: Seconds that calls in flight have to finish.

        Returns:
            How the connection ended; None: there was none.

        Raises:
            RuntimeError: This is the Trio thread.
            ValueError: ``finish_within`` is negative.
        """
        try:
            return self._end(partial(self._session.shutdown, finish_within=finish_within))
        except RunEnded:
            return self._session.disconnect_reason
