"""What a message is: five values, whatever they look like as bytes.

A message is ``(opcode, seq, tag, aux, payload)``.  The four integers are unsigned and at most 64 bits wide; what
``tag`` and ``aux`` mean depends on the opcode and is written beside it below.  The payload is opaque here.

Sequence number 0 means "no call".  Each direction counts its own calls; numbers strictly increase, gaps are allowed,
none is used twice.

This module refuses nothing: which message may come when is decided by `orc_trio.protocol`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, cast

__all__ = ["NO_DEADLINE", "NO_SEQ", "U64_MAX", "Message", "Opcode", "PartOf", "ResultKind", "new_message"]

U64_MAX: Final = 2**64 - 1
NO_SEQ: Final = 0
"""The sequence number of a message that belongs to no call."""
NO_DEADLINE: Final = U64_MAX
"""A call's ``aux`` when its caller has no deadline."""


class Opcode(enum.IntEnum):
    """What a message is for.  The numbers are the wire's; setup and hang-up are frozen for all versions."""

    SETUP = 0
    """First message of each side.  Payload: a CBOR map, see `orc_trio.protocol.setup`."""
    HANG_UP = 1
    """Last message of each side.  aux: the watermark, the highest call number dispatched.  Payload: CBOR null, or a
    map with the reason."""
    RESULT = 2
    """Answers a call, exactly once.  seq: the call's.  aux: a `ResultKind`."""
    CALL = 3
    """seq: its number.  tag: a handler tag or executor address.  aux: remaining time in µs, or `NO_DEADLINE`."""
    CANCEL = 4
    """The caller is no longer interested in call ``seq``."""
    PING = 5
    """aux: its number."""
    PONG = 6
    """aux: the number of the ping it answers."""
    NESTED_CALL = 7
    """As CALL, made while serving a call; has a budget of its own."""
    PART = 8
    """A piece of a large call or result.  seq: the call's.  tag: a `PartOf`.  aux: total payload length.  The last
    piece travels in the call or result message itself."""


class ResultKind(enum.IntEnum):
    """A result's ``aux``."""

    VALUE = 0
    """The payload is the function's answer."""
    ERROR = 1
    """The payload is a CBOR map ``{"type": text, "message": text}``."""
    CANCELLED = 2
    """The call was cancelled by its caller; no payload."""
    REFUSED = 3
    """The call was not started; the payload is as for ERROR."""


class PartOf(enum.IntEnum):
    """A part's ``tag``: which of the two messages with its sequence number it is a piece of."""

    CALL = 0
    RESULT = 1


class Message(NamedTuple):
    """One message.

    Attributes:
        opcode: An `Opcode`; from a peer it can be any number.
        seq: 0 … 2⁶⁴−1.
        tag: 0 … 2⁶⁴−1.
        aux: 0 … 2⁶⁴−1.
        payload: The bytes.  A large payload that was just received is a `memoryview` of a buffer of its own.
    """

    opcode: int
    seq: int = 0
    tag: int = 0
    aux: int = 0
    payload: bytes | memoryview = b""


new_message: Final = cast(
    "Callable[[tuple[int, int, int, int, bytes | memoryview]], Message]", partial(tuple.__new__, Message)
)
"""A message of its five values.  It takes half the time of calling `Message`, and there are four for every call."""
