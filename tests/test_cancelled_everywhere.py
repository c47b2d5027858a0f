# Every public async function is cancelled at every one of its steps, and nothing is torn, lost or left.
#
# Those of a conversation (calls, attach, disconnect …) are cancelled in the campaigns (`test_campaigns`), where every
# run's log is checked as well; here are the others: what opens, moves messages, and closes.  The last test knows all.

from __future__ import annotations

import inspect
import io
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import orc_trio
import orc_trio.testing
import orc_trio.transports
from harness import cancelled_everywhere, no_hang, nothing_left
from orc_trio import ConnectionSpec, VettedPeer, open_connection
from orc_trio.abc import MessageTransport
from orc_trio.streams import StreamTransport
from orc_trio.tracing import TraceWriter, TracingTransport
from orc_trio.transports import in_process_pair
from orc_trio.wire import encode
from transport_helpers import call, connect_to

pytestmark = pytest.mark.campaign
THOROUGH = "ORC_TRIO_THOROUGH" in os.environ
EXECUTOR = [sys.executable, str(Path(__file__).parent / "launch_executor.py")]


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


async def everywhere(scenario: Callable[[], Awaitable[None]], *, stride: int = 1) -> None:
    """Cancel it at every step; each time, no descriptor is left."""
    with no_hang(), nothing_left(threads=True):

        async def alone() -> None:
            with nothing_left(threads=True):
                await scenario()

        assert await cancelled_everywhere(alone, nothing, stride=stride) >= 1


def close_if_still(descriptors: dict[int, str]) -> None:
    """Close those that were never adopted: cancelled before it has begun, adopting leaves them alone."""
    for fd, name in descriptors.items():
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == name:
                os.close(fd)
        except FileNotFoundError:
            pass


# --- opening ---


async def converse(transport: MessageTransport) -> None:
    await transport.send([call(1, b"x" * 100_000)])
    assert await transport.receive()
    await transport.send_eof()


async def answer(transport: MessageTransport) -> None:
    """The other end: gives back what it gets, while it lasts."""
    try:
        while messages := await transport.receive():
            await transport.send(messages)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


WHERE = {
    "tcp": ("tcp:listen=127.0.0.1:0", VettedPeer.UNCHECKED),
    "unix": ("unix:listen=s", None),
    "abstract": (f"unix:listen=@orc-trio-cancelled-{os.getpid()}", None),
}


@pytest.mark.parametrize("who", ["connects", "listens"])
@pytest.mark.parametrize("kind", WHERE)
async def test_open_connection(kind: str, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """G18, G19: whoever connects or listens, cancelled anywhere, leaves nothing open, and the other end sees an end."""
    monkeypatch.chdir(tmp_path)
    spec, vetted = WHERE[kind]

    async def other(connect: ConnectionSpec) -> None:
        try:
            async with open_connection(connect, vetted=vetted) as transport:
                await answer(transport)
        except orc_trio.DisconnectedError:
            pass  # whoever listened is gone

    async def listen() -> None:
        async with trio.open_nursery() as nursery:

            def listening(bound: ConnectionSpec) -> None:
                nursery.start_soon(other, connect_to(bound))

            async with open_connection(spec, vetted=vetted, on_listening=listening) as transport:
                await converse(transport)

    async def accept(task_status: trio.TaskStatus[ConnectionSpec]) -> None:
        async with open_connection(spec, vetted=vetted, on_listening=task_status.started) as transport:
            await answer(transport)

    async def connect() -> None:
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(accept)
            async with open_connection(connect_to(bound), vetted=vetted) as transport:
                await converse(transport)
            nursery.cancel_scope.cancel()

    await everywhere(listen if who == "listens" else connect)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["socket", "pipe"])
async def test_adopting(kind: str) -> None:
    """G18, G19: what adopts descriptors, cancelled anywhere, has closed them, or has not touched them."""

    async def scenario() -> None:
        if kind == "socket":
            here, there = socket.socketpair()
            fds = (here.detach(),)
            other: Any = trio.SocketStream(trio.socket.from_stdlib_socket(there))
        else:
            (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()
            fds = (read_here, write_here)  # type: ignore[assignment]
            stream = trio.lowlevel.FdStream
            other = trio.StapledStream(stream(write_there), stream(read_there))
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, StreamTransport(other))
                async with open_connection(f"{kind}:adopt={','.join(map(str, fds))}") as transport:
                    await converse(transport)
        finally:
            close_if_still(dict(zip(fds, names, strict=True)))
            await trio.aclose_forcefully(other)

    await everywhere(scenario)


