# The exception tree: who is whose parent, what each carries, what each says.

from __future__ import annotations

import pickle

import pytest

import orc_trio
from orc_trio import exceptions
from orc_trio.exceptions import (
    DisconnectedError,
    MessageTooLargeError,
    OrcError,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.testing import open_pair

REASON = DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP)
CASES = [
    (DisconnectedError(REASON, Certainty.NOT_STARTED), "end of stream without a hang-up; the call: not started"),
    (WrapperFunctionError("Busy", "try later"), "Busy: try later"),
    (WrapperFunctionError("Busy"), "Busy"),
    (UnknownHandlerTagError(0x7F00), "nothing is registered at the other end under 0x7f00"),
    (MessageTooLargeError(70000, 65536), "a payload of 70000 bytes is over the agreed limit of 65536 bytes"),
]


@pytest.mark.parametrize("name", exceptions.__all__)
def test_everything_is_an_orc_error(name: str) -> None:
    """Whoever catches OrcError catches everything orc_trio raises on purpose, and never a bare Cancelled."""
    assert issubclass(getattr(exceptions, name), OrcError)


def test_a_bad_spec_is_a_value_error() -> None:
    """A connection spec is a value: code that expects ValueError gets it."""
    assert issubclass(exceptions.ConnectionSpecError, ValueError)


@pytest.mark.parametrize(("error", "text"), CASES, ids=lambda case: type(case).__name__)
def test_what_errors_say_and_carry(error: OrcError, text: str) -> None:
    """G10: an error says its parts in one line, and keeps them through pickling."""
    assert str(error) == text
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), text, vars(error))


def test_a_disconnected_error_carries_cause_and_certainty() -> None:
    """G4, G11: the error of a call failed by the end says why, and whether it may have run."""
    error = DisconnectedError(REASON, Certainty.UNKNOWN)
    assert (error.reason, error.certainty) == (REASON, Certainty.UNKNOWN)


async def test_an_error_of_a_call_can_be_sent_on() -> None:
    """One that a connection brought can be pickled, and copied, like one that was made here."""

    async def fail(_args: bytes) -> bytes:
        raise orc_trio.WrapperFunctionError("Deliberate", "message")

    async with open_pair(wrappers={"fail": fail}) as pair:
        with pytest.raises(orc_trio.WrapperFunctionError) as caught:
            await pair.call_wrapper("fail")
    caught.value.hint = "more"  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.remote_type, again.message) == (orc_trio.WrapperFunctionError, "Deliberate", "message")
    assert again.hint == "more"
