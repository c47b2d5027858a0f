"""What is left when something is over: tasks, threads, descriptors, and objects that should be gone.

`no_leaks` is a context manager for tests, of orc_trio and of anything else; it works inside of a Trio run and outside.

Rules
-----
* What is there before the block is not its business.
* *Tasks* are those of the current run's main task and its descendants.  System tasks, Trio's own among them, are
  others' business; a connection's task that waits for a call to serve is idle, and no leak.
* *Threads* that wait for work in Trio's thread cache are idle, and no leak.  A thread that is about to end, or to
  become idle, is given a second; it may still have a descriptor, so they are next.
* *Descriptors* are compared before the garbage collector runs: one that only it would close is a leak.
* *Objects* are watched by weak references; *payloads*, which cannot be weakly referenced, are found by what is in them.
  Both are looked for after the garbage has been collected.
* A block that raises is not looked at: its exception says more.
* Trio holds on to what a task was last resumed with, tracebacks included: after a cancellation, let a checkpoint be the
  last thing in a block.

Theory of payloads
------------------
A payload is made of a random marker, repeated.  Afterwards every bytes-like object that the garbage collector can reach
is searched for the marker: so copies and pieces are found too, and whoever holds one can be named.  Not found: what a C
extension holds out of the collector's sight; what only a variable of a function holds that is running at that moment
(your own, or another thread's); what was compressed, encrypted, or cut to pieces of less than 32 bytes; what is in no
memory of Python's, but in the kernel's.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
import traceback
import types
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

from orc_trio.handlers import waits_for_a_call

__all__ = [
    "LeakError",
    "Leaks",
    "describe_task",
    "no_leaks",
    "open_descriptors",
    "tasks_of_this_run",
    "wait_for_workers",
]

_MARKER_SIZE: Final = 16
_THREAD_GRACE: Final = 1.0


class LeakError(AssertionError):
    """Something is left.

    Attributes:
        left: One line for each thing.
    """

    def __init__(self, left: Iterable[str]) -> None:
        self.left: tuple[str, ...] = tuple(left)
        super().__init__("left behind:\n" + "\n".join(f"  {line}" for line in self.left))


class Leaks:
    """What one block watches.  Made by `no_leaks`."""

    def __init__(self) -> None:
        self._watched: list[tuple[str, weakref.ref[Any]]] = []
        self._markers: list[tuple[str, bytes]] = []

    def watch(self, thing: object, name: str = "") -> None:
        """Expect an object to be gone after the block.

        A variable of yours that holds it keeps it too.

        Args:
            thing: The object.
            name: For the message; default: its type.

        Raises:
            TypeError: It cannot be weakly referenced.
        """
        self._watched.append((name or f"a {type(thing).__qualname__}", weakref.ref(thing)))

    def payload(self, size: int, name: str = "") -> bytes:
        """Make bytes that are expected to be gone after the block, with every copy and every piece of them.

        Args:
            size: How many, at least 64.
            name: For the message.

        Returns:
            The bytes: 16 random ones, again and again.
        """
        if size < 4 * _MARKER_SIZE:
            raise ValueError(f"a payload that is to be found again has at least {4 * _MARKER_SIZE} bytes, not {size}")
        marker = os.urandom(_MARKER_SIZE)
        self._markers.append((name or f"a payload of {size} bytes", marker))
        return (marker * (size // _MARKER_SIZE + 1))[:size]

    def objects_left(self) -> list[str]:
        """What is still there of what was watched, one line for each."""
        left = []
        for name, reference in self._watched:
            if (thing := reference()) is not None:
                left.append(f"object: {name}{_held_by(thing)}")
        if self._markers:
            pieces, containers = _bytes_in_sight()
            while pieces:
                piece = pieces.pop()
                for name, marker in self._markers:
                    if _contains(piece, marker):
                        holders = _held_by(piece, containers)
                        left.append(f"payload: {name}, {len(piece)} bytes of it as {type(piece).__name__}{holders}")
        return left


@contextmanager
def no_leaks(*, let_go: bool = False) -> Iterator[Leaks]:
    """Fail if a block leaves anything behind; see the module for what that means.

    Args:
        let_go: Allow threads that still run a function of orc_trio's whose caller has left: they cannot be stopped.

    Yields:
        Where to say which objects and payloads are expected to be gone.

    Raises:
        LeakError: Something is left; the message names it.
    """
    leaks = Leaks()
    tasks = {id(task) for task in tasks_of_this_run()}
    threads = {id(thread) for thread in threading.enumerate() if _describe_thread(thread) is not None}
    descriptors = open_descriptors()
    yield leaks
    left = [f"thread: {line}" for line in _threads_left(threads, let_go)]
    left += [f"descriptor: {number}: {what}" for number, what in open_descriptors().items() - descriptors.items()]
    now = [task for task in tasks_of_this_run() if not waits_for_a_call(task)]
    left += [f"task: {describe_task(task)}" for task in now if id(task) not in tasks]
    # A collection takes its time, and most often there is nothing left for it to do; or only what finalizers let go.
    objects: list[str] = []
    while (found := leaks.objects_left()) != objects:
        objects = found
        gc.collect()
    left += objects
    if left:
        raise LeakError(left)


# Tasks


def tasks_of_this_run() -> list[trio.lowlevel.Task]:
    """The current Trio run's main task and its descendants; none outside of a run."""
    if not trio.lowlevel.in_trio_run():
        return []
    root = trio.lowlevel.current_root_task()
    if root is None:
        return []
    main: Iterable[trio.lowlevel.Task] = ()
    if trio.lowlevel.in_trio_task():
        # The child of the root that we descend from: the main task, unless this is a system task.
        task = trio.lowlevel.current_task()
        while task.parent_nursery is not None and task.parent_nursery.parent_task is not root:
            task = task.parent_nursery.parent_task
        main = (task,)
    found = list(main)
    for task in found:  # grows meanwhile
        for nursery in task.child_nurseries:
            found += nursery.child_tasks
    return found


