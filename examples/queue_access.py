"""A controller access written by somebody else: over a message queue instead of a stream.

The queue is two Trio memory channels, one for each direction.  Think of a message broker, a serial line with its own
framing, or a system's native IPC: anything that already moves whole messages and has its own idea of a call.

`QueueEnd` is one end of a conversation over such a queue, and knows nothing of orc_trio but its words for how things
end.  `QueueAccess` makes an executor's `ControllerAccess` of it: that is all a session needs.  `open_queue_controller`
is the other end, so that there is somebody to talk to.

What travels are tuples:

    ("hello", {...})                          first, from both ends
    ("call", number, target, args, nested)    run that function; nested: I am serving a call of yours
    ("cancel", number)                        the caller of my call has left
    ("value", number, result)                 the answer to your call: bytes
    ("error", number, type, message)          the answer to your call: an error
    ("bye", reason)                           last, from both ends; in order, if the reason is empty
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeAlias

import attrs
import trio

from orc_trio import (
    BootstrapInfo,
    CallRefusedError,
    Certainty,
    DisconnectedError,
    DisconnectKind,
    DisconnectReason,
    Handler,
    HandlerRegistry,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.abc import AccessHost, ControllerAccess

log = logging.getLogger("queue_access")

Queue: TypeAlias = tuple[trio.MemorySendChannel[Any], trio.MemoryReceiveChannel[Any]]
Serve: TypeAlias = Callable[[int, bytes, bool], Awaitable[bytes]]
GOODBYE = 5.0
"""Seconds the other end is given to take our goodbye and say its own."""
nested: ContextVar[bool] = ContextVar("queue_access_nested", default=False)
"""Whether a call is being served: in the function's task, its child tasks, and its threads."""


@attrs.define(eq=False)
class Call:
    """A call that this end made and that has not settled."""

    sending: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    sent: bool = False
    settled: trio.Event = attrs.field(factory=trio.Event)
    answer: tuple[Any, ...] | None = None  # still None when settled: the conversation ended first


