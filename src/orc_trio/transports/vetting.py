"""Why the other end of a connection may be trusted.

Whoever sits at the other end of a connection may send an executor code to run, and may answer a controller's
calls.  A transport that anybody can reach gives that right to anybody.  So it is a decision, made by the
program and never by a connection spec (which may come from a command line or a file), and every connection is
opened with an answer to the question *why do we trust the other end?*

Rules
-----
* The answer is a `VettedPeer`.  A connector accepts the answers that are true of it and refuses the others,
  before anything is opened: an adopted descriptor is ``INHERITED``; a Unix socket is ``CHECKED`` unless the
  caller says ``UNCHECKED``; TCP says nothing about who is at the other end, so it has to be ``UNCHECKED``, in
  so many words.
* Where there is an obvious answer it is the default.  TCP has none.
* ``CHECKED`` on a Unix socket: the kernel tells the peer's user (SO_PEERCRED: of a connecting peer when it
  connected, of a listening peer when it called listen), and `same_user_or_root` decides.  Root is let in
  because it needs no socket to run code as us; it would only have to go another way.
* The check is made at both ends: an executor checks who sends it code, a controller to whom it sends its
  data.

Not covered: a peer that passed the check and hands its descriptor on.  In a user namespace all users from
outside it have one and the same number (the overflow uid, 65534); do not run as that user.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

import attrs
import trio

__all__ = ["PeerCheck", "PeerCredentials", "VettedPeer", "peer_credentials", "same_user_or_root"]

_UCRED: Final = struct.Struct("iII")
ROOT: Final = 0


class VettedPeer(enum.Enum):
    """Why we trust the other end."""

    INHERITED = "inherited"
    """We were given the descriptor by the process that started us, which could do as it likes with us
    anyway.
    """
    CHECKED = "checked"
    """The operating system was asked who is at the other end, and the answer was good enough."""
    UNCHECKED = "unchecked"
    """Nobody checks.  Whoever can reach the address is served: right for a private network, a container, a
    test.
    """


@attrs.frozen
class PeerCredentials:
    """Who is at the other end of a Unix socket, as the kernel says.

    Attributes:
        pid: The process; 0 if it is outside our PID namespace.
        uid: Its effective user.
        gid: Its effective group.
    """

    pid: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"uid {self.uid}, gid {self.gid}, pid {self.pid}"


PeerCheck = Callable[[PeerCredentials], bool]
"""Decides whether a peer is trusted.  Called on the Trio thread; must not block."""


def peer_credentials(sock: socket.socket | trio.socket.SocketType) -> PeerCredentials:
    """Ask the kernel who is at the other end of a connected Unix socket.

    Raises:
        OSError: It is not one, or the system cannot tell (SO_PEERCRED is Linux's).
    """
    return PeerCredentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def same_user_or_root(peer: PeerCredentials) -> bool:
    """The default check: the peer's effective user is our effective user, or root."""
    return peer.uid in (os.geteuid(), ROOT)
