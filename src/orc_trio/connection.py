"""One connection, from its first byte to its end, as one task tree.

Task tree
---------
::

    run()                                   watches for the cancellation of its surroundings
     └── _live()                            shielded: ends when the connection is over, and only then
          ├── pumps                         the reader and the writer (`orc_trio.pumps`)
          ├── liveness check                if it is on (`orc_trio.liveness`)
          └── one task for each call that is being served

"Over, exactly once" is `run` returning.  "No handler outlives it" is the nursery in `_live` (G13).  "Pending calls fail
before anyone is told" is `latch`: one step without a checkpoint (G14).  What is decided, and in which order, is the
protocol core's business (`orc_trio.protocol.Peer`); this module wakes tasks and starts handlers.

End of life
-----------
A soft stop refuses new calls and lets those in flight finish, within its bound; the task in `_live` waits for that, so
it goes on whoever asked for it and whatever became of him.  Then, as always, the latch.

The latch can fall in any task.  It settles every pending call, cancels the handlers and wakes the writer, which sends
what is left and the hang-up, then half-closes.  The reader reads and drops to the end.  Both together are bounded
(G15).  Then the transport is closed, the nursery waits for handlers that are still in their ``finally`` blocks, and the
end is fixed.

It refuses: being run twice; calls before both ends agreed.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs
import trio

from orc_trio.abc import MessageTransport
from orc_trio.calling import make_call
from orc_trio.exceptions import LocalProtocolError
from orc_trio.handlers import Answer, HandlerTasks, Serve
from orc_trio.interrupts import uninterrupted
from orc_trio.liveness import wait_for_silence
from orc_trio.nesting import descends_from, for_thread, serves
from orc_trio.protocol import (
    Agreed,
    CallReceived,
    CallSettled,
    CancelReceived,
    Event,
    InboundCall,
    Latched,
    Limits,
    Peer,
    PeerHungUp,
    PongReceived,
    ResultAccepted,
    Role,
    Setup,
)
from orc_trio.protocol.limits import check_seconds
from orc_trio.pumps import TRANSPORT_ERRORS, Pumps
from orc_trio.reasons import DisconnectKind, DisconnectReason, describe_error
from orc_trio.registry import Buffer
from orc_trio.statistics import ConnectionStatistics

__all__ = ["Connection", "check_limits"]

_log = logging.getLogger("orc_trio")
_LOCAL_HANGUP = DisconnectReason(DisconnectKind.LOCAL_HANGUP)


OnAgreed: TypeAlias = Callable[[Setup], None]
"""Told the peer's setup before any of its calls is served.  Raising `LocalProtocolError` refuses the connection."""