async def test_open_attached_session() -> None:
    """G18, G19, G20: an executor's whole life, cancelled anywhere: its controller sees an end, nothing is left."""
    told: list[orc_trio.DisconnectReason] = []
    limits = orc_trio.Limits(drain_timeout=0.1)  # cancelled before it adopts its end, the executor never answers

    async def scenario() -> None:
        here, there = socket.socketpair()
        fd = there.detach()
        name = os.readlink(f"/proc/self/fd/{fd}")
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(here))
        try:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def control() -> None:
                    try:
                        async with orc_trio.open_controller(
                            stream, orc_trio.HandlerRegistry(), limits=limits, on_disconnect=told.append
                        ) as controller:
                            await controller.wait_disconnected()
                    except orc_trio.DisconnectedError:
                        pass

                async with orc_trio.open_attached_session(prepare, f"socket:adopt={fd}") as session:
                    await session.detach()
        finally:
            close_if_still({fd: name})
            await trio.aclose_forcefully(stream)

    async def prepare(_session: orc_trio.Session, bootstrap: orc_trio.BootstrapInfo) -> None:
        bootstrap.add_wrapper("echo", bytes)
        await trio.lowlevel.checkpoint()

    await everywhere(scenario)
    assert told


@pytest.mark.slow
async def test_open_executor_process() -> None:
    """G13, G18, G19: an executor process's whole life, cancelled anywhere: it is reaped, nothing is left."""

    async def scenario() -> None:
        registry = orc_trio.HandlerRegistry()
        limits = orc_trio.Limits(drain_timeout=3.0)
        try:
            async with orc_trio.open_executor_process(EXECUTOR, registry, limits=limits, grace=1.0) as executor:
                await executor.call_wrapper(executor.bootstrap.symbols["echo"], b"x" * 100_000)
                await executor.disconnect()
        finally:
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222  (it does not block)

    # A quarter of a second each: by default every seventh step.
    await everywhere(scenario, stride=1 if THOROUGH else 7)


# --- moving messages ---


def plain(stream: trio.abc.Stream) -> MessageTransport:
    return StreamTransport(stream)


def traced(stream: trio.abc.Stream) -> MessageTransport:
    return TracingTransport(StreamTransport(stream), TraceWriter(io.BytesIO()))


@pytest.mark.parametrize("wrap", [plain, traced, None], ids=["stream", "traced", "inprocess"])
async def test_transports(wrap: Callable[[trio.abc.Stream], MessageTransport] | None) -> None:
    """G3, G19: sending, receiving and closing, cancelled anywhere: closed all the same; a receive has lost nothing."""

    async def pair() -> tuple[MessageTransport, MessageTransport]:
        if wrap is None:
            return in_process_pair()
        one, other = trio.socket.socketpair()
        return wrap(trio.SocketStream(one)), StreamTransport(trio.SocketStream(other))

    async def conversation() -> None:
        one, other = await pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, other)
            try:
                await converse(one)
            finally:
                try:
                    await one.aclose()
                finally:
                    await other.aclose()

    await everywhere(conversation)

    received: list[int] = []

    async def receiving() -> None:
        one, other = await pair()
        received.clear()
        outside.start_soon(other.send, [call(1), call(2)])
        try:
            received.extend(message.seq for message in await one.receive())
        finally:
            with trio.CancelScope(shield=True):
                while len(received) < 2:
                    received.extend(message.seq for message in await one.receive())
                assert received == [1, 2]
                await one.aclose()
                await other.aclose()

    async with trio.open_nursery() as outside:
        await everywhere(receiving)


# --- tools for tests ---


@pytest.mark.parametrize("kind", ["memory", "unix", "tcp", "pipes", "inprocess"])
async def test_pairs(kind: Any) -> None:
    """G18, G19: both ends of a conversation, opened for a test and cancelled anywhere, leave nothing."""

    async def bare() -> None:
        ends = await orc_trio.testing.connected_pair(kind)
        with trio.CancelScope(shield=True):
            for end in ends:
                await end.aclose()

    async def whole() -> None:
        limits = orc_trio.Limits(drain_timeout=0.2)
        async with orc_trio.testing.open_pair(
            kind, wrappers={"echo": bytes}, handlers={"log": bytes}, limits=limits
        ) as pair:
            assert await pair.call_wrapper("echo", b"x" * 1000) == b"x" * 1000
            assert await pair.call_controller("log", b"y") == b"y"

    await everywhere(bare)
    await everywhere(whole)


