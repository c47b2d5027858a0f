# orc_trio.llvm: LLVM's protocol below ours. Both roles are ours here; the real LLVM is in test_llvm_executor.

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import orc_trio
from orc_trio import Certainty, DisconnectKind, DisconnectReason, LocalProtocolError, RemoteProtocolError
from orc_trio.llvm import Dialect, SimpleRemoteTransport, call_sps
from orc_trio.llvm.translation import Translation
from orc_trio.protocol import Role, Setup
from orc_trio.protocol.setup import decode_setup, encode_setup
from orc_trio.wire import Message, Opcode, ResultKind, dumps, sps
from orc_trio.wire.simple_remote import ExecutorInfo, Frame, FrameReader, Op, encode_frame

both_dialects = pytest.mark.parametrize("dialect", list(Dialect))


# --- sans-IO ---


def setup_of(**more: Any) -> Setup:
    return Setup.of(Role.EXECUTOR, orc_trio.Limits(), triple="x86_64-pc-linux-gnu", page_size=4096, **more)


def test_an_executors_setup() -> None:
    """LLVM's setup becomes ours, and ours LLVM's; that there are no values (LLVM 16 and older) is the same as none."""
    executor, controller = Translation(Role.EXECUTOR, Dialect.MAIN), Translation(Role.CONTROLLER, Dialect.MAIN)
    setup = setup_of(values={"v": b"1"}, symbols={"s": 5})
    ((frame,), back) = executor.outgoing([Message(Opcode.SETUP, payload=encode_setup(setup))])
    assert not back
    assert ExecutorInfo.unpack(frame.payload).symbols == {"s": 5}
    read = decode_setup(controller.incoming(frame).payload, expect=Role.EXECUTOR)
    assert (read.triple, read.page_size, read.values, read.symbols) == (
        setup.triple,
        setup.page_size,
        setup.values,
        setup.symbols,
    )
    old = ExecutorInfo(triple="t", page_size=1, values=None, symbols={"s": 6})
    read = decode_setup(controller.incoming(Frame(Op.SETUP, payload=old.pack())).payload, expect=Role.EXECUTOR)
    assert (read.values, read.symbols) == ({}, {"s": 6})


def test_a_controller_sends_no_setup() -> None:
    """A controller's setup would crash LLVM's end: it is not sent, and the one LLVM does not send is made up."""
    controller = Translation(Role.CONTROLLER, Dialect.MAIN)
    setup = Setup.of(Role.CONTROLLER, orc_trio.Limits())
    assert controller.outgoing([Message(Opcode.SETUP, payload=encode_setup(setup))]) == ([], [])
    assert controller.at_start() == []
    executor = Translation(Role.EXECUTOR, Dialect.MAIN)
    (message,) = executor.at_start()
    assert decode_setup(message.payload, expect=Role.CONTROLLER).identity == "LLVM"
    with pytest.raises(RemoteProtocolError, match="a setup frame came to an executor"):
        executor.incoming(Frame(Op.SETUP))


def test_a_name_that_is_none() -> None:
    """G25: What cannot be a name here is refused."""
    payload = sps.BYTES.pack(b"\xff") + sps.U64.pack(1) + sps.U64.pack(0) + sps.U64.pack(0)
    with pytest.raises(RemoteProtocolError, match="no UTF-8"):
        Translation(Role.CONTROLLER, Dialect.MAIN).incoming(Frame(Op.SETUP, payload=payload))


def test_numbers_of_calls() -> None:
    """LLVM counts from 0 and may be out of order: here numbers grow, and each result goes to the number it had."""
    translation = Translation(Role.EXECUTOR, Dialect.MAIN)
    calls = [translation.incoming(Frame(Op.CALL, seq, 7, b"x")) for seq in (1, 0, 2**64 - 1)]
    assert [(call.opcode, call.seq, call.tag, call.payload) for call in calls] == [
        (Opcode.CALL, number, 7, b"x") for number in (1, 2, 3)
    ]
    frames, _ = translation.outgoing([Message(Opcode.RESULT, number, payload=b"r") for number in (2, 3, 1)])
    assert frames == [Frame(Op.RESULT, seq, 0, b"r") for seq in (0, 2**64 - 1, 1)]


