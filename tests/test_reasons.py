# Reasons are plain values: what they say, and what counts as orderly.

from __future__ import annotations

import pickle
import signal

import attrs
import pytest

from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason, describe_exit_status


def test_the_kinds_are_those_of_the_contract() -> None:
    """G11: there are these ways to end, and no other."""
    assert {kind.name for kind in DisconnectKind} == {
        "LOCAL_HANGUP",
        "REMOTE_HANGUP",
        "REMOTE_ERROR",
        "EOF_WITHOUT_HANGUP",
        "TRANSPORT_ERROR",
        "PROTOCOL_VIOLATION",
        "LIVENESS_TIMEOUT",
        "DRAIN_TIMEOUT",
        "CONNECT_FAILED",
        "OWNER_CANCELLED",
        "INTERNAL_ERROR",
    }
    assert {certainty.name for certainty in Certainty} == {"NOT_SENT", "NOT_STARTED", "UNKNOWN"}


@pytest.mark.parametrize("kind", DisconnectKind)
def test_orderly_ends(kind: DisconnectKind) -> None:
    """G11: only a goodbye that one of the two ends chose to say is orderly."""
    chosen = {DisconnectKind.LOCAL_HANGUP, DisconnectKind.REMOTE_HANGUP, DisconnectKind.OWNER_CANCELLED}
    assert DisconnectReason(kind).orderly is (kind in chosen)


def test_a_killed_executor_is_never_orderly() -> None:
    """G11: a killed peer is never "closed cleanly", whatever it said before; an exit code of its own choice may be."""
    reason = DisconnectReason(DisconnectKind.REMOTE_HANGUP)
    assert attrs.evolve(reason, exit_status=0).orderly
    assert attrs.evolve(reason, exit_status=3).orderly
    assert not attrs.evolve(reason, exit_status=-signal.SIGKILL).orderly


def test_a_reason_is_one_readable_line() -> None:
    """G11: the text says the kind, the detail, the cause inside and the exit status."""
    cause = DisconnectReason(DisconnectKind.PROTOCOL_VIOLATION, "unknown opcode 9")
    reason = DisconnectReason(DisconnectKind.DRAIN_TIMEOUT, "5 s", cause, exit_status=-11)
    assert str(reason) == (
        "drain timeout: 5 s (cause: protocol violation: unknown opcode 9) [executor was killed by SIGSEGV]"
    )
    assert str(DisconnectReason(DisconnectKind.LOCAL_HANGUP)) == "local hang-up"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-9, "was killed by SIGKILL"),
        (-250, "was killed by signal 250"),
    ],
)
def test_exit_statuses_are_said_in_words(status: int, text: str) -> None:
    """G11: an exit status follows Popen's convention, and is said as a person would."""
    assert describe_exit_status(status) == text


def test_reasons_are_values() -> None:
    """G11: a reason cannot change, compares by what it says, and survives pickling."""
    reason = DisconnectReason(DisconnectKind.REMOTE_ERROR, "x", DisconnectReason(DisconnectKind.LOCAL_HANGUP), 1)
    assert pickle.loads(pickle.dumps(reason)) == reason
    assert len({reason, attrs.evolve(reason)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        reason.detail = "y"  # type: ignore[misc]
