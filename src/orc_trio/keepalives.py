"""Keepalive tokens: the right to run code that a session manages; its shutdown waits for all of them (G22).

Rules
-----
* From the moment a shutdown is requested no new keepalive is given.
* A keepalive brackets one span of execution, not a chain of asynchronous steps.
* Any thread may take and release one; a release after the Trio run has ended is silent (G19).
* Who took one does not wait for a disconnect or shutdown of its session: it would wait for itself (G12).  That is the
  task that took it and its child tasks, by ancestry; and a thread that took it or works for that task, by context: also
  a task that a thread which took one starts elsewhere, as long as it is held.
* A release may come at any instruction, from a finalizer or a signal handler: also to a thread that has the lock.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Self

import attrs
import trio

from orc_trio.exceptions import CallRefusedError, KeepaliveDeniedError
from orc_trio.interrupts import uninterrupted
from orc_trio.nesting import for_thread, is_within

__all__ = ["Keepalive", "Keepalives"]

_log = logging.getLogger("orc_trio")
# May also name some that are released already: by somebody else, who cannot change our context.
_held: ContextVar[tuple[Keepalive, ...]] = ContextVar("orc_trio_keepalives", default=())


def _this_task() -> trio.lowlevel.Task | None:
    return trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else None


def _held_now() -> tuple[Keepalive, ...]:
    held = _held.get()
    return tuple([token for token in held if not token._released]) if held else held


@attrs.define(eq=False)
class Keepalive:
    """One token.  A context manager; or call `release` once."""

    name: str
    _owner: Keepalives
    _taker: trio.lowlevel.Task | None = None
    _released: bool = False

    @uninterrupted
    def release(self) -> None:
        """Give it back.  From any thread, also after the Trio run has ended; more than once is the same as once."""
        if not self._released:
            self._released = True
            self._owner._release(self)
        _held.set(_held_now())

    @uninterrupted
    def __enter__(self) -> Self:
        return self

    @uninterrupted
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.release()


class Keepalives:
    """The tokens of one session.  Made on the Trio thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tokens: dict[Keepalive, None] = {}
        self._denied = False
        self._changed: trio.Event | None = None  # while somebody waits
        self._trio = trio.lowlevel.current_trio_token()

    @property
    def names(self) -> tuple[str, ...]:
        """The holders, in the order in which they came."""
        with self._lock:
            return tuple(token.name for token in self._tokens.copy())

    @uninterrupted
    def acquire(self, name: str) -> Keepalive:
        """Take a token.

        Raises:
            KeepaliveDeniedError: A shutdown was requested.
        """
        return self._acquire(name, _this_task())

    def _acquire(self, name: str, taker: trio.lowlevel.Task | None) -> Keepalive:
        token = Keepalive(name, self, taker)
        with self._lock:
            if self._denied:
                raise KeepaliveDeniedError("the session is shutting down")
            self._tokens[token] = None
        _held.set((*_held_now(), token))
        return token

    def acquire_for_call(self, name: str) -> Keepalive:
        """Take a token to serve a call.

        Raises:
            CallRefusedError: A shutdown was requested.
        """
        try:
            return self._acquire(name, trio.lowlevel.current_task())
        except KeepaliveDeniedError as exc:
            raise CallRefusedError(str(exc)) from None

    @uninterrupted
    def uncounted(self) -> Keepalive:
        """A token that nobody waits for: it marks what the session itself runs as unable to wait for it."""
        token = Keepalive("", self, _this_task())
        _held.set((*_held_now(), token))
        return token

    @uninterrupted
    def deny(self) -> None:
        """Give no more."""
        with self._lock:
            self._denied = True

    def held_here(self) -> bool:
        """Whether the current task, a parent of it, the thread it works for, or this thread holds one."""
        held = [token for token in _held_now() if token._owner is self]
        if not held or not trio.lowlevel.in_trio_task() or for_thread():
            return bool(held)
        return any(token._taker is None or is_within(token._taker) for token in held)

    async def wait_released(self, patience: trio.CancelScope) -> bool:
        """Wait until there is none.

        Args:
            patience: Bounds the wait.

        Returns:
            Whether there is none; otherwise patience has run out, and those who hold one are in the log.

        Checkpoints:
            If there is one.

        Cancellation:
            Changes nothing.
        """
        with patience:
            while True:
                with self._lock:
                    if not self._tokens:
                        break
                    self._changed = changed = trio.Event()
                await changed.wait()
        if patience.cancelled_caught:
            _log.warning("on_shutdown is not called: keepalives are held by %s", ", ".join(self.names))
        return not patience.cancelled_caught  # noqa: ASYNC910

    def _release(self, token: Keepalive) -> None:
        with self._lock:
            self._tokens.pop(token, None)
            changed = self._changed
        if changed is not None:
            with suppress(trio.RunFinishedError):
                self._trio.run_sync_soon(changed.set, idempotent=True)
