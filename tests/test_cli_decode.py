# `orc-trio decode`: what a trace says, in lines.

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli_helpers import Cli
from orc_trio.cli.decode import Decoder, decode, describe_payload
from orc_trio.cli.exits import Failure
from orc_trio.protocol import Cancelled, Failed, Limits, Refused, Role, Setup
from orc_trio.protocol.outcomes import encode_hang_up, encode_result
from orc_trio.protocol.setup import encode_setup
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.tracing import Direction, Record, TraceWriter
from orc_trio.wire import Message, Opcode, encode
from orc_trio.wire.cbor import dumps
from orc_trio.wire.messages import NO_DEADLINE, ResultKind

SENT, RECEIVED = Direction.SENT, Direction.RECEIVED
LIMITS = Limits()
CONTROLLER_SETUP = encode_setup(Setup.of(Role.CONTROLLER, LIMITS, identity="me \x1b"))
EXECUTOR_SETUP = encode_setup(
    Setup.of(
        Role.EXECUTOR,
        LIMITS,
        identity="you",
        triple="x86_64-linux-gnu",
        page_size=4096,
        values={"v": b"\x01"},
        symbols={"echo": 16, "same\n": 16},
    )
)


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capsysbinary)


def clock() -> Iterator[float]:
    now = 1000.0
    while True:
        yield now
        now += 0.5


def trace(*events: tuple[Direction, Message | str | None]) -> bytes:
    """A trace with one event every half second."""
    file, ticks = io.BytesIO(), clock()
    writer = TraceWriter(file, clock=lambda: next(ticks))
    for direction, what in events:
        if isinstance(what, Message):
            writer.messages(direction, [what])
        else:
            writer.end(direction, what)
    return file.getvalue()


def lines(data: bytes, shown: int = 32) -> list[str]:
    return list(decode(io.BytesIO(data), "F", shown))


def until_failure(data: bytes) -> tuple[list[str], str]:
    """The lines before the failure, and the failure."""
    found = []
    try:
        for each in decode(io.BytesIO(data), "F", 32):
            found.append(each)
    except Failure as exc:
        return found, str(exc)
    raise AssertionError("it did not fail")


def line(message: Message) -> str:
    """What one message looks like, alone, without its time."""
    return next(Decoder(32).lines(Record(offset=0, message=message))).removeprefix("0x00000000  ")


def result(kind: ResultKind, payload: bytes | memoryview) -> Message:
    return Message(Opcode.RESULT, 1, 0, kind, payload)


