# Services: told of the detach, shut down in reverse, each within its bound, no error lost.

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from orc_trio.services import Services
from session_fakes import LOCAL, Recorder


class Gathered(Services):
    """Services whose grave failures are kept."""

    def __init__(self, bound: float = 5) -> None:
        self.failed: list[BaseException] = []
        super().__init__(bound, inside=nullcontext, fail=self.failed.append)


def with_recorders(number: int, bound: float = 5) -> tuple[Gathered, list[Recorder], list[str]]:
    services, log = Gathered(bound), list[str]()
    recorders = [Recorder(str(i), log) for i in range(number)]
    for recorder in recorders:
        services.add(recorder)
    return services, recorders, log


async def test_order() -> None:
    """G23: on_detach for all, in order; then on_shutdown, in reverse; each once."""
    services, recorders, log = with_recorders(3)
    await services.tell_detached(LOCAL)
    await services.tell_detached(LOCAL)
    await services.shut_down(LOCAL)
    assert log == [f"{i} detached" for i in (0, 1, 2)] + [f"{i} shut down" for i in (2, 1, 0)]
    assert [recorder.reason for recorder in recorders] == [LOCAL] * 3
    assert services.errors == []


async def test_the_default_does_nothing() -> None:
    """G23: a service overrides what is of interest."""
    services = Gathered()
    services.add(orc_trio.Service())
    await services.tell_detached(None)
    await services.shut_down(None)
    assert services.errors == []


async def test_added_while_telling() -> None:
    """G23: a service added by an on_detach is told too, before any on_shutdown."""
    services, (first, _), log = with_recorders(2)

    async def add() -> None:
        services.add(Recorder("late", log))

    first.detaching = add
    await services.tell_detached(LOCAL)
    await services.shut_down(LOCAL)
    assert log == ["0 detached", "1 detached", "late detached", "late shut down", "1 shut down", "0 shut down"]


async def test_added_while_shutting_down() -> None:
    """G23: a service added by an on_shutdown is not lost: told of the detach first, then shut down."""
    services, (_, last), log = with_recorders(2)

    async def add() -> None:
        services.add(Recorder("late", log))

    last.shutting_down = add
    await services.tell_detached(LOCAL)
    await services.shut_down(LOCAL)
    assert log == ["0 detached", "1 detached", "1 shut down", "late detached", "late shut down", "0 shut down"]


async def test_told_by_two_tasks() -> None:
    """G23: two who tell do not tell twice, and both wait until all are told."""
    services, recorders, log = with_recorders(3)
    recorders[0].detaching = trio.testing.wait_all_tasks_blocked

    async def tell() -> None:
        await services.tell_detached(LOCAL)
        log.append("told")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        nursery.start_soon(tell)
    assert log == ["0 detached", "1 detached", "2 detached", "told", "told"]


async def test_errors_are_gathered() -> None:
    """G23: one service's error neither stops the others nor is lost."""
    services, recorders, log = with_recorders(3)

    def failing(error: BaseException) -> Any:
        async def fail() -> None:
            raise error

        return fail

    errors = [ValueError(i) for i in range(6)]
    for i, recorder in enumerate(recorders):
        recorder.detaching = failing(errors[i])
        recorder.shutting_down = failing(errors[5 - i])
    await services.tell_detached(LOCAL)
    await services.shut_down(LOCAL)
    assert len(log) == 6
    assert services.errors == errors
    assert services.failed == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
async def test_grave_errors(error: BaseException) -> None:
    """G11, G23: what is no Exception goes to the owner, and does not stop the others."""
    services, (first, _), log = with_recorders(2)

    async def fail() -> None:
        raise error

    first.detaching = first.shutting_down = fail
    await services.tell_detached(LOCAL)
    await services.shut_down(LOCAL)
    assert len(log) == 4
    assert services.errors == []
    assert services.failed == [error, error]


async def test_a_kept_cancelled() -> None:
    """G23: a Cancelled that nobody sent (the service had kept it) is an error like another, and cancels nobody."""
    services, (first, _), log = with_recorders(2)
    kept = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            kept.append(exc)
            raise

    async def fail() -> None:
        raise kept[0]

    first.detaching = fail
    await services.tell_detached(LOCAL)
    assert log == ["0 detached", "1 detached"]
    assert "on_detach of 0" in str(services.errors)


async def test_a_hanging_service_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """G23: each has its bound; running out of it is an error that names it."""
    services, recorders, log = with_recorders(2, bound=7)
    for recorder in recorders:
        recorder.detaching = recorder.shutting_down = trio.sleep_forever
    await services.tell_detached(LOCAL)
    assert trio.current_time() == 14
    await services.shut_down(LOCAL)
    assert trio.current_time() == 28
    assert len(log) == 4
    assert [type(error) for error in services.errors] == [TimeoutError] * 4
    assert "on_detach of 0 did not end within 7 s" in str(services.errors[0])
    assert "on_shutdown of 1" in str(services.errors[2])


async def test_each_is_shielded() -> None:
    """G23: each runs shielded: it may await, whatever happens around it."""
    services, recorders, log = with_recorders(2)
    scope = trio.CancelScope()

    async def cancel() -> None:
        scope.cancel()
        await trio.lowlevel.checkpoint()
        log.append("still here")

    for recorder in recorders:
        recorder.detaching = cancel
    with scope:
        await services.tell_detached(LOCAL)
    assert log == ["0 detached", "still here", "1 detached", "still here"]
    assert services.errors == []


def test_errors_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """G23: errors that cannot be raised are told to on_error, or logged; also if on_error itself fails."""
    services = Gathered()
    services.errors = [ValueError("first"), ValueError("second")]
    told: list[Exception] = []
    services.report_errors(told.append)
    assert told == services.errors
    assert not caplog.records

    services.report_errors(None)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == services.errors
    caplog.clear()

    def fail(_exc: Exception) -> None:
        raise OSError("on_error")

    services.report_errors(fail)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {"first", "second", "on_error"}


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_a_service_that_cannot_be_shown(how: str, autojump_clock: trio.testing.MockClock) -> None:
    """G23: a service whose ``repr`` fails is told like any other, and named by its type where it has failed."""

    class Nameless(orc_trio.Service):
        def __repr__(self) -> str:
            raise LookupError("nameless")

        async def on_detach(self, reason: orc_trio.DisconnectReason | None) -> None:
            if how == "hangs":
                await trio.sleep_forever()
            raise trio.Cancelled._create()

        async def on_shutdown(self) -> None:
            log.append("nameless shut down")

    services, _, log = with_recorders(1)
    services.add(Nameless())
    services.add(Recorder("1", log))
    await services.tell_detached(LOCAL)
    await services.shut_down(LOCAL)
    assert log == ["0 detached", "1 detached", "1 shut down", "nameless shut down", "0 shut down"]
    (error,) = services.errors
    assert "Nameless" in str(error)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_an_on_error_that_is_interrupted(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """G23: the errors of which it was not told are in the log."""
    services, _, _ = with_recorders(0)
    services.errors += [ValueError(f"number {number}") for number in range(3)]

    def on_error(exc: Exception) -> None:
        if str(exc) == "number 1":
            raise error

    with pytest.raises(type(error)):
        services.report_errors(on_error)
    assert "number 0" not in caplog.text
    assert "number 2" in caplog.text
