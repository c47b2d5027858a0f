# Bootstrap information: filled once, sealed by attaching, read at the other end.

from __future__ import annotations

import mmap
import platform
import sys
from typing import Any

import pytest

import orc_trio
from harness import connected_ends
from orc_trio.bootstrap import host_triple
from session_fakes import attached


class HasTable:
    wrappers = orc_trio.WrapperTable()


def echo(args: bytes) -> bytes:
    return args


def fresh() -> orc_trio.BootstrapInfo:
    return orc_trio.BootstrapInfo.for_session(HasTable())


def test_an_empty_one() -> None:
    """G20: an executor says its triple and page size, and nothing it was not told to."""
    info = fresh()
    assert info.triple == host_triple()
    assert info.page_size == mmap.PAGESIZE
    assert dict(info.values) == dict(info.symbols) == {}


@pytest.mark.parametrize(
    ("system", "machine", "triple"),
    [
        ("linux", "x86_64", "x86_64-unknown-linux-gnu"),
        ("linux", "", "unknown-unknown-linux-gnu"),
        ("darwin", "arm64", "arm64-apple-darwin"),
    ],
)
def test_host_triple(system: str, machine: str, triple: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """G20: the triple is this machine's, as far as Python knows."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert host_triple() == triple


def test_filling_it() -> None:
    """G9: what is published has an address of its own that is no native one; names are unique."""
    info = fresh()
    wrapper = info.add_wrapper("wrapper", echo, threaded=True, zero_copy=True)
    tag = info.add_tag("tag")
    info.add_symbol("symbol", 2**64 - 1)
    info.add_symbol("zero", 0)
    info.set_value("value", b"1")
    info.set_value("value", bytearray(b"2"))  # type: ignore[arg-type]
    assert info.symbols == {"wrapper": wrapper, "tag": tag, "symbol": 2**64 - 1, "zero": 0}
    assert info.values == {"value": b"2"}
    assert wrapper != tag
    assert min(wrapper, tag) >= 1 << 63
    handler = HasTable.wrappers.lookup(wrapper)
    assert handler is not None
    assert (handler.function, handler.name, handler.threaded, handler.zero_copy) == (echo, "wrapper", True, True)
    for add in (
        lambda: info.add_wrapper("tag", echo),
        lambda: info.add_tag("wrapper"),
        lambda: info.add_symbol("tag", 1),
    ):
        with pytest.raises(orc_trio.LocalProtocolError, match="already"):
            add()
    assert len(HasTable.wrappers) == 1


@pytest.mark.parametrize("address", [-1, 2**64, True, 1.0, "1", None])
def test_addresses_are_checked(address: Any) -> None:
    """G9: an address is an integer from 0 to 2**64-1."""
    info = fresh()
    with pytest.raises(ValueError, match="2\\*\\*64"):
        info.add_symbol("symbol", address)
    assert not info.symbols


@pytest.mark.parametrize("value", [5, "text", None])
def test_values_are_bytes(value: Any) -> None:
    """G9: a value is a byte string; an integer is not a number of zeros."""
    info = fresh()
    with pytest.raises(TypeError):
        info.set_value("value", value)
    assert not info.values


def test_what_is_read_cannot_be_changed() -> None:
    """G9: the views are read-only, and what was handed in is copied."""
    values = {"a": b"1"}
    info = orc_trio.BootstrapInfo(triple="t", page_size=1, values=values, symbols={"s": 1})
    values["a"] = b"2"
    assert info.values == {"a": b"1"}
    with pytest.raises(TypeError):
        info.symbols["x"] = 1  # type: ignore[index]
    for change in (
        lambda: info.set_value("b", b""),
        lambda: info.add_symbol("b", 1),
        lambda: info.add_tag("b"),
        lambda: info.add_wrapper("b", echo),
    ):
        with pytest.raises(orc_trio.LocalProtocolError, match="cannot change"):
            change()


async def test_attaching_seals_it() -> None:
    """G20: attaching seals it."""
    async with orc_trio.open_session() as session:
        access = await attached(session)
        with pytest.raises(orc_trio.LocalProtocolError, match="cannot change"):
            access.host.bootstrap.set_value("late", b"")


async def test_it_arrives() -> None:
    """G20: the controller sees what the executor said, sealed."""
    async with connected_ends("memory", wrappers={"echo": echo}) as ends:
        bootstrap = ends.controller.bootstrap
        assert (bootstrap.triple, bootstrap.page_size) == (host_triple(), mmap.PAGESIZE)
        assert await ends.controller.call_wrapper(bootstrap.symbols["echo"], b"x") == b"x"
        with pytest.raises(orc_trio.LocalProtocolError, match="cannot change"):
            bootstrap.set_value("late", b"")
