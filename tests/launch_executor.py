# An executor that can do everything that can go wrong. Started by the tests of launching and killing:
#
#     python launch_executor.py [--no-lifeline] [--stuck-in-prepare] SPEC

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import trio

import orc_trio
from orc_trio.executor import open_attached_session
from orc_trio.lifeline import VARIABLE

SPEC = sys.argv[-1]


def say(what: str) -> None:
    """One line on stdout, in one piece."""
    os.write(1, what.encode() + b"\n")


def echo(args: bytes) -> bytes:
    """Answer with the arguments."""
    return args


def send_signal(args: bytes) -> bytes:
    """Send ourselves the signal whose number this is."""
    say("busy")
    os.kill(os.getpid(), int(args))
    return b""


def leave(args: bytes) -> NoReturn:
    """Exit at once, with this status."""
    os._exit(int(args))


def read_null(args: bytes) -> bytes:
    """A real segmentation fault."""
    return ctypes.string_at(0)


def spin(args: bytes) -> NoReturn:
    """Never return, and block the event loop."""
    say("busy")
    while True:
        pass


def hold_gil(args: bytes) -> bytes:
    """Never return from native code that holds the GIL."""
    say("busy")
    ctypes.PyDLL(None).sleep(100_000)
    return b""


async def sleep(args: bytes) -> NoReturn:
    """Never return, but let the others work."""
    say("busy")
    await trio.sleep_forever()


def share_socket(args: bytes) -> bytes:
    """Start a process that inherits our end of the connection; answer with its number."""
    number = int(SPEC.partition("=")[2])
    return str(subprocess.Popen(["sleep", "100000"], pass_fds=[number]).pid).encode()


def look(args: bytes) -> bytes:
    """What this process was given: descriptors, those it would pass on, environment, directory."""
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            inherited = os.get_inheritable(int(name))
        except OSError:
            continue
        descriptors[name] = [os.readlink(f"/proc/self/fd/{name}"), inherited]
    seen = {"descriptors": descriptors, "environ": dict(os.environ), "cwd": os.getcwd(), "args": sys.argv}
    return json.dumps(seen).encode()


def shout(args: bytes) -> bytes:
    """Write to stdout and stderr."""
    say("out")
    os.write(2, b"err\n")
    return b""


FUNCTIONS: list[Callable[[bytes], bytes]] = [
    echo, send_signal, leave, read_null, spin, hold_gil, share_socket, look, shout,
]  # fmt: skip


async def prepare(session: orc_trio.Session, bootstrap: orc_trio.BootstrapInfo) -> None:
    for function in FUNCTIONS:
        bootstrap.add_wrapper(function.__name__, function)
    bootstrap.add_wrapper("sleep", sleep)
    ask = bootstrap.add_tag("ask")

    async def call_back(args: bytes) -> bytes:
        return bytes(await session.call_controller(ask, args))

    bootstrap.add_wrapper("call_back", call_back)
    if "--stuck-in-prepare" in sys.argv:
        spin(b"")


async def main() -> None:
    if "--no-lifeline" in sys.argv:
        del os.environ[VARIABLE]
    async with open_attached_session(prepare) as session:
        reason = await session.wait_detached()
    if "--no-lifeline" in sys.argv:
        say(f"ended by {reason.kind.name}")


if __name__ == "__main__":
    trio.run(main)
