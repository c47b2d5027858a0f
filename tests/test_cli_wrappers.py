# `--wrappers MODULE:OBJECT`: what OBJECT can be, and what is said about anything else.

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

import orc_trio
from orc_trio.cli.wrappers import load_wrappers

MODULE = """
import functools
import orc_trio

def echo(args): return args
async def slow(args): return b""
def with_default(args, more=3): return args
def two(session, bootstrap): bootstrap.add_symbol("two", 2)
def three(a, b, c): ...
def keyword(args, *, must): ...
def star(*args): ...

class Things:
    @staticmethod
    def inner(args): return b"inner"

ALL = {"e": echo, "handler": orc_trio.Handler(echo, "h", threaded=True, zero_copy=True)}
HANDLER = orc_trio.Handler(echo, "named")
WRONG_KEY = {1: echo}
WRONG_VALUE = {"x": 1}
NUMBER = 5
PARTIAL = functools.partial(with_default, more=1)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current directory, forgotten afterwards."""
    (tmp_path / "wrapped_things.py").write_text(MODULE)
    (tmp_path / "broken_things.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("wrapped_things", "broken_things"):
        monkeypatch.delitem(sys.modules, name, raising=False)


async def installed(*texts: str) -> tuple[orc_trio.Session, dict[str, int]]:
    """The symbols that these give a session."""
    async with orc_trio.open_session() as session:
        bootstrap = orc_trio.BootstrapInfo.for_session(session)
        for install in load_wrappers(texts):
            install(session, bootstrap)
        return session, dict(bootstrap.symbols)


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("echo", {"echo"}),
        ("slow", {"slow"}),
        ("with_default", {"with_default"}),
        ("Things.inner", {"inner"}),
        ("PARTIAL", {"PARTIAL"}),
        ("HANDLER", {"named"}),
        ("ALL", {"e", "h"}),
        ("two", {"two"}),
    ],
)
async def test_what_it_can_be(name: str, symbols: set[str]) -> None:
    """A function, a handler, a mapping of these, an installer."""
    _, found = await installed(f"wrapped_things:{name}")
    assert set(found) == symbols


async def test_handlers_keep_what_they_say() -> None:
    """A handler's threaded and zero_copy are kept."""
    session, found = await installed("wrapped_things:ALL")
    handler = session.wrappers.lookup(found["h"])
    assert handler is not None
    assert (handler.threaded, handler.zero_copy) == (True, True)


async def test_several() -> None:
    """--wrappers may be given more than once; without it nothing is imported."""
    _, found = await installed("wrapped_things:echo", "wrapped_things:slow")
    assert set(found) == {"echo", "slow"}
    assert load_wrappers([]) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wrapped_things", "write MODULE:OBJECT"),
        (":echo", "write MODULE:OBJECT"),
        ("wrapped_things:", "write MODULE:OBJECT"),
        ("no_such_things:x", "cannot import no_such_things: ModuleNotFoundError"),
        ("broken_things:x", "cannot import broken_things: ZeroDivisionError: division by zero"),
        ("wrapped_things:nix", "wrapped_things has no nix"),
        ("wrapped_things:NUMBER", "neither a function of the argument bytes"),
        ("wrapped_things:three", "neither a function of the argument bytes"),
        ("wrapped_things:keyword", "neither a function of the argument bytes"),
        ("wrapped_things:star", "neither a function of the argument bytes"),
        ("wrapped_things:WRONG_KEY", "WRONG_KEY[1]: neither"),
        ("wrapped_things:WRONG_VALUE", "WRONG_VALUE['x']: neither"),
        ("builtins:type", "neither"),
    ],
)
def test_what_it_cannot_be(text: str, says: str) -> None:
    """Anything else is a usage error that says what it could be."""
    with pytest.raises(click.UsageError) as caught:
        load_wrappers([text])
    assert says in caught.value.message
    assert text.partition("[")[0] in caught.value.message


async def test_names_that_clash() -> None:
    """Two functions of one name: said in one line."""
    with pytest.raises(click.UsageError, match="there is a bootstrap symbol 'echo' already"):
        await installed("wrapped_things:echo", "wrapped_things:echo")