# [queue-end]
class QueueEnd:
    """One end of a conversation over a queue."""

    def __init__(self, queue: Queue, goodbye: float = GOODBYE) -> None:
        self._send, self._receive = queue
        self._bound = goodbye
        self._numbers = itertools.count(1)
        self._pending: dict[int, Call] = {}
        self._serving: dict[int, trio.CancelScope] = {}
        self.nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()  # around everything that the latch ends
        self._connected = False
        self._peer_left = False
        self._cause: DisconnectReason | None = None
        self.end: DisconnectReason | None = None  # how it ended, once it has

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        """The latch: one step, no await.  Whoever comes first decides the cause."""
        if self._cause is None:
            cause = reason or DisconnectReason(DisconnectKind.LOCAL_HANGUP)
            if not self._connected and cause.kind not in (DisconnectKind.LOCAL_HANGUP, DisconnectKind.OWNER_CANCELLED):
                cause = DisconnectReason(DisconnectKind.CONNECT_FAILED, "there was no hello", cause)
            self._cause = cause
            for call in self._pending.values():  # in the order in which they were made
                call.settled.set()
                call.sending.cancel()
            self._pending.clear()
            self._scope.cancel()  # the reader, and everything that is being served
        return self._cause

    async def run(self, hello: Mapping[str, Any], serve: Serve, agreed: Callable[[Any], None]) -> DisconnectReason:
        """Say hello, serve the other end's calls, say goodbye; return how it ended."""
        if self._cause is not None:  # disconnected before it began: there is nobody to say goodbye to
            self._close()
            self.end = self._cause
            return self.end
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self.nursery = nursery
                    nursery.start_soon(self._post, ("hello", hello))  # both say hello first, so neither may wait for it
                    try:
                        await self._read(serve, agreed)
                    finally:
                        # Still open?  Then something cancelled us from outside.
                        self.begin_disconnect(DisconnectReason(DisconnectKind.OWNER_CANCELLED))
        finally:
            self.end = await self._goodbye()
        return self.end

    async def call(self, target: int, args: bytes) -> bytes:
        """Call a function of the other end."""
        await trio.lowlevel.checkpoint()
        if self._cause is not None:
            raise DisconnectedError(self._cause, Certainty.NOT_SENT)
        number = next(self._numbers)
        call = self._pending[number] = Call()  # before it is sent: the answer may come before `send` returns
        try:
            with call.sending, suppress(trio.BrokenResourceError):
                await self._send.send(("call", number, target, args, nested.get()))
                call.sent = True
            await call.settled.wait()
        except trio.Cancelled:
            if self._pending.pop(number, None) is not None and call.sent and self.nursery is not None:
                self.nursery.start_soon(self._post, ("cancel", number))
            raise
        match call.answer:
            case ("value", _, result):
                return bytes(result)
            case ("error", _, "UnknownHandlerTag", _):
                raise UnknownHandlerTagError(target)
            case ("error", _, "Refused", message):
                raise CallRefusedError(message)
            case ("error", _, remote_type, message):
                raise WrapperFunctionError(remote_type, message)
            case _:
                assert self._cause is not None
                raise DisconnectedError(self._cause, Certainty.UNKNOWN if call.sent else Certainty.NOT_SENT)

    async def _read(self, serve: Serve, agreed: Callable[[Any], None]) -> None:
        # Never waits for a function: those run in tasks of their own.
        async for message in self._receive:
            match message:
                case ("hello", hello) if not self._connected:
                    agreed(hello)
                    self._connected = True
                case ("call", number, target, args, within) if self._connected:
                    scope = self._serving[number] = trio.CancelScope()
                    assert self.nursery is not None
                    self.nursery.start_soon(self._serve, serve, scope, number, target, args, within)
                case ("cancel", number):
                    if number in self._serving:
                        self._serving[number].cancel()
                case ("value" | "error", number, *_):
                    if (call := self._pending.pop(number, None)) is not None:  # None: its caller has left
                        call.answer = message
                        call.settled.set()
                case ("bye", why):
                    self._peer_left = True
                    kind = DisconnectKind.REMOTE_ERROR if why else DisconnectKind.REMOTE_HANGUP
                    self.begin_disconnect(DisconnectReason(kind, why))
                    return
                case _:
                    detail = f"an unexpected {message!r:.60}"
                    self.begin_disconnect(DisconnectReason(DisconnectKind.PROTOCOL_VIOLATION, detail))
                    return
        self._peer_left = True
        self.begin_disconnect(DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP))

    async def _serve(
        self, serve: Serve, scope: trio.CancelScope, number: int, target: int, args: bytes, within: bool
    ) -> None:
        if self._cause is not None:  # the latch fell before this task came to run
            return
        nested.set(True)  # in this task's own context
        answer: tuple[Any, ...] = ("error", number, "Cancelled", "")
        with scope:
            try:
                answer = ("value", number, await serve(target, args, within))
            except UnknownHandlerTagError:
                answer = ("error", number, "UnknownHandlerTag", "")
            except CallRefusedError as exc:
                answer = ("error", number, "Refused", str(exc))
            except WrapperFunctionError as exc:
                answer = ("error", number, exc.remote_type, exc.message)
            except Exception:
                log.exception("the function called under %#x failed", target)
                answer = ("error", number, "HandlerFailed", "")  # and not a word more: its text may be a secret
            except trio.Cancelled:
                raise
            except BaseException as exc:  # an interrupt: it ends everything, and goes to our owner
                self.begin_disconnect(DisconnectReason(DisconnectKind.INTERNAL_ERROR, type(exc).__name__))
                raise
        del self._serving[number]
        await self._post(answer)

    async def _post(self, message: tuple[Any, ...]) -> None:
        with suppress(trio.BrokenResourceError):  # the reader finds out why, and that decides the cause
            await self._send.send(message)

    async def _goodbye(self) -> DisconnectReason:
        assert self._cause is not None
        with trio.move_on_after(self._bound, shield=True) as bound:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._post, ("bye", "" if self._cause.orderly else str(self._cause)))
                if not self._peer_left:
                    async for message in self._receive:  # read and drop: the other end may be waiting for room
                        if message[:1] == ("bye",):
                            break
        self._close()
        if bound.cancelled_caught:
            return DisconnectReason(DisconnectKind.DRAIN_TIMEOUT, "the other end took no goodbye", self._cause)
        return self._cause

    def _close(self) -> None:
        self._send.close()
        self._receive.close()


