"""TCP: ``tcp:connect=HOST:PORT`` and ``tcp:listen=HOST:PORT``.

Rules
-----
* IPv6 addresses stand in brackets, as in URLs: ``tcp:connect=[::1]:9000``.
* Nagle's algorithm is off at both ends (`trio.SocketStream` sets TCP_NODELAY): a call is a small message
  whose sender waits for the answer, exactly what Nagle delays.
* Connecting tries all of a name's addresses, the next one starting before the last has failed (RFC 8305).
* Listening takes a name's first address that can be bound: one spec, one peer, one socket.  Port 0 lets the
  system choose; ``on_listening`` is told what it chose.  The wildcard addresses are written out: ``0.0.0.0``
  or ``[::]``, the latter for IPv6 only.
* TCP says nothing about who is at the other end.  So the only honest `VettedPeer` is UNCHECKED, and there is
  no default: serving code to whoever can reach a port is to be decided in so many words.

Refused: an empty host (is it everybody or nobody?), port names, connecting to port 0.
"""

from __future__ import annotations

import errno
import socket

import trio

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import ConnectionSpecError
from orc_trio.sockets import SocketTransport
from orc_trio.transports.connectors import Connector, OnListening
from orc_trio.transports.listening import BACKLOG, accept_one
from orc_trio.transports.specs import ConnectionSpec
from orc_trio.transports.vetting import VettedPeer

__all__ = ["TcpConnector", "TcpListener"]

_ADVICE = (
    "TCP does not tell who is there; say VettedPeer.UNCHECKED if whoever can reach the address may be served, "
    "or use unix:… instead"
)


def _host_and_port(spec: ConnectionSpec, *, lowest_port: int) -> tuple[str, int]:
    text = spec.descriptor
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ConnectionSpecError(f"{spec}: the port is missing; write {spec.key}=HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "[" in text or "]" in text:
        raise ConnectionSpecError(f"{spec}: an IPv6 address goes in brackets; write {spec.key}=[ADDRESS]:PORT")
    if not host:
        raise ConnectionSpecError(
            f"{spec}: the host is missing; write 127.0.0.1 for this machine, 0.0.0.0 or [::] for everybody"
        )
    if "\0" in host:
        raise ConnectionSpecError(f"{spec.key}={text!r}: a host has no zero byte in it")
    digits = port_text.isascii() and port_text.isdigit() and len(port_text) <= 5
    if not (digits and lowest_port <= int(port_text) <= 65535):
        raise ConnectionSpecError(f"{spec}: {port_text!r} is not a port; write a number from {lowest_port} to 65535")
    return host, int(port_text)


class _Tcp(Connector):
    trusts: frozenset[VettedPeer] = frozenset({VettedPeer.UNCHECKED})
    trusts_by_default: VettedPeer | None = None
    trust_advice: str = _ADVICE


class TcpConnector(_Tcp):
    """``tcp:connect=HOST:PORT``."""

    def check(self, spec: ConnectionSpec) -> None:
        """See `Connector.check`: a host, and a port from 1 to 65535."""
        _host_and_port(spec, lowest_port=1)

    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        """See `Connector.open`."""
        host, port = _host_and_port(spec, lowest_port=1)
        try:
            return SocketTransport(await trio.open_tcp_stream(host, port))
        except UnicodeError as exc:
            raise _not_a_host(host, exc) from exc


class TcpListener(_Tcp):
    """``tcp:listen=HOST:PORT``; port 0 lets the system choose."""

    def check(self, spec: ConnectionSpec) -> None:
        """See `Connector.check`: a host, and a port from 0 to 65535."""
        _host_and_port(spec, lowest_port=0)

    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        """See `Connector.open`."""
        host, port = _host_and_port(spec, lowest_port=0)
        with await _listen(host, port) as listener:
            bound = _bound(spec, listener)
            if on_listening is not None:
                on_listening(bound)
            return SocketTransport(await accept_one(listener, bound, lambda _peer: None))


def _not_a_host(host: str, exc: UnicodeError) -> OSError:
    return OSError(errno.EINVAL, f"{host!r} cannot be a host name: {exc}")


async def _listen(host: str, port: int) -> trio.socket.SocketType:
    """Listen on the first of the host's addresses that can be bound."""
    try:
        addresses = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as exc:
        raise _not_a_host(host, exc) from exc
    errors: list[OSError] = []
    for family, kind, protocol, _, address in addresses:
        try:
            listener = trio.socket.socket(family, kind, protocol)
        except OSError as exc:  # the machine does not do that family
            errors.append(exc)
            continue
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as exc:
            listener.close()
            errors.append(exc)
        except BaseException:
            listener.close()
            raise
        else:
            return listener
    raise OSError("none of its addresses can be listened on") from ExceptionGroup("bind", errors)


def _bound(spec: ConnectionSpec, listener: trio.socket.SocketType) -> ConnectionSpec:
    """Where it really listens."""
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV  # so that nothing is looked up
    host, port = socket.getnameinfo(listener.getsockname(), numeric)
    return ConnectionSpec(spec.transport, spec.action, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
