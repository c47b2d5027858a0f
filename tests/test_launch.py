# Executors as child processes: real processes, real signals, the real clock. Every wait is bounded by `PATIENCE`, which
# says when a test gives up and nothing else.

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import trio

from orc_trio import Certainty, DisconnectedError, DisconnectKind, DisconnectReason, HandlerRegistry, Limits
from orc_trio.abc import MessageTransport, WrappedTransport
from orc_trio.launch import ExecutorProcess, open_executor_process
from orc_trio.lifeline import VARIABLE
from orc_trio.protocol import Role, Setup
from orc_trio.protocol.setup import encode_setup
from orc_trio.sockets import SocketTransport
from orc_trio.transports.process import ProcessTransport
from orc_trio.wire.framing import encode
from orc_trio.wire.messages import Message, Opcode

PATIENCE = 30.0
EXECUTOR = [sys.executable, str(pathlib.Path(__file__).with_name("launch_executor.py"))]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """G13, G19: no process, no zombie, no descriptor outlives a test."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    nothing_running()


@pytest.fixture(autouse=True)
async def patience() -> AsyncIterator[None]:
    """A hang is a failure."""
    with trio.fail_after(PATIENCE):
        yield


def open_descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


def program(source: str, *arguments: str) -> list[str]:
    """A small executor that knows nothing of orc_trio; ``fd`` is its end of the connection."""
    head = "import os, sys, time; fd = int(sys.argv[-1].partition('=')[2])\n"
    return [sys.executable, "-c", head + source, *arguments]


def as_executor(*messages: Message) -> str:
    """What an executor would send, in hexadecimal: its setup, and more."""
    setup = Message(Opcode.SETUP, payload=encode_setup(Setup.of(Role.EXECUTOR, Limits())))
    return b"".join(encode(message) for message in (setup, *messages)).hex()


async def call(executor: ExecutorProcess, name: str, args: bytes = b"") -> bytes:
    return bytes(await executor.call_wrapper(executor.bootstrap.symbols[name], args))


async def end_of(executor: ExecutorProcess) -> DisconnectReason:
    return await executor.wait_disconnected()


async def test_conversation() -> None:
    """G11, G13: calls go both ways; the end is orderly and has the exit status; the process is reaped by then."""
    registry = HandlerRegistry()
    told: list[DisconnectReason] = []

    @registry.handler("ask")
    async def ask(args: bytes) -> bytes:
        return args[::-1]

    async with open_executor_process(EXECUTOR, registry, on_disconnect=told.append) as executor:
        assert await call(executor, "echo", b"abc") == b"abc"
        assert await call(executor, "call_back", b"abc") == b"cba"
        assert executor.exit_status is None
        assert executor.disconnect_reason is None
        os.kill(executor.pid, 0)
        end = await executor.disconnect()
        assert executor.exit_status == 0
        assert executor.process.returncode == 0
        assert executor.disconnect_reason == end
    assert end == DisconnectReason(DisconnectKind.LOCAL_HANGUP, exit_status=0)
    assert end.orderly
    assert told == [end]


async def test_leaving_ends_it() -> None:
    """G11: leaving the block hangs up, and everybody hears of the end once."""
    told: list[DisconnectReason] = []
    async with open_executor_process(EXECUTOR, HandlerRegistry(), on_disconnect=told.append) as executor:
        pass
    assert told == [DisconnectReason(DisconnectKind.LOCAL_HANGUP, exit_status=0)]
    assert executor.disconnect_reason == told[0]


async def test_body_error() -> None:
    """G18: the body's own exception leaves unwrapped."""
    with pytest.raises(KeyError, match="mine"):
        async with open_executor_process(EXECUTOR, HandlerRegistry()):
            raise KeyError("mine")


