# The decoder: every case whole, byte by byte, cut anywhere, and with trailing bytes; by `feed` and by `wanted`.

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orc_trio.exceptions import LocalProtocolError, RemoteProtocolError
from orc_trio.wire import HEAD_SIZE, FrameDecoder, Message, Opcode, encode, encode_head
from orc_trio.wire.decoding import OWN_BUFFER_FROM
from orc_trio.wire.framing import FIRST_MESSAGE_MAX
from orc_trio.wire.messages import U64_MAX
from strategies import all_widths, check_by_oracle, cut, encode_as, encodings, head, messages, plain, written

LIMIT = 1024
BIG = OWN_BUFFER_FROM + 1000


def read_into(decoder: FrameDecoder, data: bytes, piece: int) -> list[Message]:
    """What a transport does that can read straight into the buffer of a large message."""
    found = []
    while data:
        if (wanted := decoder.wanted()) is not None:
            count = min(piece, len(wanted), len(data))
            wanted[:count] = data[:count]
            found += decoder.filled(count)
        else:
            count = min(piece, len(data))
            found += decoder.feed(data[:count])
        data = data[count:]
    return found


def read(decoder: FrameDecoder, pieces: Iterable[bytes]) -> tuple[list[Message], RemoteProtocolError | None]:
    """What came out until the end or the error."""
    found: list[Message] = []
    try:
        for piece in pieces:
            found += decoder.feed(piece)
        decoder.raise_pending()
    except RemoteProtocolError as error:
        return found, error
    return found, None


# -- what is written -----------------------------------------------------------------------------------------------


@given(messages)
@example(Message(23, U64_MAX, U64_MAX, U64_MAX, b"x"))
def test_a_frame_is_a_cbor_sequence_of_one(message: Message) -> None:
    """G25: plain cbor2 reads every frame as the same five values, and the head is always as long."""
    frame = encode(message)
    check_by_oracle(frame, message)
    assert frame == encode_head(message) + message.payload
    assert len(encode_head(message)) == HEAD_SIZE == 39


def test_the_bytes_of_a_frame() -> None:
    """G25: the fixed shape is the documented one, byte for byte."""
    assert encode(Message(Opcode.CALL, 1, 0x7F00, U64_MAX, memoryview(b"hi"))) == bytes.fromhex(
        "5a 00000024 85 03 1b 0000000000000001 1b 0000000000007f00 1b ffffffffffffffff 5a 00000002 6869"
    )


@pytest.mark.parametrize("message", [Message(3, -1), Message(3, 0, 2**64), Message(256)])
def test_what_does_not_fit_is_not_written(message: Message) -> None:
    """A number out of range is the caller's error, not a frame that says something else."""
    with pytest.raises(struct.error):
        encode(message)


# -- what is read --------------------------------------------------------------------------------------------------


@given(st.lists(encodings, min_size=1, max_size=4), st.lists(st.integers(0, 5000), max_size=6))
def test_messages_cut_anywhere(cases: list, cuts: list[int]) -> None:
    """G25: both encodings, mixed and cut anywhere, give the same messages in order."""
    decoder = FrameDecoder(LIMIT)
    found = [message for piece in cut(b"".join(map(written, cases)), cuts) for message in decoder.feed(piece)]
    assert plain(found) == [message for message, _ in cases]
    assert decoder.at_boundary


@given(encodings, encodings)
def test_whole_byte_by_byte_and_with_trailing_bytes(case: tuple, following: tuple) -> None:
    """G25: a message is complete exactly with its last byte, and what follows it belongs to the next."""
    frame, more = written(case), written(following)
    assert plain(FrameDecoder(LIMIT).feed(frame)) == [case[0]]
    one_by_one = FrameDecoder(LIMIT)
    for byte in frame[:-1]:
        assert one_by_one.feed(bytes([byte])) == []
        assert not one_by_one.at_boundary
    assert plain(one_by_one.feed(frame[-1:])) == [case[0]]
    assert one_by_one.at_boundary
    for trailing in (1, 5, 6, HEAD_SIZE, len(more) - 1):
        decoder = FrameDecoder(LIMIT)
        trailing = min(trailing, len(more) - 1)
        assert plain(decoder.feed(frame + more[:trailing])) == [case[0]]
        assert not decoder.at_boundary
        assert plain(decoder.feed(bytearray(more[trailing:]))) == [following[0]]
        assert decoder.at_boundary


