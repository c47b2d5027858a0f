"""A clock for tests with short bounds on machines that are busy with something else."""

from __future__ import annotations

import time
from typing import Final

import trio

__all__ = ["SteadyClock"]

_STEP: Final = 0.05
_SLEEP: Final = 0.045  # less, so that a sleep counts in full


class SteadyClock(trio.abc.Clock):
    """Real time, less what the event loop stood still: ``trio.run(..., clock=SteadyClock())``.

    From one look at the clock to the next, 50 ms pass at most.  So no bound runs out by that alone that the machine
    had no time for the loop, and what was sent meanwhile is found first.

    With this clock, ``trio.testing.wait_all_tasks_blocked`` takes cushions below 45 ms only.
    """

    def __init__(self) -> None:
        self._last = self._passed = 0.0

    def start_clock(self) -> None:
        """Called by Trio."""
        self._last = time.perf_counter()

    def current_time(self) -> float:
        """Seconds since the run began, as counted here."""
        now = time.perf_counter()
        self._passed += min(now - self._last, _STEP)
        self._last = now
        return self._passed

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Seconds until ``deadline``; or less, to look again."""
        return min(deadline - self.current_time(), _SLEEP)