@both_dialects
def test_results(dialect: Dialect) -> None:
    """An answer is an answer; an error is an empty one up to LLVM 23, and its text after that."""
    translation = Translation(Role.EXECUTOR, dialect)
    for number in range(4):
        translation.incoming(Frame(Op.CALL, number))
    error = dumps({"type": "Type", "message": "text"})
    frames, _ = translation.outgoing(
        [
            Message(Opcode.RESULT, 1, aux=ResultKind.VALUE, payload=b"value"),
            Message(Opcode.RESULT, 2, aux=ResultKind.ERROR, payload=error),
            Message(Opcode.RESULT, 3, aux=ResultKind.REFUSED, payload=error),
            Message(Opcode.RESULT, 4, aux=ResultKind.CANCELLED),
        ]
    )
    assert frames[0] == Frame(Op.RESULT, 0, 0, b"value")
    found = [(frame.tag, frame.payload) for frame in frames[1:]]
    if dialect is not Dialect.MAIN:
        assert found == [(0, b"")] * 3
    else:
        assert found == [(1, sps.STRING.pack(text)) for text in ("Type: text", "text", "cancelled")]


def test_results_of_llvms() -> None:
    """An out-of-band error is an error; one that cannot be read says so; any other tag is a violation."""
    main, old = Translation(Role.CONTROLLER, Dialect.MAIN), Translation(Role.CONTROLLER, Dialect.UP_TO_23)
    for translation in (main, old):
        assert translation.incoming(Frame(Op.RESULT, 5, 0, b"x")) == Message(Opcode.RESULT, 5, 0, 0, b"x")
        with pytest.raises(RemoteProtocolError, match="a result has the tag 2"):
            translation.incoming(Frame(Op.RESULT, 5, 2))
    with pytest.raises(RemoteProtocolError, match="a result has the tag 1"):
        old.incoming(Frame(Op.RESULT, 5, 1, sps.STRING.pack("no")))
    message = main.incoming(Frame(Op.RESULT, 5, 1, sps.BYTES.pack(b"n\xf6")))
    assert message.aux == ResultKind.ERROR
    assert message.payload == dumps({"type": "OutOfBandError", "message": "n\N{REPLACEMENT CHARACTER}"})
    assert b"cannot be read" in main.incoming(Frame(Op.RESULT, 5, 1, b"?")).payload


def test_what_has_no_place_there() -> None:
    """A cancel is not sent, a ping is answered here, a nested call is a call; a part is nobody's to send."""
    translation = Translation(Role.CONTROLLER, Dialect.MAIN)
    assert translation.outgoing([Message(Opcode.CANCEL, 1), Message(Opcode.PING, aux=9)]) == (
        [],
        [Message(Opcode.PONG, aux=9)],
    )
    assert translation.outgoing([Message(Opcode.NESTED_CALL, 3, 4, 5, b"x")]) == ([Frame(Op.CALL, 3, 4, b"x")], [])
    with pytest.raises(LocalProtocolError):
        translation.outgoing([Message(Opcode.PART, 1)])


# --- both of our ends, LLVM's protocol between them ---


@attrs.frozen
class Both:
    controller: orc_trio.Controller
    session: orc_trio.Session

    async def call(self, name: str, args: bytes = b"") -> bytes | memoryview:
        return await self.controller.call_wrapper(self.controller.bootstrap.symbols[name], args)


