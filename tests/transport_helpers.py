"""What the transports' tests share: connected pairs of every kind."""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from orc_trio.abc import MessageTransport
from orc_trio.transports import ConnectionSpec, VettedPeer, in_process_pair, open_connection
from orc_trio.wire.messages import Message, Opcode

KINDS = ["tcp", "tcp6", "unix", "abstract", "socket", "pipe", "inprocess"]
"""Every way of being connected."""
STREAMS = [kind for kind in KINDS if kind != "inprocess"]

SETUP = Message(Opcode.SETUP)


def call(seq: int, payload: bytes | memoryview = b"") -> Message:
    """A message that differs from others by its number."""
    return Message(Opcode.CALL, seq, 2, 3, payload)


@asynccontextmanager
async def connected(kind: str) -> AsyncIterator[tuple[MessageTransport, MessageTransport]]:
    """Two connected transports; both are closed at the end."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        match kind:
            case "inprocess":
                one, other = in_process_pair()
                stack.push_async_callback(one.aclose)
                stack.push_async_callback(other.aclose)
            case "socket":
                here, there = socket.socketpair()
                one = await enter(open_connection(f"socket:adopt={here.detach()}"))
                other = await enter(open_connection(f"socket:adopt={there.detach()}"))
            case "pipe":
                (read_one, write_other), (read_other, write_one) = os.pipe(), os.pipe()
                one = await enter(open_connection(f"pipe:adopt={read_one},{write_one}"))
                other = await enter(open_connection(f"pipe:adopt={read_other},{write_other}"))
            case _:
                where, vetted = {
                    "tcp": ("tcp:listen=127.0.0.1:0", VettedPeer.UNCHECKED),
                    "tcp6": ("tcp:listen=[::1]:0", VettedPeer.UNCHECKED),
                    "unix": ("unix:listen=" + stack.enter_context(tempfile.TemporaryDirectory()) + "/s", None),
                    "abstract": (f"unix:listen=@orc-trio-test-{uuid.uuid4()}", None),
                }[kind]
                async with trio.open_nursery() as nursery:
                    accepted: list[MessageTransport] = []

                    async def listen(task_status: trio.TaskStatus[ConnectionSpec]) -> None:
                        accepted.append(
                            await enter(open_connection(where, vetted=vetted, on_listening=task_status.started))
                        )

                    bound = await nursery.start(listen)
                    other = await enter(open_connection(connect_to(bound), vetted=vetted))
                (one,) = accepted
        yield one, other


def connect_to(bound: ConnectionSpec) -> ConnectionSpec:
    """What to connect to, given where somebody listens."""
    return ConnectionSpec(bound.transport, "connect", bound.descriptor)


def not_reached(bound: ConnectionSpec) -> None:
    """For on_listening, where nothing should listen."""
    pytest.fail(f"listens on {bound}")


async def receive_all(transport: MessageTransport) -> list[Message]:
    """Everything up to the end of file."""
    received: list[Message] = []
    while batch := await transport.receive():
        received += batch
    return received


async def receive_count(transport: MessageTransport, count: int) -> list[Message]:
    """The next ``count`` messages."""
    received: list[Message] = []
    while len(received) < count:
        batch = await transport.receive()
        assert batch, f"end of file after {len(received)} of {count} messages"
        received += batch
    assert len(received) == count
    return received
