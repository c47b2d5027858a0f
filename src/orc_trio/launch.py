"""An executor as a child process: started, connected, watched, ended and reaped.

Task tree
---------
::

    open_executor_process()           the owner's task: the body of the ``async with``
     ├── watch()                      shielded; waits for the process to exit, then ends the stream
     └── the controller's task        see `orc_trio.controller`; closing its transport ends the process

Theory
------
The child inherits one end of a socket pair and is told its number by a connection spec (``socket:adopt=N``) appended to
its arguments.  It also inherits the read end of a lifeline, see `orc_trio.lifeline`.  An executor of another kind may
have more sockets, other words for them, and know nothing of lifelines: that is a `Plug`.

The process is the peer, and ends with its connection: see `orc_trio.transports.process`.

Rules
-----
* Every descriptor made here is CLOEXEC; the child gets its own, and our copies of those are closed as soon as it has
  them.
* Whatever happens, nothing is left: no process, no zombie, no descriptor, no task.
* The write end of the lifeline is closed after the process has been reaped, never before: closing it kills.

Refuses: a shell command line.  The command must become the executor (``exec``), not start it and exit.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from orc_trio import lifeline
from orc_trio.abc import MessageTransport
from orc_trio.controller import Controller, OnDisconnect
from orc_trio.exceptions import DisconnectedError
from orc_trio.interrupts import interruptible, uninterrupted, uninterrupted_context
from orc_trio.ownership import alongside
from orc_trio.protocol import Limits
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason, describe_error
from orc_trio.registry import HandlerRegistry
from orc_trio.sockets import SocketTransport
from orc_trio.transports.process import ProcessTransport

__all__ = ["ExecutorProcess", "Plug", "open_executor_process", "open_process"]

DEFAULT_GRACE: Final = 5.0

Argument: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class HasFileno(Protocol):
    """Whatever has a descriptor: an open file, a socket."""

    def fileno(self) -> int:
        """The descriptor's number."""


Redirection: TypeAlias = int | HasFileno | None


@attrs.frozen
class Plug:
    """How a kind of executor is connected to its controller.

    Attributes:
        sockets: How many sockets it inherits.
        argument: Tells it their descriptors.
        transport: What moves messages over the other ends of them.
        knows_lifelines: Whether it arms its lifeline itself.
    """

    sockets: int
    argument: Callable[[Sequence[int]], str]
    transport: Callable[[Sequence[trio.SocketStream]], MessageTransport]
    knows_lifelines: bool = True


_OURS: Final = Plug(1, lambda numbers: f"socket:adopt={numbers[0]}", lambda streams: SocketTransport(streams[0]))


class ExecutorProcess(Controller):
    """The controller of an executor in a child process.  Made by `open_executor_process`.

    Attributes:
        process: The child process.  Signals may be sent to it; its end is noticed.
    """

    def __init__(
        self,
        process: trio.Process,
        transport: MessageTransport,
        registry: HandlerRegistry,
        limits: Limits,
        on_disconnect: OnDisconnect | None,
    ) -> None:
        super().__init__(transport, registry, limits, on_disconnect)
        self.process = process

    @property
    def pid(self) -> int:
        """The process's number; free for others once the connection is over."""
        return self.process.pid

    @property
    def exit_status(self) -> int | None:
        """The process's exit status, or minus the number of the signal that killed it; None while it runs."""
        return self.process.returncode


