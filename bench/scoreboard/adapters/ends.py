"""What the adapters share: the two ends of a pair, and how they talk to the driver.

An adapter is a program that can be either end::

    python peer_NAME.py near EVENTS [ARGUMENT...]      calls; is told by the driver what to do
    python peer_NAME.py far EVENTS [ADDRESS]           answers; started by the near end, or by the peer's library

Both ends report to the driver through the named pipe EVENTS, one JSON object a line, with the system's monotonic clock
(the same for all processes).  The near end reads commands from its stdin, one JSON object a line:

======================================== ==========================================================================
``{"do": "call", "op": 1, "name": "x"}`` begin to call the far function ``x`` (``wait`` or ``echo``) as operation 1
``{"do": "close", "ops": [2, 3]}``       begin to close, once for each operation, all at the same time
``{"do": "cancel", "op": 1}``            cancel the caller of operation 1
======================================== ==========================================================================

What it reports of an operation is ``begun`` and ``settled``, with ``how`` (``result``, ``error``, ``cancelled``) and,
for an error, its type and text.  The far end reports ``hello`` with its process number, ``started`` when the function
``wait`` runs, and ``stopped`` when that ends for whatever reason.

An adapter says how its library connects, calls and closes, in that library's own words; everything else is here: one
way to be near for each style of concurrency (asyncio, Trio, threads; Twisted and gevent are in their one adapter).

Only the standard library, and Trio where the peer brings it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

FOREVER = 3600.0
"""Seconds for which the far function ``wait`` waits: longer than anybody watches."""

T = TypeVar("T")
_TEXT = 300  # a line must fit into the pipe at once


class Reporter:
    """Tells the driver what happens.  May be used from any thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._pipe = os.open(path, os.O_WRONLY)

    def __call__(self, did: str, **more: object) -> None:
        """Report one event, now."""
        event = {"at": time.monotonic(), "did": did, **more}
        os.write(self._pipe, json.dumps(event).encode() + b"\n")

    def settled(self, op: int, how: str, exc: BaseException | None = None) -> None:
        """Report the outcome of an operation."""
        if exc is None:
            self("settled", op=op, how=how)
        else:
            self("settled", op=op, how=how, type=type_name(exc), text=text_of(exc))


def type_name(exc: BaseException) -> str:
    """An exception's type as a person would look it up."""
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def text_of(exc: BaseException) -> str:
    """The beginning of an exception's text, in one line."""
    return " ".join(str(exc).split())[:_TEXT]


