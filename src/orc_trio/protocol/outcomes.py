"""How a call can settle, and how errors look on the wire.

An `Outcome` is what a call settles to, exactly once (G1): a value, an error from the function (G10), a refusal before
it started, a cancellation, or the end of the connection.  `unwrap` turns it into what the caller sees.

Error payloads are CBOR maps ``{"type": text, "message": text}``, bounded by `MAX_ERROR_TYPE` and `MAX_ERROR_MESSAGE`
characters; a longer text is cut by its sender and says so.  Hang-up payloads are CBOR null (in order) or a map
``{"kind": text, "detail": text}``.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias, assert_never

import attrs

from orc_trio.exceptions import (
    CallRefusedError,
    DisconnectedError,
    RemoteProtocolError,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.wire.cbor import dumps, loads_strict
from orc_trio.wire.messages import ResultKind

__all__ = [
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FINISHING",
    "HANDLER_FAILED",
    "MAX_ERROR_PAYLOAD",
    "RESULT_TOO_LARGE",
    "UNKNOWN_TAG",
    "Cancelled",
    "Disconnected",
    "Failed",
    "Outcome",
    "Refused",
    "Value",
    "decode_hang_up",
    "decode_result",
    "encode_hang_up",
    "encode_result",
    "unwrap",
]

MAX_ERROR_TYPE: Final = 256
MAX_ERROR_MESSAGE: Final = 8 * 1024
MAX_ERROR_PAYLOAD: Final = 64 * 1024
"""The largest payload of an error result or a hang-up, in bytes."""

CANCELLED: Final = "Cancelled"
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
HANDLER_FAILED: Final = "HandlerFailed"
RESULT_TOO_LARGE: Final = "ResultTooLarge"
UNKNOWN_TAG: Final = "UnknownHandlerTag"
FINISHING: Final = "the connection is about to end, and takes no new calls"
"""What a call is told that comes while an end stops softly."""


@attrs.define  # not frozen: one is made for every call, and that costs twice as much
class Value:
    """The function answered."""

    payload: bytes | memoryview


@attrs.frozen
class Failed:
    """The function answered with an error instead of bytes."""

    remote_type: str
    message: str = ""


@attrs.frozen
class Refused:
    """The call was not started, and the connection lives on."""

    message: str = ""


@attrs.frozen
class Cancelled:
    """The function's scope was cancelled, as its caller asked."""


@attrs.frozen
class Disconnected:
    """The connection stopped being open first."""

    reason: DisconnectReason
    certainty: Certainty


Outcome: TypeAlias = Value | Failed | Refused | Cancelled | Disconnected


def unwrap(outcome: Outcome, tag: int) -> bytes | memoryview:
    """What the caller of a call to ``tag`` sees.

    Raises:
        WrapperFunctionError: The function answered with an error.
        UnknownHandlerTagError: Nothing is registered under ``tag`` at the other end.
        CallRefusedError: The other end declined to start it.
        DisconnectedError: The connection stopped being open.
    """
    if isinstance(outcome, Value):
        return outcome.payload
    match outcome:
        case Failed(remote_type, message):
            if remote_type == UNKNOWN_TAG:
                raise UnknownHandlerTagError(tag)
            raise WrapperFunctionError(remote_type, message)
        case Refused(message):
            raise CallRefusedError(message or "the other end refused the call before starting it")
        case Cancelled():
            raise WrapperFunctionError(CANCELLED, "the call was cancelled at the other end")
        case Disconnected(reason, certainty):
            raise DisconnectedError(reason, certainty)
        case _:  # pragma: no cover
            assert_never(outcome)


def encode_result(outcome: Value | Failed | Refused | Cancelled) -> tuple[ResultKind, bytes | memoryview]:
    """An outcome as a result message's aux and payload."""
    if isinstance(outcome, Value):
        return ResultKind.VALUE, outcome.payload
    match outcome:
        case Failed(remote_type, message):
            return ResultKind.ERROR, _error_map("type", remote_type, "message", message)
        case Refused(message):
            return ResultKind.REFUSED, _error_map("type", "Refused", "message", message)
        case Cancelled():
            return ResultKind.CANCELLED, b""
        case _:  # pragma: no cover
            assert_never(outcome)


