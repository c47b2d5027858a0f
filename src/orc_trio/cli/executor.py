"""``orc-trio executor``: a blank executor, which runs what its controller sends.

Started by a controller (by `open_executor_process`) it is told where its end is by the last argument, arms the
lifeline, and leaves SIGINT and SIGTERM to the system: it has nothing to say at a terminal, its controller has.  Started
by a person it ends in order on both signals.

A program's writes to a pipe whose reader is gone end it with SIGPIPE, as in any other process, although Python and the
connection need that signal to be harmless: it is made deadly when it is our stdout that broke.
"""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Sequence
from typing import Final, NoReturn

import click
import trio

from orc_trio import lifeline
from orc_trio.access import StreamControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.cli.exits import ExitCode
from orc_trio.cli.signals import run_command
from orc_trio.cli.wrappers import Installer
from orc_trio.executor import end_process
from orc_trio.native import available, install_native
from orc_trio.reasons import DisconnectReason
from orc_trio.session import Session, open_session
from orc_trio.transports import ConnectionSpec, VettedPeer, open_connection

__all__ = ["run_executor"]

_PATIENCE: Final = 5.0
"""Seconds that functions in threads have to come back when the controller is gone; then the process ends without."""


def run_executor(
    spec: ConnectionSpec, vetted: VettedPeer, installers: Sequence[Installer], *, native: bool
) -> NoReturn:
    """Serve one controller.

    Args:
        spec: Where it is.
        vetted: Why it is trusted.
        installers: What offers Python functions.
        native: Offer native code too, if llvmlite is installed.

    Raises:
        SystemExit: When it is over, with the exit code.
        DisconnectedError: No agreement with a controller was reached.
        click.UsageError: An installer's names clash.
    """
    logging.basicConfig(format="%(name)s: %(levelname)s: %(message)s")
    signal.signal(signal.SIGPIPE, _on_broken_pipe)
    started_by_controller = lifeline.arm()
    running: tuple[str, ...] = ()

    async def serve() -> int:
        nonlocal running
        with trio.CancelScope() as scope:
            async with open_session() as session:
                reason = await _serve(session, spec, vetted, installers, native)
                scope.deadline = trio.current_time() + _PATIENCE
        running = session.statistics().running_wrappers
        if reason.orderly:
            return ExitCode.OK
        click.echo(f"orc-trio executor: the controller is gone: {reason}", err=True)
        return ExitCode.DISCONNECTED

    end_process(run_command(serve, signals=not started_by_controller), running)


async def _serve(
    session: Session, spec: ConnectionSpec, vetted: VettedPeer, installers: Sequence[Installer], native: bool
) -> DisconnectReason:
    bootstrap = BootstrapInfo.for_session(session)
    if native and available():
        install_native(session, bootstrap)
    for install in installers:  # before anything is opened: what is wrong with them need not wait for a controller
        install(session, bootstrap)
    async with open_connection(spec, vetted=vetted, on_listening=_announce) as transport:
        try:
            await session.attach(StreamControllerAccess(transport), bootstrap)
            return await session.wait_detached()
        finally:
            with trio.CancelScope(shield=True):  # say goodbye before the transport is closed; that is bounded (G15)
                await session.detach()


def _announce(bound: ConnectionSpec) -> None:
    there = ConnectionSpec(bound.transport, "connect", bound.descriptor)
    click.echo(f"orc-trio executor: listening on {bound} (a controller uses {there})", err=True)


def _on_broken_pipe(_number: int, _frame: object) -> None:
    poll = select.poll()
    poll.register(1, 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