@pytest.mark.parametrize(
    ("function", "args", "status"),
    [
        ("send_signal", b"9", -signal.SIGKILL),
        ("send_signal", b"6", -signal.SIGABRT),
        ("read_null", b"", -signal.SIGSEGV),
        ("leave", b"0", 0),
        ("leave", b"3", 3),
    ],
)
async def test_executor_dies(function: str, args: bytes, status: int) -> None:
    """G11, G17: a dead executor is never "closed cleanly"; the end says how it died, the pending call may have run."""
    async with open_executor_process(EXECUTOR, HandlerRegistry(), stderr=subprocess.DEVNULL) as executor:
        with pytest.raises(DisconnectedError) as caught:
            await call(executor, function, args)
        end = await end_of(executor)
    assert caught.value.certainty is Certainty.UNKNOWN
    assert caught.value.reason.kind is DisconnectKind.EOF_WITHOUT_HANGUP
    assert end == DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP, exit_status=status)
    assert not end.orderly


async def test_killed_while_idle() -> None:
    """G17: an executor that is killed from outside while nobody calls it is noticed at once."""
    async with open_executor_process(EXECUTOR, HandlerRegistry()) as executor:
        executor.process.kill()
        end = await end_of(executor)
    assert end == DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP, exit_status=-signal.SIGKILL)


async def test_killed_with_unread_calls() -> None:
    """G11: a process that dies before it has read everything is at its end, not a transport error."""
    async with open_executor_process(EXECUTOR, HandlerRegistry()) as executor, trio.open_nursery() as nursery:
        executor.process.send_signal(signal.SIGSTOP)

        async def refused() -> None:
            with pytest.raises(DisconnectedError):
                await call(executor, "echo", bytes(10_000))

        for _ in range(100):
            nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked(0.05)
        executor.process.kill()
        end = await end_of(executor)
    assert end == DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP, exit_status=-signal.SIGKILL)


async def test_grandchild_keeps_the_socket() -> None:
    """G17: the process's exit is the end, though a grandchild keeps the socket open."""
    async with open_executor_process(EXECUTOR, HandlerRegistry()) as executor:
        grandchild = int(await call(executor, "share_socket"))
        try:
            executor.process.kill()
            end = await end_of(executor)
            os.kill(grandchild, 0)
        finally:
            os.kill(grandchild, signal.SIGKILL)
    assert end == DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP, exit_status=-signal.SIGKILL)


async def test_grandchild_keeps_the_socket_and_does_not_read() -> None:
    """G15, G17: the process's exit also wakes a send that waits for room nobody will make."""
    async with open_executor_process(EXECUTOR, HandlerRegistry()) as executor:
        grandchild = int(await call(executor, "share_socket"))
        try:
            executor.process.send_signal(signal.SIGSTOP)
            async with trio.open_nursery() as nursery:

                async def refused() -> None:
                    with pytest.raises(DisconnectedError):
                        await call(executor, "echo", bytes(10_000_000))

                nursery.start_soon(refused)
                await trio.testing.wait_all_tasks_blocked(0.05)
                executor.process.kill()
                start = trio.current_time()
                end = await end_of(executor)
                assert trio.current_time() - start < 4  # the drain bound alone is 5
        finally:
            os.kill(grandchild, signal.SIGKILL)
    assert end == DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP, exit_status=-signal.SIGKILL)


async def test_last_words_are_read() -> None:
    """G17: what the process sent before its exit is read first, though a grandchild keeps the socket open."""
    source = """
import subprocess
child = subprocess.Popen(["sleep", "1000"], pass_fds=[fd], stdout=subprocess.DEVNULL)
os.write(fd, bytes.fromhex(sys.argv[1]))
print(child.pid, flush=True)
os._exit(7)
"""
    words = as_executor(Message(Opcode.HANG_UP, payload=b"\xf6"))
    async with open_executor_process(program(source, words), HandlerRegistry(), stdout=subprocess.PIPE) as executor:
        end = await end_of(executor)
        assert executor.process.stdout is not None
        async with executor.process.stdout as stdout:
            os.kill(int(await stdout.receive_some()), signal.SIGKILL)
    assert end == DisconnectReason(DisconnectKind.REMOTE_HANGUP, exit_status=7)


