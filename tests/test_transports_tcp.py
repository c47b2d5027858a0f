"""TCP: addresses, who is refused, and what the sockets are set to."""

from __future__ import annotations

import logging
import socket
import struct

import pytest
import trio
import trio.lowlevel
import trio.testing

from harness import nothing_left
from orc_trio.exceptions import ConnectionSpecError, DisconnectedError
from orc_trio.reasons import Certainty, DisconnectKind
from orc_trio.streams import StreamTransport
from orc_trio.transports import ConnectionSpec, VettedPeer, default_connectors, open_connection
from transport_helpers import call, connect_to, connected, not_reached, receive_count

UNCHECKED = VettedPeer.UNCHECKED


def check(text: str) -> None:
    spec = ConnectionSpec.parse(text)
    default_connectors().find(spec).check(spec)


@pytest.mark.parametrize(
    "text",
    [
        "tcp:connect=127.0.0.1:9000",
        "tcp:connect=localhost:1",
        "tcp:connect=[::1]:65535",
        "tcp:connect=[fe80::1%eth0]:9000",
        "tcp:connect=[localhost]:9000",
        "tcp:listen=0.0.0.0:0",
        "tcp:listen=[::]:00080",
    ],
)
def test_an_address_is_host_and_port(text: str) -> None:
    """A host and a port; IPv6 addresses in brackets."""
    check(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tcp:connect=", "the port is missing; write tcp:connect=HOST:PORT"),
        ("tcp:connect=localhost", "the port is missing"),
        ("tcp:connect=::1:9000", "an IPv6 address goes in brackets; write tcp:connect=[ADDRESS]:PORT"),
        ("tcp:connect=[::1]", "an IPv6 address goes in brackets"),
        ("tcp:connect=[::1:9000", "an IPv6 address goes in brackets"),
        ("tcp:listen=:9000", "the host is missing; write 127.0.0.1 for this machine"),
        ("tcp:listen=[]:9000", "the host is missing"),
        ("tcp:connect=localhost:", "'' is not a port; write a number from 1 to 65535"),
        ("tcp:connect=localhost:http", "'http' is not a port"),
        ("tcp:connect=localhost:0", "'0' is not a port; write a number from 1 to 65535"),
        ("tcp:connect=localhost:-1", "'-1' is not a port"),
        ("tcp:connect=localhost:65536", "'65536' is not a port"),
        ("tcp:listen=localhost:65536", "write a number from 0 to 65535"),
        ("tcp:listen=localhost:\N{ARABIC-INDIC DIGIT FIVE}", "is not a port"),
        ("tcp:listen=localhost:" + "9" * 5000, "is not a port"),
        ("tcp:listen=a\0b:1", "a host has no zero byte in it"),
    ],
)
def test_what_is_not_an_address_is_refused_with_what_would_be(text: str, says: str) -> None:
    """G25: a descriptor that is no address is refused in one line that says what would be right."""
    with pytest.raises(ConnectionSpecError) as caught:
        check(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["tcp:connect=127.0.0.1:9", "tcp:listen=127.0.0.1:0"])
@pytest.mark.parametrize("vetted", [None, VettedPeer.CHECKED, VettedPeer.INHERITED])
async def test_tcp_is_unchecked_in_so_many_words(spec: str, vetted: VettedPeer | None) -> None:
    """TCP does not say who is there: nothing is opened unless the caller says UNCHECKED."""
    with nothing_left(threads=True), pytest.raises(ConnectionSpecError, match=r"say VettedPeer\.UNCHECKED"):
        async with open_connection(spec, vetted=vetted, on_listening=not_reached):
            pytest.fail("entered")


@pytest.mark.parametrize("kind", ["tcp", "tcp6"])
async def test_nagle_is_off(kind: str) -> None:
    """Both ends set TCP_NODELAY: a call is a small message whose sender waits for the answer."""
    async with connected(kind) as ends:
        for end in ends:
            assert isinstance(end, StreamTransport)
            assert isinstance(end.stream, trio.SocketStream)
            assert end.stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_port_zero_becomes_the_port_there_is(host: str) -> None:
    """on_listening is told a spec that can be connected to, once."""
    heard: list[ConnectionSpec] = []
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[None]) -> None:
            def listening(bound: ConnectionSpec) -> None:
                heard.append(bound)
                task_status.started()

            async with open_connection(f"tcp:listen={host}:0", vetted=UNCHECKED, on_listening=listening) as transport:
                assert [each.seq for each in await receive_count(transport, 1)] == [7]

        await nursery.start(listen)
        (bound,) = heard
        check(str(connect_to(bound)))
        async with open_connection(connect_to(bound), vetted=UNCHECKED) as transport:
            await transport.send([call(7)])


async def test_one_peer_and_no_more() -> None:
    """A listener that has its peer listens no longer, though the connection is still open."""
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[ConnectionSpec]) -> None:
            async with open_connection("tcp:listen=127.0.0.1:0", vetted=UNCHECKED, on_listening=task_status.started):
                await done.wait()

        done = trio.Event()
        bound = await nursery.start(listen)
        async with open_connection(connect_to(bound), vetted=UNCHECKED):
            with trio.fail_after(5):
                while True:
                    refusal = ""
                    try:
                        async with open_connection(connect_to(bound), vetted=UNCHECKED):
                            await trio.lowlevel.checkpoint()  # came into the queue before it was closed
                    except DisconnectedError as exc:
                        refusal = exc.reason.detail
                    if refusal:
                        break
            assert refusal == f"{connect_to(bound)}: Connection refused"
        done.set()


