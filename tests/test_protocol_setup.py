# The setup message: its frozen shape, and everything that does not fit.

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import LocalProtocolError, RemoteProtocolError
from orc_trio.protocol import (
    PROTOCOL,
    VERSION,
    Agreed,
    Latched,
    Limits,
    OutboundState,
    Peer,
    PeerHungUp,
    PeerState,
    Role,
    Setup,
    Value,
)
from orc_trio.protocol.setup import decode_setup, encode_setup
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.wire import Message, Opcode
from orc_trio.wire.framing import FIRST_MESSAGE_MAX
from strategies import HANG_UP, KIB, SMALL, deliver, of, pair, received, setup_message

EXECUTOR = Setup.of(
    Role.EXECUTOR,
    SMALL,
    identity="me",
    triple="x86_64-unknown-linux-gnu",
    page_size=4096,
    values={"v": b"\x00"},
    symbols={"echo": 2**64 - 1},
)
FIELDS = cbor2.loads(encode_setup(EXECUTOR))


def test_the_shape_is_frozen() -> None:
    """G25: a stranger reads a setup with plain cbor2: these keys, these types, for all versions."""
    limits = {"max_calls": 2, "max_nested_calls": 1, "max_bytes": 65536, "max_message": 65536}
    both = {"protocol": "orc_trio", "version": 1, "limits": limits}
    assert (
        both
        | {
            "role": "executor",
            "identity": "me",
            "triple": "x86_64-unknown-linux-gnu",
            "page_size": 4096,
            "values": {"v": b"\x00"},
            "symbols": {"echo": 2**64 - 1},
        }
        == FIELDS
    )
    assert cbor2.loads(encode_setup(Setup.of(Role.CONTROLLER, SMALL))) == both | {"role": "controller", "identity": ""}
    assert (PROTOCOL, VERSION) == ("orc_trio", 1)


@given(
    st.dictionaries(st.text(max_size=9), st.binary(max_size=9)), st.dictionaries(st.text(), st.integers(0, 2**64 - 1))
)
def test_what_the_executor_says_arrives(values: dict[str, bytes], symbols: dict[str, int]) -> None:
    """Bootstrap values and symbols arrive as they were said."""
    setup = Setup.of(Role.EXECUTOR, SMALL, triple="t", page_size=1, values=values, symbols=symbols)
    assert decode_setup(encode_setup(setup), expect=Role.EXECUTOR) == setup


def test_a_controller_needs_no_bootstrap() -> None:
    """A controller's setup says who it is and its limits; identity may be missing; unknown keys are ignored."""
    fields = {"protocol": PROTOCOL, "version": 1, "role": "controller", "limits": FIELDS["limits"], "new": [1]}
    assert decode_setup(cbor2.dumps(fields), expect=Role.CONTROLLER) == Setup.of(Role.CONTROLLER, SMALL)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another protocol": ({"protocol": "ssh"}, "does not speak the orc_trio protocol"),
    "another version": ({"version": 2}, "the peer speaks version 2 of the protocol, this end version 1"),
    "version a text": ({"version": "1"}, "version must be int, not str"),
    "version a bool": ({"version": True}, "version must be int, not bool"),
    "the same role": ({"role": "controller"}, "the peer is 'controller', but this end needs one that is 'executor'"),
    "a strange role": ({"role": "x" * 99 + "\n"}, "the peer is 'x{64}', but"),
    "no limits": ({"limits": None}, "limits must be dict"),
    "a limit missing": ({"limits": {"max_calls": 1}}, "max_nested_calls must be int, not NoneType"),
    "a negative limit": ({"limits": FIELDS["limits"] | {"max_bytes": -1}}, "max_bytes is out of range"),
    "identity not a text": ({"identity": 1}, "identity must be str"),
    "triple missing": ({"triple": None}, "triple must be str"),
    "page size a float": ({"page_size": 4096.0}, "page_size must be int, not float"),
    "values a list": ({"values": []}, "values must be dict"),
    "a value a text": ({"values": {"a\n": "b"}}, r"values\['a\\n'\] must be bytes"),
    "a name of bytes": ({"values": {b"a": b"b"}}, "a name in values must be str"),
    "a symbol below zero": ({"symbols": {"a": -1}}, r"symbols\['a'\] is out of range"),
}