async def test_frozen_executor() -> None:
    """G15: a frozen executor cannot hold a disconnect; the end says that it did not answer, and the process is gone."""
    limits = Limits(drain_timeout=0.2)
    async with open_executor_process(EXECUTOR, HandlerRegistry(), limits=limits, grace=0.1) as executor:
        executor.process.send_signal(signal.SIGSTOP)
        end = await executor.disconnect()
    assert end.kind is DisconnectKind.DRAIN_TIMEOUT
    assert end.cause == DisconnectReason(DisconnectKind.LOCAL_HANGUP)
    assert end.exit_status == -signal.SIGTERM
    assert not end.orderly


async def test_frozen_executor_is_noticed() -> None:
    """G17: with the liveness check on, a frozen executor is noticed, and ended."""
    limits = Limits(drain_timeout=0.2, liveness_timeout=0.5)
    async with open_executor_process(EXECUTOR, HandlerRegistry(), limits=limits, grace=0.1) as executor:
        executor.process.send_signal(signal.SIGSTOP)
        end = await end_of(executor)
    assert DisconnectKind.LIVENESS_TIMEOUT in (end.kind, end.cause and end.cause.kind)
    assert end.exit_status == -signal.SIGTERM


@pytest.mark.parametrize("function", ["spin", "hold_gil"])
async def test_busy_executor(function: str) -> None:
    """G15: an executor whose event loop is blocked is ended after the grace; its call fails with the cause."""
    limits = Limits(drain_timeout=0.2)
    async with (
        open_executor_process(
            EXECUTOR, HandlerRegistry(), limits=limits, grace=0.1, stdout=subprocess.PIPE
        ) as executor,
        trio.open_nursery() as nursery,
    ):

        async def failing() -> None:
            with pytest.raises(DisconnectedError) as caught:
                await call(executor, function)
            assert caught.value.reason == DisconnectReason(DisconnectKind.LOCAL_HANGUP)

        nursery.start_soon(failing)
        assert executor.process.stdout is not None
        async with executor.process.stdout as stdout:
            assert await stdout.receive_some() == b"busy\n"
        end = await executor.disconnect()
    assert end.kind is DisconnectKind.DRAIN_TIMEOUT
    assert end.exit_status == -signal.SIGTERM


async def test_sigterm_ignored() -> None:
    """G13: an executor that does not exit and ignores SIGTERM is killed, after twice the grace."""
    source = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(fd, bytes.fromhex(sys.argv[1]))
time.sleep(1000)
"""
    words = as_executor(Message(Opcode.HANG_UP, payload=b"\xf6"))
    start = trio.current_time()
    async with open_executor_process(program(source, words), HandlerRegistry(), grace=0.2) as executor:
        end = await end_of(executor)
    assert trio.current_time() - start >= 0.4
    assert end == DisconnectReason(DisconnectKind.REMOTE_HANGUP, exit_status=-signal.SIGKILL)
    assert not end.orderly


async def test_hangs_up_on_us_and_lives_on() -> None:
    """G13: a process that closes its end and lives on is at its end, and is ended."""
    source = """
os.write(fd, bytes.fromhex(sys.argv[1]))
os.close(fd)
time.sleep(1000)
"""
    async with open_executor_process(program(source, as_executor()), HandlerRegistry(), grace=0.1) as executor:
        end = await end_of(executor)
    assert end == DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP, exit_status=-signal.SIGTERM)


@pytest.mark.parametrize("says", ["hangs up", "closes one way"])
async def test_says_goodbye_and_does_not_read(says: str) -> None:
    """G15: an executor that says it is at its end, and leaves ours unread, has had its time at the drain bound."""
    source = """
import array, fcntl, socket, termios
os.write(fd, bytes.fromhex(sys.argv[1]))
arrived = array.array("i", [0])
while arrived[0] < 50_000:
    fcntl.ioctl(fd, termios.FIONREAD, arrived)
    time.sleep(0.01)
if sys.argv[2]:
    os.write(fd, bytes.fromhex(sys.argv[2]))
else:
    socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_WR)
