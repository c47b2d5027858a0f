"""``orc-trio-llvm-executor``: an executor that LLVM's own controllers accept.

llvm-jitlink-22 -oop-executor=$(command -v orc-trio-llvm-executor) program.o
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import trio

from orc_trio.access import StreamControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.executor import end_process
from orc_trio.llvm.names import VERSIONS
from orc_trio.llvm.serving import install_llvm
from orc_trio.llvm.transport import SimpleRemoteTransport
from orc_trio.protocol import Role
from orc_trio.session import open_session
from orc_trio.wire.simple_remote import Dialect

__all__ = ["main"]

_VERSION: Final = "ORC_TRIO_LLVM_VERSION"
_PATIENCE: Final = 0.5
"""Seconds that functions have to come back when the controller is gone; then the process ends without."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve one controller, and end the process."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        incoming, outgoing = _descriptors(arguments)
    except ValueError as exc:
        print(f"orc-trio-llvm-executor: {exc}", file=sys.stderr)
        raise SystemExit(2) from None
    status, running = trio.run(_serve, incoming, outgoing, _llvm_version())
    end_process(status, running)


async def _serve(incoming: int, outgoing: int, version: int) -> tuple[int, tuple[str, ...]]:
    stream = trio.StapledStream(trio.lowlevel.FdStream(outgoing), trio.lowlevel.FdStream(incoming))
    with trio.CancelScope() as scope:
        async with open_session() as session:
            bootstrap = BootstrapInfo.for_session(session)
            install_llvm(session, bootstrap, version)
            dialect = Dialect.UP_TO_16 if version < 17 else Dialect.UP_TO_23
            transport = SimpleRemoteTransport(stream, Role.EXECUTOR, dialect=dialect)
            await session.attach(StreamControllerAccess(transport), bootstrap)
            reason = await session.wait_detached()
            scope.deadline = trio.current_time() + _PATIENCE
    # Up to LLVM 23 a controller says nothing when it leaves in order.
    good = reason.orderly or not reason.detail
    if not good:
        print(f"orc-trio-llvm-executor: {reason}", file=sys.stderr)
    return (0 if good else 1), session.statistics().running_wrappers


def _descriptors(arguments: Sequence[str]) -> tuple[int, int]:
    for argument in arguments:
        if match := re.fullmatch(r"filedescs=(\d+),(\d+)", argument):
            return int(match[1]), int(match[2])
    raise ValueError("usage: orc-trio-llvm-executor filedescs=IN,OUT")


def _llvm_version() -> int:
    """Which LLVM started us: as the environment says, or its program's name, or the newest that is known."""
    said = os.environ.get(_VERSION, "")
    if said.isdecimal():
        return int(said)
    try:
        parent = os.readlink(f"/proc/{os.getppid()}/exe")
    except OSError:
        parent = ""
    found = re.search(r"llvm-?(\d+)|-(\d+)$", parent)
    return int(found[1] or found[2]) if found else max(VERSIONS)


if __name__ == "__main__":
    main()
