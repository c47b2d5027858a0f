"""Native code at run time, on a session that is a fake: calls, answers, threads, and what comes late."""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
from collections.abc import AsyncIterator, Iterator

import outcome
import pytest
import trio
import trio.testing

from native_fakes import CASES, FakeController, FakeSession, compiled, until
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import (
    CallRefusedError,
    DisconnectedError,
    NoControllerError,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.native import LinkError, NativeProgram, NativeSupport, abi, calls, install_native, load_object
from orc_trio.native.executor import is_executable
from orc_trio.nesting import Serving, enter, started
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason

pytestmark = pytest.mark.native

UPPER = (1 << 63) + 1600


class Rig:
    """A fake session with native code installed, and the cases loaded."""

    session: FakeSession
    support: NativeSupport
    controller: FakeController
    program: NativeProgram

    @classmethod
    async def make(cls, *, threads: int = 8) -> Rig:
        rig = cls()
        rig.session = FakeSession(handlers={UPPER: bytes.upper})
        bootstrap = BootstrapInfo.for_session(rig.session)
        rig.support = install_native(rig.session, bootstrap, threads=threads)
        rig.controller = FakeController(rig.session, bootstrap)
        rig.program = await load_object(rig.controller, await compiled(CASES), name="cases", tags={"upper": UPPER})
        return rig

    async def idle(self) -> None:
        """Wait until no native code is running."""
        await until(lambda: not self.support.statistics().running and not self.session.held)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = await Rig.make()
    yield made
    await made.idle()


@pytest.mark.parametrize("data", [b"", b"x", b"12345678", b"123456789", b"\0" * 100, bytes(2_000_000)])
async def test_bytes_in_bytes_out(rig: Rig, data: bytes) -> None:
    """A native wrapper function gets the bytes of the call and answers with bytes."""
    assert await rig.program.call("echo", data) == data


async def test_out_of_band_error(rig: Rig) -> None:
    """G10: an error that native code reports arrives as an error with its text."""
    with pytest.raises(WrapperFunctionError, match="it did not work") as caught:
        await rig.program.call("fail", b"some arguments")
    assert caught.value.remote_type == "NativeError"


@pytest.mark.parametrize(("symbol", "says"), [("null_bytes", "null pointer"), ("huge", "1152921504606846976 bytes")])
async def test_broken_buffer(rig: Rig, symbol: str, says: str) -> None:
    """A buffer no code could mean is an error of that call."""
    with pytest.raises(WrapperFunctionError, match=says):
        await rig.program.call(symbol)


async def test_second_answer_is_dropped(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """G1: the first answer counts; a second one is dropped and logged."""
    assert await rig.program.call("twice") == b"first"
    await rig.idle()
    assert "answered before" in caplog.text


async def test_answer_after_the_function_returned(rig: Rig) -> None:
    """A wrapper function may return first and answer later, from another call's thread."""
    answers: list[bytes] = []
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            answers.append(await rig.program.call("keep"))

        nursery.start_soon(call)
        # It has returned: it owes an answer, and that holds nothing up.
        await until(lambda: rig.support.statistics().unanswered != () and rig.session.held == [])
        assert await rig.program.call("settle", b"at last") == b"done"
    assert answers == [b"at last"]


async def test_answer_before_the_function_returned(rig: Rig) -> None:
    """A call is answered when the answer is given; the code that stays on its thread is named and holds a keepalive."""
    assert await rig.program.call("answer_and_stay", b"early") == b"early"
    assert "cases:answer_and_stay" in " ".join(rig.support.statistics().running)
    assert "cases:answer_and_stay" in " ".join(rig.session.held)
    await rig.program.call("open_gate")


async def test_cancelled_call_runs_on(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """G13: native code is not cancelled: its caller is released, it stays in the statistics, its answer is dropped."""
    caplog.set_level(logging.DEBUG, "orc_trio.native")
    await rig.program.lookup("open_gate")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.program.call, "stay", b"too late")
        await until(lambda: "cases:stay" in " ".join(rig.support.statistics().running))
        nursery.cancel_scope.cancel()
    assert "cases:stay" in " ".join(rig.support.statistics().running)
    assert "cases:stay" in " ".join(rig.session.held)
    await rig.program.call("open_gate")
    await rig.idle()
    assert "dropped the late answer" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []  # G19


async def test_call_given_up_while_waiting_for_a_thread_never_runs() -> None:
    """A call cancelled before it had a thread leaves nothing: no keepalive, no token, no run."""
    rig = await Rig.make(threads=1)
    for symbol in ("stay", "echo", "open_gate"):
        await rig.program.lookup(symbol)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.program.call, "stay")
        await until(lambda: rig.support.statistics().running != ())
        async with trio.open_nursery() as inner:
            inner.start_soon(rig.program.call, "echo")
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        assert len(rig.session.held) == 1
        # The gate is opened by a call that needs no token, because it is made here as a nested one would be.
        address = await rig.program.lookup("open_gate")
        await rig.support.runtime.call(address, b"", nested=True)
    assert await rig.program.call("echo", b"after") == b"after"
    await rig.idle()


async def test_code_that_waits_for_a_thread_has_not_begun() -> None:
    """G13: it begins when it has one; until then the end does not wait for it, and lets it not begin."""
    rig = await Rig.make(threads=1)
    for symbol in ("stay", "echo", "open_gate"):
        await rig.program.lookup(symbol)
    mark = Serving(by=rig)

    async def serve() -> None:
        enter(mark)
        started()  # as whoever calls a wrapper function says
        await rig.program.call("echo", b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.program.call, "stay")
        await until(lambda: rig.support.statistics().running != ())
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        assert not mark.started
        address = await rig.program.lookup("open_gate")
        await rig.support.runtime.call(address, b"", nested=True)
    assert mark.started
    await rig.idle()


@pytest.mark.parametrize("symbol", ["ask", "pass_on", "own_thread"])
@pytest.mark.parametrize("data", [b"", b"short", b"longer than eight bytes"])
async def test_native_code_calls_the_controller(rig: Rig, symbol: str, data: bytes) -> None:
    """Native code calls a handler: waiting for it, without waiting, and from a thread it made itself."""
    assert await rig.program.call(symbol, data) == data.upper()


@pytest.mark.parametrize("symbol", ["ask", "pass_on", "own_thread"])
async def test_errors_of_handlers_arrive_in_native_code(rig: Rig, symbol: str) -> None:
    """A handler's error is an out-of-band error in native code, which here passes it on."""

    def fails(_args: bytes) -> bytes:
        raise WrapperFunctionError("NoPaper", "the tray is empty")

    rig.session.handlers[UPPER] = fails
    with pytest.raises(WrapperFunctionError, match="NoPaper: the tray is empty"):
        await rig.program.call(symbol, b"some arguments")


@pytest.mark.parametrize("symbol", ["ask", "pass_on", "own_thread"])
async def test_no_exception_reaches_native_code(rig: Rig, symbol: str) -> None:
    """An exception of any type, from below a callback, is an out-of-band error in native code."""

    def fails(_args: bytes) -> bytes:
        raise ZeroDivisionError

    rig.session.handlers[UPPER] = fails
    with pytest.raises(WrapperFunctionError, match="ZeroDivisionError"):
        await rig.program.call(symbol, b"some arguments")


async def test_unknown_tag(rig: Rig) -> None:
    """G9: a name nobody registered has no tag, and calling it is an error, with and without a place for the answer."""
    with pytest.raises(WrapperFunctionError, match="UnknownHandlerTagError: nothing is registered"):
        await rig.program.call("ask_nobody", b"x")


async def test_tags_and_session_by_symbol(rig: Rig) -> None:
    """A tag can be had as a symbol's address, the session by a function; constructors have run."""
    assert await rig.program.call("same") == b"yes"


async def test_no_keepalive_no_call(rig: Rig) -> None:
    """G22: once shutdown is requested, no native call starts."""
    await rig.program.lookup("echo")
    rig.session.shutting_down = True
    with pytest.raises(CallRefusedError):
        await rig.program.call("echo")
    assert rig.support.statistics().running == rig.support.statistics().unanswered == ()


async def test_calls_to_the_controller_during_shutdown_are_answered(rig: Rig) -> None:
    """G22: code that is running when shutdown is requested is told so when it calls, and is not left waiting."""

    def refuse(_args: bytes) -> bytes:
        raise NoControllerError("the session is detached")

    rig.session.handlers[UPPER] = refuse
    results: list[str] = []
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(WrapperFunctionError) as caught:
                await rig.program.call("stay_and_pass_on", b"x")
            results.append(caught.value.message)

        await rig.program.lookup("stay_and_pass_on")
        gate = await rig.program.lookup("open_gate")
        nursery.start_soon(call)
        await until(lambda: rig.support.statistics().running != ())
        rig.session.shutting_down = True
        # What opens the gate is a thread of the test: no more calls are taken.
        answered: list[bytes] = []
        callback = abi.RETURN(lambda _session, buffer, _id: answered.append(abi.take(buffer)))
        abi.WRAPPER_FUNCTION(gate)(rig.support.runtime.session_pointer, abi.make(b"go"), abi.address_of(callback), 0)
    assert (answered, results) == ([b"go"], ["no controller attached"])


async def test_a_call_nobody_waits_for_keeps_its_program(rig: Rig) -> None:
    """A program stays loaded while the controller owes it an answer that it will run code for."""
    rig.session.hold = hold = trio.Event()
    assert await rig.program.call("note", b"some text") == b"noted"
    unloaded: list[bool] = []

    async def unload() -> None:
        await rig.program.unload()
        unloaded.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(unload)
        await trio.testing.wait_all_tasks_blocked()
        assert unloaded == []
        for attempt in (rig.program.run_main, functools.partial(rig.program.call, "echo")):
            with pytest.raises(LinkError, match="being unloaded"):
                await attempt()
        hold.set()
    assert unloaded == [True]


async def test_code_without_a_symbol(rig: Rig) -> None:
    """The controller may call any code there is, by its address."""
    address = int.from_bytes(await rig.program.call("where"), "little")
    assert await rig.controller.call_wrapper(address, b"") == b"unlisted"


def test_where_memory_maps_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is known of memory, every address that may be native is taken for code."""

    def no_file(*_args: object, **_kwargs: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_file)
    assert [is_executable(address) for address in (0, 4096, 1 << 63)] == [False, True, False]


async def test_limiter_bounds_threads() -> None:
    """No more calls run at once than there are threads; the others wait for their turn and then run."""
    rig = await Rig.make(threads=2)
    done: list[str] = []

    async def call(symbol: str) -> None:
        await rig.program.call(symbol)
        done.append(symbol)

    for symbol in ("stay", "echo", "open_gate"):
        await rig.program.lookup(symbol)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "stay")
        nursery.start_soon(call, "stay")
        await until(lambda: len(rig.support.statistics().running) == 2)
        nursery.start_soon(call, "echo")
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.support.statistics().running) == 2
        address = await rig.program.lookup("open_gate")
        await rig.support.runtime.call(address, b"", nested=True)  # G7: a nested call takes no token
        await rig.support.runtime.call(address, b"", nested=True)
    assert sorted(done) == ["echo", "stay", "stay"]
    assert rig.support.statistics().threads == 2
    await rig.idle()


async def test_an_address_without_code(rig: Rig) -> None:
    """An address that is no code's is unknown, not a crash; one of any code is called."""
    buffer = ctypes.create_string_buffer(16)
    for address in (0, 1, ctypes.addressof(buffer), (1 << 63) + 8, 2**64 - 1):
        with pytest.raises(UnknownHandlerTagError):
            await rig.controller.call_wrapper(address, b"")


class Answers:
    """A `ret` of the test's own, for calls that are made from outside the session."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.event = threading.Event()
        self._callback = abi.RETURN(self._ret)

    def _ret(self, _session: int | None, buffer: abi.Buffer, _call_id: int) -> None:
        with pytest.raises(WrapperFunctionError) as caught:
            abi.take(buffer)
        self.errors.append(caught.value.message)
        self.event.set()

    def call(self, rig: Rig, address: int) -> None:
        pointer = rig.support.runtime.session_pointer
        abi.WRAPPER_FUNCTION(address)(pointer, abi.make(b"some bytes"), abi.address_of(self._callback), 1)


def test_calls_after_the_run_are_answered() -> None:
    """G19: native code that calls the controller after the run, or after the session, is told so."""
    kept: list[tuple[Rig, int, int]] = []

    async def main() -> None:
        rig = await Rig.make()
        kept.append((rig, await rig.program.lookup("ask"), await rig.program.lookup("pass_on")))
        await rig.idle()

    trio.run(main)
    ((rig, ask, pass_on),) = kept
    answers = Answers()
    answers.call(rig, ask)
    answers.call(rig, pass_on)
    rig.support.runtime.close()
    answers.call(rig, ask)
    answers.call(rig, pass_on)
    assert "RunFinished" in answers.errors[0]
    assert "RunFinished" in answers.errors[1]
    assert answers.errors[2:] == ["no controller attached"] * 2


def test_calls_that_the_end_of_the_run_overtakes_are_answered() -> None:
    """G1: native code that waits for the controller when the run ends is answered, once."""
    answers = Answers()

    async def main() -> None:
        rig = await Rig.make()
        rig.session.hold = trio.Event()
        await trio.to_thread.run_sync(answers.call, rig, await rig.program.lookup("pass_on"))
        await until(lambda: rig.support.statistics().running != ())

    trio.run(main)
    assert answers.event.wait(10)
    assert answers.errors == ["the executor is ending"]


async def test_what_native_code_is_told_of_a_disconnect(rig: Rig) -> None:
    """G11: a call that the end of the connection failed is an error in native code that says why."""
    reason = DisconnectReason(DisconnectKind.EOF_WITHOUT_HANGUP)

    def fails(_args: bytes) -> bytes:
        raise DisconnectedError(reason, Certainty.UNKNOWN)

    rig.session.handlers[UPPER] = fails
    with pytest.raises(WrapperFunctionError, match=r"^NativeError: disconnected: .*hang-up"):
        await rig.program.call("ask")


async def test_answers_given_up_are_not_remembered_for_ever() -> None:
    """G8: what is kept of calls that were given up is bounded."""
    token = trio.lowlevel.current_trio_token()
    usage = calls.Usage()
    ids = [calls.register("a call", token, usage)[0] for _ in range(calls.MAX_GIVEN_UP + 10)]
    for call_id in ids:
        calls.give_up(call_id)
        calls.give_up(call_id)
    for call_id in ids[-calls.MAX_GIVEN_UP :]:
        calls.settle(call_id, outcome.Value(b"late"))
    assert usage.count == 10  # those forgotten may still be running: their program stays


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Undone, threads can be started again: until `setattr`, nothing is different."""
    with monkeypatch.context() as patched:
        yield patched


def cannot_start(*_args: object, **_kwargs: object) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_call_whose_thread_cannot_be_started(rig: Rig, no_threads: pytest.MonkeyPatch) -> None:
    """G13, G22: A call whose thread cannot be started fails, and leaves no keepalive, no token and no use behind."""
    runtime = rig.support.runtime
    usage = calls.Usage()
    echo = await rig.program.lookup("echo")
    await rig.idle()
    no_threads.setattr(trio.lowlevel, "start_thread_soon", cannot_start)
    for nested in (False, True):
        for _ in range(3):
            with pytest.raises(RuntimeError, match="new thread"):
                await runtime.call(echo, b"x", nested=nested, usage=usage)
            with pytest.raises(RuntimeError, match="new thread"):
                await runtime.run("work", bytes, nested=nested, usage=usage)
    no_threads.undo()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.session.held == []
    assert usage.count == 0
    assert runtime.limiter.borrowed_tokens == 0
    assert rig.support.statistics().running == ()
    assert rig.support.statistics().unanswered == ()
    assert await runtime.call(echo, b"x", usage=usage) == b"x"
    await rig.idle()
    await until(lambda: usage.count == 0)


async def test_a_program_whose_thread_could_not_be_started_is_unloaded(
    rig: Rig, no_threads: pytest.MonkeyPatch
) -> None:
    """G22: After a call whose thread could not be started, nothing holds up the unloading of its program."""
    await rig.program.lookup("echo")
    no_threads.setattr(trio.lowlevel, "start_thread_soon", cannot_start)
    with pytest.raises(RuntimeError, match="new thread"):
        await rig.program.call("echo", b"x")
    no_threads.undo()
    assert await rig.program.call("echo", b"x") == b"x"
    with trio.fail_after(30):
        await rig.program.unload()


async def test_an_answer_whose_thread_cannot_be_started(
    rig: Rig, no_threads: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """G22: An answer whose thread cannot be started is logged, and holds up neither the session nor the program."""
    rig.session.hold = trio.Event()
    answers = Answers()
    await trio.to_thread.run_sync(answers.call, rig, await rig.program.lookup("pass_on"))
    await until(lambda: rig.support.statistics().running != () and rig.session.held != [])
    no_threads.setattr(trio.lowlevel, "start_thread_soon", cannot_start)
    rig.session.hold.set()
    with trio.fail_after(30):
        await rig.idle()
    no_threads.undo()
    assert "the answer to native code" in caplog.text
    assert not answers.event.is_set()
    rig.session.hold = None
    assert await rig.program.call("ask", b"still there") == b"STILL THERE"


async def test_nested_native_calls_are_bounded(rig: Rig, no_threads: pytest.MonkeyPatch) -> None:
    """G8: With so many native calls running, those given up included, one more nested call fails at once."""
    runtime = rig.support.runtime
    release = threading.Semaphore(0)
    no_threads.setattr("orc_trio.native.runtime.MAX_SPANS", 2)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(functools.partial(runtime.run, "work", release.acquire, nested=True))
            await until(lambda: len(rig.support.statistics().running) == 2)
            nursery.cancel_scope.cancel()
        with pytest.raises(WrapperFunctionError, match="2 native calls are running"):
            await runtime.run("work", bytes, nested=True)
        assert len(rig.session.held) == 2
        assert await runtime.run("work", bytes) == b""
    finally:
        release.release(2)
    await rig.idle()
    assert await runtime.run("work", bytes, nested=True) == b""
