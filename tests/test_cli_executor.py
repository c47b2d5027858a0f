# `orc-trio executor`: serves one controller, says where it listens, ends in order.

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

import orc_trio
from cli_helpers import ORC_TRIO, PATIENCE, orc_trio_process, started
from orc_trio.exceptions import OrcError
from orc_trio.launch import open_executor_process
from orc_trio.native import available

FUNCTIONS = """
import sys, threading, time
def echo(args): return args
def argv(args): return repr(sys.argv).encode()
def install(session, bootstrap):
    tag = bootstrap.add_tag("log")
    async def log(args): return await session.call_controller(tag, args)
    bootstrap.add_wrapper("log_it", log)
def block(args): time.sleep(1000)
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A directory with a module of functions."""
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return tmp_path


def listening(process: subprocess.Popen[bytes]) -> str:
    """Where a controller can connect, as announced on stderr."""
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    match = re.fullmatch(r"orc-trio executor: listening on (\S+) \(a controller uses (\S+)\)\n", line)
    assert match, line
    assert match[1].replace(":listen=", ":connect=") == match[2]
    return match[2]


@pytest.mark.parametrize("spec", ["unix:listen=s", "tcp:listen=127.0.0.1:0"])
def test_serves_one_controller(functions: Path, spec: str) -> None:
    """It announces where it listens, serves, and exits with 0 when the controller has hung up."""
    vetted = ["--vetted", "unchecked"] if spec.startswith("tcp") else []
    arguments = ["--wrappers", "functions:echo", "--no-native", *vetted, spec]
    with started("executor", *arguments, cwd=functions) as process:
        there = listening(process)
        ended = orc_trio_process("call", *vetted, there, "echo", "-d", "hi", cwd=functions)
        assert ended == (0, b"hi", "")
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not (functions / "s").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_listening(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM end it in order: the socket is gone, exit code 128 + n."""
    with started("executor", "--no-native", "unix:listen=s", cwd=tmp_path) as process:
        listening(process)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not (tmp_path / "s").exists()


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    """Under nohup and the like, a signal that was ignored stays so."""
    code = f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv({sys.executable!r}, {ORC_TRIO!r}"
    code += " + ['executor', '--no-native', 'unix:listen=s'])"
    with started(command=[sys.executable, "-c", code], cwd=tmp_path) as process:
        listening(process)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143


STUBBORN = {
    "shielded": """
import trio
async def stubborn(args):
    with trio.CancelScope(shield=True):
        print("running", flush=True)
        await trio.sleep_forever()
""",
    "blocking the event loop": """
import time
def stubborn(args):
    print("running", flush=True)
    time.sleep(1000)
""",
}


@pytest.mark.parametrize("source", STUBBORN.values(), ids=STUBBORN.keys())
def test_a_second_signal_ends_at_once(functions: Path, source: str) -> None:
    """A function that does not end holds up the first signal, not the second: the process ends."""
    (functions / "stubborn.py").write_text(source)
    arguments = ["--wrappers", "stubborn:stubborn", "--no-native", "unix:listen=s"]
    with started("executor", *arguments, cwd=functions) as process:
        listening(process)
        with started("call", f"unix:connect={functions}/s", "stubborn") as caller:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert caller.wait(PATIENCE) == 3


def test_a_controller_that_dies(functions: Path) -> None:
    """A controller that leaves without a word: one line, exit code 3."""
    with started("executor", "--no-native", "unix:listen=s", cwd=functions) as process:
        listening(process)
        code = (
            "import os, sys, trio, orc_trio\n"
            "async def main():\n"
            f"    stream = await trio.open_unix_socket({str(functions / 's')!r})\n"
            "    async with orc_trio.open_controller(stream, orc_trio.HandlerRegistry()):\n"
            "        os._exit(0)\n"
            "trio.run(main)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
        assert process.wait(PATIENCE) == 3
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert said == "orc-trio executor: the controller is gone: end of stream without a hang-up\n"


def test_somebody_else_connects(tmp_path: Path) -> None:
    """A peer that talks another protocol: one line that says so, exit code 3."""
    with started("executor", "--no-native", "unix:listen=s", cwd=tmp_path) as process:
        listening(process)
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(tmp_path / 's')!r}); "
        code += "s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); s.recv(100000)"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
        assert process.wait(PATIENCE) == 3
        assert process.stderr is not None
        (line,) = process.stderr.read().decode().splitlines()
        assert line.startswith("orc-trio: ")
        assert "HTTP/1.1" in line


def test_wrappers_that_clash(functions: Path) -> None:
    """Functions of the same name: a usage error, before anything is opened."""
    ended = orc_trio_process(
        "executor", "--no-native", "--wrappers", "functions:echo", "--wrappers", "functions:echo", "unix:listen=s",
        cwd=functions,
    )  # fmt: skip
    assert ended.status == 2
    assert ended.err.startswith("orc-trio: --wrappers functions:echo: there is a bootstrap symbol 'echo' already")
    assert len(ended.err.splitlines()) == 1


def child(functions: Path, *more: str) -> list[str]:
    return [*ORC_TRIO, "executor", *more, "--wrappers", "functions:echo", "--wrappers", "functions:install"]


async def test_started_by_a_controller(functions: Path) -> None:
    """`open_executor_process` with this command: calls both ways, and exit status 0."""
    registry = orc_trio.HandlerRegistry()

    @registry.handler("log")
    async def log(args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"logged " + args

    async with open_executor_process(child(functions), registry, cwd=functions) as controller:
        symbols = controller.bootstrap.symbols
        assert any(name.startswith("orc_trio.native.") for name in symbols) == available()
        assert await controller.call_wrapper(symbols["echo"], b"x") == b"x"
        assert await controller.call_wrapper(symbols["log_it"], b"y") == b"logged y"
        end = await controller.disconnect()
    assert end.orderly
    assert end.exit_status == 0


async def test_ends_with_its_controller(functions: Path) -> None:
    """G17: an executor whose controller is killed is gone at once, also while a function blocks its event loop."""
    code = f"""
import sys, trio, orc_trio
from orc_trio.launch import open_executor_process
async def main():
    command = {[*ORC_TRIO, "executor", "--wrappers", "functions:block"]!r}
    async with open_executor_process(command, orc_trio.HandlerRegistry()) as controller:
        print(controller.pid, flush=True)
        await controller.call_wrapper(controller.bootstrap.symbols["block"], b"")
trio.run(main)
"""
    with started(command=[sys.executable, "-c", code], cwd=functions) as process:
        assert process.stdout is not None
        pid = int(await trio.to_thread.run_sync(process.stdout.readline))
        await trio.sleep(0.3)
        process.kill()
        with trio.fail_after(PATIENCE):
            while alive(pid):
                await trio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_to_a_started_one(functions: Path, number: signal.Signals) -> None:
    """Started by a controller, it leaves signals to the system: it dies of them, and the controller is told."""
    async with open_executor_process(
        child(functions, "--no-native"), orc_trio.HandlerRegistry(), cwd=functions
    ) as controller:
        symbols, registered = controller.bootstrap.symbols, "log" in controller.bootstrap.symbols
        assert registered
        assert symbols
        controller.process.send_signal(number)
        end = await controller.wait_disconnected()
    assert end.exit_status == -number


@pytest.mark.native
async def test_broken_stdout_is_deadly(functions: Path) -> None:
    """Writing to a pipe that nobody reads ends the executor with SIGPIPE; a broken connection does not."""
    (functions / "writer.py").write_text("import os\ndef write(args): return str(os.write(1, b'x' * 100)).encode()\n")
    command = [*ORC_TRIO, "executor", "--no-native", "--wrappers", "writer:write"]
    reading, writing = os.pipe()
    try:
        async with open_executor_process(
            command, orc_trio.HandlerRegistry(), cwd=functions, stdout=writing
        ) as controller:
            write = controller.bootstrap.symbols["write"]
            assert await controller.call_wrapper(write, b"") == b"100"
            os.close(reading)
            reading = -1
            with pytest.raises(OrcError):
                await controller.call_wrapper(write, b"")
            end = await controller.wait_disconnected()
    finally:
        os.close(writing)
        if reading >= 0:
            os.close(reading)
    assert end.exit_status == -signal.SIGPIPE


@pytest.mark.native
async def test_native_code_that_never_ends(functions: Path) -> None:
    """Native code that never returns does not keep an executor from being ended by its controller."""
    from orc_trio.native import Target, compile_ir, load_object

    endless = (
        'declare i64 @write(i32, ptr, i64)\n@on = constant [1 x i8] c"."\n'
        "define i32 @main() {\n %n = call i64 @write(i32 1, ptr @on, i64 1)\n br label %a\na:\n br label %a\n}\n"
    )
    start = time.monotonic()
    async with open_executor_process(
        [*ORC_TRIO, "executor"], orc_trio.HandlerRegistry(), grace=0.2, stdout=subprocess.PIPE
    ) as controller:
        compiled = await compile_ir(endless, Target.of(controller.bootstrap), optimize=0)
        program = await load_object(controller, compiled)
        assert controller.process.stdout is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.run_main)
            assert await controller.process.stdout.receive_some(1) == b"."
            nursery.cancel_scope.cancel()
        end = await controller.disconnect()
        await controller.process.stdout.aclose()
    assert end.exit_status == -signal.SIGTERM
    assert time.monotonic() - start < PATIENCE
