# The conformance kit finds faults: accesses and controllers that are wrong in one point, each caught by the check of
# the guarantee that it breaks, for the reason that is meant.

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import attrs
import pytest
import trio

import orc_trio
from orc_trio import Certainty, DisconnectedError, DisconnectKind, DisconnectReason, WrapperFunctionError
from orc_trio.abc import AccessHost, ControllerAccess
from orc_trio.testing import (
    QUICK_LIMITS,
    AccessPair,
    Outcome,
    PairFactory,
    TrickleStream,
    connected_pair,
    run_conformance,
)
from orc_trio.testing.conformance.gate import Gate, gated
from orc_trio.testing.conformance.pair import NotApplicable
from orc_trio.testing.conformance.runner import run_entry, select
from orc_trio.testing.streams import WrappedStream

OnDisconnect: TypeAlias = Callable[[DisconnectReason], None]
LOCAL = DisconnectReason(DisconnectKind.LOCAL_HANGUP)
FAULTS: dict[tuple[str, str], PairFactory] = {}
"""By guarantee and what is wrong: pairs with that fault."""
SAYS: dict[tuple[str, str], str] = {}
"""What the check has to say of it."""
HANGS = 2.0
"""The patience with what hangs: enough for a busy machine, and not for ever."""
QUICK = attrs.evolve(QUICK_LIMITS, drain_timeout=0.2, liveness_timeout=0.4)


def fault(guarantee: str, says: str, **figures: Any) -> Callable[[Callable[..., PairFactory] | type], Any]:
    """A decorator for a faulty access, or a function that gives faulty pairs."""

    def decorate(made: Any) -> Any:
        key = (guarantee, made.__name__)
        FAULTS[key] = pairs(access=made, **figures) if isinstance(made, type) else made(**figures)
        SAYS[key] = says
        return made

    return decorate


memory = partial(connected_pair, "memory")


def same(thing: Any) -> Any:
    """Change nothing."""
    return thing


def pairs(
    *,
    access: Callable[[ControllerAccess], ControllerAccess] = same,
    controller: Callable[[Any], Any] = same,
    callback: Callable[[OnDisconnect], OnDisconnect] = same,
    opening: Callable[[Any], AbstractAsyncContextManager[Any]] = same,
    executor_stream: Callable[[Any], Any] = same,
    breaks: bool = False,
    limits: orc_trio.Limits = QUICK,
    **figures: Any,
) -> PairFactory:
    """Good pairs, but for one thing."""

    @asynccontextmanager
    async def factory() -> AsyncIterator[AccessPair]:
        gate = Gate()
        here, there = (gated(end, gate) for end in await memory())

        @asynccontextmanager
        async def open_controller(registry: Any, *, on_disconnect: OnDisconnect = same) -> AsyncIterator[Any]:
            opened = orc_trio.open_controller(here, registry, limits=limits, on_disconnect=callback(on_disconnect))
            async with opening(opened) as end:
                yield controller(end)

        inner: ControllerAccess = orc_trio.StreamControllerAccess(executor_stream(there), limits=limits)
        yield AccessPair(
            access=Breaks(inner, gate) if breaks else access(inner),
            open_controller=open_controller,
            cut=gate.cut,
            freeze=gate.freeze,
            thaw=gate.thaw,
            garble=there.garble,
            **{
                "max_message": limits.max_message,
                "max_calls": limits.max_calls,
                "drain_timeout": limits.drain_timeout,
                "liveness": limits.liveness_timeout,
            }
            | figures,
        )
        for end in (here, there):
            await trio.aclose_forcefully(end)

    return factory


class Access(ControllerAccess):
    """A good access, of which the faulty ones replace a method."""

    def __init__(self, inner: ControllerAccess) -> None:
        self.inner = inner

    async def run(self, host: AccessHost) -> DisconnectReason:
        return await self.inner.run(host)

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        return self.inner.begin_disconnect(reason)

    def begin_finish(self, within: float) -> DisconnectReason:
        return self.inner.begin_finish(within)

    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        return await self.inner.call_controller(tag, args, zero_copy=zero_copy)

    def statistics(self) -> orc_trio.ConnectionStatistics:
        return self.inner.statistics()


class Host:
    """What a good access sees of its session, of which the faulty ones replace a method."""

    def __init__(self, host: AccessHost) -> None:
        self.host = host

    @property
    def bootstrap(self) -> orc_trio.BootstrapInfo:
        return self.host.bootstrap

    def connected(self) -> None:
        self.host.connected()

    async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
        return await self.host.run_wrapper(tag, args, nested)

    def running(self) -> tuple[str, ...]:
        return self.host.running()