@pytest.mark.parametrize(("change", "text"), BAD.values(), ids=BAD.keys())
def test_setups_that_do_not_fit(change: dict[str, Any], text: str) -> None:
    """G25: another protocol, version, role or shape ends the connection with a reason that both sides can read."""
    payload = cbor2.dumps(FIELDS | change)
    with pytest.raises(RemoteProtocolError, match=text):
        decode_setup(payload, expect=Role.EXECUTOR)
    peer = Peer(Role.CONTROLLER)
    peer.receive(Message(Opcode.SETUP, payload=payload))
    assert peer.cause is not None
    assert peer.cause.kind is DisconnectKind.CONNECT_FAILED
    assert of(peer, Latched) == [Latched(peer.cause)]
    said, hang_up = peer.take()
    assert (said.opcode, hang_up.opcode) == (Opcode.SETUP, Opcode.HANG_UP)
    other = Peer(Role.EXECUTOR)
    other.receive(said)
    other.receive(hang_up)
    assert other.cause is not None
    assert other.cause.kind is DisconnectKind.REMOTE_ERROR
    assert peer.cause.detail in other.cause.detail


@pytest.mark.parametrize("payload", [b"\x01", b"\x80", b"", b"\xa0"])
def test_setups_that_are_none(payload: bytes) -> None:
    """G25: a setup that is not a map of this protocol is refused."""
    with pytest.raises(RemoteProtocolError, match=r"^(setup: not strict CBOR|the peer does not speak)"):
        decode_setup(payload, expect=Role.EXECUTOR)


def test_limits_that_do_not_fit() -> None:
    """G8: limits that no message fits into end the connection, and both ends learn why."""
    controller, executor = Peer(Role.CONTROLLER), Peer(Role.EXECUTOR)
    limits = dict.fromkeys(FIELDS["limits"], 5)
    controller.receive(Message(Opcode.SETUP, payload=cbor2.dumps(FIELDS | {"limits": limits})))
    assert controller.cause == DisconnectReason(
        DisconnectKind.CONNECT_FAILED, "max_message must be at least 65536 bytes, not 5"
    )
    deliver(controller, executor)
    assert executor.cause is not None
    assert "at least 65536 bytes, not 5" in executor.cause.detail


def test_a_setup_over_one_mebibyte() -> None:
    """G25: a setup over 1 MiB is not sent, and not read when somebody else sends it."""
    symbols = {f"{number:0100}": number for number in range(11_000)}
    with pytest.raises(LocalProtocolError, match="1048576 is the limit"):
        encode_setup(Setup.of(Role.EXECUTOR, SMALL, symbols=symbols))
    with pytest.raises(RemoteProtocolError, match="1048576 is the limit"):
        decode_setup(cbor2.dumps(FIELDS | {"symbols": symbols}), expect=Role.EXECUTOR)
    values = {"v": bytes(FIRST_MESSAGE_MAX - 1000)}
    assert decode_setup(cbor2.dumps(FIELDS | {"values": values}), expect=Role.EXECUTOR).values == values


# -- in the peer ---------------------------------------------------------------------------------------------------


def test_both_ends_say_setup_first_and_agree() -> None:
    """G8: each end's first message is its setup; both then have the same limits in force."""
    controller = Peer(Role.CONTROLLER, Limits(max_calls=7, max_message=1 << 20, drain_timeout=9))
    executor = Peer(Role.EXECUTOR, SMALL, setup=EXECUTOR)
    assert [message.opcode for message in deliver(controller, executor)] == [Opcode.SETUP]
    assert [message.opcode for message in deliver(executor, controller)] == [Opcode.SETUP]
    assert of(controller, Agreed) == [Agreed(EXECUTOR)]
    (agreed,) = of(executor, Agreed)
    assert agreed.setup.role is Role.CONTROLLER
    assert agreed.setup.limits["max_calls"] == 7
    assert controller.limits.max_calls == executor.limits.max_calls == 2
    assert controller.limits.max_message == executor.limits.max_message == 65536
    assert (controller.limits.drain_timeout, executor.limits.drain_timeout) == (9, 5.0)


