"""``orc-trio conformance``: check controller accesses against the guarantees, and show a table of the verdicts.

The checks run in a process of their own, which tells what it does (`orc_trio.testing.conformance.child`).  So a check
that hangs for good costs its own verdict and nothing else: the process is killed, with all that it has started, and
another one goes on after it.  The same if a check takes its process down.

Nothing of what is checked is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click
import trio

from orc_trio.cli.exits import ExitCode, Failure, one_line
from orc_trio.cli.signals import run_command
from orc_trio.reasons import describe_exit_status
from orc_trio.testing.conformance import Outcome, Report, Subject, Verdict
from orc_trio.testing.conformance.runner import select

__all__ = ["conformance"]

_CHILD: Final = [sys.executable, "-m", "orc_trio.testing.conformance.child"]
_GRACE: Final = 2.0
"""Seconds a check that was found to hang has to let itself be cancelled."""


def conformance(
    factories: Sequence[str],
    *,
    only: Sequence[str],
    seed: int | None,
    patience: float,
    html: str | None,
    json_path: str | None,
) -> int:
    """Check what these factories make.

    Args:
        factories: ``MODULE:FACTORY``, each.
        only: The guarantees to check, each perhaps several with commas; none: all.
        seed: Decides the order of tasks.
        patience: Seconds that one check may take at most.
        html: Where to write the report as a web page.
        json_path: Where to write it as JSON.

    Returns:
        The exit code.

    Raises:
        click.UsageError: There is no such guarantee, or one of the factories is none.
        Failure: A report cannot be written.
    """
    try:
        checks = select([name for each in only for name in each.split(",") if name])
    except ValueError as exc:
        raise click.UsageError(f"--only: {exc}") from exc
    runs = [_Run(text, [entry.guarantee for entry in checks], seed, patience) for text in factories]

    async def work() -> int:
        for run in runs:
            await run.run(prefix=len(runs) > 1)
        return ExitCode.OK  # noqa: ASYNC910

    if status := run_command(work):
        return status
    report = Report(subjects=tuple(Subject(name=run.name, verdicts=tuple(run.verdicts)) for run in runs))
    click.echo(report.text())
    _write(html, report.html())
    _write(json_path, json.dumps(report.as_dict(), indent=2) + "\n")
    return ExitCode.OK if report.passed else ExitCode.FAILED


def _write(path: str | None, text: str) -> None:
    if path is not None:
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as exc:
            raise Failure(f"{path}: {exc.strerror or exc}", ExitCode.USAGE) from exc


class _Run:
    """The checks of one factory.

    Attributes:
        name: The factory.
        verdicts: What was found so far.
    """

    def __init__(self, name: str, checks: Sequence[str], seed: int | None, patience: float) -> None:
        self.name = name
        self.verdicts: list[Verdict] = []
        self._left = list(checks)
        self._seed = seed
        self._patience = patience
        self._prefix = ""
        self._titles: dict[str, str] = {}

    async def run(self, *, prefix: bool) -> None:  # noqa: ASYNC910
        self._prefix = f"{self.name}: " if prefix else ""
        while self._left:
            async with self._child() as (process, lines):
                await self._listen(process, lines)

    async def _listen(self, process: trio.Process, lines: _Lines) -> None:
        """Take what one process tells, until it is over or has to be given up."""
        why, bound = f"it was not over after {self._patience:g} s, and its process was killed", self._patience
        while True:
            with trio.move_on_after(bound) as scope:
                what = await lines.next()
            if scope.cancelled_caught:
                self._judge(Outcome.HUNG, why)
                return  # noqa: ASYNC910
            match what:
                case None:
                    status = await process.wait()
                    if self._left:
                        self._crashed(status)
                    return
                case {"usage": str(problem)}:
                    raise click.UsageError(one_line(problem))
                case {"checks": titles}:
                    self._titles.update(titles)
                case {"hangs": _, "why": str(where)}:
                    why, bound = f"it hangs, and cannot be cancelled: {where}", _GRACE
                case {"verdict": verdict}:
                    why, bound = (
                        f"it was not over after {self._patience:g} s, and its process was killed",
                        self._patience,
                    )
                    del self._left[0]
                    self._add(Verdict(**verdict | {"outcome": Outcome(verdict["outcome"])}))

    def _crashed(self, status: int) -> None:
        if not self._titles:
            raise Failure(f"{self.name}: the process that imports it {describe_exit_status(status)}", ExitCode.USAGE)
        self._judge(Outcome.FAILED, f"the process that ran it {describe_exit_status(status)}")

    def _judge(self, outcome: Outcome, why: str) -> None:
        """Say ourselves what became of the check that was running."""
        guarantee = self._left.pop(0)
        self._add(Verdict(guarantee=guarantee, title=self._titles.get(guarantee, ""), outcome=outcome, why=why))

    def _add(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        if sys.stderr.isatty():
            click.echo(f"{self._prefix}{one_line(str(verdict))}, {verdict.seconds:.2f} s", err=True)

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[tuple[trio.Process, _Lines]]:
        reading, writing = os.pipe()
        async with trio.lowlevel.FdStream(reading) as stream:
            try:
                arguments = [str(writing), self.name, "" if self._seed is None else str(self._seed), *self._left]
                # A session of its own: what it has started is killed with it.  What it prints is not our answer.
                process = await trio.lowlevel.open_process(
                    [*_CHILD, *arguments], pass_fds=(writing,), stdout=2, start_new_session=True
                )
            finally:
                os.close(writing)
            try:
                yield process, _Lines(stream)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await process.wait()


class _Lines:
    """The lines of a stream, each a JSON object."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._lines: list[bytes] = [b""]  # the last one is not complete

    async def next(self) -> Any:
        """The next one; None: the end."""
        while len(self._lines) < 2:
            data = await self._stream.receive_some()
            if not data:
                return None
            *first, last = (self._lines.pop() + data).split(b"\n")
            self._lines += [*first, last]
        await trio.lowlevel.checkpoint()
        return json.loads(self._lines.pop(0))