time.sleep(1000)
"""
    goodbye = encode(Message(Opcode.HANG_UP, payload=b"\xf6")).hex() if says == "hangs up" else ""
    command = program(source, as_executor(), goodbye)
    limits = Limits(drain_timeout=0.2)
    async with open_executor_process(command, HandlerRegistry(), limits=limits, grace=15) as executor:
        start = trio.current_time()
        with pytest.raises(DisconnectedError) as caught:
            await executor.call_wrapper(1, bytes(4_000_000))
        assert caught.value.certainty is not Certainty.NOT_SENT
        end = await end_of(executor)
        assert trio.current_time() - start < 15  # the grace was not given again
    assert end.exit_status == -signal.SIGTERM


# --- it never began ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("sys.exit(4)", 4),
        ("pass", 0),
        ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.write(fd, bytes.fromhex(sys.argv[1])[:20]); os._exit(5)", 5),
    ],
)
async def test_exit_during_setup(source: str, status: int) -> None:
    """G11, G20: an executor that ends before both ends agreed: CONNECT_FAILED with its exit status, at once."""
    told: list[DisconnectReason] = []
    limits = Limits(setup_timeout=1000.0)
    command = program(source, as_executor())
    with pytest.raises(DisconnectedError) as caught:
        async with open_executor_process(command, HandlerRegistry(), limits=limits, on_disconnect=told.append):
            pytest.fail("not reached")  # pragma: no cover
    assert caught.value.certainty is Certainty.NOT_SENT
    assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
    assert caught.value.reason.exit_status == status
    assert told == [caught.value.reason]


async def test_silent_executor() -> None:
    """G11: an executor that never says its setup is ended after the setup timeout."""
    limits = Limits(setup_timeout=0.2, drain_timeout=0.1)
    with pytest.raises(DisconnectedError) as caught:
        async with open_executor_process(["sleep", "1000", "#"], HandlerRegistry(), limits=limits, grace=0.1):
            pytest.fail("not reached")  # pragma: no cover
    assert caught.value.reason.exit_status is not None


async def test_missing_symbol() -> None:
    """G9: a handler for a symbol this executor lacks refuses the connection; the executor is told, and ends."""
    registry = HandlerRegistry()
    registry.handler("no such symbol")(lambda args: args)
    with pytest.raises(DisconnectedError, match="no such symbol") as caught:
        async with open_executor_process(EXECUTOR, registry, stderr=subprocess.DEVNULL):
            pytest.fail("not reached")  # pragma: no cover
    assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
    assert caught.value.reason.exit_status == 0  # this one's choice; `run_executor` says 1


@pytest.mark.parametrize(
    ("command", "cwd", "error", "detail"),
    [
        (["/no/such/program"], None, FileNotFoundError, "cannot start /no/such/program: No such file or directory"),
        (["/"], None, PermissionError, "cannot start /: Permission denied"),
        ([b"true"], "/no/such/dir", FileNotFoundError, "cannot start true: No such file or directory: /no/such/dir"),
    ],
)
async def test_cannot_start(command: list[str], cwd: str | None, error: type[OSError], detail: str) -> None:
    """G20: a program that cannot be started is CONNECT_FAILED, with the system's error as its cause, told once."""
    told: list[DisconnectReason] = []
    with pytest.raises(DisconnectedError) as caught:
        async with open_executor_process(
            command, HandlerRegistry(), cwd=cwd, stdout=subprocess.PIPE, on_disconnect=told.append
        ):
            pytest.fail("not reached")  # pragma: no cover
    assert caught.value.reason == DisconnectReason(DisconnectKind.CONNECT_FAILED, detail)
    assert caught.value.certainty is Certainty.NOT_SENT
    assert isinstance(caught.value.__cause__, error)
    assert told == [caught.value.reason]


async def test_out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """G19: without descriptors for the pipe, the socket pair is given back."""

    def refuse() -> tuple[int, int]:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(os, "pipe", refuse)
    with pytest.raises(DisconnectedError, match=r"cannot start true: Too many open files"):
        async with open_executor_process(["true"], HandlerRegistry()):
            pytest.fail("not reached")  # pragma: no cover


async def test_arguments_that_make_no_sense() -> None:
    """A shell command line, an empty command and a grace that is no time are refused before anything is started."""
    registry = HandlerRegistry()
    for command, grace, error in [
        ("true", 1.0, TypeError),
        (pathlib.Path("true"), 1.0, TypeError),
        ([], 1.0, ValueError),
        ([1], 1.0, TypeError),
        (["true"], -1.0, ValueError),
        (["true"], float("nan"), ValueError),
    ]:
        with pytest.raises(error):
            async with open_executor_process(command, registry, grace=grace):  # type: ignore[arg-type]
                pytest.fail("not reached")  # pragma: no cover


