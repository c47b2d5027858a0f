# G25 and G26: whatever a peer sends, in either role, on every transport; and what is too large.

from __future__ import annotations

import random
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import cbor2
import pytest
import trio
import trio.testing

import orc_trio
from harness import (
    SMALL,
    STREAMS,
    TAG,
    RawPeer,
    call_message,
    connected_ends,
    connected_pair,
    controller_and_raw,
    every_stream,
    every_transport,
    every_virtual,
    result_message,
    setup_message,
)
from orc_trio import DisconnectKind
from orc_trio.protocol import Role
from orc_trio.testing import PairKind
from orc_trio.wire import Message, Opcode, encode
from orc_trio.wire.messages import NO_DEADLINE, ResultKind

CONNECT_FAILED = DisconnectKind.CONNECT_FAILED
MIB = 1024 * 1024


@asynccontextmanager
async def attempt(
    role: Role,
    end: Any,
    limits: orc_trio.Limits | None = None,
    *,
    registry: orc_trio.HandlerRegistry | None = None,
) -> AsyncIterator[list[orc_trio.DisconnectReason]]:
    """An end of that role that tries to connect; how that failed is in the list, once the block is left."""
    reasons: list[orc_trio.DisconnectReason] = []
    limits = limits or orc_trio.Limits(drain_timeout=2)

    async def controller() -> None:
        with pytest.raises(orc_trio.DisconnectedError) as caught:
            async with orc_trio.open_controller(end, registry or orc_trio.HandlerRegistry(), limits=limits):
                raise AssertionError("it connected")
        reasons.append(caught.value.reason)

    async def executor() -> None:
        async with orc_trio.open_session() as session:
            with pytest.raises(orc_trio.DisconnectedError) as caught:
                await session.attach(
                    orc_trio.StreamControllerAccess(end, limits=limits), orc_trio.BootstrapInfo.for_session(session)
                )
        reasons.append(caught.value.reason)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(controller if role is Role.CONTROLLER else executor)
            yield reasons


both_roles = pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100f8010000f40303") + bytes(range(200)),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeros": bytes(200),
    "ones": b"\xff" * 200,
    "text": b"hello?\n" * 20,
    "cbor": cbor2.dumps([1, 2, 3]) * 50,
    "indefinite": b"\x5f" + bytes(100),
    "huge": b"\x5b" + b"\xff" * 8 + bytes(100),
    "tagged": cbor2.dumps(cbor2.CBORTag(2, b"x" * 100)),
    "four": cbor2.dumps(cbor2.dumps([0, 0, 0, 0])),
}


@both_roles
@every_stream
@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_instead_of_a_setup(role: Role, kind: str, what: str) -> None:
    """G25: Bytes of another protocol are a failure to connect with a clear reason, in either role."""
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with attempt(role, here) as reasons:
        await raw.send_bytes(GARBAGE[what])
        await raw.expect(Opcode.SETUP)
        bye = await raw.expect(Opcode.HANG_UP)
        await raw.close()
    (reason,) = reasons
    assert reason.kind is CONNECT_FAILED
    assert reason.cause is not None
    assert reason.cause.kind is DisconnectKind.PROTOCOL_VIOLATION
    assert cbor2.loads(bye.payload)["detail"].endswith(reason.cause.detail)
    assert reason.cause.detail.isprintable()


@both_roles
@every_transport
async def test_an_end_without_a_word(role: Role, kind: str) -> None:
    """G25: A peer that closes at once is a failure to connect, and says so."""
    here, there = await connected_pair(kind)
    async with attempt(role, here) as reasons:
        await RawPeer(there).close()
    assert reasons[0].kind is CONNECT_FAILED
    assert "before both ends had agreed" in str(reasons[0])