def open_executor_process(
    command: Sequence[Argument],
    registry: HandlerRegistry,
    *,
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
    """Start an executor as a child process and be its controller.

    An async context manager: entering waits until both ends agree; leaving hangs up, waits until it is over, and ends
    the process if it does not end by itself.  Nothing of it is left then, neither process nor descriptor.

    Args:
        command: The program and its arguments, without a shell; ``socket:adopt=N`` is appended.  It must *become* the
            executor: the connection ends with this process.
        registry: The handlers the executor may call; frozen while connected.
        limits: What this end is willing to hold, and its times; default: `Limits()`.
        env: The environment; default: ours.  `orc_trio.lifeline.VARIABLE` is added.
        cwd: The directory to start in; default: ours.
        stdin: As for `subprocess.Popen`; default: ours.
        stdout: As for `subprocess.Popen`; default: ours.  With ``subprocess.PIPE``, ``process.stdout`` is yours to read
            (a full pipe stops the executor) and to close.
        stderr: Likewise.
        grace: Seconds the process has to exit after the connection is closed, and again after SIGTERM; then SIGKILL.
        on_disconnect: Called once, with how it ended, when it is over; also if it never began.
        wrap_transport: Given the transport to the process, gives the one to use; see `WrappedTransport`.

    Yields:
        The controller.

    Raises:
        DisconnectedError: ``CONNECT_FAILED``: the program could not be started (the `OSError` is its ``__cause__``), or
            ended or failed before both ends agreed; its reason has the exit status, if there is one.  Also raised if
            a handler is registered for a symbol this executor lacks.
        TypeError, ValueError: An argument makes no sense; nothing was started.
        BaseException: What a handler raised that is no `Exception`, or what on_disconnect raised.

    Checkpoints:
        Entering and leaving, always.

    Cancellation:
        Ends the connection as OWNER_CANCELLED after a bounded, shielded goodbye, and the process within twice the
        grace; then goes on.
    """
    return open_process(
        _OURS,
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


@uninterrupted_context
@asynccontextmanager
@uninterrupted
async def open_process(
    plug: Plug,
    command: Sequence[Argument],
    registry: HandlerRegistry,
    *,
    limits: Limits | None,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    stdin: Redirection,
    stdout: Redirection,
    stderr: Redirection,
    grace: float,
    on_disconnect: OnDisconnect | None,
    wrap_transport: Callable[[MessageTransport], MessageTransport] | None,
) -> AsyncIterator[ExecutorProcess]:
    """Start an executor of any kind; see `open_executor_process`."""
    arguments = _arguments(command)
    if not grace >= 0:
        raise ValueError(f"grace must be a number of seconds, not {grace!r}")

    def tell(reason: DisconnectReason) -> None:
        if on_disconnect is not None:
            interruptible(on_disconnect, reason)

    with contextlib.ExitStack() as lifelines:
        try:
            process, streams = await _start(
                plug, arguments, lifelines, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr
            )
        except OSError as exc:
            reason = DisconnectReason(DisconnectKind.CONNECT_FAILED, f"cannot start {_explain(arguments[0], exc)}")
            tell(reason)
            raise DisconnectedError(reason, Certainty.NOT_SENT) from exc
        except trio.Cancelled:
            tell(DisconnectReason(DisconnectKind.OWNER_CANCELLED, "before the process was started"))
            raise
        sockets = [stream.socket for stream in streams]
        transport = ProcessTransport(plug.transport(streams), sockets, process, grace)
        connected = False
        try:
            try:
                outer = interruptible(wrap_transport, transport) if wrap_transport else transport
            except BaseException as exc:
                tell(DisconnectReason(DisconnectKind.INTERNAL_ERROR, describe_error(exc)))
                raise
            controller = ExecutorProcess(process, outer, registry, limits or Limits(), on_disconnect)
            async with (
                alongside(transport.watch, transport.stop_watching, "orc_trio process watch"),
                alongside(controller._main, controller._stop, "orc_trio controller"),
            ):
                await controller._wait_connected()
                connected = True
                yield controller
        finally:
            with trio.CancelScope(shield=True):
                await transport.aclose()  # done already, unless the connection was never run
                if not connected:
                    for pipe in (process.stdin, process.stdout, process.stderr):
                        if pipe is not None:
                            await pipe.aclose()


@uninterrupted
async def _start(
    plug: Plug,
    arguments: list[str | bytes],
    lifelines: contextlib.ExitStack,
    *,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    stdin: Redirection,
    stdout: Redirection,
    stderr: Redirection,
) -> tuple[trio.Process, list[trio.SocketStream]]:
    """Start the child; the write end of its lifeline is closed by ``lifelines``."""
    with contextlib.ExitStack() as childs, contextlib.ExitStack() as unless_started:
        ours: list[socket.socket] = []
        numbers: list[int] = []
        for _ in range(plug.sockets):
            our_end, their_end = socket.socketpair()
            unless_started.callback(our_end.close)
            childs.callback(their_end.close)
            ours.append(our_end)
            numbers.append(their_end.fileno())
        read_end, write_end = os.pipe()
        lifelines.callback(os.close, write_end)
        childs.callback(os.close, read_end)
        environment = dict(os.environ if env is None else env)
        if plug.knows_lifelines:
            environment[lifeline.VARIABLE] = lifeline.describe(read_end)
        # A cancellation cannot come between the start of the child and our knowing it: Trio waits for the thread.
        process = await trio.lowlevel.open_process(
            [*arguments, plug.argument(numbers)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=environment,
            pass_fds=(*numbers, read_end),
        )
        if not plug.knows_lifelines:
            with contextlib.suppress(OSError):  # then it learns of our death by the end of its stream
                lifeline.tie(read_end, process.pid)
        unless_started.pop_all()
    return process, [trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in ours]


def _arguments(command: Sequence[Argument]) -> list[str | bytes]:
    if isinstance(command, (str, bytes, os.PathLike)):
        raise TypeError(f"the command must be a sequence, the program and its arguments, not {command!r}")
    arguments = [os.fspath(argument) for argument in command]
    if not arguments:
        raise ValueError("the command is empty")
    return arguments


def _explain(program: str | bytes, exc: OSError) -> str:
    why = exc.strerror or str(exc)
    if exc.filename is not None and exc.filename != program:
        why += f": {os.fsdecode(exc.filename)}"
    return f"{os.fsdecode(program)}: {why}"
