# Our executor as LLVM's controllers see it, and our controller at the other end: every version's names and signatures.

from __future__ import annotations

import math
import mmap
import platform
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from orc_trio.llvm import Protection, RemoteExecutor, Segment, SimpleRemoteTransport, call_sps, install_llvm, names
from orc_trio.llvm.memory import Memory, MemoryRequestError
from orc_trio.protocol import Role
from orc_trio.wire import sps
from orc_trio.wire.simple_remote import Frame, FrameReader, Op, encode_frame
from test_llvm_executor import ARGC, FORTY_TWO, TAG, linked

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="its machine code is for x86-64")
every_version = pytest.mark.parametrize("version", list(names.VERSIONS))
PAGE = mmap.PAGESIZE
CODE = Protection.READ | Protection.EXECUTE
DATA = Protection.READ | Protection.WRITE


@asynccontextmanager
async def our_executor(version: int, registry: orc_trio.HandlerRegistry | None = None) -> AsyncIterator[RemoteExecutor]:
    one, other = trio.testing.memory_stream_pair()
    with trio.fail_after(60):
        async with orc_trio.open_session(threads=math.inf) as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            install_llvm(session, bootstrap, version)
            access = orc_trio.StreamControllerAccess(SimpleRemoteTransport(other, Role.EXECUTOR))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.attach, access, bootstrap)
                here = SimpleRemoteTransport(one, Role.CONTROLLER)
                async with orc_trio.open_controller(here, registry or orc_trio.HandlerRegistry()) as controller:
                    yield RemoteExecutor(controller)


def mapped(address: int) -> bool:
    """Whether there is memory."""
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    return any(int(start, 16) <= address < int(stop, 16) for start, stop in ranges)


@every_version
async def test_what_every_version_does(version: int) -> None:
    """Libraries, symbols, memory and mains, as that version's controllers ask for them; at the end nothing is left."""
    async with our_executor(version) as it:
        library = await it.open_library()
        assert (await it.lookup(library, ["malloc"]))["malloc"]
        assert not any((await it.lookup(library, ["no_such_symbol"], required=False)).values())
        with pytest.raises(orc_trio.WrapperFunctionError, match="missing definitions for no_such_symbol"):
            await it.lookup(library, ["malloc", "no_such_symbol"])
        with pytest.raises(orc_trio.WrapperFunctionError, match="cannot open"):
            await it.open_library("/no/such/library.so")
        with pytest.raises(orc_trio.WrapperFunctionError, match="no library has the handle 0x5"):
            await it.lookup(5, ["malloc"])
        at = await it.reserve(3 * PAGE)
        data = Segment(at + PAGE, 2 * PAGE, b"data", DATA)
        key = await it.finalize([Segment(at, PAGE, ARGC.ljust(16) + FORTY_TWO, CODE), data])
        assert await it.run_as_main(at, ["one", "two"]) == 2
        await it.write(data.address, b"other")
        if version > 14:
            assert await it.run_as_int_function(at, -5) == -5
            assert await it.run_as_void_function(at + 16) == 42
        await it.release([key])
        assert not mapped(at)
        left = await it.reserve(PAGE)
        assert mapped(left)
    assert not mapped(left)


@every_version
async def test_numbers_in_memory(version: int) -> None:
    """Numbers of every size are written, and from LLVM 22 on read."""
    async with our_executor(version) as it:
        symbols = it.controller.bootstrap.symbols
        at = await it.reserve(PAGE)
        await it.finalize([Segment(at, PAGE, b"", DATA)])
        for number, (name, codec) in enumerate(names.NUMBERS.items(), 1):
            write = symbols.get(f"__llvm_orc_bootstrap_mem_write_{name}_wrapper")
            assert (write is None) is (name == "pointers" and version < 22)
            if write is not None:
                pairs = sps.Signature(sps.Tuple(), sps.Sequence(sps.Tuple(sps.ADDRESS, codec)))
                await call_sps(it.controller, pairs, write, [(at, number), (at + 8, 100 + number)])
            read = symbols.get(f"__llvm_orc_bootstrap_mem_read_{name}_wrapper")
            assert (read is None) is (version < 22)
            if read is not None:
                reading = sps.Signature(sps.Sequence(codec), sps.Sequence(sps.ADDRESS))
                assert await call_sps(it.controller, reading, read, [at + 8, at]) == [100 + number, number]
        if version >= 22:
            await it.write(at, b"text\0")
            name = "__llvm_orc_bootstrap_mem_read_strings_wrapper"
            assert await call_sps(it.controller, names.READ_STRINGS, symbols[name], [at, at + 1]) == ["text", "ext"]
            name = "__llvm_orc_bootstrap_mem_read_buffers_wrapper"
            assert await call_sps(it.controller, names.READ_BUFFERS, symbols[name], [(at, at + 2)]) == [b"te"]


