# The examples run, and do what they say; the native ones as LLVM's interpreter or a C compiler's program does.

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli_helpers import EXAMPLES, PATIENCE, Cli, Ended, orc_trio_process
from orc_trio.native import INCLUDE_DIRECTORY

LLI = next(filter(None, map(shutil.which, ("lli", *(f"lli-{version}" for version in range(22, 13, -1))))), None)
CC = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)

needs_lli = pytest.mark.skipif(LLI is None, reason="needs LLVM's interpreter, lli (Debian: apt-get install llvm)")
needs_cc = pytest.mark.skipif(CC is None, reason="needs a C compiler (Debian: apt-get install gcc)")


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capfdbinary)  # what the program itself writes is captured too


def python(example: str, *argv: str) -> Ended:
    """Run one of the Python examples."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / example, *argv], capture_output=True, timeout=PATIENCE, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def ended(command: list[str], stdin: bytes = b"") -> tuple[int, bytes]:
    """What a reference prints, and its exit code as a shell has it."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
    return (128 - done.returncode if done.returncode < 0 else done.returncode), done.stdout


def lli(program: Path, *argv: str) -> tuple[int, bytes]:
    """What LLVM's interpreter makes of a program."""
    assert LLI is not None
    version = subprocess.run([LLI, "--version"], capture_output=True, text=True, check=True).stdout
    old = any(f"LLVM version {number}." in version for number in (13, 14))
    return ended([LLI, *(["-opaque-pointers"] if old else []), str(program), *argv])


def compiled(program: Path, where: Path, *flags: str) -> list[str]:
    """The command that runs a C program as a process of its own."""
    assert CC is not None
    binary = where / program.stem
    subprocess.run([CC, "-O2", *flags, program, "-o", binary, "-lm"], check=True, timeout=PATIENCE)
    return [str(binary)]


@pytest.mark.native
@needs_lli
@pytest.mark.parametrize(
    ("program", "argv"),
    [
        ("mandelbrot.ll", ["33"]),
        ("exit3.ll", []),
        ("crash.ll", []),
    ],
)
def test_ir_programs(cli: Cli, program: str, argv: list[str]) -> None:
    """`orc-trio run` gives the output and the exit status that lli gives."""
    ours = cli("run", EXAMPLES / program, *argv)
    assert (ours.status, ours.out) == lli(EXAMPLES / program, *argv)
    assert ours.err == (f"orc-trio: {EXAMPLES / program} was killed by SIGSEGV\n" if ours.status == 139 else "")


@pytest.mark.native
@needs_cc
@pytest.mark.parametrize("argv", [["10"]])
def test_nbody(cli: Cli, tmp_path: Path, argv: list[str]) -> None:
    """`orc-trio run` gives the output and the exit status that the compiled program gives."""
    program = EXAMPLES / "nbody.c"
    ours = cli("run", program, *argv)
    assert (ours.status, ours.out) == ended([*compiled(program, tmp_path), *argv])


@pytest.mark.native
@needs_cc
def test_callback() -> None:
    """callback.c asks for its input and sends its log lines, from and to this end."""
    ours = orc_trio_process("run", EXAMPLES / "callback.c", stdin=b"one\nand another")
    assert ours == (
        2,
        b"2 lines\n",
        "line 1 has 4 bytes: one\nline 2 has 11 bytes: and another\n",
    )


def test_python_only() -> None:
    """python_only.py: calls both ways without native code."""
    assert python("python_only.py", "b", "a", "the", "a", "b", "c", "a") == (
        0,
        "the executor asks for stop words\n3 × a\n2 × b\n1 × c\n"
        "an error from the executor: OutOfPaper: cannot print 15 bytes\n"
        "the end: local hang-up [executor exited with status 0]\n".encode(),
        "",
    )


@pytest.mark.native
@needs_cc
def test_native_callback() -> None:
    """native_callback.py: machine code called, and calling back."""
    done = python("native_callback.py")
    assert (done.status, done.err) == (0, "")
    lines = done.out.decode().splitlines()
    assert [line for line in lines if line != "3 lines"] == [
        "hello, Ada",
        "error: greet: who?",
        "you asked for tea",
        "log: line 1 has 3 bytes: one",
        "log: line 2 has 11 bytes: and another",
        "log: line 3 has 4 bytes: last",
        "main returned 3",
        "the end: local hang-up [executor exited with status 0]",
    ]
    assert "3 lines" in lines


def test_supervisor() -> None:
    """supervisor.py: every job but one is done, whatever its executor dies of."""
    done = python("supervisor.py")
    assert (done.status, done.err) == (0, "")
    text = done.out.decode()
    answers = {line[:7]: line[8:].strip() for line in text.splitlines() if line.startswith("job")}
    assert len(answers) == 12
    assert answers.pop("job 10:") == "not done"
    assert all(float(answer) >= 0 for answer in answers.values())
    assert text.count("killed by SIGSEGV") == 1
    assert text.count("exited with status 7") == 1
    assert text.count("killed by SIGABRT") == 2
    assert "took too long" in text


def test_the_page_lists_every_example() -> None:
    """docs/cli.rst lists every example."""
    page = (EXAMPLES.parent / "docs" / "cli.rst").read_text(encoding="utf-8")
    examples = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())
    assert [name for name in examples if name not in page and name not in HELPERS] == []


HELPERS = {"queue_transport.py"}
"""Modules that go with another example, named there."""


def test_header() -> None:
    """The header that C examples include is installed."""
    assert (INCLUDE_DIRECTORY / "orc_trio.h").exists()
    assert os.access(EXAMPLES, os.R_OK)