@asynccontextmanager
async def both_ends(
    dialect: Dialect = Dialect.MAIN, *, limits: orc_trio.Limits | None = None, **wrappers: Callable[[bytes], Any]
) -> AsyncIterator[Both]:
    one, other = trio.testing.memory_stream_pair()
    registry = orc_trio.HandlerRegistry()
    registry.handler("upper", optional=True)(lambda args: args.upper())

    with trio.fail_after(60):
        async with orc_trio.open_session() as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            bootstrap.add_tag("upper")
            for name, function in wrappers.items():
                bootstrap.add_wrapper(name, function)
            transport = SimpleRemoteTransport(other, Role.EXECUTOR, dialect=dialect)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.attach, orc_trio.StreamControllerAccess(transport, limits=limits), bootstrap)
                here = SimpleRemoteTransport(one, Role.CONTROLLER, dialect=dialect)
                async with orc_trio.open_controller(here, registry, limits=limits) as controller:
                    yield Both(controller, session)


async def echo(args: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return args


@both_dialects
async def test_a_conversation(dialect: Dialect) -> None:
    """Calls of all sizes both ways, many at once, nested ones among them; and an orderly end with one cause."""

    async def nested(args: bytes) -> bytes:
        return await both.session.call_controller(tag, args)  # type: ignore[return-value]

    async with both_ends(dialect, echo=echo, nested=nested) as both:
        tag = both.controller.bootstrap.symbols["upper"]
        for size in (0, 1, 16 * 1024, 70_000, 1_000_000):
            assert await both.call("echo", b"x" * size) == b"x" * size
        async with trio.open_nursery() as nursery:
            for number in range(100):

                @nursery.start_soon
                async def call(number: int = number) -> None:
                    assert await both.call("nested", b"a%d" % number) == b"A%d" % number

        assert await both.controller.disconnect() == DisconnectReason(DisconnectKind.LOCAL_HANGUP)
        assert await both.session.wait_detached() == DisconnectReason(DisconnectKind.REMOTE_HANGUP)


@both_dialects
async def test_errors(dialect: Dialect) -> None:
    """G9, G10: LLVM main has errors with a text; before, a result that is none is an empty one."""

    def fail(_args: bytes) -> bytes:
        raise orc_trio.WrapperFunctionError("Mine", "it went wrong")

    async with both_ends(dialect, fail=fail) as both:
        if dialect is not Dialect.MAIN:
            assert await both.call("fail") == b""
        else:
            with pytest.raises(orc_trio.WrapperFunctionError, match="Mine: it went wrong") as caught:
                await both.call("fail")
            assert caught.value.remote_type == "OutOfBandError"


async def test_a_caller_leaves() -> None:
    """G5: It is released at once; the function runs on, its late result is dropped, its place is free again."""
    started, release = trio.Event(), trio.Event()

    async def wait(args: bytes) -> bytes:
        started.set()
        await release.wait()
        return args

    async with both_ends(wait=wait, echo=echo) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.call, "wait")
            await started.wait()
            nursery.cancel_scope.cancel()
        assert both.session.statistics().running_wrappers == ("wait",)
        assert both.controller.statistics().abandoned_calls == 1
        release.set()
        assert await both.call("echo", b"x") == b"x"
        while both.controller.statistics().abandoned_calls:
            await trio.lowlevel.checkpoint()


async def test_a_soft_stop() -> None:
    """G12: What is in flight finishes first, though LLVM's protocol has no pings."""
    release = trio.Event()

    async def wait(args: bytes) -> bytes:
        await release.wait()
        return args

    async with both_ends(wait=wait) as both, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def call() -> None:
            assert await both.call("wait", b"x") == b"x"

        await trio.testing.wait_all_tasks_blocked()
        both.controller.begin_disconnect(finish_within=30)
        await trio.testing.wait_all_tasks_blocked()
        assert both.controller.statistics().pending_calls == 1
        release.set()
        assert await both.controller.wait_disconnected() == DisconnectReason(DisconnectKind.LOCAL_HANGUP)


async def test_nothing_is_known_not_to_have_started() -> None:
    """G4: LLVM's hang-up has no watermark: a call that was sent may have run."""

    async def detach(_args: bytes) -> bytes:
        both.session.begin_detach()
        await trio.sleep_forever()
        raise AssertionError

    async with both_ends(detach=detach) as both:
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            await both.call("detach")
        assert caught.value.certainty is Certainty.UNKNOWN
        assert caught.value.reason == DisconnectReason(DisconnectKind.REMOTE_HANGUP)


