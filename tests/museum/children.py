# Tests in a child process, against a package that is somewhere else: what the museum's runner runs.
#
# Rules
# -----
# * A child is a process group of its own. However it ends (it hangs, the runner is interrupted), the whole group is
#   killed and the child is reaped. If the runner is killed, a child ends with its last test, or some time later.
# * It measures no coverage, starts no workers, and neither reads nor writes what other test runs keep: pytest's cache,
#   hypothesis' examples, temporary files.
# * Whatever is random in a test is the same each time.

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from museum.exhibits import ROOT
from museum.witness import VARIABLE

START_AND_STOP: Final = 120.0
"""Seconds a child has before its first test, between two, and after the last, on a busy machine."""
ALONE: Final = 60
"""Seconds after which a test that hangs ends its child if nobody else does: the runner itself was killed."""
OPTIONS: Final = ["-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "museum.witness", "--hypothesis-seed=0"]


@attrs.define
class Report:
    """What a child did.

    Attributes:
        package: Which package it imported.
        outcomes: How each test's call ended: ``passed``, ``failed``, ``skipped``.
        seconds: How long each took.
        raised: What each that failed raised, in one line.
        running: The test that was being run at the end, if the child did not come to its end by itself.
        hung: It had to be killed.
        status: Its exit status, or minus the signal.
        output: What it printed.
    """

    package: str = ""
    outcomes: dict[str, str] = attrs.field(factory=dict)
    seconds: dict[str, float] = attrs.field(factory=dict)
    raised: dict[str, str] = attrs.field(factory=dict)
    running: str = ""
    hung: bool = False
    status: int = 0
    output: str = ""

    def of(self, test: str) -> set[str]:
        """How the cases of a test ended."""
        return {outcome for name, outcome in self.outcomes.items() if name == test or name.startswith(test + "[")}

    def heard(self, line: dict[str, Any]) -> bool:
        """Take note of what the witness said.

        Returns:
            Whether a test is being run now.
        """
        match line:
            case {"package": str(package)}:
                self.package = package
            case {"test": str(test), "when": "start"}:
                self.running = test
            case {"test": str(test), "raised": str(raised)}:
                self.raised[test] = raised
            case {"test": str(test), "when": when, "outcome": str(outcome), "seconds": float(seconds)}:
                self.seconds[test] = self.seconds.get(test, 0.0) + seconds
                if when == "call" or outcome == "skipped":
                    self.outcomes[test] = outcome
                if when == "teardown":
                    self.running = ""
        return bool(self.running)


async def run_tests(ids: Sequence[str], folder: pathlib.Path, *, patience: float) -> Report:
    """Run tests in a child, up to the first that fails.

    Args:
        ids: The tests.
        folder: The package is below it, and so is what the child writes.
        patience: Seconds after which one test is taken to hang.
    """
    report = Report()
    read_end, write_end = os.pipe()
    printed = folder / "printed"
    async with trio.lowlevel.FdStream(read_end) as witness:
        try:
            with printed.open("wb") as output:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "pytest", *OPTIONS, "-o", f"faulthandler_timeout={patience + ALONE}", *ids],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=ROOT,
                    env=_environment(folder, write_end),
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
        finally:
            os.close(write_end)
        try:
            with trio.move_on_after(START_AND_STOP) as scope:
                rest = b""
                async for data in witness:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        busy = report.heard(json.loads(line))
                        scope.deadline = trio.current_time() + (patience if busy else START_AND_STOP)
                await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                report.status = await process.wait()
    report.hung = scope.cancelled_caught
    report.output = printed.read_text(errors="replace")
    return report


def _environment(folder: pathlib.Path, witness: int) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
    return ours | {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'tests'}",
        "PYTHONHASHSEED": "0",
        "TMPDIR": str(folder),
        "HYPOTHESIS_PROFILE": "quick",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
        VARIABLE: str(witness),
    }
