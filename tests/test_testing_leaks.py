# orc_trio.testing.leaks: what is left is found and named, and nothing else is.
#
# ruff: noqa: PT012  (what raises is the end of the block, whatever is in it)

from __future__ import annotations

import gc
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import orc_trio
from orc_trio.testing import LeakError, Leaks, no_leaks, open_pair
from orc_trio.testing.leaks import open_descriptors

kept: list[Any] = []


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    """What a test keeps is let go after it."""
    yield
    kept.clear()


def only_one(caught: pytest.ExceptionInfo[LeakError]) -> str:
    (line,) = caught.value.left
    assert str(caught.value) == f"left behind:\n  {line}"
    return line


# --- nothing ---


def test_nothing_outside_of_a_run() -> None:
    """A whole run inside the block leaves nothing."""

    async def main() -> None:
        async with open_pair("tcp", wrappers={"up": bytes.upper}) as pair:
            assert await pair.call_wrapper("up", b"x") == b"X"
            await trio.to_thread.run_sync(len, b"")

    with no_leaks():
        trio.run(main)


async def test_nothing_inside_of_a_run() -> None:
    """Neither does a conversation inside a run: no task, no idle worker thread, no descriptor, no payload."""
    with no_leaks() as leaks:
        async with open_pair("unix", wrappers={"up": bytes.upper}) as pair:
            leaks.watch(pair.controller)
            await trio.to_thread.run_sync(len, b"")
            assert await pair.call_wrapper("up", leaks.payload(50_000))
        del pair
        await trio.lowlevel.checkpoint()


async def test_what_was_there_before() -> None:
    """Tasks, threads and descriptors that were there before are others' business."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    reading, writing = os.pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        with no_leaks():
            os.close(reading)
        nursery.cancel_scope.cancel()
    os.close(writing)
    release.set()
    thread.join()


async def test_system_tasks() -> None:
    """System tasks are others' business too."""
    release = trio.Event()
    with no_leaks():
        trio.lowlevel.spawn_system_task(release.wait)
    release.set()


def test_a_failure_inside() -> None:
    """The exception of the block says more than what it left."""
    with pytest.raises(LookupError, match="mine"), no_leaks():
        kept.append(os.pipe())
        raise LookupError("mine")
    for number in kept[0]:
        os.close(number)


# --- tasks ---


async def test_a_task() -> None:
    """A task is named, with where it waits; also a grandchild."""

    async def waits() -> None:
        await trio.sleep_forever()

    async def parent() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(waits, name="the child")

    async with trio.open_nursery() as nursery:
        with pytest.raises(LeakError) as caught:
            with no_leaks():
                nursery.start_soon(parent, name="the parent")
                await trio.testing.wait_all_tasks_blocked()
        one, other = caught.value.left
        assert re.fullmatch(r"task: the parent, waits in .*parent \(.*test_testing_leaks.py:\d+\)", one)
        assert re.fullmatch(r"task: the child, waits in .*waits \(.*test_testing_leaks.py:\d+\)", other)
        nursery.cancel_scope.cancel()


# --- threads ---


def test_a_thread() -> None:
    """A thread is named, with where it is."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="the thread")
    with pytest.raises(LeakError) as caught, no_leaks():
        thread.start()
    release.set()
    thread.join()
    assert re.match(r"thread: the thread, in Condition.wait \(.*threading.py:\d+\)", only_one(caught))


def test_a_thread_that_is_about_to_end() -> None:
    """A thread that ends by itself in a moment is no leak."""
    with no_leaks():
        threading.Timer(0.05, len, [b""]).start()


async def test_a_function_that_was_let_go() -> None:
    """A thread in which a function of orc_trio's runs on is a leak, unless that is allowed."""
    started, release = threading.Event(), threading.Event()

    def block(args: bytes) -> bytes:
        started.set()
        release.wait()
        return args

    async def leave_one() -> None:
        started.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.call_wrapper, "block")
            await trio.to_thread.run_sync(started.wait)
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    blocking = orc_trio.Handler(block, "block", threaded=True)
    async with open_pair(wrappers={"block": blocking}) as pair:
        try:
            with pytest.raises(LeakError) as caught, no_leaks():
                await leave_one()
            assert "thread: body from orc_trio handler" in only_one(caught)
            with no_leaks(let_go=True):
                await leave_one()
        finally:
            release.set()


# --- descriptors ---


def test_descriptors() -> None:
    """A descriptor is named: its number, and what it is."""
    with pytest.raises(LeakError) as caught, no_leaks():
        number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    assert only_one(caught) == f"descriptor: {number}: /dev/null"


def test_sockets() -> None:
    """Of a socket its family is told, and of an Internet socket its address."""
    with pytest.raises(LeakError) as caught, no_leaks():
        server = socket.create_server(("127.0.0.1", 0))
        one, other = socket.socketpair()
    port = server.getsockname()[1]
    for each in (server, one, other):
        each.close()
    left = "\n".join(caught.value.left)
    assert f"AF_INET 127.0.0.1:{port}" in left
    assert left.count("AF_UNIX") == 2


