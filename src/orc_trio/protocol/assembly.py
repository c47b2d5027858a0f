"""Large payloads that arrive in parts: of the calls, or of the results, of one direction.

Rules
-----
* The buffer of a payload is allocated once, at its first part, after its announced length was checked (G25).
* Every part announces the same length; the parts together have exactly that.
* A payload that nobody waits for any more is counted to its end, and not kept (G8).
"""

from __future__ import annotations

from collections.abc import Callable

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.wire.buffers import new_buffer
from orc_trio.wire.messages import Message

__all__ = ["Assemblies"]


class _Assembly:
    """One payload.

    Args:
        total: Its announced length, already checked.
        keep: False: count only.
    """

    __slots__ = ("_filled", "buffer", "total")

    def __init__(self, total: int, keep: bool) -> None:
        self.total = total
        self.buffer = new_buffer(total) if keep else None
        self._filled = 0

    def part(self, message: Message) -> None:
        """Take one part, not the last."""
        if message.aux != self.total:
            raise RemoteProtocolError(f"a part announces {message.aux} bytes in all, the first part said {self.total}")
        if not message.payload or self._filled + len(message.payload) >= self.total:
            raise RemoteProtocolError("the parts of a message are more than its announced length, or empty")
        self._put(message.payload)

    def last(self, payload: bytes | memoryview) -> bytes | memoryview:
        if self._filled + len(payload) != self.total:
            raise RemoteProtocolError(
                f"the parts of a message have {self._filled + len(payload)} bytes, {self.total} were announced"
            )
        self._put(payload)
        return b"" if self.buffer is None else memoryview(self.buffer)

    def _put(self, payload: bytes | memoryview) -> None:
        stop = self._filled + len(payload)
        if self.buffer is not None:
            self.buffer[self._filled : stop] = payload
        self._filled = stop


class Assemblies:
    """The payloads that are arriving, by the number of their call.

    Attributes:
        size: Their announced lengths together, in bytes.
    """

    def __init__(self) -> None:
        self._arriving: dict[int, _Assembly] = {}
        self.size: int = 0

    def __len__(self) -> int:
        return len(self._arriving)

    def part(self, message: Message, check: Callable[[int], None], *, keep: bool = True) -> None:
        """Take a part, not the last.

        Args:
            message: The part.
            check: Called with the announced length at the first part; raises if it may not come.
            keep: False: nobody waits for the payload; asked at the first part only.

        Raises:
            RemoteProtocolError: It breaks a rule.
        """
        assembly = self._arriving.get(message.seq)
        if assembly is None:
            check(message.aux)
            assembly = self._arriving[message.seq] = _Assembly(message.aux, keep)
            self.size += message.aux
        assembly.part(message)

    def complete(self, seq: int, payload: bytes | memoryview) -> bytes | memoryview | None:
        """Take the last piece, which came in the message itself.

        Returns:
            The whole payload, empty if it was discarded; None: it did not come in parts.

        Raises:
            RemoteProtocolError: The length is not what was announced.
        """
        assembly = self._forget(seq)
        return None if assembly is None else assembly.last(payload)

    def discard(self, seq: int) -> None:
        """Give up the bytes that came and those that will, if it comes in parts; go on counting."""
        if assembly := self._arriving.get(seq):
            assembly.buffer = None

    def forget(self, seq: int) -> bool:
        """Give it up altogether.

        Returns:
            Whether it was arriving.
        """
        return self._forget(seq) is not None

    def clear(self) -> None:
        """Give everything up."""
        self._arriving.clear()
        self.size = 0

    def _forget(self, seq: int) -> _Assembly | None:
        assembly = self._arriving.pop(seq, None)
        if assembly is not None:
            self.size -= assembly.total
        return assembly
