# Ctrl-C at every moment: it strikes in the user's code and never in the middle of one of our steps.

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

import orc_trio
from harness import RawPeer, connected_ends, connected_pair, no_hang
from orc_trio import DisconnectKind
from orc_trio.protocol import Role

THOROUGH = "ORC_TRIO_THOROUGH" in os.environ
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def default_interrupts() -> Iterator[None]:
    """Trio looks after interrupts only where they have their usual meaning."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


SWEEP = """
import faulthandler, json, opcode, os, signal, sys, trio
sys.path.insert(0, sys.argv[1])
import orc_trio
from orc_trio.testing import open_pair

source = os.path.dirname(orc_trio.__file__)
step, most = int(sys.argv[2]), int(sys.argv[3])


async def conversation():
    async def echo(args):
        await trio.lowlevel.checkpoint()
        return args

    async def nest(args):
        return await pair.call_controller("back", args)

    async def back(args):
        await trio.lowlevel.checkpoint()
        return args

    def threaded(args):
        return args

    wrappers = {"echo": echo, "nest": nest, "threaded": orc_trio.Handler(threaded, "threaded", threaded=True)}
    async with open_pair("memory", wrappers=wrappers, handlers={"back": back}) as pair:
        async def calls():
            for _ in range(2):
                for name in wrappers:
                    await pair.call_wrapper(name, b"x")
                await pair.call_controller("back", b"y")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(calls)
        with pair.session.keepalive("held"):
            await pair.controller.disconnect(finish_within=1)


def leaves(exc):
    if isinstance(exc, BaseExceptionGroup):
        return set().union(*map(leaves, exc.exceptions))
    return {type(exc).__name__}


RESUME = opcode.opmap["RESUME"]


def looks_for_signals(frame, event):
    # Python does so when a function begins, resumes after a yield, or has called a built-in one,
    # and does not when it resumes after an await.
    if event == "c_return":
        return True
    code, at = frame.f_code.co_code, max(frame.f_lasti, 0)
    at += 0 if code[at] == RESUME else 2
    return event == "call" and not (code[at] == RESUME and code[at + 1] & 3 >= 2)


def run(at):
    # An interrupt when Python has looked so many times, in the library's functions, whether there is one.
    count = 0
    def look(frame, event, _arg):
        nonlocal count
        if frame.f_code.co_filename.startswith(source) and looks_for_signals(frame, event):
            count += 1
            if count == at:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)
    async def main():
        sys.setprofile(look)
        try:
            await conversation()
        finally:
            sys.setprofile(None)
    try:
        trio.run(main)
    except BaseException as exc:
        return count, sorted(leaves(exc))
    return count, []


total, nothing = run(0)
assert nothing == []
found = {}
for at in range(1, min(total, most), step):
    faulthandler.dump_traceback_later(60, exit=True)
    reached, raised = run(at)
    # No two runs are of one length: an interrupt for after the end has not been sent.
    if reached == at:
        found.setdefault(" ".join(raised), []).append(at)
    else:
        assert raised == []
