"""A frozen snapshot of what one end of a connection holds."""

from __future__ import annotations

import attrs

from orc_trio.protocol.states import PeerState

__all__ = ["PeerStatistics"]


@attrs.frozen(kw_only=True)
class PeerStatistics:
    """Counts, as of one moment.

    Attributes:
        state: Where the end is in its life.
        pending_calls: Calls this end made that have a place and no outcome.
        waiting_calls: Calls this end made that wait for room.
        abandoned_calls: Places whose caller has left and whose result has not come.
        bytes_in_flight: Argument bytes of the calls that have a place.
        served_calls: Calls of the peer that arrive in parts, are being served, or whose result was not handed over yet.
        waiting_results: Results that wait for room.
        queued_messages: Messages not handed to the transport yet.
        queued_bytes: Their payload bytes, those of results being sent included.
    """

    state: PeerState
    pending_calls: int
    waiting_calls: int
    abandoned_calls: int
    bytes_in_flight: int
    served_calls: int
    waiting_results: int
    queued_messages: int
    queued_bytes: int
