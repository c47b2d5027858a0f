"""Unix sockets: ``unix:connect=PATH`` and ``unix:listen=PATH``.

On Linux ``@NAME`` in the place of the path is a name in the abstract namespace.

Rules
-----
* The peer's user is checked by default, at both ends (see `orc_trio.transports.vetting`).
* The socket is made with mode 0600, before anybody can connect to it: the mode is set on the socket, from
  which bind copies it.  An abstract name has no mode; there, the check is all there is.
* What listening made it unlinks: when it has its peer, when it fails, when it is cancelled; and only if the
  path still names what it made.
* A socket that was left behind by a process that died is replaced; one that a living process holds is not,
  nor is anything that is not a socket.  Asking is done with a *datagram* socket: connecting it tells the two
  apart (wrong type, or refused) and the living listener, which may be waiting for its one peer, never learns
  of it.
* A path too long for the kernel is refused before it is tried.

Not covered: two processes that find the same dead socket in the same instant.  The later one may replace the
earlier one's; the earlier one then waits for a peer that cannot come.  Give each listener a path of its own.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

from orc_trio.abc import MessageTransport
from orc_trio.exceptions import ConnectionSpecError
from orc_trio.sockets import SocketTransport
from orc_trio.transports.connectors import Connector, OnListening, connect_failed
from orc_trio.transports.listening import BACKLOG, accept_one
from orc_trio.transports.specs import ConnectionSpec
from orc_trio.transports.vetting import (
    PeerCheck,
    PeerCredentials,
    VettedPeer,
    peer_credentials,
    same_user_or_root,
)

__all__ = ["UnixConnector", "UnixListener"]

MAX_PATH: Final = 107
"""Bytes of a path that fit into a socket address, without the zero at its end."""


def _address(spec: ConnectionSpec) -> str:
    """The address to hand to the kernel: a path, or a zero and an abstract name."""
    text = spec.descriptor
    if text in ("", "@"):
        raise ConnectionSpecError(f"{spec}: the path is missing; write {spec.key}=PATH, for example {spec.key}=/run/x")
    if "\0" in text:
        raise ConnectionSpecError(f"{spec}: a path cannot contain a zero byte; an abstract name is written @NAME")
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError as exc:
        raise ConnectionSpecError(f"{spec.key}={text!r}: this system cannot have such a path: {exc.reason}") from None
    if size > MAX_PATH:
        raise ConnectionSpecError(
            f"{spec}: a Unix socket's path has room for {MAX_PATH} bytes, and this one has {size}"
        )
    return "\0" + text[1:] if text.startswith("@") else text


class _Unix(Connector):
    """What both ends have in common.

    Args:
        trusted: Decides about a peer when it is to be CHECKED.
        credentials: How to learn who the peer is; the default asks the kernel.
    """

    trusts: frozenset[VettedPeer] = frozenset({VettedPeer.CHECKED, VettedPeer.UNCHECKED})
    trusts_by_default: VettedPeer | None = VettedPeer.CHECKED
    trust_advice: str = (
        "this end opens the socket itself; say VettedPeer.CHECKED, or UNCHECKED to serve whoever can reach it"
    )

    def __init__(
        self,
        *,
        trusted: PeerCheck = same_user_or_root,
        credentials: Callable[[trio.socket.SocketType], PeerCredentials] = peer_credentials,
    ) -> None:
        self._trusted = trusted
        self._credentials = credentials

    def check(self, spec: ConnectionSpec) -> None:
        """See `Connector.check`: a path that fits, or an abstract name."""
        _address(spec)

    def _objection(self, peer: trio.socket.SocketType, vetted: VettedPeer) -> str | None:
        """What speaks against a connected peer; None: nothing."""
        if vetted is VettedPeer.UNCHECKED:
            return None
        who = self._credentials(peer)
        return None if self._trusted(who) else f"it is not to be trusted: {who} (we are uid {os.geteuid()})"


class UnixConnector(_Unix):
    """``unix:connect=PATH``."""

    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        """See `Connector.open`."""
        sock = trio.socket.socket(socket.AF_UNIX)
        try:
            await sock.connect(_address(spec))
            _insist_on_connected(sock)
            why = self._objection(sock, vetted)
            if why is not None:
                raise connect_failed(spec, why)
            return SocketTransport(trio.SocketStream(sock))
        except BaseException:
            sock.close()
            raise


class UnixListener(_Unix):
    """``unix:listen=PATH``."""

    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        """See `Connector.open`."""
        await trio.lowlevel.checkpoint_if_cancelled()  # a cancelled caller replaces nobody's dead socket
        with _listening(_address(spec)) as listener:
            if on_listening is not None:
                on_listening(spec)
            return SocketTransport(await accept_one(listener, spec, lambda peer: self._objection(peer, vetted)))


def _insist_on_connected(sock: trio.socket.SocketType) -> None:
    """A full queue makes a Unix socket's connect fail with EAGAIN, which trio takes for "in progress"."""
    try:
        sock.getpeername()
    except OSError as exc:
        raise OSError(exc.errno, "its queue of waiting peers is full") from exc


@contextmanager
def _listening(address: str) -> Iterator[trio.socket.SocketType]:
    """A listening socket, and no trace of it afterwards."""
    with socket.socket(socket.AF_UNIX) as sock:
        if address.startswith("\0"):
            _bind(sock, address)
            sock.listen(BACKLOG)
            yield trio.socket.from_stdlib_socket(sock)
            return
        path = os.path.abspath(address)  # for the end: somebody may have changed the directory by then
        _remove_dead_socket(address)
        os.fchmod(sock.fileno(), 0o600)
        _bind(sock, address)
        made = os.lstat(path)
        try:
            sock.listen(BACKLOG)
            yield trio.socket.from_stdlib_socket(sock)
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(path), made):  # our socket holds it: the number is not used again
                    os.unlink(path)


def _bind(sock: socket.socket, address: str) -> None:
    try:
        sock.bind(address)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise _in_use() from exc
        raise


def _in_use() -> OSError:
    return OSError(errno.EADDRINUSE, "somebody is there already; stop it, or take another path")


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """What tells a file that nobody holds from a later one; its number alone may be used again at once."""
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _remove_dead_socket(path: str) -> None:
    """Make room at ``path`` if what is there is a socket that no living process holds.

    Raises:
        OSError: It is held, or is not a socket, or that cannot be told.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, suppress(FileNotFoundError):
        found = os.lstat(path)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.EEXIST, "there is something there that is not a socket; take another path")
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # nobody holds it
            if _identity(os.lstat(path)) == _identity(found):
                os.unlink(path)
        except OSError as exc:
            if exc.errno == errno.EPROTOTYPE:  # a stream socket of somebody's
                raise _in_use() from exc
            raise
        else:  # a datagram socket of somebody's
            raise _in_use()
