"""The bench a check works at: fresh pairs, waits that are bounded, and one clear error in the end.

Rules
-----
* A check fails by `AssertionError`, whatever raised what where: nurseries' groups are opened, anything unexpected that
  comes out of the access is a breach too, and of several breaches the others are notes of the first.
* Nothing is waited for without a bound.  `Bench.soon` bounds one step and says what did not happen; behind it stands
  a watchdog: when nothing was finished for a long time, it writes down where every task stands, and cancels the check
  (`Hung`).  What cannot be cancelled either is for whoever runs the checks in a process of their own.
* What a pair cannot do is remembered, so that a verdict can say what was left out.
* Bounds are short.  In a run of its own a check has a clock that does not count what the machine had no time for.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NoReturn, TypeAlias

import attrs
import trio

from orc_trio.testing.conformance.pair import AccessPair, NotApplicable, PairFactory
from orc_trio.testing.leaks import describe_task, tasks_of_this_run

__all__ = ["Bench", "Check", "Hung", "all_checks", "check", "expect", "fail", "leaves"]

_COMMON: Final = """\
Args:
    factory: Makes the pairs.

Raises:
    AssertionError: The guarantee is broken; the message says what was expected, what happened, and why it matters.
    NotApplicable: The pairs lack what the check needs.

Checkpoints:
    Always.

Cancellation:
    Ends it; the pairs are left.
