"""Native code in a real executor process: programs, calls both ways, and every way to die."""

from __future__ import annotations

import functools
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

import orc_trio
from native_fakes import CASES, EXAMPLES, compiled, until
from orc_trio.native import (
    LinkError,
    NativeCodeError,
    NativeProgram,
    Target,
    compile_ir,
    compile_program,
    load_object,
    names,
)

pytestmark = pytest.mark.native

PROGRAM = Path(__file__).with_name("native_process.py")


@attrs.define(eq=False)
class Executor:
    controller: orc_trio.Controller
    process: trio.Process
    log: list[bytes] = attrs.field(factory=list)
    input: list[bytes] = attrs.field(factory=list)
    output: bytes = b""
    ask: int = 0

    async def statistics(self) -> str:
        return bytes(await self.controller.call_wrapper(self.controller.bootstrap.symbols["statistics"], b"")).decode()

    async def ends_with(self, status: int) -> bytes:
        """Wait for the process; return what it wrote."""
        assert await self.process.wait() == status
        await until(lambda: self.output.endswith(b"<end>"))
        return self.output.removesuffix(b"<end>")

    async def _collect(self) -> None:
        assert self.process.stdout is not None
        async with self.process.stdout as stdout:
            async for chunk in stdout:
                self.output += chunk
        self.output += b"<end>"


