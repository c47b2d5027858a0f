"""Pings and pongs: one of each at a time (G17).

Rules
-----
* A ping is sent when the last one was answered; a pong is queued once for each ping.  So both have one place, whatever
  the peer does (G8).
* A ping before the last one was answered, and a pong for a ping that is not out, are violations (G25).
"""

from __future__ import annotations

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire.messages import Message, Opcode

__all__ = ["Pings"]


class Pings:
    """Those of one end."""

    def __init__(self) -> None:
        self._number = 0
        self._outstanding = False
        self._pong_queued = False

    def ping(self) -> Message | None:
        """The next ping to send; None: the last one was not answered yet."""
        if self._outstanding:
            return None
        self._number += 1
        self._outstanding = True
        return Message(Opcode.PING, aux=self._number)

    def pong(self, ping: Message) -> Message:
        """The answer to the peer's ping.

        Raises:
            RemoteProtocolError: Its last one was not answered yet.
        """
        if self._pong_queued:
            raise RemoteProtocolError("a ping before the last one was answered")
        self._pong_queued = True
        return Message(Opcode.PONG, aux=ping.aux)

    def pong_taken(self) -> None:
        """The pong was handed over."""
        self._pong_queued = False

    def answered(self, pong: Message) -> None:
        """The peer's pong came.

        Raises:
            RemoteProtocolError: It answers no ping that is out.
        """
        if not self._outstanding or pong.aux != self._number:
            raise RemoteProtocolError(f"a pong for ping {pong.aux}, which is not outstanding")
        self._outstanding = False

    def forget(self) -> None:
        """The latch has fallen: none is out any more."""
        self._outstanding = self._pong_queued = False
