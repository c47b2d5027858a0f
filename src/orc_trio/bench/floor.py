"""The floor: ping-pong over `trio.SocketStream`, and nothing else.

k in flight is k connections with one ping-pong each.  A message is a length of 4 bytes and the payload, sent by one
``send_all`` and read by ``receive_some(65536)`` until it is complete.

For transfers in one direction there is another one, which keeps nothing of what it reads: a length, the payload as it
is, and one byte as the answer.
"""

from __future__ import annotations

import trio

__all__ = ["ping_pong", "serve", "swallow", "upload"]

_PIECE = 65536


async def serve(stream: trio.SocketStream) -> None:
    """Send back what comes, until the other end closes.

    Raises:
        EOFError: It closed inside a message.

    Checkpoints:
        Always.

    Cancellation:
        Ends it.
    """
    while message := await _receive(stream):
        await stream.send_all(message)


async def ping_pong(stream: trio.SocketStream, payload: bytes) -> None:
    """Send a payload, and wait for it.

    Raises:
        EOFError: The other end closed.

    Checkpoints:
        Always.

    Cancellation:
        Leaves the stream unusable.
    """
    await stream.send_all(len(payload).to_bytes(4, "big") + payload)
    if not await _receive(stream):
        raise EOFError


async def _receive(stream: trio.SocketStream) -> bytes | bytearray:
    """A whole message with its length; nothing: the end."""
    data: bytes | bytearray = await stream.receive_some(_PIECE)
    while data and len(data) < 4 + int.from_bytes(data[:4], "big"):
        more = await stream.receive_some(_PIECE)
        if not more:
            raise EOFError
        if isinstance(data, bytes):
            data = bytearray(data)
        data += more
    return data


async def swallow(stream: trio.SocketStream) -> None:
    """Read payloads and answer each with a byte, until the other end closes.

    Raises:
        EOFError: It closed inside a payload.

    Checkpoints:
        Always.

    Cancellation:
        Ends it.
    """
    while head := await stream.receive_some(4):
        missing = int.from_bytes(head, "big")
        while missing:
            data = await stream.receive_some(min(missing, _PIECE))
            if not data:
                raise EOFError
            missing -= len(data)
        await stream.send_all(b"!")


async def upload(stream: trio.SocketStream, payload: bytes) -> None:
    """Send a payload, and wait until it was read.

    Raises:
        EOFError: The other end closed.

    Checkpoints:
        Always.

    Cancellation:
        Leaves the stream unusable.
    """
    await stream.send_all(len(payload).to_bytes(4, "big"))
    await stream.send_all(payload)
    if not await stream.receive_some(1):
        raise EOFError
