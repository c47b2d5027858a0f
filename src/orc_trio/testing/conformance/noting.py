"""What is said meanwhile, in the log and elsewhere; and what services are told."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from orc_trio.abc import Service
from orc_trio.reasons import DisconnectReason
from orc_trio.testing.conformance.bench import expect

__all__ = ["Recorder", "logged", "nothing_said"]


@contextmanager
def logged(level: int = logging.WARNING) -> Iterator[list[logging.LogRecord]]:
    """What is logged meanwhile, by whomever."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keep = Keep(level)
    root = logging.getLogger()
    root.addHandler(keep)
    try:
        yield records
    finally:
        root.removeHandler(keep)


@contextmanager
def nothing_said(*, quiet: bool = True) -> Iterator[Callable[[], None]]:
    """Expect that nothing is complained about: in the log, as a warning, or by an exception that nobody can catch.

    Args:
        quiet: The log counts too.

    Yields:
        A function that forgets what was complained about so far.
    """
    lost: list[str] = []
    thread_hook, hook = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda args: lost.append(f"{args.exc_type.__name__} in a thread: {args.exc_value}")
    sys.unraisablehook = lambda args: lost.append(f"{args.err_msg}: {args.exc_value!r}")
    try:
        with logged() as records, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")

            def forget() -> None:
                for complaints in (lost, records, warned):
                    complaints.clear()

            yield forget
    finally:
        threading.excepthook, sys.unraisablehook = thread_hook, hook
    said = [str(warning.message) for warning in warned] + lost
    if quiet:
        said += [f"{record.levelname}: {record.getMessage()}" for record in records]
    expect(
        not said,
        expected="nothing is complained about",
        got="; ".join(said),
        why="a log in which clean ends complain is a log that nobody reads",
    )


@attrs.define(eq=False)
class Recorder(Service):
    """A service that notes what it is told."""

    name: str
    order: list[str]
    reasons: list[DisconnectReason | None] = attrs.field(factory=list)

    async def on_detach(self, reason: DisconnectReason | None) -> None:
        """Note it."""
        self.reasons.append(reason)
        self.order.append(f"{self.name} detached")
        await trio.lowlevel.checkpoint()

    async def on_shutdown(self) -> None:
        """Note it."""
        self.order.append(f"{self.name} shut down")
        await trio.lowlevel.checkpoint()
