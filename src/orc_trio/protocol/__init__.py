"""The protocol core, sans-IO: one end of a connection as a value machine.

`Peer` is the machine; the other modules hold its parts, each with its rules at the top.
"""

from orc_trio.protocol.calls import InboundCall, InboundState, OutboundCall, OutboundState
from orc_trio.protocol.events import (
    Agreed,
    CallReceived,
    CallSettled,
    CancelReceived,
    Event,
    Latched,
    PeerHungUp,
    PongReceived,
    ResultAccepted,
)
from orc_trio.protocol.limits import AGREED_FIELDS, Limits
from orc_trio.protocol.outcomes import Cancelled, Disconnected, Failed, Outcome, Refused, Value
from orc_trio.protocol.peer import Peer
from orc_trio.protocol.setup import PROTOCOL, VERSION, Role, Setup
from orc_trio.protocol.states import TRANSITIONS, PeerState, Trigger
from orc_trio.protocol.statistics import PeerStatistics

__all__ = [
    "AGREED_FIELDS",
    "PROTOCOL",
    "TRANSITIONS",
    "VERSION",
    "Agreed",
    "CallReceived",
    "CallSettled",
    "CancelReceived",
    "Cancelled",
    "Disconnected",
    "Event",
    "Failed",
    "InboundCall",
    "InboundState",
    "Latched",
    "Limits",
    "OutboundCall",
    "OutboundState",
    "Outcome",
    "Peer",
    "PeerHungUp",
    "PeerState",
    "PeerStatistics",
    "PongReceived",
    "Refused",
    "ResultAccepted",
    "Role",
    "Setup",
    "Trigger",
    "Value",
]
