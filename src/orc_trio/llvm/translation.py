"""Our messages as LLVM's frames, and back, sans-IO.

What LLVM's protocol does not have
----------------------------------
* Cancels: the caller is released at once, as ever; the function runs on, and its result is dropped (G5).
* Deadlines: they are kept by the caller alone (G6).
* Nested calls are calls like any other.  Ours have a budget of their own here; what LLVM makes may exceed any (G7).
* Limits: LLVM announces none and knows none of ours.  A call too many, or a byte, is a violation (G8, G25).
* Pings: a ping is answered here, as soon as it is written.  A soft stop works, but does not know that the last result
  was read; liveness cannot be checked (G17): a timeout is refused.
* The watermark: after a hang-up of LLVM's no call is known not to have started; its certainty is unknown (G4).
* Errors as results, up to LLVM 23: they are sent as empty results, and received as such (G9, G10).

LLVM counts its calls from 0, and may send them in any order; here they get numbers that grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar, assert_never

from orc_trio.exceptions import LocalProtocolError, RemoteProtocolError
from orc_trio.protocol import Cancelled, Failed, Refused, Role, Setup, Value
from orc_trio.protocol.limits import MAX_MAX_MESSAGE
from orc_trio.protocol.outcomes import decode_hang_up, decode_result
from orc_trio.protocol.setup import decode_setup, encode_setup
from orc_trio.wire import sps
from orc_trio.wire.cbor import dumps
from orc_trio.wire.messages import NO_DEADLINE, U64_MAX, Message, Opcode, ResultKind
from orc_trio.wire.simple_remote import OUT_OF_BAND_ERROR, VALUE, Dialect, ExecutorInfo, Frame, Op

__all__ = ["Translation"]

T = TypeVar("T")
_NO_LIMITS: Final = MappingProxyType(
    {"max_calls": 2**62, "max_nested_calls": 2**62, "max_bytes": 2**62, "max_message": MAX_MAX_MESSAGE}
)
_IDENTITY: Final = "LLVM"
_OUT_OF_BAND: Final = "OutOfBandError"


class Translation:
    """Translates for one connection.

    Args:
        role: Which end we are.
        dialect: Which LLVM is at the other end.
    """

    def __init__(self, role: Role, dialect: Dialect) -> None:
        self._role = role
        self._dialect = dialect
        self._last = 0
        self._theirs: dict[int, int] = {}  # LLVM's number of each call that it made, by ours

    def at_start(self) -> list[Message]:
        """What a peer of ours would have sent, and LLVM does not."""
        if self._role is Role.CONTROLLER:
            return []
        setup = Setup(role=Role.CONTROLLER, limits=_NO_LIMITS, identity=_IDENTITY)
        return [Message(Opcode.SETUP, payload=encode_setup(setup))]

    # Ours to LLVM's

    def outgoing(self, messages: Sequence[Message]) -> tuple[list[Frame], list[Message]]:
        """What to send for these messages, and what then comes back at once."""
        frames: list[Frame] = []
        back: list[Message] = []
        for message in messages:
            match message.opcode:
                case Opcode.CALL | Opcode.NESTED_CALL:
                    frames.append(Frame(Op.CALL, message.seq, message.tag, message.payload))
                case Opcode.RESULT:
                    frames.append(self._result(message))
                case Opcode.SETUP:
                    frames += self._setup(message)
                case Opcode.HANG_UP:
                    reason = decode_hang_up(message.payload)
                    error = None if reason.orderly else sps.Failure(reason.detail)
                    frames.append(Frame(Op.HANG_UP, payload=sps.ERROR.pack(error)))
                case Opcode.PING:
                    back.append(Message(Opcode.PONG, aux=message.aux))
                case Opcode.CANCEL:
                    pass
                case _:
                    raise LocalProtocolError(f"LLVM's protocol has nothing for a message of opcode {message.opcode}")
        return frames, back

    def _setup(self, message: Message) -> list[Frame]:
        if self._role is Role.CONTROLLER:
            return []
        setup = decode_setup(message.payload, expect=Role.EXECUTOR)
        values = None if self._dialect is Dialect.UP_TO_16 else setup.values
        info = ExecutorInfo(triple=setup.triple, page_size=setup.page_size, values=values, symbols=setup.symbols)
        return [Frame(Op.SETUP, payload=info.pack())]

    def _result(self, message: Message) -> Frame:
        number = self._theirs.pop(message.seq)
        match decode_result(message.aux, message.payload):
            case Value(payload):
                return Frame(Op.RESULT, number, VALUE, payload)
            case Failed(remote_type, text):
                text = f"{remote_type}: {text}"
            case Refused(text):
                pass
            case Cancelled():
                text = "cancelled"
            case other:  # pragma: no cover
                assert_never(other)
        if self._dialect is not Dialect.MAIN:
            return Frame(Op.RESULT, number, VALUE)
        return Frame(Op.RESULT, number, OUT_OF_BAND_ERROR, sps.STRING.pack(text))

    # LLVM's to ours

    def incoming(self, frame: Frame) -> Message:
        """The message that a frame is.

        Raises:
            RemoteProtocolError: It does not fit.
        """
        match frame.opcode:
            case Op.CALL:
                self._last += 1
                self._theirs[self._last] = frame.seq
                return Message(Opcode.CALL, self._last, frame.tag, NO_DEADLINE, frame.payload)
            case Op.RESULT:
                return self._answer(frame)
            case Op.HANG_UP:
                error = sps.ERROR.unpack(frame.payload)
                said = None if error is None else {"kind": _IDENTITY, "detail": _readable(error.message)}
                return Message(Opcode.HANG_UP, aux=U64_MAX, payload=dumps(said))
            case _:
                return self._their_setup(frame)

    def _answer(self, frame: Frame) -> Message:
        if frame.tag == VALUE:
            return Message(Opcode.RESULT, frame.seq, 0, ResultKind.VALUE, frame.payload)
        if frame.tag != OUT_OF_BAND_ERROR or self._dialect is not Dialect.MAIN:
            raise RemoteProtocolError(f"a result has the tag {frame.tag}")
        try:
            text = _readable(sps.STRING.unpack(frame.payload))
        except RemoteProtocolError as exc:
            text = f"an out-of-band error that cannot be read: {exc}"
        return Message(Opcode.RESULT, frame.seq, 0, ResultKind.ERROR, dumps({"type": _OUT_OF_BAND, "message": text}))

    def _their_setup(self, frame: Frame) -> Message:
        if self._role is Role.EXECUTOR:
            raise RemoteProtocolError("a setup frame came to an executor")
        info = ExecutorInfo.unpack(frame.payload)
        setup = Setup(
            role=Role.EXECUTOR,
            limits=_NO_LIMITS,
            identity=_IDENTITY,
            triple=_name(info.triple),
            page_size=info.page_size,
            values=_named(info.values or {}),
            symbols=_named(info.symbols),
        )
        return Message(Opcode.SETUP, payload=encode_setup(setup))


def _named(found: Mapping[str, T]) -> dict[str, T]:
    return {_name(name): value for name, value in found.items()}


def _name(text: str) -> str:
    if _readable(text) != text:
        raise RemoteProtocolError(f"a setup has a name that is no UTF-8: {text!r}")
    return text


def _readable(text: str) -> str:
    """Without the surrogates of what was no UTF-8: these cannot be written as CBOR."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
