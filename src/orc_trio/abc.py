"""The contracts others implement: how messages move, how a controller is reached, what a session tears down.

Three seams, from the lowest up:

* `MessageTransport` moves whole messages.  A connection (`orc_trio.connection`) stands on one: any byte stream, an
  in-process pair, shared memory.
* `ControllerAccess` is the executor's way to its controller, whatever carries it.  A session uses nothing else; the
  usual one is `StreamControllerAccess`, and one over a message queue needs nothing but this module.
* `Service` is a part of a session that wants to know when it ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from orc_trio.bootstrap import BootstrapInfo
from orc_trio.reasons import DisconnectReason
from orc_trio.registry import Buffer
from orc_trio.statistics import ConnectionStatistics
from orc_trio.wire.messages import Message

__all__ = ["AccessHost", "ControllerAccess", "MessageTransport", "Service", "WrappedTransport"]


class MessageTransport(ABC):
    """Moves whole messages, in order, both ways.

    One task sends, another receives; neither method is entered twice at once.  Errors are Trio's:
    `trio.BrokenResourceError` if the other end or the channel is gone, `trio.ClosedResourceError` after `aclose`.

    Attributes:
        max_payload: The largest payload `receive` accepts, in bytes.  Set by the connection before it begins, and
            lowered when both ends have agreed.
        activity: Counts signs of life: grows whenever any bytes came in or went out.
        can_send_now: Whether there is `send_now`.
        has_pings: Whether a ping reaches the other end.  If not, there can be no liveness check (G17).
        has_parts: Whether large messages can be sent in parts.
        has_send_buffer: Whether there is `set_send_buffer`.
    """

    max_payload: int = 64 * 1024 * 1024
    activity: int = 0
    can_send_now: bool = False
    has_pings: bool = True
    has_parts: bool = True
    has_send_buffer: bool = False

    @abstractmethod
    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages, in order.  Payloads do not change until this returns.

        Raises:
            trio.BrokenResourceError: They cannot be sent, now or ever.

        Checkpoints:
            Always.

        Cancellation:
            May leave a message half sent; the connection cancels only when it is about to `aclose`.
        """

    def send_now(self, messages: Sequence[Message]) -> bool:
        """Send messages as far as that goes without waiting.  Not while `send` is running, or something is left.

        Only for speed, and only called where ``can_send_now`` says so.  Anybody may call it, not only the task that
        sends.

        Returns:
            Whether all were sent.  If not, what is left goes before what `send` is given next.

        Raises:
            trio.BrokenResourceError: They cannot be sent, now or ever.
        """
        raise NotImplementedError

    def set_send_buffer(self, size: int) -> None:
        """Have the system hold so many bytes on their way.  Only called where ``has_send_buffer`` says so."""
        raise NotImplementedError

    @abstractmethod
    async def receive(self) -> Sequence[Message]:
        """Wait for messages.

        Returns:
            One or more, in order; none: the other end will send no more.

        Raises:
            RemoteProtocolError: What came is no message, or is over ``max_payload``.  Later calls drop what comes and
                return none at the end of the stream.
            trio.BrokenResourceError: Nothing can be received, now or ever.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """

    @abstractmethod
    async def send_eof(self) -> None:
        """Say that nothing more will be sent, where the channel can say that; otherwise do nothing.

        Raises:
            trio.BrokenResourceError: The channel is gone.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the channel to `aclose`.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close at once and give back every descriptor, without waiting for the other end.  May be called again.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """

    @property
    def at_boundary(self) -> bool:
        """Whether what came in so far ends at the end of a message."""
        return True

    @property
    def exit_status(self) -> int | None:
        """The exit status of the process at the other end, if this transport started it and knows it by now."""
        return None


class WrappedTransport(MessageTransport):
    """Another transport, as it is: a base for what stands between it and the connection, and changes some of it.

    Args:
        inner: What moves the messages; belongs to this from here on.
    """

    def __init__(self, inner: MessageTransport) -> None:
        self._inner = inner

    @property
    def max_payload(self) -> int:
        """The inner transport's."""
        return self._inner.max_payload

    @max_payload.setter
    def max_payload(self, value: int) -> None:
        self._inner.max_payload = value

    @property
    def activity(self) -> int:  # type: ignore[override]
        """The inner transport's."""
        return self._inner.activity

    @property
    def has_pings(self) -> bool:  # type: ignore[override]
        """The inner transport's."""
        return self._inner.has_pings

    @property
    def has_parts(self) -> bool:  # type: ignore[override]
        """The inner transport's."""
        return self._inner.has_parts

    @property
    def has_send_buffer(self) -> bool:  # type: ignore[override]
        """The inner transport's."""
        return self._inner.has_send_buffer

    def set_send_buffer(self, size: int) -> None:
        """Set the inner transport's."""
        self._inner.set_send_buffer(size)

    @property
    def at_boundary(self) -> bool:
        """The inner transport's."""
        return self._inner.at_boundary

    @property
    def exit_status(self) -> int | None:
        """The inner transport's."""
        return self._inner.exit_status

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages, in order.

        Raises:
            trio.BrokenResourceError: They cannot be sent.

        Checkpoints:
            Always.

        Cancellation:
            As the inner transport's.
        """
        await self._inner.send(messages)

    async def receive(self) -> Sequence[Message]:
        """Wait for messages.

        Raises:
            RemoteProtocolError: What came is no message, or is over ``max_payload``.
            trio.BrokenResourceError: Nothing can be received.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """
        return await self._inner.receive()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent.

        Raises:
            trio.BrokenResourceError: The channel is gone.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the channel to `aclose`.
        """
        await self._inner.send_eof()

    async def aclose(self) -> None:
        """Close the inner transport.

        Checkpoints:
            Always.

        Cancellation:
            Closes all the same.
        """
        await self._inner.aclose()


