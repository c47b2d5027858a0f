"""What a connector is, and the registry in which a connection spec is looked up.

Rules
-----
* A connector is one way of reaching a peer, registered by (transport, action), explicitly: nothing is found
  by import or entry point, because whatever can open a connection can let somebody send us code.  A duplicate
  is an error.
* Everything that can be refused without opening anything (the descriptor's text, the `VettedPeer`) is refused
  in `Connector.check` and `Connector.vet`, which `open_connection` calls first.
* One spec gives one peer.  A listening connector accepts exactly one vetted peer and stops listening.
* A spec or a vetting that cannot be used is a `ConnectionSpecError`; a peer that cannot be reached, or was
  and is not trusted, is a `DisconnectedError` of kind CONNECT_FAILED and certainty NOT_SENT (G11, G20).

Theory
------
Whoever adds a transport (shared memory, TLS, a message queue) writes a `Connector` and registers it.  What
`open` returns is any `MessageTransport`, so it need not be a byte stream.

Refused: connectors that accept any `VettedPeer` without saying so; specs that name several peers.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Iterator

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import ConnectionSpecError, DisconnectedError
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.transports.specs import ConnectionSpec
from orc_trio.transports.vetting import VettedPeer

__all__ = ["Connector", "ConnectorRegistry", "OnListening"]

OnListening = Callable[[ConnectionSpec], object]
"""Told where a listening connector listens (port 0 replaced), once it can be reached.  Must not block; what
it returns is ignored, so `trio.TaskStatus.started` will do.
"""


class Connector(abc.ABC):
    """One way of reaching a peer.  Stateless: one instance serves any number of connections."""

    trusts: frozenset[VettedPeer]
    """The answers to "why do we trust the other end" that can be true of this connector."""
    trusts_by_default: VettedPeer | None
    """The answer assumed when the caller gives none; None if the caller has to give one."""
    trust_advice: str
    """One sentence for somebody who gave another answer."""

    @abc.abstractmethod
    def check(self, spec: ConnectionSpec) -> None:
        """Say whether the descriptor can be understood.  Opens nothing.

        Raises:
            ConnectionSpecError: It cannot; the one-line message says what could.
        """

    @abc.abstractmethod
    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        """Reach one peer.  Called after `check` and `vet` have passed.

        Args: spec: What to reach. vetted: One of `trusts`. on_listening: To be called once, with a spec that
            a peer could connect to, by a connector that listens.

        Returns:
            The transport; the caller closes it.

        Raises:
            OSError: The peer cannot be reached.  (`open_connection` makes a `DisconnectedError` of it.)
            DisconnectedError: It can, and is not trusted.

        Checkpoints:
            At least one.

        Cancellation:
            Leaves nothing open.
        """

    def vet(self, spec: ConnectionSpec, vetted: VettedPeer | None) -> VettedPeer:
        """Settle why the other end is trusted.  Opens nothing.

        Args:
            spec: For the message only.
            vetted: The caller's answer; None for the connector's default.

        Raises:
            ConnectionSpecError: The answer cannot be true of this connector, or there is none and no default.
        """
        if vetted is None:
            if self.trusts_by_default is None:
                raise ConnectionSpecError(f"{spec}: say why its other end can be trusted: {self.trust_advice}")
            return self.trusts_by_default
        if vetted not in self.trusts:
            raise ConnectionSpecError(f"{spec}: its other end cannot be {vetted.value}: {self.trust_advice}")
        return vetted


class ConnectorRegistry:
    """Connectors by (transport, action).

    A spec without an action means the one registered with action None; if there is none, the transport's only
    action.
    """

    def __init__(self) -> None:
        self._connectors: dict[tuple[str, str | None], Connector] = {}

    def register(self, transport: str, action: str | None, connector: Connector) -> None:
        """Add a connector.

        Args:
            transport: As written in a spec, before the ``:``.
            action: As written after it; None for specs without an action.
            connector: What serves them.

        Raises:
            ConnectionSpecError: There is one already, or transport or action is not a name.
        """
        key = ConnectionSpec(transport, action, "").key
        if (transport, action) in self._connectors:
            raise ConnectionSpecError(f"there is a connector for {key} already")
        self._connectors[transport, action] = connector

    def find(self, spec: ConnectionSpec) -> Connector:
        """The connector of a spec.

        Raises:
            ConnectionSpecError: There is none; the message lists what there is.
        """
        connector = self._connectors.get((spec.transport, spec.action))
        if connector is not None:
            return connector
        actions = [action for transport, action in self._connectors if transport == spec.transport]
        if spec.action is None and len(actions) == 1:
            return self._connectors[spec.transport, actions[0]]
        known = ", ".join(f"{key}=…" for key in self)
        if not actions:
            raise ConnectionSpecError(f"{spec}: there is no transport {spec.transport!r}; there are {known or 'none'}")
        choices = " or ".join(f"{key}=…" for key in self if key.partition(":")[0] == spec.transport)
        if spec.action is None:
            raise ConnectionSpecError(f"{spec}: the action is missing; write {choices}")
        raise ConnectionSpecError(f"{spec}: {spec.transport} has no action {spec.action!r}; write {choices}")

    def __iter__(self) -> Iterator[str]:
        """What can be written before the ``=``, in alphabetical order."""
        return iter(sorted(ConnectionSpec(transport, action, "").key for transport, action in self._connectors))

    def __len__(self) -> int:
        return len(self._connectors)


def explain(error: OSError) -> str:
    """One line for people: what the system said, without numbers and without the address, which the spec tells."""
    if isinstance(error.__cause__, BaseExceptionGroup):  # trio's "all attempts failed": say how
        said = {explain(each): None for each in error.__cause__.exceptions if isinstance(each, OSError)}
        return "; ".join(said)
    if error.errno is not None and error.errno > 0 and str(error.strerror).endswith(os.strerror(error.errno)):
        return os.strerror(error.errno)  # trio puts "Error connecting to …" before it
    return error.strerror or str(error)


def connect_failed(spec: ConnectionSpec, why: str) -> DisconnectedError:
    """The error of a peer that was not reached, or was and is not trusted (G20)."""
    reason = DisconnectReason(DisconnectKind.CONNECT_FAILED, f"{spec}: {why}")
    return DisconnectedError(reason, Certainty.NOT_SENT)
