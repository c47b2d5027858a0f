"""Runs a command's async part: SIGINT and SIGTERM cancel it, so that whatever it opened is closed.

The first signal cancels; cleaning up is bounded (G15).  The second one ends the process where it stands, also if a
function that blocks the event loop keeps the first one from being acted on: no task takes part.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

import trio

from orc_trio.cli.exits import signal_status

__all__ = ["run_command"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run_command(
    function: Callable[[], Awaitable[int]], *, signals: bool = True, before_cancelling: Callable[[], object] = bool
) -> int:
    """Run ``function`` in Trio.

    Args:
        function: The command.
        signals: Let SIGINT and SIGTERM cancel it; False: let them end the process at once.
        before_cancelling: Called when they do, in the same step.  What follows from a cancellation happens in no
            particular order; this comes before all of it.

    Returns:
        What it returned, or 128 + n if signal n ended it.

    Raises:
        Exception: What it raised, as it is, unless a signal came first.
    """
    # What whoever started us has ignored (nohup, a shell's background job) stays ignored.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if signals and heard:
        return trio.run(_main, function, heard, before_cancelling)
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    return trio.run(function)


async def _main(
    function: Callable[[], Awaitable[int]], heard: Sequence[signal.Signals], before_cancelling: Callable[[], object]
) -> int:
    received: list[int] = []
    work = trio.CancelScope()
    trio_token = trio.lowlevel.current_trio_token()

    def cancel() -> None:
        before_cancelling()
        work.cancel()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(signal_status(number))
        received.append(number)
        trio_token.run_sync_soon(cancel)

    result = 0
    try:
        with _handling(heard, on_signal), work:
            result = await function()
    except Exception:
        if not received:
            raise
    return signal_status(received[0]) if received else result  # noqa: ASYNC910


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