@pytest.mark.parametrize("generous", [0, 1])
def test_what_was_agreed_is_in_force_at_both_ends(generous: int) -> None:
    """G8: the end that would take more keeps to the smaller figures too: for its calls, its results, and its peer's."""
    limits = [Limits(), SMALL] if generous == 0 else [SMALL, Limits()]
    ends = pair(*limits)
    for peer, other in (ends, ends[::-1]):
        calls = [peer.call(1, b"") for _ in range(3)]
        assert [call.state for call in calls] == [OutboundState.QUEUED] * 2 + [OutboundState.WAITING]
        deliver(peer, other)
        first, second = received(other)
        assert other.respond(first, Value(bytes(40 * KIB)))
        assert not other.respond(second, Value(bytes(40 * KIB)))
    for peer in ends:
        for seq in (11, 12, 13):
            peer.receive(Message(Opcode.CALL, seq))
        assert peer.cause is not None
        assert "agreed limits of 2 calls" in peer.cause.detail


@pytest.mark.parametrize("opcode", [opcode for opcode in range(12) if opcode not in (Opcode.SETUP, Opcode.HANG_UP)])
def test_anything_before_setup_is_a_violation(opcode: int) -> None:
    """G25: before the setup only a setup or a hang-up may come; the reason is reported and told."""
    peer, other = Peer(Role.CONTROLLER), Peer(Role.EXECUTOR)
    peer.receive(Message(opcode, 1))
    assert peer.cause is not None
    assert peer.cause.kind is DisconnectKind.CONNECT_FAILED
    assert peer.cause.cause is not None
    assert peer.cause.cause.kind is DisconnectKind.PROTOCOL_VIOLATION
    assert ("before the setup" if opcode <= Opcode.PART else "unknown opcode") in peer.cause.cause.detail
    deliver(peer, other)
    assert other.cause is not None
    assert peer.cause.cause.detail in other.cause.detail


def test_a_second_setup_is_a_violation() -> None:
    """G25: a second setup is a violation."""
    controller, _ = pair()
    controller.receive(setup_message(Role.EXECUTOR))
    assert controller.cause == DisconnectReason(DisconnectKind.PROTOCOL_VIOLATION, "a second setup message")


@pytest.mark.parametrize("kind", DisconnectKind)
def test_ends_before_both_agreed(kind: DisconnectKind) -> None:
    """G11: before both agreed an end is CONNECT_FAILED, what happened inside, unless this end chose it or failed."""
    peer = Peer(Role.EXECUTOR)
    cause = peer.latch(DisconnectReason(kind, "x"))
    own = {
        DisconnectKind.LOCAL_HANGUP,
        DisconnectKind.OWNER_CANCELLED,
        DisconnectKind.INTERNAL_ERROR,
        DisconnectKind.CONNECT_FAILED,
    }
    if kind in own:
        assert cause == DisconnectReason(kind, "x")
    else:
        assert (cause.kind, cause.cause) == (DisconnectKind.CONNECT_FAILED, DisconnectReason(kind, "x"))
    assert peer.state is PeerState.DRAINING


def test_a_hang_up_before_setup() -> None:
    """G11: a peer that hangs up before its setup: CONNECT_FAILED, with its hang-up inside."""
    peer = Peer(Role.EXECUTOR)
    other = Peer(Role.CONTROLLER)
    other.latch(HANG_UP)
    (hang_up,) = [message for message in other.take() if message.opcode == Opcode.HANG_UP]
    peer.receive(hang_up)
    assert peer.cause is not None
    assert peer.cause.cause == DisconnectReason(DisconnectKind.REMOTE_HANGUP)
    assert of(peer, PeerHungUp) == [PeerHungUp()]
