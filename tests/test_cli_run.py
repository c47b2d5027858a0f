# `orc-trio run`: the program's output, exit status and end are ours, whatever they are.

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from cli_helpers import EXAMPLES, ORC_TRIO, PATIENCE, Cli, Ended, orc_trio_process, started
from orc_trio.cli import run as run_module
from orc_trio.cli.signals import run_command
from orc_trio.llvm import find_llvm_executor
from orc_trio.tracing import read_records
from orc_trio.wire import Opcode

CC = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
needs_cc = pytest.mark.skipif(CC is None, reason="needs a C compiler (Debian: apt-get install gcc)")

RETURNS = "define i32 @main(i32 %argc, ptr %argv) {\n ret i32 VALUE\n}\n"
ENDLESS = """
@text = private constant [3 x i8] c"go\\00"
declare i32 @puts(ptr)
declare i32 @fflush(ptr)
define i32 @main() {
  call i32 @puts(ptr @text)
  call i32 @fflush(ptr null)
  br label %a
a:
  br label %a
}
"""


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capfdbinary)  # what the program itself writes is captured too


def program(where: Path, text: str, name: str = "p.ll") -> Path:
    """A program's file."""
    path = where / name
    path.write_text(text)
    return path


# LLVM's executor

needs_llvms = pytest.mark.skipif(find_llvm_executor() is None, reason="needs LLVM's executor (Debian: llvm-22)")


@pytest.mark.native
@needs_cc
@needs_llvms
@pytest.mark.parametrize(
    ("name", "args"), [("mandelbrot.ll", ["8"]), ("exit3.ll", []), ("crash.ll", []), ("nbody.c", ["10"])]
)
def test_the_same_in_llvms_executor(name: str, args: list[str]) -> None:
    """--llvm: Output and end are those that they are in our executor."""
    ended = [orc_trio_process("run", *flags, EXAMPLES / name, *args) for flags in ([], ["--llvm"])]
    assert ended[0] == ended[1]


@pytest.mark.native
@needs_cc
@needs_llvms
def test_what_llvms_executor_cannot_do(cli: Cli, tmp_path: Path) -> None:
    """--llvm: A program that calls back, a library that is not there, an object that is none: one line, 126."""
    for arguments, says in (
        ([EXAMPLES / "callback.c"], "undefined symbol: orc_trio_get_session"),
        (["-l", "no-such-library.so", EXAMPLES / "nbody.c"], "no-such-library.so: cannot open shared object file"),
        ([program(tmp_path, "int there;", "nothing.c")], "missing definitions for main"),
        ([program(tmp_path, "not C", "wrong.c")], "wrong.c"),
    ):
        ended = cli("run", "--llvm", *arguments)
        assert ended.status == 126
        assert says in ended.err


@pytest.mark.native
def test_without_llvms_executor(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """--llvm: One line if it is not installed; and it is started here, not found at a spec."""
    monkeypatch.setattr(run_module, "find_llvm_executor", lambda: None)
    ended = cli("run", "--llvm", EXAMPLES / "exit3.ll")
    assert ended == (125, b"", "orc-trio: no llvm-jitlink-executor is installed; Debian: apt install llvm-22\n")
    ended = cli("run", "--llvm", "--spec", "unix:connect=s", EXAMPLES / "exit3.ll")
    assert ended.status == 2
    assert "take one of them" in ended.err


@pytest.mark.native
@needs_llvms
def test_linking_needs_a_compiler(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """--llvm: One line, 126, without a C compiler, and if that cannot link."""
    monkeypatch.setenv("CC", "/nowhere/cc")
    ended = cli("run", "--llvm", EXAMPLES / "exit3.ll")
    assert ended.status == 126
    assert "no C compiler found to link it" in ended.err
    monkeypatch.setenv("CC", "false")
    ended = cli("run", "--llvm", EXAMPLES / "exit3.ll")
    assert ended.status == 126
    assert ended.err.endswith("false failed (exit status 1)\n")


# Before anything is started


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("nowhere.ll", 127, "nowhere.ll: No such file or directory"),
        ("nowhere", 127, "nowhere: cannot tell what it is; known are LLVM IR (.ll, .bc), objects (.o) and C (.c)"),
        ("here.txt", 126, "here.txt: cannot tell what it is"),
        ("directory.ll", 127, "directory.ll: Is a directory"),
    ],
)
def test_wrong_files(cli: Cli, tmp_path: Path, name: str, status: int, says: str) -> None:
    """A file that is not there, or is not a program: one line, and the exit code a shell would have given."""
    (tmp_path / "here.txt").touch()
    (tmp_path / "directory.ll").mkdir()
    ended = cli("run", tmp_path / name)
    assert (ended.status, ended.out) == (status, b"")
    (line,) = ended.err.splitlines()
    assert line.startswith(f"orc-trio: {tmp_path}/{says}")