@asynccontextmanager
async def executor(threads: int = 64) -> AsyncIterator[Executor]:
    """Start an executor process and hold its other end."""
    registry = orc_trio.HandlerRegistry()
    ours, theirs = socket.socketpair()
    command = [sys.executable, str(PROGRAM), str(theirs.fileno()), str(threads)]
    async with trio.open_nursery() as nursery:
        start = functools.partial(trio.run_process, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, check=False)
        process = await nursery.start(start, command)
        theirs.close()
        made: list[Executor] = []

        @registry.handler("input")
        async def _input(_args: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            return made[0].input.pop(0) if made[0].input else b""

        @registry.handler("log")
        async def _log(args: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            made[0].log.append(args)
            return b""

        @registry.handler("upper")
        async def _upper(args: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            if args.startswith(b"again "):
                return bytes(await made[0].controller.call_wrapper(made[0].ask, args[6:]))
            return args.upper()

        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        async with orc_trio.open_controller(stream, registry) as controller:
            made.append(Executor(controller, process))
            nursery.start_soon(made[0]._collect)
            yield made[0]
        with trio.move_on_after(5) as scope:
            await process.wait()
        assert not scope.cancelled_caught, "the executor did not end"


async def test_bootstrap_describes_the_machine() -> None:
    """An executor says for which triple, CPU and features code is to be compiled."""
    async with executor() as running:
        assert Target.of(running.controller.bootstrap) == Target.host()
        assert running.controller.bootstrap.values["llvm"].split(b".")[0].isdigit()


@pytest.mark.parametrize("name", ["mandelbrot.ll", "exit3.ll"])
async def test_same_as_lli(name: str) -> None:
    """A program gives the same output and status as with LLVM's own interpreter."""
    lli = next(filter(None, (shutil.which(f"lli{version}") for version in ("-19", "-16", "-15", "-14", ""))), None)
    if lli is None:
        pytest.skip("needs lli")
    opaque = ["-opaque-pointers"] if lli.endswith("-14") else []
    expected = await trio.run_process([lli, *opaque, EXAMPLES / name, "50"], capture_stdout=True, check=False)
    async with executor() as running:
        data = await compile_program(EXAMPLES / name, Target.of(running.controller.bootstrap))
        program = await load_object(running.controller, data, name=name)
        status = -1
        try:
            status = await program.run_main([name, "50"])
            await program.unload()
            await running.controller.disconnect()
            assert await running.ends_with(0) == expected.stdout
        except orc_trio.DisconnectedError:
            status = await running.process.wait()
            assert await running.ends_with(status) == expected.stdout
    assert status == expected.returncode


async def test_same_as_a_compiled_binary(tmp_path: Path) -> None:
    """A C program gives the same output and status as when it is compiled and run."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    await trio.run_process([compiler, "-O2", "-o", tmp_path / "nbody", EXAMPLES / "nbody.c", "-lm"])
    for arguments in (["1000"], ["-1"], []):
        expected = await trio.run_process([tmp_path / "nbody", *arguments], capture_stdout=True, check=False)
        async with executor() as running:
            program = await load_object(running.controller, await compiled(EXAMPLES / "nbody.c"))
            assert await program.run_main(["nbody", *arguments]) == expected.returncode
            await running.controller.disconnect()
            assert await running.ends_with(0) == expected.stdout


async def test_main_calls_back() -> None:
    """A program asks its controller for input until there is none, and sends it log lines."""
    async with executor() as running:
        running.input = [b"one", b"three little words"]
        program = await load_object(running.controller, await compiled(EXAMPLES / "callback.c"), name="callback")
        assert await program.run_main() == 2
        assert running.log == [b"line 1 has 3 bytes: one", b"line 2 has 18 bytes: three little words"]
        running.input = []
        assert await program.run_main() == 0


async def test_wrapper_functions_of_the_example() -> None:
    """Native wrapper functions answer with bytes or errors, and pass calls on."""
    async with executor() as running:
        program = await load_object(running.controller, await compiled(EXAMPLES / "callback.c"))
        assert await program.call("greet", b"world") == b"hello, world"
        with pytest.raises(orc_trio.WrapperFunctionError, match="greet: who"):
            await program.call("greet")
        running.input = [b"from the controller, and long"]
        assert await program.call("relay") == b"from the controller, and long"


async def test_addresses_are_ordinary_wrapper_addresses() -> None:
    """A native function's address works with plain call_wrapper; a wrong one is an error and the executor lives."""
    async with executor() as running:
        program = await load_object(running.controller, await compiled(CASES), tags={"upper": 1})
        assert await running.controller.call_wrapper(await program.lookup("echo"), b"plain") == b"plain"
        for address in (0, 4096, 2**47, 2**63 + 8):
            with pytest.raises(orc_trio.UnknownHandlerTagError):
                await running.controller.call_wrapper(address, b"")
        assert await program.call("echo", b"alive") == b"alive"


async def test_errors_of_loading() -> None:
    """What cannot be loaded or found is a LinkError with the executor's words; the executor lives."""
    async with executor() as running:
        target = Target.of(running.controller.bootstrap)
        with pytest.raises(LinkError, match="not an ELF object"):
            await load_object(running.controller, b"rubbish")
        source = "declare i32 @nowhere()\ndefine i32 @f() {\n%x = call i32 @nowhere()\nret i32 %x\n}"
        data = await compile_ir(source, target)
        with pytest.raises(LinkError, match="not defined anywhere: nowhere"):
            await load_object(running.controller, data)
        with pytest.raises(LinkError, match=r"libnowhere\.so"):
            await load_object(running.controller, b"", dylibs=["libnowhere.so"])
        program = await load_object(running.controller, await compile_ir("define void @f() { ret void }", target))
        with pytest.raises(LinkError, match="no symbol 'main'"):
            await program.run_main()
        await program.unload()
        for attempt in (program.unload, program.run_main, lambda: program.lookup("f")):
            with pytest.raises(LinkError, match="there is no program"):
                await attempt()


async def test_bad_arguments() -> None:
    """G25: arguments are read strictly; what is not as documented is an error of that call."""
    bad = [
        ("load_object", b""),
        ("load_object", b"\x80"),
        ("load_object", b"\xa0"),
        ("load_object", b"\xa1\x01\x02"),
        ("lookup", b"\xa1gprogram\x01"),
        ("lookup", b"\xa2gprogram\x20fsymbolam"),
        ("unload", b"\xa2gprogram\x01ax\x00"),
        ("run_main", b"\xa2gprogram\x01dargv\x81A\x00"),
        ("run_main", b"\xa2gprogram\x01dargv\x81aa"),
        ("unload", b"\xc0\xa0"),
        ("unload", names.dumps({"program": -1})),
        ("load_object", names.dumps({"name": "x", "objects": [b""], "tags": {"x": "y"}, "dylibs": []})),
        ("load_object", names.dumps({"name": "x", "objects": [b""], "tags": {"x": -1}, "dylibs": []})),
        ("load_object", names.dumps({"name": "x", "objects": b"", "tags": {}, "dylibs": []})),
    ]
    async with executor() as running:
        data = await compile_ir("define i32 @main() { ret i32 0 }", Target.of(running.controller.bootstrap))
        program = await load_object(running.controller, data)
        for symbol, payload in bad:
            address = running.controller.bootstrap.symbols[f"orc_trio.native.{symbol}"]
            with pytest.raises(orc_trio.WrapperFunctionError) as caught:
                await running.controller.call_wrapper(address, payload)
            assert caught.value.remote_type == "BadArguments"
        assert await program.run_main() == 0


async def test_an_executor_without_native_code() -> None:
    """A controller says so if its executor does not run native code."""

    class Bare:
        bootstrap = orc_trio.BootstrapInfo(triple="x", page_size=4096)

        async def call_wrapper(self, address: int, args: bytes) -> bytes:
            raise NotImplementedError

    with pytest.raises(NativeCodeError, match="does not run native code"):
        await load_object(Bare(), b"")


FATAL = """
#include <orc_trio.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static int *nothing;
static void done(void) { puts("atexit"); }
void *in_thread(void *x) { *(volatile int *)nothing = 1; return x; }
int main(int argc, char **argv) {
    pthread_t thread;
    atexit(done);
    printf("started ");
    switch (argc > 1 ? argv[1][0] : 0) {
    case 's': fflush(stdout); *(volatile int *)nothing = 1; break;
    case 't': fflush(stdout); pthread_create(&thread, NULL, in_thread, NULL); pthread_join(thread, NULL); break;
    case 'a': fflush(stdout); abort();
    case 'k': fflush(stdout); raise(SIGKILL); break;
    case 'e': exit(argv[1][1] - '0');
    case '_': _exit(7);
    case 'l': fflush(stdout); for (;;) { __asm__ volatile (""); }
    }
    return 0;
}
"""


@pytest.mark.parametrize(
    ("how", "status", "prints"),
    [
        ("segv", -signal.SIGSEGV, b"started "),
        ("thread", -signal.SIGSEGV, b"started "),
        ("abort", -signal.SIGABRT, b"started "),
        ("kill", -signal.SIGKILL, b"started "),
        ("e0", 0, b"started atexit\n"),
        ("e3", 3, b"started atexit\n"),
        ("_exit", 7, b""),  # flushed by nobody: what arrives depends on how stdout is buffered
    ],
)
async def test_a_fault_costs_the_executor_only(tmp_path: Path, how: str, status: int, prints: bytes) -> None:
    """A crash, an abort or an exit of native code ends the executor; its controller gets a typed error and lives."""
    (tmp_path / "fatal.c").write_text(FATAL)
    data = await compile_program(tmp_path / "fatal.c", Target.host())
    async with executor() as running:
        program = await load_object(running.controller, data)
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await program.run_main(["fatal", how])
        assert caught.value.certainty is orc_trio.Certainty.UNKNOWN
        assert caught.value.reason.kind is orc_trio.DisconnectKind.EOF_WITHOUT_HANGUP
        assert (await running.ends_with(status)).startswith(prints)


async def test_exit_from_a_wrapper_function() -> None:
    """G17: exit in a wrapper function ends the executor with that status, the pending call fails."""
    async with executor() as running:
        source = """
            declare void @exit(i32) noreturn
            define void @leave(ptr %session, i64 %word, i64 %size, ptr %ret, i64 %id) {
              call void @exit(i32 3) noreturn
              unreachable
            }"""
        data = await compile_ir(source, Target.of(running.controller.bootstrap))
        program = await load_object(running.controller, data)
        with pytest.raises(orc_trio.DisconnectedError):
            await program.call("leave")
        await running.ends_with(3)


async def test_an_endless_loop_holds_up_nothing_else(tmp_path: Path) -> None:
    """G13: an endless loop is named in the statistics, other calls go on, and the disconnect does not wait for it."""
    (tmp_path / "fatal.c").write_text(FATAL)
    data = await compile_program(tmp_path / "fatal.c", Target.host())
    async with executor() as running, trio.open_nursery() as nursery:
        program = await load_object(running.controller, data, name="looping")
        other = await load_object(running.controller, await compiled(CASES), tags={"upper": 1})

        async def run() -> None:
            with pytest.raises(orc_trio.DisconnectedError):
                await program.run_main(["fatal", "loop"])

        nursery.start_soon(run)
        await until(lambda: running.output == b"started ")
        assert "main of 'looping'" in await running.statistics()
        assert await other.call("echo", b"still there") == b"still there"
        assert (await running.controller.disconnect()).kind is orc_trio.DisconnectKind.LOCAL_HANGUP
        running.process.kill()  # it waits for its keepalive, as it must; ending it is its launcher's business


async def test_cancelled_native_call_does_not_stop_the_shutdown() -> None:
    """G22: after a cancelled call the shutdown still waits for the code that runs on, and no longer."""
    async with executor() as running:
        program = await load_object(running.controller, await compiled(CASES), name="cases", tags={"upper": 1})
        gate = await program.lookup("open_gate")
        stay = await program.lookup("stay")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.controller.call_wrapper, stay, b"")
            while "running=('cases:stay" not in await running.statistics():
                pass
            nursery.cancel_scope.cancel()
        assert "running=('cases:stay" in await running.statistics()
        await running.controller.call_wrapper(gate, b"")
    assert running.process.returncode == 0


async def accepted(program: NativeProgram) -> bool:
    try:
        return await program.call("echo", b"x") == b"x"
    except LinkError as exc:
        assert "being unloaded" in str(exc)
        return False


async def until_false(condition: Callable[[], Awaitable[bool]]) -> None:
    while await condition():
        pass


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        pass


async def test_unloading_waits_for_calls() -> None:
    """A program is unloaded when the code that runs in it has ended and it owes no answer, not before."""
    async with executor() as running:
        program = await load_object(running.controller, await compiled(CASES), name="cases", tags={"upper": 1})
        await program.lookup("open_gate")
        assert await program.call("answer_and_stay", b"x") == b"x"
        gate = await program.lookup("open_gate")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.unload)
            await until_false(lambda: accepted(program))
            nursery.cancel_scope.cancel()
        # Given up, so it is loaded as before; the executor hears of that before it hears of what we ask next.
        await until_true(lambda: accepted(program))
        await running.controller.call_wrapper(gate, b"")
        await program.unload()


async def test_a_program_that_owes_an_answer_stays_loaded() -> None:
    """G22: what a program promised and never gave does not hold up the end; its memory is left alone."""
    async with executor() as running:
        program = await load_object(running.controller, await compiled(CASES), name="cases")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.call, "keep")
            while "unanswered=('cases:keep" not in await running.statistics():
                pass
            nursery.cancel_scope.cancel()
        while "running=()" not in await running.statistics():
            pass
    assert running.process.returncode == 0


