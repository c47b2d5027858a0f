# Outcomes: how a call can settle, how errors look on the wire, and what the caller sees.

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import (
    CallRefusedError,
    DisconnectedError,
    RemoteProtocolError,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.protocol import Cancelled, Disconnected, Failed, Refused, Value
from orc_trio.protocol.outcomes import (
    MAX_ERROR_MESSAGE,
    MAX_ERROR_PAYLOAD,
    MAX_ERROR_TYPE,
    UNKNOWN_TAG,
    decode_hang_up,
    decode_result,
    encode_hang_up,
    encode_result,
    unwrap,
)
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.wire import ResultKind

REASON = DisconnectReason(DisconnectKind.REMOTE_HANGUP)
short_texts = st.text(max_size=100)


@given(
    st.builds(Value, st.binary(max_size=50))
    | st.builds(Failed, short_texts, short_texts)
    | st.builds(Refused, short_texts)
    | st.just(Cancelled())
)
def test_results_round_trip(outcome: Value | Failed | Refused | Cancelled) -> None:
    """G10: what the handler's end encodes the caller's end decodes, and an error is never bytes."""
    kind, payload = encode_result(outcome)
    assert decode_result(kind, payload) == outcome
    assert (kind == ResultKind.VALUE) is isinstance(outcome, Value)
    if isinstance(outcome, Failed):
        assert cbor2.loads(payload) == {"type": outcome.remote_type, "message": outcome.message}


@given(st.characters(), st.characters())
def test_errors_are_bounded(first: str, second: str) -> None:
    """G10: a longer type or message is cut by its sender, says so, and fits into the bound in any script."""
    kind, payload = encode_result(Failed(first * 10_000, second * 1_000_000))
    assert len(payload) <= MAX_ERROR_PAYLOAD
    outcome = decode_result(kind, payload)
    assert isinstance(outcome, Failed)
    assert len(outcome.remote_type) <= MAX_ERROR_TYPE
    assert len(outcome.message) <= MAX_ERROR_MESSAGE
    assert "characters)" in outcome.message


def test_the_longest_text_is_not_cut() -> None:
    """G10: the bounds themselves pass whole."""
    error = Failed("t" * MAX_ERROR_TYPE, "m" * MAX_ERROR_MESSAGE)
    assert decode_result(*encode_result(error)) == error


def test_text_that_cannot_be_written_is_escaped() -> None:
    """G10: a lone surrogate in a message (from a file name, say) does not break the connection."""
    assert decode_result(*encode_result(Failed("E", "\udcff"))) == Failed("E", "\\udcff")


@pytest.mark.parametrize("kind", [ResultKind.ERROR, ResultKind.REFUSED])
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "not strict CBOR"),
        (b"\xf6", "not a map"),
        (b"\x80", "not a map"),
        (b"\xa0", "must be texts"),
        (cbor2.dumps({"type": b"x"}), "must be texts"),
        (cbor2.dumps({"type": "x", "message": None}), "must be texts"),
        (cbor2.dumps({"type": "x"}) + b"\x00", "1 bytes after"),
        (cbor2.dumps({"type": "x", "message": "m" * MAX_ERROR_PAYLOAD}), "65536 is the limit"),
    ],
)
def test_malformed_error_results(kind: ResultKind, payload: bytes, text: str) -> None:
    """G25: an error result that is not one, or too large, is a violation with a reason."""
    with pytest.raises(RemoteProtocolError, match=text):
        decode_result(kind, payload)


def test_an_error_without_a_message_and_with_more() -> None:
    """G10: the message may be missing, and later versions may say more."""
    assert decode_result(ResultKind.ERROR, cbor2.dumps({"type": "x", "more": [1]})) == Failed("x", "")


def test_other_malformed_results() -> None:
    """G25: a cancelled result has no payload, and there are four kinds."""
    with pytest.raises(RemoteProtocolError, match="cancelled result has a payload"):
        decode_result(ResultKind.CANCELLED, b"x")
    with pytest.raises(RemoteProtocolError, match="unknown kind 4"):
        decode_result(4, b"")


