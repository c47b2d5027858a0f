"""``orc-trio run``: a program compiled here, run in an executor, its end ours.

The executor is started for it, or is elsewhere (``--spec``).  A started one inherits our stdin, stdout and stderr, so
what the program reads and writes does not pass through here, and is live.  With ``--llvm`` it is LLVM's, to compare:
that one cannot link, so it is given the program as a shared library, and knows nothing of ``orc_trio.h``.

How it ended:

==========================================  ======================================
main returned, or the program called exit   its status, as a process's: 0 to 255
a signal killed the executor                one line, and 128 + n
the executor elsewhere is gone              one line, and `ExitCode.RUN_FAILED`
it cannot be compiled or loaded             one line, and `ExitCode.CANNOT_RUN`
==========================================  ======================================

Cancelling (Ctrl-C) ends the executor at once: what runs in it could not be stopped otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import click
import trio

from orc_trio.abc import MessageTransport
from orc_trio.cli.exits import ExitCode, Failure, explain, one_line, signal_status
from orc_trio.cli.signals import run_command
from orc_trio.controller import Controller, open_controller
from orc_trio.exceptions import DisconnectedError, NoControllerError, OrcError, WrapperFunctionError
from orc_trio.launch import open_executor_process
from orc_trio.llvm import RemoteExecutor, find_llvm_executor, open_llvm_executor
from orc_trio.native import (
    CompileError,
    LinkError,
    Target,
    compile_program,
    link_library,
    load_object,
)
from orc_trio.native.llvm import INSTALL_HINT
from orc_trio.ownership import alongside
from orc_trio.reasons import DisconnectReason, describe_exit_status
from orc_trio.registry import HandlerRegistry
from orc_trio.tracing import TraceWriter, TracingTransport
from orc_trio.transports import ConnectionSpec, VettedPeer, open_connection

__all__ = ["SUFFIXES", "Program", "run_program"]

_EXECUTOR: Final = """
import signal, sys
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
from orc_trio.cli import main
sys.exit(main())
"""
"""``-m orc_trio`` for a child at a terminal: Ctrl-C ends it without a traceback from the first line on."""

Wrap: TypeAlias = Callable[[MessageTransport], MessageTransport]

SUFFIXES: Final = (".ll", ".bc", ".o", ".c")
_TAGS: Final = {"log": 0x6C6F67, "input": 0x696E707574}
"""What a program can call back, and under which tags: any numbers will do, these are the names' own bytes."""
_QUIET_SIGNALS: Final = frozenset({signal.SIGPIPE, signal.SIGINT})
"""Ends that shells do not remark on either."""


@attrs.frozen(kw_only=True)
class Program:
    """What to run, and how.

    Attributes:
        path: Its file.
        args: Its arguments, from ``argv[1]`` on.
        optimize: 0 to 3.
        libraries: Shared libraries to load first.
    """

    path: str
    args: Sequence[str] = ()
    optimize: int = 2
    libraries: Sequence[str] = ()

    async def compiled(self, target: Target) -> bytes:
        """The object for a machine."""
        return await compile_program(self.path, target, optimize=self.optimize)


def run_program(
    program: Program,
    *,
    spec: ConnectionSpec | None,
    vetted: VettedPeer | None,
    trace: TraceWriter | None,
    llvm: bool = False,
) -> int:
    """Run a program.

    Args:
        program: What to run.
        spec: Where the executor is; None: start one.
        vetted: Why the one at ``spec`` is trusted.
        trace: Where to write the messages.
        llvm: Start LLVM's executor.

    Returns:
        The exit code.

    Raises:
        Failure: orc-trio could not do its part.
    """
    _check_file(program.path)
    if spec is None and importlib.util.find_spec("llvmlite") is None:  # asking LLVM itself takes its time
        raise Failure(INSTALL_HINT, ExitCode.RUN_FAILED)

    def wrap(transport: MessageTransport) -> MessageTransport:
        return transport if trace is None else TracingTransport(transport, trace)

    child = _Child()

    async def work() -> int:
        try:
            if llvm:
                return await _run_in_llvms(program, wrap, child)
            if spec is None:
                return await _run_here(program, wrap, child)
            return await _run_there(program, wrap, spec, vetted)
        except (CompileError, LinkError) as exc:
            raise Failure(str(exc), ExitCode.CANNOT_RUN) from exc
        except DisconnectedError as exc:
            raise Failure(f"no executor: {explain(exc)}", ExitCode.RUN_FAILED) from exc
        except OrcError as exc:
            raise Failure(one_line(str(exc)), ExitCode.RUN_FAILED) from exc

    return run_command(work, before_cancelling=child.kill)


class _Child:
    """The executor process that was started, if one was.

    A signal kills it before anything else is done about the signal: it would hear that we hang up, and the program
    could have something to say about that.
    """

    process: trio.Process | None = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


async def _run_here(program: Program, wrap: Wrap, child: _Child) -> int:
    """Start an executor for the program.  The program is compiled meanwhile: it is the same machine."""
    compiling = _Compiling(program)
    command = [sys.executable, "-P", "-c", _EXECUTOR, "executor"]
    async with (
        alongside(compiling.run, compiling.stop, "orc-trio compile"),
        open_executor_process(command, _handlers(), wrap_transport=wrap) as executor,
    ):
        child.process = executor.process
        return await _run(executor, program, await compiling.result())