class Connection:
    """One end of one connection.

    Args:
        transport: Moves the messages; belongs to the connection from here on.
        role: Which end this is.
        limits: What this end is willing to hold, and its times.
        serve: Serves the peer's calls.
        setup: What this end says about itself; default: its role and limits.
        on_agreed: Told the peer's setup.
        running: Names the functions that are running, for the statistics.

    Raises:
        ValueError: A liveness timeout, a part size or a send buffer is set, and the transport cannot do that.
    """

    def __init__(
        self,
        transport: MessageTransport,
        role: Role,
        limits: Limits,
        serve: Serve,
        *,
        setup: Setup | None = None,
        on_agreed: OnAgreed = lambda _setup: None,
        running: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        check_limits(transport, limits)
        self._transport = transport
        self._limits = limits
        self._on_agreed = on_agreed
        self._running = running
        self._peer = Peer(role, limits, setup=setup)
        self._origin = weakref.ref(self)  # G9: an error is not to be passed on to another peer by accident
        self._started = False
        self._nursery: trio.Nursery | None = None
        self._handlers = HandlerTasks(
            serve, respond=self._respond, fail=self._fail, by=self, grace=limits.handler_grace
        )
        self._hung_up = False
        self._agreed = trio.Event()
        self._stopping = trio.Event()  # softly, or because the latch has fallen
        self._finishing = trio.CancelScope()
        self._finished = trio.Event()  # a soft stop may have nothing to wait for any more
        self._latched = trio.Event()
        self._latch_time = math.inf
        self._pumps = Pumps(
            transport,
            self._peer,
            act=self._act,
            latch=self.latch,
            latched=self._latched,
            fail=self._fail,
            patience=limits.drain_timeout,
        )
        self._failures: list[BaseException] = []
        self.end: DisconnectReason | None = None
        """How it ended; None until it has (G11)."""

    @property
    def cause(self) -> DisconnectReason | None:
        """Why it stopped being open; None while it has not."""
        return self._peer.cause

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of what this end holds."""
        counts = attrs.asdict(self._peer.statistics())
        return ConnectionStatistics(**counts | {"state": self._peer.state.value}, running_handlers=self._running())

    # Calls

    def call(self, tag: int, args: Buffer, *, zero_copy: bool = False) -> Awaitable[bytes | memoryview]:
        """Call a function of the peer.

        Args:
            tag: Handler tag or executor address.
            args: The argument bytes.
            zero_copy: The result may be a `memoryview` of a buffer of its own.

        Returns:
            The result bytes.

        Raises:
            NoControllerError: The connection is not open yet, or over.
            DisconnectedError: It stopped being open before the result came.
            WrapperFunctionError, UnknownHandlerTagError, CallRefusedError: The peer's answer; the last also if this end
                stops softly.
            MessageTooLargeError, NestingLimitError: It was not sent.

        Checkpoints:
            Always.

        Cancellation:
            The caller is released at once; the peer is told (G5).
        """
        return make_call(
            self._peer,
            tag,
            args,
            zero_copy=zero_copy,
            wake=self._pumps.wake,
            left=self._act,
            origin=self._origin,
        )

    # The end

    @uninterrupted
    def latch(self, reason: DisconnectReason = _LOCAL_HANGUP) -> DisconnectReason:
        """Stop being open, now (G14).  Nothing happens if that was done before.

        Args:
            reason: Why.

        Returns:
            The cause in force.
        """
        cause = self._peer.latch(reason)
        self._act()
        return cause

    @uninterrupted
    def finish(self, within: float) -> DisconnectReason:
        """Stop softly: refuse new calls, let those in flight finish, then latch.  An end that is not open latches now.

        Args:
            within: Seconds, from now; of several bounds the first to run out counts.

        Returns:
            The cause in force; while there is none: what it will be, if nothing else comes first.
        """
        check_seconds("finish_within", within)
        if not (within and self._peer.open and self._nursery is not None):
            return self.latch()
        self._peer.finish()
        self._finishing.deadline = min(self._finishing.deadline, trio.current_time() + within)
        self._stopping.set()
        self._act()
        return _LOCAL_HANGUP

    def cannot_wait(self) -> bool:
        """Whether the current task (or the thread it works for) is one the end waits for."""
        return (serves(self) and for_thread()) or descends_from(self._nursery)

    # Life

    @uninterrupted
    async def run(self) -> DisconnectReason:
        """Connect, serve, and return when it is over.

        Returns:
            How it ended.

        Raises:
            LocalProtocolError: It was run before.
            BaseException: What a handler raised that is no `Exception`, or a callback; the end is INTERNAL_ERROR then.

        Checkpoints:
            Always.

        Cancellation:
            Ends as OWNER_CANCELLED after a bounded, shielded goodbye; then `trio.Cancelled` goes on (G18).
        """
        if self._started:
            raise LocalProtocolError("a connection is run once")
        self._started = True
        if self.cause is not None:  # disconnected before it was run
            with trio.CancelScope(shield=True):
                await self._close()
            self._fix_end(False)
            return self._result(None)
        cancelled: trio.Cancelled | None = None
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(self._live, name="orc_trio connection")
            try:
                await self._latched.wait()
            except trio.Cancelled as exc:  # noqa: ASYNC103
                cancelled = exc
                self.latch(DisconnectReason(DisconnectKind.OWNER_CANCELLED))
            except BaseException as exc:  # an interrupt
                self._fail(exc)
            nursery.cancel_scope.shield = True  # G18: the goodbye is bounded, and not cut short
        return self._result(cancelled)

    def _result(self, cancelled: trio.Cancelled | None) -> DisconnectReason:
        match self._failures:
            case []:
                pass
            case [failure]:
                raise failure
            case failures:
                raise BaseExceptionGroup("several functions or callbacks failed", failures)
        if cancelled is not None:
            raise cancelled
        assert self.end is not None
        return self.end

    @uninterrupted
    async def _live(self) -> None:
        timed_out = False
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery(strict_exception_groups=True) as nursery:
                    self._begin(nursery)
                    await self._until_latched(nursery)
                    bound = self._latch_time + self._limits.drain_timeout
                    with trio.move_on_at(bound):
                        await self._pumps.done.wait()
                    timed_out = not self._pumps.done.is_set()
                    self._pumps.stop()
                    await self._close()
                    await self._pumps.done.wait()
                    await self._wait_for_handlers(bound + self._limits.handler_grace)
                    self._handlers.dismiss()
            except BaseException as exc:  # an interrupt, or our bug  # noqa: ASYNC103
                self._fail(exc)
                await self._close()  # noqa: ASYNC102
            finally:
                self._fix_end(timed_out)

    def _begin(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        if self._latched.is_set():  # between the start of `run` and this
            self._latch_time = trio.current_time()
        self._transport.max_payload = self._limits.max_message
        if self._limits.send_buffer is not None:
            self._transport.set_send_buffer(self._limits.send_buffer)
        self._handlers.begin()
        self._pumps.start(nursery)

    def _fix_end(self, timed_out: bool) -> None:
        cause = self.latch(DisconnectReason(DisconnectKind.INTERNAL_ERROR))
        if timed_out:
            detail = f"the peer did not take our goodbye within {self._limits.drain_timeout:g} s"
            end = DisconnectReason(DisconnectKind.DRAIN_TIMEOUT, detail, cause)
        else:
            end = cause
        self.end = attrs.evolve(end, exit_status=self._transport.exit_status)
        self._peer.end()

    async def _close(self) -> None:  # noqa: ASYNC910
        try:
            await self._transport.aclose()
        except TRANSPORT_ERRORS:
            pass  # it is gone
        except Exception as exc:
            self._fail(exc)

    async def _until_latched(self, nursery: trio.Nursery) -> None:
        with trio.move_on_after(self._limits.setup_timeout):
            await self._agreed.wait()
        if not self._agreed.is_set():
            detail = f"no setup message within {self._limits.setup_timeout:g} s"
            self.latch(DisconnectReason(DisconnectKind.CONNECT_FAILED, detail))
        elif self._limits.liveness_timeout is not None:
            nursery.start_soon(self._check_liveness, self._limits.liveness_timeout, name="orc_trio liveness check")
        await self._stopping.wait()
        with self._finishing:
            while self._peer.open and not self._peer.finished:  # in the step of the latch: a nested call may come
                self._finished = trio.Event()
                await self._finished.wait()
        if self._peer.open:
            self.latch(_LOCAL_HANGUP if self._peer.finished else self._unfinished())

    def _unfinished(self) -> DisconnectReason:
        found = self._peer.statistics()
        made = found.pending_calls + found.waiting_calls + found.abandoned_calls
        what = f"{made} calls made here, {found.served_calls} served here"
        if not (made or found.served_calls):
            what = "the peer did not say whether it has everything"
        return DisconnectReason(DisconnectKind.LOCAL_HANGUP, f"not finished in time: {what}")

    @uninterrupted
    async def _check_liveness(self, bound: float) -> None:
        await wait_for_silence(bound, alive=self._pumps.alive, ping=self._ping, over=self._latched)
        self.latch(DisconnectReason(DisconnectKind.LIVENESS_TIMEOUT, f"no sign of life within {bound:g} s"))

    def _ping(self) -> None:
        self._peer.ping()
        self._act()

    async def _wait_for_handlers(self, bound: float) -> None:
        with trio.move_on_at(bound) as scope:
            await self._handlers.wait_idle()
        if scope.cancelled_caught:
            _log.warning("handlers hold up the end of the connection: %s", ", ".join(self._running()))

    def _fail(self, exc: BaseException) -> None:
        """What ends the connection and goes to its owner."""
        self._failures.append(exc)
        self.latch(DisconnectReason(DisconnectKind.INTERNAL_ERROR, describe_error(exc)))

    def _respond(self, call: InboundCall, answer: Answer) -> bool:
        accepted = self._peer.respond(call, answer)
        if not accepted:
            call.waiter = trio.Event()
        self._act()
        return accepted

    # What happened

    def _act(self) -> bool:
        """Act on what the protocol core reports, without a checkpoint.

        Returns:
            Whether the peer has hung up.
        """
        # One by one: acting on an event may bring us here again (a handler's scope that is cancelled abandons its own
        # calls), and whatever is raised must not lose those that follow.
        events = self._peer.events
        while events:
            event = events.popleft()
            if isinstance(event, CallSettled):
                if (waiter := event.call.waiter) is not None:  # None: cancelled in the same step, see `make_call`
                    trio.lowlevel.reschedule(waiter)
            elif isinstance(event, CallReceived):
                assert self._nursery is not None
                self._handlers.start(event.call, self._nursery)
            else:
                self._act_on(event)
        if self._peer.has_output:
            self._pumps.wake()
        if self._peer.finished:
            self._finished.set()
        return self._hung_up

    def _act_on(self, event: Event) -> None:
        """Act on one of those that are not part of every call."""
        match event:
            case CancelReceived(call):
                self._handlers.cancel(call)
            case ResultAccepted(call):
                self._handlers.room(call)
            case Agreed(setup):
                self._transport.max_payload = self._peer.limits.max_message  # G25: never more than was agreed
                try:
                    self._on_agreed(setup)
                except LocalProtocolError as exc:
                    self._peer.latch(DisconnectReason(DisconnectKind.CONNECT_FAILED, str(exc)))
                self._agreed.set()
            case Latched():
                self._on_latch()
            case PeerHungUp():
                self._hung_up = True
            case PongReceived():
                pass  # any inbound byte is a sign of life

    def _on_latch(self) -> None:
        self._handlers.cancel_all()
        for event in (self._agreed, self._stopping, self._finished, self._latched):
            event.set()
        if self._nursery is not None:
            self._latch_time = trio.current_time()


def check_limits(transport: MessageTransport | type[MessageTransport], limits: Limits) -> None:
    """Refuse what a transport, or any of its kind, cannot do.

    Raises:
        ValueError: A liveness timeout, a part size or a send buffer is set, and the transport cannot do that.
    """
    if limits.liveness_timeout is not None and not transport.has_pings:
        raise ValueError("a liveness timeout is set, and this transport has no pings: leave it at None")
    if limits.part_size is not None and not transport.has_parts:
        raise ValueError("a part size is set, and this transport has no parts: leave it at None")
    if limits.send_buffer is not None and not transport.has_send_buffer:
        raise ValueError("a send buffer is set, and this transport has none, as it is no socket: leave it at None")