async def test_sps_calls() -> None:
    """Arguments and results are packed and unpacked by the signature; what does not fit is told from what failed."""
    signature = sps.Signature(sps.Expected(sps.STRING), sps.STRING, sps.U8)

    def repeat(args: bytes) -> bytes:
        text, count = signature.arguments.unpack(args)
        return signature.result.pack(text * count if count else sps.Failure("not at all"))

    async with both_ends(repeat=repeat, echo=echo) as both:
        symbols = both.controller.bootstrap.symbols
        assert await call_sps(both.controller, signature, symbols["repeat"], "ab", 3) == "ababab"
        assert await call_sps(both.controller, signature, symbols["repeat"], "ab", 0) == sps.Failure("not at all")
        with pytest.raises(ValueError, match="out of range"):
            await call_sps(both.controller, signature, symbols["repeat"], "ab", 256)
        with pytest.raises(RemoteProtocolError):
            await call_sps(both.controller, signature, symbols["echo"], "ab", 3)


# --- a peer that speaks by hand ---

SETUP = encode_frame(
    Frame(Op.SETUP, payload=ExecutorInfo(triple="t", page_size=4096, values=None, symbols={"f": 1}).pack())
)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (encode_frame(Frame(Op.RESULT, 99)), "a result for call 99, which is not pending"),
        (SETUP, "a second setup message"),
        (encode_frame(Frame(Op.HANG_UP, payload=b"\2")), "a bool is 2"),
        (b"\1" + bytes(31), "smaller than its own head"),
        (encode_frame(Frame(Op.CALL))[:8] + b"\7" + bytes(23), "unknown opcode 7"),
    ],
)
async def test_what_must_not_come(data: bytes, says: str) -> None:
    """G25: Every malformed input is a reason, told to the other end as far as LLVM's protocol can."""
    one, other = trio.testing.memory_stream_pair()
    await other.send_all(SETUP)
    reader = FrameReader(2**20)
    async with orc_trio.open_controller(
        SimpleRemoteTransport(one, Role.CONTROLLER), orc_trio.HandlerRegistry()
    ) as controller:
        await other.send_all(data)
        await other.send_eof()
        end = await controller.wait_disconnected()
        assert end.kind is DisconnectKind.PROTOCOL_VIOLATION
        assert says in end.detail
        frames = reader.feed(await other.receive_some())
    assert [frame.opcode for frame in frames] == [Op.HANG_UP]
    failure = sps.ERROR.unpack(frames[0].payload)
    assert failure is not None
    assert says in failure.message


async def test_its_hang_up_with_a_reason() -> None:
    """G11: LLVM's reason is told, and an end without a word is none."""
    for error, kind in ((None, DisconnectKind.REMOTE_HANGUP), (sps.Failure("gone mad"), DisconnectKind.REMOTE_ERROR)):
        one, other = trio.testing.memory_stream_pair()
        await other.send_all(SETUP + encode_frame(Frame(Op.HANG_UP, payload=sps.ERROR.pack(error))))
        await other.send_eof()
        transport = SimpleRemoteTransport(one, Role.CONTROLLER)
        async with orc_trio.open_controller(transport, orc_trio.HandlerRegistry()) as controller:
            end = await controller.wait_disconnected()
            assert end.kind is kind
            assert ("gone mad" in end.detail) is (error is not None)


async def test_cancelled_receives_lose_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """G3: A receive that is cancelled goes on the next time, wherever in a frame it was."""
    one, other = trio.testing.memory_stream_pair()
    transport = SimpleRemoteTransport(one, Role.CONTROLLER)
    data = SETUP + encode_frame(Frame(Op.CALL, 0, 5, bytes(100_000)))
    found: list[Message] = []
    for at in range(0, len(data), 7001):
        await other.send_all(data[at : at + 7001])
        with trio.move_on_after(1):
            while True:
                found += await transport.receive()
    assert [message.opcode for message in found] == [Opcode.SETUP, Opcode.CALL]
    assert transport.at_boundary
    await transport.aclose()