@pytest.mark.parametrize("wrap", ["trickle", "failing"])
async def test_faulty_streams(wrap: str) -> None:
    """G3, G19: streams with faults close what they wrap, wherever they are cancelled."""

    async def scenario() -> None:
        one, other = trio.socket.socketpair()
        inner: Any = trio.SocketStream(one)
        phase = orc_trio.testing.FailurePhase.CLOSE
        stream: Any = (
            orc_trio.testing.TrickleStream(inner, 7)
            if wrap == "trickle"
            else orc_trio.testing.FailingStream(inner, phase, at=1000)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, StreamTransport(trio.SocketStream(other)))
            try:
                await stream.send_all(encode(call(1, b"0123456789")))
                assert await stream.receive_some(3)
            finally:
                try:
                    await stream.aclose()
                finally:
                    other.close()

    await everywhere(scenario)


async def test_a_check_of_the_conformance_kit() -> None:
    """G18, G19: a check that is cancelled leaves its pairs."""

    async def pair() -> tuple[Any, Any]:
        return await orc_trio.testing.connected_pair("memory")

    async def scenario() -> None:
        await orc_trio.testing.check_errors_are_not_bytes(orc_trio.testing.pairs_of(pair))

    await everywhere(scenario, stride=1 if THOROUGH else 10)


# --- all of them ---

CAMPAIGN = "cancelled in the campaigns"
COVERED = {
    "Controller.call_wrapper": CAMPAIGN,
    "Controller.disconnect": CAMPAIGN,
    "Controller.wait_disconnected": CAMPAIGN,
    "open_controller": CAMPAIGN,
    "Session.attach": CAMPAIGN,
    "Session.call_controller": CAMPAIGN,
    "Session.detach": CAMPAIGN,
    "Session.shutdown": CAMPAIGN,
    "Session.wait_detached": CAMPAIGN,
    "open_session": CAMPAIGN,
    "StreamControllerAccess.call_controller": CAMPAIGN,
    "StreamControllerAccess.run": CAMPAIGN,
    "ProcessTransport.aclose": test_open_executor_process,
    "ProcessTransport.send": test_open_executor_process,
    "ProcessTransport.receive": test_open_executor_process,
    "ProcessTransport.watch": test_open_executor_process,
    "open_executor_process": test_open_executor_process,
    "open_attached_session": test_open_attached_session,
    "StreamTransport.aclose": test_transports,
    "StreamTransport.receive": test_transports,
    "StreamTransport.send": test_transports,
    "StreamTransport.send_eof": test_transports,
    "open_connection": test_open_connection,
    "TcpConnector.open": test_open_connection,
    "TcpListener.open": test_open_connection,
    "UnixConnector.open": test_open_connection,
    "UnixListener.open": test_open_connection,
    "PipeAdopter.open": test_adopting,
    "SocketAdopter.open": test_adopting,
    "connected_pair": test_pairs,
    "open_pair": test_pairs,
    "OpenPair.call_wrapper": test_pairs,
    "OpenPair.call_controller": test_pairs,
    "TrickleStream.send_all": test_faulty_streams,
    "TrickleStream.receive_some": test_faulty_streams,
    "FailingStream.send_all": test_faulty_streams,
    "FailingStream.receive_some": test_faulty_streams,
    "FailingStream.aclose": test_faulty_streams,
}
IMPLEMENTED_BY_OTHERS = {"AccessHost", "ControllerAccess", "MessageTransport", "Service", "Connector", "ControllerEnd"}


def is_async(function: Any) -> bool:
    function = inspect.unwrap(function)
    returns = str(getattr(function, "__annotations__", {}).get("return", ""))
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or returns.startswith("AbstractAsyncContextManager")
    )


def test_none_is_forgotten() -> None:
    """G5, G18: every public async function is cancelled everywhere by some test here or in the campaigns."""
    found = set()
    for module in (orc_trio, orc_trio.transports, orc_trio.testing):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing):
                if name not in IMPLEMENTED_BY_OTHERS:
                    found |= {
                        f"{name}.{key}" for key, value in vars(thing).items() if key[0] != "_" and is_async(value)
                    }
            elif callable(thing) and is_async(thing) and not name.startswith("check_"):  # one stands for all checks
                found.add(name)
    assert found == set(COVERED)
