"""The services of a session: told of its detach, shut down in reverse (G23).

Rules
-----
* Every ``on_detach`` comes before any ``on_shutdown``, also for a service added after the detach.
* Each runs shielded, within a bound.
* What is no `Exception` ends the session and goes to its owner, as it does from a wrapper function.
* One service's error neither stops the others nor is lost: errors are gathered.  (An `AsyncExitStack` would lose all
  but the last, and turn the owner's `trio.Cancelled` into something else.)
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial

import trio

from orc_trio.abc import Service
from orc_trio.interrupts import interruptible, interruptible_async
from orc_trio.ownership import only_cancelled
from orc_trio.reasons import DisconnectReason

__all__ = ["Services"]

_log = logging.getLogger("orc_trio")


class Services:
    """The services of one session.

    Args:
        bound: Seconds each has for each of its two methods.
        inside: Marks what a service runs as belonging to the session: it cannot wait for the session's end (G12).
        fail: Told of what a service raises that is no `Exception`.
    """

    def __init__(
        self,
        bound: float,
        *,
        inside: Callable[[], AbstractContextManager[object]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._bound = bound
        self._inside = inside
        self._fail = fail
        self._all: list[Service] = []
        self._untold: list[Service] = []
        self._telling = trio.Lock()
        self.errors: list[Exception] = []
        """What they raised, in order."""

    def add(self, service: Service) -> None:
        """Add one."""
        self._all.append(service)
        self._untold.append(service)

    async def tell_detached(self, reason: DisconnectReason | None) -> None:
        """Call ``on_detach`` of those that were not told yet, in the order of addition.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the rest untold.
        """
        async with self._telling:
            while self._untold:
                service = self._untold.pop(0)
                await self._bounded("on_detach", service, partial(service.on_detach, reason))

    async def shut_down(self, reason: DisconnectReason | None) -> None:  # noqa: ASYNC910
        """Call every ``on_shutdown``, in the reverse order of addition; also of those that are added meanwhile.

        Checkpoints:
            If there is one.

        Cancellation:
            Leaves the rest as they are.
        """
        while self._all:
            await self.tell_detached(reason)
            service = self._all.pop()
            await self._bounded("on_shutdown", service, service.on_shutdown)

    def report_errors(self, on_error: Callable[[Exception], None] | None) -> None:
        """Tell of the errors where they cannot be raised.

        Args:
            on_error: Told of each; default, and where it fails: the log.
        """
        for number, error in enumerate(self.errors, 1):
            try:
                interruptible(on_error or _log_error, error)
            except Exception:
                _log.exception("on_error failed")
                _log_error(error)
            except BaseException:
                for untold in self.errors[number:]:
                    _log_error(untold)
                raise

    async def _bounded(  # noqa: ASYNC910
        self, what: str, service: Service, function: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            with self._inside(), trio.move_on_after(self._bound, shield=True) as scope:
                await interruptible_async(function)
            if scope.cancelled_caught:
                raise TimeoutError(f"{what} of {_name(service)} did not end within {self._bound:g} s")
        except Exception as exc:
            self.errors.append(exc)
        except BaseException as exc:  # noqa: ASYNC103
            if only_cancelled(exc):  # it is shielded: nobody cancelled it, it raised one it had kept
                self.errors.append(RuntimeError(f"{what} of {_name(service)} raised {exc!r}"))
            else:
                self._fail(exc)


def _name(service: Service) -> str:
    try:
        return repr(service)
    except Exception:  # its author's business, and no reason to leave the others out
        return f"a {type(service).__qualname__}"


def _log_error(exc: Exception) -> None:
    _log.error("a service failed", exc_info=exc)
