"""The commands and their options; and `main`, which turns errors into one line.

The work is done in the modules named after the commands, which are imported when they are used.  What ``--help`` says
is in `orc_trio.cli.help`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, BinaryIO

import click

from orc_trio.cli import help as texts
from orc_trio.cli import peers
from orc_trio.cli.exits import ExitCode, Failure, explain, one_line, signal_status
from orc_trio.exceptions import DisconnectedError, OrcError
from orc_trio.tracing import TraceWriter

__all__ = ["main", "orc_trio"]

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_COMPLETION = "_ORC_TRIO_COMPLETE"
_TRACE = click.option("--trace", metavar="FILE", help="Write every message to FILE; orc-trio decode reads it.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, without the program's name; default: the process's.

    Returns:
        The exit code.
    """
    if _COMPLETION in os.environ:  # a shell asks what could be typed next
        orc_trio.main(prog_name="orc-trio", complete_var=_COMPLETION)
    try:
        try:
            # Not click's own main: it has ideas of its own about broken pipes.
            with orc_trio.make_context("orc-trio", sys.argv[1:] if argv is None else list(argv)) as context:
                status = orc_trio.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as exc:  # --help, --version
            sys.stdout.flush()
            return exc.exit_code
        except click.UsageError as exc:
            name = exc.ctx.command_path if exc.ctx is not None else "orc-trio"
            hint = "" if "--help" in exc.format_message() else f"; see {name} --help"
            return _complain(f"{exc.format_message().rstrip('.')}{hint}", exc.exit_code)
        except click.ClickException as exc:
            return _complain(exc.format_message(), exc.exit_code)
        except Failure as exc:
            return _complain(str(exc), exc.status)
        except DisconnectedError as exc:
            return _complain(explain(exc), ExitCode.DISCONNECTED)
        except OrcError as exc:
            return _complain(str(exc), ExitCode.DISCONNECTED)
        except (click.Abort, KeyboardInterrupt):
            return signal_status(signal.SIGINT)
    except BrokenPipeError:  # nobody reads what we write: no reason to complain, but to stop
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)  # so that what is buffered can be flushed at exit
        os.close(null)
        return signal_status(signal.SIGPIPE)
    return int(status or ExitCode.OK)


def _complain(message: str, status: int) -> int:
    for number, line in enumerate(message.strip().splitlines()):  # one, unless a compiler has said more
        click.echo(one_line(line) if number else f"orc-trio: {one_line(line)}", err=True)
    return status


@contextmanager
def _reading(path: str) -> Iterator[BinaryIO]:
    """A file opened for reading, or stdin for ``-``."""
    try:
        if path == "-":
            yield sys.stdin.buffer
        else:
            with open(path, "rb") as file:
                yield file
    except BrokenPipeError:  # that is stdout
        raise
    except OSError as exc:
        raise Failure(f"{path}: {exc.strerror or exc}", ExitCode.USAGE) from exc


@contextmanager
def _tracing(path: str | None) -> Iterator[TraceWriter | None]:
    """What ``--trace`` asks for."""
    if path is None:
        yield None
        return
    try:
        file = open(path, "wb")  # noqa: SIM115  (only opening it is within the try)
    except OSError as exc:
        raise Failure(f"--trace {path}: {exc.strerror or exc}", ExitCode.USAGE) from exc
    writer = TraceWriter(file)
    try:
        yield writer
    finally:
        error = writer.error
        try:
            file.close()
        except OSError as exc:  # that is where some file systems tell
            error = exc
        if error is not None:
            click.echo(f"orc-trio: the trace is incomplete: {path}: {error.strerror}", err=True)


