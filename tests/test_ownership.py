# A background task beside a body: who is told, who is waited for, and what leaves.

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel

from orc_trio import Certainty, DisconnectedError, DisconnectKind, DisconnectReason
from orc_trio.ownership import alongside, only_cancelled, raise_all


class Task:
    """A task that ends when it is told, or as it is told."""

    def __init__(self, failure: BaseException | None = None, *, patient: bool = False) -> None:
        self.failure = failure
        self.patient = patient  # is told twice before it ends
        self.told: list[BaseException | None] = []
        self.stopped = trio.Event()
        self.over = False

    async def run(self) -> None:
        with trio.CancelScope(shield=True):
            await self.stopped.wait()
        self.over = True
        if self.failure is not None:
            raise self.failure

    def stop(self, exc: BaseException | None) -> None:
        self.told.append(exc)
        if not self.patient or len(self.told) > 1:
            self.stopped.set()

    def beside(self) -> Any:
        return alongside(self.run, self.stop, "task")


async def test_the_body_ends() -> None:
    """G18: when the body ends the task is told, and waited for."""
    task = Task()
    async with task.beside():
        await trio.lowlevel.checkpoint()
        assert not task.told
    assert task.told == [None]
    assert task.over


@pytest.mark.parametrize(
    "error", [ValueError("v"), KeyboardInterrupt(), SystemExit(3), StopIteration(1), StopAsyncIteration(), OSError()]
)
async def test_the_bodys_own_exception_leaves_unwrapped(error: BaseException) -> None:
    """G18: the body's own exception leaves an `async with` unwrapped, the same object."""
    task = Task()
    with pytest.raises(type(error)) as caught:
        async with task.beside():
            raise error
    assert caught.value is error
    assert task.told == [error]
    assert task.over


async def test_a_group_of_the_bodys_leaves_as_it_is() -> None:
    """G18: a group the body raised leaves as it is."""
    task = Task()
    group = ExceptionGroup("g", [ValueError(), OSError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with task.beside():
            raise group
    assert caught.value is group


async def test_cancelled_leaves_as_it_is() -> None:
    """G18: a bare `except trio.Cancelled` outside sees the owner's cancellation, and its scope catches it."""
    task = Task()
    seen = None
    with trio.CancelScope() as scope:
        try:
            async with task.beside():
                scope.cancel()
                await trio.sleep_forever()
        except trio.Cancelled as exc:
            seen = exc
            raise
    assert scope.cancelled_caught
    assert task.told[0] is seen
    assert task.over


async def test_cancelled_only_while_leaving() -> None:
    """G18: a cancel that comes only while leaving tells the task to hurry, waits for it, and goes on."""
    task = Task(patient=True)
    with trio.CancelScope() as scope:
        try:
            async with task.beside():
                trio.lowlevel.spawn_system_task(cancel_later, scope)
        except trio.Cancelled:
            assert task.over
            raise
    assert scope.cancelled_caught
    assert task.told[0] is None
    assert only_cancelled(task.told[1])


async def cancel_later(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_cancelled_while_leaving_with_an_exception() -> None:
    """G18: the body's exception is not replaced by a cancel that comes while leaving; that is seen next."""
    task = Task(patient=True)
    with trio.CancelScope() as scope:
        with pytest.raises(ValueError, match="mine"):  # noqa: PT012
            async with task.beside():
                trio.lowlevel.spawn_system_task(cancel_later, scope)
                raise ValueError("mine")
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_interrupted_while_leaving() -> None:
    """G18: an interrupt that comes only while leaving tells the task to hurry, and leaves unwrapped."""
    task = Task(patient=True)
    interrupted = trio.lowlevel.current_task()

    async def interrupt() -> None:
        await trio.testing.wait_all_tasks_blocked()
        abort = interrupted._abort_func
        assert abort is not None
        assert abort(lambda: None) is trio.lowlevel.Abort.SUCCEEDED
        interrupted._abort_func = None
        import outcome

        trio.lowlevel.reschedule(interrupted, outcome.Error(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        async with task.beside():
            trio.lowlevel.spawn_system_task(interrupt)
    assert task.over
    assert isinstance(task.told[1], KeyboardInterrupt)


@pytest.mark.parametrize("error", [ValueError("v"), KeyboardInterrupt(), SystemExit(3)])
async def test_the_task_fails(error: BaseException) -> None:
    """G11: what the task raises cancels the body and leaves unwrapped, also if the body has a nursery in it."""
    for nested in False, True:
        task = Task(error)
        with pytest.raises(type(error)) as caught:  # noqa: PT012
            async with task.beside():
                task.stopped.set()
                if nested:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(trio.sleep_forever)
                        nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        assert caught.value is error


async def test_the_task_fails_when_told() -> None:
    """G11: so does what it raises after the body has ended."""
    with pytest.raises(OSError, match="late"):
        async with Task(OSError("late")).beside():
            pass


async def test_both_fail() -> None:
    """G11, G18: with an exception of the body's beside it, both leave in a group; nothing else is in it."""

    async def body(task: Task) -> None:
        async with task.beside():
            task.stopped.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("body")

    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="body")), OSError):
        await body(Task(OSError("task")))


@pytest.mark.parametrize("grouped", [False, True])
async def test_an_echo_is_no_failure(grouped: bool) -> None:
    """G11: a call of the body that failed because the task did does not wrap what the task raised."""
    task = Task(KeyboardInterrupt())
    echo: Exception = DisconnectedError(DisconnectReason(DisconnectKind.INTERNAL_ERROR), Certainty.UNKNOWN)
    with pytest.raises(KeyboardInterrupt):
        async with task.beside():
            raise ExceptionGroup("g", [echo]) if grouped else echo


async def test_another_disconnect_is_a_failure() -> None:
    """G11: a call of the body that failed for another reason is not lost."""
    task = Task(OSError())
    with pytest.RaisesGroup(DisconnectedError, OSError):
        async with task.beside():
            raise DisconnectedError(DisconnectReason(DisconnectKind.REMOTE_HANGUP), Certainty.UNKNOWN)


async def test_cancelling_its_own_scope() -> None:
    """G18: the scope around the body ends the body without an exception of its own."""
    for nested in False, True:
        task = Task()
        async with task.beside() as scope:
            scope.cancel()
            if nested:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
        assert task.over


async def test_the_task_notices_by_itself() -> None:
    """G18: a task that sees the cancellation itself may raise it: one Cancelled leaves."""
    with trio.CancelScope() as scope:
        async with alongside(trio.sleep_forever, lambda _exc: None, "task"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_what_the_nursery_raises_is_not_lost() -> None:
    """G18: a `stop` that fails is an error."""

    def stop(_exc: BaseException | None) -> None:
        raise OSError("stop")

    with pytest.RaisesGroup(OSError):
        async with alongside(trio.lowlevel.checkpoint, stop, "task"):
            pass


def test_raise_all() -> None:
    """G23: what was gathered is raised: one as it is, several in a group."""
    raise_all("m", [])
    with pytest.raises(KeyboardInterrupt):
        raise_all("m", [KeyboardInterrupt()])
    with pytest.RaisesGroup(KeyboardInterrupt, ValueError):
        raise_all("m", [KeyboardInterrupt(), ValueError()])


def test_only_cancelled() -> None:
    """G18: no exception is not a cancellation."""
    assert not only_cancelled(None)
    assert not only_cancelled(ValueError())