def describe_task(task: trio.lowlevel.Task) -> str:
    """A task's name, and where it waits."""
    where = ""
    for frame, line in task.iter_await_frames():
        if not frame.f_globals.get("__name__", "").startswith(("trio.", "contextlib")):
            where = f", waits in {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{line})"
    return f"{task.name}{where}"


# Threads


def _threads_left(before: set[int], let_go: bool) -> list[str]:
    patience = time.monotonic() + _THREAD_GRACE
    while True:
        left = [
            line
            for thread in threading.enumerate()
            if id(thread) not in before and (line := _describe_thread(thread, let_go)) is not None
        ]
        if not left or time.monotonic() > patience:
            return left
        time.sleep(0.001)


def wait_for_workers() -> None:
    """Block until Trio's worker threads are idle, a second at most: one that was let go may have a descriptor."""
    patience = time.monotonic() + _THREAD_GRACE
    while time.monotonic() < patience and any(map(_is_busy_worker, threading.enumerate())):
        time.sleep(0.001)


def _is_busy_worker(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or -1)
    return _describe_thread(thread) is not None and any(
        each.f_globals.get("__name__") == "trio._core._thread_cache" for each, _ in traceback.walk_stack(frame)
    )


def _describe_thread(thread: threading.Thread, let_go: bool = False) -> str | None:
    """What a thread does; None: nothing that matters."""
    frame = sys._current_frames().get(thread.ident or -1)
    if frame is None:
        return None  # it has ended, or not begun
    if frame.f_code.co_name == "_work" and frame.f_globals.get("__name__") == "trio._core._thread_cache":
        return None  # idle: busy ones are deeper in
    where = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
    outer: types.FrameType | None = frame
    while outer is not None:
        if let_go and outer.f_globals.get("__name__") == "orc_trio.dispatch":
            return None
        outer = outer.f_back
    return f"{thread.name}, in {where}"


