"""The usual way to a controller: a connection over a stream or any other message transport."""

from __future__ import annotations

import trio

from orc_trio.abc import AccessHost, ControllerAccess, MessageTransport
from orc_trio.connection import Connection, check_limits
from orc_trio.exceptions import LocalProtocolError, NoControllerError
from orc_trio.interrupts import uninterrupted
from orc_trio.protocol import Limits, Role, Setup
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.registry import Buffer
from orc_trio.sockets import as_transport
from orc_trio.statistics import ConnectionStatistics

__all__ = ["StreamControllerAccess"]


class StreamControllerAccess(ControllerAccess):
    """Reaches the controller through a stream.

    Args:
        stream_or_transport: What leads to the controller; belongs to this access from here on.
        limits: What this end is willing to hold, and its times; default: `Limits()`.
        identity: Who this executor is, for people; told to the controller.

    Raises:
        TypeError: It is neither a stream nor a message transport.
        ValueError: A liveness timeout, a part size or a send buffer is set, and the transport cannot do that.
    """

    def __init__(
        self,
        stream_or_transport: trio.abc.Stream | MessageTransport,
        *,
        limits: Limits | None = None,
        identity: str = "orc_trio executor",
    ) -> None:
        self._transport = as_transport(stream_or_transport)
        self._limits = limits or Limits()
        check_limits(self._transport, self._limits)
        self._identity = identity
        self._started = False
        self._connection: Connection | None = None
        self._early: DisconnectReason | None = None

    @uninterrupted
    async def run(self, host: AccessHost) -> DisconnectReason:
        """Connect, serve, and return when it is over; see `ControllerAccess.run`.

        Raises:
            LocalProtocolError: The bootstrap information does not fit into a setup message; or this was run before.

        Checkpoints:
            Always.

        Cancellation:
            Ends as ``OWNER_CANCELLED`` after a bounded goodbye, then goes on.
        """
        if self._started:
            raise LocalProtocolError("a controller access is run once")
        self._started = True
        try:
            bootstrap = host.bootstrap
            setup = Setup.of(
                Role.EXECUTOR,
                self._limits,
                identity=self._identity,
                triple=bootstrap.triple,
                page_size=bootstrap.page_size,
                values=bootstrap.values,
                symbols=bootstrap.symbols,
            )
            connection = Connection(
                self._transport,
                Role.EXECUTOR,
                self._limits,
                host.run_wrapper,
                setup=setup,
                on_agreed=lambda _setup: host.connected(),
                running=host.running,
            )
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._transport.aclose()
            raise
        self._connection = connection
        if self._early is not None:
            connection.latch(self._early)
        return await connection.run()

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        """Stop being open, now; see `ControllerAccess.begin_disconnect`."""
        reason = reason or DisconnectReason(DisconnectKind.LOCAL_HANGUP)
        if self._connection is not None:
            return self._connection.latch(reason)
        self._early = self._early or reason
        return self._early

    def begin_finish(self, within: float) -> DisconnectReason:
        """Let the calls in flight finish first; see `ControllerAccess.begin_finish`."""
        return self.begin_disconnect() if self._connection is None else self._connection.finish(within)

    async def call_controller(self, tag: int, args: Buffer, *, zero_copy: bool = False) -> bytes | memoryview:
        """Call a handler; see `ControllerAccess.call_controller`.

        Raises:
            OrcError: As there.

        Checkpoints:
            Always.

        Cancellation:
            As there.
        """
        if self._connection is None:
            await trio.lowlevel.checkpoint()
            raise NoControllerError("not connected yet")
        return await self._connection.call(tag, args, zero_copy=zero_copy)

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of what it holds."""
        return ConnectionStatistics(state="new") if self._connection is None else self._connection.statistics()
