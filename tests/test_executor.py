# Being an executor process: `open_attached_session` in this process, `run_executor` in processes of its own.

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import orc_trio
from orc_trio import BootstrapInfo, DisconnectedError, DisconnectKind, HandlerRegistry, Session
from orc_trio.exceptions import ConnectionSpecError
from orc_trio.executor import open_attached_session
from orc_trio.launch import open_executor_process

PATIENCE = 30.0

PROGRAM = """
import os, signal, sys
from orc_trio.executor import run_executor

def echo(args):
    return args

def interrupt(args):
    os.kill(os.getpid(), signal.SIGINT)
    return b""

def stuck(args):
    import ctypes
    ctypes.CDLL(None).sleep(1000)

def prepare(session, bootstrap):
    bootstrap.add_wrapper("echo", echo)
    bootstrap.add_wrapper("stuck", stuck, threaded=True)
    bootstrap.add_wrapper("interrupt", interrupt)

run_executor(prepare, service_timeout=0.2 if os.environ.get('HURRY') else 5)
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    (tmp_path / "echoes.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "echoes.py")]


def nothing(session: Session, bootstrap: BootstrapInfo) -> None:
    pass


def adopted() -> tuple[trio.SocketStream, str]:
    """A controller's stream, and the spec for its executor."""
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    return stream, f"socket:adopt={theirs.detach()}"


async def test_run_executor(program: list[str]) -> None:
    """A whole executor is one call; after an orderly end its exit status is 0."""
    with trio.fail_after(PATIENCE):
        async with open_executor_process(program, HandlerRegistry()) as executor:
            assert await executor.call_wrapper(executor.bootstrap.symbols["echo"], b"abc") == b"abc"
    assert executor.exit_status == 0


async def test_run_executor_with_a_stuck_thread(program: list[str]) -> None:
    """G13, G22: a thread in native code does not hold up the end of the process, nor change its exit status."""
    hurry = {**os.environ, "HURRY": "yes"}
    with trio.fail_after(PATIENCE):
        async with (
            open_executor_process(program, HandlerRegistry(), grace=PATIENCE, env=hurry) as executor,
            trio.open_nursery() as nursery,
        ):

            async def call() -> None:
                with pytest.raises(DisconnectedError) as caught:
                    await executor.call_wrapper(executor.bootstrap.symbols["stuck"], b"")
                assert caught.value.reason.kind is DisconnectKind.LOCAL_HANGUP

            nursery.start_soon(call)
            await executor.call_wrapper(executor.bootstrap.symbols["echo"], b"")  # the first call has arrived
            end = await executor.disconnect()
        assert end.exit_status == 0


async def test_run_executor_interrupted(program: list[str]) -> None:
    """After an interrupt the executor has said goodbye, and its status is that of the signal; no traceback."""
    with trio.fail_after(PATIENCE):
        async with open_executor_process(program, HandlerRegistry(), stderr=subprocess.PIPE) as executor:
            with pytest.raises(DisconnectedError):
                await executor.call_wrapper(executor.bootstrap.symbols["interrupt"], b"")
            end = await executor.wait_disconnected()
            assert executor.process.stderr is not None
            async with executor.process.stderr as stderr:
                assert await stderr.receive_some() == b""
    assert end.kind in {DisconnectKind.REMOTE_HANGUP, DisconnectKind.REMOTE_ERROR}
    assert end.exit_status == -signal.SIGINT


async def test_run_executor_without_a_controller(program: list[str]) -> None:
    """What is wrong is said in one line on stderr, and by the exit status: 2 for the spec, 1 for the connection."""
    for arguments, status, line in [
        ([], 2, "no connection spec: it is the last argument of an executor's command line"),
        (["nonsense"], 2, "'nonsense' is not a connection spec"),
        (["unix:connect=/no/such/socket"], 1, "connect failed: unix:connect=/no/such/socket"),
    ]:
        done = await trio.run_process([*program, *arguments], capture_stderr=True, check=False)
        assert done.returncode == status
        assert done.stderr.startswith(f"echoes.py: {line}".encode())
        assert done.stderr.count(b"\n") == 1