async def test_pipes_of_a_failed_start_are_closed() -> None:
    """G19: pipes to an executor that never connected are not left to the garbage collector."""
    pipe = subprocess.PIPE
    with pytest.raises(DisconnectedError):
        async with open_executor_process(["true"], HandlerRegistry(), stdin=pipe, stdout=pipe, stderr=pipe):
            pytest.fail("not reached")  # pragma: no cover


async def test_refused_before_the_connection_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """G19: what goes wrong between the start and the connection leaves nothing behind."""

    def refuse(transport: MessageTransport) -> MessageTransport:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        async with open_executor_process(EXECUTOR, HandlerRegistry(), wrap_transport=refuse, grace=0.1):
            pytest.fail("not reached")  # pragma: no cover


# --- what it is given --------------------------------------------------------------------------------------------


async def look(executor: ExecutorProcess) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(await call(executor, "look"))
    return seen


async def test_what_the_child_has(tmp_path: pathlib.Path) -> None:
    """G19: the child has the standard descriptors, its socket and its lifeline; none of ours; passes nothing on."""
    with tempfile.TemporaryFile(dir=tmp_path) as ours:
        os.set_inheritable(ours.fileno(), True)
        async with open_executor_process(EXECUTOR, HandlerRegistry()) as executor:
            seen = await look(executor)
    assert not [link for link, _ in seen["descriptors"].values() if link.startswith(str(tmp_path))]
    beyond = {number: kept for number, kept in seen["descriptors"].items() if int(number) > 2}
    spec, _, number = seen["args"][-1].partition("=")
    assert spec == "socket:adopt"
    assert beyond[number][0].startswith("socket:")
    assert [link for link, _ in beyond.values() if link.startswith("pipe:")]
    assert not [number for number, (_, inherited) in beyond.items() if inherited]
    assert VARIABLE not in seen["environ"]


async def test_ours_are_not_inherited() -> None:
    """G19: our end of the socket and of the lifeline are closed to every program we start."""
    before = open_descriptors()
    async with open_executor_process(EXECUTOR, HandlerRegistry()):
        for number, link in open_descriptors() - before:
            with contextlib.suppress(OSError):
                assert fcntl.fcntl(int(number), fcntl.F_GETFD) & fcntl.FD_CLOEXEC, link


async def test_environment_and_directory(tmp_path: pathlib.Path) -> None:
    """The child starts in the directory and with the environment given, and nothing more than the lifeline."""
    env = {**os.environ, "COLOUR": "blue"}
    async with open_executor_process(EXECUTOR, HandlerRegistry(), env=env, cwd=tmp_path) as executor:
        seen = await look(executor)
    assert seen["cwd"] == str(tmp_path)
    assert seen["environ"]["COLOUR"] == "blue"
    assert VARIABLE not in env
    assert VARIABLE not in os.environ


async def test_output() -> None:
    """stdout and stderr go where they are sent: a pipe, a file."""
    with tempfile.TemporaryFile() as errors:
        async with open_executor_process(
            EXECUTOR, HandlerRegistry(), stdout=subprocess.PIPE, stderr=errors
        ) as executor:
            await call(executor, "shout")
            assert executor.process.stdout is not None
            assert await executor.process.stdout.receive_some() == b"out\n"
        assert await executor.process.stdout.receive_some() == b""
        await executor.process.stdout.aclose()
        errors.seek(0)
        assert errors.read() == b"err\n"


async def test_wrapped_transport() -> None:
    """What stands between the connection and the process sees every message, and the exit status passes through."""

    class Counting(WrappedTransport):
        count = 0

        async def send(self, messages: Any) -> None:
            self.count += len(messages)
            await super().send(messages)

    wrapped: list[Counting] = []

    def wrap(inner: MessageTransport) -> MessageTransport:
        wrapped.append(Counting(inner))
        return wrapped[0]

    async with open_executor_process(EXECUTOR, HandlerRegistry(), wrap_transport=wrap) as executor:
        await call(executor, "echo")
    assert wrapped[0].count == 3  # setup, call, hang-up
    assert executor.disconnect_reason == DisconnectReason(DisconnectKind.LOCAL_HANGUP, exit_status=0)


