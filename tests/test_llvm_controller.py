# Our executor, LLVM's own controller: llvm-jitlink of every version that is installed. Debian: apt-get install llvm-22.

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

VERSIONS = ["14", "16", "19", "22"]
PATIENCE = 60

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="its machine code is for x86-64")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program of two objects, with and without what needs the ORC runtime."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    folder = tmp_path_factory.mktemp("objects")
    (folder / "other.c").write_text("int other(int number) { return number * 10; }\n")
    (folder / "crash.c").write_text("int main(void) { __builtin_trap(); }\n")
    forever = r"#include <unistd.h>" + "\n" + r'int main(void) { write(1, "on\n", 3); for (;;) pause(); }'
    (folder / "forever.c").write_text(f"{forever}\n")
    source = Path(__file__).with_name("llvm_exceptions.cpp")
    for command in (
        ["g++", "-O1", "-fPIC", "-c", str(source), "-o", "plain.o"],
        ["g++", "-O1", "-fPIC", "-DWITH_RUNTIME", "-c", str(source), "-o", "runtime.o"],
        *(["gcc", "-O1", "-fPIC", "-c", f"{name}.c", "-o", f"{name}.o"] for name in ("other", "crash", "forever")),
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture
def executor(tmp_path: Path) -> Path:
    """The command, as a program of one word, which is what LLVM's controllers start."""
    path = tmp_path / "orc-trio-llvm-executor"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m orc_trio.llvm.program "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(params=VERSIONS)
def jitlink(request: pytest.FixtureRequest, executor: Path) -> list[str]:
    found = shutil.which(f"llvm-jitlink-{request.param}")
    if found is None:
        pytest.skip(f"llvm-jitlink-{request.param} is not installed")
    return [found, f"-oop-executor={executor}"]


STUMBLES = re.compile(r"llvm-jitlink-19: .*(disconnecting|Bad file descriptor)")
"""LLVM 19's controller may disconnect in the midst of its own calls, and then complains: on a busy machine in one of
ten runs, with LLVM's own executor, too (214 of 2000; none of 2000 with those of 14, 16 and 22)."""


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """Run to the end.

    Returns:
        The exit status, and what was written to stdout.
    """
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    skip_if_it_stumbled(ended.stderr)
    return ended.returncode, ended.stdout


def skip_if_it_stumbled(said: str) -> None:
    """Look at what a controller wrote to stderr before it ended too early."""
    print(said)  # for whoever reads of a failure
    if STUMBLES.search(said):
        pytest.skip("LLVM 19's controller stumbled over itself, as it does with its own executor on a busy machine")


def test_a_program(jitlink: list[str], objects: Path) -> None:
    """Two objects, arguments, output, an exception that is thrown and caught; the status is main's."""
    # What LLVM counts as an argument before the first of ours differs.
    status, output = run([*jitlink, "plain.o", "other.o", "-args", "one", "two"], objects)
    *_, argument, caught = output.splitlines()
    assert argument == "argument two"
    thrown = int(caught.removeprefix("caught: thrown "))
    assert thrown in (20, 30)
    assert status == 40 + thrown // 10


def test_again_and_again(jitlink: list[str], objects: Path) -> None:
    """It ends in order every time."""
    command = [*jitlink, "plain.o", "other.o"]
    assert {run(command, objects)[0] for _ in range(3)} <= {40, 41}


@pytest.mark.parametrize("version", ["19", "22"])
def test_with_the_orc_runtime(version: str, executor: Path, objects: Path) -> None:
    """Constructors, destructors and thread-local storage: LLVM's runtime, in our process, calls LLVM's session."""
    program = shutil.which(f"llvm-jitlink-{version}")
    runtimes = glob.glob(f"/usr/lib/llvm-{version}/lib/clang/{version}/lib/linux/liborc_rt-x86_64.a")
    if program is None or not runtimes:
        pytest.skip(f"llvm-jitlink-{version} or its ORC runtime is not installed")
    command = [program, f"-oop-executor={executor}", f"-orc-runtime={runtimes[0]}", "runtime.o", "other.o"]
    for _ in range(3):
        status, output = run([*command, "-args", "one"], objects)
        lines = output.splitlines()
        assert (lines[0], lines[-1]) == ("constructed", "destroyed")
        assert status in (41, 42)


def test_a_program_that_crashes(jitlink: list[str], objects: Path) -> None:
    """G11: The executor dies of it; LLVM's controller says so, and does not hang."""
    ended = subprocess.run([*jitlink, "crash.o"], cwd=objects, capture_output=True, timeout=PATIENCE)
    assert ended.returncode != 0


@pytest.mark.parametrize("which", ["controller", "executor"])
def test_one_of_the_two_is_killed(which: str, jitlink: list[str], objects: Path) -> None:
    """G17: The other one ends too, though a function is running that never comes back."""
    with subprocess.Popen(
        [*jitlink, "forever.o"], cwd=objects, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as controller:
        assert controller.stdout is not None
        assert controller.stderr is not None
        first = controller.stdout.readline()
        if not first:
            skip_if_it_stumbled(controller.stderr.read())
        assert first == "on\n"
        (child,) = children(controller.pid)
        os.kill(controller.pid if which == "controller" else child, signal.SIGKILL)
        controller.wait(PATIENCE)
        until = time.monotonic() + PATIENCE
        while Path(f"/proc/{child}").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
            assert time.monotonic() < until, "the executor did not end"
            time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_one_that_listens(jitlink: list[str], executor: Path, objects: Path) -> None:
    """It serves one controller that connects, and ends when that has gone, however it went."""
    with subprocess.Popen(
        [executor, "listen=127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ORC_TRIO_LLVM_VERSION": jitlink[0].rpartition("-")[2]},
    ) as listener:
        assert listener.stderr is not None
        assert listener.stdout is not None
        where = listener.stderr.readline().removeprefix("orc-trio-llvm-executor: listening on ").strip()
        command = [jitlink[0], f"-oop-executor-connect={where}", "plain.o", "other.o"]
        with subprocess.Popen(
            command, cwd=objects, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as controller:
            assert controller.stderr is not None
            first = listener.stdout.readline()
            if not first:
                skip_if_it_stumbled(controller.stderr.read())
            assert first.startswith("caught: thrown ")
            controller.kill()  # LLVM's controllers do not end by themselves here, whoever executes
        assert listener.stdout.read() == ""
        said = listener.stderr.read()
        # Killed with something unread, it resets the connection.
        assert (listener.wait(PATIENCE), said.count("\n")) in {(0, 0), (1, 1)}
        assert not said or "Connection reset by peer" in said


@pytest.mark.parametrize("arguments", [[], ["filedescs=1"], ["connect=nowhere"]])
def test_a_wrong_command_line(arguments: list[str], executor: Path) -> None:
    """One line, and status 2."""
    ended = subprocess.run([executor, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 2
    assert ended.stderr == "orc-trio-llvm-executor: usage: orc-trio-llvm-executor filedescs=IN,OUT | listen=HOST:PORT\n"


def test_where_it_cannot_listen(executor: Path) -> None:
    """One line, and status 1; or 2, if that is no address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = subprocess.run([executor, f"listen={where}"], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert where in ended.stderr
    ended = subprocess.run([executor, "listen=nowhere"], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 2
    assert "the port is missing" in ended.stderr
