"""LLVM's executor as a child process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from orc_trio.abc import MessageTransport
from orc_trio.connection import check_limits
from orc_trio.controller import OnDisconnect
from orc_trio.launch import DEFAULT_GRACE, Argument, ExecutorProcess, Plug, Redirection, open_process
from orc_trio.llvm.transport import SimpleRemoteTransport
from orc_trio.protocol import Limits, Role
from orc_trio.registry import HandlerRegistry
from orc_trio.wire.simple_remote import Dialect

__all__ = ["find_llvm_executor", "open_llvm_executor"]

_NAME: Final = "llvm-jitlink-executor"


def open_llvm_executor(
    command: Sequence[Argument],
    registry: HandlerRegistry,
    *,
    dialect: Dialect = Dialect.UP_TO_23,
    limits: Limits | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: Redirection = None,
    stdout: Redirection = None,
    stderr: Redirection = None,
    grace: float = DEFAULT_GRACE,
    on_disconnect: OnDisconnect | None = None,
    wrap_transport: Callable[[MessageTransport], MessageTransport] | None = None,
) -> AbstractAsyncContextManager[ExecutorProcess]:
    """Start LLVM's executor as a child process and be its controller.

    As `orc_trio.open_executor_process`, with these differences:

    * ``filedescs=IN,OUT`` is appended to the command.
    * LLVM's executor lets a function that is running finish, whatever happens: one that does not is ended with the
      process when the grace has run out.  The death of this process kills it at once, by the kernel's hand.
    * There is no liveness check: LLVM's protocol has no pings.

    Args:
        command: The program and its arguments, ``["llvm-jitlink-executor-22"]`` for example.
        registry: As there; tags are what code in the executor gives to LLVM's dispatch function.
        dialect: Which LLVM this is.
        limits: As there.
        env: As there; nothing is added.
        cwd: As there.
        stdin: As there.
        stdout: As there.
        stderr: As there.
        grace: As there.
        on_disconnect: As there.
        wrap_transport: As there.

    Yields:
        The controller.  `RemoteExecutor` offers what LLVM's executors can do.

    Raises:
        ValueError: As there; or a liveness timeout, a part size or a send buffer is set.
        DisconnectedError, TypeError, BaseException: As there.

    Checkpoints:
        As there.

    Cancellation:
        As there.
    """
    check_limits(SimpleRemoteTransport, limits or Limits())  # before anything is started

    def transport(streams: Sequence[trio.SocketStream]) -> MessageTransport:
        return SimpleRemoteTransport(trio.StapledStream(*streams), Role.CONTROLLER, dialect=dialect)

    # Two of them: LLVM does not notice the end of a socket that it closes while it reads from it.
    plug = Plug(2, lambda numbers: f"filedescs={numbers[0]},{numbers[1]}", transport, knows_lifelines=False)
    return open_process(
        plug,
        command,
        registry,
        limits=limits,
        env=env,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        grace=grace,
        on_disconnect=on_disconnect,
        wrap_transport=wrap_transport,
    )


def find_llvm_executor() -> str | None:
    """The path of LLVM's executor: the one without a version in its name, or the newest; None: none is installed."""
    folders = os.get_exec_path()
    found = shutil.which(_NAME)
    if found is None:
        versions = {
            int(number)
            for folder in folders
            if os.path.isdir(folder)
            for name, _, number in (each.rpartition("-") for each in os.listdir(folder))
            if name == _NAME and number.isdecimal()
        }
        for version in sorted(versions, reverse=True):
            found = found or shutil.which(f"{_NAME}-{version}")
    return found
