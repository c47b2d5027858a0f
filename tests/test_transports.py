"""What holds for every transport, and the registry in which specs are looked up."""

from __future__ import annotations

import pytest
import trio

from harness import nothing_left
from orc_trio.abc import MessageTransport
from orc_trio.exceptions import ConnectionSpecError, DisconnectedError, RemoteProtocolError
from orc_trio.reasons import Certainty, DisconnectKind
from orc_trio.transports import (
    ConnectionSpec,
    Connector,
    ConnectorRegistry,
    OnListening,
    VettedPeer,
    default_connectors,
    in_process_pair,
    open_connection,
)
from orc_trio.transports.listening import accept_one
from orc_trio.wire.messages import Message
from transport_helpers import KINDS, SETUP, STREAMS, call, connected, receive_all, receive_count

MIB = 1024 * 1024

# --- every transport ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_messages_arrive_whole_and_in_order_both_ways(kind: str) -> None:
    """G3: what one end sends, the other receives: whole, in order, and in both directions at once."""
    messages = [call(number, bytes([number % 256]) * (number * 37 % 1000)) for number in range(1, 300)]

    async def send(transport: MessageTransport) -> None:
        await transport.send(messages[:1])
        await transport.send(messages[1:])

    async with connected(kind) as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(send, one)
        nursery.start_soon(send, other)
        for transport in (one, other):
            received = await receive_count(transport, len(messages))
            assert [(each.seq, bytes(each.payload)) for each in received] == [
                (each.seq, each.payload) for each in messages
            ]
            assert {(each.opcode, each.tag, each.aux) for each in received} == {(3, 2, 3)}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_payload_of_the_largest_size_arrives(kind: str) -> None:
    """A payload of exactly max_payload bytes arrives, as bytes or as a memoryview, as it was."""
    payload = bytes(range(256)) * (2 * MIB // 256)
    async with connected(kind) as (one, other), trio.open_nursery() as nursery:
        other.max_payload = len(payload)
        nursery.start_soon(one.send, [SETUP, call(1, payload), call(2, memoryview(payload)[1:])])
        _, first, second = await receive_count(other, 3)
        assert first.payload == payload
        assert second.payload == payload[1:]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_payload_over_the_limit_is_a_protocol_violation(kind: str) -> None:
    """G25: messages before one over the limit are delivered, then comes the error; the rest is dropped (G16)."""
    async with connected(kind) as (one, other), trio.open_nursery() as nursery:
        other.max_payload = 64 * 1024
        offending = [SETUP, call(1, bytes(64 * 1024)), call(2, bytes(64 * 1024 + 1)), call(3)]
        nursery.start_soon(send_then_eof, one, offending, *([call(4, bytes(60 * 1024))] for _ in range(20)))
        assert [each.seq for each in await receive_count(other, 2)] == [0, 1]
        with pytest.raises(RemoteProtocolError, match="65537 bytes is over the limit of 65536"):
            await other.receive()
        assert list(await other.receive()) == []


async def send_then_eof(transport: MessageTransport, *batches: list[Message]) -> None:
    for batch in batches:
        await transport.send(batch)
    await transport.send_eof()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_message_has_a_limit_of_its_own(kind: str) -> None:
    """G25: a first message over 1 MiB is a violation, whatever the limit for later ones is."""
    async with connected(kind) as (one, other), trio.open_nursery() as nursery:
        other.max_payload = 64 * MIB
        nursery.start_soon(send_then_eof, one, [SETUP._replace(payload=bytes(MIB + 1))])
        with pytest.raises(RemoteProtocolError, match="over the limit of 1048576"):
            await other.receive()
        assert list(await other.receive()) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_half_closing_ends_one_direction_only(kind: str) -> None:
    """G16: after send_eof the peer receives what was sent and then the end, for ever; the other direction lives on."""
    async with connected(kind) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, [call(1), call(2)])
            await receive_count(other, 2)
        await one.send_eof()
        assert list(await other.receive()) == []
        assert list(await other.receive()) == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.send, [call(3)])
            assert [each.seq for each in await receive_count(one, 1)] == [3]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_closed_peer_is_the_end_of_file_and_a_broken_send(kind: str) -> None:
    """G17: a peer that closed is noticed at once: receiving ends, and sending breaks."""
    async with connected(kind) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, [call(1)])
            await receive_count(other, 1)
        await one.aclose()
        assert list(await other.receive()) == []
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012  the first may still have gone out
            for _ in range(1000):
                await other.send([call(2, bytes(4096))])


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_wakes_a_blocked_receive(kind: str) -> None:
    """G14: closing an end wakes its own blocked receive with an error, and the peer's with the end of file."""
    woken: list[str] = []

    async def receive_here(transport: MessageTransport) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive()
        woken.append("here")

    async def receive_there(transport: MessageTransport) -> None:
        assert list(await transport.receive()) == []
        woken.append("there")

    async with connected(kind) as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(receive_here, one)
        nursery.start_soon(receive_there, other)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        await one.aclose()
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert sorted(woken) == ["here", "there"]