def test_what_the_caller_sees() -> None:
    """G1: bytes, an out-of-band error, a refusal or a disconnect error, each its own type."""
    assert unwrap(Value(b"x"), 7) == b"x"
    with pytest.raises(WrapperFunctionError, match=r"^Busy: later$"):
        unwrap(Failed("Busy", "later"), 7)
    with pytest.raises(UnknownHandlerTagError, match="0x7"):
        unwrap(Failed(UNKNOWN_TAG), 7)
    with pytest.raises(CallRefusedError, match=r"^full$"):
        unwrap(Refused("full"), 7)
    with pytest.raises(CallRefusedError, match="refused the call before starting it"):
        unwrap(Refused(), 7)
    with pytest.raises(WrapperFunctionError, match=r"^Cancelled: "):
        unwrap(Cancelled(), 7)
    with pytest.raises(DisconnectedError) as caught:
        unwrap(Disconnected(REASON, Certainty.UNKNOWN), 7)
    assert (caught.value.reason, caught.value.certainty) == (REASON, Certainty.UNKNOWN)


# -- hang-ups ------------------------------------------------------------------------------------------------------

TOLD = {
    DisconnectKind.EOF_WITHOUT_HANGUP,
    DisconnectKind.TRANSPORT_ERROR,
    DisconnectKind.PROTOCOL_VIOLATION,
    DisconnectKind.LIVENESS_TIMEOUT,
    DisconnectKind.CONNECT_FAILED,
    DisconnectKind.INTERNAL_ERROR,
}


@pytest.mark.parametrize("kind", DisconnectKind)
def test_what_the_peer_is_told(kind: DisconnectKind) -> None:
    """G11: a hang-up with an error arrives as REMOTE_ERROR with the reason in detail, any other as REMOTE_HANGUP."""
    found = decode_hang_up(encode_hang_up(DisconnectReason(kind, "because")))
    if kind not in TOLD:
        assert found == REASON
    elif kind in {DisconnectKind.INTERNAL_ERROR, DisconnectKind.TRANSPORT_ERROR}:
        assert found == DisconnectReason(DisconnectKind.REMOTE_ERROR, kind.value)
    else:
        assert found == DisconnectReason(DisconnectKind.REMOTE_ERROR, f"{kind.value}: because")


def test_an_internal_error_keeps_its_details_at_home() -> None:
    """G9: the text of an unexpected exception does not leave in a hang-up, also not when it is a cause inside."""
    inner = DisconnectReason(DisconnectKind.INTERNAL_ERROR, "/home/secret")
    assert b"secret" not in encode_hang_up(inner)
    assert b"secret" not in encode_hang_up(DisconnectReason(DisconnectKind.CONNECT_FAILED, "x", inner))


def test_a_violation_before_both_agreed_is_told_too() -> None:
    """G11: a peer that broke the protocol before the connection was agreed on is told what it did."""
    inner = DisconnectReason(DisconnectKind.PROTOCOL_VIOLATION, "CALL came before the setup message")
    assert decode_hang_up(encode_hang_up(DisconnectReason(DisconnectKind.CONNECT_FAILED, "early", inner))).detail == (
        "connect failed: early: CALL came before the setup message"
    )


@pytest.mark.parametrize("payload", [b"", b"\xf5", b"\xf6\x00", b"\xa0", b"\xd9\xd9\xf7\xf6", cbor2.dumps({"kind": 1})])
def test_malformed_hang_ups(payload: bytes) -> None:
    """G25: a hang-up whose reason is neither null nor a map of texts is a violation."""
    with pytest.raises(RemoteProtocolError, match=r"^hang-up: "):
        decode_hang_up(payload)
    with pytest.raises(RemoteProtocolError, match=r"^hang-up: "):
        decode_hang_up(memoryview(payload))


def test_a_peers_reason_is_one_line() -> None:
    """G9: what the peer says goes into logs: line breaks and terminal commands are quoted, other scripts stay."""
    payload = cbor2.dumps({"kind": "k\n", "detail": "a\r\nERROR \x1b[31m é"})
    assert decode_hang_up(payload).detail == r"k\n: a\r\nERROR \x1b[31m é"
    assert decode_hang_up(cbor2.dumps({"kind": "just this"})).detail == "just this"
    assert decode_hang_up(memoryview(b"\xf6")) == REASON
