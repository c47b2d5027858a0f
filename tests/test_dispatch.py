# orc_trio.dispatch and orc_trio.nesting: running the function a call names, and knowing who serves a call.

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from orc_trio.dispatch import Dispatcher, as_bytes
from orc_trio.nesting import Serving, descends_from, enter, serving
from orc_trio.registry import Handler

ADDRESS = 5


def dispatcher(function: Any, *, threaded: bool = False, zero_copy: bool = False, **kwargs: Any) -> Dispatcher:
    handler = Handler(function, "the function", threaded, zero_copy)
    return Dispatcher({ADDRESS: handler}.get, **kwargs)


class Keepalives:
    """Counts."""

    def __init__(self) -> None:
        self.held = 0
        self.taken = 0

    def __call__(self, name: str) -> AbstractContextManager[None]:
        assert name == "the function"
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        self.taken += 1
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1


async def coroutine(args: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return args


def plain(args: bytes) -> bytes:
    return args


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("nested", [False, True])
async def test_running_a_function(threaded: bool, nested: bool) -> None:
    """A function runs with a keepalive and under its name, and neither stays."""
    keepalives = Keepalives()
    seen: list[Any] = []

    def function(args: bytes) -> bytes:
        seen.append((table.running, keepalives.held))
        return args

    table = dispatcher(function, threaded=threaded, keepalive=keepalives)
    assert await table.serve(ADDRESS, memoryview(b"x"), nested) == b"x"
    assert seen == [(("the function",), 1)]
    assert table.running == ()
    assert (keepalives.taken, keepalives.held) == (1, 0)


@pytest.mark.parametrize("function", [coroutine, plain])
async def test_what_a_function_gets_and_gives(function: Any) -> None:
    """Bytes by default, a memoryview if asked for; what comes back is bytes that nobody else can change."""
    for zero_copy, kind in ((False, bytes), (True, memoryview)):
        got: list[type] = []

        def record(args: Any, got: list[type] = got) -> Any:
            got.append(type(args))
            return function(bytes(args))

        table = dispatcher(record, zero_copy=zero_copy)
        for args in (b"x", memoryview(b"x")):
            assert await table.serve(ADDRESS, args, False) == b"x"
        assert got == [kind, kind]


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("args", [b"abc", memoryview(bytearray(b"abc"))], ids=["bytes", "memory"])
async def test_a_view_that_is_given_back_is_not_copied(args: bytes | memoryview, threaded: bool) -> None:
    """G8: A function that returns the view it was given costs no copy, as nobody can write to it; a piece is copied."""

    async def answer_of(function: Any, zero_copy: bool = True) -> bytes | memoryview:
        return await dispatcher(function, threaded=threaded, zero_copy=zero_copy).serve(ADDRESS, args, False)

    def write(given: Any) -> Any:
        given[0] = 0

    assert await answer_of(lambda given: given) is args
    with pytest.raises(TypeError, match="read-only"):
        await answer_of(write)
    for function, zero_copy in ((lambda given: given[:], True), (lambda given: given, False)):
        answer = await answer_of(function, zero_copy)
        assert (type(answer), answer) == (bytes, b"abc")


def test_as_bytes() -> None:
    """Bytes are passed on as they are; what can change is copied; what is no bytes is refused."""

    class Odd(bytes):
        pass

    same = b"same"
    assert as_bytes(same, "it") is same
    for value in (bytearray(b"x"), memoryview(b"x"), Odd(b"x"), memoryview(b"yxz")[1::2][:1]):
        assert type(as_bytes(value, "it")) is bytes
        assert as_bytes(value, "it") == b"x"
    for wrong in ("x", None, 5, [1]):
        with pytest.raises(TypeError, match="it must be bytes, not"):
            as_bytes(wrong, "it")  # type: ignore[arg-type]


async def test_an_unknown_address() -> None:
    """G9: There is nothing under an unknown address."""
    with pytest.raises(orc_trio.UnknownHandlerTagError):
        await dispatcher(plain).serve(6, b"", False)


async def test_a_denied_keepalive_refuses() -> None:
    """A function that may not start does not, and the denial says so."""

    def deny(_name: str) -> AbstractContextManager[object]:
        raise orc_trio.CallRefusedError("shutting down")

    for threaded in (False, True):
        with pytest.raises(orc_trio.CallRefusedError, match="shutting down"):
            await dispatcher(plain, threaded=threaded, keepalive=deny).serve(ADDRESS, b"", False)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("error", [orc_trio.CallRefusedError("other"), orc_trio.UnknownHandlerTagError(77)])
async def test_the_failure_of_a_call_it_made_is_not_that_of_the_call_it_serves(
    error: Exception, threaded: bool
) -> None:
    """G4: A function that lets a refusal of its own call escape was started: it has failed."""

    def function(_args: bytes) -> bytes:
        raise error

    with pytest.raises(RuntimeError, match="the function let the failure of a call") as caught:
        await dispatcher(function, threaded=threaded).serve(ADDRESS, b"", False)
    assert caught.value.__cause__ is error


async def test_a_thread_let_go_keeps_its_keepalive() -> None:
    """G13: A thread that was let go keeps its name in the statistics and its keepalive until it comes back."""
    keepalives = Keepalives()
    started, release = threading.Event(), threading.Event()

    def function(_args: bytes) -> bytes:
        started.set()
        release.wait(10)
        return b"late"

    table = dispatcher(function, threaded=True, keepalive=keepalives)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(table.serve, ADDRESS, b"", False)
        await trio.to_thread.run_sync(started.wait)
        nursery.cancel_scope.cancel()
    assert table.running == ("the function",)
    assert keepalives.held == 1
    release.set()
    while table.running:
        await trio.sleep(0.001)
    assert (keepalives.taken, keepalives.held) == (1, 0)


async def test_let_go_before_it_started_it_never_does() -> None:
    """G13: A threaded function whose call is cancelled before its thread begins does not run, and holds nothing."""
    keepalives = Keepalives()
    release = threading.Event()
    ran = []

    def function(args: bytes) -> bytes:
        ran.append(args)
        release.wait(10)
        return b""

    table = dispatcher(function, threaded=True, keepalive=keepalives, max_threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(table.serve, ADDRESS, b"first", False)
        while not ran:
            await trio.sleep(0.001)
        with trio.move_on_after(0.01):
            await table.serve(ADDRESS, b"second", False)
        assert table.running == ("the function",)
        assert keepalives.held == 1
        release.set()
    assert ran == [b"first"]
    assert (keepalives.taken, keepalives.held) == (2, 0)


async def test_a_thread_that_comes_too_late_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """G13: The task that lets go and the thread that begins agree on which of them was first."""
    keepalives = Keepalives()
    ran, bodies = [], []

    async def run_sync(body: Any, **_kwargs: Any) -> Any:
        bodies.append(body)
        scope.cancel()
        await trio.sleep_forever()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    table = dispatcher(ran.append, threaded=True, keepalive=keepalives)
    with trio.CancelScope() as scope:
        await table.serve(ADDRESS, b"", False)
    assert keepalives.held == 0
    assert bodies[0]() == b""
    assert ran == []
    assert (keepalives.taken, keepalives.held) == (1, 0)


async def test_nested_calls_take_no_token() -> None:
    """G7: Nested calls run in threads although no token is left; ordinary ones wait for one."""
    inside, release = threading.Semaphore(0), threading.Event()

    def function(args: bytes) -> bytes:
        inside.release()
        release.wait(10)
        return args

    table = dispatcher(function, threaded=True, max_threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(table.serve, ADDRESS, b"", False)
        nursery.start_soon(table.serve, ADDRESS, b"", False)
        for _ in range(3):
            nursery.start_soon(table.serve, ADDRESS, b"", True)
        for _ in range(4):
            assert await trio.to_thread.run_sync(partial(inside.acquire, timeout=5))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not inside.acquire(blocking=False)
        release.set()


async def test_one_limiter_for_each_dispatcher() -> None:
    """A dispatcher's threads take nothing from Trio's own limit."""
    limiter = trio.to_thread.current_default_thread_limiter()
    borrowed = []

    def function(args: bytes) -> bytes:
        borrowed.append(limiter.borrowed_tokens)
        return args

    await dispatcher(function, threaded=True).serve(ADDRESS, b"", False)
    assert borrowed == [0]


# --- nesting ---


async def test_who_serves_a_call() -> None:
    """G7: The mark is seen by the task, its children and its threads, while the call is served, and by nobody else."""
    assert serving() is None
    finish = trio.Event()
    seen: list[Any] = []

    async def look() -> None:
        seen.append(serving())
        await finish.wait()
        seen.append(serving())

    async def serve() -> None:
        mark = Serving("connection")
        enter(mark)
        assert serving() is mark
        assert mark.by == "connection"
        assert await trio.to_thread.run_sync(serving) is mark
        outer.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [mark]
        mark.active = False
        assert serving() is None
        finish.set()

    async with trio.open_nursery() as outer:
        outer.start_soon(serve)
    assert seen[1] is None
    assert serving() is None


async def test_descent() -> None:
    """G12: A task descends from the nursery it is in and from those its parents are in; from no other."""
    found: list[bool] = []

    async def grandchild() -> None:
        found.extend([descends_from(outer), descends_from(inner), descends_from(other), descends_from(None)])

    async def child() -> None:
        nonlocal inner
        async with trio.open_nursery() as inner:
            inner.start_soon(grandchild)

    inner: trio.Nursery
    async with trio.open_nursery() as other:
        async with trio.open_nursery() as outer:
            outer.start_soon(child)
    assert found == [True, True, False, False]  # the body of a nursery is not its child
    assert not descends_from(outer)


# --- threads that were let go ---


async def test_threads_of_nested_calls_that_were_let_go_count() -> None:
    """G8: Nested calls beyond max_nested_threads are refused, threads that were let go included, until one is back."""
    keepalives = Keepalives()
    started, release = threading.Semaphore(0), threading.Semaphore(0)

    def function(args: bytes) -> bytes:
        started.release()
        assert release.acquire(timeout=30)
        return args

    async def let_go() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(table.serve, ADDRESS, b"", True)
            assert await trio.to_thread.run_sync(partial(started.acquire, timeout=30))
            nursery.cancel_scope.cancel()

    table = dispatcher(function, threaded=True, keepalive=keepalives, max_nested_threads=2)
    with trio.fail_after(30):
        await let_go()
        await let_go()
        for _ in range(3):
            with pytest.raises(orc_trio.CallRefusedError, match="2 threads serve nested calls"):
                await table.serve(ADDRESS, b"", True)
        assert (keepalives.taken, keepalives.held) == (2, 2)
        release.release()
        while keepalives.held > 1:
            await trio.sleep(0.001)
        release.release()  # the other one, or the new one: both have room
        release.release()
        assert await table.serve(ADDRESS, b"room", True) == b"room"
        while keepalives.held:
            await trio.sleep(0.001)
    assert table.running == ()


async def test_nested_calls_in_the_task_take_no_thread() -> None:
    """G8: Only threads count: nested calls of functions that run in their task are not refused."""
    assert await dispatcher(coroutine, max_nested_threads=0).serve(ADDRESS, b"x", True) == b"x"
    with pytest.raises(orc_trio.CallRefusedError, match="0 threads"):
        await dispatcher(plain, threaded=True, max_nested_threads=0).serve(ADDRESS, b"x", True)


async def test_a_nested_thread_that_cannot_be_started_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """G8: A nested call whose thread could not be started leaves its place."""
    keepalives = Keepalives()
    table = dispatcher(plain, threaded=True, keepalive=keepalives, max_nested_threads=1)

    async def run_sync(_body: Any, **_kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(trio.to_thread, "run_sync", run_sync)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="new thread"):
                await table.serve(ADDRESS, b"", True)
    assert await table.serve(ADDRESS, b"x", True) == b"x"
    assert table.running == ()
    assert (keepalives.taken, keepalives.held) == (3, 0)
