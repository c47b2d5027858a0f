"""Two ends in one Trio run: messages are handed over as they are, without becoming bytes in between.

For an executor that is only a part of the controller's own program, and for tests.  It looks and ends like a
socket.

Rules
-----
* A rendezvous: `send` returns when the other end has *taken* the messages (or its receiver was waiting for
  them already).  So nothing is ever held between the two ends, and a peer that does not read stalls the
  writer (G8).
* Cancelling loses nothing and tears nothing: a cancelled `send` was either taken as a whole or not at all,
  and a cancelled `receive` has taken nothing.  A send that was taken returns, even if it was cancelled at the
  same moment.
* `send_eof` and `aclose` look the same from the other end: what was sent comes first, then end of file.
  `aclose` wakes everybody: our own blocked tasks with `trio.ClosedResourceError`, the peer's blocked send
  with `trio.BrokenResourceError`.
* The receiver enforces ``max_payload`` (and the first message's own limit) as the frame decoder does: the
  messages before the offending one are delivered, then `RemoteProtocolError`; what comes later is taken and
  dropped, so that the peer can still hear what was wrong (G16, G25).
* A payload can only be shared if nobody can change it.  ``bytes`` are passed on as they are, and so is a
  `memoryview` of the whole of one; any other view is copied, once, as every other transport does.

Theory
------
Each direction is a `_Lane`, with at most one parked sender and one parked receiver, never both.  Whoever
comes second hands over and wakes the first; there is no lock, no queue, and one task switch for each end.

Refused: a second sender or receiver at the same time (`trio.BusyResourceError`).  Not covered: ends in two
different Trio runs or threads; take a socket pair for that.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.interrupts import uninterrupted
from orc_trio.wire.framing import FIRST_MESSAGE_MAX
from orc_trio.wire.messages import Message

__all__ = ["in_process_pair"]


def in_process_pair() -> tuple[MessageTransport, MessageTransport]:
    """Make two connected transports; what one sends, the other receives.

    Both belong to the Trio run, and the thread, in which they are used first.  Each is closed by its owner.
    """
    there, back = _Lane(), _Lane()
    return _InProcessTransport(back, there), _InProcessTransport(there, back)


@attrs.define(eq=False)
class _Lane:
    """One direction."""

    sender: Task | None = None  # parked, until what it offers is taken
    receiver: Task | None = None  # parked, until something is handed to it
    offered: list[Message] = attrs.field(factory=list)  # what the parked sender has; empty once it is taken
    handed: list[Message] = attrs.field(factory=list)  # for the receiver that was woken; empty: the end
    ended: bool = False  # nothing more will be sent
    abandoned: bool = False  # nobody will receive any more

    def withdraw(self, _raise_cancel: RaiseCancelT) -> Abort:
        """The parked sender was cancelled."""
        self.sender, self.offered = None, []
        return Abort.SUCCEEDED

    def leave(self, _raise_cancel: RaiseCancelT) -> Abort:
        """The parked receiver was cancelled."""
        self.receiver = None
        return Abort.SUCCEEDED

    def wake_sender(self) -> None:
        if self.sender is not None:
            reschedule(self.sender)
            self.sender = None

    def wake_receiver(self) -> None:
        if self.receiver is not None:
            reschedule(self.receiver)
            self.receiver = None

    def hand_over(self, batch: list[Message]) -> None:
        """To the parked receiver."""
        self.handed = batch
        self.wake_receiver()

    def take(self) -> list[Message]:
        """From the parked sender."""
        batch, self.offered = self.offered, []
        self.wake_sender()
        return batch


def _immutables(messages: Sequence[Message]) -> list[Message]:
    return [each if type(each.payload) is bytes else _immutable(each) for each in messages]


def _immutable(message: Message) -> Message:
    """The message with a payload that nobody can change, and that is ``bytes``."""
    payload = message.payload
    if isinstance(payload, memoryview):
        whole = payload.obj
        if type(whole) is bytes and payload.c_contiguous and payload.nbytes == len(whole):
            return message._replace(payload=whole)
    return message._replace(payload=bytes(payload))


class _InProcessTransport(MessageTransport):
    """One end of an in-process pair."""

    can_send_now: bool = True

    def __init__(self, incoming: _Lane, outgoing: _Lane) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._first_seen = False
        self._violation: RemoteProtocolError | None = None
        self._garbage = False
        self._left: list[Message] = []  # by `send_now`

    @uninterrupted
    async def send(self, messages: Sequence[Message]) -> None:
        """Hand messages over to the other end, in order.

        Args:
            messages: Any number.  The sequence itself may be reused afterwards.

        Raises:
            trio.BrokenResourceError: The other end is closed.
            trio.ClosedResourceError: This end is closed, or has sent its end of file.
            trio.BusyResourceError: Another task is sending.  The caller's fault.

        Checkpoints:
            At least one; returns when the other end has taken the messages.

        Cancellation:
            If it raises Cancelled, nothing was sent.
        """
        await checkpoint_if_cancelled()
        lane = self._lane_for_sending()
        batch = self._left + _immutables(messages)
        if not batch or lane.receiver is not None:
            if batch:  # an empty one would look like the end
                lane.hand_over(batch)
                self._left = []
                self.activity += 1
            await cancel_shielded_checkpoint()  # it is taken: a cancellation comes too late
            return
        lane.sender, lane.offered = current_task(), batch
        await wait_task_rescheduled(lane.withdraw)
        if lane.offered:  # woken by a close, not by the receiver
            lane.offered = []
            if lane.ended:
                raise trio.ClosedResourceError("this end was closed while sending")
            raise trio.BrokenResourceError("the other end was closed")
        self._left = []
        self.activity += 1

    def send_now(self, messages: Sequence[Message]) -> bool:
        """Hand messages over if the other end is waiting for some; see `MessageTransport.send_now`.

        Raises:
            trio.BrokenResourceError: The other end is closed.
            trio.ClosedResourceError: This end is closed, or has sent its end of file.
            trio.BusyResourceError: A task is sending.  The caller's fault.
        """
        lane = self._lane_for_sending()
        self._left = _immutables(messages)
        if lane.receiver is None:
            return False
        lane.hand_over(self._left)
        self._left = []
        self.activity += 1
        return True

    def _lane_for_sending(self) -> _Lane:
        lane = self._outgoing
        if lane.sender is not None:
            raise trio.BusyResourceError("another task is sending")
        if lane.ended:
            raise trio.ClosedResourceError("this end is closed for sending")
        if lane.abandoned:
            raise trio.BrokenResourceError("the other end is closed")
        return lane

    @uninterrupted
    async def receive(self) -> Sequence[Message]:
        """Take what the other end is sending, or wait for it.

        Returns:
            At least one message, in the order they were sent; none at the end.

        Raises: RemoteProtocolError: A payload over the limit.  The peer's fault; every later call raises it
            again. trio.ClosedResourceError: This end is closed. trio.BusyResourceError: Another task is
            receiving.  The caller's fault.

        Checkpoints:
            At least one.

        Cancellation:
            If it raises Cancelled, nothing was taken.
        """
        await checkpoint_if_cancelled()
        if self._violation is not None:
            error, self._violation, self._garbage = self._violation, None, True
            raise error
        while batch := await self._take():
            self.activity += 1
            if not self._garbage:
                return self._allowed(batch)
        return []

    async def _take(self) -> list[Message]:
        """Whatever the other end sends next; nothing: the end."""
        lane = self._incoming
        if lane.receiver is not None:
            raise trio.BusyResourceError("another task is receiving")
        if lane.abandoned:
            raise trio.ClosedResourceError("this end is closed")
        if lane.sender is not None:
            batch = lane.take()
            await cancel_shielded_checkpoint()
            return batch
        if lane.ended:
            await checkpoint()
            return []
        lane.receiver = current_task()
        await wait_task_rescheduled(lane.leave)
        batch, lane.handed = lane.handed, []
        if lane.abandoned:
            raise trio.ClosedResourceError("this end was closed while receiving")
        return batch

    def _allowed(self, batch: list[Message]) -> list[Message]:
        """G25: the messages before the first that is too large."""
        limit = self.max_payload
        if not self._first_seen:
            self._first_seen = True
            if len(batch[0].payload) > FIRST_MESSAGE_MAX:
                limit = min(limit, FIRST_MESSAGE_MAX)
        for at, message in enumerate(batch):
            size = len(message.payload)
            if size > limit:
                error = RemoteProtocolError(f"a payload of {size} bytes is over the limit of {limit} bytes")
                if at == 0:
                    self._garbage = True
                    raise error
                self._violation = error
                return batch[:at]
        return batch

    @uninterrupted
    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on.  Saying it twice does nothing more.

        Raises:
            trio.ClosedResourceError: This end is closed.
            trio.BusyResourceError: Another task is sending.  The caller's fault.

        Checkpoints:
            One.

        Cancellation:
            If it raises Cancelled, nothing was said.
        """
        await checkpoint()
        if self._incoming.abandoned:
            raise trio.ClosedResourceError("this end is closed")
        if self._outgoing.sender is not None:
            raise trio.BusyResourceError("another task is sending")
        self._outgoing.ended = True
        self._outgoing.wake_receiver()

    @uninterrupted
    async def aclose(self) -> None:
        """Close this end, at once, whatever state it is in.  Closing twice does nothing more.

        Checkpoints:
            One, after closing.

        Cancellation:
            It is closed all the same.
        """
        self._outgoing.ended = True
        self._incoming.abandoned = True
        self._left = []
        for lane in (self._outgoing, self._incoming):
            lane.wake_sender()
            lane.wake_receiver()
        await checkpoint()
