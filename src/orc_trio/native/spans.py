"""A span: native code on one worker thread's stack, and what is held for it while it is there.

That is a keepalive of the session, a token of the limiter unless it is nested, and the program's use. A span is
begun by its thread or given up by its caller, never both; the two race, and one lock decides.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Final

import attrs
import trio

from orc_trio.native.calls import Usage


class GivenUpError(Exception):
    """The call was given up before its code began."""


@attrs.define(eq=False)
class Span:
    """Native code on one worker thread's stack."""

    name: str
    _keepalive: AbstractContextManager[object] = attrs.field(alias="keepalive")
    usage: Usage
    release_token: Callable[[], None] | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _given_up: bool = attrs.field(default=False, init=False)
    _begun: bool = attrs.field(default=False, init=False)

    def begin(self) -> bool:
        """Say whether the code may run; asked by the worker thread, in the step before."""
        with self._lock:
            self._begun = not self._given_up
            return self._begun

    def give_up(self) -> bool:
        """Keep the code from running; say whether that was still possible."""
        with self._lock:
            self._given_up = not self._begun
            return self._given_up

    def free_token(self) -> None:
        """Give the limiter's token back, from any thread, if it is still held."""
        release, self.release_token = self.release_token, None
        if release is not None:
            with suppress(trio.RunFinishedError):  # G19
                release()

    def end(self) -> None:
        """Give the keepalive back, from any thread."""
        self._keepalive.__exit__(None, None, None)


span_here: Final[contextvars.ContextVar[Span | None]] = contextvars.ContextVar("orc_trio_native_span", default=None)
"""The span whose thread this is."""
