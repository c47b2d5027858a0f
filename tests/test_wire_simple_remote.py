# orc_trio.wire.simple_remote: LLVM's frames, cut anywhere, and whatever else may come instead.

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import LocalProtocolError, RemoteProtocolError
from orc_trio.wire import sps
from orc_trio.wire.simple_remote import (
    FRAME_HEAD_SIZE,
    ExecutorInfo,
    Frame,
    FrameReader,
    Op,
    encode_frame,
    encode_frame_head,
)

NUMBERS = st.integers(0, 2**64 - 1)
FRAMES = st.one_of(
    st.builds(Frame, st.sampled_from([Op.RESULT, Op.CALL]), NUMBERS, NUMBERS, st.binary(max_size=100)),
    st.builds(Frame, st.sampled_from([Op.SETUP, Op.HANG_UP]), st.just(0), st.just(0), st.binary(max_size=100)),
)
LIMIT = 2**20


def plain(frames: list[Frame]) -> list[Frame]:
    return [frame._replace(payload=bytes(frame.payload)) for frame in frames]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 150), min_size=1))
def test_frames_cut_anywhere(frames: list[Frame], cuts: list[int]) -> None:
    """G25: Whatever the pieces in which they come, frames come back as they were."""
    data = b"".join(map(encode_frame, frames))
    reader = FrameReader(LIMIT)
    found: list[Frame] = []
    at = number = 0
    while at < len(data):
        step = cuts[number % len(cuts)]
        found += reader.feed(data[at : at + step])
        at, number = at + step, number + 1
    assert plain(found) == frames
    assert reader.at_boundary


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 300_000])
@pytest.mark.parametrize("step", [1000, 70_000, 10**6])
def test_large_payloads(size: int, step: int) -> None:
    """A large payload is received into a buffer of its own, by `feed` or straight into it."""
    frames = [Frame(Op.CALL, number, 7, bytes([number]) * size) for number in range(3)]
    data = b"".join(map(encode_frame, frames))
    by_feed, straight = FrameReader(LIMIT), FrameReader(LIMIT)
    found, read = [], []
    for at in range(0, len(data), step):
        found += by_feed.feed(data[at : at + step])
    assert plain(found) == frames
    at = 0
    while at < len(data):
        wanted = straight.wanted()
        assert straight.at_boundary is (wanted is None and at in {n * (size + FRAME_HEAD_SIZE) for n in range(4)})
        if wanted is None:
            taken = min(step, len(data) - at)
            read += straight.feed(memoryview(data)[at : at + taken])
        else:
            taken = min(step, len(wanted))
            wanted[:taken] = data[at : at + taken]
            read += straight.filled(taken)
        at += taken
    assert plain(read) == frames
    with pytest.raises(LocalProtocolError):
        straight.filled(1)


@given(st.binary(max_size=100))
def test_anything_may_come(data: bytes) -> None:
    """G25: Whatever comes is frames, the beginning of one, or a `RemoteProtocolError`."""
    reader = FrameReader(1000)
    try:
        frames = reader.feed(data)
        reader.raise_pending()
    except RemoteProtocolError:
        return
    assert data.startswith(b"".join(map(encode_frame, frames)))


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ((31, 3, 0, 0), "a frame of 31 bytes is smaller than its own head"),
        ((0, 3, 0, 0), "smaller than its own head"),
        ((32, 4, 0, 0), "unknown opcode 4"),
        ((32, 2**64 - 1, 0, 0), "unknown opcode"),
        ((32 + 1001, 3, 0, 0), "a payload of 1001 bytes is over the limit of 1000 bytes"),
        ((2**64 - 1, 3, 0, 0), "is over the limit"),
        ((32, 0, 1, 0), "a SETUP frame has the sequence number 1"),
        ((32, 1, 0, 1), "a HANG_UP frame has the sequence number 0 and the tag 1"),
    ],
)
def test_what_is_no_frame(head: tuple[int, ...], says: str) -> None:
    """G25: It is refused with a reason, after the frames before it, and the reader is dead."""
    data = b"".join(number.to_bytes(8, "little") for number in head)
    reader = FrameReader(1000)
    before = Frame(Op.CALL, 1, 2, b"x")
    assert reader.feed(encode_frame(before) + data) == [before]
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match=says):
            reader.feed(b"")
    with pytest.raises(RemoteProtocolError, match=says):
        FrameReader(1000).feed(data)


def test_an_announced_size_is_not_believed() -> None:
    """G25: Nothing is allocated for a frame over the limit."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            FrameReader(1000).feed(encode_frame_head(Frame(Op.CALL))[8:].rjust(FRAME_HEAD_SIZE, b"\x7f"))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_bytes() -> None:
    """Four little-endian numbers of 64 bits, and the payload."""
    data = encode_frame(Frame(Op.RESULT, 0x1234, 1, b"abc"))
    assert data.hex(" ", -8) == "2300000000000000 0200000000000000 3412000000000000 0100000000000000 616263"


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(
    st.builds(
        ExecutorInfo,
        triple=NAMES,
        page_size=NUMBERS,
        values=st.none() | st.dictionaries(NAMES, st.binary(max_size=9), max_size=3),
        symbols=st.dictionaries(NAMES, NUMBERS, max_size=3),
    )
)
def test_setups_come_back(info: ExecutorInfo) -> None:
    """A setup is read as it was written, with values or (LLVM 16 and older) without."""
    read = ExecutorInfo.unpack(info.pack())
    if info.values or info.symbols:  # otherwise nothing tells the two apart
        assert read == info
    assert read.pack() == info.pack()


def test_a_setup_that_says_one_thing_twice() -> None:
    """G25: Which of the two would count?"""
    symbols = sps.Sequence(sps.Tuple(sps.STRING, sps.ADDRESS)).pack([("a", 1), ("a", 2)])
    with pytest.raises(RemoteProtocolError, match="names a bootstrap symbol twice"):
        ExecutorInfo.unpack(sps.STRING.pack("x") + sps.U64.pack(4096) + symbols)
    with pytest.raises(RemoteProtocolError):
        ExecutorInfo.unpack(b"x" * 20)
