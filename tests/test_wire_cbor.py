# Strict CBOR: what is let in, what is not, and that nothing but RemoteProtocolError comes out.

from __future__ import annotations

import tracemalloc

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire import dumps, loads_strict
from orc_trio.wire.cbor import MAX_DEPTH

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def depth(value: object) -> int:
    match value:
        case list():
            return 1 + max(map(depth, value), default=0)
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(plain_values)
def test_what_the_protocol_writes_it_reads(value: object) -> None:
    """G25: a strict item comes back as it was, and plain cbor2 agrees."""
    data = dumps(value)
    assert cbor2.loads(data) == value
    if depth(value) <= MAX_DEPTH:
        assert loads_strict(data) == value
        assert loads_strict(memoryview(data)) == value
    else:
        with pytest.raises(RemoteProtocolError, match="depth"):
            loads_strict(data)


REFUSED = {
    "nothing": b"",
    "trailing byte": b"\x01\x02",
    "trailing break": b"\x01\xff",
    "break": b"\xff",
    "indefinite array": b"\x9f\xff",
    "indefinite map": b"\xbf\xff",
    "indefinite bytes": b"\x5f\xff",
    "indefinite text": b"\x7f\xff",
    "indefinite inside": b"\x81\x9f\xff",
    "duplicate key": b"\xa2\x61a\x01\x61a\x02",
    "duplicate key written wider": b"\xa2\x61a\x01\x78\x01a\x02",
    "integer key": b"\xa1\x01\x02",
    "array key": b"\xa1\x80\x02",
    "map key": b"\xa1\xa0\x02",
    "nan keys": b"\xa2\xf9\x7e\x00\x02\xf9\x7e\x00\x03",
    "one level too deep": b"\x81" * (MAX_DEPTH + 1) + b"\x00",
    "much too deep": b"\x81" * 100_000,
    "maps too deep": b"\xa1\x61a" * 100_000,
    "not UTF-8": b"\x61\xff",
    "reserved width": b"\x1c",
    "reserved simple": b"\xfc",
    "simple value written wide": b"\xf8\x00",
    "cut text": b"\x62a",
    "cut head": b"\x19\x01",
    "bytes without end": b"\x5b" + b"\xff" * 8,
    "text without end": b"\x7b\x7f" + b"\xff" * 7,
    "array without end": b"\x9b" + b"\xff" * 8,
    "map without end": b"\xbb\x7f" + b"\xff" * 7,
    "date": cbor2.dumps(cbor2.CBORTag(0, "2013-03-21T20:04:00Z")),
    "regular expression": cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")),
    "shared value": b"\xd8\x1c\x80",
    "shared reference": b"\x82\xd8\x1c\x80\xd8\x1d\x00",
    "bignum": dumps(2**64),
    "negative bignum": dumps(-(2**64) - 1),
    "set": b"\xd9\x01\x02\x80",
    "self-described": b"\xd9\xd9\xf7\x00",
    "tag inside": b"\x81\xc0\x60",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_strict_is_refused(data: bytes) -> None:
    """G25: trailing bytes, indefinite lengths, duplicate keys, deep nesting and tags are violations with a reason."""
    with pytest.raises(RemoteProtocolError, match=r"^goods: .") as caught:
        loads_strict(data, what="goods")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2**64 - 1), plain_values)
@example(2, b"\x01")
@example(28, [])
@example(55799, None)
def test_no_tag_at_all(number: int, value: object) -> None:
    """G25: no tag number is let in, also none that cbor2 knows."""
    tagged = b"\xdb" + number.to_bytes(8, "big") + dumps(value)
    with pytest.raises(RemoteProtocolError):
        loads_strict(tagged)
    if number < 24:
        with pytest.raises(RemoteProtocolError):
            loads_strict(bytes([0xC0 | number]) + dumps(value))


@given(plain_values, st.integers(0, 1000))
def test_every_cut_is_an_error(value: object, place: int) -> None:
    """G25: a strict item that ends early is a violation, and so is one that goes on."""
    data = dumps(value)
    with pytest.raises(RemoteProtocolError):
        loads_strict(data[: place % len(data)])
    with pytest.raises(RemoteProtocolError):
        loads_strict(data + b"\x00")


@given(st.binary(max_size=64))
def test_any_bytes_give_an_item_or_a_violation(data: bytes) -> None:
    """G25: no bytes make the strict reader raise anything else."""
    try:
        item = loads_strict(data)
    except RemoteProtocolError:
        return
    assert not isinstance(item, cbor2.CBORTag)


@pytest.mark.parametrize("data", [b"\x5b\x7f" + b"\xff" * 7, b"\x9b\x7f" + b"\xff" * 7, b"\xbb" + b"\xff" * 8])
def test_announced_sizes_cost_nothing(data: bytes) -> None:
    """G25: a length that is only announced allocates nothing like it."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            loads_strict(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 512 * 1024
