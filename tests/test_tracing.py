# Traces: what is written is CBOR that anybody reads, what is read is taken apart without trust.

from __future__ import annotations

import errno
import io
import struct
from collections.abc import Sequence
from pathlib import Path

import cbor2
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

import orc_trio
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.tracing import Direction, MalformedCaptureError, Record, TraceWriter, TracingTransport, read_records
from orc_trio.transports import in_process_pair
from orc_trio.wire import Message, Opcode, encode

CALL = Message(Opcode.CALL, 1, 0x1234, 5, b"hello")
RESULT = Message(Opcode.RESULT, 1, 0, 0, b"x" * 70_000)


def items(data: bytes) -> list[object]:
    """A CBOR sequence, read with nothing but cbor2."""
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        found.append(cbor2.CBORDecoder(stream, read_size=1).decode())
    return found


def written(*, clock: float = 12.5) -> tuple[TraceWriter, io.BytesIO]:
    file = io.BytesIO()
    return TraceWriter(file, clock=lambda: clock), file


def read(data: bytes) -> list[Record]:
    return list(read_records(io.BytesIO(data)))


def error_of(data: bytes) -> MalformedCaptureError:
    with pytest.raises(MalformedCaptureError) as caught:
        read(data)
    return caught.value


def test_any_cbor_tool_reads_a_trace() -> None:
    """A trace is a CBOR sequence of [time, direction, frame], and a frame is the very bytes of the wire."""
    trace, file = written()
    trace.messages(Direction.SENT, [CALL, RESULT])
    trace.end(Direction.RECEIVED)
    trace.end(Direction.SENT, "it broke")
    frames = [cbor2.loads(encode(message)) for message in (CALL, RESULT)]
    assert items(file.getvalue()) == [
        [12.5, "sent", frames[0]],
        [12.5, "sent", frames[1]],
        [12.5, "received", None],
        [12.5, "sent", "it broke"],
    ]
    assert encode(CALL) in file.getvalue()


def test_a_trace_is_read_back() -> None:
    """What was written is read back, with the offset of every record."""
    trace, file = written()
    trace.messages(Direction.SENT, [CALL])
    size = len(file.getvalue())
    trace.messages(Direction.RECEIVED, [RESULT])
    trace.end(Direction.SENT)
    trace.end(Direction.RECEIVED, "broken é \ud800")
    records = read(file.getvalue())
    assert [(each.time, each.direction, each.error) for each in records] == [
        (12.5, Direction.SENT, ""),
        (12.5, Direction.RECEIVED, ""),
        (12.5, Direction.SENT, ""),
        (12.5, Direction.RECEIVED, "broken é \\ud800"),
    ]
    assert [each.message for each in records] == [CALL, RESULT, None, None]
    assert [each.offset for each in records[:2]] == [0, size]


def test_a_raw_capture_is_read() -> None:
    """The frames of one direction, one after the other, are read too, in whatever legal encoding."""
    short = cbor2.dumps(cbor2.dumps(list(CALL)))
    records = read(encode(CALL) + short + encode(RESULT))
    assert [each.message for each in records] == [CALL, CALL, RESULT]
    assert [each.offset for each in records] == [0, len(encode(CALL)), len(encode(CALL)) + len(short)]
    assert {(each.time, each.direction) for each in records} == {(None, None)}


RECORD = b"\x83\xfb" + struct.pack(">d", 1.0) + b"\x64sent"


@pytest.mark.parametrize(
    ("data", "offset", "why"),
    [
        (b"", 0, "empty"),
        (b"#!/bin/sh", 0, "neither a trace nor a capture"),
        (b"\x9f", 0, "indefinite"),
        (b"\x82\x01\x02", 0, "array of three"),
        (b"\x83\x01", 1, "64-bit float"),
        (b"\x83\xf9\x00\x00", 1, "64-bit float"),
        (b"\x83\xfb\x00", 2, "cut off: 8 bytes announced, 1 there"),
        (RECORD[:10] + b"\x01", 10, "direction must be a text"),
        (RECORD[:10] + b"\x61\xff", 10, "UTF-8"),
        (RECORD[:10] + b"\x61x", 10, '"sent" or "received"'),
        (RECORD, 15, "cut off"),
        (RECORD + b"\x01", 15, "frame (a byte string), null"),
        (RECORD + b"\x7f", 15, "indefinite"),
        (RECORD + b"\x62x", 16, "cut off: 2 bytes announced, 1 there"),
        (RECORD + b"\x5b" + b"\xff" * 8, 24, "cut off"),
        (RECORD + b"\x41\x00", 15, "not a CBOR array of five"),
        (RECORD + b"\xf6\x41", 16, "array of three"),
        (encode(CALL) + b"\x00", 44, "byte string is expected"),
        (encode(CALL)[:-1], 5, "cut off: 39 bytes announced, 38 there"),
        (b"\x40", 0, "not a CBOR array of five"),
        (b"\x41\x9f", 0, "indefinite"),
    ],
)
def test_malformed(data: bytes, offset: int, why: str) -> None:
    """G25: what is no trace and no capture is refused with the offset and what is wrong there."""
    error = error_of(data)
    assert why in error.why
    assert error.offset == offset
    assert str(error) == f"offset {offset}: {error.why}"