async def test_run_executor_abandoned(program: list[str]) -> None:
    """An executor whose connection just ends says so, and its exit status is 1."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [*program, f"socket:adopt={theirs.fileno()}"]
        process = await trio.lowlevel.open_process(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    with trio.fail_after(PATIENCE):
        ours.close()
        assert process.stderr is not None
        async with process.stderr as stderr:
            said = b"".join([piece async for piece in stderr])
        assert await process.wait() == 1
    assert said.startswith(b"echoes.py: connect failed: ")
    assert said.count(b"\n") == 1


async def test_attached_session() -> None:
    """The body runs attached; leaving it says goodbye."""
    stream, spec = adopted()

    def prepare(session: Session, bootstrap: BootstrapInfo) -> None:
        bootstrap.add_wrapper("echo", lambda args: args)
        assert session.state is orc_trio.SessionState.START

    async with trio.open_nursery() as nursery:

        async def control() -> None:
            async with orc_trio.open_controller(stream, HandlerRegistry()) as controller:
                assert await controller.call_wrapper(controller.bootstrap.symbols["echo"], b"abc") == b"abc"
                assert (await controller.wait_disconnected()).kind is DisconnectKind.REMOTE_HANGUP

        nursery.start_soon(control)
        async with open_attached_session(prepare, spec) as session:
            assert session.state is orc_trio.SessionState.ATTACHED
            await trio.testing.wait_all_tasks_blocked()
        assert session.state is orc_trio.SessionState.SHUT_DOWN


async def test_attached_session_prepared_by_a_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What prepares the session may be a coroutine function; the spec is the last of the arguments."""
    stream, spec = adopted()
    monkeypatch.setattr(sys, "argv", ["program", "--option", spec])

    async def prepare(session: Session, bootstrap: BootstrapInfo) -> None:
        await trio.lowlevel.checkpoint()
        bootstrap.set_value("prepared", b"yes")

    async with trio.open_nursery() as nursery:

        async def control() -> None:
            async with orc_trio.open_controller(stream, HandlerRegistry()) as controller:
                assert controller.bootstrap.values["prepared"] == b"yes"

        nursery.start_soon(control)
        async with open_attached_session(prepare) as session:
            assert (await session.wait_detached()).kind is DisconnectKind.REMOTE_HANGUP


async def test_attached_session_cancelled() -> None:
    """G18: cancelling the owner says goodbye before the transport is closed."""
    stream, spec = adopted()
    async with trio.open_nursery() as nursery:
        connected = trio.Event()

        async def control() -> None:
            async with orc_trio.open_controller(stream, HandlerRegistry()) as controller:
                connected.set()
                assert (await controller.wait_disconnected()).kind in {
                    DisconnectKind.REMOTE_HANGUP,
                    DisconnectKind.REMOTE_ERROR,
                }

        nursery.start_soon(control)
        with trio.CancelScope() as scope:
            async with open_attached_session(nothing, spec) as session:
                await connected.wait()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert session.disconnect_reason is not None
        assert session.disconnect_reason.kind is DisconnectKind.OWNER_CANCELLED


async def test_attached_session_refused() -> None:
    """G20: what goes wrong on the way is raised, and nothing is left."""

    def fail(session: Session, bootstrap: BootstrapInfo) -> None:
        raise KeyError("mine")

    stream, spec = adopted()
    with pytest.raises(KeyError):
        async with open_attached_session(fail, spec):
            pytest.fail("not reached")  # pragma: no cover
    assert await stream.receive_some() == b""
    await stream.aclose()
    stream, spec = adopted()
    await stream.aclose()
    with pytest.raises(DisconnectedError) as caught:
        async with open_attached_session(nothing, spec):
            pytest.fail("not reached")  # pragma: no cover
    assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
    with pytest.raises(ConnectionSpecError):
        async with open_attached_session(nothing, "nonsense"):
            pytest.fail("not reached")  # pragma: no cover
