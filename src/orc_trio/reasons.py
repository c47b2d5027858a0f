"""How a connection ended, and what is known about a call that the end failed.

Rules
-----
* A connection has one *cause*, fixed at the latch (the step after which it is no longer open), and one *end*, fixed
  when it is over.  Both are a `DisconnectReason` (G11).
* The end is the cause itself, or ``DRAIN_TIMEOUT`` with the cause inside: running out of the drain bound is never
  reported as success (G15).
* Every call failed by an end carries a `Certainty` (G4).

These are plain values: no trio, no I/O.
"""

from __future__ import annotations

import enum
import signal
import traceback
from typing import Final

import attrs

__all__ = ["OWN_ENDS", "Certainty", "DisconnectKind", "DisconnectReason", "cause_of", "describe_error"]


class DisconnectKind(enum.Enum):
    """The ways in which a connection can end (G11)."""

    LOCAL_HANGUP = "local hang-up"
    """This end hung up."""
    REMOTE_HANGUP = "remote hang-up"
    """The peer hung up, in order."""
    REMOTE_ERROR = "remote error"
    """The peer hung up and gave an error as its reason; the reason is in the detail."""
    EOF_WITHOUT_HANGUP = "end of stream without a hang-up"
    """The stream ended and the peer had not said goodbye: it was killed, crashed, or broke the protocol."""
    TRANSPORT_ERROR = "transport error"
    """Reading or writing failed."""
    PROTOCOL_VIOLATION = "protocol violation"
    """The peer sent something it may not send; it was told so."""
    LIVENESS_TIMEOUT = "liveness timeout"
    """The liveness check was on, and nothing was heard from the peer in time."""
    DRAIN_TIMEOUT = "drain timeout"
    """The peer did not take our goodbye within the drain bound; what led there is in ``cause``."""
    CONNECT_FAILED = "connect failed"
    """The connection ended before both ends had agreed on it."""
    OWNER_CANCELLED = "owner cancelled"
    """The task that owns the connection was cancelled."""
    INTERNAL_ERROR = "internal error"
    """A callback raised, a handler raised a `BaseException`, or orc_trio has a bug."""


_ORDERLY = frozenset({DisconnectKind.LOCAL_HANGUP, DisconnectKind.REMOTE_HANGUP, DisconnectKind.OWNER_CANCELLED})


OWN_ENDS: Final = frozenset(
    {
        DisconnectKind.LOCAL_HANGUP,
        DisconnectKind.OWNER_CANCELLED,
        DisconnectKind.INTERNAL_ERROR,
        DisconnectKind.CONNECT_FAILED,
    }
)
"""Ends that are an end's own also if it was never agreed on; any other becomes ``CONNECT_FAILED`` then."""


class Certainty(enum.Enum):
    """What is known about whether a failed call has run (G4)."""

    NOT_SENT = "not sent"
    """No byte of it was handed to the transport.  It has not run; trying again elsewhere is safe."""
    NOT_STARTED = "not started"
    """It may have arrived, but the peer said that it never started it; or only parts of it were sent.  Trying again
    elsewhere is safe."""
    UNKNOWN = "unknown"
    """It may have run, in part or to its end."""


@attrs.frozen
class DisconnectReason:
    """How a connection ended.

    Attributes:
        kind: Which of the ways it was.
        detail: One line for people; may be empty.  What came from the peer is quoted, never interpreted.
        cause: For ``DRAIN_TIMEOUT``: why the drain was begun.  For ``CONNECT_FAILED``: what ended the attempt, if it
            has a kind of its own.
        exit_status: The executor process's exit status where this end started that process: its exit code, or minus
            the number of the signal that killed it.  Otherwise None.
    """

    kind: DisconnectKind
    detail: str = ""
    cause: DisconnectReason | None = None
    exit_status: int | None = None

    @property
    def orderly(self) -> bool:
        """Whether both ends had the chance to say goodbye: nobody died, broke a rule, or ran out of time."""
        return self.kind in _ORDERLY and (self.exit_status is None or self.exit_status >= 0)

    def __str__(self) -> str:
        text = self.kind.value
        if self.detail:
            text += f": {self.detail}"
        if self.cause is not None:
            text += f" (cause: {self.cause})"
        if self.exit_status is not None:
            text += f" [executor {describe_exit_status(self.exit_status)}]"
        return text


def cause_of(end: DisconnectReason) -> DisconnectReason:
    """The cause that an end has, or is, with the end's exit status: what a failed operation carries (G11)."""
    if end.kind is DisconnectKind.DRAIN_TIMEOUT and end.cause is not None:
        return attrs.evolve(end.cause, exit_status=end.exit_status)
    return end


def describe_error(exc: BaseException) -> str:
    """One line of text for an exception, whatever is wrong with it."""
    return traceback.format_exception_only(exc)[0].splitlines()[0]


def describe_exit_status(status: int) -> str:
    """Say an exit status the way a person would: ``exited with status 3``, ``was killed by SIGSEGV``."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"
