"""A Trio application that supervises four executors, and restarts one that crashes.

    python supervisor.py

Twelve jobs are shared out among four executor processes, each of which has a supervisor.  Some jobs are unlucky: one
crashes its executor with SIGSEGV, one exits, one never ends.  The supervisor is told what happened, starts another
executor, and tries the job again; a job that fails twice is given up.

`work` and `prepare` are the executor, everything else is the application.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

import orc_trio

EXECUTORS = 4
ATTEMPTS = 2
PATIENCE = 1.0
"""Seconds a job may take."""


async def work(args: bytes) -> bytes:
    """Add up square roots; or, for the unlucky ones, do not."""
    number, attempt = map(int, args.split())
    if attempt == 1 and number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if attempt == 1 and number == 6:
        os._exit(7)
    if attempt == 1 and number == 9:
        await trio.sleep_forever()
    if number == 10:
        os.abort()
    return f"{sum(map(math.sqrt, range(number * 10_000))):.3f}".encode()


def prepare(_session: orc_trio.Session, bootstrap: orc_trio.BootstrapInfo) -> None:
    """Say what an executor offers."""
    bootstrap.add_wrapper("work", work)


@attrs.define
class Job:
    """Something to be done."""

    number: int
    attempt: int = 0
    answer: str = ""
    history: list[str] = attrs.field(factory=list)


@asynccontextmanager
async def an_executor() -> AsyncIterator[orc_trio.Controller]:
    """Start an executor."""
    command = [sys.executable, __file__, "--execute"]
    async with orc_trio.open_executor_process(command, orc_trio.HandlerRegistry()) as controller:
        yield controller


async def serve_jobs(controller: orc_trio.Controller, jobs: list[Job]) -> None:
    """Give one executor jobs, until there are none or it is gone."""
    work_symbol = controller.bootstrap.symbols["work"]
    while jobs:
        job = jobs.pop(0)
        job.attempt += 1
        try:
            with trio.fail_after(PATIENCE):
                answer = await controller.call_wrapper(work_symbol, f"{job.number} {job.attempt}".encode())
            job.answer = bytes(answer).decode()
        except (trio.TooSlowError, orc_trio.WrapperFunctionError):  # the deadline, noticed here or there
            job.history.append("took too long")
            again(job, jobs)
        except orc_trio.DisconnectedError:
            end = await controller.wait_disconnected()  # knows the exit status too
            job.history.append(str(end))
            again(job, jobs)
            return


def again(job: Job, jobs: list[Job]) -> None:
    """Try a job once more, if it has not been tried too often."""
    if job.attempt < ATTEMPTS:
        jobs.append(job)


async def supervise(jobs: list[Job], starts: list[int]) -> None:
    """Keep one executor going, as long as there are jobs."""
    while jobs:
        starts.append(len(starts))
        async with an_executor() as controller:
            await serve_jobs(controller, jobs)


async def stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """On Ctrl-C, end all executors; cancelling whoever owns them is all it takes."""
    async for _ in signals:
        print("interrupted")
        scope.cancel()


async def main() -> None:
    """Do all jobs, then say how it went."""
    everything = [Job(number) for number in range(12)]
    jobs, starts = list(everything), list[int]()
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as application:
            application.start_soon(stop_on_signal, signals, application.cancel_scope)
            async with trio.open_nursery() as supervisors:
                for _ in range(EXECUTORS):
                    supervisors.start_soon(supervise, jobs, starts)
            application.cancel_scope.cancel()
    for job in everything:
        print(f"job {job.number:2}: {job.answer or 'not done'}")
        for what in job.history:
            print(f"        {what}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--execute"]:  # the last argument is where the controller is
        orc_trio.run_executor(prepare)
    else:
        trio.run(main)