@pytest.mark.parametrize("closer", ["sender", "receiver"])
@pytest.mark.parametrize("kind", KINDS)
async def test_closing_wakes_a_blocked_send(kind: str, closer: str) -> None:
    """G8: a peer that does not read stalls the writer; closing either end wakes it."""
    sent = 0

    async def flood(transport: MessageTransport) -> None:
        nonlocal sent
        while True:
            await transport.send([call(1, bytes(256 * 1024))])
            sent += 1

    async with connected(kind) as (one, other):
        with pytest.RaisesGroup(trio.ClosedResourceError if closer == "sender" else trio.BrokenResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, one)
                with trio.fail_after(5):
                    while True:  # the kernel moves what it buffers in its own time
                        before = sent
                        await trio.testing.wait_all_tasks_blocked(0.02)
                        if sent == before:
                            break
                assert sent * 256 * 1024 < 64 * MIB
                await (one if closer == "sender" else other).aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_twice_is_closing_once(kind: str) -> None:
    """G12: aclose may be called any number of times, also cancelled, and closes all the same."""
    async with connected(kind) as (one, other):
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.aclose()
        await one.aclose()
        assert list(await other.receive()) == []
        for use in (lambda: one.send([call(1)]), one.receive):
            with pytest.raises(trio.ClosedResourceError):
                await use()


@pytest.mark.parametrize("kind", KINDS)
async def test_sending_nothing_is_nothing(kind: str) -> None:
    """An empty batch is not an end of file."""
    async with connected(kind) as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(one.send, [])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one.send, [call(1)])
        assert [each.seq for each in await other.receive()] == [1]


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_stays_open(kind: str) -> None:
    """G19: a connection, used and left, leaves no descriptor open."""
    async with connected(kind):  # what is opened once per process is open now
        pass
    with nothing_left(threads=True):
        async with connected(kind) as (one, other), trio.open_nursery() as nursery:
            nursery.start_soon(one.send, [call(1, bytes(1000))])
            nursery.start_soon(other.send, [call(2, bytes(1000))])
            await receive_count(one, 1)
            await receive_count(other, 1)
            await one.send_eof()
            assert await receive_all(other) == []


@pytest.mark.parametrize("kind", STREAMS)
async def test_descriptors_are_not_inherited(kind: str) -> None:
    """G13: programs started later do not inherit the connection, which would keep it open after we closed it."""
    async with connected(kind) as (one, other):
        result = await trio.run_process(["sh", "-c", "ls /proc/self/fd"], capture_stdout=True)
        assert sorted(result.stdout.split()) <= [b"0", b"1", b"2", b"3"]
        await one.aclose()
        assert list(await other.receive()) == []


# --- open_connection ---------------------------------------------------------------------------------------------


class Scripted(Connector):
    """A connector of somebody else's: hands out one end of an in-process pair."""

    trusts = frozenset({VettedPeer.CHECKED, VettedPeer.UNCHECKED})
    trusts_by_default = VettedPeer.CHECKED
    trust_advice = "say CHECKED"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.opened: list[tuple[ConnectionSpec, VettedPeer]] = []
        self.end, self.other_end = in_process_pair()

    def check(self, spec: ConnectionSpec) -> None:
        if spec.descriptor == "bad":
            raise ConnectionSpecError("bad descriptor")

    async def open(
        self, spec: ConnectionSpec, *, vetted: VettedPeer, on_listening: OnListening | None
    ) -> MessageTransport:
        await trio.lowlevel.checkpoint()
        self.opened.append((spec, vetted))
        if on_listening is not None:
            on_listening(ConnectionSpec(spec.transport, spec.action, "bound"))
        if self.error is not None:
            raise self.error
        return self.end


def registry_of(connector: Connector) -> ConnectorRegistry:
    registry = ConnectorRegistry()
    registry.register("mine", "open", connector)
    return registry


async def test_a_connector_of_your_own_is_as_good_as_ours() -> None:
    """Whatever a registered connector opens is handed on, with what the caller said, and closed on leaving."""
    mine = Scripted()
    heard: list[ConnectionSpec] = []
    async with open_connection(
        "mine:open=x", vetted=VettedPeer.UNCHECKED, connectors=registry_of(mine), on_listening=heard.append
    ) as transport:
        assert transport is mine.end
    assert mine.opened == [(ConnectionSpec("mine", "open", "x"), VettedPeer.UNCHECKED)]
    assert heard == [ConnectionSpec("mine", "open", "bound")]
    assert list(await mine.other_end.receive()) == []


async def test_the_default_vetting_is_the_connectors() -> None:
    """A caller who says nothing about the peer gets what the connector says by default."""
    mine = Scripted()
    async with open_connection("mine:open=x", connectors=registry_of(mine)):
        pass
    assert mine.opened[0][1] is VettedPeer.CHECKED


