# Our controller, LLVM's own executor: of every version that is installed. Debian: apt-get install llvm-14.

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

import orc_trio
from orc_trio import DisconnectKind, DisconnectReason
from orc_trio.llvm import Protection, RemoteExecutor, Segment, SimpleRemoteTransport
from orc_trio.protocol import Role

VERSIONS = ["14", "16", "19", "22"]
PAGE = 4096
TAG = 0x7A6
ARGC = bytes.fromhex("89f8c3")  # mov eax, edi; ret
FORTY_TWO = bytes.fromhex("b82a000000c3")  # mov eax, 42; ret
CRASH = bytes.fromhex("0f0b")  # ud2


@pytest.fixture(params=VERSIONS)
def program(request: pytest.FixtureRequest) -> str:
    found = shutil.which(f"llvm-jitlink-executor-{request.param}")
    if found is None:
        pytest.skip(f"llvm-jitlink-executor-{request.param} is not installed")
    return found


needs_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="its machine code is for x86-64")


@attrs.frozen
class Started:
    process: trio.Process
    controller: orc_trio.Controller
    executor: RemoteExecutor


@asynccontextmanager
async def started(program: str, registry: orc_trio.HandlerRegistry | None = None) -> AsyncIterator[Started]:
    """LLVM's executor at the other end of two pipes; it has to exit by itself."""
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    ours = trio.StapledStream(trio.lowlevel.FdStream(our_output), trio.lowlevel.FdStream(our_input))
    try:
        process = await trio.lowlevel.open_process(
            [program, f"filedescs={their_input},{their_output}"], pass_fds=(their_input, their_output)
        )
    finally:
        os.close(their_input)
        os.close(their_output)
    with trio.fail_after(60):
        transport = SimpleRemoteTransport(ours, Role.CONTROLLER)
        try:
            async with orc_trio.open_controller(transport, registry or orc_trio.HandlerRegistry()) as controller:
                yield Started(process, controller, RemoteExecutor(controller))
        finally:
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_libraries(program: str) -> None:
    """Libraries are opened and symbols found; what is not there is said so; the end is orderly, its status 0."""
    async with started(program) as it:
        assert it.controller.bootstrap.page_size >= PAGE
        library = await it.executor.open_library()
        found = await it.executor.lookup(library, ["malloc", "free"])
        assert len(set(found.values()) - {0}) == 2
        assert not any((await it.executor.lookup(library, ["no_such_symbol"], required=False)).values())
        with pytest.raises(orc_trio.WrapperFunctionError, match="no_such_symbol"):
            await it.executor.lookup(library, ["malloc", "no_such_symbol"])
        with pytest.raises(orc_trio.WrapperFunctionError, match="cannot open"):
            await it.executor.open_library("/no/such/library.so")
        assert await it.controller.disconnect() == DisconnectReason(DisconnectKind.LOCAL_HANGUP)
    assert it.process.returncode == 0


