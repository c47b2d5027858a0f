"""The two tasks that move a connection's messages: one reads, one writes.

Rules
-----
* Nobody but the writer awaits on the send side (G3).  Others queue whole messages in the protocol core and wake it; or,
  where the transport can do that, what is queued is sent in the same step, as far as that goes without waiting.
* The reader never waits for user code (G7): it hands messages to the core, and what follows from them is done in one
  step.  After the latch it reads on and drops, to the peer's hang-up or the end of the stream (G14).
* A send that failed stops the writer and says nothing about the cause: the reader goes on, and what it finds (a
  hang-up, the end of the stream) decides.  Only if it finds nothing within the drain bound does the failed send (G16).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.interrupts import uninterrupted
from orc_trio.protocol import Peer
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.wire.messages import Message, Opcode

__all__ = ["TRANSPORT_ERRORS", "Pumps"]

TRANSPORT_ERRORS: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Pumps:
    """The reader and the writer of one connection.

    Args:
        transport: Moves the messages.
        peer: The protocol core.
        act: Acts on what the core reports; says whether the peer has hung up.
        latch: Stops the connection being open.
        latched: Set when it is not.
        fail: Told of what is our bug, or an interrupt.
        patience: Seconds to wait, after a send failed, for the reader to find out why.
    """

    def __init__(
        self,
        transport: MessageTransport,
        peer: Peer,
        *,
        act: Callable[[], bool],
        latch: Callable[[DisconnectReason], object],
        latched: trio.Event,
        fail: Callable[[BaseException], None],
        patience: float,
    ) -> None:
        self._transport = transport
        self._peer = peer
        self._act = act
        self._latch = latch
        self._latched = latched
        self._fail = fail
        self._patience = patience
        self._output = trio.Event()  # replaced each time the writer has seen it
        self._idle = False  # the writer waits for output, and nothing is left over
        self._left_over = False
        self._broken: BaseException | None = None
        self._scopes = (trio.CancelScope(), trio.CancelScope())
        self._running = len(self._scopes)
        self.done: trio.Event = trio.Event()
        """Set when both have ended."""
        self._activity = transport.activity
        self._heard = False
        self._pings = 0  # how many were sent by themselves

    def wake(self) -> None:
        """There may be something to send.

        If little is in flight, nobody is likely to have more to send in a moment, and if much is queued, it need not
        wait for more: then it is sent here and now.
        """
        if self._idle and self._transport.can_send_now and self._peer.worth_sending:
            self._send_now()
        else:
            self._output.set()

    def _send_now(self) -> None:
        self._idle = False
        messages = self._peer.take(trio.current_time())
        if messages:
            try:
                self._left_over = not self._transport.send_now(messages)
            except Exception as exc:
                self._broken = exc
            if len(messages) == 1:
                self._count_ping(messages[0])
        if self._left_over or self._broken is not None or self._peer.hang_up_taken:
            self._output.set()
        else:
            self._idle = True
            self._peer.sent()
        if self._peer.events:
            self._act()
        if self._peer.has_output:
            self._output.set()

    def _count_ping(self, message: Message) -> None:
        self._pings += message.opcode == Opcode.PING

    def alive(self) -> bool:
        """Whether there was a sign of life since this was last asked (G17): not counting that a ping could be sent."""
        activity = self._transport.activity
        found = self._heard or activity - self._activity > self._pings
        self._activity, self._heard, self._pings = activity, False, 0
        return found

    def start(self, nursery: trio.Nursery) -> None:
        """Start both in the connection's nursery.  Cancelling it ends both; a message may be torn then."""
        reading, writing = self._scopes
        nursery.start_soon(self._guard, self._read, reading, name="orc_trio reader")
        nursery.start_soon(self._guard, self._write, writing, name="orc_trio writer")

    def stop(self) -> None:
        """Let go of whatever they wait for."""
        for scope in self._scopes:
            scope.cancel()

    @uninterrupted
    async def _guard(self, task: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:  # noqa: ASYNC910
        try:
            with scope:
                await task()
        except trio.Cancelled:
            raise
        except BaseException as exc:
            self._fail(exc)
        finally:
            self._running -= 1
            if not self._running:
                self.done.set()

    async def _read(self) -> None:  # noqa: ASYNC910
        hung_up = False
        while not hung_up:
            try:
                messages = await self._transport.receive()
            except RemoteProtocolError as exc:
                self._peer.violation(str(exc))
                self._act()
                continue
            except TRANSPORT_ERRORS as exc:
                self._latch(DisconnectReason(DisconnectKind.TRANSPORT_ERROR, _describe(exc)))
                return  # noqa: ASYNC910
            if not messages:
                detail = "" if self._transport.at_boundary else "inside a message"
                # If a process was at the other end and is gone, its exit status says more than the rest.
                status = self._transport.exit_status
                self._latch(DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP, detail, exit_status=status))
                return  # noqa: ASYNC910
            self._heard = True
            for message in messages:
                self._peer.receive(message)
            del message, messages  # G8: while it waits for more, it holds none of what came
            hung_up = self._act()

    async def _write(self) -> None:
        try:
            while self._left_over or not self._peer.hang_up_taken:
                if self._broken is not None:
                    raise self._broken
                messages = [] if self._left_over else self._peer.take(trio.current_time())
                self._act()
                if messages or self._left_over:
                    await self._transport.send(messages)
                    self._left_over = False
                    if len(messages) == 1:
                        self._count_ping(messages[0])
                else:
                    self._idle = True
                    try:
                        await self._output.wait()
                    finally:
                        self._idle = False
                    self._output = trio.Event()
            await self._transport.send_eof()
        except TRANSPORT_ERRORS as exc:
            with trio.move_on_after(self._patience):
                await self._latched.wait()
            self._latch(DisconnectReason(DisconnectKind.TRANSPORT_ERROR, f"sending failed: {_describe(exc)}"))


def _describe(exc: BaseException) -> str:
    cause = exc.__cause__
    return str(cause if isinstance(cause, OSError) else exc) or type(exc).__name__
