# The lifeline: executors whose controller is killed. `EOF` on a pipe that the controller and its executor both have as
# stdout says that both are gone; nobody's process number is needed for that.

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import trio

from orc_trio import lifeline

PATIENCE = 30.0
CONTROLLER = [sys.executable, str(pathlib.Path(__file__).with_name("launch_controller.py"))]


@contextlib.asynccontextmanager
async def controller(*arguments: str) -> AsyncIterator[trio.Process]:
    """A controller in a process of its own, and its executor; neither is left."""
    process = await trio.lowlevel.open_process([*CONTROLLER, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(PATIENCE):
        async with process.stdout:
            try:
                yield process
            finally:
                process.kill()
                await process.wait()


async def line(process: trio.Process) -> bytes:
    """The next line of what the controller or its executor says; b"": both are gone."""
    assert process.stdout is not None
    said = bytearray()
    while not said.endswith(b"\n") and (piece := await process.stdout.receive_some(1)):
        said += piece
    return bytes(said)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["sleep"], id="idle"),
        pytest.param(["spin"], id="busy in Python"),
        pytest.param(["hold_gil"], id="native code that holds the GIL"),
        pytest.param(["send_signal"], id="stopped"),
        pytest.param(["traffic"], id="calls both ways"),
        pytest.param(["none", "--stuck-in-prepare"], id="not attached yet"),
    ],
)
async def test_controller_killed(arguments: list[str]) -> None:
    """G17: an executor whose controller is killed is gone at once, whatever it is doing."""
    async with controller(*arguments) as process:
        assert await line(process) == b"busy\n"
        process.kill()
        assert await line(process) == b""


async def test_controller_stopped() -> None:
    """A controller that is only stopped is not dead."""
    async with controller("sleep") as process:
        assert await line(process) == b"busy\n"
        process.send_signal(signal.SIGSTOP)
        with trio.move_on_after(0.3) as scope:
            await line(process)
        assert scope.cancelled_caught


async def test_without_lifeline() -> None:
    """G17: without a lifeline the end of the stream says that the controller is gone: a typed reason, and no orphan."""
    async with controller("sleep", "--no-lifeline") as process:
        assert await line(process) == b"busy\n"
        process.kill()
        assert await line(process) == b"ended by EOF_WITHOUT_HANGUP\n"
        assert await line(process) == b""


# --- arm ---------------------------------------------------------------------------------------------------------

# Without orc_trio: that is half of the point.
ARM = f"""
import os, runpy, subprocess, sys
lifeline = runpy.run_path({lifeline.__file__!r})
arm, VARIABLE = lifeline["arm"], lifeline["VARIABLE"]
assert "orc_trio" not in sys.modules and "trio" not in sys.modules
"""


async def armed(source: str, *, cut: bool = False) -> int:
    """Run ``source`` with a lifeline; its exit status."""
    read_end, write_end = os.pipe()
    ends = {write_end} if cut else set()
    try:
        for end in ends:
            os.close(end)
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                [sys.executable, "-c", ARM + source, str(read_end)],
                pass_fds=[read_end],
                env={**os.environ, lifeline.VARIABLE: lifeline.describe(read_end)},
                check=False,
            )
    finally:
        for end in {read_end, write_end} - ends:
            os.close(end)
    return done.returncode


async def test_arm() -> None:
    """Arming takes the variable away and closes the descriptor to programs we start; a second time changes nothing."""
    source = """
number = int(sys.argv[1])
assert os.get_inheritable(number)
assert arm()
assert VARIABLE not in os.environ
assert not os.get_inheritable(number)
assert not arm()
assert subprocess.run([sys.executable, "-c", f"import os; os.fstat({number})"], close_fds=False, stderr=-3).returncode
"""
    assert await armed(source) == 0


async def test_cut_before_it_was_armed() -> None:
    """A lifeline that is cut before it is armed kills when it is."""
    assert await armed("arm(); print('still here')", cut=True) == -signal.SIGKILL


@pytest.mark.parametrize("variable", ["", "{}", "{}:0", "{}:x", "x:1", "1000000:1", "9" * 30 + ":1", ":", "-1:1"])
async def test_not_our_pipe(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the variable names is left alone unless it is the very pipe the launcher made."""
    read_end, write_end = os.pipe()
    try:
        os.close(write_end)
        os.set_inheritable(read_end, True)
        monkeypatch.setenv(lifeline.VARIABLE, variable.format(read_end))
        assert not lifeline.arm()
        assert os.get_inheritable(read_end)
        assert lifeline.VARIABLE not in os.environ
    finally:
        os.close(read_end)


async def test_no_lifeline() -> None:
    """A program that was started without one has none."""
    assert lifeline.VARIABLE not in os.environ
    assert not lifeline.arm()


async def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no such signal, arming does nothing, and says so."""
    read_end, write_end = os.pipe()
    try:
        monkeypatch.setenv(lifeline.VARIABLE, lifeline.describe(read_end))
        monkeypatch.setattr(sys, "platform", "elsewhere")
        assert not lifeline.arm()
    finally:
        os.close(read_end)
        os.close(write_end)
