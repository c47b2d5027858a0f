"""`open_connection`: from a connection spec to an open transport, and its end.

Rules
-----
* What can be refused without opening anything is refused first: the spec, then its descriptor, then the
  vetting.
* The transport belongs to the ``async with`` block; leaving it closes every descriptor, whatever happened
  inside, and neither hides nor replaces the exception that left the block (G18).

`default_connectors` lives here because this is the one place that knows all of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from orc_trio.abc import MessageTransport
from orc_trio.interrupts import interruptible, uninterrupted, uninterrupted_context
from orc_trio.transports.connectors import ConnectorRegistry, OnListening, connect_failed, explain
from orc_trio.transports.pipes import PipeAdopter
from orc_trio.transports.sockets import SocketAdopter
from orc_trio.transports.specs import ConnectionSpec
from orc_trio.transports.tcp import TcpConnector, TcpListener
from orc_trio.transports.unix import UnixConnector, UnixListener
from orc_trio.transports.vetting import VettedPeer

__all__ = ["default_connectors", "open_connection"]


def default_connectors() -> ConnectorRegistry:
    """A new registry of the connectors that come with orc_trio; add your own to it.

    They are ``pipe:adopt``, ``socket:adopt``, ``tcp:connect``, ``tcp:listen``, ``unix:connect`` and
    ``unix:listen``.
    """
    registry = ConnectorRegistry()
    registry.register("tcp", "connect", TcpConnector())
    registry.register("tcp", "listen", TcpListener())
    registry.register("unix", "connect", UnixConnector())
    registry.register("unix", "listen", UnixListener())
    registry.register("socket", "adopt", SocketAdopter())
    registry.register("pipe", "adopt", PipeAdopter())
    return registry


@uninterrupted_context
@asynccontextmanager
@uninterrupted
async def open_connection(
    spec: ConnectionSpec | str,
    *,
    vetted: VettedPeer | None = None,
    connectors: ConnectorRegistry | None = None,
    on_listening: OnListening | None = None,
) -> AsyncGenerator[MessageTransport]:
    """Connect to a peer, accept one, or adopt one, as the spec says; close the transport on leaving.

    Args: spec: What to reach; text is parsed. vetted: Why the other end is trusted; None takes the
        connector's default (TCP has none, see `VettedPeer`). connectors: Where the spec is looked up; None
        takes `default_connectors`. on_listening: Called by a listening connector once it can be reached, with
        the spec of where it listens.  If it raises, listening ends and the exception goes to the caller.

    Yields:
        The transport, open.  It is closed forcefully on leaving: whoever wants to say goodbye does so before.

    Raises:
        ConnectionSpecError: The spec or the vetting cannot be used; nothing was opened.  The caller's fault.
        DisconnectedError: The peer cannot be reached or is not trusted: CONNECT_FAILED, NOT_SENT (G20).

    Checkpoints:
        On entering, at least one.  A listening connector waits for its peer without a bound: put a
        `trio.move_on_after` around it if that may be in vain.

    Cancellation:
        Leaves nothing open.
    """
    if isinstance(spec, str):
        spec = ConnectionSpec.parse(spec)
    connector = (default_connectors() if connectors is None else connectors).find(spec)
    connector.check(spec)
    vetted = connector.vet(spec, vetted)
    raised: list[OSError] = []  # by the caller's own function, so not about the peer

    def listening(bound: ConnectionSpec) -> None:
        assert on_listening is not None
        try:
            interruptible(on_listening, bound)
        except OSError as exc:
            raised.append(exc)
            raise

    try:
        transport = await connector.open(spec, vetted=vetted, on_listening=None if on_listening is None else listening)
    except OSError as exc:
        if exc in raised:
            raise
        raise connect_failed(spec, explain(exc)) from exc
    try:
        yield transport
    finally:
        # G18: closing never waits; without the shield, a pending cancellation would replace what left the body.
        with trio.CancelScope(shield=True):
            await transport.aclose()
