"""The probes, A to G: what is done to a pair, and what is written down of it.

Each takes a connected `Cell` and returns facts; whether they are good is for `verdicts` to say.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from scoreboard.cell import Cell, milliseconds

Facts: TypeAlias = dict[str, Any]

CLOSERS: Final = 8
SAME_MOMENT: Final = 0.05
"""Seconds.  What happens within this time happens at once: in which order tasks are woken says nothing, and the machine
may be busy."""
GRACE: Final = 2.0
"""Seconds a far function has to stop after its caller was cancelled."""


def peer_killed(cell: Cell) -> Facts:
    """A: the far process is killed (SIGKILL) with a call pending."""
    call = cell.begin_wait()
    since = cell.signal_far(signal.SIGKILL)
    cell.watch_settled(call)
    return {"call": cell.outcome(call, since)}


def local_close(cell: Cell) -> Facts:
    """B: the near end closes with a call pending."""
    call = cell.begin_wait()
    (close,), since = cell.begin_closes()
    cell.watch_settled(call, close)
    return {"call": cell.outcome(call, since), "close": cell.outcome(close, since)}


def close_when_frozen(cell: Cell) -> Facts:
    """C: the far process is frozen (SIGSTOP) with a call pending, then the near end closes."""
    call = cell.begin_wait()
    cell.signal_far(signal.SIGSTOP)
    (close,), since = cell.begin_closes()
    cell.watch_settled(call, close)
    return {"call": cell.outcome(call, since), "close": cell.outcome(close, since)}


def call_after_close(cell: Cell) -> Facts:
    """D: a call is made after the near end has closed."""
    (close,), since = cell.begin_closes()
    cell.watch_settled(close)
    closed = cell.outcome(close, since)
    sent = cell.trigger()
    call = cell.begin_call("echo")
    cell.watch_settled(call)
    return {"close": closed, "call": cell.outcome(call, cell.begun_at(call) or sent)}


def many_closes(cell: Cell) -> Facts:
    """E: eight close at once with a call pending.

    A close is *early* if it returned before the pending call had settled, or before the first close had returned.
    """
    call = cell.begin_wait()
    closes, since = cell.begin_closes(CLOSERS)
    cell.watch_settled(call, *closes)
    returned = [at for op in closes if (at := cell.settled_at(op)) is not None]
    over = [cell.settled_at(call), cell.settled_at(closes[0])]
    end = float("inf") if None in over else max(at for at in over if at is not None)
    facts: Facts = {
        "call": cell.outcome(call, since),
        "closes": CLOSERS,
        "returned": len(returned),
        "early": sum(at < end - SAME_MOMENT for at in returned),
        "errors": sum(cell.outcome(op, since)["how"] != "result" for op in closes if cell.settled_at(op)),
    }
    if returned:
        facts |= {"first_ms": milliseconds(min(returned) - since), "last_ms": milliseconds(max(returned) - since)}
    return facts


def peer_frozen(cell: Cell) -> Facts:
    """F: the far process is frozen with a call pending, and nobody closes."""
    call = cell.begin_wait()
    since = cell.signal_far(signal.SIGSTOP)
    cell.watch_settled(call)
    return {"call": cell.outcome(call, since)}


def caller_cancelled(cell: Cell) -> Facts:
    """G: the caller is cancelled; then another call is made."""
    call = cell.begin_wait()
    since = cell.cancel(call)
    cell.watch_settled(call)
    facts: Facts = {"call": cell.outcome(call, since)}
    if cell.watch(lambda: cell.stopped_at() is not None, GRACE):
        facts |= {"handler": "stopped", "handler_ms": milliseconds((cell.stopped_at() or since) - since)}
    else:
        facts["handler"] = "ran on"
    sent = cell.trigger()
    following = cell.begin_call("echo")
    cell.watch_settled(following)
    facts["next"] = cell.outcome(following, cell.begun_at(following) or sent)
    return facts


PROBES: Final[dict[str, Callable[[Cell], Facts]]] = {
    "A": peer_killed,
    "B": local_close,
    "C": close_when_frozen,
    "D": call_after_close,
    "E": many_closes,
    "F": peer_frozen,
    "G": caller_cancelled,
}
