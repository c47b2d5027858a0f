"""Where an interrupt (Ctrl-C) may strike: in the user's code, never in ours.

Theory
------
Python raises `KeyboardInterrupt` between any two instructions of the main thread.  In the middle of what must be one
step (a call is settled, and its caller is about to be woken) that loses a wake-up, and somebody waits for ever.  Trio
can hold an interrupt back while certain functions run, and gives it to the main task at its next checkpoint then.

Rules
-----
* Every function in which one of our tasks begins, and every one by which the user's tasks enter what has to be one
  step, is `uninterrupted`; so is all that these call.
* Whenever one of those calls the user's code, it does so through `interruptible` or `interruptible_async`: an interrupt
  ends a function that never comes back, and is what that function raises (G11).
* In other threads there are no interrupts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import CoroutineType, TracebackType
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

import trio

__all__ = ["interruptible", "interruptible_async", "uninterrupted", "uninterrupted_context"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=Callable[..., object])
P = ParamSpec("P")


def uninterrupted(function: F) -> F:
    """A decorator: while this function runs, an interrupt waits."""
    return trio.lowlevel.enable_ki_protection(function)


class _Uninterrupted(AbstractAsyncContextManager[T_co, bool | None]):
    def __init__(self, inner: AbstractAsyncContextManager[T_co, bool | None]) -> None:
        self._inner = inner

    @uninterrupted
    async def __aenter__(self) -> T_co:
        return await self._inner.__aenter__()

    @uninterrupted
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, exc, traceback)  # noqa: ASYNC102  (as it is bounded itself)


def uninterrupted_context(
    make: Callable[P, AbstractAsyncContextManager[T_co, bool | None]],
) -> Callable[P, AbstractAsyncContextManager[T_co, bool | None]]:
    """A decorator, above `contextlib.asynccontextmanager`: while the block is entered or left, an interrupt waits.

    One that came in contextlib's part of it would leave the function where it is, in the middle of its nurseries.
    """

    @wraps(make)
    def make_uninterrupted(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T_co, bool | None]:
        return _Uninterrupted(make(*args, **kwargs))

    return make_uninterrupted


@trio.lowlevel.disable_ki_protection
def interruptible(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call a plain function of the user's."""
    return function(*args)


@trio.lowlevel.disable_ki_protection
async def interruptible_async(function: Callable[[*Ts], Any], *args: *Ts) -> Any:  # noqa: ASYNC910
    """Call a function of the user's, and await what it returns, if that can be awaited.

    Checkpoints:
        If the function does.

    Cancellation:
        Is the function's.
    """
    answer = function(*args)
    if isinstance(answer, CoroutineType) or inspect.isawaitable(answer):
        return await answer
    return answer  # noqa: ASYNC910