async def test_nobody_there_is_connect_failed() -> None:
    """G20: connecting to a port nobody listens on is CONNECT_FAILED, NOT_SENT, and leaves nothing open."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        spec = f"tcp:connect=127.0.0.1:{unused.getsockname()[1]}"
        with nothing_left(threads=True), pytest.raises(DisconnectedError) as caught:
            async with open_connection(spec, vetted=UNCHECKED):
                pytest.fail("entered")
    assert caught.value.reason.kind is DisconnectKind.CONNECT_FAILED
    assert caught.value.reason.detail == f"{spec}: Connection refused"
    assert caught.value.certainty is Certainty.NOT_SENT


async def test_a_port_in_use_is_connect_failed() -> None:
    """G20: listening where somebody else does is CONNECT_FAILED and leaves nothing open."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        spec = f"tcp:listen=127.0.0.1:{other.getsockname()[1]}"
        with nothing_left(threads=True), pytest.raises(DisconnectedError, match=f"{spec}: Address already in use"):
            async with open_connection(spec, vetted=UNCHECKED, on_listening=not_reached):
                pytest.fail("entered")


@pytest.mark.parametrize("action", ["connect", "listen"])
async def test_a_host_that_cannot_be_one_is_connect_failed(action: str) -> None:
    """G25: a host that no name service would take is refused, not a crash."""
    host = "a" * 64 + "ä"
    with pytest.raises(DisconnectedError, match="cannot be a host name"):
        async with open_connection(f"tcp:{action}={host}:9", vetted=UNCHECKED):
            pytest.fail("entered")


class Resolver(trio.abc.HostnameResolver):
    """Says what it was told to say."""

    def __init__(self, *families: socket.AddressFamily, scope: trio.CancelScope | None = None) -> None:
        self.families = families
        self.scope = scope

    async def getaddrinfo(self, *_args: object, **_kwargs: object) -> list[tuple[object, ...]]:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        if self.scope is not None:
            self.scope.cancel()
        addresses = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: "/nowhere"}
        return [(family, socket.SOCK_STREAM, 6, "", addresses[family]) for family in self.families]

    async def getnameinfo(self, *_args: object) -> tuple[str, str]:
        raise NotImplementedError


async def test_the_first_address_that_can_be_bound_is_taken() -> None:
    """A name's addresses are tried in order; if none can be listened on, all the reasons are told."""
    heard: list[ConnectionSpec] = []

    def stop(bound: ConnectionSpec) -> None:
        heard.append(bound)
        raise KeyError("enough")

    trio.socket.set_custom_hostname_resolver(Resolver(socket.AF_UNIX, socket.AF_INET, socket.AF_INET6))
    with nothing_left(threads=True), pytest.raises(KeyError, match="enough"):
        async with open_connection("tcp:listen=name.example:0", vetted=UNCHECKED, on_listening=stop):
            pytest.fail("entered")
    assert heard[0].descriptor.startswith("127.0.0.1:")
    trio.socket.set_custom_hostname_resolver(Resolver(socket.AF_UNIX))
    with nothing_left(threads=True), pytest.raises(DisconnectedError, match="Protocol not supported"):
        async with open_connection("tcp:listen=name.example:0", vetted=UNCHECKED, on_listening=stop):
            pytest.fail("entered")


async def test_cancelling_a_listener_closes_it() -> None:
    """G18: cancelled while it waits for its peer, a listener leaves nothing open."""
    with nothing_left(threads=True), trio.CancelScope() as scope:
        async with open_connection(
            "tcp:listen=127.0.0.1:0", vetted=UNCHECKED, on_listening=lambda _bound: scope.cancel()
        ):
            pytest.fail("entered")
    assert scope.cancelled_caught


async def test_cancelling_before_it_listens_closes_it() -> None:
    """G18: cancelled from the start, connecting and listening open nothing."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        port = there.getsockname()[1]
        for spec in (f"tcp:connect=127.0.0.1:{port}", "tcp:listen=127.0.0.1:0"):
            with nothing_left(threads=True), trio.CancelScope() as scope:
                scope.cancel()
                async with open_connection(spec, vetted=UNCHECKED, on_listening=not_reached):
                    pytest.fail("entered")
            assert scope.cancelled_caught


async def test_cancelling_while_it_binds_closes_it() -> None:
    """G18: cancelled between resolving and binding, listening leaves nothing open."""
    with nothing_left(threads=True), trio.CancelScope() as scope:
        trio.socket.set_custom_hostname_resolver(Resolver(socket.AF_INET, scope=scope))
        async with open_connection("tcp:listen=name.example:0", vetted=UNCHECKED):
            pytest.fail("entered")
    assert scope.cancelled_caught


async def test_on_listening_may_be_left_out() -> None:
    """Whoever knows the port need not be told."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the number, and we may share it
        port = reserved.getsockname()[1]
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async with open_connection(f"tcp:listen=127.0.0.1:{port}", vetted=UNCHECKED):
                    pass

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked(0.05)
            async with open_connection(f"tcp:connect=127.0.0.1:{port}", vetted=UNCHECKED) as transport:
                assert list(await transport.receive()) == []


async def test_a_peer_that_reset_at_once_is_a_broken_peer(caplog: pytest.LogCaptureFixture) -> None:
    """G17: a peer that connected and was gone before it was accepted is accepted, and broken, or not accepted."""

    def reset(bound: ConnectionSpec) -> None:
        host, _, port = bound.descriptor.rpartition(":")
        with socket.create_connection((host, int(port))) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with nothing_left(threads=True), caplog.at_level(logging.WARNING):
        async with open_connection("tcp:listen=127.0.0.1:0", vetted=UNCHECKED, on_listening=reset) as transport:
            with pytest.raises(trio.BrokenResourceError):
                await transport.receive()
    assert caplog.records == []
