"""Cancelling at every step: of one task, or of the whole run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

import trio

__all__ = ["Steps", "cancelled_after", "spread"]


class Steps(trio.abc.Instrument):
    """Counts steps, and cancels a scope after so many.

    Args:
        limit: How many; None: count only.
        of: Count only this task's; None: all tasks'.

    Attributes:
        count: How many there were.
        scope: What is cancelled.
        hit: Whether it was.
    """

    def __init__(self, limit: int | None = None, of: trio.lowlevel.Task | None = None) -> None:
        self._limit = limit
        self._of = of
        self.count: int = 0
        self.scope: trio.CancelScope = trio.CancelScope()
        self.hit: bool = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        if self._of in (None, task) and not self.hit:
            self.count += 1
            if self._limit is not None and self.count >= self._limit:
                self.hit = True
                self.scope.cancel()


async def cancelled_after(
    function: Callable[[], Awaitable[object]], limit: int | None = None, *, own: bool = False
) -> Steps:
    """Run a function, cancelled after so many steps.

    Args:
        function: What to run.
        limit: How many; None: do not cancel it.
        own: Count the steps of this task only.

    Returns:
        How that went.

    Checkpoints:
        If the function does.

    Cancellation:
        Ends the function.
    """
    steps = Steps(limit, trio.lowlevel.current_task() if own else None)
    trio.lowlevel.add_instrument(steps)
    try:
        with steps.scope:
            await function()
    finally:
        trio.lowlevel.remove_instrument(steps)
    return steps


def spread(total: int, most: int) -> Iterable[int]:
    """The numbers from 1 to ``total``; not more than ``most`` of them, the first ones and then evenly spread."""
    if total <= most:
        return range(1, total + 1)
    first = most // 3
    return [*range(1, first + 1), *_even(first + 1, total, most - first)]


def _even(low: int, high: int, count: int) -> Iterator[int]:
    for number in range(count):
        yield low + (high - low) * number // max(1, count - 1)