def test_without_the_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without llvmlite: one line that says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert cli("run", EXAMPLES / "exit3.ll") == (
        125,
        b"",
        "orc-trio: native code needs llvmlite: install it with  pip install 'orc_trio[jit]'\n",
    )


def test_nobody_at_the_spec(cli: Cli, tmp_path: Path) -> None:
    """--spec with nobody there: one line, 125."""
    ended = cli("run", "--spec", f"unix:connect={tmp_path}/s", EXAMPLES / "exit3.ll")
    assert ended == (125, b"", f"orc-trio: no executor: unix:connect={tmp_path}/s: No such file or directory\n")


def test_no_executor(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that cannot be started: one line, 125."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    ended = cli("run", EXAMPLES / "exit3.ll")
    assert ended == (125, b"", "orc-trio: no executor: cannot start /nowhere/python: No such file or directory\n")


def test_an_executor_without_native_code(cli: Cli, tmp_path: Path) -> None:
    """An executor that cannot run native code: one line, 125."""
    with started("executor", "--no-native", "unix:listen=s", cwd=tmp_path) as process:
        assert process.stderr is not None
        process.stderr.readline()
        ended = cli("run", "--spec", f"unix:connect={tmp_path}/s", object_file(tmp_path))
    assert ended.status == 125
    assert ended.err == "orc-trio: this executor does not run native code (is llvmlite installed where it runs?)\n"


def object_file(where: Path) -> Path:
    """An object with a main that returns 42."""
    if CC is None:
        pytest.skip("needs a C compiler (Debian: apt-get install gcc)")
    source = program(where, "int main(void) { return 42; }\n", "o.c")
    subprocess.run([CC, "-c", source, "-o", where / "o.o"], check=True, timeout=PATIENCE)
    return where / "o.o"


# Programs


@pytest.mark.native
def test_exit_status(cli: Cli, tmp_path: Path) -> None:
    """main's value is the exit status, as far as a process can say it."""
    assert cli("run", program(tmp_path, RETURNS.replace("VALUE", "-2"))) == (254, b"", "")


@pytest.mark.native
def test_an_object(cli: Cli, tmp_path: Path) -> None:
    """An object file is run as it is."""
    assert cli("run", object_file(tmp_path)).status == 42


@pytest.mark.native
@needs_cc
def test_arguments_streams_environment(tmp_path: Path) -> None:
    """Arguments (also those that look like options), stdin, stdout, stderr and the environment are the program's."""
    source = program(
        tmp_path,
        """
        #include <stdio.h>
        #include <stdlib.h>
        int main(int argc, char **argv) {
            for (int i = 0; i < argc; i++) printf("[%s]", argv[i]);
            fprintf(stderr, "%s", getenv("GREETING"));
            int c; while ((c = getchar()) != EOF) putchar(c);
            return 5;
        }
        """,
        "p.c",
    )
    ended = orc_trio_process(
        "run", "-O0", "-l", "libm.so.6", source, "-O3", "--help", "é", "", stdin=b"in\x00put", env={"GREETING": "hello"}
    )
    assert ended == (5, f"[{source}][-O3][--help][é][]".encode() + b"in\x00put", "hello")


@pytest.mark.native
@pytest.mark.parametrize(
    ("name", "text", "status", "says"),
    [
        ("p.ll", "define i32 @main( {", 126, "p.ll:1:"),
        ("p.ll", "declare i32 @nix()\ndefine i32 @main() {\n %a = call i32 @nix()\n ret i32 %a\n}", 126, "nix"),
        ("p.o", "not an object", 126, "this is not an ELF object file"),
    ],
)
def test_programs_that_are_wrong(cli: Cli, tmp_path: Path, name: str, text: str, status: int, says: str) -> None:
    """What cannot be compiled or linked: the compiler's words, and 126."""
    ended = cli("run", program(tmp_path, text, name))
    assert (ended.status, ended.out) == (status, b"")
    assert ended.err.startswith("orc-trio: ")
    assert says in ended.err


@pytest.mark.native
@needs_cc
def test_a_library(cli: Cli, tmp_path: Path) -> None:
    """A library of --library that is missing is an error."""
    source = program(tmp_path, "int main(void) { return 0; }", "p.c")
    ended = cli("run", "-l", "libnix.so.6", source)
    assert ended.status == 126
    assert "cannot load the library 'libnix.so.6'" in ended.err


@pytest.mark.native
@needs_cc
@pytest.mark.parametrize(
    ("statement", "status", "says"),
    [
        ("abort()", 134, "was killed by SIGABRT"),
        ("raise(SIGKILL)", 137, "was killed by SIGKILL"),
        ("raise(SIGPIPE)", 141, ""),
        ("raise(SIGINT)", 130, ""),
        ("_exit(8)", 8, ""),
        ("volatile int seven = 7, zero = 0; return seven / zero", 136, "was killed by SIGFPE"),
    ],
)
def test_ends(cli: Cli, tmp_path: Path, statement: str, status: int, says: str) -> None:
    """However a program ends, the exit status is what a shell would have said, and a crash is one line."""
    if status == 141:
        statement = "signal(SIGPIPE, SIG_DFL); " + statement
    head = "#include <signal.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
    source = program(tmp_path, f"{head}int main(void) {{ {statement}; return 0; }}\n", "p.c")
    ended = cli("run", source)
    assert ended == (status, b"", f"orc-trio: {source} {says}\n" if says else "")


@pytest.mark.native
def test_output_is_live(tmp_path: Path) -> None:
    """What a program writes is there before it ends; Ctrl-C then ends it, with 130 and no word."""
    with started("run", program(tmp_path, ENDLESS)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stdout.read() == b""  # nobody holds the other end any more
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.native
def test_ctrl_c_at_a_terminal(tmp_path: Path) -> None:
    """At a terminal, Ctrl-C reaches us and the program; exit code 130, and not a word."""
    ours, theirs = pty.openpty()
    # Its terminal, in the sense that Ctrl-C there is a signal to it.
    code = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *ORC_TRIO, "run", str(program(tmp_path, ENDLESS))],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    with process:
        try:
            assert read_until(ours, b"\n") == b"go\r\n"
            os.write(ours, b"\x03")
            assert process.wait(PATIENCE) == 130
            assert read_until(ours, b"^C") == b"^C"
        finally:
            process.kill()
    os.close(ours)


def read_until(descriptor: int, end: bytes) -> bytes:
    """What comes from a terminal, up to ``end``."""
    data = b""
    while not data.endswith(end):
        data += os.read(descriptor, 1)
    return data


@pytest.mark.native
def test_broken_pipe(tmp_path: Path) -> None:
    """`orc-trio run … | head -1`: the program ends with SIGPIPE, quietly."""
    forever = """
    @text = private constant [5 x i8] c"more\\00"
    declare i32 @puts(ptr)
    define i32 @main() {
      br label %a
    a:
      call i32 @puts(ptr @text)
      br label %a
    }
    """
    with started("run", program(tmp_path, forever)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"more\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.native
def test_trace(cli: Cli, tmp_path: Path) -> None:
    """--trace has the whole conversation, also of a crash."""
    trace = tmp_path / "t"
    assert cli("run", "--trace", trace, EXAMPLES / "crash.ll").status == 139
    with trace.open("rb") as file:
        opcodes = [Opcode(each.message.opcode) for each in read_records(file) if each.message]
    assert opcodes[:2] == [Opcode.SETUP, Opcode.SETUP]
    assert opcodes.count(Opcode.CALL) >= 2
    assert cli("decode", trace).status == 0


@pytest.mark.native
def test_an_executor_elsewhere(cli: Cli, tmp_path: Path) -> None:
    """--spec: the program runs there, and writes there; its exit status comes here."""
    with started("executor", "unix:listen=s", cwd=tmp_path) as process:
        assert process.stderr is not None
        process.stderr.readline()
        ended = cli("run", "--spec", f"unix:connect={tmp_path}/s", EXAMPLES / "mandelbrot.ll", "0")
        assert ended == (2, b"", "")
        assert process.wait(PATIENCE) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b"SIZE must be between 1 and 4096\n"


@pytest.mark.native
def test_an_executor_elsewhere_crashes(cli: Cli, tmp_path: Path) -> None:
    """--spec: a crash there is a lost executor here; 125."""
    with started("executor", "unix:listen=s", cwd=tmp_path) as process:
        assert process.stderr is not None
        process.stderr.readline()
        ended = cli("run", "--spec", f"unix:connect={tmp_path}/s", EXAMPLES / "crash.ll")
        assert ended.status == 125
        assert ended.err.startswith(f"orc-trio: {EXAMPLES / 'crash.ll'}: lost the executor: ")
        assert process.wait(PATIENCE) == -signal.SIGSEGV


@pytest.mark.native
def test_waiting_for_an_executor(tmp_path: Path) -> None:
    """--spec may listen: then it says where, and an executor connects."""
    with started("run", "--spec", "unix:listen=s", EXAMPLES / "exit3.ll", cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"orc-trio run: waiting for an executor on unix:listen=s\n"
        ended = orc_trio_process("executor", f"unix:connect={tmp_path}/s")
        assert ended.status == 3
        assert process.wait(PATIENCE) == 125


@pytest.mark.native
@needs_cc
def test_input_is_left_alone(tmp_path: Path) -> None:
    """Nothing reads our stdin unless the program asks for it."""
    reading, writing = os.pipe()
    os.write(writing, b"line one\nline two\n")
    os.close(writing)
    try:
        ended = subprocess.run(
            [*ORC_TRIO, "run", EXAMPLES / "mandelbrot.ll", "0"], stdin=reading, capture_output=True, check=False
        )
        assert ended.returncode == 2
        assert os.read(reading, 100) == b"line one\nline two\n"
    finally:
        os.close(reading)


@pytest.mark.native
@needs_cc
def test_waiting_for_input_can_be_interrupted(tmp_path: Path) -> None:
    """A program that waits for a line of input ends on Ctrl-C, and so do we."""
    with started("run", EXAMPLES / "callback.c", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stderr.readline() == b"line 1 has 4 bytes: one\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""


def test_a_signal_kills_the_executor_before_anything_else() -> None:
    """What a signal cancels comes after: the executor must not hear of it, as its program could say something then."""
    order: list[str] = []

    async def wait(number: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            order.append(f"task {number} was cancelled")

    async def work() -> int:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError

    assert run_command(work, before_cancelling=lambda: order.append("killed")) == 128 + signal.SIGTERM
    assert order[0] == "killed"
    assert len(order) == 5


@pytest.mark.native
def test_a_function_that_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An error of the executor that is nobody's fault here: one line, 125."""
    from orc_trio.exceptions import WrapperFunctionError

    async def fail(*_args: object, **_kwargs: object) -> None:
        raise WrapperFunctionError("Odd", "very\n")

    monkeypatch.setattr(run_module, "load_object", fail)
    ended: Ended = cli("run", EXAMPLES / "exit3.ll")
    assert ended == (125, b"", "orc-trio: Odd: very\\n\n")