def decode_result(kind: int, payload_untrusted: bytes | memoryview) -> Value | Failed | Refused | Cancelled:
    """The outcome in a result message.

    Raises:
        RemoteProtocolError: Unknown kind, or a payload that does not fit it.
    """
    if kind == ResultKind.VALUE:
        return Value(payload_untrusted)
    if kind == ResultKind.CANCELLED:
        if payload_untrusted:
            raise RemoteProtocolError("a cancelled result has a payload")
        return Cancelled()
    if kind not in (ResultKind.ERROR, ResultKind.REFUSED):
        raise RemoteProtocolError(f"a result has the unknown kind {kind}")
    remote_type, message = _read_error_map(payload_untrusted, "type", "message", what="error result")
    return Failed(remote_type, message) if kind == ResultKind.ERROR else Refused(message)


# Told to the peer with a reason; every other kind of end is, for the peer, an orderly hang-up.  (The first two reach a
# peer whose own direction broke, while ours did not.)
_TOLD: Final = frozenset(
    {
        DisconnectKind.EOF_WITHOUT_HANGUP,
        DisconnectKind.TRANSPORT_ERROR,
        DisconnectKind.PROTOCOL_VIOLATION,
        DisconnectKind.LIVENESS_TIMEOUT,
        DisconnectKind.CONNECT_FAILED,
        DisconnectKind.INTERNAL_ERROR,
    }
)


def encode_hang_up(cause: DisconnectReason) -> bytes:
    """The payload of the hang-up that tells the peer about ``cause``.

    The detail of an internal or a transport error stays here: it may quote our user's code, or name a file (G9).
    """
    if cause.kind not in _TOLD:
        return dumps(None)
    private = cause.kind in (DisconnectKind.INTERNAL_ERROR, DisconnectKind.TRANSPORT_ERROR)
    detail = "" if private else cause.detail
    if cause.cause is not None and cause.cause.kind is DisconnectKind.PROTOCOL_VIOLATION:
        detail = f"{detail}: {cause.cause.detail}"
    return _error_map("kind", cause.kind.value, "detail", detail)


def decode_hang_up(payload_untrusted: bytes | memoryview) -> DisconnectReason:
    """What the peer's hang-up says.

    Raises:
        RemoteProtocolError: It is neither null nor a reason.
    """
    if len(payload_untrusted) == 1 and payload_untrusted[0] == 0xF6:
        return DisconnectReason(DisconnectKind.REMOTE_HANGUP)
    kind, detail = map(_one_line, _read_error_map(payload_untrusted, "kind", "detail", what="hang-up"))
    return DisconnectReason(DisconnectKind.REMOTE_ERROR, f"{kind}: {detail}" if detail else kind)


def _error_map(first: str, name: str, second: str, text: str) -> bytes:
    return dumps({first: _cut(name, MAX_ERROR_TYPE), second: _cut(text, MAX_ERROR_MESSAGE)})


def _cut(text: str, limit: int) -> str:
    # A lone surrogate cannot be written as CBOR text.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= limit:
        return text
    return f"{text[: limit - 32]}… ({len(text)} characters)"


def _one_line(text: str) -> str:
    # It goes into logs: no line breaks, no terminal commands.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _read_error_map(payload: bytes | memoryview, first: str, second: str, *, what: str) -> tuple[str, str]:
    if len(payload) > MAX_ERROR_PAYLOAD:
        raise RemoteProtocolError(f"{what}: {len(payload)} bytes; {MAX_ERROR_PAYLOAD} is the limit")
    fields: Any = loads_strict(payload, what=what)
    if not isinstance(fields, dict):
        raise RemoteProtocolError(f"{what}: not a map")
    name, text = fields.get(first), fields.get(second, "")
    if type(name) is not str or type(text) is not str:
        raise RemoteProtocolError(f"{what}: {first!r} and {second!r} must be texts")
    return name, text
