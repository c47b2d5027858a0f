"""From bytes that are cut anywhere to whole messages: what the decoders of all wire formats have in common.

Rules
-----
* What is incomplete is kept.  Bytes of a large payload are copied once, into that payload's own buffer, and handed on
  as a `memoryview` of it; a transport that can read into a buffer asks for the buffer and saves that copy.
* Messages that were complete before a malformed one are delivered; the error comes after them.
* After an error the decoder is dead: where the next message begins is not known any more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from orc_trio.exceptions import LocalProtocolError, RemoteProtocolError
from orc_trio.wire.buffers import new_buffer

__all__ = ["OWN_BUFFER_FROM", "Decoder"]

OWN_BUFFER_FROM: Final = 64 * 1024
"""A payload larger than this is received into a buffer of its own."""

M = TypeVar("M")


class Decoder(ABC, Generic[M]):
    """Turns a stream of bytes into messages.

    Args:
        max_payload: The largest payload accepted, in bytes.  May be lowered or raised between calls.
    """

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self._rest = b""  # bytes of an incomplete message
        self._rest_wants = 0  # how many bytes _parse needs before trying again makes sense
        self._own: memoryview | None = None  # the buffer of what is large and being received
        self._own_filled = 0
        self._error: RemoteProtocolError | None = None

    @property
    def at_boundary(self) -> bool:
        """Whether the bytes so far end exactly at the end of a message."""
        return not self._rest and self._own is None

    def raise_pending(self) -> None:
        """Raise the error that followed the messages last returned, if there was one."""
        if self._error is not None:
            raise self._error

    def wanted(self) -> memoryview | None:
        """The unfilled part of the large message being received, for reading straight into it; else None."""
        return None if self._own is None else self._own[self._own_filled :]

    def filled(self, count: int) -> list[M]:
        """Say that ``count`` bytes were read into `wanted`.

        Args:
            count: 0 to the length of `wanted`.

        Returns:
            The message, if that completed it.

        Raises:
            RemoteProtocolError: As for `feed`.
        """
        own = self._own
        if own is None:
            raise LocalProtocolError("no large message is being received")
        self._own_filled += count
        if self._own_filled < len(own):
            return []
        self._own = None
        try:
            return [self._completed(own)]
        except RemoteProtocolError as exc:
            self._error = exc
            raise

    def feed(self, data: bytes | bytearray | memoryview) -> list[M]:
        """Take the next bytes of the stream.

        Args:
            data: Any number of bytes, cut anywhere.

        Returns:
            The messages that became complete, in order.

        Raises:
            RemoteProtocolError: The bytes are not messages, or announce one over the limit.  The peer's fault.  If
                complete messages preceded the error, they are returned first and the next call raises.
        """
        self.raise_pending()
        messages: list[M] = []
        data_untrusted = bytes(data)
        if self._own is not None:
            piece = data_untrusted[: len(self._own) - self._own_filled]
            self._own[self._own_filled : self._own_filled + len(piece)] = piece
            messages += self.filled(len(piece))
            data_untrusted = data_untrusted[len(piece) :]
        elif self._rest:
            data_untrusted = self._rest + data_untrusted
        self._rest = b""
        if len(data_untrusted) < self._rest_wants:
            self._rest = data_untrusted
            return messages
        self._rest_wants = 0
        try:
            self._parse(data_untrusted, messages)
        except RemoteProtocolError as exc:
            self._error = exc
            self._rest = b""
            if not messages:
                raise
        return messages

    def _begin_own(self, size: int, have: bytes) -> None:
        """Receive so many bytes into a buffer of their own, of which these have come."""
        self._own, self._own_filled = memoryview(new_buffer(size)), len(have)
        self._own[: len(have)] = have

    @abstractmethod
    def _parse(self, data: bytes, messages: list[M]) -> None:
        """Append every complete message in ``data``; keep what is left over in ``_rest``, or begin a buffer for it."""

    @abstractmethod
    def _completed(self, own: memoryview) -> M:
        """The message whose buffer is full."""