@click.group(
    name="orc-trio",
    help=texts.MAIN,
    epilog=texts.EXIT_CODES,
    context_settings=_SETTINGS,
    invoke_without_command=True,
)
@click.version_option(version("orc-trio"), prog_name="orc-trio")
@click.pass_context
def orc_trio(context: click.Context) -> int:
    """The group of all commands."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return ExitCode.USAGE
    return ExitCode.OK


@orc_trio.command(
    help=texts.RUN,
    short_help="Run a program in an executor process.",
    epilog=texts.RUN_EXIT_CODES,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("program", metavar="PROGRAM")
@click.argument("args", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-O", "optimize", type=click.IntRange(0, 3), default=2, show_default=True, help="How much to optimize.")
@click.option(
    "-l",
    "--library",
    "libraries",
    multiple=True,
    metavar="NAME",
    help="Load a shared library first, as in -l libz.so.1.",
)
@click.option("--spec", type=peers.spec, help="Use the executor there, instead of starting one.")
@peers.vetted_option
@click.option("--llvm", is_flag=True, help="Start LLVM's executor (llvm-jitlink-executor) instead of ours, to compare.")
@_TRACE
def run(
    program: str,
    args: tuple[str, ...],
    optimize: int,
    libraries: tuple[str, ...],
    spec: Any,
    vetted: str | None,
    llvm: bool,
    trace: str | None,
) -> int:
    """See `texts.RUN`."""
    from orc_trio.cli.run import Program, run_program

    if spec is None and vetted is not None:
        raise click.UsageError("--vetted is about the other end of --spec; without one, leave it out")
    if spec is not None and llvm:
        raise click.UsageError("--llvm starts an executor, --spec uses one that is there: take one of them")
    checked = None if spec is None else peers.vet(spec, vetted)
    with _tracing(trace) as writer:
        what = Program(path=program, args=args, optimize=optimize, libraries=libraries)
        return run_program(what, spec=spec, vetted=checked, trace=writer, llvm=llvm)


@orc_trio.command(help=texts.EXECUTOR, short_help="Be an executor.", epilog=texts.EXIT_CODES)
@click.argument("spec", type=peers.spec)
@click.option(
    "--wrappers",
    multiple=True,
    metavar="MODULE:OBJECT",
    help="Offer Python functions: a function from bytes to bytes, a mapping from names to such functions, or a "
    "function install(session, bootstrap). May be given more than once.",
)
@click.option("--native/--no-native", default=True, show_default=True, help="Run native code, if llvmlite is here.")
@peers.vetted_option
def executor(spec: Any, wrappers: tuple[str, ...], native: bool, vetted: str | None) -> int:
    """See `texts.EXECUTOR`."""
    from orc_trio.cli.executor import run_executor
    from orc_trio.cli.wrappers import load_wrappers

    return run_executor(spec, peers.vet(spec, vetted), load_wrappers(wrappers), native=native)


@orc_trio.command(help=texts.CALL, short_help="Call one function of an executor.", epilog=texts.EXIT_CODES)
@click.argument("spec", type=peers.spec)
@click.argument("symbol", required=False)
@click.option("-d", "--data", metavar="TEXT", help="The argument bytes, as text.")
@click.option("-x", "--hex", "hex_data", metavar="HEX", help="The argument bytes, in hexadecimal.")
@click.option("-f", "--file", "path", metavar="FILE", help="Read the argument bytes from FILE (- is stdin).")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["auto", "raw", "text", "hex"]),
    default="auto",
    show_default=True,
    help="How to show the answer. auto is text at a terminal (hex if it is none), and raw otherwise.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Give up after this time."
)
@peers.vetted_option
@_TRACE
def call(
    spec: Any,
    symbol: str | None,
    data: str | None,
    hex_data: str | None,
    path: str | None,
    output: Any,
    timeout: float | None,
    vetted: str | None,
    trace: str | None,
) -> int:
    """See `texts.CALL`."""
    from orc_trio.cli.call import call as make_call

    checked = peers.vet(spec, vetted)
    args = _argument_bytes(symbol, data, hex_data, path)
    with _tracing(trace) as writer:
        return make_call(spec, checked, symbol, args, output=output, timeout=timeout, trace=writer)


def _argument_bytes(symbol: str | None, data: str | None, hex_data: str | None, path: str | None) -> bytes:
    given = [each for each in (data, hex_data, path) if each is not None]
    if len(given) > 1:
        raise click.UsageError("the argument bytes come from one of --data, --hex and --file")
    if given and symbol is None:
        raise click.UsageError("there are argument bytes but no SYMBOL to call")
    if hex_data is not None:
        try:
            return bytes.fromhex(hex_data)
        except ValueError as exc:
            raise click.UsageError(f"--hex {hex_data}: {exc}") from exc
    if path is not None:
        with _reading(path) as file:
            return file.read()
    return os.fsencode(data or "")


@orc_trio.command(help=texts.DECODE, short_help="Show a trace as readable lines.", epilog=texts.EXIT_CODES)
@click.argument("file", metavar="FILE")
@click.option(
    "-n",
    "--bytes",
    "shown",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="How many bytes of each payload to show.",
)
def decode(file: str, shown: int) -> None:
    """See `texts.DECODE`."""
    from orc_trio.cli.decode import decode as decode_file

    with _reading(file) as opened:
        for line in decode_file(opened, file, shown):
            click.echo(line)


@orc_trio.command(help=texts.BENCH, short_help="Measure how fast it is here.", epilog=texts.EXIT_CODES)
@click.option(
    "--only", multiple=True, metavar="TEXT", help="Only what has this in its name. May be given more than once."
)
@click.option(
    "--sets",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many fresh pairs of processes to measure in.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="How many slices of time of each of the two in a pair of processes.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.25,
    show_default=True,
    help="How long a slice is.",
)
@click.option("--json", "json_path", metavar="FILE", help="Write the results as JSON.")
@click.option("--plot", "plot_path", metavar="FILE", help="Draw them (.svg, .png, .pdf); needs matplotlib.")
@click.option("--compare", metavar="FILE", help="Fail if a ratio is worse than in these results (of --json).")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.25,
    show_default=True,
    metavar="SHARE",
    help="By how much a ratio may be worse.",
)
def bench(
    only: tuple[str, ...],
    sets: int,
    rounds: int,
    seconds: float,
    json_path: str | None,
    plot_path: str | None,
    compare: str | None,
    tolerance: float,
) -> int:
    """See `texts.BENCH`."""
    from orc_trio.bench.figures import Plan
    from orc_trio.cli.bench import bench as measure

    return measure(
        only=only,
        plan=Plan(sets=sets, rounds=rounds, seconds=seconds),
        json_path=json_path,
        plot_path=plot_path,
        compare=compare,
        tolerance=tolerance,
    )


@orc_trio.command(help=texts.CONFORMANCE, short_help="Check a controller access of one's own.", epilog=texts.EXIT_CODES)
@click.argument("factories", metavar="MODULE:FACTORY...", nargs=-1, required=True)
@click.option("--only", multiple=True, metavar="G12", help="Check this guarantee only. May be given more than once.")
@click.option("--seed", type=click.IntRange(min=0), help="Decides the order of tasks; a bad verdict tells its seed.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="The most that one check may take; then its process is killed.",
)
@click.option("--html", metavar="FILE", help="Write the report as a web page.")
@click.option("--json", "json_path", metavar="FILE", help="Write the report as JSON.")
def conformance(
    factories: tuple[str, ...],
    only: tuple[str, ...],
    seed: int | None,
    patience: float,
    html: str | None,
    json_path: str | None,
) -> int:
    """See `texts.CONFORMANCE`."""
    from orc_trio.cli.conformance import conformance as check

    return check(factories, only=only, seed=seed, patience=patience, html=html, json_path=json_path)
