"""The controller's end of one connection: decides what runs, serves what running code may call back.

Task tree
---------
::

    open_controller()                 the owner's task: the body of the ``async with``
     └── _main()                      runs the connection, then tells on_disconnect

Everything that ends the connection ends `_main`, and with it every wait for the end; leaving the body ends the
connection.  A connection that fails by our fault (a handler raised a `BaseException`, or on_disconnect raised) ends the
body too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Literal, overload

import trio

from orc_trio.abc import MessageTransport
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.connection import Connection
from orc_trio.dispatch import Dispatcher
from orc_trio.exceptions import DisconnectedError, NoControllerError
from orc_trio.interrupts import interruptible, uninterrupted, uninterrupted_context
from orc_trio.ownership import alongside, only_cancelled, raise_all
from orc_trio.protocol import Limits, Role, Setup
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason, cause_of
from orc_trio.registry import Buffer, Handler, HandlerRegistry
from orc_trio.sockets import as_transport
from orc_trio.statistics import ConnectionStatistics
from orc_trio.threads import ControllerPortal

__all__ = ["Controller", "open_controller"]

OnDisconnect = Callable[[DisconnectReason], None]


class Controller:
    """The controller's end of one connection.  Made by `open_controller`."""

    def __init__(
        self,
        transport: MessageTransport,
        registry: HandlerRegistry,
        limits: Limits,
        on_disconnect: OnDisconnect | None,
    ) -> None:
        self._registry = registry
        self._on_disconnect = on_disconnect
        self._handlers: Mapping[int, Handler] = {}
        self._bootstrap: BootstrapInfo | None = None
        self._connected = trio.Event()
        self._over = trio.Event()
        self._dispatcher = Dispatcher(self._lookup, max_nested_threads=limits.max_nested_calls)
        self._connection = Connection(
            transport,
            Role.CONTROLLER,
            limits,
            self._dispatcher.serve,
            on_agreed=self._agree,
            running=lambda: self._dispatcher.running,
        )

    @property
    def bootstrap(self) -> BootstrapInfo:
        """What the executor said about itself; sealed."""
        if self._bootstrap is None:
            raise NoControllerError("the executor has not connected")
        return self._bootstrap

    @property
    def disconnect_reason(self) -> DisconnectReason | None:
        """How it ended; None while it has not."""
        return self._connection.end if self._over.is_set() else None

    def statistics(self) -> ConnectionStatistics:
        """A frozen snapshot: calls, bytes, handlers still running, state."""
        return self._connection.statistics()

    @overload
    async def call_wrapper(self, address: int, args: Buffer, *, zero_copy: Literal[False] = False) -> bytes: ...

    @overload
    async def call_wrapper(self, address: int, args: Buffer, *, zero_copy: bool) -> bytes | memoryview: ...

    async def call_wrapper(self, address: int, args: Buffer, *, zero_copy: bool = False) -> bytes | memoryview:
        """Call a wrapper function in the executor.

        Args:
            address: Its executor address, 0 … 2⁶⁴−1; usually from ``bootstrap.symbols``.
            args: The argument bytes, at most the agreed ``max_message``.
            zero_copy: The result may be a `memoryview` of a buffer of its own.

        Returns:
            The result bytes.

        Raises:
            DisconnectedError: The connection stopped being open before the result came; says whether the call may
                have run.
            NoControllerError: The connection is over; nothing was sent.
            WrapperFunctionError: The function answered with an error; also if its deadline passed there first
                (``remote_type`` is ``"DeadlineExceeded"``), or if it failed unexpectedly (``"HandlerFailed"``).
            UnknownHandlerTagError: Nothing is at that address.
            CallRefusedError: The executor is shutting down, or this end is disconnecting softly; it was not started.
            MessageTooLargeError: The arguments are over the limit; nothing was sent.
            NestingLimitError: Made while serving a call, and the nested budget is used up; nothing was sent.

        Checkpoints:
            Always.

        Cancellation:
            Releases the caller at once; the function's scope in the executor is cancelled too.  The caller's
            deadline travels with the call.

        Shape:
            Opaque bytes both ways.
        """
        return await self._connection.call(address, args, zero_copy=zero_copy)

    def begin_disconnect(self, *, finish_within: float = 0.0) -> DisconnectReason:
        """Begin to disconnect, and do not wait for the end.  For those who cannot await; on the Trio thread.

        Args:
            finish_within: As for `disconnect`.

        Returns:
            The cause in force: a local hang-up, or what came before it.  While calls are given time to finish there is
            none yet, and this is what it will be if nothing else comes first.

        Raises:
            ValueError: ``finish_within`` is negative.
        """
        return self._connection.finish(finish_within)

    async def disconnect(self, *, finish_within: float = 0.0) -> DisconnectReason:
        """Hang up, and wait until it is over: no call in either direction is accepted, started or pending any more.

        Any task may call this, any number of times.  From within a handler of this connection it starts the
        disconnect and does not wait (it would wait for itself).

        Args:
            finish_within: Seconds that the calls in flight have to finish, both ways and with the nested calls they
                make, before the connection stops being open.  New ones are refused meanwhile, at both ends, with
                `CallRefusedError`.  Of several disconnects the first bound to run out counts.  0: stop now.

        Returns:
            How it ended: the same for everyone.  Within a handler: the cause; or, if calls are given time to finish,
            what it will be if nothing else comes first.

        Raises:
            ValueError: ``finish_within`` is negative.

        Checkpoints:
            Always.

        Cancellation:
            The disconnect goes on.
        """
        cause = self.begin_disconnect(finish_within=finish_within)
        if self._connection.cannot_wait():
            await trio.lowlevel.checkpoint()
            return cause
        return await self.wait_disconnected()

    async def wait_disconnected(self) -> DisconnectReason:
        """Wait until it is over, whoever ends it.

        Returns:
            How it ended.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        await self._over.wait()
        assert self._connection.end is not None
        return self._connection.end

    def thread_portal(self) -> ControllerPortal:
        """A door for threads: `ControllerPortal`.  On the Trio thread only; the portal itself goes anywhere."""
        return ControllerPortal(self)

    def _lookup(self, tag: int) -> Handler | None:
        return self._handlers.get(tag)

    def _agree(self, setup: Setup) -> None:
        self._handlers = self._registry.bind(setup.symbols)
        self._bootstrap = BootstrapInfo(
            triple=setup.triple, page_size=setup.page_size, values=setup.values, symbols=setup.symbols
        )
        self._connected.set()

    async def _main(self) -> None:  # noqa: ASYNC910
        failures: list[BaseException] = []
        try:
            with self._registry.frozen():
                await self._connection.run()
        except BaseException as exc:  # noqa: ASYNC103
            failures.append(exc)
        try:
            if self._on_disconnect is not None and self._connection.end is not None:
                interruptible(self._on_disconnect, self._connection.end)
        except BaseException as exc:  # noqa: ASYNC103
            failures = [*(failure for failure in failures if not isinstance(failure, trio.Cancelled)), exc]
        self._over.set()
        raise_all("both the connection and on_disconnect failed", failures)
        self._connected.set()  # not if it failed: that cancels the body, and is what leaves

    def _stop(self, exc: BaseException | None) -> None:
        kind = DisconnectKind.OWNER_CANCELLED if only_cancelled(exc) else DisconnectKind.LOCAL_HANGUP
        self._connection.latch(DisconnectReason(kind))

    async def _wait_connected(self) -> None:
        await self._connected.wait()
        if self._bootstrap is None:
            end = self._connection.end
            assert end is not None
            raise DisconnectedError(cause_of(end), Certainty.NOT_SENT)


@uninterrupted_context
@asynccontextmanager
@uninterrupted
async def open_controller(
    stream_or_transport: trio.abc.Stream | MessageTransport,
    registry: HandlerRegistry,
    *,
    limits: Limits | None = None,
    on_disconnect: OnDisconnect | None = None,
) -> AsyncIterator[Controller]:
    """Be the controller at the other end of a stream.

    An async context manager: entering waits until both ends agree, leaving hangs up and waits until it is over.

    Args:
        stream_or_transport: What leads to the executor; belongs to the controller from here on.
        registry: The handlers the executor may call; frozen while connected.
        limits: What this end is willing to hold, and its times; default: `Limits()`.
        on_disconnect: Called once, with how it ended, when it is over.

    Yields:
        The controller.

    Raises:
        DisconnectedError: No agreement was reached; its reason says why.  Also raised if a handler is registered for
            a symbol this executor lacks.
        TypeError: It is neither a stream nor a message transport.
        ValueError: A liveness timeout, a part size or a send buffer is set, and the transport cannot do that.
        BaseException: What a handler raised that is no `Exception`, or what on_disconnect raised.

    Checkpoints:
        Entering and leaving, always.

    Cancellation:
        Ends the connection as OWNER_CANCELLED after a bounded, shielded goodbye; then goes on.
    """
    controller = Controller(as_transport(stream_or_transport), registry, limits or Limits(), on_disconnect)
    async with alongside(controller._main, controller._stop, "orc_trio controller"):
        await controller._wait_connected()
        yield controller
