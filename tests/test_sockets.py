# orc_trio.sockets: messages over a socket, past the stream's own methods.

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

import orc_trio
from orc_trio.abc import MessageTransport, WrappedTransport
from orc_trio.sockets import SocketTransport, as_transport
from orc_trio.streams import StreamTransport
from orc_trio.wire import Message, Opcode, encode

SIZES = [0, 1, 39, 16 * 1024, 16 * 1024 + 1, 64 * 1024, 64 * 1024 + 1, 300_000, 5_000_000]
FIRST = Message(Opcode.SETUP)


def call(seq: int, size: int) -> Message:
    return Message(Opcode.CALL, seq, 2, 3, (seq * 31 % 256).to_bytes(1, "big") * size)


def streams() -> tuple[trio.SocketStream, trio.SocketStream]:
    one, other = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair())
    return one, other


async def receive(transport: SocketTransport, count: int) -> list[Message]:
    received: list[Message] = []
    while len(received) < count:
        batch = await transport.receive()
        assert batch
        received += batch
    return [message._replace(payload=bytes(message.payload)) for message in received]


async def test_messages_arrive_as_they_were_sent() -> None:
    """G3: Messages of every size, bytes and memoryviews, arrive whole and in order."""
    one, other = map(SocketTransport, streams())
    messages = [FIRST, *(call(seq, size) for seq, size in enumerate(SIZES * 3, 1))]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, [message._replace(payload=memoryview(message.payload)) for message in messages])
        assert await receive(other, len(messages)) == messages
    assert other.at_boundary
    assert one.activity > 10
    assert other.activity > 10
    for transport in (one, other, other):
        with trio.testing.assert_checkpoints():
            await transport.aclose()


async def test_sending_without_waiting() -> None:
    """G3: What does not fit at once stays at the head of the queue: it goes before whatever is sent next."""
    one, other = map(SocketTransport, streams())
    assert one.send_now([FIRST, call(1, 10)])
    assert await receive(other, 2) == [FIRST, call(1, 10)]
    many = [call(seq, 300_000) for seq in range(2, 6)]
    assert not one.send_now(many)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, [call(6, 10)])
        assert await receive(other, 5) == [*many, call(6, 10)]
    assert one.send_now([call(7, 1)])
    assert await receive(other, 1) == [call(7, 1)]
    await one.aclose()
    await other.aclose()


async def test_others_have_their_turn() -> None:
    """G7: A socket that always takes and always has something keeps neither the loop nor a cancellation waiting."""
    one, other = map(SocketTransport, streams())
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        nursery.start_soon(one.send, [FIRST, call(1, 32 * 2**20)])
        await receive(other, 2)
        assert turns > 32 * 2**20 // (256 * 1024)
        nursery.cancel_scope.cancel()
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.send([call(2, 1)])
    assert scope.cancelled_caught
    await one.aclose()
    await other.aclose()


FULL = [FIRST, call(1, 64 * 1024)]
"""As much as is read at once: whoever has read that, looks for more."""


async def test_many_messages_of_one_wait() -> None:
    """What is there is taken in one go, up to a bound; and then what has come meanwhile."""
    one, other = map(SocketTransport, streams())
    assert one.send_now(FULL)
    assert await receive(other, 2) == FULL
    messages = [*FULL, *(call(seq, 1000) for seq in range(2, 60))]
    assert one.send_now(messages)
    batches = [await other.receive()]
    assert len(batches[0]) == len(messages)
    sent = [call(seq, 20_000) for seq in range(100)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, sent)
        while sum(map(len, batches)) < len(messages) + len(sent):
            batches.append(await other.receive())
    assert max(sum(len(message.payload) for message in batch) for batch in batches) < 512 * 1024
    await one.aclose()
    await other.aclose()


async def test_the_end_behind_messages() -> None:
    """G16: Messages, found together with the end behind them: they come first; then the end, as what it was."""
    stream, other = streams()
    transport = SocketTransport(other)
    await stream.send_all(b"".join(map(encode, FULL)))
    await stream.send_eof()
    assert await receive(transport, 2) == FULL
    assert await transport.receive() == []
    await stream.aclose()
    await transport.aclose()

    stream, other = streams()
    transport = SocketTransport(other)
    assert transport.send_now([FIRST])  # the other end closes with this unread: a reset
    await stream.send_all(b"".join(map(encode, FULL)))
    await stream.aclose()
    assert await receive(transport, 2) == FULL
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await transport.receive()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
    await transport.aclose()


async def test_garbage_behind_messages() -> None:
    """G25: Messages, found together with garbage behind them: they come first."""
    stream, other = streams()
    transport = SocketTransport(other)
    await stream.send_all(b"".join(map(encode, FULL)) + b"garbage" * 10_000)
    assert await receive(transport, 2) == FULL
    with pytest.raises(orc_trio.RemoteProtocolError):
        await transport.receive()
    await stream.aclose()
    assert await transport.receive() == []
    await transport.aclose()


