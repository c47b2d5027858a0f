"""G9 and G10: what can be called, and what an error says."""

from __future__ import annotations

import sys

import trio
import trio.testing

from orc_trio.exceptions import (
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.testing.conformance.bench import Bench, check, expect, fail
from orc_trio.testing.conformance.call import Call
from orc_trio.testing.conformance.checks.settling import NOWHERE
from orc_trio.testing.conformance.noting import logged
from orc_trio.testing.conformance.party import Party, Serve
from orc_trio.testing.conformance.rig import attached

__all__ = ["check_errors_are_not_bytes", "check_only_registered_tags"]

PRIVATE = "hunter2-/home/somebody/secret"


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError(PRIVATE)


@check("G9", "only registered tags")
async def check_only_registered_tags(bench: Bench) -> None:
    """Only what is registered can be called, and nothing of an unexpected exception crosses; in both directions.

    * A call to an unknown tag fails with `UnknownHandlerTagError`, and the conversation lives.
    * A deliberate error carries its type and message across.
    * Any other exception is ``"HandlerFailed"`` for the caller, without a word of it; its owner's log has it.
    """

    def raising(exc: Exception) -> Serve:
        async def function(_party: Party, _args: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            raise exc

        return function

    accidents = {
        "value error": ValueError(PRIVATE),
        "group": ExceptionGroup(PRIVATE, [OSError(13, PRIVATE), KeyError(PRIVATE)]),
        "unprintable": _Unprintable(PRIVATE),
    }
    functions = {name: raising(exc) for name, exc in accidents.items()}
    async with attached(bench, functions) as rig:
        for caller in rig.parties:
            for _ in range(2):
                await _unknown_tag(caller)
            error = await _error_of(caller, "refuse", b"on purpose")
            expect(
                (error.remote_type, error.message) == ("Deliberate", "on purpose"),
                expected="a deliberate error crosses with its type and message",
                got=f"{error.remote_type!r}: {error.message!r}",
                why="it is how a function tells its caller what is wrong",
            )
            for name in accidents:
                await _accident(caller, name)
            call = await Call(caller, "echo", b"still here").make()
            await call.echoed()


async def _unknown_tag(caller: Party) -> None:  # noqa: ASYNC910
    try:
        answer: object = await caller.call_tag(NOWHERE, b"x")
    except UnknownHandlerTagError:
        return  # noqa: ASYNC910
    except Exception as exc:
        answer = exc
    fail(
        expected="a call to a tag that nobody registered fails with UnknownHandlerTagError",
        got=repr(answer),
        why="only what was registered can be called, and the caller has to know that nothing ran",
    )


async def _error_of(caller: Party, name: str, args: bytes = b"") -> WrapperFunctionError:
    call = Call(caller, name, args)
    with caller.bench.soon(f"{call} fails"):
        await call.run()
    if not isinstance(call.outcome, WrapperFunctionError):
        fail(
            expected=f"{call} fails with WrapperFunctionError",
            got=repr(call.outcome),
            why="an error of the function is an error of that call",
        )
    return call.outcome


async def _accident(caller: Party, name: str) -> None:
    with logged() as records:
        error = await _error_of(caller, name)
    told = f"{error.remote_type} {error.message}"
    expect(
        error.remote_type == "HandlerFailed",
        expected="an unexpected exception is an error of type HandlerFailed",
        got=repr(error),
        why="its real type is nobody's business at the other end",
    )
    leaked = [word for word in ("hunter2", "secret", "Traceback", "ValueError", "KeyError", ".py") if word in told]
    expect(
        not leaked,
        expected="nothing of an unexpected exception crosses",
        got=repr(told),
        why="its text, type and traceback may hold secrets",
    )
    expect(
        any(record.exc_info for record in records),
        expected=f"the owner of {caller.other}'s end finds the exception in its log",
        got=f"{len(records)} records, none with an exception",
        why="otherwise nobody ever learns of the bug",
    )


@check("G10", "errors are not bytes")
async def check_errors_are_not_bytes(bench: Bench) -> None:
    """An error is distinct from every bytes result, has a type and a message, and is bounded; in both directions.

    * Results that look like errors, and empty ones, are results.
    * Errors with odd texts (lone surrogates, zeros, nothing at all) are errors.
    * One with a text larger than any message is cut short, and the conversation lives.
    """
    most = bench.figures.max_message or sys.maxsize
    texts = {"": "", "\0\x1b[31m\n": "\0\x1b[31m\n", "ümlaut": "ümlaut", "\ud800": None, "x" * 300_000: None}

    async def odd(_party: Party, args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        raise WrapperFunctionError("Odd", list(texts)[int(args)])

    async with attached(bench, {"odd": odd}) as rig:
        for caller in rig.parties:
            for result in (b"", b"WrapperFunctionError", b"HandlerFailed: no", bytes(range(256))):
                call = await Call(caller, "echo", result).make()
                await call.echoed()
            for number, (text, exact) in enumerate(texts.items()):
                error = await _error_of(caller, "odd", b"%d" % number)
                expect(
                    error.remote_type == "Odd" and exact in (None, error.message),
                    expected=f"an error of type 'Odd' with the message {text[:20]!r}",
                    got=f"{error.remote_type!r}: {error.message[:20]!r}",
                    why="a program compares the type, and a person reads the message",
                )
                size = len(error.message.encode("utf-8", "replace"))
                expect(
                    size <= most,
                    expected=f"an error is no larger than a message may be, {most} bytes",
                    got=f"{size} bytes",
                    why="an error must not break what carries it",
                )
            call = await Call(caller, "echo", b"still here").make()
            await call.echoed()
