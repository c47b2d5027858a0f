"""What one end is willing to hold, and what two ends agree on.

Rules
-----
* Each end announces, in its setup message, what it is willing to *receive*.  What is in force, in both directions, is
  the smaller of the two ends' figures; so both compute the same (G8).
* ``max_bytes ≥ max_message ≥ 64 KiB``, or the connection is refused: with less, a message that each end allows could
  never be sent.
* The times are each end's own business and are not announced.

A count of calls bounds the fixed costs, a count of bytes the payloads.  Nested calls (made while serving a call) have
their own budgets of both, because they may not wait for room (G7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from orc_trio.exceptions import RemoteProtocolError

__all__ = ["AGREED_FIELDS", "MIN_MAX_MESSAGE", "Limits", "agree", "check_seconds"]

KIB: Final = 1024
MIB: Final = 1024 * KIB
MIN_MAX_MESSAGE: Final = 64 * KIB
MAX_MAX_MESSAGE: Final = 2**32 - 1 - 64
AGREED_FIELDS: Final = ("max_calls", "max_nested_calls", "max_bytes", "max_message")


def _whole(low: int, below: int = 63) -> Callable[[object, Any, Any], None]:
    def check(_instance: object, attribute: Any, value: Any) -> None:
        if type(value) is not int or value < low:
            raise ValueError(f"{attribute.name} must be a whole number of at least {low}, not {value!r}")
        if value >= 2**below:
            raise ValueError(f"{attribute.name} must be below 2**{below}, not {value!r}")

    return check


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no number of seconds: from 0 up, infinity included.

    Raises:
        ValueError: It is none.
    """
    try:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and float(value) >= 0
    except OverflowError:
        good = False
    if not good:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")


def _seconds(_instance: object, attribute: Any, value: Any) -> None:
    check_seconds(attribute.name, value)


@attrs.frozen(kw_only=True)
class Limits:
    """What one end is willing to hold, and for how long it waits.

    Attributes:
        max_calls: Calls in flight in one direction, at least 1.  More wait their turn, first come, first served.
        max_nested_calls: Calls in flight in one direction that were made while serving a call, at least 0.  More fail
            with `NestingLimitError`.
        max_bytes: Bytes of payload that orc_trio holds for one direction's calls (their arguments in one direction,
            their results in the other), at least ``max_message``.  Nested calls have the same again.
        max_message: The largest payload of one message, in bytes: 64 KiB to 4 GiB.
        setup_timeout: Seconds to wait for the peer's setup message.
        drain_timeout: Seconds from the latch to the close; then the peer is given up (G15).
        handler_grace: Seconds that handlers have, after the latch, to finish what they do; then they are cancelled.  0:
            they are cancelled at the latch.  Nobody hears their answers any more (G13).
        liveness_timeout: Seconds within which a peer that gives no sign of life is taken for dead (G17): more than 0.
            Silence is found when three quarters of it are over, or later.  None: never.
        part_size: Payloads over so many bytes are sent in parts of that size, with what else there is to send between
            them.  None: every payload is sent as a whole, and what comes behind a large one waits for it.
        send_buffer: Bytes that the system shall hold of what was sent over a socket and not read at the other end
            (``SO_SNDBUF``).  A Unix socket holds some 200 KiB by itself, and larger messages pass in so many steps; a
            TCP socket finds out what it needs as long as this is None.  The system may have a limit
            (``net.core.wmem_max``) and keeps to that.
    """

    max_calls: int = attrs.field(default=1024, validator=_whole(1))
    max_nested_calls: int = attrs.field(default=1024, validator=_whole(0))
    max_bytes: int = attrs.field(default=64 * MIB, validator=_whole(1))
    max_message: int = attrs.field(default=64 * MIB, validator=_whole(1))
    setup_timeout: float = attrs.field(default=10.0, validator=_seconds)
    drain_timeout: float = attrs.field(default=5.0, validator=_seconds)
    handler_grace: float = attrs.field(default=0.0, validator=_seconds)
    liveness_timeout: float | None = attrs.field(default=None, validator=attrs.validators.optional(_seconds))
    part_size: int | None = attrs.field(default=None, validator=attrs.validators.optional(_whole(1)))
    send_buffer: int | None = attrs.field(default=None, validator=attrs.validators.optional(_whole(1, below=31)))

    def __attrs_post_init__(self) -> None:
        if problem := self.problem():
            raise ValueError(problem)

    def problem(self) -> str | None:
        """What is wrong with the figures taken together, or None."""
        if self.max_message < MIN_MAX_MESSAGE:
            return f"max_message must be at least {MIN_MAX_MESSAGE} bytes, not {self.max_message}"
        if self.max_message > MAX_MAX_MESSAGE:
            return f"max_message must be at most {MAX_MAX_MESSAGE} bytes, not {self.max_message}"
        if self.liveness_timeout == 0:
            return "liveness_timeout must be more than 0 seconds; None switches the check off"
        if self.max_bytes < self.max_message:
            return f"max_bytes ({self.max_bytes}) must not be less than max_message ({self.max_message})"
        return None


def agree(ours: Limits, theirs: dict[str, int]) -> Limits:
    """The limits in force between two ends: the smaller of each figure, with our own times.

    Args:
        ours: This end's limits.
        theirs: The peer's figures, one for each of `AGREED_FIELDS`.

    Raises:
        RemoteProtocolError: The figures do not fit together; the message says how.
    """
    try:
        return attrs.evolve(ours, **{name: min(getattr(ours, name), theirs[name]) for name in AGREED_FIELDS})
    except ValueError as exc:
        raise RemoteProtocolError(str(exc)) from None