@both_roles
@every_virtual
async def test_setup_has_a_timeout(role: Role, kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G25: A peer that says nothing is given up after the setup timeout, and told."""
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    began = trio.current_time()
    async with attempt(role, here, orc_trio.Limits(setup_timeout=4)) as reasons:
        await raw.expect(Opcode.SETUP)
        assert b"no setup message within 4 s" in (await raw.expect(Opcode.HANG_UP)).payload
        await raw.close()
        assert trio.current_time() - began == pytest.approx(4)
    assert reasons[0].kind is CONNECT_FAILED
    assert "no setup message within 4 s" in str(reasons[0])


@both_roles
async def test_setup_that_trickles_has_a_timeout(role: Role, autojump_clock: trio.testing.MockClock) -> None:
    """G25: A setup that comes byte by byte is given up after the setup timeout all the same."""
    here, there = await connected_pair("memory")
    raw = RawPeer(there)

    async with attempt(role, here, orc_trio.Limits(setup_timeout=3, drain_timeout=1)) as reasons:
        with suppress(trio.BrokenResourceError):
            for byte in encode(setup_message(role.other)):
                await raw.send_bytes(bytes([byte]))
                await trio.sleep(0.5)
        await raw.close()
    assert "no setup message within 3 s" in str(reasons[0])


@every_transport
@both_roles
async def test_two_ends_of_the_same_role(role: Role, kind: str) -> None:
    """G25: Two controllers, or two executors, fail with a reason that both can read."""
    here, there = await connected_pair(kind)
    async with attempt(role, here) as one, attempt(role, there) as other:
        pass
    for reasons in (one, other):
        assert reasons[0].kind is CONNECT_FAILED
        assert f"the peer is '{role.value}'" in str(reasons[0])


def _changed(**fields: Any) -> Callable[[Role], Message]:
    def make(role: Role) -> Message:
        good = cbor2.loads(setup_message(role).payload)
        return Message(Opcode.SETUP, payload=cbor2.dumps(good | fields))

    return make


SMALL_LIMITS = {"max_calls": 1, "max_nested_calls": 0, "max_bytes": 1000, "max_message": 1000}
BAD_SETUPS: dict[str, tuple[Callable[[Role], Message], str]] = {
    "version": (_changed(version=2), "version 2"),
    "protocol": (_changed(protocol="grpc"), "does not speak the orc_trio protocol"),
    "role": (_changed(role="spectator"), "'spectator'"),
    "small": (_changed(limits=SMALL_LIMITS), "max_message must be at least 65536"),
    "no limits": (_changed(limits={}), "max_calls"),
    "no calls": (_changed(limits=SMALL_LIMITS | {"max_calls": 0}), "max_calls"),
    "no text": (_changed(role=5), "role must be str"),
    "no map": (lambda _: Message(Opcode.SETUP, payload=cbor2.dumps([1])), "does not speak"),
    "no cbor": (lambda _: Message(Opcode.SETUP, payload=b"\xff"), "setup"),
    "trailing": (lambda role: setup_message(role)._replace(payload=setup_message(role).payload + b"\x00"), "setup"),
    "call": (lambda _: call_message(1, 1), "CALL came before the setup"),
    "ping": (lambda _: Message(Opcode.PING), "PING came before the setup"),
    "unknown": (lambda _: Message(20), "unknown opcode 20"),
}


@both_roles
@every_virtual
@pytest.mark.parametrize("what", BAD_SETUPS)
async def test_a_setup_that_does_not_fit(role: Role, kind: str, what: str) -> None:
    """G25: A setup that does not fit ends the connection with a reason that both ends can read."""
    make, words = BAD_SETUPS[what]
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with attempt(role, here) as reasons:
        await raw.send(make(role.other))
        await raw.expect(Opcode.SETUP)
        bye = await raw.goodbye()
    assert reasons[0].kind is CONNECT_FAILED
    assert words in str(reasons[0])
    told = cbor2.loads(bye.payload)
    assert told["kind"] == "connect failed"
    assert words in told["detail"]


@both_roles
@every_transport
async def test_a_setup_over_one_mebibyte(role: Role, kind: str) -> None:
    """G25: A setup over 1 MiB is refused before it is read."""
    here, there = await connected_pair(kind)
    raw = RawPeer(there)
    async with attempt(role, here) as reasons:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.send, Message(Opcode.SETUP, payload=bytes(1024 * 1024 + 1)))
            await raw.expect(Opcode.SETUP)
            bye = await raw.expect(Opcode.HANG_UP)
        await raw.close()
    assert reasons[0].kind is CONNECT_FAILED
    assert "over the limit of 1048576 bytes" in cbor2.loads(bye.payload)["detail"]


async def test_a_missing_symbol_is_told_to_both_ends() -> None:
    """G25: An executor that lacks a handler's symbol is refused, and both ends can read why."""
    here, there = await connected_pair("unix")
    registry = orc_trio.HandlerRegistry()
    registry.handler("log")(lambda args: args)
    words = "lacks the symbols of these handlers: log"
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def executor() -> None:
            async with orc_trio.open_session() as session:
                # It may learn of it in its attach, or just after.
                with suppress(orc_trio.DisconnectedError):
                    await session.attach(
                        orc_trio.StreamControllerAccess(there), orc_trio.BootstrapInfo.for_session(session)
                    )
                assert words in str(await session.wait_detached())

        with pytest.raises(orc_trio.DisconnectedError, match=words) as caught:
            async with orc_trio.open_controller(here, registry):
                raise AssertionError
        assert caught.value.reason.kind is CONNECT_FAILED
    registry.register(1, bytes)  # not frozen any more


async def test_two_handlers_of_one_tag_are_told_without_their_inside() -> None:
    """G9, G25: A symbol whose tag is taken is refused; the executor reads its own symbol, and no repr of ours."""

    class Inside:
        def __call__(self, args: bytes) -> bytes:
            raise AssertionError

        def __repr__(self) -> str:
            return "<secret>"

    here, there = await connected_pair("memory")
    raw = RawPeer(there)
    registry = orc_trio.HandlerRegistry()
    registry.register(5, Inside())
    registry.handler("needed")(lambda args: args)
    async with attempt(Role.CONTROLLER, here, registry=registry) as reasons:
        await raw.settle(Role.EXECUTOR, symbols={"needed": 5})
        goodbye = await raw.goodbye()
        assert "the symbol 'needed' has the tag 0x5, as another handler has" in cbor2.loads(goodbye.payload)["detail"]
        assert b"secret" not in goodbye.payload
    assert reasons[0].kind is CONNECT_FAILED


@every_transport
async def test_the_executor_reads_why_it_was_refused(kind: str) -> None:
    """G25: An executor that a controller refused knows the controller's reason."""
    here, there = await connected_pair(kind)
    raw = RawPeer(here)
    async with attempt(Role.EXECUTOR, there) as reasons:
        await raw.send(Message(Opcode.HANG_UP, payload=cbor2.dumps({"kind": "connect failed", "detail": "go away"})))
        await raw.read_to_the_end()
    assert reasons[0].kind is CONNECT_FAILED
    assert "go away" in str(reasons[0])


# --- violations ---

BIG = bytes(64 * 1024 + 1)
VIOLATIONS: dict[str, tuple[list[Message], str]] = {
    "unknown opcode": ([Message(23)], "unknown opcode 23"),
    "second setup": ([setup_message(Role.EXECUTOR)], "a second setup"),
    "result of nothing": ([result_message(1)], "result for call 1, which is not pending"),
    "result of 0": ([result_message(0)], "not pending"),
    "cancel of nothing": ([Message(Opcode.CANCEL, 7)], "cancel for call 7"),
    "cancel of 0": ([Message(Opcode.CANCEL, 0)], "cancel for call 0"),
    "number again": ([call_message(5, TAG), call_message(5, TAG)], "call number 5 is not above"),
    "number below": ([call_message(5, TAG), call_message(4, TAG)], "call number 4 is not above"),
    "number 0": ([call_message(0, TAG)], "call number 0"),
    "too many calls": ([call_message(seq, TAG) for seq in range(1, 6)], "over the agreed limits"),
    "too many nested": ([call_message(seq, TAG, nested=True) for seq in range(1, 5)], "over the agreed limits"),
    "too large": ([call_message(1, TAG, BIG)], "over the limit"),
    "too large in parts": ([Message(Opcode.PART, 1, 0, 10**9, b"x")], "announces 1000000000 bytes"),
    "parts that do not add up": (
        [Message(Opcode.PART, 1, 0, 100, b"x"), call_message(1, TAG, b"y")],
        "2 bytes, 100 were announced",
    ),
    "part of a kind": ([Message(Opcode.PART, 1, 5, 100, b"x")], "unknown kind 5"),
    "part of a result of nothing": ([Message(Opcode.PART, 1, 1, 100, b"x")], "not pending"),
    "pong of nothing": ([Message(Opcode.PONG, aux=1)], "pong for ping 1"),
    "ping with a payload": ([Message(Opcode.PING, payload=b"x")], "PING has a payload"),
    "hang-up that is no CBOR": ([Message(Opcode.HANG_UP, payload=b"\x5f")], "hang-up"),
    "hang-up with a tag": ([Message(Opcode.HANG_UP, payload=cbor2.dumps(cbor2.CBORTag(1, 5)))], "hang-up"),
}


@every_transport
@pytest.mark.parametrize("what", VIOLATIONS)
async def test_violations(kind: str, what: str) -> None:
    """G25: What breaks a rule ends the connection, with a clear reason at both ends."""
    messages, words = VIOLATIONS[what]

    async def handler(_args: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    limits = orc_trio.Limits(max_calls=4, max_nested_calls=3, max_message=64 * 1024, max_bytes=64 * 1024)
    async with controller_and_raw(kind, handler=handler, limits=limits) as (controller, raw):
        await raw.send(*messages)
        bye = await raw.goodbye()
        reason = await controller.wait_disconnected()
        assert reason.kind is DisconnectKind.PROTOCOL_VIOLATION
        assert words in reason.detail
        told = cbor2.loads(bye.payload)
        assert told["kind"] == "protocol violation"
        assert told["detail"] == reason.detail


@every_transport
async def test_a_second_result(kind: str) -> None:
    """G25: A second result for a call is a violation; the first one counted."""
    async with controller_and_raw(kind) as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await controller.call_wrapper(1, b"") == b"first"

            message = await raw.expect(Opcode.CALL)
            await raw.send(result_message(message.seq, b"first"), result_message(message.seq, b"second"))
            await raw.goodbye()
        assert (await controller.wait_disconnected()).kind is DisconnectKind.PROTOCOL_VIOLATION


@every_stream
async def test_messages_before_garbage_count(kind: str) -> None:
    """G25: What was complete before the garbage is acted on; then the violation ends the connection."""
    async with controller_and_raw(kind) as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await controller.call_wrapper(1, b"") == b"fine"

            message = await raw.expect(Opcode.CALL)
            await raw.send_bytes(encode(result_message(message.seq, b"fine")) + b"garbage")
            bye = await raw.goodbye()
        assert b"not an orc_trio message" in bye.payload
        assert (await controller.wait_disconnected()).kind is DisconnectKind.PROTOCOL_VIOLATION


@pytest.mark.parametrize("seed", range(40))
async def test_random_bytes(seed: int) -> None:
    """G25: Random bytes, and messages with random changes, never hang or crash an end."""
    dice = random.Random(seed)
    good = b"".join(
        encode(message)
        for message in (
            call_message(1, TAG, b"abc"),
            Message(Opcode.PING, aux=1),
            Message(Opcode.CANCEL, 1),
            Message(Opcode.PART, 2, 0, 10, b"12345"),
            call_message(2, TAG, b"67890"),
        )
    )
    if seed % 2:
        data = dice.randbytes(dice.randrange(1, 500))
    else:
        changed = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        data = bytes(changed)
    limits = orc_trio.Limits(max_message=64 * 1024, max_bytes=64 * 1024, drain_timeout=2)
    with trio.fail_after(30):
        async with controller_and_raw("memory", handler=len, limits=limits) as (controller, raw):
            await raw.send_bytes(data)
            await raw.transport.send_eof()
            await raw.read_to_the_end()
            assert (await controller.wait_disconnected()).kind in (
                DisconnectKind.PROTOCOL_VIOLATION,
                DisconnectKind.EOF_WITHOUT_HANGUP,
                DisconnectKind.REMOTE_ERROR,
                DisconnectKind.REMOTE_HANGUP,
            )


@pytest.mark.parametrize("kind", STREAMS)
async def test_memory_is_bounded_whatever_comes(kind: str) -> None:
    """G8, G25: A flood of calls, and sizes that are only announced, take no more memory than agreed."""
    release = trio.Event()

    async def handler(_args: bytes) -> bytes:
        await release.wait()
        return b""

    limits = orc_trio.Limits(max_calls=16, max_nested_calls=0, max_message=256 * 1024, max_bytes=1024 * 1024)

    async def flood(number: int) -> None:
        async with controller_and_raw(kind, handler=handler, limits=limits) as (controller, raw):
            for seq in range(1, number):
                await raw.send(call_message(seq, TAG, bytes(128 * 1024)))
            await trio.testing.wait_all_tasks_blocked(0.01)
            peak.append(tracemalloc.get_traced_memory()[1])
            await raw.send(Message(Opcode.PART, 100, 0, 2**40, b"x"))
            assert "announces" in str(await _bye(controller, raw))

    async def _bye(controller: orc_trio.Controller, raw: RawPeer) -> orc_trio.DisconnectReason:
        await raw.goodbye()
        return await controller.wait_disconnected()

    peak: list[int] = []
    await flood(1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        await flood(8)
    finally:
        tracemalloc.stop()
    assert peak[-1] - before < 4 * 1024 * 1024


@pytest.mark.parametrize("kind", STREAMS)
async def test_no_memory_beyond_what_was_agreed(kind: PairKind) -> None:
    """G25: A message that this end alone would take, and the peer's own limit forbids, gets no buffer."""
    ours, theirs = orc_trio.Limits(max_message=64 * MIB, max_bytes=64 * MIB), SMALL
    async with controller_and_raw(kind, limits=ours, peer_limits=theirs) as (controller, raw):
        tracemalloc.start()
        try:
            frame = encode(Message(Opcode.CALL, 1, TAG, NO_DEADLINE, bytes(48 * MIB)))[:MIB]
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            with suppress(trio.BrokenResourceError):
                await raw.send_bytes(frame)
            await raw.goodbye()
            assert "over the limit of 65536 bytes" in str(await controller.wait_disconnected())
            assert tracemalloc.get_traced_memory()[1] - before < 8 * MIB
        finally:
            tracemalloc.stop()


# --- G26 ---


@every_transport
async def test_an_oversize_call_fails_by_itself(kind: str) -> None:
    """G26: An outgoing call over the agreed size fails before anything is sent; the connection lives."""
    small = orc_trio.Limits(max_message=64 * 1024, max_bytes=64 * 1024)

    async def echo(args: bytes) -> bytes:
        return args

    for limits, executor_limits in ((small, None), (None, small)):
        async with connected_ends(
            kind, wrappers={"echo": echo}, limits=limits, executor_limits=executor_limits or orc_trio.Limits()
        ) as both:
            with pytest.raises(orc_trio.MessageTooLargeError) as caught:
                await both.call("echo", bytes(64 * 1024 + 1))
            assert (caught.value.size, caught.value.limit) == (64 * 1024 + 1, 64 * 1024)
            assert both.controller.statistics().pending_calls == 0
            assert await both.call("echo", bytes(64 * 1024)) == bytes(64 * 1024)


@every_transport
async def test_an_oversize_result_is_an_error_of_its_call(kind: str) -> None:
    """G26: A result over the agreed size becomes an error result of that call; the connection lives."""
    limits = orc_trio.Limits(max_message=64 * 1024, max_bytes=64 * 1024)
    async with controller_and_raw(kind, handler=lambda args: bytes(int(args)), limits=limits) as (_, raw):
        await raw.send(call_message(1, TAG, b"65537"))
        result = await raw.expect(Opcode.RESULT)
        assert result.aux == ResultKind.ERROR
        assert cbor2.loads(result.payload)["type"] == "ResultTooLarge"
        await raw.send(call_message(2, TAG, b"65536"))
        assert (await raw.expect(Opcode.RESULT)).payload == bytes(65536)


@every_virtual
async def test_an_oversize_result_fails_its_call_alone(kind: str) -> None:
    """G26: An oversize result fails the call that it answers; another one that is under way goes on."""
    release = trio.Event()

    async def wrapper(args: bytes) -> bytes:
        if not args:
            await release.wait()
        return bytes(int(args or b"1"))

    async def slow() -> None:
        assert await both.call("wrapper") == bytes(1)

    limits = orc_trio.Limits(max_message=64 * 1024, max_bytes=1024 * 1024)
    async with connected_ends(kind, wrappers={"wrapper": wrapper}, limits=limits) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            with pytest.raises(orc_trio.WrapperFunctionError, match="ResultTooLarge"):
                await both.call("wrapper", b"65537")
            release.set()


@every_transport
async def test_an_oversize_message_of_the_peer(kind: str) -> None:
    """G26: A peer that sends more than was agreed broke the protocol, and is told before it has sent all of it."""
    limits = orc_trio.Limits(max_message=64 * 1024, max_bytes=64 * 1024)
    async with controller_and_raw(kind, limits=limits) as (controller, raw):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.send, call_message(1, TAG, bytes(3 * 1024 * 1024)))
            bye = await raw.expect(Opcode.HANG_UP)
        assert b"is over the limit of 65536 bytes" in bye.payload
        await raw.close()
        assert (await controller.wait_disconnected()).kind is DisconnectKind.PROTOCOL_VIOLATION


@every_virtual
async def test_an_oversize_message_and_a_pending_call(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    """G25: A message over the limit ends the connection for everybody: a pending call is failed, none is accepted."""
    small = orc_trio.Limits(max_message=64 * 1024, max_bytes=64 * 1024)
    async with controller_and_raw(kind, limits=small) as (controller, raw):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(orc_trio.DisconnectedError) as caught:
                    await controller.call_wrapper(1, b"")
                assert caught.value.reason.kind is DisconnectKind.PROTOCOL_VIOLATION
                with pytest.raises(orc_trio.DisconnectedError):
                    await controller.call_wrapper(1, b"")

            await raw.expect(Opcode.CALL)
            await raw.send(call_message(1, TAG, bytes(64 * 1024 + 1)))
            await raw.goodbye()