async def test_loaded_programs_keep_apart() -> None:
    """Two programs with the same names live side by side; each has its own state."""
    async with executor() as running:
        data = await compiled(CASES)
        first = await load_object(running.controller, data, tags={"upper": 1})
        second = await load_object(running.controller, data, tags={"upper": 1})
        assert await first.lookup("echo") != await second.lookup("echo")
        await first.unload()
        assert await second.call("echo", b"me") == b"me"


async def test_recursion_is_deeper_than_there_are_threads() -> None:
    """G7: native code and handlers that call each other come to an end at any thread limit."""
    async with executor(threads=1) as running:
        program = await load_object(running.controller, await compiled(CASES))
        running.ask = await program.lookup("ask")
        assert await program.call("ask", b"again " * 20 + b"done") == b"DONE"


async def test_many_calls_at_once() -> None:
    """Hundreds of native calls that call back at once are all answered, whatever the number of threads."""
    async with executor(threads=4) as running:
        program = await load_object(running.controller, await compiled(CASES))
        answers: list[bytes] = []

        async def one(number: int) -> None:
            symbol = ("ask", "pass_on", "own_thread", "echo")[number % 4]
            answers.append((await program.call(symbol, b"call number %d" % number)).lower())

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(one, number)
        assert sorted(answers) == sorted(b"call number %d" % number for number in range(300))