class AccessHost(Protocol):
    """What a session offers the `ControllerAccess` it is attached to."""

    @property
    def bootstrap(self) -> BootstrapInfo:
        """What to tell the controller when connecting."""

    def connected(self) -> None:
        """Say that the controller has accepted us.  Before this, calls fail with `NoControllerError`."""

    async def run_wrapper(self, tag: int, args: bytes | memoryview, nested: bool = False) -> bytes | memoryview:
        """Run the wrapper function at an address; for a call that came from the controller.

        Args:
            tag: The executor address: what the call names.
            args: The argument bytes.
            nested: The call was made while serving a call.

        Returns:
            The result bytes; or ``args``, if a zero-copy function has returned what it was given.

        Raises:
            UnknownHandlerTagError: There is none: an error result.
            CallRefusedError: It may not start (the session is shutting down): a refusal.
            WrapperFunctionError: The function's deliberate error: an error result with its type and message.
            Exception: Anything else: an error result without details; log them here.

        Checkpoints:
            If the function does.

        Cancellation:
            Reaches an async function; lets a threaded one go.
        """

    def running(self) -> tuple[str, ...]:
        """The names of the wrapper functions that are running."""


class ControllerAccess(ABC):
    """The executor's way to its controller.

    A session attaches at most one, once.  It calls `run` in a task of its own and takes the access to be connected
    from `AccessHost.connected` until `run` returns.  To implement one, keep these promises; everything else
    (services, keepalives, who may wait for a disconnect) is the session's work:

    * every call that `call_controller` accepted settles exactly once, before `run` returns;
    * once `begin_disconnect` was called, no call is accepted in either direction;
    * when `run` returns, no wrapper function started by it is running, and nothing it opened is open.
    """

    @abstractmethod
    async def run(self, host: AccessHost) -> DisconnectReason:
        """Connect, serve the controller's calls, and return when it is over.

        Start wrapper functions in child tasks of this call, so that the session can tell who belongs to it.

        Args:
            host: The session's side.

        Returns:
            How it ended.  If it never connected: a reason of kind ``CONNECT_FAILED``.

        Checkpoints:
            Always.

        Cancellation:
            Ends as ``OWNER_CANCELLED`` after a bounded goodbye, then raises `trio.Cancelled`.
        """

    @abstractmethod
    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        """Stop being open, now; `run` returns soon after.

        Called on the Trio thread, any number of times, also before `run` and after it.

        Args:
            reason: Why; default: a local hang-up.

        Returns:
            The cause in force: that of whoever came first.
        """

    def begin_finish(self, within: float) -> DisconnectReason:
        """Refuse new calls in both directions, let those in flight finish, then stop being open.

        `run` returns soon after that.  Called on the Trio thread, while connected, any number of times: of several
        bounds the first to run out counts.  Default: `begin_disconnect`, which gives nobody time.

        Args:
            within: Seconds they have; more than 0.

        Returns:
            The cause in force; while there is none: what it will be, if nothing else comes first.
        """
        return self.begin_disconnect()

    @abstractmethod
    async def call_controller(self, tag: int, args: Buffer, *, zero_copy: bool = False) -> bytes | memoryview:
        """Call the handler that the controller has associated with ``tag``.

        Args:
            tag: The handler tag.
            args: The argument bytes; may be changed as soon as this is suspended.
            zero_copy: The result may be a `memoryview`.

        Returns:
            The result bytes.

        Raises:
            DisconnectedError: The connection stopped being open before the result came.
            WrapperFunctionError, UnknownHandlerTagError, CallRefusedError: The controller's answer; the last also after
                `begin_finish`.
            MessageTooLargeError, NestingLimitError: It was not sent.

        Checkpoints:
            Always.

        Cancellation:
            Releases the caller at once; the handler at the other end should be cancelled too.
        """

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of what it holds."""
        return ConnectionStatistics()


class Service:
    """A part of a session that wants to know when it ends (G23).  Override what is of interest."""

    async def on_detach(self, reason: DisconnectReason | None) -> None:
        """The session has no controller any more (or never had one: ``reason`` is None).

        Comes before any service's `on_shutdown`.  Runs shielded, within a bound.

        Checkpoints:
            As you like.

        Cancellation:
            When the bound has run out.
        """

    async def on_shutdown(self) -> None:
        """All keepalives are released; free what running code may have used.

        Comes in the reverse order in which the services were added.  Runs shielded, within a bound.

        Checkpoints:
            As you like.

        Cancellation:
            When the bound has run out.
        """
