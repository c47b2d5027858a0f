"""The states of one end of a connection, as data.

::

    NEW ── AGREE ──> RUNNING ── FINISH ──> FINISHING ── LATCH ──> DRAINING ── END ──> CLOSED
     │                  └─────────────── LATCH ────────────────────^
     └────────────────────────────────── LATCH ────────────────────^

* NEW: our setup is queued; the peer's has not come, or was not acceptable yet.
* RUNNING: both setups agree; calls flow.
* FINISHING: this end stops softly: what is in flight goes on, with the nested calls it makes; new calls are refused.
* DRAINING: the latch has fallen.  Every pending call is settled; what goes out is the rest of the results and the
  hang-up; what comes in is dropped.
* CLOSED: nothing goes in or out.

States never go back, and the latch falls at most once: that is in the table, not in the code that uses it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from orc_trio.exceptions import LocalProtocolError

__all__ = ["TRANSITIONS", "PeerState", "Trigger", "next_state"]


class PeerState(enum.Enum):
    """Where one end of a connection is in its life."""

    NEW = "new"
    RUNNING = "running"
    FINISHING = "finishing"
    DRAINING = "draining"
    CLOSED = "closed"


class Trigger(enum.Enum):
    """What moves an end from one state to the next."""

    AGREE = "agree"
    """The peer's setup came and fits."""
    FINISH = "finish"
    """This end is to stop when what is in flight has finished."""
    LATCH = "latch"
    """There is a cause to stop."""
    END = "end"
    """The transport is closed and the end is known."""


TRANSITIONS: Final[Mapping[PeerState, Mapping[Trigger, PeerState]]] = MappingProxyType(
    {
        PeerState.NEW: MappingProxyType({Trigger.AGREE: PeerState.RUNNING, Trigger.LATCH: PeerState.DRAINING}),
        PeerState.RUNNING: MappingProxyType({Trigger.FINISH: PeerState.FINISHING, Trigger.LATCH: PeerState.DRAINING}),
        PeerState.FINISHING: MappingProxyType({Trigger.LATCH: PeerState.DRAINING}),
        PeerState.DRAINING: MappingProxyType({Trigger.END: PeerState.CLOSED}),
        PeerState.CLOSED: MappingProxyType({}),
    }
)


def next_state(state: PeerState, trigger: Trigger) -> PeerState:
    """The state that ``trigger`` leads to.

    Raises:
        LocalProtocolError: There is no such transition.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise LocalProtocolError(f"{trigger.value!r} is impossible in state {state.value!r}") from None
