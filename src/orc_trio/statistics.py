"""What connections and sessions hold, as frozen snapshots."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

__all__ = ["SESSION_TRANSITIONS", "ConnectionStatistics", "SessionState", "SessionStatistics"]


@attrs.frozen(kw_only=True)
class ConnectionStatistics:
    """Counts, as of one moment.  A `ControllerAccess` fills in what it knows.

    Attributes:
        state: ``"new"``, ``"running"``, ``"finishing"``, ``"draining"`` or ``"closed"``.
        pending_calls: Calls this end made that have a place and no outcome.
        waiting_calls: Calls this end made that wait for room.
        abandoned_calls: Places whose caller has left and whose result has not come.
        bytes_in_flight: Argument bytes of the calls that have a place.
        served_calls: Calls of the peer that are being served, or whose result was not sent yet.
        waiting_results: Results that wait for room.
        queued_messages: Messages not handed to the transport yet.
        queued_bytes: Their payload bytes.
        running_handlers: The names of the functions that are running now, one for each call.  After the end: those
            that cannot be stopped (threads and native code) and have not come back yet.
    """

    state: str = "running"
    pending_calls: int = 0
    waiting_calls: int = 0
    abandoned_calls: int = 0
    bytes_in_flight: int = 0
    served_calls: int = 0
    waiting_results: int = 0
    queued_messages: int = 0
    queued_bytes: int = 0
    running_handlers: tuple[str, ...] = ()


class SessionState(enum.Enum):
    """Where a session is in its life."""

    START = "start"
    ATTACHED = "attached"
    DETACHED = "detached"
    SHUT_DOWN = "shut down"


SESSION_TRANSITIONS: Final[Mapping[SessionState, Mapping[str, SessionState]]] = MappingProxyType(
    {
        SessionState.START: MappingProxyType(
            {"the controller accepts": SessionState.ATTACHED, "never attached": SessionState.DETACHED}
        ),
        SessionState.ATTACHED: MappingProxyType({"the connection is over": SessionState.DETACHED}),
        SessionState.DETACHED: MappingProxyType({"services are shut down": SessionState.SHUT_DOWN}),
        SessionState.SHUT_DOWN: MappingProxyType({}),
    }
)
"""What leads from one state to the next: there is no way back, and each is entered once (G20)."""


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """A snapshot of a session.

    Attributes:
        state: Where it is in its life.
        keepalives: The names of those who hold a keepalive.
        running_wrappers: The names of the wrapper functions that are running; after the end: those that cannot be
            stopped and have not come back yet.
        connection: What its controller access holds; None: nothing was attached.
    """

    state: SessionState
    keepalives: tuple[str, ...]
    running_wrappers: tuple[str, ...]
    connection: ConnectionStatistics | None