class Far:
    """The far end's two functions, and what the driver wants to know about them."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        report("hello", pid=os.getpid())

    async def wait_asyncio(self) -> None:
        """Wait until cancelled."""
        await self.wait_async(asyncio.sleep)

    async def wait_async(self, sleep: Callable[[float], Awaitable[object]]) -> None:
        """Wait until cancelled, by that library's way to sleep."""
        self._report("started")
        try:
            await sleep(FOREVER)
        finally:
            self._report("stopped")

    def wait_blocking(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """Wait, in a thread (or whatever ``sleep`` belongs to)."""
        self._report("started")
        try:
            sleep(FOREVER)
        finally:
            self._report("stopped")


def start_far(report: Reporter) -> str:
    """Start this program's far end as a server; what it prints first is its address."""
    process = subprocess.Popen([sys.executable, sys.argv[0], "far", report.path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process.stdout.readline().strip()


def listening(address: object) -> None:
    """At the far end: say where it listens."""
    print(address, flush=True)


def each_command(do: Callable[[dict[str, Any]], object]) -> None:
    """Read the driver's commands until there are no more."""
    for line in sys.stdin:
        do(json.loads(line))


def _listen(do: Callable[[dict[str, Any]], object]) -> None:
    threading.Thread(target=each_command, args=(do,), daemon=True).start()


class Event(Protocol):
    """An asyncio or a Trio event."""

    def set(self) -> None: ...
    async def wait(self) -> object: ...


class Near(Protocol):
    """What an adapter's connection can do."""

    async def call(self, name: str) -> object:
        """Call the far function of that name, and wait for its result."""

    async def close(self) -> object:
        """Close the connection, as the library's documentation says to."""


Connect = Callable[[Reporter], AbstractAsyncContextManager[Near]]


class Owned(Generic[T]):
    """A connection that only its opener may close, by leaving the block in which it was opened: that opener."""

    def __init__(self, manager: AbstractAsyncContextManager[T], leave: Event, left: Event) -> None:
        self.value: T
        self._manager = manager
        self._leave = leave
        self._left = left
        self._task: asyncio.Task[None] | None = None  # asyncio wants it kept

    @classmethod
    async def on_asyncio(cls, manager: AbstractAsyncContextManager[T]) -> Owned[T]:
        """Open it in a task of its own."""
        owned, opened = cls(manager, asyncio.Event(), asyncio.Event()), asyncio.get_running_loop().create_future()
        owned._task = asyncio.create_task(owned._own(lambda: opened.set_result(None)))
        await opened
        return owned

    @classmethod
    async def on_trio(cls, manager: AbstractAsyncContextManager[T], nursery: Any) -> Owned[T]:
        """Open it in a task of its own."""
        import trio

        owned, opened = cls(manager, trio.Event(), trio.Event()), trio.Event()
        nursery.start_soon(owned._own, opened.set)
        await opened.wait()
        return owned

    async def _own(self, opened: Callable[[], object]) -> None:
        async with self._manager as self.value:
            opened()
            await self._leave.wait()
        self._left.set()

    async def close(self) -> None:
        """Have it closed, and wait until it is."""
        self._leave.set()
        await self._left.wait()


async def drive_asyncio(connect: Connect, report: Reporter) -> None:
    """Do what the driver says, on asyncio."""
    async with connect(report) as near:
        loop, tasks = asyncio.get_running_loop(), {}

        async def operate(op: int, act: Callable[[], Awaitable[object]]) -> None:
            report("begun", op=op)
            try:
                await act()
            except asyncio.CancelledError as exc:
                report.settled(op, "cancelled", exc)
            except BaseException as exc:
                report.settled(op, "error", exc)
            else:
                report.settled(op, "result")

        def do(command: dict[str, Any]) -> None:
            match command["do"]:
                case "call":
                    op = command["op"]
                    tasks[op] = loop.create_task(operate(op, lambda: near.call(command["name"])))
                case "close":
                    for op in command["ops"]:
                        tasks[op] = loop.create_task(operate(op, near.close))
                case "cancel":
                    report("cancelling", op=command["op"])
                    tasks[command["op"]].cancel()

        report("connected")
        _listen(lambda command: loop.call_soon_threadsafe(do, command))
        await asyncio.sleep(FOREVER)


def near_asyncio(connect: Connect) -> Callable[[Reporter], None]:
    """The near end of a library for asyncio."""
    return lambda report: asyncio.run(drive_asyncio(connect, report))


def near_trio(connect: Connect) -> Callable[[Reporter], None]:
    """The near end of a library for Trio."""
    import trio

    async def main(report: Reporter) -> None:
        async with connect(report) as near, trio.open_nursery() as nursery:
            token, scopes = trio.lowlevel.current_trio_token(), {}

            async def operate(op: int, act: Callable[[], Awaitable[object]]) -> None:
                report("begun", op=op)
                with trio.CancelScope() as scopes[op]:
                    try:
                        await act()
                    except trio.Cancelled as exc:
                        report.settled(op, "cancelled", exc)
                        raise
                    except BaseException as exc:
                        report.settled(op, "error", exc)
                    else:
                        report.settled(op, "result")

            def do(command: dict[str, Any]) -> None:
                match command["do"]:
                    case "call":
                        nursery.start_soon(operate, command["op"], lambda: near.call(command["name"]))
                    case "close":
                        for op in command["ops"]:
                            nursery.start_soon(operate, op, near.close)
                    case "cancel":
                        report("cancelling", op=command["op"])
                        scopes[command["op"]].cancel()

            report("connected")
            _listen(lambda command: token.run_sync_soon(do, command))
            await trio.sleep_forever()

    return lambda report: trio.run(main, report)


class BlockingNear(Protocol):
    """What an adapter's connection can do where callers are threads."""

    def call(self, name: str) -> object:
        """Call the far function of that name, and wait for its result."""

    def close(self) -> object:
        """Close the connection, as the library's documentation says to."""


def near_threads(connect: Callable[[Reporter], BlockingNear]) -> Callable[[Reporter], None]:
    """The near end of a library whose callers are threads, which cannot be cancelled."""

    def main(report: Reporter) -> None:
        near = connect(report)

        def operate(op: int, act: Callable[[], object]) -> None:
            report("begun", op=op)
            try:
                act()
            except BaseException as exc:
                report.settled(op, "error", exc)
            else:
                report.settled(op, "result")

        def do(command: dict[str, Any]) -> None:
            acts: dict[int, Callable[[], object]]
            match command["do"]:
                case "call":
                    acts = {command["op"]: lambda: near.call(command["name"])}
                case _:
                    acts = dict.fromkeys(command["ops"], near.close)
            for op, act in acts.items():
                threading.Thread(target=operate, args=(op, act), daemon=True).start()

        report("connected")
        each_command(do)

    return main


def main(near: Callable[[Reporter], None], far: Callable[[Reporter, Far], object]) -> None:
    """An adapter's program."""
    role, path = sys.argv[1:3]
    report = Reporter(path)
    if role == "near":
        near(report)
    else:
        far(report, Far(report))