def hosting(host: type[Host]) -> Callable[[ControllerAccess], ControllerAccess]:
    """A good access to whose session a faulty host stands between."""

    class Hosting(Access):
        async def run(self, real: AccessHost) -> DisconnectReason:
            return await self.inner.run(host(real))

    return Hosting


async def detached(function: Callable[[], Awaitable[Any]], *, cancels: bool) -> Any:
    """Do something in a task that has neither our scopes nor our context."""
    done, scope, results = trio.Event(), trio.CancelScope(), list[Any]()

    async def task() -> None:
        with scope:
            try:
                results.append(await function())
            except Exception as exc:
                results.append(exc)
        done.set()

    trio.lowlevel.spawn_system_task(task)
    try:
        await done.wait()
    except trio.Cancelled:
        if cancels:
            scope.cancel()
        raise
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


# --- calls ---


@fault("G1", "settles", patience=HANGS)
class ForgetsPendingCalls(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except DisconnectedError as exc:
            if exc.certainty is Certainty.UNKNOWN:
                await trio.sleep_forever()
            raise


@fault("G1", "CallRefusedError")
def refusals_are_errors(**figures: Any) -> PairFactory:
    class Refuses(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            try:
                return await super().run_wrapper(tag, args, nested)
            except orc_trio.CallRefusedError as exc:
                raise WrapperFunctionError("Refused") from exc

    return pairs(access=hosting(Refuses), **figures)


@fault("G2", "settles", patience=HANGS)
class RegistersAfterTheDrain(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except DisconnectedError as exc:
            if exc.certainty is Certainty.NOT_SENT:
                await trio.sleep_forever()
            raise


@fault("G3", "has a result")
def a_cancelled_caller_tears_a_frame(**figures: Any) -> PairFactory:
    torn: list[Tearing] = []

    class Tearing(WrappedStream):
        tear = False

        def __init__(self, inner: trio.abc.Stream) -> None:
            super().__init__(TrickleStream(inner, 4096))
            torn[:] = [self]

        async def send_all(self, data: Any) -> None:
            if self.tear:
                self.tear, data = False, memoryview(data)[7:]
            await super().send_all(data)

    class Cancels(Access):
        async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
            try:
                return await self.inner.call_controller(tag, args)
            except trio.Cancelled:
                torn[0].tear = True
                raise

    return pairs(access=Cancels, executor_stream=Tearing, **figures)


@fault("G4", "it never ran")
class ClaimsThatNothingWasSent(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except DisconnectedError as exc:
            raise DisconnectedError(exc.reason, Certainty.NOT_SENT) from None


@fault("G5", "the function is cancelled", patience=HANGS)
class CancelsDoNotTravel(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        return await detached(partial(self.inner.call_controller, tag, args), cancels=False)


@fault("G5", "a cancelled caller is released", patience=HANGS)
class CancelledCallersWaitForTheAnswer(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except trio.Cancelled:
            with trio.move_on_after(2, shield=True):
                while self.inner.statistics().abandoned_calls:
                    await trio.sleep(0.001)
            raise


@fault("G6", "is served with at most as much time")
class DeadlinesDoNotTravel(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        return await detached(partial(self.inner.call_controller, tag, args), cancels=True)


@fault("G7", "taken", patience=HANGS)
def functions_take_turns(**figures: Any) -> PairFactory:
    lock: list[trio.Lock] = []

    class TakesTurns(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            lock.append(trio.Lock())
            async with lock[0]:
                return await super().run_wrapper(tag, args, nested)

        def connected(self) -> None:
            lock.clear()
            super().connected()

    return pairs(access=hosting(TakesTurns), **figures)


@fault("G7", "recursions", patience=HANGS)
class CallsWithinCallsTakePlaces(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        return await detached(partial(self.inner.call_controller, tag, args), cancels=True)


@fault("G8", "NOT_SENT")
class WaitingCallsMayHaveRun(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except DisconnectedError as exc:
            raise DisconnectedError(exc.reason, Certainty.UNKNOWN) from None


@fault("G8", "calls are served at once", patience=HANGS)
def there_are_fewer_places_than_said(**figures: Any) -> PairFactory:
    return pairs(max_calls=QUICK.max_calls + 1, **figures)


@fault("G8", "is next")
def who_comes_last_is_served_first(**figures: Any) -> PairFactory:
    class LastFirst(Access):
        def __init__(self, inner: ControllerAccess) -> None:
            super().__init__(inner)
            self.places = QUICK.max_calls
            self.waiting: list[trio.Event] = []

        async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
            if not self.places:
                self.waiting.append(trio.Event())
                await self.waiting[-1].wait()
            self.places -= 1
            try:
                return await self.inner.call_controller(tag, args)
            finally:
                self.places += 1
                if self.waiting:
                    self.waiting.pop().set()

    return pairs(access=LastFirst, **figures)


@fault("G9", "HandlerFailed")
def the_text_of_an_accident_crosses(**figures: Any) -> PairFactory:
    class Tells(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            try:
                return await super().run_wrapper(tag, args, nested)
            except ValueError as exc:
                raise WrapperFunctionError(type(exc).__name__, str(exc)) from exc

    return pairs(access=hosting(Tells), **figures)


@fault("G9", "in its log")
def accidents_are_not_logged(**figures: Any) -> PairFactory:
    class SaysNothing(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            try:
                return await super().run_wrapper(tag, args, nested)
            except (ValueError, ExceptionGroup) as exc:
                raise WrapperFunctionError("HandlerFailed", "") from exc

    return pairs(access=hosting(SaysNothing), **figures)


@fault("G9", "UnknownHandlerTagError")
def unknown_addresses_answer(**figures: Any) -> PairFactory:
    class Answers(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            try:
                return await super().run_wrapper(tag, args, nested)
            except orc_trio.UnknownHandlerTagError:
                return b""

    return pairs(access=hosting(Answers), **figures)


@fault("G10", "WrapperFunctionError")
def errors_are_bytes(**figures: Any) -> PairFactory:
    class Bytes(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            try:
                return await super().run_wrapper(tag, args, nested)
            except WrapperFunctionError as exc:
                return f"error: {exc}".encode("utf-8", "replace")

    return pairs(access=hosting(Bytes), **figures)


# --- the end ---


@fault("G11", "fail with the one reason for which it ended: remote hang-up")
class CutIsCalledAHangUp(Access):
    async def run(self, host: AccessHost) -> DisconnectReason:
        end = await self.inner.run(host)
        broken = end.kind in (DisconnectKind.EOF_WITHOUT_HANGUP, DisconnectKind.TRANSPORT_ERROR)
        return DisconnectReason(DisconnectKind.REMOTE_HANGUP) if broken else end


@fault("G11", "callback is told")
def told_twice(**figures: Any) -> PairFactory:
    def twice(told: OnDisconnect) -> OnDisconnect:
        def tell(reason: DisconnectReason) -> None:
            told(reason)
            told(reason)

        return tell

    return pairs(callback=twice, **figures)


@fault("G11", "fail with the one reason")
class CallsAreToldSomethingElse(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except DisconnectedError as exc:
            raise DisconnectedError(attrs.evolve(exc.reason, detail="?"), exc.certainty) from None


@fault("G11", "interrupt")
def interrupts_are_errors(**figures: Any) -> PairFactory:
    class Swallows(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            try:
                return await super().run_wrapper(tag, args, nested)
            except trio.Cancelled:
                raise
            except BaseException as exc:
                if isinstance(exc, Exception):
                    raise
                raise WrapperFunctionError("Interrupted") from exc

    return pairs(access=hosting(Swallows), **figures)


class Controller:
    """A good controller, of which the faulty ones replace a method."""

    def __init__(self, end: orc_trio.Controller) -> None:
        self.end = end
        self.bootstrap = end.bootstrap

    async def call_wrapper(self, address: int, args: bytes) -> bytes:
        return await self.end.call_wrapper(address, args)

    async def disconnect(self) -> DisconnectReason:
        return await self.end.disconnect()

    async def wait_disconnected(self) -> DisconnectReason:
        return await self.end.wait_disconnected()


@fault("G12", "cleaning up")
def the_second_who_disconnects_does_not_wait(**figures: Any) -> PairFactory:
    class SecondReturns(Controller):
        first = True

        async def disconnect(self) -> DisconnectReason:
            await trio.lowlevel.checkpoint()
            if self.first:
                self.first = False
                return await self.end.disconnect()
            return LOCAL

    return pairs(controller=SecondReturns, **figures)


@fault("G12", "the function's task gets the cause", patience=HANGS)
def a_handler_waits_for_itself(**figures: Any) -> PairFactory:
    class Waits(Controller):
        async def disconnect(self) -> DisconnectReason:
            self.end.begin_disconnect()
            return await self.end.wait_disconnected()

    return pairs(controller=Waits, **figures)


@fault("G12", "goes on", patience=HANGS)
def a_cancelled_disconnect_is_given_up(**figures: Any) -> PairFactory:
    class GivesUp(Controller):
        async def disconnect(self) -> DisconnectReason:
            with trio.CancelScope() as scope:
                await trio.sleep(0.01)
            assert not scope.cancelled_caught
            return await self.end.disconnect()

    return pairs(controller=GivesUp, **figures)


@fault("G12", "a new one of the executor is refused")
class SoftIsHard(Access):
    def begin_finish(self, within: float) -> DisconnectReason:
        return self.inner.begin_disconnect()


@fault("G12", "a detach that gives calls a moment is over after it", patience=HANGS)
class SoftIsForEver(Access):
    def begin_finish(self, within: float) -> DisconnectReason:
        return self.inner.begin_finish(1000)


@fault("G13", "is running when it is over there")
def functions_outlive_the_end(**figures: Any) -> PairFactory:
    class Outlives(Host):
        async def run_wrapper(self, tag: int, args: Any, nested: bool = False) -> bytes:
            return await detached(partial(super().run_wrapper, tag, args, nested), cancels=True)  # type: ignore[no-any-return]

    return pairs(access=hosting(Outlives), **figures)


@fault("G14", "controller told")
def told_before_it_is_over(**figures: Any) -> PairFactory:
    told: list[OnDisconnect] = []

    def keep(callback: OnDisconnect) -> OnDisconnect:
        told[:] = [callback]
        return lambda _reason: None

    class TellsEarly(Controller):
        async def disconnect(self) -> DisconnectReason:
            if told:
                told.pop()(LOCAL)
            return await self.end.disconnect()

    return pairs(controller=TellsEarly, callback=keep, **figures)


class Breaks(Access):
    """Whoever disconnects breaks the way, and does not say goodbye."""

    def __init__(self, inner: ControllerAccess, gate: Gate) -> None:
        super().__init__(inner)
        self.gate = gate

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        cause = self.inner.begin_disconnect(reason)
        self.gate.sever()
        return cause


def hangs_up_by_breaking(**figures: Any) -> PairFactory:
    return pairs(breaks=True, **figures)


fault("G14", "has a result")(hangs_up_by_breaking)
fault("G16", "remote one")(hangs_up_by_breaking)


@fault("G15", "a drain timeout")
class DrainTimeoutIsCalledSuccess(Access):
    async def run(self, host: AccessHost) -> DisconnectReason:
        end = await self.inner.run(host)
        return end.cause if end.kind is DisconnectKind.DRAIN_TIMEOUT and end.cause else end


@fault("G15", "over although its peer is frozen", patience=HANGS)
def waits_longer_than_it_says(**figures: Any) -> PairFactory:
    return pairs(limits=attrs.evolve(QUICK, drain_timeout=3.0), drain_timeout=0.1, **figures)


class Mute(WrappedStream):
    """A stream that sends nothing any more when it has received what is no message."""

    muted = False

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        data = await super().receive_some(max_bytes)
        self.muted |= b"this is no message" in data
        return data

    async def send_all(self, data: Any) -> None:
        if self.muted:
            raise trio.BrokenResourceError
        await super().send_all(data)


@fault("G16", "tells the controller what was wrong")
def does_not_say_what_was_wrong(**figures: Any) -> PairFactory:
    return pairs(executor_stream=Mute, **figures)


class Deaf(WrappedStream):
    """A stream that does not hear its end."""

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        if data := await super().receive_some(max_bytes):
            return data
        await trio.sleep_forever()
        raise AssertionError


@fault("G17", "notices that the other end was killed", patience=HANGS)
def does_not_hear_the_end(**figures: Any) -> PairFactory:
    return pairs(executor_stream=Deaf, limits=attrs.evolve(QUICK, liveness_timeout=None), **figures)


@fault("G17", "a frozen peer is given up", patience=HANGS)
def there_is_no_liveness_check(**figures: Any) -> PairFactory:
    return pairs(limits=attrs.evolve(QUICK, liveness_timeout=None), liveness=0.3, **figures)


@fault("G18", "came out of the pair")
def cancelled_becomes_an_error(**figures: Any) -> PairFactory:
    @asynccontextmanager
    async def around(opened: Any) -> AsyncIterator[Any]:
        try:
            async with opened as end:
                yield end
        except trio.Cancelled:
            raise TimeoutError("it was cancelled") from None

    return pairs(opening=around, **figures)


@fault("G18", "the body's own exception")
def the_bodys_exception_is_in_a_group(**figures: Any) -> PairFactory:
    @asynccontextmanager
    async def around(opened: Any) -> AsyncIterator[Any]:
        async with trio.open_nursery(), opened as end:
            yield end

    return pairs(opening=around, **figures)


@fault("G18", "heard a goodbye")
class ACancelledOwnerBreaksTheWay(Access):
    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        if reason is not None and reason.kind is DisconnectKind.OWNER_CANCELLED:
            return self.inner.begin_disconnect(DisconnectReason(DisconnectKind.INTERNAL_ERROR))
        return self.inner.begin_disconnect(reason)


@fault("G19", "descriptor: ")
class LeavesADescriptor(Access):
    async def run(self, host: AccessHost) -> DisconnectReason:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        LEFT.append(descriptor)
        return await self.inner.run(host)


LEFT: list[int] = []


@fault("G19", "payload: ")
class KeepsPayloads(Access):
    kept: list[Any] = []  # noqa: RUF012

    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        self.kept.append(args[:100])
        return await self.inner.call_controller(tag, args)


@fault("G19", "complained about")
class Complains(Access):
    async def run(self, host: AccessHost) -> DisconnectReason:
        end = await self.inner.run(host)
        logging.getLogger("mine").warning("it ended: %s", end)
        return end


# --- the session ---


@fault("G20", "CONNECT_FAILED")
class ConnectedBeforeItIs(Access):
    async def run(self, host: AccessHost) -> DisconnectReason:
        host.connected()
        return await self.inner.run(host)


@fault("G21", "NOT_SENT")
class AnswersWhileItEnds(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except DisconnectedError as exc:
            raise orc_trio.NoControllerError(str(exc)) from exc


@fault("G22", "over at the executor", patience=HANGS)
class WaitsForThreads(Access):
    async def run(self, host: AccessHost) -> DisconnectReason:
        end = await self.inner.run(host)
        while host.running():
            await trio.sleep(0.001)
        return end


@fault("G23", "came out of the pair")
class RaisesAtTheEnd(Access):
    async def run(self, host: AccessHost) -> DisconnectReason:
        await self.inner.run(host)
        raise OSError("already closed")


@fault("G24", "came out of the pair")
class DisconnectsOnce(Access):
    begun = False

    def begin_disconnect(self, reason: DisconnectReason | None = None) -> DisconnectReason:
        if self.begun:
            raise RuntimeError("already disconnecting")
        self.begun = True
        return self.inner.begin_disconnect(reason)


# --- bad input ---


@fault("G25", "the conversation is over at the executor", patience=HANGS)
def garbage_is_ignored(**figures: Any) -> PairFactory:
    class Ignores(WrappedStream):
        async def receive_some(self, max_bytes: int | None = None) -> Any:
            while b"this is no message" in (data := await super().receive_some(max_bytes)):
                pass
            return data

    return pairs(executor_stream=Ignores, **figures)


@fault("G26", "MessageTooLargeError")
class CutsOffWhatIsTooLarge(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        return await self.inner.call_controller(tag, args[: QUICK.max_message])


@fault("G26", "a result that is too large is an error of that call")
class DisconnectsForWhatIsTooLarge(Access):
    async def call_controller(self, tag: int, args: Any, *, zero_copy: bool = False) -> Any:
        try:
            return await self.inner.call_controller(tag, args)
        except orc_trio.MessageTooLargeError:
            self.inner.begin_disconnect()
            raise


@pytest.fixture(autouse=True)
def nothing_kept() -> Any:
    """What faulty accesses keep on purpose is let go."""
    yield
    KeepsPayloads.kept.clear()
    while LEFT:
        os.close(LEFT.pop())


@pytest.mark.parametrize(("guarantee", "what"), FAULTS, ids=lambda part: part)
def test_a_fault_is_found(guarantee: str, what: str) -> None:
    """The check of the guarantee that it breaks finds a fault, and says what is wrong."""
    (subject,) = run_conformance(FAULTS[guarantee, what], only=[guarantee]).subjects
    (verdict,) = subject.verdicts
    assert verdict.outcome in (Outcome.FAILED, Outcome.HUNG), str(verdict)
    assert SAYS[guarantee, what] in verdict.why


def test_there_is_a_fault_for_every_check() -> None:
    """Each of the 26 checks can fail."""
    assert {guarantee for guarantee, _ in FAULTS} == {entry.guarantee for entry in select(())}


def test_without_a_fault_all_is_well() -> None:
    """What the faults are put into has none."""
    for entry in select(()):
        try:
            run_entry(entry, pairs(access=Access, controller=Controller, limits=QUICK_LIMITS))
        except NotApplicable:
            raise AssertionError(str(entry)) from None
