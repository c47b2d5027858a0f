"""The liveness check: is the peer still there, although it says nothing (G17).

Rules
-----
* Any inbound byte is a sign of life, and so is progress of our own sending (`orc_trio.pumps` sees both).
* A peer that is silent is asked: one ping at a time.  That it could be sent is no sign of life.
* Time is counted in looks, not by the clock: after a time in which *our* event loop stood still, what the peer had sent
  meanwhile is read before it is judged.

Looked at four times within the bound, and three silent looks are one too many: silence is found when three quarters of
the bound are over, or later, and reported before all of it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

__all__ = ["wait_for_silence"]

_LOOKS: Final = 4


async def wait_for_silence(  # noqa: ASYNC910
    bound: float, *, alive: Callable[[], bool], ping: Callable[[], None], over: trio.Event
) -> None:
    """Return when there was no sign of life within ``bound`` seconds, or when ``over`` is set.

    Args:
        bound: Seconds.
        alive: Whether there was a sign of life since it was last asked.
        ping: Asks the peer for one; does nothing while the last one was not answered.
        over: Nobody wants to know any more.

    Checkpoints:
        Always.

    Cancellation:
        Changes nothing.
    """
    silent = 0
    while silent < _LOOKS - 1:
        with trio.move_on_after(bound / _LOOKS):
            await over.wait()
        if over.is_set():
            return
        if alive():
            silent = 0
        else:
            silent += 1
            ping()
