# orc_trio.testing.pairs: two bare ends, and two ends of a conversation.

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from orc_trio import Certainty, DisconnectKind
from orc_trio.sockets import as_transport
from orc_trio.testing import PAIR_KINDS, PairKind, connected_pair, no_leaks, open_pair
from orc_trio.wire import Message, Opcode

LOCAL = orc_trio.DisconnectReason(DisconnectKind.LOCAL_HANGUP)
every_kind = pytest.mark.parametrize("kind", PAIR_KINDS)


async def echo(args: bytes) -> bytes:
    return args


@every_kind
async def test_two_ends(kind: PairKind) -> None:
    """What one end sends the other receives, both ways; closing both leaves nothing."""
    with no_leaks():
        ends = [as_transport(end) for end in await connected_pair(kind)]
        for sender, receiver in (ends, ends[::-1]):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.send, [Message(Opcode.SETUP, payload=b"x")])
                (message,) = await receiver.receive()
            assert message.payload == b"x"
        for end in ends:
            await end.aclose()


async def test_there_is_no_such_kind() -> None:
    """An unknown kind is refused, and the known ones are named."""
    with pytest.raises(ValueError, match="no pair of kind 'pigeon'; there are: memory, unix, tcp, pipes, inprocess"):
        await connected_pair("pigeon")  # type: ignore[call-overload]


@every_kind
async def test_a_conversation(kind: PairKind) -> None:
    """Calls both ways by name; leaving it hangs up, from the controller's end, and leaves nothing."""
    with no_leaks():
        async with open_pair(kind, wrappers={"up": bytes.upper}, handlers={"echo": echo}) as pair:
            assert await pair.call_wrapper("up", b"x") == b"X"
            assert await pair.call_controller("echo", b"y") == b"y"
            assert await pair.controller.call_wrapper(pair.symbols["up"], b"z") == b"Z"
            assert pair.told == []
        assert pair.told == [LOCAL]
        assert pair.session.disconnect_reason is not None
        assert pair.session.disconnect_reason.kind is DisconnectKind.REMOTE_HANGUP
        assert pair.session.state is orc_trio.SessionState.SHUT_DOWN


async def test_everything_it_takes() -> None:
    """Threaded functions, a registry of one's own, an install function, limits, and ends of one's own."""
    registry = orc_trio.HandlerRegistry()
    registry.handler("mine")(echo)
    sessions: list[orc_trio.Session] = []

    def install(session: orc_trio.Session, bootstrap: orc_trio.BootstrapInfo) -> None:
        sessions.append(session)
        bootstrap.add_tag("mine")
        bootstrap.set_value("value", b"v")

    def blocks(args: bytes) -> bytes:
        trio.from_thread.check_cancelled()  # in a thread of Trio's, or it raises
        return args

    limits = orc_trio.Limits(max_calls=3, max_nested_calls=1)
    async with open_pair(
        wrappers={"blocks": orc_trio.Handler(blocks, "blocks", threaded=True)},
        handlers={"shared": orc_trio.Handler(len_of_view, "shared", zero_copy=True)},
        registry=registry,
        install=install,
        limits=limits,
        executor_limits=orc_trio.Limits(max_message=70_000, max_bytes=70_000),
        ends=await connected_pair("unix"),
    ) as pair:
        assert await pair.call_wrapper("blocks", b"x") == b"x"
        assert await pair.call_controller("mine", b"y") == b"y"
        assert await pair.call_controller("shared", bytes(5)) == b"5"
        assert pair.controller.bootstrap.values == {"value": b"v"}
        assert sessions == [pair.session]
        with pytest.raises(orc_trio.MessageTooLargeError):
            await pair.call_wrapper("blocks", bytes(70_001))


def len_of_view(args: memoryview) -> bytes:
    assert isinstance(args, memoryview)
    return b"%d" % len(args)


@every_kind
async def test_the_bodys_exception_leaves_unwrapped(kind: PairKind) -> None:
    """What the body raises leaves as it is, and nothing stays open."""
    with no_leaks():
        with pytest.raises(LookupError, match="mine"):
            async with open_pair(kind):
                raise LookupError("mine")


@every_kind
async def test_cancelled(kind: PairKind) -> None:
    """Cancelled at any suspension it ends, and nothing stays open."""
    for checkpoints in range(30):
        with no_leaks():
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def cancel(checkpoints: int = checkpoints, scope: trio.CancelScope = scope) -> None:
                        for _ in range(checkpoints):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    async with open_pair(kind, limits=orc_trio.Limits(drain_timeout=0.05)):
                        await trio.sleep_forever()
            assert scope.cancelled_caught
            await trio.lowlevel.checkpoint()


async def test_ends_that_do_not_agree() -> None:
    """If they do not agree, that is the error, as it is."""
    one, other = await connected_pair("memory")
    await other.aclose()
    await one.aclose()
    with pytest.raises(orc_trio.DisconnectedError) as caught:
        async with open_pair(ends=(one, other)):
            raise AssertionError
    assert caught.value.certainty is Certainty.NOT_SENT


async def test_a_clock_can_jump(autojump_clock: trio.testing.MockClock) -> None:
    """In memory, and in process, an hour takes no time."""

    async def slow(args: bytes) -> bytes:
        await trio.sleep(3600)
        return args

    kinds: list[Any] = ["memory", "inprocess"]
    for kind in kinds:
        async with open_pair(kind, wrappers={"slow": slow}) as pair:
            assert await pair.call_wrapper("slow", b"x") == b"x"
