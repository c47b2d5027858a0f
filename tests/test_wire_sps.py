# orc_trio.wire.sps: what is written comes back, what LLVM writes is read, and whatever else comes is refused.

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire import sps

INTEGERS = {
    sps.U8: (0, 2**8),
    sps.U16: (0, 2**16),
    sps.U32: (0, 2**32),
    sps.U64: (0, 2**64),
    sps.ADDRESS: (0, 2**64),
    sps.I8: (-(2**7), 2**7),
    sps.I16: (-(2**15), 2**15),
    sps.I32: (-(2**31), 2**31),
    sps.I64: (-(2**63), 2**63),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN: list[tuple[sps.Codec[Any], st.SearchStrategy[Any]]] = [
    *((codec, st.integers(low, high - 1)) for codec, (low, high) in INTEGERS.items()),
    (sps.BOOL, st.booleans()),
    (sps.STRING, TEXTS),
    (sps.BYTES, st.binary()),
    (sps.ERROR, st.none() | TEXTS.map(sps.Failure)),
    (sps.SYMBOL, st.builds(sps.Symbol, st.integers(0, 2**64 - 1), st.integers(0, 255), st.integers(0, 255))),
]


@st.composite
def codecs(draw: st.DrawFn, depth: int = 3) -> tuple[sps.Codec[Any], st.SearchStrategy[Any]]:
    """A type, and its values."""
    kind = draw(st.sampled_from(["plain", "sequence", "tuple", "optional", "expected"] if depth else ["plain"]))
    if kind == "plain":
        return draw(st.sampled_from(PLAIN))
    if kind == "tuple":
        parts = draw(st.lists(codecs(depth - 1), min_size=1, max_size=3))
        return sps.Tuple(*(codec for codec, _ in parts)), st.tuples(*(values for _, values in parts))
    codec, values = draw(codecs(depth - 1))
    if kind == "sequence":
        return sps.Sequence(codec), st.lists(values, max_size=4)
    if kind == "optional" and not codec.none:
        return sps.Optional(codec), st.none() | values
    if kind == "expected" and not codec.failure:
        return sps.Expected(codec), TEXTS.map(sps.Failure) | values
    return codec, values


@st.composite
def packed(draw: st.DrawFn) -> tuple[sps.Codec[Any], Any, bytes]:
    codec, values = draw(codecs())
    value = draw(values)
    return codec, value, codec.pack(value)


@given(packed())
def test_what_is_written_comes_back(found: tuple[sps.Codec[Any], Any, bytes]) -> None:
    """Every value of every type is read as it was written, from any kind of buffer, and has the bytes it must have."""
    codec, value, data = found
    assert len(data) >= codec.least
    for buffer in (data, bytearray(data), memoryview(data)):
        assert codec.unpack(buffer) == value
    assert codec.pack(codec.unpack(data)) == data


@given(packed(), st.data())
def test_what_is_cut_off_or_too_long_is_refused(found: tuple[sps.Codec[Any], Any, bytes], data: st.DataObject) -> None:
    """G25: No part of a value is a value, and nothing follows one."""
    codec, _, whole = found
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(RemoteProtocolError):
        codec.unpack(whole[:cut])
    with pytest.raises(RemoteProtocolError, match="1 bytes are left over"):
        codec.unpack(whole + b"\0")


@given(codecs(), st.binary(max_size=60))
def test_anything_may_come(found: tuple[sps.Codec[Any], Any], data: bytes) -> None:
    """G25: Whatever comes is a value or a `RemoteProtocolError`; what is a value, is written as it came."""
    codec, _ = found
    try:
        value = codec.unpack(data)
    except RemoteProtocolError:
        return
    assert codec.pack(value) == data


@pytest.mark.parametrize(
    ("codec", "value", "data"),
    [
        (sps.BOOL, True, "01"),
        (sps.U16, 0x1234, "3412"),
        (sps.I32, -2, "feffffff"),
        (sps.ADDRESS, 0x7F001000, "0010007f00000000"),
        (sps.STRING, "ab", "0200000000000000 6162"),
        (sps.BYTES, b"", "0000000000000000"),
        (sps.Sequence(sps.U8), [1, 2, 3], "0300000000000000 010203"),
        (sps.Tuple(sps.U8, sps.STRING), (7, "x"), "07 0100000000000000 78"),
        (sps.Tuple(), (), ""),
        (sps.Optional(sps.U8), None, "00"),
        (sps.Optional(sps.U8), 9, "01 09"),
        (sps.ERROR, None, "00"),
        (sps.ERROR, sps.Failure("no"), "01 0200000000000000 6e6f"),
        (sps.Expected(sps.U8), 5, "01 05"),
        (sps.Expected(sps.U8), sps.Failure("no"), "00 0200000000000000 6e6f"),
        (sps.SYMBOL, sps.Symbol(1, sps.Symbol.EXPORTED), "0100000000000000 10 00"),
    ],
)
def test_the_bytes(codec: sps.Codec[Any], value: Any, data: str) -> None:
    """The bytes are LLVM's: little-endian, no padding; an error is true, an expected value false if there is none."""
    assert codec.pack(value) == bytes.fromhex(data)
    assert codec.unpack(bytes.fromhex(data)) == value


def test_a_text_that_is_none() -> None:
    """LLVM's strings are bytes: what is no UTF-8 is kept, and written as it came."""
    data = sps.BYTES.pack(b"caf\xe9")
    assert sps.STRING.pack(sps.STRING.unpack(data)) == data


@pytest.mark.parametrize("of", [sps.U8, sps.STRING, sps.Sequence(sps.U64), sps.Tuple(sps.U64, sps.STRING)])
def test_a_count_is_not_believed(of: sps.Codec[Any]) -> None:
    """G25: What is announced and not there costs nothing."""
    for codec in (sps.Sequence(of), sps.BYTES, sps.STRING):
        tracemalloc.start()
        try:
            for count in (2**20, 2**40, 2**64 - 1):
                with pytest.raises(RemoteProtocolError, match="elements are announced|are left"):
                    codec.unpack(sps.U64.pack(count) + bytes(50))
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()


def test_a_sequence_of_nothing() -> None:
    """G25: A count of elements that take no bytes would be believed, so there is no such type."""
    with pytest.raises(ValueError, match=r"a sequence of Tuple\(\)"):
        sps.Sequence(sps.Tuple())


@pytest.mark.parametrize("of", [sps.ERROR, sps.Optional(sps.U8), sps.Expected(sps.Optional(sps.U8))])
def test_nothing_is_not_something(of: sps.Codec[Any]) -> None:
    """What may be None cannot be optional too: they could not be told apart."""
    with pytest.raises(ValueError, match="may be None itself"):
        sps.Optional(of)


@pytest.mark.parametrize("of", [sps.ERROR, sps.Expected(sps.U8), sps.Optional(sps.Expected(sps.U8))])
def test_a_failure_is_no_value(of: sps.Codec[Any]) -> None:
    """What may be a failure cannot be expected too: they could not be told apart."""
    with pytest.raises(ValueError, match="may be a Failure itself"):
        sps.Expected(of)


@pytest.mark.parametrize("byte", [2, 255])
def test_a_bool_is_one_of_two(byte: int) -> None:
    """G25: A bool is 0 or 1, wherever it stands."""
    for codec in (sps.BOOL, sps.ERROR, sps.Optional(sps.U8), sps.Expected(sps.U8)):
        with pytest.raises(RemoteProtocolError, match=f"a bool is {byte}"):
            codec.unpack(bytes([byte]))


@pytest.mark.parametrize(
    ("codec", "value", "error"),
    [
        *((codec, low - 1, ValueError) for codec, (low, _) in INTEGERS.items()),
        *((codec, high, ValueError) for codec, (_, high) in INTEGERS.items()),
        (sps.U8, "1", TypeError),
        (sps.U8, 1.0, TypeError),
        (sps.BOOL, 1, TypeError),
        (sps.STRING, b"x", TypeError),
        (sps.BYTES, "x", TypeError),
        (sps.ERROR, "no", TypeError),
        (sps.SYMBOL, 5, TypeError),
        (sps.Sequence(sps.U8), b"x", TypeError),
        (sps.Sequence(sps.STRING), "x", TypeError),
        (sps.Sequence(sps.U8), 5, TypeError),
        (sps.Sequence(sps.U8), [256], ValueError),
        (sps.Tuple(sps.U8), 5, TypeError),
        (sps.Tuple(sps.U8), (), ValueError),
        (sps.Tuple(sps.U8), (1, 2), ValueError),
        (sps.Expected(sps.U8), "no", TypeError),
        (sps.Optional(sps.U8), "no", TypeError),
    ],
)
def test_what_is_no_value_of_the_type(codec: sps.Codec[Any], value: Any, error: type[Exception]) -> None:
    """G26: It is the writer's own error, and says what was wanted."""
    with pytest.raises(error, match=r"is needed|are needed|out of range"):
        codec.pack(value)


def test_signatures_read_like_their_source() -> None:
    """A signature shows what it is."""
    signature = sps.Signature(
        sps.Expected(sps.Sequence(sps.Optional(sps.SYMBOL))), sps.ADDRESS, sps.Sequence(sps.Tuple(sps.STRING, sps.BOOL))
    )
    text = "Signature(Expected(Sequence(Optional(SYMBOL))), ADDRESS, Sequence(Tuple(STRING, BOOL)))"
    assert repr(signature) == text
    assert [repr(each) for each in (sps.BYTES, sps.ERROR, sps.BOOL)] == ["BYTES", "ERROR", "BOOL"]
    assert signature.arguments.pack((1, [("x", True)])).startswith(b"\1\0")
