"""What is put on the bench: a controller access, the other end, and what can be done to the way between them.

A *factory* is a function of no arguments that returns an async context manager of an `AccessPair`.  Each scenario of
each check opens a fresh one, often dozens, sometimes several at once; leaving it gives back whatever it opened, whether
the pair was used or not.

What a pair cannot do, it leaves out; the checks that need it are then not applicable, and say so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs

from orc_trio.abc import ControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.reasons import DisconnectReason
from orc_trio.registry import HandlerRegistry

__all__ = ["AccessPair", "ControllerEnd", "Hook", "NotApplicable", "OpenController", "PairFactory"]


class NotApplicable(Exception):
    """A check does not apply to a pair; its text says why."""


@runtime_checkable
class ControllerEnd(Protocol):
    """The controller at the other end: what the checks need of one.  `orc_trio.Controller` is one.

    If it also has ``begin_disconnect``, ``statistics`` and ``thread_portal``, with the meaning they have there, these
    are used too.
    """

    @property
    def bootstrap(self) -> BootstrapInfo:
        """What the executor said about itself."""

    async def call_wrapper(self, address: int, args: bytes) -> bytes:
        """Call a wrapper function in the executor; raises what `orc_trio.Controller.call_wrapper` raises."""

    async def disconnect(self) -> DisconnectReason:
        """Hang up, and wait until it is over."""

    async def wait_disconnected(self) -> DisconnectReason:
        """Wait until it is over."""


class OpenController(Protocol):
    """Opens the other end, as `orc_trio.open_controller` does."""

    def __call__(
        self, registry: HandlerRegistry, *, on_disconnect: Callable[[DisconnectReason], None] | None = None
    ) -> AbstractAsyncContextManager[ControllerEnd]:
        """Be the controller: entered when both ends agree; leaving it disconnects.

        Args:
            registry: The handlers the executor may call, by symbol name; all are coroutine functions.
            on_disconnect: Called once, with how it ended, when it is over.
        """


Hook: TypeAlias = Callable[[], Awaitable[object]]
"""An async function that does something to the way between the two ends."""


def _positive(_instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{attribute.name} must be more than 0, not {value!r}")


@attrs.frozen(kw_only=True, eq=False)
class AccessPair:
    """A controller access that was not run yet, and the way to its other end.

    Attributes:
        access: The access; the checks attach it to a session, once.
        open_controller: Opens the controller's end, once.
        cut: Breaks the way between the ends without a goodbye, as if the other process was killed.  None: cannot.
        freeze: Lets nothing move in either direction, as if the other process was stopped.  None: cannot.
        thaw: Lets everything move again.  None: cannot, or there is no ``freeze``.
        garble: Has something that is no message reach the executor's end.  None: cannot.
        max_message: The largest payload of a call or a result, in bytes.  None: no bound, or one of more than 1 MiB
            that is not to be checked.
        max_calls: How many calls in one direction may be in flight; more wait.  None: no bound.
        drain_timeout: Seconds within which an end whose peer is frozen is over.
        liveness: Seconds within which a frozen peer is taken for dead.  None: there is no such check.
        patience: Seconds that something may take that should not take any time; then it counts as a hang.
        waived: Guarantees that this access does not claim: ``{"G6": "deadlines do not travel"}``.  Their checks are
            not applicable, with that reason.
    """

    access: ControllerAccess
    open_controller: OpenController
    cut: Hook | None = None
    freeze: Hook | None = None
    thaw: Hook | None = None
    garble: Hook | None = None
    max_message: int | None = attrs.field(default=None, validator=_positive)
    max_calls: int | None = attrs.field(default=None, validator=_positive)
    drain_timeout: float = attrs.field(default=5.0, validator=_positive)
    liveness: float | None = attrs.field(default=None, validator=_positive)
    patience: float = attrs.field(default=20.0, validator=_positive)
    waived: Mapping[str, str] = MappingProxyType({})

    def __attrs_post_init__(self) -> None:
        if self.thaw is not None and self.freeze is None:
            raise ValueError("a pair that can thaw can freeze")


PairFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[AccessPair]]
"""Makes a fresh pair each time it is called."""