def test_a_conversation() -> None:
    """A trace becomes lines: times, arrows, names of what is called, what was answered and how fast."""
    shown = lines(
        trace(
            (SENT, Message(Opcode.SETUP, payload=CONTROLLER_SETUP)),
            (RECEIVED, Message(Opcode.SETUP, payload=EXECUTOR_SETUP)),
            (SENT, Message(Opcode.CALL, 1, 16, 2_500_000, b"hello")),
            (RECEIVED, Message(Opcode.NESTED_CALL, 1, 0x99, NO_DEADLINE, b"")),
            (SENT, result(ResultKind.VALUE, b"\x00\xff")),
            (RECEIVED, result(ResultKind.VALUE, b"x" * 40)),
            (RECEIVED, result(ResultKind.VALUE, b"who asked?")),
            (SENT, Message(Opcode.CALL, 2, 16, NO_DEADLINE, b"!")),
            (SENT, Message(Opcode.CANCEL, 2)),
            (SENT, Message(Opcode.CANCEL, 3)),
            (SENT, Message(Opcode.PING, aux=7)),
            (RECEIVED, Message(Opcode.PONG, aux=7)),
            (SENT, Message(Opcode.HANG_UP, aux=1, payload=b"\xf6")),
            (SENT, None),
            (RECEIVED, "it\nbroke"),
        )
    )
    figures = "max_calls 1024, max_nested_calls 1024, max_bytes 67108864, max_message 67108864"
    assert shown == [
        "# a trace, begun 1970-01-01 00:16:40 UTC; times in seconds; -> sent, <- received",
        f"   0.000000  ->  setup    controller 'me \\x1b'; {figures}",
        f"   0.500000  <-  setup    executor 'you'; {figures}",
        "                          x86_64-linux-gnu, page size 4096",
        "                          value v = 1 byte: 01",
        "                          symbol echo = 0x10",
        "                          symbol same\\n = 0x10",
        "   1.000000  ->  call     #1 echo (0x10), within 2.5 s, 5 bytes: 'hello'",
        "   1.500000  <-  nested   #1 0x99, 0 bytes",
        "   2.000000  ->  result   #1 0x99 after 500.000 ms: 2 bytes: 00 ff",
        f"   2.500000  <-  result   #1 echo (0x10) after 1500.000 ms: 40 bytes: '{'x' * 32}'…",
        "   3.000000  <-  result   #1: 10 bytes: 'who asked?'",
        "   3.500000  ->  call     #2 echo (0x10), 1 byte: '!'",
        "   4.000000  ->  cancel   #2 echo (0x10)",
        "   4.500000  ->  cancel   #3",
        "   5.000000  ->  ping     7",
        "   5.500000  <-  pong     7",
        "   6.000000  ->  hang-up  in order; highest call dispatched: 1",
        "   6.500000  ->  end of stream",
        "   7.000000  <-  ERROR    it\\nbroke",
    ]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (result(*encode_result(Failed("Nope", "no\x1bway"))), "result   #1: error Nope: no\\x1bway"),
        (result(*encode_result(Refused("busy"))), "result   #1: refused: busy"),
        (result(*encode_result(Cancelled())), "result   #1: cancelled"),
        (
            Message(
                Opcode.HANG_UP,
                payload=encode_hang_up(DisconnectReason(DisconnectKind.PROTOCOL_VIOLATION, "bad\nbytes")),
            ),
            "hang-up  because of: protocol violation: bad\\nbytes; highest call dispatched: 0",
        ),
        (Message(Opcode.PART, 4, 0, 300, b"ab"), "part     #4, of a call of 300 bytes, 2 bytes: 'ab'"),
        (Message(Opcode.PART, 4, 1, 300, b"ab"), "part     #4, of a result of 300 bytes, 2 bytes: 'ab'"),
    ],
)
def test_messages(message: Message, says: str) -> None:
    """Each kind of message is told in words."""
    assert line(message) == says


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Message(22, 1, 2, 3, b"?"), "MALFORMED: unknown opcode 22 [number 1, tag 0x2, aux 3], 1 byte: '?'"),
        (Message(Opcode.SETUP, payload=b"?"), "setup    MALFORMED: "),
        (Message(Opcode.SETUP, payload=dumps(1)), "does not speak the orc_trio protocol"),
        (Message(Opcode.SETUP, payload=dumps({"role": "executor"})), "does not speak the orc_trio protocol"),
        (Message(Opcode.HANG_UP, payload=b"?"), "hang-up  MALFORMED: "),
        (Message(Opcode.PART, 4, 2, 300, b"ab"), "MALFORMED: a part of 2, which is neither call nor result"),
        (Message(Opcode.RESULT, 1, 0, 9), "MALFORMED: a result has the unknown kind 9"),
        (Message(Opcode.RESULT, 1, 0, 1, b"?"), "MALFORMED: error result: "),
    ],
)
def test_malformed_payloads(message: Message, says: str) -> None:
    """A message that is not what it must be is shown with what is wrong, and the listing goes on."""
    shown, failure = until_failure(encode(message) + encode(Message(Opcode.PING, aux=1)))
    assert "malformed payloads: 1;" in failure
    assert says in shown[0]
    assert shown[1].endswith("ping     1")


def test_parts() -> None:
    """A call or result whose beginning came in parts says so, and is not taken for malformed."""
    shown = lines(
        trace(
            (SENT, Message(Opcode.PART, 1, 0, 10, b"12345")),
            (SENT, Message(Opcode.CALL, 1, 5, NO_DEADLINE, b"67890")),
            (RECEIVED, Message(Opcode.PART, 1, 1, 10, b"12345")),
            (RECEIVED, Message(Opcode.RESULT, 1, 0, ResultKind.ERROR, b"67890")),
            (RECEIVED, Message(Opcode.PART, 2, 1, 10, b"12345")),
            (RECEIVED, Message(Opcode.RESULT, 2, 0, 77, b"67890")),
        )
    )
    assert [each[17:] for each in shown[1:]] == [
        "part     #1, of a call of 10 bytes, 5 bytes: '12345'",
        "call     #1 0x5, the last of 10 bytes, 5 bytes: '67890'",
        "part     #1, of a result of 10 bytes, 5 bytes: '12345'",
        "result   #1 0x5 after 1000.000 ms: error, the last of 10 bytes, 5 bytes: '67890'",
        "part     #2, of a result of 10 bytes, 5 bytes: '12345'",
        "result   #2: kind 77, the last of 10 bytes, 5 bytes: '67890'",
    ]


