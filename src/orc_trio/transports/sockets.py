"""An adopted socket: ``socket:adopt=FD``, a connected stream socket that we were started with.

Rules
-----
* Ours from then on: not inherited further, non-blocking, closed with the transport.
* It has to be a stream socket, connected, and not listening; anything else is refused and left alone.
* If it is a standard descriptor it is moved aside, and so is every other standard descriptor that is the same
  socket (inetd and the like hand it over as 0, 1 and 2): see `orc_trio.transports.descriptors`.
* The other end is INHERITED: whoever started us could have had us do anything else as well.

Not covered: adopting one descriptor twice.  It works, and the second transport reads what the first was to
get.
"""

from __future__ import annotations

import errno
import os
import socket

import trio

from orc_trio import lifeline
from orc_trio.abc import MessageTransport
from orc_trio.exceptions import ConnectionSpecError
from orc_trio.sockets import SocketTransport
from orc_trio.transports.connectors import Connector, OnListening
from orc_trio.transports.descriptors import STANDARD, descriptor_number, silence, take
from orc_trio.transports.specs import ConnectionSpec
from orc_trio.transports.vetting import VettedPeer

__all__ = ["SocketAdopter"]


class SocketAdopter(Connector):
    """``socket:adopt=FD``."""

    trusts: frozenset[VettedPeer] = frozenset({VettedPeer.INHERITED})
    trusts_by_default: VettedPeer | None = VettedPeer.INHERITED
    trust_advice: str = "an adopted socket was left to us by the process that started us; say VettedPeer.INHERITED"

    def check(self, spec: ConnectionSpec) -> None:
        """See `Connector.check`: a number."""
        descriptor_number(spec, spec.descriptor)

    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        """See `Connector.open`; raises ConnectionSpecError if the descriptor is not such a socket."""
        await trio.lowlevel.checkpoint()
        sock = _adopt(spec, descriptor_number(spec, spec.descriptor))
        lifeline.arm()  # whoever left us this socket may have left us a lifeline too
        return SocketTransport(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


def _adopt(spec: ConnectionSpec, descriptor: int) -> socket.socket:
    try:
        given = socket.socket(fileno=descriptor)
    except OSError as exc:
        if exc.errno == errno.EBADF:
            raise ConnectionSpecError(
                f"{spec}: descriptor {descriptor} is not open; let the starting process pass it on"
            ) from None
        raise ConnectionSpecError(
            f"{spec}: descriptor {descriptor} is not a socket; a pair of pipes is written pipe:adopt=IN,OUT"
        ) from None
    try:
        _insist_on_connected_stream(spec, given)
        twins = [number for number in STANDARD if number != descriptor and _same(number, descriptor)]
        taken = take(descriptor)
    finally:
        given.detach()
    adopted = socket.socket(fileno=taken)
    try:
        for number in twins:
            silence(number)
    except OSError:
        adopted.close()
        raise
    return adopted


def _insist_on_connected_stream(spec: ConnectionSpec, sock: socket.socket) -> None:
    number = sock.fileno()
    if sock.type != socket.SOCK_STREAM:
        raise ConnectionSpecError(
            f"{spec}: descriptor {number} is a socket of another kind; it must be a stream socket"
        )
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConnectionSpecError(f"{spec}: descriptor {number} is listening; it must be connected")
    try:
        sock.getpeername()
    except OSError:
        raise ConnectionSpecError(f"{spec}: descriptor {number} is not connected to anybody") from None


def _same(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:  # a standard descriptor may be closed
        return False
