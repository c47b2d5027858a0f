"""Taking over a descriptor that somebody else opened.

Rules
-----
* A descriptor that is adopted is not inherited by programs we start (CLOEXEC).
* The standard descriptors 0, 1 and 2 never carry a wire.  One that is adopted is moved aside, and /dev/null
  takes its place: a stray print cannot corrupt the wire, a stray read cannot steal from it, and no file
  opened later can get the number and be written to by mistake.  What had been printed and not flushed goes to
  /dev/null with the rest.
* What cannot be adopted is left as it was.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from orc_trio.exceptions import ConnectionSpecError
from orc_trio.transports.specs import ConnectionSpec

__all__ = ["STANDARD", "descriptor_number", "silence", "take"]

STANDARD: Final = (0, 1, 2)
_MAX_DIGITS: Final = 9  # far beyond what any system allows, and not beyond what a C int holds


def descriptor_number(spec: ConnectionSpec, text: str) -> int:
    """Read a descriptor's number.

    Raises:
        ConnectionSpecError: It is not one.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise ConnectionSpecError(f"{spec}: {text!r} is not a descriptor; write its number, for example 3")
    return int(text)


def take(descriptor: int) -> int:
    """Make an open descriptor ours.

    Returns:
        Its number from now on; ``descriptor`` itself unless that is a standard one.

    Raises:
        OSError: There are no descriptors left; nothing has changed.
    """
    if descriptor not in STANDARD:
        os.set_inheritable(descriptor, False)
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(STANDARD) + 1)
    try:
        silence(descriptor)
    except OSError:
        os.close(moved)
        raise
    return moved


def silence(descriptor: int) -> None:
    """Put /dev/null in the place of a descriptor; programs we start inherit it as they would have."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(null, descriptor, inheritable=True)
    finally:
        os.close(null)
