# How it ends, between LLVM and us: every abnormal end that its versions know, at both ends.

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import open_descriptors
from orc_trio import Certainty, DisconnectedError, DisconnectKind, DisconnectReason, HandlerRegistry, Limits
from orc_trio.abc import WrappedTransport
from orc_trio.llvm import (
    Protection,
    RemoteExecutor,
    Segment,
    SimpleRemoteTransport,
    find_llvm_executor,
    open_llvm_executor,
)
from orc_trio.protocol import Role
from orc_trio.wire import sps
from orc_trio.wire.simple_remote import FRAME_HEAD_SIZE, ExecutorInfo, Frame, Op, encode_frame
from test_llvm_executor import PAGE, TAG, VERSIONS, linked

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="its machine code is for x86-64")

FOREVER = bytes.fromhex("b8220000000f05ebf7")  # pause(), again and again
CODE = Protection.READ | Protection.EXECUTE
LOCAL = DisconnectKind.LOCAL_HANGUP
GARBAGE = {
    "the end inside of a frame": encode_frame(Frame(Op.CALL, 99, 5, b"abc"))[:-1],
    "an opcode that is none": encode_frame(Frame(9)),
    "a size below that of a head": bytes(FRAME_HEAD_SIZE),
    "a result of nothing": encode_frame(Frame(Op.RESULT, 7, 0, b"x")),
}