"""
"""What is true of every check."""
_FACTORY_BOUND: Final = 60.0  # as long as nothing is known of its pairs
CheckFunction: TypeAlias = Callable[[PairFactory], Awaitable[None]]


class Hung(AssertionError):
    """A check did not come to its end; its text says where everybody stands."""


def fail(*, expected: str, got: str, why: str) -> NoReturn:
    """Report a breach.

    Args:
        expected: What should have happened.
        got: What happened.
        why: Why it matters.
    """
    raise AssertionError(f"expected: {expected}\nhappened: {got}\nit matters: {why}")


def expect(condition: object, *, expected: str, got: str, why: str) -> None:
    """Report a breach unless something holds."""
    if not condition:
        fail(expected=expected, got=got, why=why)


@attrs.frozen(eq=False)
class Check:
    """One check.

    Attributes:
        guarantee: Its number: ``"G12"``.
        title: Its name: ``"disconnect is for everyone"``.
        function: What checks it: takes a factory, raises `AssertionError` or `NotApplicable`.
        body: The same, at a bench; its docstring says what is done.
    """

    guarantee: str
    title: str
    function: CheckFunction
    body: Callable[[Bench], Awaitable[None]]

    def __str__(self) -> str:
        return f"{self.guarantee} {self.title}"

    async def run(self, factory: PairFactory, *, on_hang: Callable[[str], object] | None = None) -> str:
        """Run it.

        Args:
            factory: Makes the pairs.
            on_hang: Told of a hang as soon as it is found, before it is known whether it can be cancelled.

        Returns:
            What was left out, because the pairs cannot do it; or "".

        Raises:
            AssertionError: A breach.
            NotApplicable: The pairs lack what it needs.

        Checkpoints:
            Always.

        Cancellation:
            Ends it; the pairs are left.
        """
        bench = Bench(factory, on_hang)
        try:
            await bench.run(self)
        except (AssertionError, NotApplicable) as exc:
            exc.add_note(str(self))
            raise
        return f"left out what needs {', '.join(bench.lacking)}" if bench.lacking else ""


_checks: dict[str, Check] = {}


def all_checks() -> list[Check]:
    """All checks, in the order of the guarantees."""
    return sorted(_checks.values(), key=lambda entry: int(entry.guarantee[1:]))


def check(guarantee: str, title: str) -> Callable[[Callable[[Bench], Awaitable[None]]], CheckFunction]:
    """A decorator that makes a public check, and one of `all_checks`, of what is done at a bench."""

    def decorate(body: Callable[[Bench], Awaitable[None]]) -> CheckFunction:
        async def function(factory: PairFactory) -> None:
            await entry.run(factory)

        for name in ("__name__", "__qualname__", "__module__"):
            setattr(function, name, getattr(body, name))
        function.__doc__ = f"{inspect.cleandoc(body.__doc__ or '')}\n\n{_COMMON}"
        entry = _checks[guarantee] = Check(guarantee, title, function, body)
        return function

    return decorate


class Bench:
    """Where one check works.

    Attributes:
        figures: A pair that was only looked at: what the factory's pairs can do, and their figures.
        lacking: What the check would have liked to use and the pairs do not have.
    """

    figures: AccessPair

    def __init__(self, factory: PairFactory, on_hang: Callable[[str], object] | None = None) -> None:
        self._factory = factory
        self._on_hang = on_hang
        self.lacking: dict[str, None] = {}
        self._deadline = 0.0
        self._bound = 0.0
        self._hung = ""
        self._breach: Exception | None = None

    def again(self) -> Bench:
        """The same bench in another Trio run."""
        bench = Bench(self._factory)
        bench.figures, bench._bound = self.figures, self._bound
        return bench

    # What the pairs can do

    def has(self, name: str) -> bool:
        """Whether the pairs have this hook or figure; if not, that is remembered."""
        if getattr(self.figures, name) is not None:
            return True
        self.lacking[name] = None
        return False

    def needs(self, *names: str) -> None:
        """Do not apply to pairs that lack one of these.

        Raises:
            NotApplicable: They lack one.
        """
        for name in names:
            if getattr(self.figures, name) is None:
                raise NotApplicable(f"the pair has no {name}")

    @property
    def places(self) -> int:
        """How many calls in one direction may be in flight; where there is no bound, a handful."""
        return self.figures.max_calls or 8

    @property
    def drain_bound(self) -> float:
        """Seconds within which an end whose peer is frozen is over, generously."""
        return self.figures.drain_timeout + self.figures.patience / 2

    # Its steps

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[AccessPair]:
        """A fresh pair.

        Checkpoints:
            As the factory.

        Cancellation:
            As the factory.
        """
        async with self._factory() as pair:
            self.progress()
            yield pair
        self.progress()

    @contextmanager
    def soon(self, what: str, why: str = "nobody may wait for ever", *, within: float | None = None) -> Iterator[None]:
        """Bound a step.

        Args:
            what: What shall happen, as in "the caller is released".
            why: Why it matters.
            within: Seconds; default: half the pairs' patience.
        """
        bound = self.figures.patience / 2 if within is None else within
        with trio.move_on_after(bound) as scope:
            yield
        if scope.cancelled_caught:
            fail(expected=what, got=f"not within {bound:g} s", why=why)
        self.progress()

    async def poll(self, condition: Callable[[], object], what: str, *, within: float | None = None) -> None:
        """Wait for something of which nobody tells.

        Args:
            condition: Whether it has happened.
            what: What shall happen, as for `soon`.
            within: Seconds; default: as for `soon`.

        Raises:
            AssertionError: It did not happen.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        with self.soon(what, within=within):
            await trio.lowlevel.checkpoint()
            while not condition():  # noqa: ASYNC110
                await trio.sleep(0.001)

    def progress(self) -> None:
        """Something was finished."""
        self._deadline = trio.current_time() + self._bound

    def remember(self, breach: Exception) -> None:
        """Somebody is about to raise this: it must not get lost if the way out of a pair hangs, and is cancelled."""
        self._breach = self._breach or breach

    # Running

    async def run(self, entry: Check) -> None:  # noqa: ASYNC910
        """Run a check at this bench.

        Raises:
            AssertionError: A breach.
            NotApplicable: The pairs lack what it needs.

        Checkpoints:
            Always.

        Cancellation:
            Ends it.
        """
        scope = trio.CancelScope()
        try:
            async with trio.open_nursery() as nursery:
                with scope:
                    await self._look(entry)
                    nursery.start_soon(self._watch, scope, name="conformance watchdog")
                    await entry.body(self)
                nursery.cancel_scope.cancel()
        except BaseException as exc:  # noqa: ASYNC103  (it raises)
            _raise_one(exc)
        if not self._hung:
            return  # noqa: ASYNC910
        if self._breach is None:
            raise Hung(self._hung)
        try:
            _raise_one(self._breach)
        except AssertionError as exc:
            exc.add_note(f"and then it hung: {self._hung}")
            raise

    async def _look(self, entry: Check) -> None:
        with trio.move_on_after(_FACTORY_BOUND) as scope:
            async with self._factory() as pair:
                if not isinstance(pair, AccessPair):
                    raise TypeError(f"a factory gives an AccessPair, not {pair!r}")
                self.figures = pair
        if scope.cancelled_caught:
            raise Hung(f"the factory did not open and close a pair within {_FACTORY_BOUND:g} s")
        pair = self.figures
        reason = pair.waived.get(entry.guarantee)
        if reason is not None:
            raise NotApplicable(f"not claimed: {reason}")
        self._bound = pair.patience + 4 * (pair.drain_timeout + (pair.liveness or 0.0))
        self.progress()

    async def _watch(self, scope: trio.CancelScope) -> None:  # noqa: ASYNC910
        while trio.current_time() < self._deadline:  # noqa: ASYNC110  (it moves)
            await trio.sleep_until(self._deadline)
        tasks = "\n".join(f"  {describe_task(task)}" for task in tasks_of_this_run())
        self._hung = f"nothing was finished for {self._bound:g} s; the tasks of this run:\n{tasks}"
        if self._on_hang is not None:
            self._on_hang(self._hung)
        scope.cancel()


def _raise_one(exc: BaseException) -> NoReturn:
    """Raise what says best why a check failed."""
    raised = leaves(exc)
    for leaf in raised:  # alone, so that whoever runs the checks knows it for what it is
        if isinstance(leaf, (KeyboardInterrupt, SystemExit)):
            raise leaf from None
    if any(isinstance(leaf, trio.Cancelled) for leaf in raised):
        raise exc
    breaches = [leaf for leaf in raised if isinstance(leaf, AssertionError)]
    others = [leaf for leaf in raised if not isinstance(leaf, (AssertionError, NotApplicable))]
    if breaches:
        breach = breaches[0]
        for leaf in [*breaches[1:], *others]:
            breach.add_note(f"also: {type(leaf).__name__}: {leaf}")
        raise breach from breach.__cause__  # and not from the groups it came out of
    if not others:
        raise raised[0] from None
    odd = others[0]
    raise AssertionError(f"an unexpected {type(odd).__name__} came out of the pair: {odd}") from odd


def leaves(exc: BaseException) -> list[BaseException]:
    """What is in a group, and in the groups in it; or the exception itself."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in leaves(each)]
    return [exc]
