"""Runs a command's async part: SIGINT and SIGTERM cancel it, so that whatever it opened is closed.

The first signal cancels; cleaning up is bounded (G15).  The second one ends the process where it stands.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import trio

from orc_trio.cli.exits import signal_status

__all__ = ["run_command"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run_command(function: Callable[[], Awaitable[int]], *, signals: bool = True) -> int:
    """Run ``function`` in Trio.

    Args:
        function: The command.
        signals: Let SIGINT and SIGTERM cancel it; False: let them end the process at once.

    Returns:
        What it returned, or 128 + n if signal n ended it.

    Raises:
        Exception: What it raised, as it is.
    """
    # What whoever started us has ignored (nohup, a shell's background job) stays ignored.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if signals and heard:
        return trio.run(_main, function, heard)
    for number in heard:
        signal.signal(number, signal.SIG_DFL)
    return trio.run(function)


async def _main(function: Callable[[], Awaitable[int]], heard: Sequence[signal.Signals]) -> int:
    results: list[int | Exception] = []
    received: list[int] = []
    work = trio.CancelScope()

    async def watch(signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if received:
                os._exit(signal_status(number))
            received.append(number)
            work.cancel()

    with trio.open_signal_receiver(*heard) as signals:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(watch, signals)
            with work:
                try:
                    results.append(await function())
                except Exception as exc:
                    results.append(exc)
            nursery.cancel_scope.cancel()
    if received:
        return signal_status(received[0])
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result
