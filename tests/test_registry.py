# orc_trio.registry: what may be called.

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import connected_ends, controller_and_raw
from orc_trio import Handler, HandlerRegistry, LocalProtocolError, WrapperTable
from orc_trio.registry import FIRST_PYTHON_ADDRESS


def plain(args: bytes) -> bytes:
    return args


async def coroutine(args: bytes) -> bytes:
    return args


def test_a_duplicate_is_an_error_never_a_replacement() -> None:
    """G9: A tag or a symbol is registered once."""
    registry = HandlerRegistry()
    registry.register(5, plain)
    with pytest.raises(LocalProtocolError, match="0x5 already: plain"):
        registry.register(5, coroutine)
    assert registry.handler("name")(plain) is plain
    with pytest.raises(LocalProtocolError, match="'name' already"):
        registry.handler("name")(coroutine)
    assert len(registry) == 2
    assert registry.bind({"name": 6})[5].function is plain


@pytest.mark.parametrize("tag", [-1, 2**64, 1.5, "5", None, True])
def test_a_tag_is_an_unsigned_number_of_64_bits(tag: Any) -> None:
    """What is no address is refused, by the registry and by the table."""
    with pytest.raises(ValueError, match="from 0 to"):
        HandlerRegistry().register(tag, plain)
    if tag is not None:
        with pytest.raises(ValueError, match="from 0 to"):
            WrapperTable().add(plain, address=tag)


@pytest.mark.parametrize("function", [None, b"bytes", 5])
def test_a_handler_is_callable(function: Any) -> None:
    """What cannot be called is refused."""
    for register in (
        HandlerRegistry().handler("name"),
        partial(HandlerRegistry().register, 5),
        WrapperTable().add,
    ):
        with pytest.raises(TypeError, match="must be callable"):
            register(function)


def test_a_handler_of_two_parts_the_wrong_way_round() -> None:
    """That is said at once, not when it is called."""
    with pytest.raises(TypeError, match="must be callable, not str"):
        Handler("echo", plain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="first the function, then its name"):
        Handler(plain, coroutine)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [coroutine, partial(coroutine)])
def test_a_threaded_handler_is_a_plain_function(function: Any) -> None:
    """A coroutine function cannot be threaded: it would never run."""
    for register in (
        HandlerRegistry().handler("name", threaded=True),
        partial(HandlerRegistry().register, 5, threaded=True),
        partial(WrapperTable().add, threaded=True),
    ):
        with pytest.raises(TypeError, match="plain function"):
            register(function)


def test_binding_by_symbol() -> None:
    """A handler registered by symbol gets that symbol's address as its tag; only an optional one may be missing."""
    registry = HandlerRegistry()
    registry.handler("needed", zero_copy=True)(plain)
    registry.handler("optional", optional=True, threaded=True)(plain)
    registry.register(7, plain, name="seven")
    with pytest.raises(LocalProtocolError, match="lacks the symbols of these handlers: needed"):
        registry.bind({})
    bound = registry.bind({"needed": 8, "other": 9})
    assert {tag: handler.name for tag, handler in bound.items()} == {7: "seven", 8: "needed"}
    assert bound[8].zero_copy
    assert registry.bind({"needed": 8, "optional": 9})[9].threaded
    with pytest.raises(LocalProtocolError, match="the symbol 'needed' has the tag 0x7, as another handler has"):
        registry.bind({"needed": 7})


async def test_a_registry_is_frozen_while_connected() -> None:
    """G9: What the executor may call does not change while any connection is open; two may share a registry."""
    registry = HandlerRegistry()
    registry.register(5, plain)
    async with connected_ends("memory", registry=registry):
        async with connected_ends("memory", registry=registry):
            pass
        with pytest.raises(LocalProtocolError, match="in use"):
            registry.register(6, plain)
        with pytest.raises(LocalProtocolError, match="in use"):
            registry.handler("name")(plain)
    registry.register(6, plain)


async def test_a_binding_belongs_to_its_connection() -> None:
    """Two executors may have different addresses for one symbol."""
    registry = HandlerRegistry()
    registry.handler("log")(lambda args: b"logged " + args)
    seen = []
    for spare in range(2):
        here, there = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery, orc_trio.open_session() as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            for number in range(spare):
                bootstrap.add_tag(f"spare {number}")
            tag = bootstrap.add_tag("log")
            nursery.start_soon(session.attach, orc_trio.StreamControllerAccess(there), bootstrap)
            async with orc_trio.open_controller(here, registry):
                while session.state is orc_trio.SessionState.START:
                    await trio.lowlevel.checkpoint()
                seen.append((tag, await session.call_controller(tag, b"x")))
    assert [answer for _, answer in seen] == [b"logged x"] * 2
    assert len({tag for tag, _ in seen}) == 2


def test_the_table_of_wrapper_functions() -> None:
    """Addresses given out are no native ones, and none is given out twice."""
    table = WrapperTable()
    first = table.add(plain)
    assert first >= FIRST_PYTHON_ADDRESS
    assert table.lookup(first) is not None
    table.remove(first)
    assert table.lookup(first) is None
    second = table.add(plain, name="second")
    assert second != first
    assert table.add(plain, address=16) == 16
    with pytest.raises(LocalProtocolError, match="at 0x10 already: plain"):
        table.add(coroutine, address=16)
    with pytest.raises(KeyError):
        table.remove(first)
    assert len(table) == 2
    assert table.new_address() > second


def test_the_fallback_is_asked_last() -> None:
    """The fallback answers for addresses that are not in the table."""
    table = WrapperTable()
    mine = table.add(plain, name="mine")
    table.fallback = lambda address: orc_trio.Handler(plain, f"native {address}") if address < 100 else None
    names = [handler and handler.name for handler in map(table.lookup, (mine, 5, 100))]
    assert names == ["mine", "native 5", None]


def test_a_function_without_a_name() -> None:
    """G9: A callable without a name of its own is named by what it is, and not by what it holds."""
    registry = HandlerRegistry()
    registry.register(5, partial(plain))
    assert registry.bind({})[5].name == "partial"


async def test_wrappers_come_and_go_while_connected() -> None:
    """A wrapper function can be added and removed while connected."""
    async with connected_ends("memory") as ends:
        address = ends.session.wrappers.add(plain)
        assert await ends.controller.call_wrapper(address, b"x") == b"x"
        ends.session.wrappers.remove(address)
        with pytest.raises(orc_trio.UnknownHandlerTagError):
            await ends.controller.call_wrapper(address, b"x")
    async with controller_and_raw("memory") as (controller, _):
        assert len(controller._registry) == 0
