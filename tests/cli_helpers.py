"""For the tests of the command line: run it here, run it as a process, have an executor to talk to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest
import trio

import orc_trio
from orc_trio.cli import main
from orc_trio.transports import open_connection

ORC_TRIO = [sys.executable, "-m", "orc_trio"]
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PATIENCE = 60
"""Seconds after which something hangs."""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: bytes
    err: str


class Cli:
    """Runs ``orc-trio`` in this process."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *argv: str | Path) -> Ended:
        self._capture.readouterr()
        status = main([str(each) for each in argv])
        out, err = self._capture.readouterr()
        return Ended(status, out, err.decode())


def orc_trio_process(
    *argv: str | Path, stdin: bytes = b"", cwd: Path | None = None, env: dict[str, str] | None = None
) -> Ended:
    """Run ``orc-trio`` as a process, to its end."""
    done = subprocess.run(
        [*ORC_TRIO, *map(str, argv)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=PATIENCE,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


@contextmanager
def started(
    *argv: str | Path, cwd: Path | None = None, stdin: int | IO[bytes] | None = None, command: Sequence[str] = ORC_TRIO
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``orc-trio`` as a process that is killed at the end if it is still there."""
    process = subprocess.Popen(
        [*command, *map(str, argv)], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def executor(spec: str, wrappers: dict[str, Callable[[bytes], object]]) -> Iterator[None]:
    """Have an executor listen on ``spec``, in another thread; it serves one controller."""
    listening = threading.Event()
    failed: list[BaseException] = []

    async def serve() -> None:
        async with orc_trio.open_session() as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            bootstrap.set_value("greeting", b"hi \x1b")
            for name, function in wrappers.items():
                bootstrap.add_wrapper(name, function)  # type: ignore[arg-type]
            async with open_connection(spec, on_listening=lambda _bound: listening.set()) as transport:
                await session.attach(orc_trio.StreamControllerAccess(transport), bootstrap)
                await session.wait_detached()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as exc:
            failed.append(exc)
            listening.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert listening.wait(PATIENCE)
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not failed, failed