async def test_a_wrapping_that_fails() -> None:
    """G11, G13: what `wrap_transport` raises comes out, who is to be told is told, and the process is gone."""
    told: list[DisconnectReason] = []

    def wrap(_inner: MessageTransport) -> MessageTransport:
        raise LookupError("wrap")

    with pytest.raises(LookupError, match="wrap"):
        async with open_executor_process(EXECUTOR, HandlerRegistry(), on_disconnect=told.append, wrap_transport=wrap):
            raise AssertionError
    assert told == [DisconnectReason(DisconnectKind.INTERNAL_ERROR, "LookupError: wrap")]


async def test_several_at_once() -> None:
    """G19: executors of one controller do not hold each other's descriptors: each ends when it is let go."""
    registry = HandlerRegistry()
    async with contextlib.AsyncExitStack() as stack:
        executors = [await stack.enter_async_context(open_executor_process(EXECUTOR, registry)) for _ in range(3)]
        executors[1].process.kill()
        assert (await end_of(executors[1])).exit_status == -signal.SIGKILL
        assert await executors[0].disconnect() == DisconnectReason(DisconnectKind.LOCAL_HANGUP, exit_status=0)
        assert await call(executors[2], "echo", b"still here") == b"still here"


# --- cancellation ------------------------------------------------------------------------------------------------


async def test_owner_cancelled() -> None:
    """G18: cancelling the owner says goodbye and ends the process; Cancelled goes on."""
    with trio.CancelScope() as scope:
        async with open_executor_process(EXECUTOR, HandlerRegistry()) as executor:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert executor.disconnect_reason == DisconnectReason(DisconnectKind.OWNER_CANCELLED, exit_status=0)


async def test_owner_cancelled_before_the_start() -> None:
    """G11, G18: cancelled before there is a process, who is to be told of the end is told of it."""
    told: list[DisconnectReason] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_executor_process(EXECUTOR, HandlerRegistry(), on_disconnect=told.append):
            raise AssertionError
    assert scope.cancelled_caught
    assert told == [DisconnectReason(DisconnectKind.OWNER_CANCELLED, "before the process was started")]


async def test_owner_cancelled_at_any_moment() -> None:
    """G18, G19: cancelled at any moment of its life, the end is bounded, and nothing is left of it."""
    moments = random.Random(7)
    for _ in range(8):
        told: list[DisconnectReason] = []
        with trio.move_on_after(moments.uniform(0, 1.2)) as scope:
            async with open_executor_process(
                EXECUTOR,
                HandlerRegistry(),
                limits=Limits(drain_timeout=3.0),
                grace=1.0,
                on_disconnect=told.append,
                stderr=subprocess.DEVNULL,
            ) as executor:
                while True:
                    await call(executor, "echo", bytes(100_000))
        assert scope.cancelled_caught
        assert [reason.kind for reason in told] == [DisconnectKind.OWNER_CANCELLED]
        nothing_running()


def nothing_running() -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def test_transport_closed_under_cancellation() -> None:
    """G13: closing the transport while cancelled kills the process at once, and reaps it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await trio.lowlevel.open_process(["sleep", "1000"])
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        transport = ProcessTransport(SocketTransport(stream), [stream.socket], process, 1000.0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        assert scope.cancelled_caught
        assert transport.exit_status == -signal.SIGKILL
        await transport.aclose()


async def test_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """G11: reading that fails for any other reason than the process's end is a transport error."""

    async def fail(self: SocketTransport) -> Sequence[Message]:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("worn out")

    async with open_executor_process(EXECUTOR, HandlerRegistry()) as executor:
        monkeypatch.setattr(SocketTransport, "receive", fail)
        await call(executor, "echo")  # the read that is waiting already
        end = await end_of(executor)
    assert end == DisconnectReason(DisconnectKind.TRANSPORT_ERROR, "worn out", exit_status=end.exit_status)