def test_no_bytes_are_no_messages() -> None:
    """G25: feeding nothing changes nothing, at a boundary and inside a message."""
    decoder = FrameDecoder(LIMIT)
    frame = encode(Message(3, 1, payload=b"abc"))
    assert (decoder.feed(b""), decoder.at_boundary) == ([], True)
    assert decoder.feed(frame[:20]) == []
    assert (decoder.feed(memoryview(b"")), decoder.at_boundary) == ([], False)
    assert len(decoder.feed(frame[20:])) == 1


BAD = {
    "a web browser": (b"GET / HTTP/1.1\r\n\r\n", r"not an orc_trio message: b'ET / HT.* is not a CBOR array of five"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", "does not begin with a CBOR byte string"),
    "outer text": (b"\x78\x20" + b"a" * 32, "does not begin with a CBOR byte string"),
    "outer integer": (b"\x00", "does not begin with a CBOR byte string"),
    "outer tag": (b"\xd8\x18\x41\x00", "does not begin with a CBOR byte string"),
    "outer indefinite": (b"\x5f\x41\x00\xff", "indefinite"),
    "outer reserved": (b"\x5c", "indefinite or reserved"),
    "outer empty": (b"\x40", "array of five"),
    "over the limit": (head(2, LIMIT + 55, 4), "over the limit of 1024 bytes"),
    "over the limit by far": (head(2, U64_MAX, 8), "over the limit of 1024 bytes"),
    "payload over the limit": (
        encode_as(Message(3, 1, 2, 3, bytes(LIMIT + 1)), [8, 0, 0, 0, 0, 0, 0]),
        "a payload of 1025 bytes is over the limit",
    ),
    "payload over the limit, our shape": (encode(Message(3, 1, 2, 3, bytes(LIMIT + 1))), "a payload of 1025 bytes"),
    "array of four": (head(2, 5, 0) + b"\x84\0\0\0\0", "array of five"),
    "array of six": (head(2, 7, 0) + b"\x86\0\0\0\0\x40\0", "array of five"),
    "map of five": (head(2, 6, 0) + b"\xa5\0\0\0\0\x40", "array of five"),
    "array of indefinite length": (head(2, 7, 0) + b"\x9f\0\0\0\0\x40\xff", "indefinite"),
    "array whose count is cut off": (head(2, 1, 0) + b"\x98\0\0\0", "array of five"),
    "opcode negative": (head(2, 6, 0) + b"\x85\x20\0\0\0\x40", "opcode is not an unsigned integer"),
    "opcode cut off": (head(2, 2, 0) + b"\x85\x19\0\0", "opcode is not an unsigned integer"),
    "opcode missing": (head(2, 1, 0) + b"\x85", "opcode is not an unsigned integer"),
    "number a float": (head(2, 14, 0) + b"\x85\0\xfb" + bytes(8) + b"\0\0\x40", "sequence number is not an unsigned"),
    "number a bignum": (head(2, 8, 0) + b"\x85\0\xc2\x41\x01\0\0\x40", "sequence number is not an unsigned"),
    "tag a text": (head(2, 6, 0) + b"\x85\0\0\x60\0\x40", "tag is not an unsigned integer"),
    "aux null": (head(2, 6, 0) + b"\x85\0\0\0\xf6\x40", "aux is not an unsigned integer"),
    "payload a text": (head(2, 6, 0) + b"\x85\0\0\0\0\x60", "payload is not a byte string"),
    "payload an array": (head(2, 6, 0) + b"\x85\0\0\0\0\x80", "payload is not a byte string"),
    "payload indefinite": (head(2, 7, 0) + b"\x85\0\0\0\0\x5f\xff", "indefinite"),
    "payload's head cut off": (head(2, 7, 0) + b"\x85\0\0\0\0\x59\x00", "payload is not a byte string"),
    "payload missing": (head(2, 5, 0) + b"\x85\0\0\0\0", "payload is not a byte string"),
    "payload too short": (head(2, 7, 0) + b"\x85\0\0\0\0\x40\0", "does not end where the message ends"),
    "payload too long": (head(2, 6, 0) + b"\x85\0\0\0\0\x41", "does not end where the message ends"),
    "lengths disagree, our shape": (
        b"\x5a" + (36).to_bytes(4, "big") + encode(Message(3, 1, payload=b"a"))[5:] + b"b",
        "does not end where the message ends",
    ),
}


@pytest.mark.parametrize("preceding", [0, 2])
@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_frames(data: bytes, reason: str, preceding: int) -> None:
    """G25: garbage is a violation with a reason, however it is cut; what was complete before it is delivered."""
    good = [Message(3, number, payload=b"x") for number in range(preceding)]
    before = b"".join(map(encode, good))
    following = encode(Message(5))
    for pieces in ([before + data], [before + data + following], cut(before + data, range(2000)), [before, data]):
        decoder = FrameDecoder(LIMIT, first_max=LIMIT)
        found, error = read(decoder, pieces)
        assert plain(found) == good
        assert re.search(reason, str(error))
        for _ in range(2):  # dead for good
            with pytest.raises(RemoteProtocolError, match=reason):
                decoder.feed(following)
            with pytest.raises(RemoteProtocolError, match=reason):
                decoder.raise_pending()


def test_nothing_pending_is_not_raised() -> None:
    """G25: a decoder that has seen no garbage has nothing to raise."""
    decoder = FrameDecoder(LIMIT)
    assert len(decoder.feed(encode(Message(5)))) == 1
    decoder.raise_pending()


# -- limits --------------------------------------------------------------------------------------------------------


@given(all_widths, st.integers(-2, 2))
@example((4, 0, 0, 8, 8, 8, 4), 1)
@example((8, 8, 8, 8, 8, 8, 8), 0)
@example((0, 0, 0, 0, 0, 0, 0), 1)
def test_the_limit_is_exact(widths: tuple, over: int) -> None:
    """G25: a payload of the largest size is accepted in every encoding, one byte more in none."""
    message = Message(3, 1, 2, 3, bytes(LIMIT + over))
    for frame in (encode(message), encode_as(message, widths)):
        decoder = FrameDecoder(LIMIT)
        decoder.feed(encode(Message(0)))
        if over > 0:
            with pytest.raises(RemoteProtocolError, match="over the limit"):
                decoder.feed(frame)
        else:
            assert plain(decoder.feed(frame)) == [message]


@pytest.mark.parametrize("widths", [None, (4, 0, 0, 0, 0, 0, 4), (8, 8, 8, 8, 8, 8, 8)])
@pytest.mark.parametrize("piece", [1000, 40000, 1 << 30])
def test_the_first_message_has_a_limit_of_its_own(widths: tuple | None, piece: int) -> None:
    """G25: the first message (a setup) may have 1 MiB whatever comes later, and not a byte more."""

    def frame(size: int) -> bytes:
        message = Message(0, payload=bytes(size))
        return encode(message) if widths is None else encode_as(message, widths)

    with pytest.raises(RemoteProtocolError, match="over the limit of 1048576 bytes"):
        read_into(FrameDecoder(4 * FIRST_MESSAGE_MAX), frame(FIRST_MESSAGE_MAX + 1), piece)
    decoder = FrameDecoder(LIMIT)
    assert len(read_into(decoder, frame(FIRST_MESSAGE_MAX), piece)) == 1
    with pytest.raises(RemoteProtocolError, match=f"over the limit of {LIMIT} bytes"):
        read_into(decoder, frame(LIMIT + 1), piece)
    decoder = FrameDecoder(FIRST_MESSAGE_MAX + 1)
    assert len(read_into(decoder, encode(Message(0)) + frame(FIRST_MESSAGE_MAX + 1), piece)) == 2


def test_the_limit_may_change_between_messages() -> None:
    """G8: once both ends agreed, the agreed limit is in force."""
    decoder = FrameDecoder(LIMIT)
    decoder.feed(encode(Message(0)))
    decoder.max_payload = 10
    with pytest.raises(RemoteProtocolError, match="over the limit of 10 bytes"):
        decoder.feed(encode(Message(3, 1, payload=bytes(11))))


@pytest.mark.parametrize(
    "data",
    [
        head(2, 2**32 - 1, 4),
        head(2, 2**63, 8),
        encode_head(Message(3))[:34] + b"\x5a\xff\xff\xff\xff",
        encode_head(Message(3, payload=range(16 * FIRST_MESSAGE_MAX))),  # type: ignore[arg-type]  # only its length
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(data: bytes) -> None:
    """G25: an announced size over the limit is refused at once, and one within it costs no more than itself."""
    decoder = FrameDecoder(2 * FIRST_MESSAGE_MAX)
    decoder.feed(encode(Message(0)))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decoder.feed(data + bytes(16))
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("widths", [None, (8, 8, 8, 8, 8, 8, 8)])
def test_memory_is_the_message_and_no_more(widths: tuple | None) -> None:
    """G8: while a large message is read, the decoder holds one buffer of its size."""
    message = Message(3, 1, payload=bytes(8 * FIRST_MESSAGE_MAX))
    frame = encode(message) if widths is None else encode_as(message, widths)
    decoder = FrameDecoder(8 * FIRST_MESSAGE_MAX)
    decoder.feed(encode(Message(0)))
    tracemalloc.start()
    try:
        for start in range(0, len(frame) - 1, 65536):
            assert decoder.feed(memoryview(frame)[start : min(start + 65536, len(frame) - 1)]) == []
        assert tracemalloc.get_traced_memory()[1] < 9 * FIRST_MESSAGE_MAX
    finally:
        tracemalloc.stop()
    assert decoder.feed(frame[-1:]) == [message]


# -- a buffer of its own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [None, (4, 1, 2, 4, 8, 0, 8), (8, 0, 0, 0, 0, 0, 4)])
@pytest.mark.parametrize("piece", [7, 39, 4096, 60000, 1 << 20])
def test_large_messages_by_feed_and_by_filling(widths: tuple | None, piece: int) -> None:
    """G25: a large message is the same however it was read, and the one behind it is not touched."""
    large = Message(3, 7, 0x7F00, 9, bytes(range(256)) * (BIG // 256))
    small = Message(5, aux=1)
    data = encode(large) if widths is None else encode_as(large, widths)
    check_by_oracle(data, large)
    for stream, expected in ((data, [large]), (encode(small) + data + encode(small) + data, [small, large] * 2)):
        decoder = FrameDecoder(BIG)
        assert plain(read_into(decoder, stream, piece)) == expected
        assert decoder.at_boundary
        decoder = FrameDecoder(BIG)
        pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
        assert plain(message for part in pieces for message in decoder.feed(part)) == expected
        assert decoder.at_boundary


def test_a_large_payload_is_read_into_its_own_buffer() -> None:
    """G25: what is read into the wanted part is the payload itself, without a copy."""
    decoder = FrameDecoder(BIG)
    assert decoder.wanted() is None
    assert decoder.feed(encode_head(Message(3, 1, payload=bytes(BIG))) + b"abc") == []
    wanted = decoder.wanted()
    assert wanted is not None
    assert not decoder.at_boundary
    assert len(wanted) == BIG - 3
    assert decoder.filled(0) == []
    wanted[:] = b"x" * len(wanted)
    (message,) = decoder.filled(len(wanted))
    assert isinstance(message.payload, memoryview)
    assert message.payload.obj is wanted.obj
    assert bytes(message.payload) == b"abc" + b"x" * (BIG - 3)
    assert decoder.wanted() is None


def test_small_payloads_have_no_buffer_of_their_own() -> None:
    """G8: only a payload over 64 KiB gets a buffer before it has come."""
    for widths in (None, (4, 0, 0, 0, 0, 0, 4)):
        message = Message(3, payload=bytes(OWN_BUFFER_FROM - 100))
        data = encode(message) if widths is None else encode_as(message, widths)
        decoder = FrameDecoder(BIG)
        decoder.feed(data[:1000])
        assert decoder.wanted() is None
        assert plain(decoder.feed(data[1000:])) == [message]


def test_filling_what_nobody_wants_is_the_callers_error() -> None:
    """A transport that fills a buffer it was not given is told so."""
    with pytest.raises(LocalProtocolError, match="no large message"):
        FrameDecoder(LIMIT).filled(1)


def test_a_bad_frame_in_a_buffer_of_its_own() -> None:
    """G25: garbage in a large frame is found when it is complete, and the decoder is dead from then on."""
    inner = b"\x84" + bytes(BIG)
    for by_filling in (False, True):
        decoder = FrameDecoder(2 * BIG)
        data = head(2, len(inner), 4) + inner
        with pytest.raises(RemoteProtocolError, match="array of five"):
            read_into(decoder, data, 4096) if by_filling else decoder.feed(data[:100]) + decoder.feed(data[100:])
        with pytest.raises(RemoteProtocolError, match="array of five"):
            decoder.feed(b"")


def test_garbage_behind_a_large_message() -> None:
    """G25: a large message that was complete is delivered, and the garbage behind it is an error after it."""
    decoder = FrameDecoder(BIG)
    frame = encode(Message(3, 1, payload=bytes(BIG)))
    decoder.feed(frame[:100])
    assert len(decoder.feed(frame[100:] + b"garbage")) == 1
    with pytest.raises(RemoteProtocolError, match="does not begin"):
        decoder.raise_pending()


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(1, 70))
def test_any_bytes_give_messages_or_a_violation(pieces: list[bytes], piece: int) -> None:
    """G25: no bytes make the decoder raise anything else, and cutting them otherwise changes nothing."""

    data = b"".join(pieces)
    found, error = read(FrameDecoder(LIMIT), pieces)
    again, same_error = read(FrameDecoder(LIMIT), [data[start : start + piece] for start in range(0, len(data), piece)])
    assert plain(found) == plain(again)
    assert type(error) is type(same_error)
