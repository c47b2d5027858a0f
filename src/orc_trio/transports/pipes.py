"""A pair of adopted pipes: ``pipe:adopt=IN,OUT``, one to read from and one to write to.

Rules
-----
* Ours from then on: not inherited further, non-blocking, closed with the transport.
* 0 and 1 are moved aside and /dev/null takes their places, so that nothing printed gets onto the wire: see
  `orc_trio.transports.descriptors`.  Standard error stays as it is.
* Each has to be a pipe, open in the right direction; anything else is refused, and then both are left alone.
* Half-closing closes the pipe that is written to.
* The other end is INHERITED: whoever started us could have had us do anything else as well.

Refused: sockets (``socket:adopt`` can half-close them properly), terminals, files.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import ExitStack

import trio

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import ConnectionSpecError
from orc_trio.streams import StreamTransport
from orc_trio.transports.connectors import Connector, OnListening
from orc_trio.transports.descriptors import descriptor_number, take
from orc_trio.transports.specs import ConnectionSpec
from orc_trio.transports.vetting import VettedPeer

__all__ = ["PipeAdopter"]


class PipeAdopter(Connector):
    """``pipe:adopt=IN,OUT``."""

    trusts: frozenset[VettedPeer] = frozenset({VettedPeer.INHERITED})
    trusts_by_default: VettedPeer | None = VettedPeer.INHERITED
    trust_advice: str = "adopted pipes were left to us by the process that started us; say VettedPeer.INHERITED"

    def check(self, spec: ConnectionSpec) -> None:
        """See `Connector.check`: two numbers."""
        _numbers(spec)

    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        """See `Connector.open`; raises ConnectionSpecError if the descriptors are not such pipes."""
        incoming, outgoing = _numbers(spec)
        await trio.lowlevel.checkpoint()
        _insist_on_pipe(spec, incoming, os.O_WRONLY, "read from")
        _insist_on_pipe(spec, outgoing, os.O_RDONLY, "written to")
        with ExitStack() as undo:
            receive_stream = trio.lowlevel.FdStream(take(incoming))
            undo.callback(receive_stream.close)
            send_stream = trio.lowlevel.FdStream(take(outgoing))
            undo.pop_all()
        return StreamTransport(trio.StapledStream(send_stream, receive_stream))


def _numbers(spec: ConnectionSpec) -> tuple[int, int]:
    first, comma, second = spec.descriptor.partition(",")
    if not comma:
        raise ConnectionSpecError(f"{spec}: two descriptors are needed; write {spec.key}=IN,OUT, for example 0,1")
    incoming, outgoing = descriptor_number(spec, first), descriptor_number(spec, second)
    if incoming == outgoing:
        raise ConnectionSpecError(f"{spec}: one descriptor for both ways is a socket; write socket:adopt={incoming}")
    return incoming, outgoing


def _insist_on_pipe(spec: ConnectionSpec, descriptor: int, wrong_mode: int, use: str) -> None:
    """Refuse what is not a pipe or goes the other way."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        raise ConnectionSpecError(
            f"{spec}: descriptor {descriptor} is not open; let the starting process pass it on"
        ) from None
    if stat.S_ISSOCK(mode):
        raise ConnectionSpecError(f"{spec}: descriptor {descriptor} is a socket; write socket:adopt={descriptor}")
    if not stat.S_ISFIFO(mode):
        raise ConnectionSpecError(f"{spec}: descriptor {descriptor} is not a pipe")
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == wrong_mode:
        raise ConnectionSpecError(f"{spec}: descriptor {descriptor} cannot be {use}; write {spec.key}=IN,OUT")
