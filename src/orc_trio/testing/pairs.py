"""Two ends, connected: the ways of being connected by name, and a controller and a session that are attached.

For tests of programs that use orc_trio: `open_pair` is both ends of one conversation, in one task tree, in one line.
For tests of what carries a conversation: `connected_pair` is two bare ends of it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args, overload

import attrs
import trio
import trio.testing

from orc_trio.abc import MessageTransport
from orc_trio.access import StreamControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.controller import Controller, open_controller
from orc_trio.exceptions import DisconnectedError
from orc_trio.ownership import alongside
from orc_trio.protocol.limits import Limits
from orc_trio.reasons import DisconnectReason
from orc_trio.registry import Buffer, Function, Handler, HandlerRegistry
from orc_trio.session import Session, open_session
from orc_trio.sockets import as_transport
from orc_trio.transports import in_process_pair

__all__ = ["PAIR_KINDS", "End", "OpenPair", "PairKind", "StreamKind", "connected_pair", "open_pair"]

StreamKind: TypeAlias = Literal["memory", "unix", "tcp", "pipes"]
"""The ways of being connected by a pair of streams."""
PairKind: TypeAlias = StreamKind | Literal["inprocess"]
"""The ways of being connected."""
PAIR_KINDS: Final[tuple[PairKind, ...]] = (*get_args(StreamKind), "inprocess")
"""All of them."""
End: TypeAlias = trio.abc.Stream | MessageTransport
"""One of two connected ends."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@overload
async def connected_pair(kind: StreamKind) -> tuple[trio.abc.Stream, trio.abc.Stream]: ...


@overload
async def connected_pair(kind: PairKind) -> tuple[End, End]: ...


async def connected_pair(kind: PairKind) -> tuple[End, End]:
    """Make two connected ends, in this process.

    ``"memory"`` has a buffer without end and no kernel beneath it; ``"inprocess"`` neither kernel nor buffer, and is a
    pair of message transports.  With these two a `trio.testing.MockClock` can jump.  ``"unix"`` is a socket pair,
    ``"tcp"`` a connection over the loopback interface, ``"pipes"`` two pipes.

    Args:
        kind: How they are connected.

    Returns:
        The two ends.  Whoever takes one closes it.

    Raises:
        ValueError: There is no such kind.
        OSError: The system has no more descriptors, or the like.

    Checkpoints:
        Always.

    Cancellation:
        Leaves nothing open.
    """
    await trio.lowlevel.checkpoint()
    match kind:
        case "memory":
            return trio.testing.memory_stream_pair()
        case "inprocess":
            return in_process_pair()
        case "unix":
            one, other = trio.socket.socketpair()
            return trio.SocketStream(one), trio.SocketStream(other)
        case "pipes":
            (read_one, write_other), (read_other, write_one) = os.pipe(), os.pipe()
            pipe = trio.lowlevel.FdStream
            return (
                trio.StapledStream(pipe(write_one), pipe(read_one)),
                trio.StapledStream(pipe(write_other), pipe(read_other)),
            )
        case "tcp":
            with trio.CancelScope(shield=True):  # it takes no time, and half of it would be left open
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                async with listener:
                    stream = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
                    return stream, await listener.accept()
    raise ValueError(f"there is no pair of kind {kind!r}; there are: {', '.join(PAIR_KINDS)}")


@attrs.frozen(kw_only=True, eq=False)
class OpenPair:
    """A controller and a session that are attached to each other.

    Attributes:
        controller: The controller's end.
        session: The executor's end.
        symbols: The executor's bootstrap symbols: addresses of wrapper functions, and handler tags.
        told: What the controller's ``on_disconnect`` was told: nothing, until it is over.
    """

    controller: Controller
    session: Session
    symbols: Mapping[str, int]
    told: list[DisconnectReason] = attrs.field(factory=list)

    async def call_wrapper(self, name: str, args: Buffer = b"") -> bytes:
        """Call the wrapper function of that name, as the controller; see `Controller.call_wrapper`.

        Raises:
            OrcError: As there.

        Checkpoints:
            Always.

        Cancellation:
            As there.
        """
        return await self.controller.call_wrapper(self.symbols[name], args)

    async def call_controller(self, name: str, args: Buffer = b"") -> bytes:
        """Call the handler whose tag has that name, as the executor; see `Session.call_controller`.

        Raises:
            OrcError: As there.

        Checkpoints:
            Always.

        Cancellation:
            As there.
        """
        return await self.session.call_controller(self.symbols[name], args)


@asynccontextmanager
async def open_pair(
    kind: PairKind = "memory",
    *,
    wrappers: Mapping[str, Function | Handler] = _NOTHING,
    handlers: Mapping[str, Function | Handler] = _NOTHING,
    install: Callable[[Session, BootstrapInfo], object] | None = None,
    registry: HandlerRegistry | None = None,
    limits: Limits | None = None,
    executor_limits: Limits | None = None,
    ends: tuple[End, End] | None = None,
) -> AsyncIterator[OpenPair]:
    """Be both ends of a conversation: a controller and a session that are attached, in this task.

    An async context manager: leaving it hangs up and shuts down, from the controller's end.

    Args:
        kind: How they are connected; see `connected_pair`.
        wrappers: The executor's functions, by name.  A `Handler` says more: that it is ``threaded``, for instance.
        handlers: The controller's, by the names of their tags.
        install: Called with the session and its bootstrap information, to add whatever else there shall be.
        registry: The controller's registry, to which ``handlers`` are added; default: a new one.  The tags its
            functions have by name are for ``install`` to add.
        limits: Both ends' limits.
        executor_limits: The executor's, if they differ.
        ends: Two connected ends to use, the controller's first, instead of a pair of ``kind``; they are closed.

    Yields:
        The pair.

    Raises:
        DisconnectedError: They did not agree; its reason says why.
        BaseException: What a function of either end raised that is no `Exception`.

    Checkpoints:
        Entering and leaving, always.

    Cancellation:
        Ends the conversation, within bounds; then goes on.
    """
    registry = registry or HandlerRegistry()
    for name, function in handlers.items():
        each = _as_handler(name, function)
        registry.handler(name, threaded=each.threaded, zero_copy=each.zero_copy)(each.function)
    here, there = ends or await connected_pair(kind)
    told: list[DisconnectReason] = []
    attached, failed = trio.Event(), list[DisconnectedError]()
    try:
        async with open_session() as session:
            bootstrap = BootstrapInfo.for_session(session)
            for name, function in wrappers.items():
                each = _as_handler(name, function)
                bootstrap.add_wrapper(name, each.function, threaded=each.threaded, zero_copy=each.zero_copy)
            for name in handlers:
                bootstrap.add_tag(name)
            if install is not None:
                install(session, bootstrap)

            async def attach() -> None:  # noqa: ASYNC910
                try:
                    await session.attach(StreamControllerAccess(there, limits=executor_limits or limits), bootstrap)
                except DisconnectedError as exc:
                    failed.append(exc)  # the other end says it too
                attached.set()

            async with (
                alongside(attach, lambda _exc: None, "orc_trio attach"),
                open_controller(here, registry, limits=limits, on_disconnect=told.append) as controller,
            ):
                await attached.wait()
                if failed:
                    raise failed[0]
                yield OpenPair(controller=controller, session=session, symbols=controller.bootstrap.symbols, told=told)
    finally:
        with trio.CancelScope(shield=True):
            for end in (here, there):
                await as_transport(end).aclose()


def _as_handler(name: str, function: Function | Handler) -> Handler:
    return function if isinstance(function, Handler) else Handler(function, name)
