"""Adopted sockets: what is taken over, what is refused and left alone, and standard descriptors."""

from __future__ import annotations

import os
import socket
import sys

import pytest
import trio

from harness import nothing_left
from orc_trio.exceptions import ConnectionSpecError
from orc_trio.streams import StreamTransport
from orc_trio.testing.leaks import open_descriptors
from orc_trio.transports import ConnectionSpec, VettedPeer, default_connectors, descriptors, open_connection
from transport_helpers import call, receive_all, receive_count


@pytest.mark.parametrize(
    "number", ["", "three", "-1", "3,4", " 3", "3.0", "\N{ARABIC-INDIC DIGIT FIVE}", "9" * 10, "9" * 5000]
)
def test_what_is_not_a_number_is_refused(number: str) -> None:
    """G25: a descriptor that is no number is refused in one line, before anything is looked at."""
    spec = ConnectionSpec("socket", "adopt", number)
    with pytest.raises(ConnectionSpecError, match="is not a descriptor; write its number, for example 3"):
        default_connectors().find(spec).check(spec)


@pytest.mark.parametrize("vetted", [VettedPeer.CHECKED, VettedPeer.UNCHECKED])
async def test_an_adopted_socket_is_inherited(vetted: VettedPeer) -> None:
    """A vetting that is not true is refused, and the socket is left alone."""
    one, other = socket.socketpair()
    with one, other:
        with pytest.raises(ConnectionSpecError, match=r"say VettedPeer\.INHERITED"):
            async with open_connection(f"socket:adopt={one.fileno()}", vetted=vetted):
                pytest.fail("entered")
        one.send(b"x")
        assert other.recv(1) == b"x"


async def test_an_adopted_socket_is_ours(recwarn: pytest.WarningsRecorder) -> None:
    """Adopting makes it ours: the same descriptor, not inherited further, non-blocking, closed at the end."""
    one, other = socket.socketpair()
    other.settimeout(5)
    with other:
        number = one.detach()
        os.set_inheritable(number, True)
        async with open_connection(f"socket:adopt={number}", vetted=VettedPeer.INHERITED) as transport:
            assert isinstance(transport, StreamTransport)
            assert isinstance(transport.stream, trio.SocketStream)
            assert transport.stream.socket.fileno() == number
            assert not os.get_inheritable(number)
            assert not os.get_blocking(number)
        assert number not in open_descriptors()
        assert other.recv(1) == b""


async def test_a_tcp_socket_can_be_adopted() -> None:
    """Any connected stream socket will do; one of TCP gets TCP_NODELAY."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        with peer:
            async with open_connection(f"socket:adopt={client.detach()}") as transport:
                assert isinstance(transport, StreamTransport)
                assert isinstance(transport.stream, trio.SocketStream)
                assert transport.stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_what_is_not_a_connected_stream_socket_is_refused_and_left_alone() -> None:
    """G25: any other descriptor is refused in one line that says what it is, and stays open and as it was."""
    datagram, datagram_peer = socket.socketpair(type=socket.SOCK_DGRAM)
    listening, unconnected = socket.create_server(("127.0.0.1", 0)), socket.socket()
    read, write = os.pipe()
    with datagram, datagram_peer, listening, unconnected:
        for number, says in [
            (datagram.fileno(), "is a socket of another kind; it must be a stream socket"),
            (listening.fileno(), "is listening; it must be connected"),
            (unconnected.fileno(), "is not connected to anybody"),
            (read, "is not a socket; a pair of pipes is written pipe:adopt=IN,OUT"),
        ]:
            os.set_inheritable(number, True)
            with nothing_left(threads=True), pytest.raises(ConnectionSpecError, match=f"descriptor {number} {says}"):
                async with open_connection(f"socket:adopt={number}"):
                    pytest.fail("entered")
            assert os.get_inheritable(number)
            assert os.get_blocking(number)
    os.close(read)
    os.close(write)
    with pytest.raises(
        ConnectionSpecError, match=f"descriptor {read} is not open; let the starting process pass it on"
    ):
        async with open_connection(f"socket:adopt={read}"):
            pytest.fail("entered")


async def test_cancelled_adoption_adopts_nothing() -> None:
    """G18: cancelled before it has begun, adopting leaves the descriptor to whoever had it."""
    one, other = socket.socketpair()
    with one, other:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_connection(f"socket:adopt={one.fileno()}"):
                pytest.fail("entered")
        assert scope.cancelled_caught
        one.send(b"x")
        assert other.recv(1) == b"x"


CHILD = """
import os, sys, trio
from orc_trio.transports import open_connection
from orc_trio.wire.messages import Message