# Descriptors


def open_descriptors() -> dict[int, str]:
    """What is open in this process: what each descriptor is, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the directory itself, which was open while it was listed
            what = os.readlink(f"/proc/self/fd/{name}")
            found[int(name)] = f"{what}{_describe_socket(int(name))}" if what.startswith("socket:") else what
    return found


def _describe_socket(number: int) -> str:
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as duplicate:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            return f", {duplicate.family.name}"
        host, port, *_ = duplicate.getsockname()
        return f", {duplicate.family.name} {host}:{port}"
    return ""


# Objects


def _bytes_in_sight() -> tuple[list[Any], list[object]]:
    """Every bytes-like object that something holds which the garbage collector knows.

    Returns:
        These objects, and the containers among their holders that it does not track: those of nothing but atoms.
    """
    bytes_like = _with_subclasses(bytes) | _with_subclasses(bytearray) | {memoryview}
    wanted = bytes_like | {dict, tuple}
    found: dict[int, Any] = {}
    untracked: dict[int, object] = {}
    look = gc.get_referents(*gc.get_objects())
    while look:
        deeper: dict[int, object] = {}
        # First by type alone, since there may be millions.
        for each in [each for each in look if type(each) in wanted]:
            if type(each) in bytes_like:
                if _size(each) >= 2 * _MARKER_SIZE:  # shorter ones are no piece that counts; one is the marker itself
                    found[id(each)] = each
            elif not gc.is_tracked(each):
                deeper[id(each)] = each
        look = gc.get_referents(*(each for key, each in deeper.items() if key not in untracked))
        untracked |= deeper
    untracked.pop(id(untracked), None)  # a closure of this function holds it
    return list(found.values()), list(untracked.values())


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))


def _size(each: Any) -> int:
    try:
        return len(each)
    except (ValueError, TypeError):  # a memoryview that was released, or that has no dimensions
        return 0


def _contains(found: bytes | bytearray | memoryview, marker: bytes) -> bool:
    if isinstance(found, memoryview):
        with suppress(ValueError, NotImplementedError):
            return marker in bytes(found)
        return False  # released meanwhile
    return marker in found


def _held_by(thing: object, containers: Sequence[object] = ()) -> str:
    """Who holds an object, as far as can be told.

    Args:
        thing: The object.
        containers: What may hold it without being tracked by the garbage collector.
    """
    told = dict.fromkeys(_holders(thing, containers))
    return f", held by {' and '.join(told)}" if told else ""


def _holders(thing: object, containers: Sequence[object], depth: int = 4) -> list[str]:
    told: list[str] = []
    for holder in gc.get_referrers(thing):
        # A frame that is running: ours, among others.
        if not isinstance(holder, (types.FrameType, types.CellType)) and holder not in (told, containers):
            told.append(_describe_holder(holder, thing))
    for holder in containers if depth else ():
        if any(each is thing for each in gc.get_referents(holder)):
            told += _holders(holder, containers, depth - 1) or [_describe_holder(holder, thing)]
    return told


def _describe_holder(holder: object, thing: object) -> str:
    if isinstance(holder, (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)):
        return f"a variable of {holder.__qualname__}"
    if isinstance(holder, dict):
        names = [repr(key) for key, value in holder.items() if value is thing]
        return f"a dict under {', '.join(names)}"
    if isinstance(holder, (list, tuple, set)):
        return f"a {type(holder).__name__}"
    names = [name for name in _attributes(holder) if getattr(holder, name, None) is thing]
    return f"a {type(holder).__qualname__}{' as .' + names[0] if names else ''}"


def _attributes(holder: object) -> list[str]:
    slots = [name for kind in type(holder).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(holder, "__dict__", {}), *slots]
