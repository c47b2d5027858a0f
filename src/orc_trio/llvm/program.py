"""``orc-trio-llvm-executor``: an executor that LLVM's own controllers accept.

llvm-jitlink-22 -oop-executor=$(command -v orc-trio-llvm-executor) program.o
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from orc_trio.access import StreamControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import ConnectionSpecError, DisconnectedError
from orc_trio.executor import end_process
from orc_trio.llvm.names import VERSIONS
from orc_trio.llvm.serving import install_llvm
from orc_trio.llvm.transport import SimpleRemoteTransport
from orc_trio.protocol import Role
from orc_trio.session import open_session
from orc_trio.streams import StreamTransport
from orc_trio.transports import ConnectionSpec, VettedPeer, open_connection
from orc_trio.wire.simple_remote import Dialect

__all__ = ["main"]

_VERSION: Final = "ORC_TRIO_LLVM_VERSION"
_PATIENCE: Final = 0.5
"""Seconds that functions have to come back when the controller is gone; then the process ends with them."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve one controller, and end the process."""
    arguments = sys.argv[1:] if argv is None else argv
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, also from native code, as LLVM's own
    try:
        sys.exit(trio.run(_serve, arguments, _llvm_version()))
    except ConnectionSpecError as exc:
        _complain(str(exc))
        sys.exit(2)
    except DisconnectedError as exc:
        _complain(str(exc.reason))
        sys.exit(1)


async def _serve(arguments: Sequence[str], version: int) -> int:
    async with _stream(arguments) as stream, open_session(threads=math.inf) as session:
        bootstrap = BootstrapInfo.for_session(session)
        install_llvm(session, bootstrap, version)
        dialect = Dialect.UP_TO_16 if version < 17 else Dialect.UP_TO_23
        transport = SimpleRemoteTransport(stream, Role.EXECUTOR, dialect=dialect)
        await session.attach(StreamControllerAccess(transport), bootstrap)
        reason = await session.wait_detached()
        # Up to LLVM 23 a controller says nothing when it leaves in order.
        good = reason.orderly or not reason.detail
        if not good:
            _complain(str(reason))
        until = trio.current_time() + _PATIENCE
        while (running := session.statistics().running_wrappers) and trio.current_time() < until:  # noqa: ASYNC110
            await trio.sleep(0.01)
        if running:
            end_process(0 if good else 1, running)
    return 0 if good else 1


@asynccontextmanager
async def _stream(arguments: Sequence[str]) -> AsyncIterator[trio.abc.Stream]:
    """The stream to the controller, by LLVM's words for it."""
    words = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if match := re.fullmatch(r"(\d+),(\d+)", words.get("filedescs", "")):
        incoming, outgoing = (trio.lowlevel.FdStream(int(number)) for number in match.groups())
        async with trio.StapledStream(outgoing, incoming) as stream:
            yield stream
    elif "listen" in words:
        spec = ConnectionSpec("tcp", "listen", words["listen"])
        # LLVM's executors serve whoever comes, too.
        async with open_connection(spec, vetted=VettedPeer.UNCHECKED, on_listening=_announce) as transport:
            assert isinstance(transport, StreamTransport)
            yield transport.stream
    else:
        raise ConnectionSpecError("usage: orc-trio-llvm-executor filedescs=IN,OUT | listen=HOST:PORT")


def _announce(bound: ConnectionSpec) -> None:
    _complain(f"listening on {bound.descriptor}")


def _complain(text: str) -> None:
    print(f"orc-trio-llvm-executor: {text}", file=sys.stderr)


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