@pytest.fixture(params=VERSIONS)
def command(request: pytest.FixtureRequest) -> list[str]:
    found = shutil.which(f"llvm-jitlink-executor-{request.param}")
    if found is None:
        pytest.skip(f"llvm-jitlink-executor-{request.param} is not installed")
    return [found]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """G13, G19: No process and no descriptor outlives a test."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def with_code(executor: RemoteExecutor, code: bytes) -> int:
    """Put code into the executor.

    Returns:
        Its address.
    """
    at = await executor.reserve(PAGE)
    await executor.finalize([Segment(at, PAGE, code, CODE)])
    return at


@asynccontextmanager
async def running_for_ever(
    controller: orc_trio.Controller, reason: DisconnectKind, certainty: Certainty = Certainty.UNKNOWN
) -> AsyncIterator[None]:
    """A main that never returns is running; its call has to fail so."""
    executor = RemoteExecutor(controller)
    at = await with_code(executor, FOREVER)

    async def run() -> None:
        with pytest.raises(DisconnectedError) as caught:
            await executor.run_as_main(at, ["program"])
        assert (caught.value.reason.kind, caught.value.certainty) == (reason, certainty)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await executor.lookup(await executor.open_library(), ["malloc"])  # by then the other call was read
        yield


# --- our controller, LLVM's executor ---


async def test_an_orderly_end(command: list[str]) -> None:
    """G11, G13: The end is orderly and has the exit status; the process is reaped by then."""
    told: list[DisconnectReason] = []
    with trio.fail_after(60):
        async with open_llvm_executor(command, HandlerRegistry(), on_disconnect=told.append) as controller:
            executor = RemoteExecutor(controller)
            assert (await executor.lookup(await executor.open_library(), ["malloc"]))["malloc"]
            assert await controller.disconnect() == DisconnectReason(LOCAL, exit_status=0)
    assert told == [DisconnectReason(LOCAL, exit_status=0)]


async def test_a_function_that_does_not_return(command: list[str]) -> None:
    """G15: LLVM's executor lets it finish; so it is ended when the grace has run out, and its call is settled."""
    with trio.fail_after(60):
        async with (
            open_llvm_executor(command, HandlerRegistry(), grace=0.1) as controller,
            running_for_ever(controller, LOCAL),
        ):
            assert await controller.disconnect() == DisconnectReason(LOCAL, exit_status=-signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_signal(command: list[str], number: signal.Signals) -> None:
    """G11: The reason says what ended it; what was running may have run."""
    end = DisconnectKind.EOF_WITHOUT_HANGUP
    with trio.fail_after(60):
        async with (
            open_llvm_executor(command, HandlerRegistry(), stderr=subprocess.DEVNULL) as controller,
            running_for_ever(controller, end),
        ):
            controller.process.send_signal(number)
            assert await controller.wait_disconnected() == DisconnectReason(end, exit_status=-number)


async def test_a_stopped_one(command: list[str]) -> None:
    """G15: It cannot hold a disconnect."""
    limits = Limits(drain_timeout=0.1)
    with trio.fail_after(60):
        async with (
            open_llvm_executor(command, HandlerRegistry(), limits=limits, grace=0.1) as controller,
            running_for_ever(controller, LOCAL),
        ):
            controller.process.send_signal(signal.SIGSTOP)
            end = await controller.disconnect()
    assert (end.kind, end.exit_status) == (DisconnectKind.DRAIN_TIMEOUT, -signal.SIGTERM)
    assert end.cause == DisconnectReason(LOCAL)


class Injecting(WrappedTransport):
    """Sends bytes of its own, and then nothing more."""

    stream: Any

    async def inject(self, data: bytes) -> None:
        inner: Any = self._inner
        await inner._inner.stream.send_all(data)
        await self.send_eof()


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_bytes_that_it_does_not_take(command: list[str], data: bytes) -> None:
    """G11: LLVM's executor ends itself; that is the reason, with its exit status."""
    made: list[Injecting] = []

    def wrap(inner: Any) -> Injecting:
        made.append(Injecting(inner))
        return made[0]

    with trio.fail_after(60):
        async with open_llvm_executor(
            command, HandlerRegistry(), wrap_transport=wrap, stderr=subprocess.DEVNULL
        ) as controller:
            await made[0].inject(data)
            end = await controller.wait_disconnected()
    assert end.kind is DisconnectKind.EOF_WITHOUT_HANGUP
    assert end.exit_status == 1


async def test_a_function_that_waits_for_us_at_the_end(command: list[str], tmp_path: Path) -> None:
    """G13: Code that has called us when we disconnect gets an answer from LLVM, and finishes by itself."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    registry = HandlerRegistry()
    asked = trio.Event()
    cancelled: list[bytes] = []

    async def answer(args: bytes) -> bytes:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(args)
        raise AssertionError

    registry.register(TAG, answer, name="answer")
    with trio.fail_after(60):
        async with open_llvm_executor(command, registry, grace=30) as controller, trio.open_nursery() as nursery:
            executor = RemoteExecutor(controller)
            at = await linked(executor, tmp_path)

            async def run() -> None:
                with pytest.raises(DisconnectedError):
                    await executor.run_as_main(at, ["program", "1"])

            nursery.start_soon(run)
            await asked.wait()
            assert await controller.disconnect() == DisconnectReason(LOCAL, exit_status=0)
            assert cancelled == [b"1"]


async def test_the_death_of_its_controller(command: list[str]) -> None:
    """G17: Whatever it is doing, it goes with us."""
    source = f"""
import trio
from orc_trio import HandlerRegistry
from orc_trio.llvm import *
async def main():
    async with open_llvm_executor({command!r}, HandlerRegistry()) as controller:
        executor = RemoteExecutor(controller)
        at = await executor.reserve({PAGE})
        code = Segment(at, {PAGE}, bytes.fromhex("{FOREVER.hex()}"), Protection.READ | Protection.EXECUTE)
        await executor.finalize([code])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(executor.run_as_main, at, ["program"])
            await executor.lookup(await executor.open_library(), ["malloc"])
            print(controller.pid, flush=True)
            await trio.sleep_forever()
trio.run(main)
"""
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process([sys.executable, "-c", source], stdout=subprocess.PIPE)
        assert process.stdout is not None
        async with process.stdout:
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
            pid = int(said)
            os.kill(pid, 0)
            process.kill()
            # Also when its output is at its end: LLVM's executor has it, too.
            assert await process.stdout.receive_some() == b""
        await process.wait()


async def test_what_cannot_be_started() -> None:
    """G20: A program that is not there is a reason; so is one that is no executor; a liveness check is refused."""
    with pytest.raises(DisconnectedError, match="no-such-program: No such file or directory"):
        async with open_llvm_executor(["no-such-program"], HandlerRegistry()):
            raise AssertionError
    with pytest.raises(DisconnectedError) as caught:
        async with open_llvm_executor(["true"], HandlerRegistry()):
            raise AssertionError
    assert (caught.value.reason.kind, caught.value.reason.exit_status) == (DisconnectKind.CONNECT_FAILED, 0)
    with pytest.raises(ValueError, match="no pings"):
        open_llvm_executor(["true"], HandlerRegistry(), limits=Limits(liveness_timeout=1))


async def test_no_liveness_check() -> None:
    """G17: LLVM's protocol has no pings: at both ends a check that could only fail is refused."""
    one, _other = trio.testing.memory_stream_pair()
    limits = Limits(liveness_timeout=1)
    transport = SimpleRemoteTransport(one, Role.CONTROLLER)
    with pytest.raises(ValueError, match="no pings"):
        async with orc_trio.open_controller(WrappedTransport(transport), HandlerRegistry(), limits=limits):
            raise AssertionError
    with pytest.raises(ValueError, match="no pings"):
        orc_trio.StreamControllerAccess(transport, limits=limits)


def test_which_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one without a version, or else the newest."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{tmp_path}/none")
    assert find_llvm_executor() is None
    for suffix in ("-9", "-22", "-x", ""):
        path = tmp_path / f"llvm-jitlink-executor{suffix}"
        path.touch(mode=0o755)
        assert find_llvm_executor() == str(tmp_path / f"llvm-jitlink-executor{suffix.replace('-x', '-22')}")


