"""The answers that native code owes: the table of pending calls, and the function it answers through.

The table is of the process, not of a session, because the C function `ret(session, buffer, call_id)` is one for
all, and may be called by any thread at any time, also long after everything here is over.

Rules:
- A call id is never used twice.
- G1: an answer takes its call out of the table, in one step; the next one finds nothing and is dropped.
- An answer to a call that was given up is expected, so it is not worth a warning; one to a call that was answered
  already is a bug in the native code, and is.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final

import attrs
import outcome
import trio

from orc_trio.exceptions import DisconnectedError, NoControllerError, OrcError, WrapperFunctionError
from orc_trio.native import abi

_log = logging.getLogger("orc_trio.native")

MAX_GIVEN_UP: Final = 4096
"""How many given-up calls are remembered, only to tell a late answer from a second one."""

_ids: Final = itertools.count(1)


@attrs.define(eq=False)
class Usage:
    """Counts what keeps a program from being unloaded: code running in it, and answers it owes. Any thread."""

    _on_idle: Callable[[], None] | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    count: int = attrs.field(default=0, init=False)

    def acquire(self) -> None:
        """One more."""
        with self._lock:
            self.count += 1

    def release(self) -> None:
        """One less; the last one tells who waits for that."""
        with self._lock:
            self.count -= 1
            on_idle = self._on_idle if self.count == 0 else None
        if on_idle is not None:
            on_idle()

    def when_idle(self, on_idle: Callable[[], None] | None) -> bool:
        """Have `on_idle` called, from any thread, each time nothing is left; say whether that is so now."""
        with self._lock:
            self._on_idle = on_idle
            return self.count == 0


@attrs.define(eq=False)
class PendingCall:
    """The promise of one answer."""

    name: str
    _token: trio.lowlevel.TrioToken = attrs.field(alias="token")
    usage: Usage
    settled: trio.Event = attrs.field(factory=trio.Event)
    result: outcome.Outcome[bytes] | None = None

    def settle(self, result: outcome.Outcome[bytes]) -> None:
        """Deliver the answer from any thread; the caller has taken this call out of the table."""
        with contextlib.suppress(trio.RunFinishedError):  # G19: a late answer after the run is silent
            self._token.run_sync_soon(self._wake, result)

    def _wake(self, result: outcome.Outcome[bytes]) -> None:
        self.result = result
        self.settled.set()


_pending: Final[dict[int, PendingCall]] = {}
_given_up: Final[dict[int, PendingCall]] = {}


def register(name: str, token: trio.lowlevel.TrioToken, usage: Usage) -> tuple[int, PendingCall]:
    """Make a pending call and its id."""
    call_id, call = next(_ids), PendingCall(name=name, token=token, usage=usage)
    usage.acquire()
    _pending[call_id] = call
    return call_id, call


def withdraw(call_id: int) -> None:
    """Forget a call that never reached native code: nobody can answer it."""
    call = _pending.pop(call_id, None)
    if call is not None:
        call.usage.release()


def give_up(call_id: int) -> None:
    """Stop waiting for a call; its late answer is expected, and dropped. Does nothing if it was answered."""
    call = _pending.get(call_id)
    if call is None:
        return
    _given_up[call_id] = call  # before it leaves the other table: an answer may come in between
    if _pending.pop(call_id, None) is None:
        _given_up.pop(call_id, None)
    while len(_given_up) > MAX_GIVEN_UP:
        _given_up.pop(next(iter(_given_up)), None)


def settle(call_id: int, result: outcome.Outcome[bytes]) -> None:
    """Answer a call, from any thread."""
    call = _pending.pop(call_id, None)  # G1: whoever takes it out settles it
    if call is not None:
        call.usage.release()
        call.settle(result)
        return
    call = _given_up.pop(call_id, None)
    if call is not None:
        call.usage.release()
        _log.debug("dropped the late answer of %s", call.name)
    else:
        _log.warning("dropped an answer to native call %d, which was answered before or never made", call_id)


def _on_return(_session: int | None, buffer: abi.Buffer, call_id: int) -> None:
    try:
        result: outcome.Outcome[bytes] = outcome.capture(abi.take, buffer)
        settle(call_id, result)
    except BaseException as exc:  # noqa: ASYNC103 - nothing may raise into native code
        log_escape("an answer", exc)


def describe(exc: BaseException) -> str:
    """Return the text by which native code is told of an exception."""
    match exc:
        case WrapperFunctionError():
            return str(exc)
        case NoControllerError():
            return "no controller attached"
        case DisconnectedError():
            return f"disconnected: {exc}"
        case OrcError() | RuntimeError():
            return f"{type(exc).__name__}: {exc}"
        case _:
            return f"the call failed: {type(exc).__name__}"


def log_escape(what: str, exc: BaseException) -> None:
    """Log an exception that must not reach native code; never raises."""
    with contextlib.suppress(BaseException):
        _log.error("handling %s of native code failed", what, exc_info=exc)


# Made once: native code may hold the address as long as the process lives.
_RETURN: Final = abi.RETURN(_on_return)
RETURN_ADDRESS: Final = abi.address_of(_RETURN)