@given(st.binary(max_size=200), st.sampled_from([b"", RECORD, encode(CALL)]))
@example(b"\x5a\xff\xff\xff\xff", b"")
def test_any_bytes(data: bytes, before: bytes) -> None:
    """G25: any bytes give records or a MalformedCaptureError."""
    try:
        read(before + data)
    except MalformedCaptureError as exc:
        assert 0 <= exc.offset <= len(before + data)


@given(st.integers(0, 300))
def test_cut_anywhere(size: int) -> None:
    """A trace that was cut off anywhere gives its whole records, then says where it is cut."""
    trace, file = written()
    for _ in range(4):
        trace.messages(Direction.SENT, [CALL])
    whole = file.getvalue()
    each = len(whole) // 4
    data = whole[:size]
    found = []
    try:
        found += [record.message for record in read_records(io.BytesIO(data))]
    except MalformedCaptureError as exc:
        assert "cut off" in exc.why or not data
    else:
        assert len(data) % each == 0
    assert all(message == CALL for message in found)


def test_the_clock_never_goes_back() -> None:
    """Times are seconds since 1970, in order."""
    file = io.BytesIO()
    trace = TraceWriter(file)
    for _ in range(3):
        trace.end(Direction.SENT)
    times = [each.time or 0 for each in read(file.getvalue())]
    assert times == sorted(times)
    assert times[0] > 1_600_000_000


class FullDisk(io.BytesIO):
    """A file that takes nothing more."""

    def write(self, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_ends_the_trace_only() -> None:
    """A trace that cannot be written ends, and says why; the connection goes on."""
    trace = TraceWriter(FullDisk())
    await converse(trace)
    assert trace.error is not None
    assert trace.error.errno == errno.ENOSPC


async def converse(trace: TraceWriter, *, size: int = 10) -> None:
    """Echo some bytes, with the controller's end traced."""
    ours, theirs = in_process_pair()

    async def execute() -> None:
        async with orc_trio.open_session() as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            bootstrap.add_wrapper("echo", lambda args: args)
            await session.attach(orc_trio.StreamControllerAccess(theirs), bootstrap)
            await session.wait_detached()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(execute)
        async with orc_trio.open_controller(TracingTransport(ours, trace), orc_trio.HandlerRegistry()) as controller:
            echo = controller.bootstrap.symbols["echo"]
            assert await controller.call_wrapper(echo, b"e" * size) == b"e" * size


async def test_a_conversation() -> None:
    """A traced connection behaves as any, and every message of it is in the trace."""
    file = io.BytesIO()
    await converse(TraceWriter(file), size=200_000)
    records = read(file.getvalue())
    assert [(each.direction, Opcode(each.message.opcode)) for each in records if each.message][:4] == [
        (Direction.SENT, Opcode.SETUP),
        (Direction.RECEIVED, Opcode.SETUP),
        (Direction.SENT, Opcode.CALL),
        (Direction.RECEIVED, Opcode.RESULT),
    ]
    messages = [each.message for each in records if each.message]
    assert bytes(messages[3].payload) == b"e" * 200_000
    assert sum(message.opcode == Opcode.HANG_UP for message in messages) == 2
    assert any(each.message is None for each in records)


class Broken(orc_trio.MessageTransport):
    """A transport on which nothing works."""

    async def send(self, messages: Sequence[Message]) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    async def receive(self) -> Sequence[Message]:
        await trio.lowlevel.checkpoint()
        raise RemoteProtocolError("what is this?")

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    at_boundary = False
    exit_status = 7


async def test_errors_are_recorded_and_passed_on() -> None:
    """An error of the inner transport is in the trace, and reaches the connection as it was."""
    trace, file = written()
    transport = TracingTransport(Broken(), trace)
    with pytest.raises(trio.BrokenResourceError):
        await transport.send([CALL])
    with pytest.raises(RemoteProtocolError, match="what is this"):
        await transport.receive()
    await transport.send_eof()
    assert [(each.direction, each.message, each.error) for each in read(file.getvalue())] == [
        (Direction.SENT, CALL, ""),
        (Direction.SENT, None, "BrokenResourceError"),
        (Direction.RECEIVED, None, "RemoteProtocolError: what is this?"),
        (Direction.SENT, None, ""),
    ]


async def test_the_rest_is_the_inner_transport_s() -> None:
    """Limits, signs of life, and what is known at the end pass through."""
    inner = Broken()
    transport = TracingTransport(inner, written()[0])
    transport.max_payload = 77
    inner.activity = 5
    assert (inner.max_payload, transport.max_payload, transport.activity) == (77, 77, 5)
    assert (transport.at_boundary, transport.exit_status) == (False, 7)


async def test_cancelled_receive_records_nothing() -> None:
    """A cancelled receive is no event of the conversation."""
    ours, _theirs = in_process_pair()
    trace, file = written()
    with trio.move_on_after(0):
        await TracingTransport(ours, trace).receive()
    assert file.getvalue() == b""


def test_records_are_flushed(tmp_path: Path) -> None:
    """What was recorded is in the file at once: a crash loses nothing."""
    path = tmp_path / "trace"
    with path.open("wb") as file:
        TraceWriter(file).messages(Direction.SENT, [CALL])
        assert read(path.read_bytes())[0].message == CALL
