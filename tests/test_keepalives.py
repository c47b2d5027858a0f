# Keepalive tokens: counted, denied, released from anywhere, and known to their holders.

from __future__ import annotations

import contextvars
import gc
import logging
import threading
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import quiet
from orc_trio.keepalives import Keepalives
from session_fakes import Threads


async def released(keepalives: Keepalives) -> bool:
    return await keepalives.wait_released(trio.CancelScope())


async def test_it_is_waited_for() -> None:
    """G22: the wait ends when the last one is released, and says so."""
    keepalives = Keepalives()
    assert await released(keepalives)
    one, other = keepalives.acquire("one"), keepalives.acquire("other")
    assert keepalives.names == ("one", "other")
    ended = []

    async def wait() -> None:
        ended.append(await released(keepalives))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        other.release()
        await trio.testing.wait_all_tasks_blocked()
        assert not ended
        assert keepalives.names == ("one",)
        one.release()
    assert ended == [True]


async def test_patience_runs_out(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """G22: a wait that runs out says so, and the log has the holders."""
    keepalives = Keepalives()
    with keepalives.acquire("slow code"):
        assert not await keepalives.wait_released(trio.move_on_after(3))
    assert "slow code" in caplog.text


async def test_denied() -> None:
    """G22: from the moment a shutdown is requested no new one is given; those that are held stay."""
    keepalives = Keepalives()
    with keepalives.acquire("held"):
        keepalives.deny()
        with pytest.raises(orc_trio.KeepaliveDeniedError):
            keepalives.acquire("late")
        with pytest.raises(orc_trio.CallRefusedError):
            keepalives.acquire_for_call("late call")
        assert keepalives.names == ("held",)


async def test_released_once() -> None:
    """G22: releasing more than once is the same as once, also from many threads at a time."""
    keepalives = Keepalives()
    with keepalives.acquire("other"):
        token = keepalives.acquire("token")
        assert await Threads(8, token.release).joined() == [None] * 8
        assert keepalives.names == ("other",)
        token.release()


async def test_the_holder_knows() -> None:
    """G12: a holder is the task that took it and its child tasks, while it is held, and a thread that works for it."""
    keepalives, others = Keepalives(), Keepalives()
    seen: dict[str, bool] = {}

    async def child(name: str) -> None:
        seen[name] = keepalives.held_here()

    assert not keepalives.held_here()
    async with trio.open_nursery() as nursery:
        with keepalives.acquire("token"):
            assert keepalives.held_here()
            assert not others.held_here()
            assert await trio.to_thread.run_sync(keepalives.held_here)
            nursery.start_soon(child, "started and outlives it")
            with keepalives.acquire("inner"):
                pass
            assert keepalives.held_here()
        assert not keepalives.held_here()
    assert seen == {"started and outlives it": False}
    with keepalives.acquire("token"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, "child")
    assert seen["child"]
    assert not await trio.to_thread.run_sync(keepalives.held_here)


async def test_released_by_somebody_else() -> None:
    """G12: released by another thread, it is held by nobody; the taker's context does not grow."""
    keepalives = Keepalives()
    for _ in range(100):
        await Threads(1, keepalives.acquire("token").release).joined()
    assert not keepalives.held_here()
    assert len([value for value in contextvars.copy_context().values() if isinstance(value, tuple) and value]) == 1
    with keepalives.acquire("token"):
        (held,) = [
            v for v in contextvars.copy_context().values() if isinstance(v, tuple) and v and hasattr(v[0], "name")
        ]
        assert len(held) == 1


async def test_an_uncounted_one() -> None:
    """G12: what the session itself runs is marked like a holder, and nobody waits for it."""
    keepalives = Keepalives()
    keepalives.deny()
    with keepalives.uncounted():
        assert keepalives.held_here()
        assert keepalives.names == ()
        assert await released(keepalives)
    assert not keepalives.held_here()


async def test_taken_and_released_in_threads() -> None:
    """G22: any thread may take and release them; none is lost, and the wait ends."""
    keepalives = Keepalives()
    token = keepalives.acquire("all the time")

    def work() -> bool:
        for _ in range(50):
            with keepalives.acquire("thread"):
                held = keepalives.held_here()
        return held and not keepalives.held_here()

    threads = Threads(8, work)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(released, keepalives)
        assert await threads.joined() == [True] * 8
        token.release()
    assert keepalives.names == ()


def test_a_late_release_is_silent(caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """G19: a release after the Trio run, by a thread that was stuck, is silent."""
    go = threading.Event()
    taken = threading.Event()

    async def main() -> tuple[Keepalives, Threads]:
        keepalives = Keepalives()

        def stuck() -> None:
            with keepalives.acquire("stuck"):
                taken.set()
                go.wait(60)

        threads = Threads(1, stuck)
        await trio.to_thread.run_sync(taken.wait)
        return keepalives, threads

    caplog.set_level(logging.DEBUG)
    keepalives, threads = trio.run(main)
    assert keepalives.names == ("stuck",)
    go.set()
    assert threads.join() == [None]
    assert keepalives.names == ()
    gc.collect()
    assert quiet(caplog)
    assert capfd.readouterr() == ("", "")


def test_a_finalizer_releases_one_at_any_moment() -> None:
    """G22: the garbage collector may find an owner of a keepalive while this very thread has the lock."""

    class Owner:
        def __init__(self, token: orc_trio.Keepalive) -> None:
            self.token = token
            self.itself = self

        def __del__(self) -> None:
            self.token.release()

    async def main() -> None:
        async with orc_trio.open_session() as session:
            for _ in range(3000):
                Owner(session.keepalive("owner"))
                session.statistics()
            gc.collect()
            assert session.statistics().keepalives == ()

    before = gc.get_threshold()
    gc.set_threshold(7)
    try:
        (result,) = Threads(1, lambda: trio.run(main)).join()
    finally:
        gc.set_threshold(*before)
    assert result is None