faulthandler.cancel_dump_traceback_later()
print(json.dumps([total, found]))
"""


@pytest.mark.campaign
def test_an_interrupt_at_any_moment(say: Callable[[str, Mapping[str, int]], None]) -> None:
    """G1, G11, G18: wherever an interrupt comes it ends the program as one, and nobody waits for ever."""
    step = 1 if THOROUGH else 61
    command = [sys.executable, "-c", SWEEP, str(HERE), str(step), str(10**9)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert ended.returncode == 0, ended.stderr
    total, found = json.loads(ended.stdout)
    for raised, moments in found.items():
        names = set(raised.split())
        # A task that was just being connected sees that there is no controller any more.
        assert "KeyboardInterrupt" in names, (raised, moments)
        assert names <= {"KeyboardInterrupt", "DisconnectedError", "NoControllerError"}, (raised, moments)
    assert "Traceback" not in ended.stderr, ended.stderr
    say("interrupts", {"moments": sum(map(len, found.values())), "moments there are": total})


def interrupted_by_alarm(main: Callable[[], Any]) -> BaseException:
    """Run it, interrupted by an alarm that it sets."""

    def interrupt(_number: int, _frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        trio.run(main)
    except BaseException as exc:
        return exc
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    raise AssertionError("it was not interrupted")


@pytest.mark.parametrize("where", ["handler", "coroutine", "callback", "service", "prepare"])
def test_code_of_the_users_that_never_comes_back(where: str) -> None:
    """G11: an interrupt ends a function of the user's that keeps the event loop to itself, and goes to the owner."""
    ends: list[orc_trio.DisconnectReason] = []

    def spin(*_args: object) -> bytes:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        while True:
            pass

    async def spin_here(_args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return spin()

    class Spins(orc_trio.Service):
        async def on_detach(self, reason: orc_trio.DisconnectReason | None) -> None:
            await trio.lowlevel.checkpoint()
            spin()

    async def main() -> None:
        async with connected_ends("memory", wrappers={"handler": spin, "coroutine": spin_here}) as both:
            both.session.on_disconnect(ends.append)
            match where:
                case "callback":
                    both.session.on_disconnect(spin)
                case "service":
                    both.session.add_service(Spins())
                case "handler" | "coroutine":
                    await both.call(where)
            await both.session.detach()

    async def prepared() -> None:
        ours, theirs = socket.socketpair()
        with theirs, no_hang():
            async with orc_trio.open_attached_session(spin, f"socket:adopt={ours.detach()}"):
                pass

    caught = interrupted_by_alarm(prepared if where == "prepare" else main)
    assert isinstance(caught, KeyboardInterrupt) or (
        isinstance(caught, BaseExceptionGroup) and caught.split(KeyboardInterrupt)[0] is not None
    )
    if where in ("handler", "coroutine"):
        assert [end.kind for end in ends] == [DisconnectKind.INTERNAL_ERROR]


@pytest.mark.parametrize("block", ["session", "controller", "keepalive"])
@pytest.mark.parametrize("moment", ["__aenter__", "__aexit__", "__exit__"])
def test_an_interrupt_as_a_block_is_entered_or_left(block: str, moment: str) -> None:
    """G18, G22: one that comes between the user's code and ours is an interrupt, and everything is taken down."""
    log: list[str] = []
    struck: list[str] = []

    def look(frame: Any, event: str, _arg: object) -> None:
        # The first function of ours, or of contextlib's for us, that has this name.
        where = frame.f_code.co_filename
        ours = where == contextlib.__file__ or where.startswith(str(Path(orc_trio.__file__).parent))
        if event == "call" and frame.f_code.co_name == moment and ours:
            sys.setprofile(None)
            struck.append(moment)
            signal.raise_signal(signal.SIGINT)

    class Service(orc_trio.Service):
        async def on_shutdown(self) -> None:
            await trio.lowlevel.checkpoint()
            log.append("shut down")

    async def in_session() -> None:
        if moment == "__aenter__":
            sys.setprofile(look)
        async with orc_trio.open_session(service_timeout=60) as session:
            session.add_service(Service())
            if block == "keepalive":
                with session.keepalive("held"):
                    sys.setprofile(look)
            sys.setprofile(look)

    async def in_controller() -> None:
        here, there = await connected_pair("memory")
        raw = RawPeer(there)

        async def executor() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, AssertionError):
                await raw.settle(Role.EXECUTOR)
                await raw.goodbye()

        trio.lowlevel.spawn_system_task(executor)
        if moment == "__aenter__":
            sys.setprofile(look)
        async with orc_trio.open_controller(
            here, orc_trio.HandlerRegistry(), on_disconnect=lambda end: log.append(end.kind.value)
        ):
            sys.setprofile(look)

    try:
        trio.run(in_controller if block == "controller" else in_session)
    except KeyboardInterrupt:
        assert struck
    except BaseExceptionGroup as group:
        assert struck
        assert group.split(KeyboardInterrupt)[1] is None
    else:
        assert not struck
    finally:
        sys.setprofile(None)
    if moment == "__aenter__":
        assert len(log) <= 1
    else:
        assert log == ["local hang-up" if block == "controller" else "shut down"]