# --- LLVM's controller, our executor: by hand, as LLVM's controllers are (and LLVM main's, which is not installed) ---


class Program:
    """Our executor's program, and its controller's ends of its sockets."""

    def __init__(self, *, version: str = "22") -> None:
        self.to_it, its_input = socket.socketpair()
        self.from_it, its_output = socket.socketpair()
        with its_input, its_output:
            numbers = (its_input.fileno(), its_output.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "orc_trio.llvm.program", f"filedescs={numbers[0]},{numbers[1]}"],
                pass_fds=numbers,
                stderr=subprocess.PIPE,
                env={**os.environ, "ORC_TRIO_LLVM_VERSION": version},
            )
        self.to_it.settimeout(60)
        self.from_it.settimeout(60)

    def setup(self) -> dict[str, int]:
        """Its bootstrap symbols."""
        return dict(ExecutorInfo.unpack(self.frame()).symbols)

    def frame(self) -> bytes:
        """The payload of the next frame."""
        size = int.from_bytes(self._exactly(FRAME_HEAD_SIZE)[:8], "little")
        return self._exactly(size - FRAME_HEAD_SIZE)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.from_it.recv(size - len(data))
            assert piece
            data += piece
        return data

    def ended(self) -> tuple[int, str]:
        """Its exit status, and what it said."""
        try:
            _, said = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
            self.to_it.close()
            self.from_it.close()
        return self.process.returncode, said.decode()


PREFIX = "orc-trio-llvm-executor: "
LAST_WORDS = {
    "nothing": (b"", 0, ""),
    "an orderly hang-up": (encode_frame(Frame(Op.HANG_UP, payload=sps.ERROR.pack(None))), 0, ""),
    "a hang-up with a reason": (
        encode_frame(Frame(Op.HANG_UP, payload=sps.ERROR.pack(sps.Failure("out of memory")))),
        1,
        "out of memory",
    ),
    "a setup": (encode_frame(Frame(Op.SETUP)), 1, "a setup frame came to an executor"),
    "a result with a tag": (encode_frame(Frame(Op.RESULT, 0, 1, b"")), 1, "a result has the tag 1"),
    "the end inside of a frame": (GARBAGE["the end inside of a frame"], 1, "inside"),
    "an opcode that is none": (GARBAGE["an opcode that is none"], 1, "opcode"),
    "a size below that of a head": (GARBAGE["a size below that of a head"], 1, "smaller than its own head"),
    "a result of nothing": (GARBAGE["a result of nothing"], 1, "7"),
}