async def _run_there(program: Program, wrap: Wrap, spec: ConnectionSpec, vetted: VettedPeer | None) -> int:
    """Use the executor at ``spec``; the program is compiled for what it says it is."""
    async with (
        open_connection(spec, vetted=vetted, on_listening=_announce) as transport,
        open_controller(wrap(transport), _handlers()) as controller,
    ):
        return await _run(controller, program, await program.compiled(Target.of(controller.bootstrap)))


async def _run_in_llvms(program: Program, wrap: Wrap, child: _Child) -> int:
    """Start LLVM's executor for the program."""
    command = find_llvm_executor()
    if command is None:
        raise Failure("no llvm-jitlink-executor is installed; Debian: apt install llvm-22", ExitCode.RUN_FAILED)
    target = await trio.to_thread.run_sync(Target.host)
    with tempfile.TemporaryDirectory(prefix="orc-trio-") as scratch:
        library = Path(scratch, "program.so")
        await link_library(await program.compiled(target), library, name=program.path)
        async with open_llvm_executor([command], HandlerRegistry(), wrap_transport=wrap) as controller:
            child.process = controller.process
            try:
                executor = RemoteExecutor(controller)
                for each in program.libraries:
                    await executor.open_library(each)
                handle = await executor.open_library(str(library))
                main = (await executor.lookup(handle, ["main"]))["main"]
                return await executor.run_as_main(main, [program.path, *program.args]) & 0xFF
            except WrapperFunctionError as exc:
                raise LinkError(f"{program.path}: LLVM's executor: {exc.message}") from exc
            except (DisconnectedError, NoControllerError):  # it may have ended between two calls
                return _ended(program.path, await controller.wait_disconnected())


class _Compiling:
    """Compiles a program for this machine, in a task of its own."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._object = b""
        self._error: Exception | None = None

    async def run(self) -> None:  # noqa: ASYNC910  (stopped before it began, it has nothing to wait for)
        with self._scope:
            try:
                target = await trio.to_thread.run_sync(Target.host)  # loading LLVM takes its time
                self._object = await self._program.compiled(target)
            except Exception as exc:  # for whoever wants the result; an executor that cannot start comes first
                self._error = exc
            self._done.set()

    def stop(self, _why: BaseException | None) -> None:
        self._scope.cancel()

    async def result(self) -> bytes:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._object


def _check_file(program: str) -> None:
    """Say what is wrong with the file before anything is started."""
    if os.path.splitext(program)[1] not in SUFFIXES:
        raise Failure(
            f"{program}: cannot tell what it is; known are LLVM IR (.ll, .bc), objects (.o) and C (.c)",
            ExitCode.CANNOT_RUN if os.path.exists(program) else ExitCode.NOT_FOUND,
        )
    try:
        with open(program, "rb"):
            pass
    except OSError as exc:
        raise Failure(f"{program}: {exc.strerror or exc}", ExitCode.NOT_FOUND) from exc


async def _run(controller: Controller, program: Program, compiled: bytes) -> int:
    try:
        loaded = await load_object(controller, compiled, name=program.path, tags=_TAGS, dylibs=program.libraries)
        return await loaded.run_main([program.path, *program.args]) & 0xFF
    except (DisconnectedError, NoControllerError):  # it may have ended between two calls
        return _ended(program.path, await controller.wait_disconnected())


def _ended(program: str, end: DisconnectReason) -> int:
    """The exit code when the executor went away while it had the program."""
    status = end.exit_status
    if status is None:
        raise Failure(f"{program}: lost the executor: {one_line(str(end))}", ExitCode.RUN_FAILED)
    if status >= 0:
        return status
    if -status not in _QUIET_SIGNALS:
        click.echo(f"orc-trio: {program} {describe_exit_status(status)}", err=True)
    return signal_status(-status)


def _handlers() -> HandlerRegistry:
    """What the program can call back."""
    registry = HandlerRegistry()
    lines = _Lines()

    def log(args: bytes) -> bytes:
        click.echo(args.rstrip(b"\n").decode(errors="replace"), err=True)
        return b""

    async def read(_args: bytes) -> bytes:
        return await lines.read()

    registry.register(_TAGS["log"], log, name="log")
    registry.register(_TAGS["input"], read, name="input")
    return registry


class _Lines:
    """Lines of our stdin, read only when the program asks: it may be the program's own to read."""

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._have = b""

    async def read(self) -> bytes:
        """The next line, with its end; nothing at the end of the file."""
        async with self._lock:
            while b"\n" not in self._have:
                # Not sys.stdin: its lock would be held at the end, if nobody ever types anything.
                more = await trio.to_thread.run_sync(os.read, 0, 64 * 1024, abandon_on_cancel=True)
                if not more:
                    break
                self._have += more
            line, end, self._have = self._have.partition(b"\n")
            return line + end


def _announce(bound: ConnectionSpec) -> None:
    click.echo(f"orc-trio run: waiting for an executor on {bound}", err=True)
