"""Ways to reach the other end: connection specs, and the transports they name.

=========================  ===============================================  =============================
spec                       reaches                                          trusts, by default
=========================  ===============================================  =============================
``tcp:connect=HOST:PORT``  a TCP listener                                   nobody: say ``UNCHECKED``
``tcp:listen=HOST:PORT``   one TCP peer; port 0 lets the system choose      nobody: say ``UNCHECKED``
``unix:connect=PATH``      a listener on a Unix socket                      ``CHECKED``: our user or root
``unix:listen=PATH``       one peer, on a socket made for it (mode 0600)    ``CHECKED``: our user or root
``socket:adopt=FD``        whoever holds the other end of a stream socket   ``INHERITED``
``pipe:adopt=IN,OUT``      whoever holds the other ends of two pipes        ``INHERITED``
=========================  ===============================================  =============================

`open_connection` takes one of these and gives a `orc_trio.abc.MessageTransport`.  `in_process_pair` makes two
that are connected to each other.  To add a way of your own, write a `Connector` and register it::

    connectors = default_connectors()
    connectors.register("tls", "connect", MyTlsConnector())
    async with open_connection("tls:connect=…", connectors=connectors) as transport:
        ...

Who may be at the other end is the subject of `orc_trio.transports.vetting`.
"""

from __future__ import annotations

from orc_trio.transports.connectors import Connector, ConnectorRegistry, OnListening
from orc_trio.transports.inprocess import in_process_pair
from orc_trio.transports.opening import default_connectors, open_connection
from orc_trio.transports.pipes import PipeAdopter
from orc_trio.transports.sockets import SocketAdopter
from orc_trio.transports.specs import ConnectionSpec
from orc_trio.transports.tcp import TcpConnector, TcpListener
from orc_trio.transports.unix import UnixConnector, UnixListener
from orc_trio.transports.vetting import (
    PeerCheck,
    PeerCredentials,
    VettedPeer,
    peer_credentials,
    same_user_or_root,
)

__all__ = [
    "ConnectionSpec",
    "Connector",
    "ConnectorRegistry",
    "OnListening",
    "PeerCheck",
    "PeerCredentials",
    "PipeAdopter",
    "SocketAdopter",
    "TcpConnector",
    "TcpListener",
    "UnixConnector",
    "UnixListener",
    "VettedPeer",
    "default_connectors",
    "in_process_pair",
    "open_connection",
    "peer_credentials",
    "same_user_or_root",
]
