"""A background task that belongs to the body of an ``async with``.

Rules (G18)
-----------
* When the body ends, however it ends, the task is told to stop and waited for.  If that is cancelled, the task is told
  again and waited for all the same; how long it takes then is for the task to bound.
* The body's own exception leaves unwrapped; so does its `trio.Cancelled`.
* What the task raises cancels the body and leaves unwrapped; with an exception of the body's beside it, both leave in
  a group.  That a call in the body failed because the task did is no such exception.

The task never sees the cancellation of its surroundings as its end: it is told by ``stop``, with the body's exception.
(It may also notice by itself, and then raise `trio.Cancelled`: the body does too, and that is the one that leaves.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from orc_trio.exceptions import DisconnectedError
from orc_trio.interrupts import uninterrupted, uninterrupted_context
from orc_trio.reasons import DisconnectKind

__all__ = ["alongside", "only_cancelled", "raise_all"]


@uninterrupted_context
@asynccontextmanager
@uninterrupted
async def alongside(
    task: Callable[[], Awaitable[None]], stop: Callable[[BaseException | None], None], name: str
) -> AsyncIterator[trio.CancelScope]:
    """Run ``task`` beside the body; see the module's header.

    Args:
        task: The background task.
        stop: Called when the body has ended, with its exception or None; again if the wait after that is cancelled or
            interrupted, with that exception.
        name: The task's name.

    Yields:
        The scope around the body; cancelling it ends the body without an exception.
    """
    body_error: BaseException | None = None
    task_error: BaseException | None = None
    done = trio.Event()
    own = False

    @uninterrupted
    async def child() -> None:  # noqa: ASYNC910
        nonlocal task_error
        try:
            await task()
        except trio.Cancelled:
            raise
        except BaseException as exc:
            task_error = exc
            nursery.cancel_scope.cancel()
        finally:
            done.set()

    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(child, name=name)
            try:
                yield nursery.cancel_scope
            except BaseException as exc:  # noqa: ASYNC103
                body_error = exc
            stop(body_error)
            with trio.CancelScope() as leaving:
                while True:
                    try:
                        await done.wait()
                        break
                    except BaseException as exc:  # noqa: ASYNC103
                        # Cancelled or interrupted while leaving: from here on the task has to hurry.
                        if body_error is None or not isinstance(exc, trio.Cancelled):
                            body_error = exc
                        stop(exc)
                        leaving.shield = True
            own = nursery.cancel_scope.cancel_called
    except BaseExceptionGroup as group:
        # Only the child's Cancelled can be here, and then the body is being cancelled too.
        if not only_cancelled(group):
            raise
    if task_error is not None:
        body_error = _without(body_error, lambda exc: isinstance(exc, trio.Cancelled) or _is_echo(exc))
        if body_error is None:
            raise task_error
        raise BaseExceptionGroup("both the body and its background task failed", [body_error, task_error])
    if own:
        body_error = _without(body_error, lambda exc: isinstance(exc, trio.Cancelled))
    if body_error is not None:
        raise body_error
    await trio.lowlevel.checkpoint_if_cancelled()


def only_cancelled(exc: BaseException | None) -> bool:
    """Whether this is `trio.Cancelled`, or a group of nothing else: what a body with a nursery in it is left with."""
    return exc is not None and _without(exc, lambda leaf: isinstance(leaf, trio.Cancelled)) is None


def raise_all(message: str, failures: list[BaseException]) -> None:
    """Raise what was gathered: one as it is, several in a group."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise BaseExceptionGroup(message, failures)


def _is_echo(exc: BaseException) -> bool:
    """What a call in the body hears when its connection ends because the background task failed."""
    return isinstance(exc, DisconnectedError) and exc.reason.kind is DisconnectKind.INTERNAL_ERROR


def _without(exc: BaseException | None, unwanted: Callable[[BaseException], bool]) -> BaseException | None:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(unwanted)[1]
    return None if exc is None or unwanted(exc) else exc
