# The transition table is data: it is read here the way a person reads the drawing.

from __future__ import annotations

import pytest

from orc_trio import protocol
from orc_trio.exceptions import LocalProtocolError
from orc_trio.protocol import TRANSITIONS, Peer, PeerState, Role, Trigger
from orc_trio.protocol.states import next_state
from strategies import HANG_UP, running

LEGAL = {
    (PeerState.NEW, Trigger.AGREE): PeerState.RUNNING,
    (PeerState.NEW, Trigger.LATCH): PeerState.DRAINING,
    (PeerState.RUNNING, Trigger.LATCH): PeerState.DRAINING,
    (PeerState.RUNNING, Trigger.FINISH): PeerState.FINISHING,
    (PeerState.FINISHING, Trigger.LATCH): PeerState.DRAINING,
    (PeerState.DRAINING, Trigger.END): PeerState.CLOSED,
}


@pytest.mark.parametrize("state", PeerState)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_transition(state: PeerState, trigger: Trigger) -> None:
    """G11: an end goes new, running (finishing), draining, closed; the latch falls once, and nothing goes back."""
    if (state, trigger) in LEGAL:
        assert next_state(state, trigger) is LEGAL[state, trigger]
        assert list(PeerState).index(LEGAL[state, trigger]) > list(PeerState).index(state)
    else:
        with pytest.raises(LocalProtocolError, match=f"'{trigger.value}' is impossible in state '{state.value}'"):
            next_state(state, trigger)


def test_the_table_cannot_change() -> None:
    """G11: the table is complete and cannot be edited at run time."""
    assert set(TRANSITIONS) == set(PeerState)
    with pytest.raises(TypeError):
        TRANSITIONS[PeerState.CLOSED] = {}  # type: ignore[index]
    with pytest.raises(TypeError):
        TRANSITIONS[PeerState.CLOSED][Trigger.AGREE] = PeerState.RUNNING  # type: ignore[index]


@pytest.mark.parametrize("peer", [Peer(Role.EXECUTOR), running()], ids=["new", "running"])
def test_there_is_no_end_without_a_latch(peer: Peer) -> None:
    """G11: a connection cannot be over before it has a cause; nothing changes by trying."""
    state = peer.state
    with pytest.raises(LocalProtocolError):
        peer.end()
    assert peer.state is state
    peer.latch(HANG_UP)
    peer.end()
    assert peer.state is PeerState.CLOSED
    with pytest.raises(LocalProtocolError):
        peer.end()


def test_what_the_package_offers() -> None:
    """Every name the package announces is there."""
    assert all(hasattr(protocol, name) for name in protocol.__all__)
