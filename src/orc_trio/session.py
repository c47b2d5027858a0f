"""The executor's root object: attaches to a controller once, runs its calls, and takes everything down in order.

Task tree
---------
::

    open_session()                    the owner's task: the body of the ``async with``
     └── _main()                      watches for the cancellation of its surroundings
          └── _take_down()            shielded; waits for a shutdown request, then takes everything down
               └── _run()             runs the attachment, then tells callbacks and services

States (G20): start → attached → detached → shut down; they never go back, and attaching is tried at most once.

The end (G14): the access's `run` returns → on-disconnect callbacks → every service's ``on_detach`` → (shutdown)
keepalives are released → every service's ``on_shutdown``, in reverse.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, overload

import attrs
import trio

from orc_trio.abc import ControllerAccess, Service
from orc_trio.attachment import Attachment
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.dispatch import Dispatcher
from orc_trio.exceptions import LocalProtocolError, NoControllerError, WrapperFunctionError
from orc_trio.interrupts import interruptible, uninterrupted, uninterrupted_context
from orc_trio.keepalives import Keepalive, Keepalives
from orc_trio.nesting import descends_from
from orc_trio.ownership import alongside, only_cancelled, raise_all
from orc_trio.protocol.limits import check_seconds
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.registry import Buffer, WrapperTable
from orc_trio.services import Services
from orc_trio.statistics import SESSION_TRANSITIONS, SessionState, SessionStatistics
from orc_trio.threads import SessionPortal

__all__ = ["Session", "open_session"]

OnError = Callable[[Exception], None]
OnDisconnect = Callable[[DisconnectReason], None]
_LOCAL_HANGUP = DisconnectReason(DisconnectKind.LOCAL_HANGUP)


class Session:
    """An executor's session.  Made by `open_session`.

    Attributes:
        wrappers: Its wrapper functions, by address.
    """

    def __init__(self, on_error: OnError | None, service_timeout: float, threads: float) -> None:
        self.wrappers: WrapperTable = WrapperTable()
        self._on_error = on_error
        self._bound = service_timeout
        self._keepalives = Keepalives()
        self._dispatcher = Dispatcher(
            self.wrappers.lookup, keepalive=self._keepalives.acquire_for_call, max_threads=threads
        )
        self._state = SessionState.START
        self._attachment: Attachment | None = None
        self._detached = trio.Event()
        self._shutdown_follows = False  # the detach
        self._shutdown_requested = trio.Event()
        self._shut_down = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._owner_scope: trio.CancelScope | None = None
        self._owner_cancelled = False
        self._patience = trio.CancelScope()
        self._callbacks: list[OnDisconnect] = []
        self._services = Services(service_timeout, inside=self._keepalives.uncounted, fail=self._fail)
        self._failures: list[BaseException] = []

    # What it is

    @property
    def state(self) -> SessionState:
        """Where it is in its life."""
        return self._state

    @property
    def disconnect_reason(self) -> DisconnectReason | None:
        """How its connection ended; None while it has not, or if there was none."""
        return None if self._attachment is None else self._attachment.end

    def statistics(self) -> SessionStatistics:
        """A frozen snapshot."""
        running = self._dispatcher.running
        connection = None
        if self._attachment is not None:
            connection = attrs.evolve(self._attachment.access.statistics(), running_handlers=running)
        return SessionStatistics(
            state=self._state,
            keepalives=self._keepalives.names,
            running_wrappers=running,
            connection=connection,
        )

    # What belongs to it

    @uninterrupted
    def add_service(self, service: Service) -> None:
        """Add a part that wants to know when the session ends.  After the detach its ``on_detach`` comes at once.

        Raises:
            LocalProtocolError: The session is shut down.
        """
        if self._state is SessionState.SHUT_DOWN:
            raise LocalProtocolError("the session is shut down")
        self._services.add(service)
        if self._detached.is_set():
            assert self._nursery is not None
            self._nursery.start_soon(self._tell_detached)

    def on_disconnect(self, callback: OnDisconnect) -> None:
        """Have ``callback`` called, once, with how the connection ended.  If it has ended, that is now.

        The callback is a plain function and must not raise: what it raises ends the session and goes to its owner.
        """
        if self.disconnect_reason is not None:
            callback(self.disconnect_reason)
        else:
            self._callbacks.append(callback)

    def keepalive(self, name: str) -> Keepalive:
        """Take the right to run code this session manages: a context manager; the shutdown waits for its release.

        Any thread may take and release one.

        Args:
            name: For logs and statistics.

        Raises:
            KeepaliveDeniedError: A shutdown was requested.
        """
        return self._keepalives.acquire(name)

    def thread_portal(self) -> SessionPortal:
        """A door for threads: `SessionPortal`.  On the Trio thread only; the portal itself goes anywhere."""
        return SessionPortal(self)

    # Attached

    @uninterrupted
    async def attach(self, access: ControllerAccess, bootstrap: BootstrapInfo) -> None:
        """Connect to the controller.  At most once in a session's life, whether it succeeds or not.

        Args:
            access: The way to the controller.
            bootstrap: What to tell it; sealed from here on.

        Raises:
            DisconnectedError: No agreement was reached (``CONNECT_FAILED``, ``NOT_SENT``); its reason says why.
            LocalProtocolError: There was an attach (or detach, or shutdown) before.
            BaseException: What the access raised, if it did that before it was connected.

        Checkpoints:
            Always.

        Cancellation:
            Gives the attempt up; it counts as the one.  Cancelled before it began nothing has happened: the access,
            and the stream in it, is the caller's still.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._attachment is not None or self._state is not SessionState.START or self._shutdown_requested.is_set():
            raise LocalProtocolError(f"a session attaches once; this one is {self._describe()}")
        assert self._nursery is not None
        attachment = Attachment(access, bootstrap, self._dispatcher, self._on_connected)
        self._attachment = attachment
        self._dispatcher.conversation = attachment
        self._nursery.start_soon(self._run, attachment, name="orc_trio controller access")
        await attachment.wait_connected()

    @overload
    async def call_controller(self, tag: int, args: Buffer, *, zero_copy: Literal[False] = False) -> bytes: ...

    @overload
    async def call_controller(self, tag: int, args: Buffer, *, zero_copy: bool) -> bytes | memoryview: ...

    async def call_controller(self, tag: int, args: Buffer, *, zero_copy: bool = False) -> bytes | memoryview:
        """Call the handler that the controller has associated with a tag.

        Args:
            tag: The handler tag, 0 … 2⁶⁴−1; from `BootstrapInfo.add_tag`.
            args: The argument bytes, at most the agreed ``max_message``.
            zero_copy: The result may be a `memoryview` of a buffer of its own.

        Returns:
            The result bytes.

        Raises:
            NoControllerError: Before attach, or after detach; nothing was sent.
            DisconnectedError: The connection stopped being open before the result came; says whether the call may
                have run.
            WrapperFunctionError: The handler answered with an error.
            UnknownHandlerTagError: The controller has nothing under that tag.
            CallRefusedError: The controller did not start it, or this end is detaching softly.
            MessageTooLargeError: The arguments are over the limit; nothing was sent.
            NestingLimitError: Made while serving a call, and the nested budget is used up; nothing was sent.

        Checkpoints:
            Always.

        Cancellation:
            Releases the caller at once; the handler's scope is cancelled too.  The caller's deadline travels along.

        Shape:
            Opaque bytes both ways.
        """
        if self._attachment is None or self._state is not SessionState.ATTACHED:
            await trio.lowlevel.checkpoint()
            raise NoControllerError(f"the session is {self._describe()}")
        attachment = self._attachment
        try:
            return await attachment.access.call_controller(tag, args, zero_copy=zero_copy)
        except WrapperFunctionError as exc:
            if exc._origin is None:  # it came by an access that is no connection of ours
                exc._origin = weakref.ref(attachment)
            raise

    async def wait_detached(self) -> DisconnectReason:
        """Wait until the connection is over, whoever ends it.

        Returns:
            How it ended.

        Raises:
            NoControllerError: The session was shut down without ever being attached.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        await self._detached.wait()
        if self.disconnect_reason is None:
            raise NoControllerError("the session was never attached")
        return self.disconnect_reason

    # The end

    @uninterrupted
    def begin_detach(self, *, finish_within: float = 0.0) -> DisconnectReason:
        """Begin to detach, and do not wait.  For those who cannot await; on the Trio thread.

        Args:
            finish_within: As for `detach`.

        Returns:
            The cause in force.  While calls are given time to finish there is none yet, and this is what it will be if
            nothing else comes first.

        Raises:
            ValueError: ``finish_within`` is negative.
        """
        check_seconds("finish_within", finish_within)
        if finish_within and self._attachment is not None:
            return self._attachment.begin_finish(finish_within)
        return self._begin_detach(_LOCAL_HANGUP)

    async def detach(self, *, finish_within: float = 0.0) -> DisconnectReason:
        """Hang up, and wait until it is over: no call in either direction is accepted, started or pending any more.

        Any task may call this, any number of times, in any state.  Who cannot wait for itself (a wrapper function, a
        holder of a keepalive, a service) starts it and gets the cause.

        Args:
            finish_within: Seconds that the calls in flight have to finish, both ways and with the nested calls they
                make, before the connection stops being open.  New ones are refused meanwhile, at both ends, with
                `CallRefusedError`.  Of several the first bound to run out counts.  0: stop now.

        Returns:
            How the connection ended: the same for everyone.  For who cannot wait: the cause; or, if calls are given
            time to finish, what it will be if nothing else comes first.

        Raises:
            ValueError: ``finish_within`` is negative.

        Checkpoints:
            Always.

        Cancellation:
            The detach goes on.
        """
        cause = self.begin_detach(finish_within=finish_within)
        if self._cannot_wait():
            await trio.lowlevel.checkpoint()
            return cause
        await self._detached.wait()
        return self.disconnect_reason or cause

    @uninterrupted
    def begin_shutdown(self, *, finish_within: float = 0.0) -> None:
        """Ask for the shutdown, and do not wait.  On the Trio thread.

        Args:
            finish_within: As for `shutdown`.

        Raises:
            ValueError: ``finish_within`` is negative.
        """
        check_seconds("finish_within", finish_within)
        if finish_within and self._state is SessionState.ATTACHED:
            self._shutdown_follows = True
            self.begin_detach(finish_within=finish_within)
        else:
            self._keepalives.deny()
            self._shutdown_requested.set()
            if self._nursery is not None:
                self._begin_detach(self._cause())  # in the same step: G22 refuses calls, and G14 says why

    async def shutdown(self, *, finish_within: float = 0.0) -> DisconnectReason | None:
        """Detach, wait for every keepalive, shut the services down, and wait until that is done (G24).

        Any task may call this, any number of times.  Who cannot wait for itself starts it and gets the cause.

        Args:
            finish_within: Seconds for the calls in flight, as for `detach`.  The shutdown is requested when the
                connection is over; until then keepalives are given.

        Returns:
            How the connection ended; None: there was none.

        Raises:
            ValueError: ``finish_within`` is negative.

        Checkpoints:
            Always.

        Cancellation:
            The shutdown goes on.
        """
        self.begin_shutdown(finish_within=finish_within)
        if self._cannot_wait():
            cause = self.begin_detach(finish_within=finish_within)
            await trio.lowlevel.checkpoint()
            return None if self._attachment is None else cause
        await self._shut_down.wait()
        return self.disconnect_reason

    # Inside

    def _describe(self) -> str:
        if self._state is not SessionState.START:
            return str(self._state.value)
        return "not attached yet" if self._attachment is None else "attaching"

    def _enter(self, state: SessionState) -> None:
        assert state in SESSION_TRANSITIONS[self._state].values(), (self._state, state)  # G20
        self._state = state

    def _cause(self) -> DisconnectReason:
        return DisconnectReason(DisconnectKind.OWNER_CANCELLED) if self._owner_cancelled else _LOCAL_HANGUP

    def _cannot_wait(self) -> bool:
        return descends_from(self._nursery) or self._keepalives.held_here()

    def _on_connected(self) -> None:
        self._enter(SessionState.ATTACHED)

    def _begin_detach(self, reason: DisconnectReason) -> DisconnectReason:
        if self._attachment is not None:
            return self._attachment.begin_disconnect(reason)
        if self._state is SessionState.START:
            assert self._nursery is not None
            self._enter(SessionState.DETACHED)
            self._nursery.start_soon(self._tell_detached)
        return reason

    @uninterrupted
    async def _run(self, attachment: Attachment) -> None:
        await attachment.run()
        assert attachment.end is not None
        self._enter(SessionState.DETACHED)
        for callback in self._callbacks:
            try:
                interruptible(callback, attachment.end)
            except BaseException as exc:  # noqa: ASYNC103
                self._fail(exc)
        await self._tell_detached()
        if (error := attachment.settle()) is not None:
            self._fail(error)

    @uninterrupted
    async def _tell_detached(self) -> None:
        await self._services.tell_detached(self.disconnect_reason)
        self._detached.set()
        if self._shutdown_follows:
            self.begin_shutdown()

    def _fail(self, exc: BaseException) -> None:
        """End the session, and raise ``exc`` to its owner."""
        self._failures.append(exc)
        self.begin_shutdown()
        assert self._owner_scope is not None
        self._owner_scope.cancel()

    async def _main(self) -> None:
        cancelled: trio.Cancelled | None = None
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(self._take_down, name="orc_trio session's end")
            try:
                await self._shut_down.wait()
            except trio.Cancelled as exc:  # noqa: ASYNC103
                cancelled = exc
                self._stop(exc)  # G18: not when the body has noticed, which may take its time
            nursery.cancel_scope.shield = True
        self._report()
        if cancelled is not None:
            raise cancelled

    @uninterrupted
    async def _take_down(self) -> None:
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery(strict_exception_groups=True) as nursery:
                    self._nursery = nursery
                    await self._shutdown_requested.wait()
                    self._begin_detach(self._cause())
                    await self._detached.wait()
                    if await self._keepalives.wait_released(self._patience):
                        await self._services.shut_down(self.disconnect_reason)
                    self._enter(SessionState.SHUT_DOWN)  # in the step in which the last service was shut down
        finally:
            self._state = SessionState.SHUT_DOWN  # whatever happened: our bug, an interrupt
            self._detached.set()
            self._shut_down.set()

    def _report(self) -> None:
        failures = list(self._failures)
        if self._owner_cancelled:
            self._services.report_errors(self._on_error)
        elif self._services.errors:
            failures.append(ExceptionGroup("the session's services failed", self._services.errors))
        raise_all("the session's functions, callbacks or services failed", failures)

    def _stop(self, exc: BaseException | None) -> None:
        if exc is not None and not isinstance(exc, Exception):
            # Cancelled or interrupted: no wait is without a bound any more (G18, G22).
            deadline = trio.current_time() + self._bound
            self._patience.deadline = min(self._patience.deadline, deadline)
            if self._attachment is not None:
                self._attachment.hurry(deadline)
            self._owner_cancelled |= only_cancelled(exc) and not self._failures
        self.begin_shutdown()


@uninterrupted_context
@asynccontextmanager
@uninterrupted
async def open_session(
    *, on_error: OnError | None = None, service_timeout: float = 5.0, threads: float = 40
) -> AsyncIterator[Session]:
    """Open an executor's session.

    An async context manager: leaving it shuts the session down and waits until that is done.

    Args:
        on_error: Told of errors that cannot be raised because the owner is being cancelled; default: they are logged.
        service_timeout: Seconds each service has for ``on_detach`` and ``on_shutdown``, and, if the owner is
            cancelled, that keepalives have to be released.
        threads: How many threaded functions may run at once; `math.inf`: as many as are called.  More calls wait.
            Nested calls do not count (G7).

    Yields:
        The session, not attached yet.

    Raises:
        ExceptionGroup: What services raised (G23).
        BaseException: What a wrapper function raised that is no `Exception`, or what a callback raised.

    Checkpoints:
        Leaving, always.

    Cancellation:
        Shuts down within bounds, shielded; then goes on.
    """
    session = Session(on_error, service_timeout, threads)
    async with alongside(session._main, session._stop, "orc_trio session") as scope:
        session._owner_scope = scope
        while session._nursery is None:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        yield session
