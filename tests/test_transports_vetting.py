"""Who the kernel says is there, and who is trusted."""

from __future__ import annotations

import os
import socket

import pytest

from orc_trio.transports import PeerCredentials, VettedPeer, peer_credentials, same_user_or_root


def test_the_kernel_says_who_is_there() -> None:
    """The credentials of a Unix socket's other end are those of the process that made it."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_credentials(one) == PeerCredentials(os.getpid(), os.geteuid(), os.getegid())


def test_what_is_not_a_connected_unix_socket_has_no_credentials() -> None:
    """Asking a TCP socket tells nobody's user, or fails; never ours."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        try:
            who = peer_credentials(client)
        except OSError:
            return
        assert not same_user_or_root(who)


@pytest.mark.parametrize(
    ("uid", "ours", "trusted"), [(5, 5, True), (0, 5, True), (0, 0, True), (5, 6, False), (5, 0, False)]
)
def test_our_user_and_root_are_trusted(uid: int, ours: int, trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default check lets in our effective user, and root, and nobody else."""
    monkeypatch.setattr(os, "geteuid", lambda: ours)
    assert same_user_or_root(PeerCredentials(pid=1, uid=uid, gid=ours)) is trusted


def test_credentials_are_readable() -> None:
    """They are written for people."""
    assert str(PeerCredentials(pid=7, uid=1000, gid=100)) == "uid 1000, gid 100, pid 7"


def test_the_three_reasons() -> None:
    """There are three answers to why the other end is trusted, and a command line can name them."""
    assert [each.value for each in VettedPeer] == ["inherited", "checked", "unchecked"]
    assert VettedPeer("checked") is VettedPeer.CHECKED