async def test_a_message_over_the_limit() -> None:
    """G25: Messages before one that is too large are delivered; then comes the error; the rest is dropped."""
    stream, other = streams()
    transport = SocketTransport(other)
    transport.max_payload = 10
    await stream.send_all(encode(FIRST) + encode(call(1, 11)) + encode(FIRST))
    assert await transport.receive() == [FIRST]
    with pytest.raises(orc_trio.RemoteProtocolError, match="11 bytes is over the limit of 10"):
        await transport.receive()
    await stream.send_all(encode(call(1, 300_000))[:200_000])
    await stream.send_eof()
    assert await transport.receive() == []
    assert await transport.receive() == []
    await stream.aclose()
    await transport.aclose()


@pytest.mark.parametrize("size", [0, 300_000])
async def test_the_end_of_the_stream(size: int) -> None:
    """G11: The end is an empty receive; whether it was inside a message can be told."""
    data = encode(FIRST) + encode(call(1, size))
    for length in (0, len(encode(FIRST)), len(data) - 1, len(data)):
        stream, other = streams()
        transport = SocketTransport(other)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send(stream: trio.SocketStream = stream, part: bytes = data[:length]) -> None:
                await stream.send_all(part)
                await stream.send_eof()

            while await transport.receive():
                pass
        assert transport.at_boundary is (length != len(data) - 1)
        await stream.aclose()
        await transport.aclose()


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_cancelled_receive_loses_nothing(size: int, autojump_clock: trio.testing.MockClock) -> None:
    """G3: A receive that is cancelled in the middle of a message goes on with it the next time."""
    stream, other = streams()
    transport = SocketTransport(other)
    data = encode(FIRST) + encode(call(1, size))
    received: list[Message] = []
    step = len(data) // 7
    for at in range(0, len(data), step):
        await stream.send_all(data[at : at + step])
        with trio.move_on_after(1):
            while True:
                received += await transport.receive()
    assert [message._replace(payload=bytes(message.payload)) for message in received] == [FIRST, call(1, size)]
    await stream.aclose()
    await transport.aclose()


async def test_a_peer_that_is_gone() -> None:
    """G16: Trio's own errors, with what the system said as their cause."""
    one, other = map(SocketTransport, streams())
    await other.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await one.send([FIRST])
    with pytest.raises(trio.BrokenResourceError) as caught:
        one.send_now([FIRST])
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EPIPE
    assert await one.receive() == []
    await one.aclose()


async def test_a_reset_connection() -> None:
    """G16: So it is when receiving."""
    one, other = map(SocketTransport, streams())
    assert one.send_now([FIRST])
    await one.stream.socket.send(b"not read")
    await other.aclose()
    with pytest.raises(trio.BrokenResourceError) as caught:
        await one.receive()
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    await one.aclose()


async def test_after_its_end() -> None:
    """G19: A closed transport is closed for everyone, also for who was waiting; no other descriptor is touched."""
    one, other = map(SocketTransport, streams())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await one.receive()

        await trio.testing.wait_all_tasks_blocked()
        await one.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await one.receive()
    with pytest.raises(trio.ClosedResourceError):
        await one.send([FIRST])
    with pytest.raises(trio.ClosedResourceError):
        one.send_now([FIRST])
    await other.aclose()


async def test_which_streams_are_sockets() -> None:
    """Every other stream is used through its methods."""
    one, other = streams()
    assert type(as_transport(one)) is SocketTransport
    assert type(as_transport(trio.StapledStream(other, other))) is StreamTransport
    await one.aclose()
    await other.aclose()


@pytest.mark.parametrize("wrap", [SocketTransport, lambda stream: WrappedTransport(SocketTransport(stream))])
async def test_the_send_buffer_is_as_large_as_was_asked(wrap: Callable[[trio.SocketStream], MessageTransport]) -> None:
    """G8: What the system holds on its way is its own default, or what the limits say, at each end for itself."""
    one, other = streams()
    before = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    limits = orc_trio.Limits(send_buffer=before // 8)
    async with orc_trio.open_session() as session, trio.open_nursery() as nursery:
        bootstrap = orc_trio.BootstrapInfo.for_session(session)
        nursery.start_soon(session.attach, orc_trio.StreamControllerAccess(other), bootstrap)
        async with orc_trio.open_controller(wrap(one), orc_trio.HandlerRegistry(), limits=limits):
            assert before // 8 <= one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < before  # Linux doubles it
            assert other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before


async def test_a_send_buffer_of_a_closed_socket() -> None:
    """G11: A socket that was closed before the connection began says so itself, whatever the limits ask of it."""
    one, other = streams()
    await one.aclose()
    await other.aclose()
    with pytest.raises(orc_trio.DisconnectedError) as info:
        async with orc_trio.open_controller(one, orc_trio.HandlerRegistry(), limits=orc_trio.Limits(send_buffer=2**20)):
            pytest.fail("connected")
    assert info.value.reason.kind is orc_trio.DisconnectKind.CONNECT_FAILED


async def test_a_send_buffer_of_what_is_no_socket() -> None:
    """G25: A send buffer is refused where there is none, before anything is sent."""
    one, other = streams()
    async with one, other:
        with pytest.raises(ValueError, match="a send buffer is set, and this transport has none"):
            async with orc_trio.open_controller(
                trio.StapledStream(one, one), orc_trio.HandlerRegistry(), limits=orc_trio.Limits(send_buffer=2**20)
            ):
                pytest.fail("connected")