@asynccontextmanager
async def listening(program: str) -> AsyncIterator[tuple[trio.Process, trio.SocketStream]]:
    """LLVM's executor at a port that nobody else had, and a connection to it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = await trio.lowlevel.open_process([program, f"listen=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    await trio.sleep(0.01)
                else:
                    yield process, stream
                    return
        finally:
            with trio.CancelScope(shield=True):
                if process.poll() is None:
                    process.kill()
                await process.wait()


async def test_over_tcp(program: str) -> None:
    """It can listen, too. LLVM sends a head and its payload apart; its peer has to acknowledge at once, or waits."""
    with trio.fail_after(60):
        async with listening(program) as (process, stream):
            transport = SimpleRemoteTransport(stream, Role.CONTROLLER)
            async with orc_trio.open_controller(transport, orc_trio.HandlerRegistry()) as controller:
                executor = RemoteExecutor(controller)
                library = await executor.open_library()
                for _ in range(100):
                    assert (await executor.lookup(library, ["malloc"]))["malloc"]
            assert await process.wait() == 0


@needs_x86_64
async def test_memory_and_main(program: str) -> None:
    """Memory is reserved, filled, protected, run as a main, written to and given back."""
    async with started(program) as it:
        at = await it.executor.reserve(2 * PAGE)
        data = Segment(at + PAGE, PAGE, b"data", Protection.READ | Protection.WRITE)
        key = await it.executor.finalize([Segment(at, PAGE, ARGC, Protection.READ | Protection.EXECUTE), data])
        assert await it.executor.run_as_main(at, ["program", "one", "two"]) == 3
        await it.executor.write(data.address, b"other data")
        await it.executor.release([key])
    assert it.process.returncode == 0


@needs_x86_64
async def test_many_at_once(program: str) -> None:
    """Many calls are in flight, some of them large; results come in any order, each to its own caller."""
    async with started(program) as it:
        at = await it.executor.reserve(PAGE)
        await it.executor.finalize([Segment(at, PAGE, ARGC, Protection.READ | Protection.EXECUTE)])

        async def run(number: int) -> None:
            assert await it.executor.run_as_main(at, ["x" * (number % 7) * 10_000] * number) == number

        async with trio.open_nursery() as nursery:
            for number in range(1, 100):
                nursery.start_soon(run, number)


@needs_x86_64
async def test_code_that_crashes(program: str) -> None:
    """G11: Code that takes its executor with it: its caller and everybody else is told, and nothing is left."""
    async with started(program) as it:
        at = await it.executor.reserve(PAGE)
        await it.executor.finalize([Segment(at, PAGE, CRASH, Protection.READ | Protection.EXECUTE)])
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await it.executor.run_as_main(at, ["program"])
        assert caught.value.reason.kind is DisconnectKind.EOF_WITHOUT_HANGUP
        assert caught.value.certainty is orc_trio.Certainty.UNKNOWN
    assert it.process.returncode < 0


async def test_a_killed_executor(program: str) -> None:
    """G11, G17: It is gone without a word, and that is the reason."""
    async with started(program) as it:
        it.process.kill()
        end = await it.controller.wait_disconnected()
        assert end.kind is DisconnectKind.EOF_WITHOUT_HANGUP


@needs_x86_64
async def test_functions(program: str) -> None:
    """From LLVM 16 on plain functions can be run; what an executor does not offer is said by name."""
    async with started(program) as it:
        at = await it.executor.reserve(PAGE)
        code = Segment(at, PAGE, ARGC.ljust(16) + FORTY_TWO, Protection.READ | Protection.EXECUTE)
        await it.executor.finalize([code])
        if program.endswith("-14"):
            with pytest.raises(orc_trio.WrapperFunctionError, match="has no __llvm_orc_bootstrap_run_as_int_function"):
                await it.executor.run_as_int_function(at, -7)
            with pytest.raises(orc_trio.WrapperFunctionError, match="has no __llvm_orc_bootstrap_run_as_void_function"):
                await it.executor.run_as_void_function(at + 16)
        else:
            assert await it.executor.run_as_int_function(at, -7) == -7
            assert await it.executor.run_as_void_function(at + 16) == 42


async def linked(executor: RemoteExecutor, folder: Path) -> int:
    """`llvm_callback.c` in the executor; the address of its main."""
    symbols = executor.controller.bootstrap.symbols
    library = await executor.open_library()
    addresses = {
        "dispatch": symbols["__llvm_orc_SimpleRemoteEPC_dispatch_fn"],
        "context": symbols["__llvm_orc_SimpleRemoteEPC_dispatch_ctx"],
        "release": (await executor.lookup(library, ["free"]))["free"],
        "tag": TAG,
    }
    at = await executor.reserve(PAGE)
    options = ["-O1", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"]
    source = Path(__file__).with_name("llvm_callback.c")
    compiler = ["gcc", "-c", *options, "-mcmodel=large", str(source), "-o", str(folder / "it.o")]
    # Its main is first: it is the only function there.
    places = [f"--defsym={name}={address:#x}" for name, address in addresses.items()]
    linker = ["ld", f"-Ttext={at:#x}", "-e", "main", "--oformat=binary", *places]
    for command in (compiler, [*linker, str(folder / "it.o"), "-o", str(folder / "it")]):
        await trio.run_process(command)
    code = (folder / "it").read_bytes()
    await executor.finalize([Segment(at, PAGE, code, Protection.READ | Protection.EXECUTE)])
    return at


@needs_x86_64
async def test_code_that_calls_back(program: str, tmp_path: Path) -> None:
    """G7: Five hundred mains at once, each of which calls the controller back from inside the executor."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    registry = orc_trio.HandlerRegistry()
    served = 0

    async def answer(args: bytes) -> bytes:
        nonlocal served
        served += 1
        await trio.sleep(served % 7 / 1000)  # so that they come back in another order
        number = int(args)
        return bytes(number % 3 * 100) + bytes([number % 251])

    registry.register(TAG, answer, name="answer")
    async with started(program, registry) as it:
        at = await linked(it.executor, tmp_path)

        async def run(number: int) -> None:
            assert await it.executor.run_as_main(at, ["program", str(number)]) == number % 251

        async with trio.open_nursery() as nursery:
            for number in range(0, 1500, 3):
                nursery.start_soon(run, number)
        assert served == 500
        assert await it.executor.run_as_main(at, ["program", "1"]) == 1
    assert it.process.returncode == 0


@needs_x86_64
async def test_large_payloads(program: str) -> None:
    """Sixteen mebibytes are written in one call, and arrive."""
    size = 16 * 2**20
    async with started(program) as it:
        at = await it.executor.reserve(size + PAGE)
        # mov rax, at + size - 1; movzx eax, byte [rax]; ret
        code = b"\x48\xb8" + (at + PAGE + size - 1).to_bytes(8, "little") + bytes.fromhex("0fb600c3")
        data = Segment(at + PAGE, size, b"", Protection.READ | Protection.WRITE)
        await it.executor.finalize([Segment(at, PAGE, code, Protection.READ | Protection.EXECUTE), data])
        assert await it.executor.run_as_main(at, ["program"]) == 0
        await it.executor.write(data.address, b"\x2a" * size)
        assert await it.executor.run_as_main(at, ["program"]) == 0x2A