async def test_code_that_calls_back(tmp_path: Path) -> None:
    """G7: Code that LLVM sent calls the controller, many times at once; an error there is an empty answer here."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    registry = orc_trio.HandlerRegistry()

    async def answer(args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        if args == b"fail":
            raise orc_trio.WrapperFunctionError("Mine", "no")
        return bytes(int(args) % 2 * 100) + bytes([int(args)])

    registry.register(TAG, answer, name="answer")
    async with our_executor(22, registry) as it:
        at = await linked(it, tmp_path)

        async def run(number: int) -> None:
            assert await it.run_as_main(at, ["program", str(number)]) == number

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(run, number)
        assert await it.run_as_main(at, ["program", "fail"]) == -1


async def test_code_that_calls_back_and_is_called_for_that(tmp_path: Path) -> None:
    """G7: LLVM's protocol does not say that a call is nested: those that wait do not keep it from being served."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    registry = orc_trio.HandlerRegistry()
    places: list[int] = []
    waiting = trio.Event()
    number = 0

    async def answer(_args: bytes) -> bytes:
        nonlocal number
        number += 1
        if number == 100:
            waiting.set()
        await waiting.wait()
        return bytes([await it.run_as_int_function(places[0], 42)])

    registry.register(TAG, answer, name="answer")
    async with our_executor(22, registry) as it:
        places.append(await it.reserve(PAGE))
        await it.finalize([Segment(places[0], PAGE, ARGC, CODE)])
        at = await linked(it, tmp_path)

        async def run() -> None:
            assert await it.run_as_main(at, ["program", "x"]) == 42

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(run)


@every_version
async def test_requests_that_are_wrong(version: int) -> None:
    """G25: What cannot be done is refused with a reason, and the executor lives."""
    async with our_executor(version) as it:
        at = await it.reserve(2 * PAGE)
        for segments, says in (
            ([], "nothing is to be filled"),
            ([Segment(at, PAGE, b"", CODE | DATA)], "to be written to and executed"),
            ([Segment(at, 1, b"xy", DATA)], "2 bytes in 1"),
            ([Segment(at + 1, PAGE, b"", DATA)], "does not begin with a page"),
            ([Segment(at, 3 * PAGE, b"", DATA)], "outside of what was reserved"),
            ([Segment(0, PAGE, b"", DATA)], "outside of what was reserved"),
        ):
            with pytest.raises(orc_trio.WrapperFunctionError, match=says):
                await it.finalize(segments or [])
        for size in (0, 2**60):
            with pytest.raises(orc_trio.WrapperFunctionError, match="cannot be reserved"):
                await it.reserve(size)
        with pytest.raises(orc_trio.WrapperFunctionError, match="at 0x1000"):
            await it.release([0x1000])
        await it.finalize([Segment(at, PAGE, b"", DATA)])
        with pytest.raises(orc_trio.WrapperFunctionError, match="was filled before"):
            await it.finalize([Segment(at, PAGE, b"", DATA)])
        assert (await it.lookup(await it.open_library(), ["free"]))["free"]


async def test_actions() -> None:
    """Actions are done when memory is filled and, in reverse, when it is given back; one that fails undoes it all."""
    async with our_executor(22) as it:
        symbols = it.controller.bootstrap.symbols
        register = symbols["llvm_orc_registerJITLoaderGDBAllocAction"]
        at = await it.reserve(2 * PAGE)
        instance = symbols[f"{names.MEMORY}_Instance"]
        initialize = symbols[f"{names.MEMORY}_initialize_wrapper"]
        span = sps.Tuple(sps.ADDRESS, sps.ADDRESS).pack((at, at + PAGE))
        # A wrapper function of C: gives back an SPS error that is none, one byte.
        good = bytes.fromhex("31c0 ba01000000 c3")  # xor eax, eax; mov edx, 1; ret
        parts: Any = [(int(CODE), at, PAGE, good)]
        actions: Any = [((register, span), (0, b"")), ((at, b"args"), (at, b""))]
        key = await call_sps(it.controller, names.INITIALIZE, initialize, instance, (parts, actions))
        assert key == at
        for name in ("deinitialize", "release"):
            wrapper = symbols[f"{names.MEMORY}_{name}_wrapper"]
            assert await call_sps(it.controller, names.RELEASE, wrapper, instance, [at]) is None
        at = await it.reserve(PAGE)
        # SPS for an error with an empty text: 1, then eight zeros: nine bytes, from malloc.
        failing = bytes.fromhex("4883ec08 bf09000000 48b8") + (
            (await it.lookup(await it.open_library(), ["malloc"]))["malloc"].to_bytes(8, "little")
            + bytes.fromhex("ffd0 c60001 48c7400100000000 ba09000000 4883c408 c3")
        )
        parts = [(int(CODE), at, PAGE, failing)]
        answer = await call_sps(it.controller, names.INITIALIZE, initialize, instance, (parts, [((at, b""), (0, b""))]))
        assert answer == sps.Failure("")
        # It was undone: the same place can be filled again.
        assert await it.finalize([Segment(at, PAGE, ARGC, CODE)]) == at


