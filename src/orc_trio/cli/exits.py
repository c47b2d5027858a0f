"""Exit codes, and the errors that end a command with one of them."""

from __future__ import annotations

import enum

from orc_trio.exceptions import DisconnectedError
from orc_trio.reasons import DisconnectKind, describe_exit_status

__all__ = ["ExitCode", "Failure", "explain", "one_line", "signal_status"]


class ExitCode(enum.IntEnum):
    """How ``orc-trio`` itself ends; ``run`` otherwise ends as its program does."""

    OK = 0
    """It went well."""
    FAILED = 1
    """``call``: the function answered with an error.  ``decode``: the input is malformed.
    ``conformance``: a check failed or hung.  ``bench``: a ratio is worse than it was."""
    USAGE = 2
    """The command line is wrong: an unknown option, a bad spec, a file that cannot be read."""
    DISCONNECTED = 3
    """No connection came about, or it ended before its time."""
    RUN_FAILED = 125
    """``run``: orc-trio itself could not do its part; the program may have run or not."""
    CANNOT_RUN = 126
    """``run``: the program cannot be compiled or loaded."""
    NOT_FOUND = 127
    """``run``: there is no such program file, or it cannot be read."""


class Failure(Exception):
    """Ends the command with one line on stderr.

    Args:
        message: What is wrong, and the way out.
        status: The exit code.
    """

    def __init__(self, message: str, status: int = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.status: int = int(status)


def one_line(text: str) -> str:
    """A text from a stranger, fit for a terminal: no line breaks, no control characters."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def signal_status(number: int) -> int:
    """The exit code that stands for the end by a signal, as shells have it."""
    return 128 + number


def explain(exc: DisconnectedError) -> str:
    """Why there is no connection, or none any more, in one line."""
    if exc.reason.kind is DisconnectKind.CONNECT_FAILED:
        why = exc.reason.detail or exc.reason.kind.value
        if exc.reason.exit_status is not None:
            why += f" [executor {describe_exit_status(exc.reason.exit_status)}]"
        return f"{why}: {exc.reason.cause}" if exc.reason.cause else why
    return f"{exc.reason}; the call: {exc.certainty.value}"
