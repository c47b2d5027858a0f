"""A transport to a child process: its end is the process's, and the process ends with it.

Theory
------
*The process is the peer.*  Whatever it left in the socket is read, and then the stream is at its end, also if a
grandchild keeps the socket open (G17): once the process is gone, `ProcessTransport.watch` shuts our end down both ways.
The kernel still hands out what had arrived before that, and it wakes whoever waits to receive or to send.

*Closing the transport ends the process* (G13): hang-up (the connection's), close, wait, SIGTERM, wait, SIGKILL, reap.
So the exit status is known when the end of the connection is fixed, and is part of it (G11).
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Sequence
from typing import Final

import trio

from orc_trio.abc import MessageTransport, WrappedTransport
from orc_trio.wire.messages import Message

__all__ = ["ProcessTransport"]

_EXIT_FOLLOWS: Final = 0.25
"""Seconds between a dying process's sockets being closed and its exit; in truth microseconds."""


class ProcessTransport(WrappedTransport):
    """Moves messages to and from a child process, and ends with it.

    `watch` must run in a task of its own for as long as the transport is used.

    Args:
        inner: What moves messages over our ends of the child's sockets; belongs to the transport from here on.
        sockets: These; so do they.
        process: The child; so does this.
        grace: Seconds the process has, each time, to exit: after its connection is closed, then after SIGTERM.
    """

    def __init__(
        self,
        inner: MessageTransport,
        sockets: Sequence[trio.socket.SocketType],
        process: trio.Process,
        grace: float,
    ) -> None:
        super().__init__(inner)
        self.process = process
        self._sockets = sockets
        self._grace = grace
        self._given_up = False
        self._watching = trio.CancelScope(shield=True)

    @property
    def exit_status(self) -> int | None:
        """The process's exit status, or minus the number of the signal that killed it; None while it runs."""
        return self.process.returncode

    async def watch(self) -> None:
        """End the stream when the process has exited.

        Checkpoints:
            Always.

        Cancellation:
            Only by `stop_watching`: the process must be watched while the connection says goodbye.
        """
        with self._watching:
            await self.process.wait()
            for each in self._sockets:
                with contextlib.suppress(OSError):  # closed already
                    each.shutdown(socket.SHUT_RDWR)

    def stop_watching(self, _why: BaseException | None = None) -> None:
        """Have `watch` return."""
        self._watching.cancel()

    @property
    def can_send_now(self) -> bool:  # type: ignore[override]
        """The inner transport's."""
        return self._inner.can_send_now

    def send_now(self, messages: Sequence[Message]) -> bool:
        """Send messages as far as that goes without waiting; see `MessageTransport.send_now`.

        Raises:
            trio.BrokenResourceError: They cannot be sent.
        """
        return self._inner.send_now(messages)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages, in order; see `MessageTransport.send`.

        Raises:
            trio.BrokenResourceError: They cannot be sent.

        Checkpoints:
            Always.

        Cancellation:
            May leave a message half sent.
        """
        try:
            await super().send(messages)
        except trio.Cancelled:
            self._given_up = True
            raise

    async def receive(self) -> Sequence[Message]:
        """Wait for messages; see `MessageTransport.receive`.  At the end of the stream, also for the exit status.

        Raises:
            RemoteProtocolError: Malformed bytes, or a message over the limit.
            trio.BrokenResourceError: Nothing can be received.

        Checkpoints:
            Always.

        Cancellation:
            Loses nothing.
        """
        try:
            messages = await super().receive()
        except trio.Cancelled:
            self._given_up = True
            raise
        except trio.BrokenResourceError as exc:
            if not isinstance(exc.__cause__, ConnectionResetError):
                raise
            # The end of a process that had not read everything.  What it had sent came before this.
            await trio.lowlevel.checkpoint()
            messages = []
        if not messages:
            with trio.move_on_after(_EXIT_FOLLOWS):
                await self.process.wait()
        return messages

    async def aclose(self) -> None:
        """Close the stream, end the process, and reap it.

        The process has the grace to exit by itself; then it gets SIGTERM (and SIGCONT, in case it is stopped) and has
        the same again; then SIGKILL.  A process that has used up the drain bound (nobody waits for its messages any
        more) has had its first chance (G15).

        Checkpoints:
            Always.

        Cancellation:
            Kills the process at once, and reaps it all the same.
        """
        try:
            await super().aclose()
            if self._given_up or not await self._exits():
                self.process.terminate()
                self.process.send_signal(signal.SIGCONT)
                await self._exits()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                with trio.CancelScope(shield=True):
                    await self.process.wait()

    async def _exits(self) -> bool:
        with trio.move_on_after(self._grace):
            await self.process.wait()
        return self.process.returncode is not None