@pytest.mark.parametrize("version", [14, 16, 19])
@pytest.mark.parametrize("in_order", [True, False])
async def test_frames_and_their_memory(version: int, in_order: bool) -> None:
    """G13: LLVM 19 gives memory back without waiting for its frames to be deregistered: either may come first."""
    async with our_executor(version) as it:
        wanted = ["llvm_orc_registerEHFrameSectionWrapper", "llvm_orc_deregisterEHFrameSectionWrapper"]
        found = await it.lookup(await it.open_library(), wanted)
        at = await it.reserve(PAGE)
        key = await it.finalize([Segment(at, PAGE, b"", DATA)])
        span = (at, at + PAGE)
        assert await call_sps(it.controller, names.FRAMES, found[wanted[0]], *span) is None
        if in_order:
            assert await call_sps(it.controller, names.FRAMES, found[wanted[1]], *span) is None
        await it.release([key])
        assert await call_sps(it.controller, names.FRAMES, found[wanted[1]], *span) is None
        assert not mapped(at)
        late = await call_sps(it.controller, names.FRAMES, found[wanted[0]], *span)
        assert late == sps.Failure(f"there is no memory for frames at {at:#x}")


def test_memory_is_given_back_whatever_fails() -> None:
    """G19: An action that fails is told, and keeps nothing from being given back."""
    memory = Memory()
    first, second = memory.reserve(PAGE), memory.reserve(1)
    order: list[int] = []

    def fail() -> None:
        order.append(1)
        raise MemoryRequestError("no")

    memory.fill([Segment(first, PAGE, b"x", DATA)]).undo += [lambda: order.append(0), fail]
    memory.fill([Segment(second, PAGE, b"x", DATA)]).undo += [fail]
    with pytest.raises(MemoryRequestError, match="no; no"):
        memory.close()
    assert sorted(order) == [0, 1, 1]
    assert len(memory) == 0
    assert not mapped(first)
    assert not mapped(second)


async def test_a_version_that_is_too_old() -> None:
    """The first that is known is LLVM 14; what is newer than the newest is like it."""
    async with orc_trio.open_session() as session:
        bootstrap = orc_trio.BootstrapInfo.for_session(session)
        with pytest.raises(ValueError, match="LLVM 13 is too old: 14"):
            install_llvm(session, bootstrap, 13)
        install_llvm(session, bootstrap, 99)
        assert f"{names.MEMORY}_initialize_wrapper" in bootstrap.symbols


@pytest.mark.parametrize("how", ["vanishes", "sends garbage"])
async def test_nothing_stays_of_a_controller_that(how: str) -> None:
    """G13, G19: Whatever it had reserved and filled is given back, however the connection ended."""
    one, other = trio.testing.memory_stream_pair()
    with trio.fail_after(60):
        async with orc_trio.open_session(threads=math.inf) as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            install_llvm(session, bootstrap)
            access = orc_trio.StreamControllerAccess(SimpleRemoteTransport(other, Role.EXECUTOR))
            await session.attach(access, bootstrap)
            symbols = bootstrap.symbols
            reserve = symbols[f"{names.MEMORY}_reserve_wrapper"]
            args = names.RESERVE.arguments.pack((symbols[f"{names.MEMORY}_Instance"], PAGE))
            await one.send_all(encode_frame(Frame(Op.CALL, 1, reserve, args)))
            reader = FrameReader(2**20)
            frames: list[Frame] = []
            while len(frames) < 2:
                frames += reader.feed(await one.receive_some())
            at = names.RESERVE.result.unpack(bytes(frames[1].payload))
            assert mapped(at)
            if how == "sends garbage":
                await one.send_all(encode_frame(Frame(9)))
            await one.aclose()
            assert not (await session.wait_detached()).orderly
    assert not mapped(at)
