"""Adopted pipes: what is taken over, what is refused and left alone, and standard input and output."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import tempfile

import pytest
import trio

from harness import nothing_left
from orc_trio.exceptions import ConnectionSpecError
from orc_trio.testing.leaks import open_descriptors
from orc_trio.transports import ConnectionSpec, VettedPeer, default_connectors, open_connection
from test_transports_sockets import BUFFERED, CHILD
from transport_helpers import call, connected, receive_all, receive_count


@pytest.mark.parametrize(
    ("descriptor", "says"),
    [
        ("", "two descriptors are needed; write pipe:adopt=IN,OUT, for example 0,1"),
        ("3", "two descriptors are needed"),
        ("3,", "'' is not a descriptor"),
        (",3", "'' is not a descriptor"),
        ("3,4,5", "'4,5' is not a descriptor"),
        ("3, 4", "' 4' is not a descriptor"),
        ("in,out", "'in' is not a descriptor"),
        ("3,3", "one descriptor for both ways is a socket; write socket:adopt=3"),
    ],
)
def test_what_is_not_two_numbers_is_refused(descriptor: str, says: str) -> None:
    """G25: what does not name two descriptors is refused in one line, before anything is looked at."""
    spec = ConnectionSpec("pipe", "adopt", descriptor)
    with pytest.raises(ConnectionSpecError) as caught:
        default_connectors().find(spec).check(spec)
    assert says in str(caught.value)


async def test_adopted_pipes_are_inherited() -> None:
    """A vetting that is not true is refused."""
    with pytest.raises(ConnectionSpecError, match=r"say VettedPeer\.INHERITED"):
        async with open_connection("pipe:adopt=0,1", vetted=VettedPeer.UNCHECKED):
            pytest.fail("entered")


async def test_adopted_pipes_are_ours() -> None:
    """Adopting makes them ours: not inherited further, non-blocking, closed at the end."""
    (read_one, write_two), (read_two, write_one) = os.pipe(), os.pipe()
    ours = [read_one, write_one]
    for number in ours:
        os.set_inheritable(number, True)
    async with open_connection(f"pipe:adopt={read_one},{write_one}"):
        for number in ours:
            assert not os.get_inheritable(number)
            assert not os.get_blocking(number)
    assert not set(ours) & set(open_descriptors())
    assert os.read(read_two, 1) == b""
    os.close(read_two)
    os.close(write_two)


async def test_half_closing_closes_the_pipe_that_is_written_to() -> None:
    """G16: the half-close of a pipe is the end of one of the two."""
    (read_one, write_two), (read_two, write_one) = os.pipe(), os.pipe()
    async with open_connection(f"pipe:adopt={read_one},{write_one}") as transport:
        await transport.send_eof()
        assert write_one not in open_descriptors()
        assert read_one in open_descriptors()
        assert os.read(read_two, 1) == b""
        with pytest.raises(trio.ClosedResourceError):
            await transport.send([call(1)])
    os.close(read_two)
    os.close(write_two)


async def test_what_are_not_pipes_in_the_right_direction_is_refused_and_left_alone() -> None:
    """G25: any other descriptors are refused in one line that says which and why; both stay as they were."""
    read, write = os.pipe()
    one, other = socket.socketpair()
    closed = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(closed)
    with one, other, tempfile.TemporaryFile() as file:
        for incoming, outgoing, says in [
            (write, read, f"descriptor {write} cannot be read from; write pipe:adopt=IN,OUT"),
            (read, file.fileno(), f"descriptor {file.fileno()} is not a pipe"),
            (file.fileno(), write, f"descriptor {file.fileno()} is not a pipe"),
            (one.fileno(), write, f"descriptor {one.fileno()} is a socket; write socket:adopt={one.fileno()}"),
            (closed, write, f"descriptor {closed} is not open; let the starting process pass it on"),
            (read, closed, f"descriptor {closed} is not open"),
        ]:
            for number in (read, write):
                os.set_inheritable(number, True)
            with nothing_left(threads=True), pytest.raises(ConnectionSpecError, match=says):
                async with open_connection(f"pipe:adopt={incoming},{outgoing}"):
                    pytest.fail("entered")
            for number in (read, write):
                assert os.get_inheritable(number)
                assert os.get_blocking(number)
    both_read = os.dup(read)
    with pytest.raises(ConnectionSpecError, match=f"descriptor {both_read} cannot be written to"):
        async with open_connection(f"pipe:adopt={read},{both_read}"):
            pytest.fail("entered")
    for number in (read, both_read, write):
        os.close(number)


async def test_a_named_pipe_open_both_ways_will_do() -> None:
    """A pipe that is open for reading and writing can be either."""
    with tempfile.TemporaryDirectory() as directory:
        os.mkfifo(f"{directory}/loop")
        one = os.open(f"{directory}/loop", os.O_RDWR)
        async with open_connection(f"pipe:adopt={one},{os.dup(one)}") as transport:
            await transport.send([call(4)])
            assert [each.seq for each in await receive_count(transport, 1)] == [4]


async def test_cancelled_adoption_adopts_nothing() -> None:
    """G18: cancelled before it has begun, adopting leaves the descriptors to whoever had them."""
    read, write = os.pipe()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_connection(f"pipe:adopt={read},{write}"):
            pytest.fail("entered")
    assert scope.cancelled_caught
    os.close(read)
    os.close(write)


async def test_standard_input_and_output_never_carry_the_wire() -> None:
    """Pipes 0 and 1 are moved aside and /dev/null put there: no print gets onto the wire, and stderr still works."""
    (read_theirs, write_ours), (read_ours, write_theirs) = os.pipe(), os.pipe()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", CHILD, "pipe:adopt=0,1", "01"], stdin=read_theirs, stdout=write_theirs, env=BUFFERED
    )
    os.close(read_theirs)
    os.close(write_theirs)
    async with open_connection(f"pipe:adopt={read_ours},{write_ours}") as transport:
        await transport.send([call(5)])
        assert [(each.seq, each.aux) for each in await receive_count(transport, 1)] == [(5, 9)]
        assert await receive_all(transport) == []
        await transport.send_eof()
        assert await process.wait() == 0


async def test_a_reader_that_is_gone_breaks_the_send() -> None:
    """G17: writing to a pipe nobody reads is an error, not a signal."""
    async with connected("pipe") as (one, other):
        await other.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await one.send([call(1)])