@pytest.mark.parametrize(
    ("spec", "vetted", "says"),
    [
        ("no spec", None, "has no '='"),
        ("yours:open=x", None, "there is no transport 'yours'; there are mine:open=…"),
        ("mine:close=x", None, "mine has no action 'close'; write mine:open=…"),
        ("mine:open=bad", None, "bad descriptor"),
        ("mine:open=x", VettedPeer.INHERITED, "its other end cannot be inherited: say CHECKED"),
    ],
)
async def test_what_can_be_refused_is_refused_before_anything_is_opened(
    spec: str, vetted: VettedPeer | None, says: str
) -> None:
    """A spec, descriptor or vetting that cannot be used is a ConnectionSpecError, and nothing was opened."""
    mine = Scripted()
    with pytest.raises(ConnectionSpecError, match=says):
        async with open_connection(spec, vetted=vetted, connectors=registry_of(mine)):
            pytest.fail("entered")
    assert mine.opened == []


async def test_an_unreachable_peer_is_connect_failed() -> None:
    """G20: what the system says about an unreachable peer becomes CONNECT_FAILED, NOT_SENT, with the spec."""
    connectors = registry_of(Scripted(ConnectionRefusedError(111, "Connection refused")))
    with pytest.raises(DisconnectedError) as caught:
        async with open_connection("mine:open=x", connectors=connectors):
            pytest.fail("entered")
    assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
    assert caught.value.reason.detail == "mine:open=x: Connection refused"
    assert caught.value.certainty is Certainty.NOT_SENT
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_the_callers_own_error_is_the_callers() -> None:
    """G18: an OSError of on_listening is not taken for one about the peer."""

    def full(_bound: ConnectionSpec) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        async with open_connection("mine:open=x", connectors=registry_of(Scripted()), on_listening=full):
            pytest.fail("entered")


async def test_the_bodys_exception_leaves_unwrapped() -> None:
    """G18: the body's own exception leaves as it is, also when the task is cancelled by then."""
    mine = Scripted()
    with trio.CancelScope() as scope, pytest.raises(KeyError, match="mine"):  # noqa: PT012
        async with open_connection("mine:open=x", connectors=registry_of(mine)):
            scope.cancel()
            raise KeyError("mine")
    assert list(await mine.other_end.receive()) == []


async def test_cancelling_the_body_closes() -> None:
    """G18: a cancelled body is left with Cancelled, and the transport is closed."""
    mine = Scripted()
    with trio.CancelScope() as scope:
        async with open_connection("mine:open=x", connectors=registry_of(mine)):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert list(await mine.other_end.receive()) == []


# --- accepting ---------------------------------------------------------------------------------------------------


class Listener:
    """Accepts what it was told to."""

    def __init__(self, *answers: trio.socket.SocketType | OSError) -> None:
        self.answers = list(answers)

    async def accept(self) -> tuple[trio.socket.SocketType, object]:
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer, None


async def test_a_peer_that_gave_up_before_it_was_accepted_does_not_count() -> None:
    """A connection aborted in the queue is passed over; any other error ends the listening."""
    one, other = trio.socket.socketpair()
    listener = Listener(ConnectionAbortedError(), one, OSError(24, "Too many open files"))
    spec = ConnectionSpec.parse("mine:listen=x")
    with one, other:
        stream = await accept_one(listener, spec, lambda _peer: None)  # type: ignore[arg-type]
        assert stream.socket is one
        with pytest.raises(OSError, match="Too many open files"):
            await accept_one(listener, spec, lambda _peer: None)  # type: ignore[arg-type]


# --- the registry ------------------------------------------------------------------------------------------------


def test_the_default_connectors() -> None:
    """What comes with orc_trio, and that each caller has a registry of their own."""
    assert list(default_connectors()) == [
        "pipe:adopt",
        "socket:adopt",
        "tcp:connect",
        "tcp:listen",
        "unix:connect",
        "unix:listen",
    ]
    assert len(default_connectors()) == 6
    assert default_connectors() is not default_connectors()


def test_a_duplicate_connector_is_an_error() -> None:
    """Two connectors for one (transport, action) are an error, and the first stays."""
    first, registry = Scripted(), ConnectorRegistry()
    registry.register("mine", "open", first)
    with pytest.raises(ConnectionSpecError, match="there is a connector for mine:open already"):
        registry.register("mine", "open", Scripted())
    assert registry.find(ConnectionSpec.parse("mine:open=")) is first
    with pytest.raises(ConnectionSpecError, match="cannot be a transport"):
        registry.register("not a name", None, first)


def test_a_missing_action_is_the_default_or_the_only_one() -> None:
    """A spec without an action means the one registered so, else the only one; else the choice is the caller's."""
    registry = ConnectorRegistry()
    opening, closing, plain = Scripted(), Scripted(), Scripted()
    spec = ConnectionSpec.parse("mine=x")
    with pytest.raises(ConnectionSpecError, match="there is no transport 'mine'; there are none"):
        registry.find(spec)
    registry.register("mine", "open", opening)
    assert registry.find(spec) is opening
    registry.register("mine", "close", closing)
    with pytest.raises(ConnectionSpecError, match="the action is missing; write mine:close=… or mine:open=…"):
        registry.find(spec)
    registry.register("mine", None, plain)
    assert registry.find(spec) is plain
    assert registry.find(ConnectionSpec.parse("mine:close=x")) is closing
    assert list(registry) == ["mine", "mine:close", "mine:open"]
