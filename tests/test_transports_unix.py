"""Unix sockets: who is let in, what is left on disk, and what is not touched."""

# ruff: noqa: ASYNC240  the paths are on a file system of the test's own

from __future__ import annotations

import errno
import logging
import os
import pathlib
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from harness import nothing_left
from orc_trio.exceptions import ConnectionSpecError, DisconnectedError
from orc_trio.reasons import Certainty, DisconnectKind
from orc_trio.transports import (
    ConnectionSpec,
    ConnectorRegistry,
    PeerCredentials,
    UnixConnector,
    UnixListener,
    VettedPeer,
    default_connectors,
    open_connection,
)
from transport_helpers import call, connect_to, not_reached, receive_count

STRANGER = PeerCredentials(pid=4, uid=4_000_000_000, gid=5)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "s"


def check(text: str) -> None:
    spec = ConnectionSpec.parse(text)
    default_connectors().find(spec).check(spec)


def stop(_bound: ConnectionSpec) -> None:
    """Ends listening once it has begun."""
    raise KeyError("enough")


async def listen_and_stop(spec: str) -> None:
    with pytest.raises(KeyError, match="enough"):
        async with open_connection(spec, on_listening=stop):
            pytest.fail("entered")


@pytest.mark.parametrize(
    "text", ["unix:listen=/run/x", "unix:connect=x", "unix:connect=./@x", "unix:listen=@x", "unix:listen=a=b"]
)
def test_a_path_or_an_abstract_name(text: str) -> None:
    """Any path will do, or @NAME."""
    check(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unix:connect=", "the path is missing; write unix:connect=PATH"),
        ("unix:listen=@", "the path is missing"),
        ("unix:listen=a\0b", "cannot contain a zero byte"),
        ("unix:listen=/" + "ä" * 54, "has room for 107 bytes, and this one has 109"),
        ("unix:listen=\ud800", "this system cannot have such a path"),
    ],
)
def test_what_cannot_be_a_path_is_refused_with_what_could(text: str, says: str) -> None:
    """G25: a descriptor that cannot be a Unix socket's address is refused in one line, before it is tried."""
    with pytest.raises(ConnectionSpecError) as caught:
        check(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("action", ["listen", "connect"])
async def test_a_unix_socket_is_never_inherited(action: str, path: pathlib.Path) -> None:
    """A vetting that cannot be true is refused, and no socket appears."""
    with pytest.raises(ConnectionSpecError, match="cannot be inherited: this end opens the socket itself"):
        async with open_connection(f"unix:{action}={path}", vetted=VettedPeer.INHERITED):
            pytest.fail("entered")
    assert not path.exists()


# --- on disk -----------------------------------------------------------------------------------------------------


async def test_the_socket_is_ours_alone_and_gone_when_it_has_its_peer(path: pathlib.Path) -> None:
    """The socket has mode 0600 from the start; when the peer is there, the path is gone and the connection works."""
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[ConnectionSpec]) -> None:
            async with open_connection(f"unix:listen={path}", on_listening=task_status.started) as transport:
                assert not path.exists()
                assert [each.seq for each in await receive_count(transport, 1)] == [7]

        bound = await nursery.start(listen)
        assert bound == ConnectionSpec("unix", "listen", str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with open_connection(connect_to(bound)) as transport:
            await transport.send([call(7)])


async def test_a_failing_or_cancelled_listener_leaves_no_path(path: pathlib.Path) -> None:
    """G18: what listening made it unlinks, however it ends."""
    with nothing_left(threads=True):
        await listen_and_stop(f"unix:listen={path}")
    assert not path.exists()
    with nothing_left(threads=True), trio.CancelScope() as scope:
        async with open_connection(f"unix:listen={path}", on_listening=lambda _bound: scope.cancel()):
            pytest.fail("entered")
    assert scope.cancelled_caught
    assert not path.exists()


async def test_a_cancelled_listener_touches_nothing(path: pathlib.Path) -> None:
    """G18: cancelled from the start, listening does not even replace a dead socket."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    before = path.stat()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_connection(f"unix:listen={path}", on_listening=not_reached):
            pytest.fail("entered")
    assert path.stat() == before


async def test_only_what_was_made_is_unlinked(path: pathlib.Path) -> None:
    """What took the path's place in the meantime stays; what went is not missed."""

    def replace(_bound: ConnectionSpec) -> None:
        path.unlink()
        path.write_text("somebody else's")
        raise KeyError("enough")

    def remove(_bound: ConnectionSpec) -> None:
        path.unlink()
        raise KeyError("enough")

    def change_mode(_bound: ConnectionSpec) -> None:
        path.chmod(0o660)
        raise KeyError("enough")

    for interfere, remains in [(remove, False), (change_mode, False), (replace, True)]:
        with pytest.raises(KeyError, match="enough"):
            async with open_connection(f"unix:listen={path}", on_listening=interfere):
                pytest.fail("entered")
        assert path.exists() is remains


async def test_a_relative_path_is_unlinked_from_where_it_was(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of directory while listening does not keep the socket from being removed."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    before = tmp_path / "s"

    def go_elsewhere(_bound: ConnectionSpec) -> None:
        assert before.exists()
        os.chdir("elsewhere")
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        async with open_connection("unix:listen=s", on_listening=go_elsewhere):
            pytest.fail("entered")
    assert not before.exists()


async def test_a_dead_socket_is_replaced(path: pathlib.Path) -> None:
    """A socket that no living process holds makes room."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    await listen_and_stop(f"unix:listen={path}")
    assert not path.exists()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
async def test_a_living_socket_is_left_alone_and_hears_nothing(kind: int, path: pathlib.Path) -> None:
    """A socket that somebody holds stays; whoever listens on it for one peer is not disturbed by the question."""
    with socket.socket(socket.AF_UNIX, kind) as alive:
        alive.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            alive.listen()
        alive.setblocking(False)
        with nothing_left(threads=True), pytest.raises(DisconnectedError) as caught:
            async with open_connection(f"unix:listen={path}", on_listening=not_reached):
                pytest.fail("entered")
        assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
        assert "somebody is there already" in caught.value.reason.detail
        with pytest.raises(BlockingIOError):
            alive.recv(1) if kind == socket.SOCK_DGRAM else alive.accept()
        assert path.is_socket()


async def test_a_bound_socket_that_does_not_listen_yet_is_left_alone(path: pathlib.Path) -> None:
    """Between somebody's bind and listen, their socket is not taken for a dead one."""
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        with pytest.raises(DisconnectedError, match="somebody is there already"):
            async with open_connection(f"unix:listen={path}", on_listening=not_reached):
                pytest.fail("entered")


async def test_a_datagram_socket_of_somebodys_that_takes_no_questions(path: pathlib.Path) -> None:
    """What cannot be told is not taken for dead: the system's answer is passed on."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as two,
    ):
        one.bind(str(path))
        two.bind(f"{path}2")
        one.connect(f"{path}2")
        with pytest.raises(DisconnectedError, match="Operation not permitted"):
            await listen_and_stop(f"unix:listen={path}")
    assert path.is_socket()


@pytest.mark.parametrize("becomes", ["another", "nothing"])
async def test_a_dead_socket_that_changes_while_it_is_looked_at(
    becomes: str, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who is faster has the path: what they put there is not removed; if they removed it, it is ours."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    connect = socket.socket.connect
    with socket.socket(socket.AF_UNIX) as faster:

        def interfere(self: socket.socket, address: str) -> None:
            path.unlink()
            if becomes == "another":
                faster.bind(str(path))
            monkeypatch.undo()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

        monkeypatch.setattr(socket.socket, "connect", interfere)
        if becomes == "another":
            with pytest.raises(DisconnectedError, match="somebody is there already"):
                await listen_and_stop(f"unix:listen={path}")
            assert path.is_socket()
        else:
            await listen_and_stop(f"unix:listen={path}")
            assert not path.exists()
    assert socket.socket.connect is connect


async def test_on_listening_may_be_left_out(path: pathlib.Path) -> None:
    """Whoever knows the path need not be told."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            async with open_connection(f"unix:listen={path}"):
                pass

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        async with open_connection(f"unix:connect={path}") as transport:
            assert list(await transport.receive()) == []


def a_file(path: pathlib.Path) -> None:
    path.write_text("precious")


def a_directory(path: pathlib.Path) -> None:
    path.mkdir()


def a_link_to_a_dead_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{path}2")
    path.symlink_to(f"{path}2")


@pytest.mark.parametrize("make", [a_file, a_directory, a_link_to_a_dead_socket])
async def test_what_is_not_a_socket_is_left_alone(make: Callable[[pathlib.Path], None], path: pathlib.Path) -> None:
    """Only a socket is ever replaced."""
    make(path)
    before = path.lstat()
    with pytest.raises(DisconnectedError, match="something there that is not a socket"):
        async with open_connection(f"unix:listen={path}", on_listening=not_reached):
            pytest.fail("entered")
    assert path.lstat().st_ino == before.st_ino


async def test_a_directory_that_is_not_there(path: pathlib.Path) -> None:
    """G20: what the system says about the path is what the caller hears."""
    for action in ("listen", "connect"):
        with nothing_left(threads=True), pytest.raises(DisconnectedError, match="No such file or directory"):
            async with open_connection(f"unix:{action}={path}/nowhere/s"):
                pytest.fail("entered")


async def test_a_socket_of_another_sort_is_not_a_peer(path: pathlib.Path) -> None:
    """G20: a socket that is dead, or of another kind, cannot be connected to, and nothing stays open."""
    for kind, says in [(socket.SOCK_STREAM, "Connection refused"), (socket.SOCK_DGRAM, "Protocol wrong type")]:
        with socket.socket(socket.AF_UNIX, kind) as there:
            there.bind(f"{path}{kind}")
            with nothing_left(threads=True), pytest.raises(DisconnectedError, match=says):
                async with open_connection(f"unix:connect={path}{kind}"):
                    pytest.fail("entered")


async def test_an_abstract_name_can_be_had_once() -> None:
    """The abstract namespace leaves nothing behind and has no path; a name in use is refused."""
    name = f"@orc-trio-test-{os.getpid()}"
    await listen_and_stop(f"unix:listen={name}")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("\0" + name[1:])
        with nothing_left(threads=True), pytest.raises(DisconnectedError, match="somebody is there already"):
            async with open_connection(f"unix:listen={name}", on_listening=not_reached):
                pytest.fail("entered")


async def test_a_full_queue_is_connect_failed(path: pathlib.Path) -> None:
    """G20: a listener whose queue is full is not taken for a connected one."""
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            for vetted in (VettedPeer.CHECKED, VettedPeer.UNCHECKED):
                with (
                    nothing_left(threads=True),
                    pytest.raises(DisconnectedError, match="queue of waiting peers is full"),
                ):
                    async with open_connection(f"unix:connect={path}", vetted=vetted):
                        pytest.fail("entered")


# --- who is let in -----------------------------------------------------------------------------------------------


class Passport:
    """Tells the first peers to be somebody else; then tells the truth's likeness."""

    def __init__(self, *answers: PeerCredentials | OSError) -> None:
        self.answers = list(answers)

    def __call__(self, _peer: trio.socket.SocketType) -> PeerCredentials:
        answer = self.answers.pop(0) if self.answers else PeerCredentials(1, os.geteuid(), 0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def registry(*, listen: UnixListener | None = None, connect: UnixConnector | None = None) -> ConnectorRegistry:
    connectors = ConnectorRegistry()
    connectors.register("unix", "listen", listen or UnixListener())
    connectors.register("unix", "connect", connect or UnixConnector())
    return connectors


@pytest.mark.parametrize("vetted", [None, VettedPeer.CHECKED])
async def test_a_stranger_is_turned_away_and_the_next_one_let_in(
    vetted: VettedPeer | None, path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer of another user, or one that cannot be told, is closed and logged; listening goes on to the next."""
    passport = Passport(STRANGER, OSError(95, "Operation not supported"))
    connectors = registry(listen=UnixListener(credentials=passport))
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[ConnectionSpec]) -> None:
            async with open_connection(
                f"unix:listen={path}", vetted=vetted, connectors=connectors, on_listening=task_status.started
            ) as transport:
                assert [each.seq for each in await receive_count(transport, 1)] == [3]

        with nothing_left(threads=True):
            with caplog.at_level(logging.WARNING, "orc_trio"):
                bound = await nursery.start(listen)
                for _ in range(2):
                    async with open_connection(connect_to(bound)) as transport:
                        assert list(await transport.receive()) == []
                async with open_connection(connect_to(bound)) as transport:
                    await transport.send([call(3)])
                    assert list(await transport.receive()) == []
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(
        f"unix:listen={path}: a peer was turned away: it is not to be trusted: uid 4000000000, gid 5"
    )
    assert "who it is cannot be learnt: Operation not supported" in second


async def test_a_listener_of_another_user_is_refused(path: pathlib.Path) -> None:
    """The connecting end checks too: whoever took our path gets nothing from us."""
    connectors = registry(connect=UnixConnector(credentials=Passport(STRANGER)))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with nothing_left(threads=True), pytest.raises(DisconnectedError) as caught:
            async with open_connection(f"unix:connect={path}", connectors=connectors):
                pytest.fail("entered")
    assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
    assert caught.value.certainty is Certainty.NOT_SENT
    assert caught.value.reason.detail == (
        f"unix:connect={path}: it is not to be trusted: uid 4000000000, gid 5, pid 4 (we are uid {os.geteuid()})"
    )


async def test_a_check_of_your_own(path: pathlib.Path) -> None:
    """Who is trusted can be decided by the program; what it is asked about is the real peer."""
    asked: list[PeerCredentials] = []

    def nobody(peer: PeerCredentials) -> bool:
        asked.append(peer)
        return False

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(DisconnectedError, match="not to be trusted"):
            async with open_connection(
                f"unix:connect={path}", connectors=registry(connect=UnixConnector(trusted=nobody))
            ):
                pytest.fail("entered")
    assert asked == [PeerCredentials(os.getpid(), os.geteuid(), os.getegid())]


async def test_unchecked_lets_anybody_in(path: pathlib.Path) -> None:
    """UNCHECKED asks nobody who they are."""
    asking = Passport(OSError("asked"), OSError("asked"))
    connectors = registry(listen=UnixListener(credentials=asking), connect=UnixConnector(credentials=asking))
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[ConnectionSpec]) -> None:
            async with open_connection(
                f"unix:listen={path}",
                vetted=VettedPeer.UNCHECKED,
                connectors=connectors,
                on_listening=task_status.started,
            ):
                pass

        bound = await nursery.start(listen)
        async with open_connection(connect_to(bound), vetted=VettedPeer.UNCHECKED, connectors=connectors) as transport:
            assert list(await transport.receive()) == []
    assert len(asking.answers) == 2


async def test_an_error_in_a_check_ends_listening_and_leaves_nothing(path: pathlib.Path) -> None:
    """A check that raises is the program's bug: it leaves open_connection, and nothing stays open."""

    def broken(_peer: PeerCredentials) -> bool:
        raise ZeroDivisionError

    connectors = registry(listen=UnixListener(trusted=broken), connect=UnixConnector(trusted=broken))
    with nothing_left(threads=True), socket.socket(socket.AF_UNIX) as peer:
        with pytest.raises(ZeroDivisionError):
            async with open_connection(
                f"unix:listen={path}", connectors=connectors, on_listening=lambda _bound: peer.connect(str(path))
            ):
                pytest.fail("entered")
        assert peer.recv(1) == b""
    assert not path.exists()


@pytest.fixture
def open_directory() -> Iterator[pathlib.Path]:
    """One that other users can pass."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o711)
        yield directory


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_real_stranger_is_turned_away(open_directory: pathlib.Path) -> None:
    """The kernel's own word: a process of another user cannot connect, and if the mode lets it, is turned away."""
    path = open_directory / "s"
    dial = f"""
import os, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as peer:
    try:
        peer.connect({str(path)!r})
    except OSError as exc:
        print(exc.strerror)
    else:
        print(peer.recv(1))
"""

    async def as_stranger() -> str:
        return (await trio.run_process([sys.executable, "-c", dial], capture_stdout=True)).stdout.decode()

    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[ConnectionSpec]) -> None:
            async with open_connection(f"unix:listen={path}", on_listening=task_status.started):
                pass

        bound = await nursery.start(listen)
        assert await as_stranger() == "Permission denied\n"
        path.chmod(0o666)
        assert await as_stranger() == "b''\n"
        async with open_connection(connect_to(bound)) as transport:
            assert list(await transport.receive()) == []