async def main():
    async with open_connection(sys.argv[1]) as transport:
        print("a stray print", flush=True)
        os.write(1, b"a stray write")
        assert os.read(0, 1) == b"", "somebody could read from the wire"
        for number in map(int, sys.argv[2]):
            assert os.path.samefile(f"/proc/self/fd/{number}", os.devnull), number
            assert os.get_inheritable(number)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}"):
                assert not os.get_inheritable(int(name)), name
        os.system("echo a stray grandchild")
        received = await transport.receive()
        await transport.send([each._replace(aux=9) for each in received])
        await transport.send_eof()
        assert not await transport.receive()

print("an unflushed print", end="")
trio.run(main)
"""
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize(
    ("spec", "silenced", "as_stderr"),
    [("socket:adopt=0", "01", False), ("socket:adopt=1", "01", False), ("socket:adopt=0", "012", True)],
)
async def test_a_standard_descriptor_never_carries_the_wire(spec: str, silenced: str, as_stderr: bool) -> None:
    """A socket handed over as 0 and 1 (and 2) is moved aside from all of them: no print gets onto the wire."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", CHILD, spec, silenced],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs if as_stderr else None,
            env=BUFFERED,
        )
    async with open_connection(f"socket:adopt={ours.detach()}") as transport:
        await transport.send([call(5)])
        assert [(each.seq, each.aux) for each in await receive_count(transport, 1)] == [(5, 9)]
        assert await receive_all(transport) == []
        await transport.send_eof()
        assert await process.wait() == 0


async def test_a_closed_standard_descriptor_does_no_harm() -> None:
    """A process that was started without standard input adopts its socket all the same, and 0 stays closed."""
    child = """
import os, sys, trio
from orc_trio.transports import open_connection

async def main():
    os.close(0)
    async with open_connection(sys.argv[1]) as transport:
        await transport.send(await transport.receive())
        assert not os.path.exists("/proc/self/fd/0")

trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
"""
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", child, f"socket:adopt={number}"], pass_fds=[number]
        )
    async with open_connection(f"socket:adopt={ours.detach()}") as transport:
        await transport.send([call(5)])
        assert await receive_all(transport) == [call(5)]
        assert await process.wait() == 0


CROWDED = """
import errno, os, resource, sys, trio
from orc_trio.exceptions import DisconnectedError
from orc_trio.transports import open_connection

def count():
    found = 0
    for number in range(100):
        try:
            os.fstat(number)
        except OSError:
            continue
        found += 1
    return found

async def main():
    spec, free, change = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if spec == "socket:adopt=twin":
        spec = f"socket:adopt={os.dup(0)}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    spare = []
    while count() < 100:
        spare.append(os.dup(2))
    for _ in range(free):
        os.close(spare.pop())
    before = count()
    try:
        async with open_connection(spec):
            print("adopted")
    except DisconnectedError as exc:
        assert exc.__cause__.errno == errno.EMFILE
        print(exc.reason.detail.removeprefix(f"{spec}: "))
    assert count() - before == change, count() - before

sys.stdout = sys.stderr
trio.run(main)
"""


@pytest.mark.parametrize(
    ("spec", "free", "change", "says"),
    [
        ("socket:adopt=0", 0, 0, "Too many open files"),
        ("socket:adopt=0", 1, 0, "Too many open files"),
        ("socket:adopt=0", 2, 0, "adopted"),  # /dev/null stays in its place
        ("socket:adopt=twin", 0, -1, "Too many open files"),  # it was ours already, so it is closed
        ("socket:adopt=twin", 1, -1, "adopted"),
        ("pipe:adopt=0,1", 1, 0, "Too many open files"),
        ("pipe:adopt=0,1", 2, 0, "Too many open files"),
        ("pipe:adopt=0,1", 3, 0, "adopted"),
    ],
)
async def test_without_descriptors_left_nothing_leaks(spec: str, free: int, change: int, says: str) -> None:
    """G20: a full table of descriptors is CONNECT_FAILED, and what was half adopted is closed."""
    if spec.startswith("socket"):
        one, other = socket.socketpair()
        ends = [one.detach(), other.detach()]
        stdin, stdout = ends[0], None
    else:
        ends = [*os.pipe(), *os.pipe()]
        stdin, stdout = ends[0], ends[3]
    process = await trio.run_process(
        [sys.executable, "-c", CROWDED, spec, str(free), str(change)],
        stdin=stdin,
        stdout=stdout,
        capture_stderr=True,
        check=False,
    )
    for number in ends:
        os.close(number)
    assert process.stderr.decode() == f"{says}\n"
    assert process.returncode == 0


def test_moving_aside_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If /dev/null cannot be opened, the descriptor stays where it is."""
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    with nothing_left(threads=True), pytest.raises(FileNotFoundError):
        descriptors.take(0)
