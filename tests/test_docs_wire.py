# The worked examples of docs/wire-format.rst are what the code says, and what plain cbor2 reads.
#
# Somebody who writes a peer in another language has nothing but that page: a wrong byte there is a bug.

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cbor2
import pytest
import trio

import orc_trio
import orc_trio.exceptions
from docs_blocks import DOCS, blocks, captioned
from orc_trio.protocol import AGREED_FIELDS, Cancelled, Failed, Limits, Peer, PeerState, Role, Setup, Value
from orc_trio.protocol.events import Agreed, CallReceived
from orc_trio.protocol.outcomes import encode_hang_up
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.wire import FrameDecoder, Message, Opcode, encode

C, E = "controller", "executor"
GREET, NAME = 1 << 63, (1 << 63) + 16


def _frames() -> list[tuple[str, str, bytes]]:
    """Who sends it, what it is called, and its bytes: every frame on the page, in order."""
    found = []
    for block in blocks("wire-format"):
        sender, arrow, rest = block.caption.partition(" → ")
        if arrow:
            title = rest.partition(": ")[2]
            data = bytes.fromhex("".join(line.split()[0] for line in block.text.splitlines()))
            found.append((sender, title, data))
    return found


FRAMES = _frames()
CONVERSATION = FRAMES[:-1]
IDS = [f"{sender}-{title}".replace(" ", "-") for sender, title, _ in FRAMES]


def _plain(data: bytes) -> list[list[object]]:
    """Decode a CBOR sequence of embedded arrays with nothing but cbor2."""
    stream, found = BytesIO(data), []
    while stream.tell() < len(data):
        found.append(cbor2.loads(cbor2.CBORDecoder(stream, read_size=1).decode()))
    return found


@pytest.mark.parametrize("data", [data for _, _, data in FRAMES], ids=IDS)
def test_frames_decode_with_plain_cbor2(data: bytes) -> None:
    """Each frame on the page is the same five values to cbor2 and to our decoder, whole and byte by byte."""
    expected = _plain(data)
    assert expected
    assert [list(m) for m in FrameDecoder(2**20).feed(data)] == expected
    decoder = FrameDecoder(2**20)
    assert [list(m) for i in range(len(data)) for m in decoder.feed(data[i : i + 1])] == expected
    assert decoder.at_boundary


@pytest.mark.parametrize("data", [data for _, _, data in CONVERSATION], ids=IDS[:-1])
def test_frames_are_what_we_write(data: bytes) -> None:
    """Each frame of the conversation is what our encoder writes for its five values."""
    (message,) = FrameDecoder(2**20).feed(data)
    assert encode(message) == data


def test_conversation_is_the_core_s() -> None:
    """Two real protocol cores that have that conversation say exactly those bytes."""
    said: list[tuple[str, bytes]] = []
    controller = Peer(Role.CONTROLLER, setup=Setup.of(Role.CONTROLLER, Limits(), identity="docs"))
    executor = Peer(
        Role.EXECUTOR,
        setup=Setup.of(
            Role.EXECUTOR,
            Limits(),
            triple="x86_64-linux-gnu",
            page_size=4096,
            values={"v": b"\x01"},
            symbols={"greet": GREET, "name": NAME},
        ),
    )

    def carry(sender: Peer) -> Sequence[object]:
        receiver = executor if sender is controller else controller
        (message,) = sender.take(now=0.0)
        said.append((C if sender is controller else E, encode(message)))
        receiver.receive(message)
        sender.poll_events()
        return receiver.poll_events()

    def received(events: Sequence[object]) -> CallReceived:
        (event,) = events
        assert isinstance(event, CallReceived)
        return event

    assert carry(controller)
    (agreed,) = carry(executor)
    assert isinstance(agreed, Agreed)

    controller.call(GREET, b"formal")
    greeting = received(carry(controller))
    executor.call(NAME, b"", nested=True)
    naming = received(carry(executor))
    controller.respond(naming.call, Value(b"Ada"))
    carry(controller)
    executor.respond(greeting.call, Value(b"Dear Ada"))
    carry(executor)

    slow = controller.call(GREET, b"slow", deadline=1.5)
    served = received(carry(controller))
    controller.cancel(slow)
    carry(controller)
    executor.respond(served.call, Cancelled())
    carry(executor)

    controller.call(0x1234, b"")
    nobody = received(carry(controller))
    executor.respond(nobody.call, Failed("UnknownHandlerTag", str(orc_trio.exceptions.UnknownHandlerTagError(0x1234))))
    carry(executor)

    controller.latch(DisconnectReason(DisconnectKind.LOCAL_HANGUP))
    carry(controller)
    carry(executor)
    assert executor.cause == DisconnectReason(DisconnectKind.REMOTE_HANGUP)
    assert said == [(sender, data) for sender, _, data in CONVERSATION]


def test_parts_example_is_the_same_call() -> None:
    """The example in parts, with short heads, arrives as the call of the conversation."""
    executor = Peer(Role.EXECUTOR)
    executor.receive(FrameDecoder(2**20).feed(CONVERSATION[0][2])[0])
    executor.poll_events()
    decoder = FrameDecoder(2**20)
    for message in decoder.feed(FRAMES[-1][2]):
        executor.receive(message)
    (event,) = executor.poll_events()
    assert isinstance(event, CallReceived)
    assert (event.call.seq, event.call.tag, bytes(event.call.payload)) == (1, GREET, b"formal")


