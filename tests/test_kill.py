# Killing, or stopping, either process at random moments: the other gets a typed error in time, nothing is left,
# nothing hangs.
#
# By default a few moments; `nox -s kill` (ORC_TRIO_KILL_ROUNDS) takes more, and then also holds the times to what is
# promised, which a machine that is busy with other things may not keep.

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
import trio

from orc_trio import (
    DisconnectedError,
    DisconnectKind,
    DisconnectReason,
    HandlerRegistry,
    Limits,
    NoControllerError,
)
from orc_trio.abc import MessageTransport
from orc_trio.launch import ExecutorProcess, open_executor_process
from orc_trio.reasons import cause_of
from orc_trio.transports.process import ProcessTransport

ROUNDS = int(os.environ.get("ORC_TRIO_KILL_ROUNDS", "0"))
SEED = int(os.environ.get("ORC_TRIO_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
PROMISED = 1.0 if ROUNDS else 10.0
PATIENCE = 30.0
LIFE = 1.5  # long enough for a connection to be made and used on a slow machine
HERE = pathlib.Path(__file__).parent
EXECUTOR = [sys.executable, str(HERE / "launch_executor.py")]
EXAMPLES = ["mandelbrot.ll", "callback.c", "nbody.c"]
CONTROLLER = [sys.executable, str(HERE / "launch_controller.py")]

pytestmark = pytest.mark.kill
Say = Callable[[str, Mapping[str, int]], None]


def moments(count: int) -> list[float]:
    """Spread over a life, and shown if the test fails."""
    print(f"ORC_TRIO_KILL_SEED={SEED}")
    chosen = random.Random(SEED)
    step = LIFE / count
    times = [chosen.uniform(step * number, step * (number + 1)) for number in range(count)]
    chosen.shuffle(times)
    return times


class Life:
    """One executor's life: used by many callers until somebody kills it."""

    def __init__(self, limits: Limits | None = None, grace: float = 5.0) -> None:
        self.limits = limits
        self.grace = grace
        self.executor: ExecutorProcess | None = None
        self.registry = HandlerRegistry()
        self.registry.handler("ask")(self.ask)
        self.transport: ProcessTransport | None = None
        self.told: list[DisconnectReason] = []
        self.handlers = 0
        self.over = trio.Event()

    async def ask(self, args: bytes) -> bytes:
        self.handlers += 1
        try:
            await trio.sleep(0.001)
        finally:
            self.handlers -= 1
        return args[::-1]

    def wrap(self, inner: MessageTransport) -> MessageTransport:
        assert isinstance(inner, ProcessTransport)
        self.transport = inner
        return inner

    async def call(self, executor: ExecutorProcess, name: str, args: bytes, answer: bytes) -> None:
        try:
            while True:
                assert await executor.call_wrapper(executor.bootstrap.symbols[name], args) == answer
        except (DisconnectedError, NoControllerError):
            pass

    async def live(self) -> None:
        try:
            async with open_executor_process(
                EXECUTOR,
                self.registry,
                on_disconnect=self.told.append,
                wrap_transport=self.wrap,
                stderr=subprocess.DEVNULL,
                limits=self.limits,
                grace=self.grace,
            ) as executor:
                self.executor = executor
                async with trio.open_nursery() as nursery:
                    for size in (0, 1000, 300_000):
                        args = random.Random(size).randbytes(size)
                        nursery.start_soon(self.call, executor, "echo", args, args)
                        nursery.start_soon(self.call, executor, "call_back", args, args[::-1])
                end = await executor.wait_disconnected()
                assert executor.statistics().pending_calls == 0
                assert self.told == [end]
        except DisconnectedError as exc:
            assert [cause_of(end) for end in self.told] == [exc.reason]
        self.over.set()


def no_children() -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM], ids=lambda sent: sent.name)
async def test_executor_is_killed(sent: signal.Signals, say: Say) -> None:
    """G11, G13, G17: an executor that is killed at any moment: its callers and its owner are told, with the signal."""
    kinds: Counter[str] = Counter()
    for moment in moments(-(-ROUNDS // 3) or 3):
        life = Life()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.live)
                await trio.sleep(moment)
                while life.transport is None:  # it is being started
                    await trio.sleep(0.001)
                life.transport.process.send_signal(sent)
                killed = trio.current_time()
                await life.over.wait()
                assert trio.current_time() - killed < PROMISED, moment
        assert life.told[0].kind in {DisconnectKind.EOF_WITHOUT_HANGUP, DisconnectKind.CONNECT_FAILED}
        assert life.told[0].exit_status == -sent
        assert life.handlers == 0
        no_children()
        kinds.update(["killed", life.told[0].kind.name])
    say(f"executors killed by {sent.name}", kinds)


@pytest.mark.parametrize("how", ["noticed", "disconnected", "thawed"])
async def test_executor_is_stopped(how: str, say: Say) -> None:
    """G11, G13, G15, G17: an executor that is stopped at any moment: noticed, given up in time, or thawed in time."""
    limits = Limits(
        setup_timeout=1.0 if how == "noticed" else 10.0,
        liveness_timeout=0.5 if how == "noticed" else None,
        drain_timeout=20.0 if how == "thawed" else 0.2,
    )
    kinds: Counter[str] = Counter()
    for moment in moments(-(-ROUNDS // 3) or 2):
        life = Life(limits, grace=0.2 if how != "thawed" else 20.0)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.live)
                await trio.sleep(moment)
                while life.transport is None or (how != "noticed" and life.executor is None):
                    await trio.sleep(0.001)
                life.transport.process.send_signal(signal.SIGSTOP)
                stopped = trio.current_time()
                if how != "noticed":
                    assert life.executor is not None
                    life.executor.begin_disconnect()
                if how == "thawed":
                    await trio.sleep(0.05)
                    life.transport.process.send_signal(signal.SIGCONT)
                await life.over.wait()
                took = trio.current_time() - stopped
        (end,) = life.told
        cause = end.cause if end.kind is DisconnectKind.DRAIN_TIMEOUT else end
        assert cause is not None
        kinds.update(["stopped", cause.kind.name])
        match how:
            case "noticed":
                assert cause.kind in {DisconnectKind.LIVENESS_TIMEOUT, DisconnectKind.CONNECT_FAILED}
                assert took < PROMISED + (limits.setup_timeout if cause.kind is DisconnectKind.CONNECT_FAILED else 0.5)
            case "disconnected":
                assert (end.kind, cause.kind) == (DisconnectKind.DRAIN_TIMEOUT, DisconnectKind.LOCAL_HANGUP)
                assert took < PROMISED
            case "thawed":
                assert end == DisconnectReason(DisconnectKind.LOCAL_HANGUP, exit_status=0)
        if how != "thawed":
            assert end.exit_status in {-signal.SIGTERM, -signal.SIGKILL}
        assert life.handlers == 0
        no_children()
    say(f"executors stopped and {how}", kinds)


@pytest.mark.parametrize("options", [[], ["--no-lifeline"]], ids=["lifeline", "end of stream"])
async def test_controller_is_killed(options: list[str], say: Say) -> None:
    """G17: a controller that is killed at any moment leaves no executor; one without a lifeline knows why."""
    for moment in moments(-(-ROUNDS // 2) or 4):
        with trio.fail_after(PATIENCE):
            command = [*CONTROLLER, "traffic", *options]
            process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stderr is not None
            async with process.stdout as stdout, process.stderr as stderr:
                await trio.sleep(moment)
                process.kill()
                killed = trio.current_time()
                # Both processes have them: the end of both pipes is the end of both processes.
                said = b"".join([piece async for piece in stdout])
                errors = b"".join([piece async for piece in stderr])
                took = trio.current_time() - killed
            assert await process.wait() == -signal.SIGKILL
        # An executor that was just being started has to come up before it can see that nobody is there.
        assert took < PROMISED + LIFE, moment
        if b"busy" in said:
            assert took < PROMISED, moment
            if options:  # a reset, if the controller had not read everything
                assert said.endswith((b"ended by EOF_WITHOUT_HANGUP\n", b"ended by TRANSPORT_ERROR\n")), said
        if not options:
            assert not errors, errors.decode()
    say("controllers killed", {"killed": -(-ROUNDS // 2) or 4})


# --- the examples ------------------------------------------------------------------------------------------------


def executor_of(controller: int) -> int | None:
    """The process number of the executor that ``orc-trio run`` has started; None: it has none, yet or any more."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            parent = int(pathlib.Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[1])
            arguments = pathlib.Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == controller and b"executor" in arguments:
            return int(name)
    return None


@pytest.mark.native
@pytest.mark.parametrize("victim", ["controller", "executor"])
async def test_example_is_killed(victim: str) -> None:
    """G11, G17: an example's controller or executor is killed at any moment: the other ends, in time, and says why."""
    for number, moment in enumerate(moments(ROUNDS or 4)):
        example = HERE.parent / "examples" / EXAMPLES[number % len(EXAMPLES)]
        command = [sys.executable, "-m", "orc_trio", "run", str(example)]
        with trio.fail_after(PATIENCE):
            process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            assert process.stderr is not None
            async with process.stderr as stderr:
                await trio.sleep(moment)
                found = None
                while process.poll() is None and (found := executor_of(process.pid)) is None and victim == "executor":
                    await trio.sleep(0.001)
                if victim == "controller":
                    process.kill()
                elif found is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(found, signal.SIGKILL)
                killed = trio.current_time()
                said = b"".join([piece async for piece in stderr])  # its end is the end of both
                took = trio.current_time() - killed
            status = await process.wait()
        assert took < PROMISED + (LIFE if victim == "controller" and found is None else 0), moment
        assert b"Traceback" not in said, said.decode()
        if victim == "executor" and status != 0:  # 0: it was done already
            assert b"SIGKILL" in said, said.decode()
            assert said.count(b"\n") == 1, said.decode()