def test_a_raw_capture() -> None:
    """A raw capture has offsets instead of times and arrows."""
    call, answer = Message(Opcode.CALL, 1, 5, NO_DEADLINE, b"abc"), result(ResultKind.VALUE, b"")
    assert lines(encode(call) + encode(answer)) == [
        "0x00000000  call     #1 0x5, 3 bytes: 'abc'",
        "0x0000002a  result   #1: 0 bytes",
    ]


@pytest.mark.parametrize(
    ("payload", "shown", "says"),
    [
        (b"", 9, "0 bytes"),
        (b"x", 0, "1 byte"),
        ("né\n".encode(), 9, "4 bytes: 'né\\n'"),
        ("né".encode(), 2, "3 bytes: 'n'…"),
        (b"n\xc3", 9, "2 bytes: 6e c3"),
        (b"\x1b[31m", 9, "5 bytes: 1b 5b 33 31 6d"),
        (b"\x00" * 100, 2, "100 bytes: 00 00…"),
        (b"\xff" * 100, 2, "100 bytes: ff ff…"),
        (memoryview(b"ok"), 9, "2 bytes: 'ok'"),
    ],
)
def test_payloads(payload: bytes | memoryview, shown: int, says: str) -> None:
    """Payloads are shown as text if they are text, else in hexadecimal, and never more than asked for."""
    assert describe_payload(payload, shown) == says


@pytest.mark.parametrize(
    ("time", "says"), [(0.0, "1970-01-01"), (float("nan"), "at no time"), (-1e300, "at -1e+300"), (1e15, "at 1e+15")]
)
def test_strange_times(time: float, says: str) -> None:
    """A trace's time may be any number."""
    data = b"\x83\xfb" + struct.pack(">d", time) + b"\x64sent" + encode(Message(Opcode.PING))
    assert says in lines(data)[0]


@given(st.binary(max_size=60), st.integers(0, 30), st.integers(0, 3), st.integers(0, 3))
def test_any_payload(payload: bytes, opcode: int, tag: int, aux: int) -> None:
    """G25: any message gives lines without control characters."""
    for direction in (SENT, None):
        record = Record(offset=0, time=1.0, direction=direction, message=Message(opcode, 1, tag, aux, payload))
        assert all(each.isprintable() for each in Decoder(32).lines(record))


def test_command(cli: Cli, tmp_path: Path) -> None:
    """`decode FILE` prints the lines; --bytes says how much of the payloads."""
    path = tmp_path / "t"
    path.write_bytes(encode(Message(Opcode.CALL, 1, 5, NO_DEADLINE, b"abc")))
    assert cli("decode", path) == (0, b"0x00000000  call     #1 0x5, 3 bytes: 'abc'\n", "")
    assert cli("decode", "-n", "0", path).out == b"0x00000000  call     #1 0x5, 3 bytes\n"


def test_command_malformed(cli: Cli, tmp_path: Path) -> None:
    """Malformed input: everything before it, then one line with offset and reason, and exit code 1."""
    path = tmp_path / "t"
    path.write_bytes(encode(Message(Opcode.PING, aux=1)) + b"\x45ab")
    ended = cli("decode", path)
    assert ended.status == 1
    assert ended.out == b"0x00000000  ping     1\n"
    assert ended.err == (
        f"orc-trio: {path}: offset 40: a frame is cut off: 5 bytes announced, 2 there (after 1 messages)\n"
    )
    path.write_bytes(b"#!")
    assert "offset 0: neither a trace nor a capture" in cli("decode", path).err


def test_command_reads_stdin(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """FILE may be -, for stdin."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encode(Message(Opcode.PING, aux=1)))))
    assert cli("decode", "-").out == b"0x00000000  ping     1\n"
