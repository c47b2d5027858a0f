# A bounded look at what `nox -s fuzz` looks at for long: the protocol core against a hostile peer.

from __future__ import annotations

import random

from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.hostile import Play, Program
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.protocol import Peer, PeerState, Role
from orc_trio.protocol.limits import AGREED_FIELDS
from orc_trio.wire import FrameDecoder, Message, Opcode, dumps
from strategies import assert_empty, encodings, running, written

setup_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**64) | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=4,
)
setups = st.fixed_dictionaries(
    {
        "protocol": st.just("orc_trio") | setup_values,
        "version": st.just(1) | setup_values,
        "role": st.just("executor") | setup_values,
        "limits": st.fixed_dictionaries({name: st.integers(0, 2**64 - 1) | setup_values for name in AGREED_FIELDS}),
    },
    optional=dict.fromkeys(("identity", "triple", "page_size", "values", "symbols", "more"), setup_values),
)


@given(st.binary(max_size=500))
def test_a_hostile_peer(data: bytes) -> None:
    """G1, G2, G8, G11, G13, G14, G25: whatever a peer sends and a program does, the laws of hostile.py hold."""
    Play(Program(data)).run()


def test_a_hostile_peer_for_longer() -> None:
    """G1, G2, G8, G11, G13, G14, G25: the same with random programs, many and long."""
    dice = random.Random(7)
    for _ in range(2000):
        Play(Program(dice.randbytes(dice.choice([50, 200, 1000])))).run()


@given(setups)
def test_any_setup_is_taken_or_refused(fields: dict[str, object]) -> None:
    """G25: any setup either opens the connection with sane limits or ends it with a reason."""
    peer = Peer(Role.CONTROLLER)
    peer.receive(Message(Opcode.SETUP, payload=dumps(fields)))
    if peer.state is PeerState.RUNNING:
        assert peer.limits.problem() is None
    else:
        assert peer.cause is not None
        assert peer.cause.detail


@given(st.lists(st.binary(max_size=40) | encodings.map(written), max_size=5), st.integers(1, 60))
@example([b"GET / HTTP/1.1\r\n"], 1)
def test_any_bytes_from_the_wire(pieces: list[bytes], size: int) -> None:
    """G25: any bytes, through the decoder and into a running end: messages or a violation, and an orderly end."""
    peer, decoder = running(), FrameDecoder(1024)
    data = b"".join(pieces)
    try:
        for start in range(0, len(data), size):
            for message in decoder.feed(data[start : start + size]):
                peer.receive(message)
        decoder.raise_pending()
    except RemoteProtocolError as error:
        peer.violation(str(error))
        assert peer.cause is not None
    peer.violation("the end of the test")
    while peer.has_output:
        *_, last = peer.take()
    assert last.opcode == Opcode.HANG_UP
    peer.end()
    assert_empty(peer)
