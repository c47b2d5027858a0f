# orc_trio.testing.schedules: a run whose order of tasks can be had again.

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from orc_trio.testing import open_pair, run_scheduled

scheduler: Any = trio._core._run  # type: ignore[attr-defined]


async def shuffle(number: int = 8) -> list[int]:
    """In which order tasks took turns."""
    order: list[int] = []

    async def task(which: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            order.append(which)

    async with trio.open_nursery() as nursery:
        for which in range(number):
            nursery.start_soon(task, which)
    return order


def test_the_order_is_a_function_of_the_seed() -> None:
    """The same seed gives the same order, another one another."""
    runs = [[run_scheduled(seed, shuffle) for _ in range(2)] for seed in range(20)]
    assert all(one == other for one, other in runs)
    assert len({tuple(one) for one, _ in runs}) == 20


async def leave() -> list[int]:
    """In which order tasks in one scope, and scopes with one deadline, are cancelled."""
    order: list[int] = []

    async def task(which: int, scope: trio.CancelScope) -> None:
        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            order.append(which)
            return trio.lowlevel.Abort.SUCCEEDED

        with scope:
            await trio.lowlevel.wait_task_rescheduled(abort)

    async with trio.open_nursery() as nursery:
        for which in range(8):
            nursery.start_soon(task, which, trio.CancelScope(deadline=trio.current_time() + 1))
        for which in range(8, 16):
            nursery.start_soon(task, which, trio.CancelScope())
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    return order


def test_the_order_of_cancellations_is_too() -> None:
    """Wherever things are in memory, what is cancelled together is cancelled in the order that the seed gives."""
    clutter, runs = [], []
    for _ in range(4):
        clock = trio.testing.MockClock(autojump_threshold=0)
        runs.append(run_scheduled(7, leave, clock=clock))
        clutter += [object() for _ in range(len(clutter) + 1001)]
    assert [sorted(run) for run in runs] == [list(range(16))] * 4
    assert runs.count(runs[0]) == 4
    assert run_scheduled(8, leave, clock=trio.testing.MockClock(autojump_threshold=0)) != runs[0]


def test_of_two_whole_ends() -> None:
    """A conversation in memory takes the same course with the same seed."""

    async def converse() -> list[str]:
        steps: list[str] = []

        class Watch(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                steps.append(task.name)

        async def wrapper(args: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            return args

        trio.lowlevel.add_instrument(Watch())
        async with open_pair(wrappers={"wrapper": wrapper}) as pair, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(pair.call_wrapper, "wrapper", b"x")
        return steps

    def run(seed: int) -> list[str]:
        return run_scheduled(seed, converse, clock=trio.testing.MockClock(autojump_threshold=0))

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("allowed", [False, True])
def test_everything_is_put_back(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the scheduler is as it was, also after a failure, which tells its seed."""
    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", allowed)
    state = scheduler._r.getstate()

    async def fail() -> None:
        await shuffle()
        raise LookupError("mine")

    with pytest.raises(LookupError) as caught:
        run_scheduled(1234, fail)
    assert caught.value.__notes__ == ["the same order of tasks again: orc_trio.testing.run_scheduled(1234, …)"]
    assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING is allowed
    assert scheduler._r.getstate() == state


def test_arguments_clock_and_instruments() -> None:
    """Arguments, clock and instruments are passed on."""

    class Counts(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.steps += 1

    async def main(one: int, other: str) -> tuple[int, str, float]:
        began = trio.current_time()
        await trio.sleep(1000)
        return one, other, trio.current_time() - began

    counts = Counts()
    clock = trio.testing.MockClock(autojump_threshold=0)
    assert run_scheduled(0, main, 1, "x", clock=clock, instruments=[counts]) == (1, "x", pytest.approx(1000))
    assert counts.steps > 1


@pytest.mark.parametrize(("name", "value"), [("_r", None), ("_ALLOW_DETERMINISTIC_SCHEDULING", "yes")])
def test_another_trio(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Trio's scheduler has other names, that is a clear error, and nothing runs."""
    monkeypatch.setattr(scheduler, name, value)
    with pytest.raises(RuntimeError, match="knows no other way to decide the order of tasks"):
        run_scheduled(0, shuffle)
