# Killing LLVM's end, or ours, at random moments of a run: the other one ends with a clear error, in time.
#
# As in test_kill.py: a few moments by default, `nox -s kill` takes a hundred of each.

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import trio

from orc_trio import DisconnectedError, DisconnectKind, HandlerRegistry, NoControllerError
from orc_trio.llvm import Protection, RemoteExecutor, Segment, find_llvm_executor, open_llvm_executor
from test_kill import PATIENCE, PROMISED, ROUNDS, Say, moments
from test_llvm_controller import children, executor, objects  # noqa: F401  (fixtures)
from test_llvm_ends import with_code
from test_llvm_executor import ARGC, PAGE

pytestmark = [
    pytest.mark.kill,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="its machine code is for x86-64"),
]
COUNT = ROUNDS or 2


@pytest.fixture
def newest() -> str:
    """LLVM's executor; its controller is beside it."""
    found = find_llvm_executor()
    if found is None:
        pytest.skip("llvm-jitlink-executor is not installed")
    return found


async def traffic(remote: RemoteExecutor) -> None:
    """Calls of several kinds, without an end."""
    at = await with_code(remote, ARGC)
    library = await remote.open_library()

    async def mains(size: int) -> None:
        while True:
            assert await remote.run_as_main(at, ["x" * size] * 3) == 3

    async def lookups() -> None:
        while True:
            await remote.lookup(library, ["malloc", "free"])

    async def memory() -> None:
        while True:
            place = await remote.reserve(PAGE)
            await remote.release([await remote.finalize([Segment(place, PAGE, bytes(100), Protection.READ)])])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mains, 1)
        nursery.start_soon(mains, 100_000)
        nursery.start_soon(lookups)
        nursery.start_soon(memory)


async def test_llvms_executor_is_killed(newest: str, say: Say) -> None:
    """G11, G13, G17: All callers are told in time, and by what it ended; nothing is pending."""
    kinds: Counter[str] = Counter()
    for moment in moments(COUNT):
        killed = -1.0

        async def kill(process: trio.Process, moment: float) -> None:
            nonlocal killed
            await trio.sleep(moment / 5)
            process.kill()
            killed = trio.current_time()

        with trio.fail_after(PATIENCE):
            async with open_llvm_executor([newest], HandlerRegistry()) as controller, trio.open_nursery() as nursery:
                nursery.start_soon(kill, controller.process, moment)
                try:
                    await traffic(RemoteExecutor(controller))
                except* (DisconnectedError, NoControllerError):
                    pass
                end = await controller.wait_disconnected()
                assert trio.current_time() - killed < PROMISED, moment
                assert controller.statistics().pending_calls == 0
        assert (end.kind, end.exit_status) == (DisconnectKind.EOF_WITHOUT_HANGUP, -signal.SIGKILL)
        kinds.update(["killed", end.kind.name])
    say("LLVM's executors killed", kinds)


CONTROLLER = """
import sys, trio
sys.path.insert(0, {here!r})
from test_llvm_kill import HandlerRegistry, RemoteExecutor, open_llvm_executor, traffic
async def main():
    async with open_llvm_executor([{program!r}], HandlerRegistry()) as controller:
        print("busy", flush=True)
        await traffic(RemoteExecutor(controller))
trio.run(main)
"""


async def test_its_controller_is_killed(newest: str, say: Say) -> None:
    """G17: Nothing stays behind: LLVM's executor goes with us, whatever it is doing."""
    source = CONTROLLER.format(here=str(Path(__file__).parent), program=newest)
    for moment in moments(COUNT):
        with trio.fail_after(PATIENCE):
            process = await trio.lowlevel.open_process([sys.executable, "-c", source], stdout=subprocess.PIPE)
            assert process.stdout is not None
            async with process.stdout as stdout:
                said = b""
                while not said.endswith(b"\n"):
                    said += await stdout.receive_some()
                await trio.sleep(moment / 5)
                process.kill()
                killed = trio.current_time()
                assert b"".join([piece async for piece in stdout]) == b""  # its end is the end of both
                assert trio.current_time() - killed < PROMISED, moment
            await process.wait()
    say("controllers of LLVM's executors killed", {"killed": COUNT})


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # a zombie has none
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("victim", ["controller", "executor"])
def test_one_end_of_llvms_run_is_killed(
    victim: str,
    newest: str,
    executor: Path,  # noqa: F811
    objects: Path,  # noqa: F811
    say: Say,
) -> None:
    """G11, G17: Our executor ends when LLVM's controller is gone; that one when ours is, with an error that says so."""
    jitlink = newest.replace("jitlink-executor", "jitlink")
    version = newest.rpartition("-")[2]
    command = [jitlink, f"-oop-executor={executor}", "forever.o"]
    kinds: Counter[str] = Counter()
    for moment in moments(COUNT):
        with subprocess.Popen(
            command,
            cwd=objects,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "ORC_TRIO_LLVM_VERSION": version},
        ) as controller:
            assert controller.stderr is not None
            time.sleep(moment / 2)
            while not (found := children(controller.pid)):
                time.sleep(0.001)
            (child,) = found
            with contextlib.suppress(ProcessLookupError):
                os.kill(controller.pid if victim == "controller" else child, signal.SIGKILL)
            killed = time.monotonic()
            said = controller.stderr.read()  # its end is the end of both
            took = time.monotonic() - killed
            status = controller.wait(PATIENCE)
            # A program that is just coming up has to be there before it can see that nobody is.
            assert took < PROMISED + 1, moment
            assert not alive(child)
            kinds["killed"] += 1
            if victim == "controller":
                assert b"Traceback" not in said, said.decode()
            elif status == -signal.SIGSEGV:
                # LLVM 22's controller does that once in 300 times, also when its own executor is killed.
                kinds["LLVM's controller crashed"] += 1
            else:
                assert status > 0
                assert b"llvm-jitlink" in said
    say(f"LLVM's runs of which the {victim} was killed", kinds)
