"""What the protocol core tells its shell.

The core changes its own state and reports; the shell wakes tasks, starts handlers and moves bytes.  Events come in the
order in which things happened, and the shell acts on them without a checkpoint between (G2, G14).
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from orc_trio.protocol.calls import InboundCall, OutboundCall
from orc_trio.protocol.outcomes import Outcome
from orc_trio.protocol.setup import Setup
from orc_trio.reasons import DisconnectReason

__all__ = [
    "Agreed",
    "CallReceived",
    "CallSettled",
    "CancelReceived",
    "Event",
    "Latched",
    "PeerHungUp",
    "PongReceived",
    "ResultAccepted",
]


@attrs.frozen
class Agreed:
    """The peer's setup came and fits; the connection is open."""

    setup: Setup


@attrs.define
class CallReceived:
    """A call to serve.  Answer it with `orc_trio.protocol.Peer.respond`, exactly once."""

    call: InboundCall


@attrs.frozen
class CancelReceived:
    """The caller of a call that is being served has left.  It still gets its one result."""

    call: InboundCall


@attrs.define
class CallSettled:
    """A call this end made has its outcome."""

    call: OutboundCall
    outcome: Outcome


@attrs.frozen
class ResultAccepted:
    """A result that had to wait for room is queued now, or was dropped by the end."""

    call: InboundCall


@attrs.frozen
class Latched:
    """The connection is no longer open.  Every pending call was settled before this."""

    cause: DisconnectReason


@attrs.frozen
class PeerHungUp:
    """The peer's hang-up came: nothing follows it."""


@attrs.frozen
class PongReceived:
    """The peer answered a ping."""

    number: int


Event: TypeAlias = (
    Agreed | CallReceived | CancelReceived | CallSettled | ResultAccepted | Latched | PeerHungUp | PongReceived
)