# [queue-access]
class QueueAccess(ControllerAccess):
    """The executor's way to a controller at the other end of a queue."""

    def __init__(self, queue: Queue, goodbye: float = GOODBYE) -> None:
        self._end = QueueEnd(queue, goodbye)

    async def run(self, host: AccessHost) -> DisconnectReason:
        """Connect, serve the controller's calls, and return when it is over."""
        info = host.bootstrap
        hello = {"triple": info.triple, "page_size": info.page_size, "values": info.values, "symbols": info.symbols}
        return await self._end.run(hello, host.run_wrapper, lambda _hello: host.connected())

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        """Stop being open, now."""
        return self._end.begin_disconnect(reason)

    async def call_controller(
        self, tag: int, args: bytes | bytearray | memoryview, *, zero_copy: bool = False
    ) -> bytes | memoryview:
        """Call the handler that the controller has associated with ``tag``."""
        return await self._end.call(tag, bytes(args))


# [controller]
class QueueController:
    """The controller's end of a queue: just enough of one to talk to."""

    def __init__(self, end: QueueEnd, bootstrap: BootstrapInfo, over: trio.Event) -> None:
        self._end = end
        self._over = over
        self.bootstrap = bootstrap

    async def call_wrapper(self, address: int, args: bytes) -> bytes:
        """Call the wrapper function at ``address`` in the executor."""
        return await self._end.call(address, args)

    def begin_disconnect(self) -> DisconnectReason:
        """Stop being open, now."""
        return self._end.begin_disconnect()

    async def disconnect(self) -> DisconnectReason:
        """Stop being open, and wait until it is over; a handler, which it would wait for, gets the cause."""
        cause = self._end.begin_disconnect()
        if self._serves_this_task():
            await trio.lowlevel.checkpoint()
            return cause
        return await self.wait_disconnected()

    async def wait_disconnected(self) -> DisconnectReason:
        """Wait until it is over, whoever ends it."""
        await self._over.wait()
        assert self._end.end is not None
        return self._end.end

    def _serves_this_task(self) -> bool:
        nursery = trio.lowlevel.current_task().parent_nursery
        while nursery is not None and nursery is not self._end.nursery:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None


@asynccontextmanager
async def open_queue_controller(
    queue: Queue,
    registry: HandlerRegistry,
    *,
    on_disconnect: Callable[[DisconnectReason], None] | None = None,
    goodbye: float = GOODBYE,
) -> AsyncGenerator[QueueController]:
    """Wait for an executor's hello, and serve a registry's handlers until the block is left."""
    end = QueueEnd(queue, goodbye)
    handlers: dict[int, Handler] = {}
    opened, over = trio.Event(), trio.Event()
    bootstraps: list[BootstrapInfo] = []

    def agreed(hello: Mapping[str, Any]) -> None:
        handlers.update(registry.bind(hello["symbols"]))
        bootstraps.append(BootstrapInfo(**hello))
        opened.set()

    async def serve(tag: int, args: bytes, _nested: bool) -> bytes:
        if tag not in handlers:
            raise UnknownHandlerTagError(tag)
        return await handlers[tag].function(args)

    async def run() -> None:
        try:
            reason = await end.run({}, serve, agreed)
            if on_disconnect is not None:
                on_disconnect(reason)
        finally:
            over.set()
            opened.set()

    failure: Exception | None = None  # raised when the nursery is closed, so that it is in no group
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await opened.wait()
        if bootstraps:
            try:
                yield QueueController(end, bootstraps[0], over)
            except Exception as exc:
                failure = exc
        else:
            failure = DisconnectedError(end.begin_disconnect(), Certainty.NOT_SENT)
        end.begin_disconnect()
    if failure is not None:
        raise failure


def open_queue(capacity: int = 16) -> tuple[Queue, Queue]:
    """A queue's two ends."""
    to_controller, from_executor = trio.open_memory_channel[Any](capacity)
    to_executor, from_controller = trio.open_memory_channel[Any](capacity)
    return (to_controller, from_controller), (to_executor, from_executor)