@pytest.mark.parametrize(("data", "status", "says"), LAST_WORDS.values(), ids=LAST_WORDS.keys())
def test_last_words_of_a_controller(data: bytes, status: int, says: str) -> None:
    """G11: What it said last, or that it said nothing, decides on the exit status; a reason is told in one line."""
    program = Program()
    program.setup()
    program.to_it.sendall(data)
    program.to_it.shutdown(socket.SHUT_WR)
    assert_end(program, status, says)


def assert_end(program: Program, status: int, says: str) -> None:
    ended, said = program.ended()
    assert ended == status, said
    if says:
        assert said.startswith(PREFIX)
        assert said.count("\n") == 1
    assert says in said


@pytest.mark.parametrize("how", ["the end", "a reset", "a hang-up and a reset"])
def test_a_controller_that_leaves_while_a_function_runs(how: str) -> None:
    """G13, G15: The process does not stay for a function that never returns; what breaks after a hang-up is no news."""
    program = Program()
    symbols = program.setup()
    code = forever_in(program, symbols)
    main = sps.Tuple(sps.ADDRESS, sps.Sequence(sps.STRING)).pack((code, ["program"]))
    run = Frame(Op.CALL, 9, symbols["__llvm_orc_bootstrap_run_as_main_wrapper"], main)
    program.to_it.sendall(encode_frame(run))
    if how == "a hang-up and a reset":
        program.to_it.sendall(encode_frame(Frame(Op.HANG_UP, payload=sps.ERROR.pack(None))))
    program.to_it.close()
    if how != "the end":
        program.from_it.close()
    assert_end(program, 0, "")


def forever_in(program: Program, symbols: dict[str, int]) -> int:
    """Code that never returns, in its memory."""
    instance = symbols["__llvm_orc_SimpleExecutorMemoryManager_Instance"]
    where = "__llvm_orc_SimpleExecutorMemoryManager"
    address = sps.Expected(sps.ADDRESS)

    def call(name: str, arguments: Sequence[sps.Codec[Any]], *values: Any) -> int:
        args = sps.Tuple(*arguments).pack(values)
        program.to_it.sendall(encode_frame(Frame(Op.CALL, 1, symbols[f"{where}_{name}_wrapper"], args)))
        found = address.unpack(program.frame())
        assert isinstance(found, int)
        return found

    at = call("reserve", (sps.ADDRESS, sps.U64), instance, PAGE)
    segment = sps.Tuple(sps.U8, sps.ADDRESS, sps.U64, sps.BYTES)
    action = sps.Tuple(sps.ADDRESS, sps.BYTES)
    request = sps.Tuple(sps.Sequence(segment), sps.Sequence(sps.Tuple(action, action)))
    call("initialize", (sps.ADDRESS, request), instance, ([(int(CODE), at, PAGE, FOREVER)], []))
    return at


# --- LLVM main's executors, by hand: they detach, or die ---


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("who", ["we", "it"])
async def test_an_executor_that_does_not_say_goodbye(who: str, how: str) -> None:
    """G11: After a hang-up, ours or LLVM's, an end without another word is orderly, however abrupt it is."""
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    setup = sps.Tuple(
        sps.STRING,
        sps.U64,
        sps.Sequence(sps.Tuple(sps.STRING, sps.BYTES)),
        sps.Sequence(sps.Tuple(sps.STRING, sps.U64)),
    ).pack(("x86_64-linux", PAGE, [], []))
    hang_up = encode_frame(Frame(Op.HANG_UP, payload=sps.ERROR.pack(None)))
    theirs.sendall(encode_frame(Frame(Op.SETUP, payload=setup)))
    with trio.fail_after(60):
        transport = SimpleRemoteTransport(stream, Role.CONTROLLER)
        async with orc_trio.open_controller(transport, HandlerRegistry()) as controller:
            if how == "reset":  # with something unread, closing resets
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(controller.call_wrapper, 1, b"never read")
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
            if who == "it":
                theirs.sendall(hang_up)
                theirs.close()
                end = await controller.wait_disconnected()
                assert end == DisconnectReason(DisconnectKind.REMOTE_HANGUP)
            else:
                controller.begin_disconnect()
                await trio.testing.wait_all_tasks_blocked()
                theirs.close()
                assert await controller.disconnect() == DisconnectReason(LOCAL)