def test_what_only_the_collector_would_close() -> None:
    """A descriptor in garbage is open until somebody collects it: a leak."""

    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.file = os.fdopen(os.open(os.devnull, os.O_RDONLY))

    gc.disable()
    try:
        with pytest.raises(LeakError, match="/dev/null"), no_leaks():
            cycle = Cycle()
            file = cycle.file
            del cycle
    finally:
        gc.enable()
    file.close()


# --- objects ---


class Thing:
    """Something."""


def test_an_object() -> None:
    """An object that is still there is named, with who holds it."""
    with pytest.raises(LeakError) as caught, no_leaks() as leaks:
        thing = Thing()
        leaks.watch(thing)
        kept.append({"key": thing})
        del thing
    assert only_one(caught) == "object: a Thing, held by a dict under 'key'"


def test_a_name() -> None:
    """It can have a name."""
    with pytest.raises(LeakError, match="object: the thing"), no_leaks() as leaks:
        kept.append(Thing())
        leaks.watch(kept[0], "the thing")


def test_what_only_a_cycle_holds() -> None:
    """What only garbage holds is gone."""
    gc.disable()
    try:
        with no_leaks() as leaks:
            thing = Thing()
            thing.me = thing  # type: ignore[attr-defined]
            leaks.watch(thing)
            del thing
    finally:
        gc.enable()


def test_what_cannot_be_watched() -> None:
    """Bytes cannot be weakly referenced, and say so."""
    with no_leaks() as leaks, pytest.raises(TypeError, match="weak reference"):
        leaks.watch(b"bytes")


# --- payloads ---


@attrs.define
class Slots:
    """Holds something in a slot."""

    held: Any


class Attributes:
    """Holds something in an attribute."""

    def __init__(self, held: Any) -> None:
        self.held = held


async def suspended(data: bytes) -> None:
    await trio.sleep_forever()
    del data


HOLDERS: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "list": (lambda data: [data], "held by a list"),
    "dict": (lambda data: {"key": data, "other": []}, "held by a dict under 'key'"),
    "untracked": (lambda data: [(1, (2, {"x": data}))], "held by a "),
    "slot": (Slots, "held by a Slots as .held"),
    "attribute": (Attributes, "held by a Attributes"),
    "copy": (lambda data: [bytearray(data)], "200 bytes of it as bytearray, held by a list"),
    "piece": (lambda data: [data[50:90]], "40 bytes of it as bytes, held by a list"),
    "view": (lambda data: Slots(memoryview(data)[3:90]), "87 bytes of it as memoryview, held by a Slots as .held"),
    "coroutine": (suspended, "held by a variable of suspended"),
    "closure": (lambda data: lambda: data, ""),
}


@pytest.mark.parametrize("how", HOLDERS)
def test_a_payload(how: str) -> None:
    """A payload that something holds is found, as it is or in copies and pieces, and its holder named."""
    hold, says = HOLDERS[how]
    with pytest.raises(LeakError) as caught, no_leaks() as leaks:
        kept.append(hold(leaks.payload(200, "mine")))
    assert any(line.startswith("payload: mine, ") and says in line for line in caught.value.left), caught.value.left
    if how == "coroutine":
        kept[0].close()


def test_a_payload_that_nobody_holds() -> None:
    """A payload that was passed around and let go is gone, whatever its size."""
    with no_leaks() as leaks:
        for size in (64, 65, 1000, 10**6):
            data = leaks.payload(size)
            assert len(data) == size
            bytearray(data).upper()
        del data


def test_views_that_were_released() -> None:
    """A view that was released holds nothing, and is no obstacle."""
    kept.append(view := memoryview(b"x" * 100))
    view.release()
    kept.append(memoryview(b"x").cast("B", shape=[]))
    with no_leaks() as leaks:
        kept.append(view := memoryview(leaks.payload(100)))
        view.release()


def test_each_payload_is_different() -> None:
    """One payload is not taken for another."""
    one, other = Leaks(), Leaks()
    assert one.payload(64) != other.payload(64)
    with pytest.raises(LeakError, match="payload: the kept one") as caught, no_leaks() as leaks:
        leaks.payload(100, "the other")
        kept.append(leaks.payload(100, "the kept one"))
    assert only_one(caught)


def test_a_payload_too_small() -> None:
    """What could not be found again is refused."""
    with no_leaks() as leaks, pytest.raises(ValueError, match="at least 64 bytes, not 63"):
        leaks.payload(63)


def test_open_descriptors() -> None:
    """What is open is listed, by number."""
    number = os.open(os.devnull, os.O_RDONLY)
    assert open_descriptors()[number] == "/dev/null"
    os.close(number)
    assert number not in open_descriptors()
