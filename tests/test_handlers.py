# orc_trio.handlers: tasks that serve one call after the other, and what one call must not leave to the next.

from __future__ import annotations

import contextlib
import contextvars
import gc
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import orc_trio
from harness import every_virtual
from orc_trio.testing import PairKind, open_pair
from orc_trio.testing.leaks import tasks_of_this_run

_variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")


class Thing:
    """Something that can be watched."""


async def sleep(args: bytes) -> bytes:
    await trio.sleep(float(args))
    return args


@attrs.frozen
class Ends:
    """A controller and its executor."""

    controller: orc_trio.Controller
    symbols: Mapping[str, int]

    async def call(self, name: str, args: bytes = b"") -> bytes | memoryview:
        return await self.controller.call_wrapper(self.symbols[name], args)


@asynccontextmanager
async def without_a_deadline(kind: PairKind, *, wrappers: dict[str, Any]) -> AsyncIterator[Ends]:
    """Connected ends, and no bound around their callers: a call with a deadline takes another way."""
    async with open_pair(kind, wrappers=wrappers) as both:
        yield Ends(both.controller, both.symbols)


def serving_tasks() -> list[trio.lowlevel.Task]:
    return [task for task in tasks_of_this_run() if task.name == "orc_trio handler"]


@every_virtual
@pytest.mark.parametrize("end", ["cancelled", "too late", "cancelled, but it answers", "too late, but it answers"])
async def test_what_ended_one_call_is_not_the_next_ones(
    kind: Any, end: str, autojump_clock: trio.testing.MockClock
) -> None:
    """G5, G6: The task that served a call that was cancelled, or had a deadline, serves the next one undisturbed."""

    async def stubborn(args: bytes) -> bytes:
        with contextlib.suppress(trio.Cancelled):
            await sleep(args)
        return b"all the same"

    async with without_a_deadline(kind, wrappers={"sleep": sleep, "stubborn": stubborn}) as ends:
        name = "stubborn" if "answers" in end else "sleep"
        for _ in range(3):
            with trio.CancelScope() as scope:
                if "late" in end:
                    scope.deadline = trio.current_time() + 1
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ends.call, name, b"10")
                    await trio.sleep(0.5)
                    if "late" not in end:
                        scope.cancel()
            assert scope.cancelled_caught
            await trio.sleep(2)
            (task,) = serving_tasks()
            assert await ends.call("sleep", b"100") == b"100"
            assert serving_tasks() == [task]


@every_virtual
async def test_a_call_in_time_leaves_no_deadline(kind: Any, autojump_clock: trio.testing.MockClock) -> None:
    """G6: A call that was answered within its deadline leaves nothing of that to the next one."""
    async with without_a_deadline(kind, wrappers={"sleep": sleep}) as ends:
        for _ in range(3):
            with trio.fail_after(2):
                assert await ends.call("sleep", b"1") == b"1"
            assert await ends.call("sleep", b"100") == b"100"
        assert len(serving_tasks()) == 1


@every_virtual
async def test_nothing_of_a_call_is_kept(kind: Any) -> None:
    """G8, G19: When it is answered its context, its arguments and its result are let go, though its task goes on."""
    watched: list[weakref.ref[Thing]] = []

    async def function(args: bytes) -> bytes:
        assert _variable.get(None) is None
        thing = Thing()
        watched.append(weakref.ref(thing))
        _variable.set(thing)
        await trio.lowlevel.checkpoint()
        return args * 2

    async with without_a_deadline(kind, wrappers={"function": function}) as ends:
        await ends.call("function", b"x")
        tracemalloc.start()
        try:
            for scope in (trio.CancelScope(), trio.CancelScope(deadline=trio.current_time() + 1000)):
                with scope:
                    assert len(await ends.call("function", bytes(4_000_000))) == 8_000_000
                await trio.testing.wait_all_tasks_blocked()
                gc.collect()
                assert tracemalloc.get_traced_memory()[0] < 1_000_000
        finally:
            tracemalloc.stop()
        assert [reference() for reference in watched] == [None] * 3
        assert len(serving_tasks()) == 1


async def test_after_a_burst() -> None:
    """G8: Of the tasks of many calls at once some stay to wait for more, and not all."""
    async with without_a_deadline("memory", wrappers={"sleep": sleep}) as ends:
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(ends.call, "sleep", b"0.01")
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < len(serving_tasks()) <= 256
        assert ends.controller.statistics().running_handlers == ()
    assert not serving_tasks()


async def test_contexts_come_from_where_the_connection_began() -> None:
    """A function sees the context variables of the program that opened its end, whoever was served before."""
    seen: list[str] = []

    def look(args: bytes) -> bytes:
        seen.append(_variable.get("nothing"))
        _variable.set("something else")
        return args

    token = _variable.set("the program's")
    try:
        async with without_a_deadline("unix", wrappers={"look": look}) as ends:
            for _ in range(3):
                await ends.call("look")
    finally:
        _variable.reset(token)
    assert seen == ["the program's"] * 3


@every_virtual
async def test_a_cancelled_of_another_scope(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    """G11: A `Cancelled` that a function raises and nobody meant for it is its failure, and ends no task's life."""

    async def odd(_args: bytes) -> bytes:
        kept: list[trio.Cancelled] = []
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                kept.append(exc)
                raise
        raise kept[0]

    async with without_a_deadline(kind, wrappers={"odd": odd, "sleep": sleep}) as ends:
        for _ in range(3):
            with pytest.raises(Exception, match="the function failed"):
                await ends.call("odd")
            assert await ends.call("sleep", b"0") == b"0"
    assert "failed" in caplog.text
