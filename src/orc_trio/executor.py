"""To be an executor process: from the connection spec in the arguments to a session that is attached.

`run_executor` is a whole program, `open_attached_session` the same for a Trio program of your own::

    def setup(session, bootstrap):
        bootstrap.add_wrapper("echo", echo)


    if __name__ == "__main__":
        orc_trio.run_executor(setup)

Rules
-----
* The first thing is to arm the lifeline, if we were started with one: an executor whose controller dies must not
  stay behind, whatever it is doing then.
* Wrapper functions, tags and services are added before the session is attached, so the controller is told of them all.
* The session is shut down on leaving, whoever ended the connection.

Exit statuses of `run_executor`: 0 after an orderly end; 1 after any other, or if no connection was made, with one line
on stderr; 2 if the spec cannot be used; killed by SIGINT after an interrupt, as other programs are.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NoReturn, TypeAlias

import trio

from orc_trio import lifeline
from orc_trio.access import StreamControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import ConnectionSpecError, DisconnectedError
from orc_trio.interrupts import interruptible_async, uninterrupted, uninterrupted_context
from orc_trio.protocol import Limits
from orc_trio.reasons import DisconnectReason
from orc_trio.session import Session, open_session
from orc_trio.transports import ConnectionSpec, ConnectorRegistry, OnListening, VettedPeer, open_connection

__all__ = ["Prepare", "end_process", "open_attached_session", "run_executor"]

Prepare: TypeAlias = Callable[[Session, BootstrapInfo], Awaitable[object] | object]
"""Fills a session and its bootstrap info before it is attached: a function or a coroutine function."""


@uninterrupted_context
@asynccontextmanager
@uninterrupted
async def open_attached_session(
    prepare: Prepare,
    spec: ConnectionSpec | str | None = None,
    *,
    limits: Limits | None = None,
    identity: str = "orc_trio executor",
    vetted: VettedPeer | None = None,
    connectors: ConnectorRegistry | None = None,
    on_listening: OnListening | None = None,
    service_timeout: float = 5.0,
    threads: float = 40,
) -> AsyncIterator[Session]:
    """Open a session and attach it to the controller that a connection spec leads to.

    An async context manager: entering waits until the controller has accepted us, leaving shuts the session down.
    Usually the body is ``await session.wait_detached()``.

    Args:
        prepare: Called before attaching, to add wrapper functions, tags and services.
        spec: Where the controller is; default: the last of the program's arguments, which is where
            `open_executor_process` puts it.
        limits: What this end is willing to hold, and its times; default: `Limits()`.
        identity: Who this executor is, for people; told to the controller.
        vetted: Why the other end is trusted; see `open_connection`.
        connectors: Where the spec is looked up; see `open_connection`.
        on_listening: Told where a listening connector listens; see `open_connection`.
        service_timeout: Seconds; see `open_session`.
        threads: How many threaded functions may run at once; see `open_session`.

    Yields:
        The session, attached.

    Raises:
        ConnectionSpecError: The spec or the vetting cannot be used.
        DisconnectedError: The controller cannot be reached, or did not accept us: ``CONNECT_FAILED``, ``NOT_SENT``.
        ExceptionGroup: What services raised when they were told of the end (G23).

    Checkpoints:
        Entering and leaving, always.

    Cancellation:
        Shuts down within bounds, shielded; then goes on.
    """
    lifeline.arm()
    if spec is None:
        spec = _spec_from_arguments(sys.argv)
    # The session inside the connection: it says goodbye before the transport is closed, also when it is cancelled.
    async with (
        open_connection(spec, vetted=vetted, connectors=connectors, on_listening=on_listening) as transport,
        open_session(service_timeout=service_timeout, threads=threads) as session,
    ):
        bootstrap = BootstrapInfo.for_session(session)
        await interruptible_async(prepare, session, bootstrap)
        await session.attach(StreamControllerAccess(transport, limits=limits, identity=identity), bootstrap)
        yield session


def run_executor(
    prepare: Prepare,
    spec: ConnectionSpec | str | None = None,
    *,
    limits: Limits | None = None,
    service_timeout: float = 5.0,
) -> NoReturn:
    """Be an executor until the controller lets go, then end the process.

    Args:
        prepare: Called before attaching, to add wrapper functions, tags and services.
        spec: Where the controller is; default: the last of the program's arguments.
        limits: What this end is willing to hold, and its times; default: `Limits()`.
        service_timeout: Seconds each service has; and twice as many has what cannot be stopped (threads, native code)
            to come back after the connection is over.  Then services' ``on_shutdown`` is not called.

    Raises:
        SystemExit: Always, but for what ``prepare`` and services raise; see the module's header for the statuses.
    """
    lifeline.arm()
    try:
        reason, running = trio.run(_serve, prepare, spec, limits, service_timeout)
    except ConnectionSpecError as exc:
        _leave(2, str(exc))
    except DisconnectedError as exc:
        _leave(1, str(exc.reason))
    except KeyboardInterrupt:
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        raise
    if not reason.orderly:
        _complain(str(reason))
    end_process(0 if reason.orderly else 1, running)


def end_process(status: int, running: tuple[str, ...]) -> NoReturn:
    """End the process: at once, if functions that cannot be stopped still run.

    Threads that are in native code, or in a blocking function, must not see the interpreter being taken down.

    Args:
        status: The exit status.
        running: The names of the functions that still run: `SessionStatistics.running_wrappers`.

    Raises:
        SystemExit: Nothing still runs.
    """
    if not running:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


async def _serve(
    prepare: Prepare, spec: ConnectionSpec | str | None, limits: Limits | None, service_timeout: float
) -> tuple[DisconnectReason, tuple[str, ...]]:
    with trio.CancelScope() as scope:
        async with open_attached_session(prepare, spec, limits=limits, service_timeout=service_timeout) as session:
            reason = await session.wait_detached()
            # G22: the wait for what cannot be stopped is bounded once the owner is cancelled.
            scope.deadline = trio.current_time() + service_timeout
    return reason, session.statistics().running_wrappers


def _spec_from_arguments(arguments: list[str]) -> ConnectionSpec:
    if len(arguments) < 2:
        raise ConnectionSpecError("no connection spec: it is the last argument of an executor's command line")
    return ConnectionSpec.parse(arguments[-1])


def _leave(status: int, why: str) -> NoReturn:
    _complain(why)
    sys.exit(status)


def _complain(why: str) -> None:
    print(f"{os.path.basename(sys.argv[0])}: {why}", file=sys.stderr)
