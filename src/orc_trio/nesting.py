"""Who is serving a call at this moment: the mark that makes a call nested (G7) and a disconnect non-waiting (G12).

Rules
-----
* A handler's task carries a `Serving` in its context.  Child tasks and `trio.to_thread` threads inherit contexts, so
  they carry it too, and so does what they do through a thread portal.
* Who waits for a disconnect is decided by task ancestry, not by the mark: a task that a handler started elsewhere has
  inherited the mark, and can wait.  Only for a thread, which has no ancestry, the mark decides: what a thread asks for
  by ``trio.from_thread`` is done by the task that waits for it, or by a system task with the thread's context.
* A connection may be opened inside a handler of another one: then who serves its calls serves the other's too.
* The mark counts only while its call is being served: a task that outlives the handler makes ordinary calls again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar

import attrs
import trio

__all__ = ["Serving", "descends_from", "enter", "for_thread", "is_within", "serves", "serving", "started"]


@attrs.define(eq=False)
class Serving:
    """One call being served.

    Attributes:
        by: The connection (or other access) that serves it.
        nested: Whether it was itself made while serving a call.
        outer: The call that was being served where the connection was opened, if any.
        active: Until it is answered.
        started: From the step in which its function is called; in a thread, that may be later.
        name: That function's name, as soon as it is known.
    """

    by: object
    nested: bool = False
    outer: Serving | None = None
    active: bool = True
    started: bool = False
    name: str = ""


_current: ContextVar[Serving | None] = ContextVar("orc_trio_serving", default=None)


def serving() -> Serving | None:
    """The call that the current task or thread is serving, if any."""
    mark = _current.get()
    return mark if mark is not None and mark.active else None


def serves(by: object) -> bool:
    """Whether the current task or thread is serving a call of ``by``, perhaps by way of another connection's."""
    mark = _current.get()
    while mark is not None:
        if mark.active and mark.by is by:
            return True
        mark = mark.outer
    return False


def enter(mark: Serving) -> None:
    """Mark the current context as serving a call.  For a task (or context) made for that call alone."""
    mark.outer = _current.get()
    _current.set(mark)


def started(value: bool = True, name: str = "") -> None:
    """Say that the function of the call being served here is called in this very step; or (False) that it waits."""
    if (mark := _current.get()) is not None:
        mark.started = value
        mark.name = name or mark.name


def for_thread() -> bool:
    """Whether the current task does what a thread asked for and nobody waits for: it begins in a system task.

    While the main task lives.  When it has ended everything that it owns is over, and the others are being cancelled.
    """
    lineage = list(_lineage())
    if len(lineage) < 2:
        return False  # the root task itself: it runs what is left of generators when the run ends
    top, root = lineage[-2:]
    return top.parent_nursery is not root.child_nurseries[-1]  # the last is the one in which the main task runs


def is_within(ancestor: trio.lowlevel.Task) -> bool:
    """Whether the current task is ``ancestor``, or at any depth a child of it."""
    return any(task is ancestor for task in _lineage())


def descends_from(nursery: trio.Nursery | None) -> bool:
    """Whether the current task is, at any depth, a child of ``nursery``."""
    return nursery is not None and any(task.parent_nursery is nursery for task in _lineage())


def _lineage() -> Iterator[trio.lowlevel.Task]:
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None:
        yield task
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
