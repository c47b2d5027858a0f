# orc_trio.streams: messages over a byte stream.

from __future__ import annotations

import gc
from contextlib import suppress
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import FaultyStream, connected_pair, controller_and_raw, every_stream, result_message
from orc_trio.sockets import as_transport
from orc_trio.streams import SEND_CHUNK, StreamTransport
from orc_trio.transports import in_process_pair
from orc_trio.wire import Message, Opcode, encode

SIZES = [0, 1, 39, 16 * 1024, 16 * 1024 + 1, SEND_CHUNK - 1, SEND_CHUNK, SEND_CHUNK + 1, 3 * SEND_CHUNK + 7]
FIRST = Message(Opcode.SETUP)


async def receive(transport: StreamTransport, count: int) -> list[Message]:
    received: list[Message] = []
    while len(received) < count:
        batch = await transport.receive()
        assert batch
        received += batch
    return [message._replace(payload=bytes(message.payload)) for message in received]


@every_stream
async def test_messages_arrive_as_they_were_sent(kind: str) -> None:
    """G3: Messages of every size, bytes and memoryviews, arrive whole and in order."""
    one, other = map(StreamTransport, await connected_pair(kind))
    messages = [FIRST]
    for seq, size in enumerate(SIZES, 1):
        payload = (seq * 31 % 256).to_bytes(1, "big") * size
        messages.append(Message(Opcode.CALL, seq, 2, 3, payload))
        messages.append(Message(Opcode.RESULT, seq, 2, 3, memoryview(payload)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, messages)
        received = await receive(other, len(messages))
    assert received == [message._replace(payload=bytes(message.payload)) for message in messages]
    assert other.at_boundary
    await one.aclose()
    await other.aclose()
    await other.aclose()


async def test_what_is_queued_is_sent_at_once() -> None:
    """Small messages go out in one send; a large payload is sent in pieces, not copied behind its head."""
    sends: list[Any] = []

    class Recording(FaultyStream):
        async def send_all(self, data: Any) -> None:
            sends.append(data)
            await super().send_all(data)

    one, _other = trio.testing.memory_stream_pair()
    transport = StreamTransport(Recording(one))
    await transport.send([Message(Opcode.PING, aux=number) for number in range(100)])
    assert len(sends) == 1
    assert transport.activity == 1
    big = bytes(300_000)
    await transport.send([FIRST, Message(Opcode.CALL, 1, 2, 3, big), FIRST])
    assert all(type(part) is memoryview and part.obj is big for part in sends[2:-1])
    assert max(map(len, sends)) <= SEND_CHUNK
    assert transport.activity == len(sends)
    await transport.send([])
    assert transport.activity == len(sends)


@pytest.mark.parametrize("step", [1, 2, 7, 39, 1000])
async def test_bytes_may_come_in_any_pieces(step: int) -> None:
    """G25: A stream may be cut anywhere; every piece counts as a sign of life."""
    one, other = trio.testing.memory_stream_pair()
    stream = FaultyStream(other)
    stream.most = step
    transport = StreamTransport(stream)
    assert transport.at_boundary
    data = b"".join(encode(Message(Opcode.CALL, seq, 1, 1, b"x" * seq)) for seq in range(1, 6))
    await one.send_all(data)
    received = await receive(transport, 5)
    assert [message.payload for message in received] == [b"x" * seq for seq in range(1, 6)]
    assert transport.activity == -(-len(data) // step)


async def test_a_message_over_the_limit() -> None:
    """G25: Messages before one that is too large are delivered; then comes the error; the rest is dropped."""
    one, other = trio.testing.memory_stream_pair()
    transport = StreamTransport(other)
    transport.max_payload = 10
    await one.send_all(encode(FIRST) + encode(Message(Opcode.CALL, 1, 1, 1, b"x" * 11)) + encode(FIRST))
    assert await transport.receive() == [FIRST]
    with pytest.raises(orc_trio.RemoteProtocolError, match="11 bytes is over the limit of 10"):
        await transport.receive()
    await one.send_all(encode(FIRST))
    await one.send_eof()
    assert await transport.receive() == []
    assert await transport.receive() == []


async def test_the_end_of_the_stream() -> None:
    """G11: The end is an empty receive; whether it was inside a message can be told."""
    for data, at_boundary in ((b"", True), (encode(FIRST), True), (encode(FIRST)[:-1], False)):
        one, other = trio.testing.memory_stream_pair()
        transport = StreamTransport(other)
        await one.send_all(data)
        await one.send_eof()
        while await transport.receive():
            pass
        assert transport.at_boundary is at_boundary


async def test_a_cancelled_receive_loses_nothing() -> None:
    """G3: A receive that is cancelled in the middle of a message goes on with it the next time."""
    one, other = trio.testing.memory_stream_pair()
    transport = StreamTransport(other)
    data = encode(Message(Opcode.CALL, 1, 1, 1, b"payload"))
    for at in range(0, len(data), 5):
        await one.send_all(data[at : at + 5])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel(scope: trio.CancelScope = scope) -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()

                (message,) = await transport.receive()
                assert message.payload == b"payload"
                break
    else:
        raise AssertionError("it never came")


async def test_half_closing_where_the_stream_can() -> None:
    """G16: A stream that can half-close is; for another one there is nothing to do."""

    class Plain(trio.abc.Stream):
        closed = False

        async def send_all(self, data: Any) -> None:
            raise AssertionError

        async def wait_send_all_might_not_block(self) -> None:
            raise AssertionError

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            return b""

        async def aclose(self) -> None:
            self.closed = True
            await trio.lowlevel.checkpoint()

    one, other = trio.testing.memory_stream_pair()
    await StreamTransport(one).send_eof()
    assert await other.receive_some(1) == b""
    plain = Plain()
    transport = StreamTransport(plain)
    with trio.testing.assert_checkpoints():
        await transport.send_eof()
    await transport.aclose()
    assert plain.closed


async def test_as_transport() -> None:
    """A connection stands on a transport or a stream, and on nothing else."""
    one, _ = trio.testing.memory_stream_pair()
    assert isinstance(as_transport(one), StreamTransport)
    transport, _ = in_process_pair()
    assert as_transport(transport) is transport
    with pytest.raises(TypeError, match=r"trio\.abc\.Stream or a MessageTransport"):
        as_transport(b"stream")  # type: ignore[arg-type]


def buffered(root: object) -> int:
    """How many bytes of payload are reached from an object, through whatever holds them."""
    seen: dict[int, object] = {}
    look = [root]
    while look:
        found = look.pop()
        if id(found) not in seen and not isinstance(found, NOT_FOLLOWED):
            seen[id(found)] = found
            look += gc.get_referents(found)
    return sum(len(found) for found in seen.values() if isinstance(found, (bytes, bytearray)))


NOT_FOLLOWED = (type, ModuleType, FunctionType, MethodType, FrameType, trio.lowlevel.Task)


async def test_half_a_message_does_not_outlive_the_end() -> None:
    """G19: What came of a message that will never be complete is let go with the end, though the transport is kept."""
    one, other = trio.testing.memory_stream_pair()
    transport = StreamTransport(other)
    transport.max_payload = 2**21
    await one.send_all(encode(FIRST) + encode(Message(Opcode.CALL, 1, 1, 1, bytes(2**21)))[: 2**20])
    assert await transport.receive() == [FIRST]
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.receive)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert not transport.at_boundary
    assert buffered(transport) >= 2**19
    await transport.aclose()
    assert buffered(transport) < 2**16


@every_stream
async def test_half_a_result_does_not_outlive_the_connection(kind: str) -> None:
    """G19: The same with a controller that is kept: half a result goes when the connection is over."""
    async with controller_and_raw(kind) as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(orc_trio.DisconnectedError):
                    await controller.call_wrapper(1, b"")

            await raw.expect(Opcode.CALL)
            await raw.send_bytes(encode(result_message(1, bytes(2**21)))[: 2**20])
            await raw.close()
            await controller.wait_disconnected()
        assert buffered(controller) < 2**16


async def test_closed_with_bytes_on_their_way_to_a_receive() -> None:
    """G18: A receive that was given bytes in the step of the close ends, and does not fail."""

    class Slow(FaultyStream):
        async def receive_some(self, max_bytes: int | None = None) -> Any:
            return await arriving.receive()

    sending, arriving = trio.open_memory_channel[bytes](0)
    transport = StreamTransport(Slow(trio.testing.memory_stream_pair()[0]))
    got: list[Any] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            with suppress(trio.ClosedResourceError):
                got.extend(await transport.receive())

        await trio.testing.wait_all_tasks_blocked()
        sending.send_nowait(encode(FIRST)[:-1])
        await transport.aclose()
        arriving.close()
    assert got == []
