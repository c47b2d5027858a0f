# What the tests of wire/ and protocol/ share: strategies for messages and their encodings, and two ends without I/O.
#
# Every frame that passes through here is read by plain cbor2 too: it is the oracle for the format (G25).

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import cbor2
from hypothesis import strategies as st

from orc_trio.protocol import (
    CallReceived,
    CallSettled,
    Event,
    InboundCall,
    Latched,
    Limits,
    Peer,
    PeerState,
    Role,
    Setup,
)
from orc_trio.protocol.setup import encode_setup
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.wire import FrameDecoder, Message, Opcode, encode
from orc_trio.wire.messages import U64_MAX

KIB = 1024
SMALL = Limits(max_calls=2, max_nested_calls=1, max_bytes=64 * KIB, max_message=64 * KIB)
HANG_UP = DisconnectReason(DisconnectKind.LOCAL_HANGUP)

T = TypeVar("T", bound=Event)

# -- wire ----------------------------------------------------------------------------------------------------------

u64s = st.integers(0, 30) | st.integers(0, U64_MAX) | st.sampled_from([23, 24, 255, 256, 65535, 65536, U64_MAX])
opcodes = st.integers(0, 23)
messages = st.builds(Message, opcodes, u64s, u64s, u64s, st.binary(max_size=300))


def head(major: int, value: int, width: int) -> bytes:
    """One CBOR head whose argument takes ``width`` bytes (0: in the initial byte), or more if it must."""
    for info, size in ((None, 0), (24, 1), (25, 2), (26, 4), (27, 8)):
        if size >= width and (value < 24 if size == 0 else value < 1 << (8 * size)):
            initial = value if info is None else info
            return bytes([major << 5 | initial]) + (b"" if size == 0 else value.to_bytes(size, "big"))
    raise AssertionError("wider than 64 bits")


def encode_as(message: Message, widths: Sequence[int]) -> bytes:
    """The frame as another encoder might write it: ``widths`` of the outer head and the six inner ones."""
    outer, array, *numbers, size = widths
    inner = head(4, 5, array)
    for value, width in zip(message[:4], numbers, strict=True):
        inner += head(0, value, width)
    inner += head(2, len(message.payload), size) + bytes(message.payload)
    return head(2, len(inner), outer) + inner


all_widths = st.tuples(*[st.sampled_from([0, 1, 2, 4, 8])] * 7)
encodings = st.tuples(messages, st.one_of(st.none(), all_widths))
"""A message, and how to write it: None is our own fixed shape."""


def written(case: tuple[Message, Sequence[int] | None]) -> bytes:
    """The frame of one of `encodings`, checked by the oracle."""
    message, widths = case
    frame = encode(message) if widths is None else encode_as(message, widths)
    check_by_oracle(frame, message)
    return frame


def check_by_oracle(frame: bytes, message: Message) -> None:
    """Plain cbor2 reads the same five values, and nothing else is in the frame."""
    inner = cbor2.loads(frame)
    assert type(inner) is bytes
    assert len(cbor2.dumps(inner)) <= len(frame)
    assert cbor2.loads(inner) == [*message[:4], bytes(message.payload)]


def plain(found: Iterable[Message]) -> list[Message]:
    """The same messages, with payloads that compare as bytes."""
    return [message._replace(payload=bytes(message.payload)) for message in found]


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at these places (modulo its length)."""
    places = sorted({place % (len(data) + 1) for place in cuts})
    return [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]


# -- protocol ------------------------------------------------------------------------------------------------------


def setup_message(role: Role, limits: Limits = SMALL) -> Message:
    return Message(Opcode.SETUP, payload=encode_setup(Setup.of(role, limits)))


def running(limits: Limits = SMALL) -> Peer:
    """A controller's end that is RUNNING, and has nothing queued; the test plays the executor, message by message."""
    peer = Peer(Role.CONTROLLER, limits)
    peer.receive(setup_message(Role.EXECUTOR, limits))
    peer.take()
    peer.poll_events()
    assert peer.state is PeerState.RUNNING
    return peer


def deliver(source: Peer, target: Peer, *, now: float = 0.0) -> list[Message]:
    """Everything ``source`` has to say goes, as bytes, to ``target``."""
    sent = []
    while source.has_output:
        taken = source.take(now)
        assert taken, "has_output promised something"
        sent += taken
    decoder = FrameDecoder(target.limits.max_message)
    for message in sent:
        frame = encode(message)
        check_by_oracle(frame, message)
        for received in decoder.feed(frame):
            target.receive(received)
    source.take(now)  # what was taken has been sent
    return sent


def settle(first: Peer, second: Peer) -> None:
    """Deliver both ways until neither has anything to say."""
    while first.has_output or second.has_output:
        deliver(first, second)
        deliver(second, first)


def pair(limits: Limits = SMALL, other: Limits | None = None) -> tuple[Peer, Peer]:
    """A controller's and an executor's end that have agreed."""
    controller, executor = Peer(Role.CONTROLLER, limits), Peer(Role.EXECUTOR, other or limits)
    settle(controller, executor)
    controller.poll_events()
    executor.poll_events()
    assert (controller.state, executor.state) == (PeerState.RUNNING, PeerState.RUNNING)
    return controller, executor


def of(peer: Peer, kind: type[T]) -> list[T]:
    """Poll, and keep the events of one kind."""
    return [event for event in peer.poll_events() if isinstance(event, kind)]


def received(peer: Peer) -> list[InboundCall]:
    """Poll: the calls that arrived."""
    return [event.call for event in of(peer, CallReceived)]


def outcomes(peer: Peer) -> list[object]:
    """Poll: what settled, in order."""
    return [event.outcome for event in of(peer, CallSettled)]


def violation(peer: Peer) -> str | None:
    """Poll: what the peer was found guilty of, if it was."""
    causes = [event.cause for event in of(peer, Latched)]
    assert causes == ([] if peer.cause is None else [peer.cause])
    if peer.cause is None:
        return None
    assert peer.cause.kind is DisconnectKind.PROTOCOL_VIOLATION
    return peer.cause.detail


def assert_empty(peer: Peer) -> None:
    """G1: no table holds anything."""
    found = peer.statistics()
    assert (found.pending_calls, found.waiting_calls, found.abandoned_calls, found.bytes_in_flight) == (0, 0, 0, 0)
    assert (found.served_calls, found.waiting_results, found.queued_messages, found.queued_bytes) == (0, 0, 0, 0)
    assert not peer.has_output
