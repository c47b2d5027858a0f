"""``orc-trio call``: call one wrapper function of an executor, or list what it offers."""

from __future__ import annotations

import string
import sys
from typing import Final, Literal, TypeAlias

import click
import trio

from orc_trio.cli.exits import ExitCode, Failure, one_line
from orc_trio.cli.signals import run_command
from orc_trio.controller import Controller, open_controller
from orc_trio.exceptions import UnknownHandlerTagError, WrapperFunctionError
from orc_trio.protocol.limits import Limits
from orc_trio.registry import HandlerRegistry
from orc_trio.tracing import TraceWriter, TracingTransport
from orc_trio.transports import ConnectionSpec, VettedPeer, open_connection

__all__ = ["OUTPUTS", "Output", "call", "format_answer"]

Output: TypeAlias = Literal["auto", "raw", "text", "hex"]
OUTPUTS: Final[tuple[Output, ...]] = ("auto", "raw", "text", "hex")
_DUMP_WIDTH: Final = 16
_VISIBLE: Final = frozenset(string.printable.encode()) - frozenset(b"\t\n\r\v\f")


def call(
    spec: ConnectionSpec,
    vetted: VettedPeer,
    symbol: str | None,
    args: bytes,
    *,
    output: Output,
    timeout: float | None,
    trace: TraceWriter | None,
) -> int:
    """Call one function and write its answer to stdout; without a symbol, list the symbols.

    Returns:
        The exit code.

    Raises:
        Failure: The function answered with an error, or is not there, or did not answer in time.
        DisconnectedError: No connection, or it ended first.
    """

    async def work() -> int:
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            async with open_connection(spec, vetted=vetted, on_listening=_announce) as transport:
                traced = transport if trace is None else TracingTransport(transport, trace)
                # Whoever said how long to wait does not mean the goodbye to take much longer than that.
                limits = Limits() if timeout is None else Limits(setup_timeout=max(10.0, timeout), drain_timeout=1.0)
                async with open_controller(traced, HandlerRegistry(), limits=limits) as controller:
                    if symbol is None:
                        click.echo(_listing(controller), nl=False)
                        return ExitCode.OK
                    answer = await _call(controller, symbol, args)
            _write(answer, output)
            return ExitCode.OK
        raise Failure(f"no answer within {timeout:g} s", ExitCode.DISCONNECTED)

    return run_command(work)


async def _call(controller: Controller, symbol: str, args: bytes) -> bytes:
    address = _address(controller, symbol)
    try:
        return bytes(await controller.call_wrapper(address, args))
    except WrapperFunctionError as exc:
        raise Failure(f"{symbol} answered with an error: {one_line(str(exc))}") from exc
    except UnknownHandlerTagError as exc:
        raise Failure(f"there is no function at {address:#x} in this executor") from exc


def _address(controller: Controller, symbol: str) -> int:
    symbols = controller.bootstrap.symbols
    if symbol in symbols:
        return symbols[symbol]
    try:
        address = int(symbol, 0)
    except ValueError:
        address = -1
    if 0 <= address < 2**64:
        return address
    known = ", ".join(one_line(name) for name in sorted(symbols)) or "none"
    raise Failure(f"the executor has no symbol {symbol!r}; there are: {known}")


def _listing(controller: Controller) -> str:
    bootstrap = controller.bootstrap
    lines = [f"triple     {one_line(bootstrap.triple)}", f"page size  {bootstrap.page_size}"]
    lines += [f"value      {one_line(name)} = {value!r}" for name, value in sorted(bootstrap.values.items())]
    lines += [f"symbol     {address:#018x} {one_line(name)}" for name, address in sorted(bootstrap.symbols.items())]
    return "".join(f"{line}\n" for line in lines)


def _write(answer: bytes, output: Output) -> None:
    if output == "auto":
        output = "text" if is_terminal() else "raw"
    data = format_answer(answer, output)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def is_terminal() -> bool:
    """Whether a person reads what we write to stdout."""
    return sys.stdout.isatty()


def format_answer(answer: bytes, output: Output) -> bytes:
    """The bytes to write for an answer.

    Args:
        answer: The result bytes.
        output: ``raw``: as they are.  ``text``: as text with a line end, or as ``hex`` if they are none.  ``hex``: a
            dump of sixteen bytes a line.
    """
    if output == "raw":
        return answer
    if output == "text":
        try:
            text = answer.decode()
        except UnicodeDecodeError:
            text = "\0"
        if all(char.isprintable() or char in "\n\t" for char in text):
            return answer if not text or text.endswith("\n") else answer + b"\n"
    lines = []
    for at in range(0, len(answer), _DUMP_WIDTH):
        row = answer[at : at + _DUMP_WIDTH]
        seen = "".join(chr(byte) if byte in _VISIBLE else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):<{_DUMP_WIDTH * 3 - 1}}  {seen}\n")
    return "".join(lines).encode()


def _announce(bound: ConnectionSpec) -> None:
    click.echo(f"orc-trio call: waiting for an executor on {bound}", err=True)
