# The clock that does not count what the machine had no time for.

from __future__ import annotations

import time

import trio

from orc_trio.testing import SteadyClock


def test_it_is_real_time() -> None:
    """A sleep takes as long as it says, and not much less is counted."""

    async def main() -> float:
        before = trio.current_time()
        await trio.sleep(0.5)
        return trio.current_time() - before

    began = time.perf_counter()
    counted = trio.run(main, clock=SteadyClock())
    assert 0.5 <= counted <= time.perf_counter() - began


def test_a_standstill_is_not_counted() -> None:
    """No deadline passes while the loop stands still, and what is ready then comes first."""

    async def main() -> None:
        with trio.move_on_after(0.3) as scope:
            time.sleep(1)  # noqa: ASYNC251
            await trio.sleep(0.01)
        assert not scope.cancelled_caught
        with trio.move_on_after(0.1) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught

    trio.run(main, clock=SteadyClock())