def test_opcode_table() -> None:
    """The page's table of opcodes has each opcode once, under its number."""
    page = (DOCS / "wire-format.rst").read_text(encoding="utf-8")
    table = page[page.index("\nOpcodes\n") : page.index("\nSetup\n")]
    rows = re.findall(r"^   \* - (\d) (.*)$", table, re.MULTILINE)
    assert [(int(number), name.replace("-", " ").replace(" ", "_").upper()) for number, name in rows] == [
        (opcode.value, opcode.name) for opcode in Opcode
    ]


def test_limits_table() -> None:
    """The page's table of limits has the names that are agreed, in their order."""
    page = (DOCS / "wire-format.rst").read_text(encoding="utf-8")
    table = page[page.index("\nLimits\n") : page.index("\nCalls\n")]
    assert tuple(re.findall(r"^   \* - ``(\w+)``$", table, re.MULTILINE)) == AGREED_FIELDS


def test_hang_up_kinds() -> None:
    """The page lists exactly the kinds of hang-up that are sent with a reason."""
    page = (DOCS / "wire-format.rst").read_text(encoding="utf-8")
    table = page[page.index("\nHang-up\n") : page.index("\nHow to leave\n")]
    listed = set(re.findall(r"^   \* - ``([\w -]+)``$", table, re.MULTILINE)) - {"kind"}
    sent = {
        cbor2.loads(payload)["kind"]
        for kind in DisconnectKind
        if (payload := encode_hang_up(DisconnectReason(kind, "why"))) != b"\xf6"
    }
    assert listed == sent


def test_violations_listed_are_violations() -> None:
    """G25: what the page calls a violation ends the connection, and says why."""

    def running() -> Peer:
        executor = Peer(Role.EXECUTOR)
        for opcode, payload in [(Opcode.SETUP, _plain(CONVERSATION[0][2])[0][4])]:
            executor.receive(Message(opcode, payload=payload))  # type: ignore[arg-type]
        assert executor.state is PeerState.RUNNING
        return executor

    bad: list[list[Message]] = [
        [Message(9)],
        [Message(Opcode.SETUP)],
        [Message(Opcode.CALL, 5), Message(Opcode.CALL, 5)],
        [Message(Opcode.CALL, 0)],
        [Message(Opcode.RESULT, 1)],
        [Message(Opcode.CANCEL, 1)],
        [Message(Opcode.PART, 1, 0, 10, b"")],
        [Message(Opcode.PART, 1, 0, 10, b"x" * 10)],
        [Message(Opcode.PART, 1, 0, 10, b"x"), Message(Opcode.PART, 1, 0, 11, b"x")],
        [Message(Opcode.PART, 1, 0, 10, b"x"), Message(Opcode.CALL, 1)],
        [Message(Opcode.PART, 1, 0, 2**40, b"x")],
        [Message(Opcode.PART, 1, 2, 10, b"x")],
        [Message(Opcode.PART, 1, 1, 10, b"x")],
        [Message(Opcode.PING, payload=b"x")],
        [Message(Opcode.PING), Message(Opcode.PING)],
        [Message(Opcode.PONG)],
        [Message(Opcode.HANG_UP, payload=b"?")],
    ]
    for messages in bad:
        executor = running()
        for message in messages:
            assert executor.cause is None
            executor.receive(message)
        assert executor.cause is not None, messages
        assert executor.cause.kind is DisconnectKind.PROTOCOL_VIOLATION
        assert executor.cause.detail


async def test_tiny_executor(tmp_path: Path) -> None:
    """The executor on the page works: with our controller, in parts, under pings, and to a clean end."""
    (tmp_path / "tiny_executor.py").write_text(captioned("wire-format", "tiny_executor.py"))
    (tmp_path / "drive_tiny.py").write_text(captioned("wire-format", "drive_tiny.py"))
    done = await trio.run_process([sys.executable, "drive_tiny.py"], cwd=tmp_path, capture_stdout=True)
    assert done.stdout == b"b'HELLO'\n"
    command = [sys.executable, str(tmp_path / "tiny_executor.py")]
    async with orc_trio.open_executor_process(command, orc_trio.HandlerRegistry()) as controller:
        with pytest.raises(orc_trio.UnknownHandlerTagError):
            await controller.call_wrapper(0x1234, b"")
        end = await controller.disconnect()
    assert end.orderly, end
    assert end.exit_status == 0


def test_tiny_executor_takes_parts_and_pings(tmp_path: Path) -> None:
    """The executor on the page takes parts, a cancel in the middle of them, and pings, from a peer of plain cbor2."""
    (tmp_path / "tiny_executor.py").write_text(captioned("wire-format", "tiny_executor.py"))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, str(tmp_path / "tiny_executor.py"), f"socket:adopt={theirs.fileno()}"]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            shout = 1 << 63
            for message in [
                Message(Opcode.SETUP, payload=_plain(CONVERSATION[0][2])[0][4]),  # type: ignore[arg-type]
                Message(Opcode.PART, 1, 0, 3, b"a"),
                Message(Opcode.PART, 2, 0, 3, b"x"),
                Message(Opcode.CANCEL, 2),
                Message(Opcode.PART, 1, 0, 3, b"b"),
                Message(Opcode.CALL, 1, shout, 2**64 - 1, b"c"),
                Message(Opcode.PING, aux=7),
                Message(Opcode.HANG_UP, payload=b"\xf6"),
            ]:
                ours.sendall(encode(message))
            received = b"".join(iter(lambda: ours.recv(65536), b""))
            assert process.wait() == 0
    assert _plain(received)[1:] == [
        [Opcode.RESULT, 2, 0, 2, b""],
        [Opcode.RESULT, 1, 0, 0, b"ABC"],
        [Opcode.PONG, 0, 0, 7, b""],
        [Opcode.HANG_UP, 0, 0, 1, b"\xf6"],
    ]
