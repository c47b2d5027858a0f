"""``orc-trio decode``: a trace or a raw capture as readable lines.

One line for each message: when, which way, what.  Calls are shown with the name of what they call, as far as the
executor's setup message told it, and results with the call they answer and how long it took.

In a raw capture there is only one direction and no time: the first column is the offset in the file.

Malformed input ends the listing with the offset and what is wrong.  A payload that the protocol itself reads (setup,
hang-up, error result) and that is malformed is shown as such, and the listing goes on; both give exit code 1.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import BinaryIO, Final

import attrs

from orc_trio.cli.exits import Failure, one_line
from orc_trio.exceptions import RemoteProtocolError
from orc_trio.protocol.limits import AGREED_FIELDS
from orc_trio.protocol.outcomes import Failed, Refused, decode_hang_up, decode_result
from orc_trio.protocol.setup import Role, decode_setup
from orc_trio.reasons import DisconnectKind
from orc_trio.tracing import Direction, MalformedCaptureError, Record, read_records
from orc_trio.wire.cbor import loads_strict
from orc_trio.wire.messages import NO_DEADLINE, Message, Opcode, PartOf, ResultKind

__all__ = ["Decoder", "decode", "describe_payload"]

_ARROWS: Final = {Direction.SENT: "->", Direction.RECEIVED: "<-"}
_OTHER: Final = {Direction.SENT: Direction.RECEIVED, Direction.RECEIVED: Direction.SENT, None: None}


def decode(file: BinaryIO, name: str, shown: int) -> Iterator[str]:
    """The lines for a file.

    Args:
        file: Opened for reading bytes.
        name: Names it in error messages.
        shown: How many bytes of each payload to show, at least 0.

    Yields:
        Lines, as soon as they are known.

    Raises:
        Failure: Something was malformed; after everything that could be read.
    """
    decoder = Decoder(shown)
    try:
        for record in read_records(file):
            yield from decoder.lines(record)
    except MalformedCaptureError as exc:
        where = f" (after {decoder.count} messages)" if decoder.count else ""
        raise Failure(f"{name}: {one_line(str(exc))}{where}") from None
    if decoder.malformed:
        raise Failure(f"{name}: malformed payloads: {decoder.malformed}; see the lines with MALFORMED")


@attrs.define
class _Call:
    name: str
    time: float | None


class Decoder:
    """Turns records into lines; remembers what names and calls were announced.

    Args:
        shown: How many bytes of each payload to show, at least 0.
    """

    def __init__(self, shown: int) -> None:
        self._shown = shown
        self._names: dict[int, str] = {}
        self._calls: dict[tuple[Direction | None, int], _Call] = {}
        self._parts: dict[tuple[Direction | None, int, int], int] = {}  # total length of what comes in parts
        self._began: float | None = None
        self.count: int = 0
        """How many messages there were."""
        self.malformed: int = 0
        """How many of them had a payload that is not what it must be."""

    def lines(self, record: Record) -> Iterator[str]:
        """The lines for one record."""
        if record.time is not None and self._began is None:
            self._began = record.time
            yield f"# a trace, begun {_date(record.time)}; times in seconds; -> sent, <- received"
        if record.message is None:
            text = f"ERROR    {one_line(record.error)}" if record.error else "end of stream"
        else:
            self.count += 1
            text = self._message(record.message, record.direction, record.time)
        if record.time is None or record.direction is None or self._began is None:
            head = f"{record.offset:#010x}"
        else:
            head = f"{record.time - self._began:11.6f}  {_ARROWS[record.direction]}"
        first, *more = text.splitlines()
        yield f"{head}  {first}"
        for line in more:
            yield f"{'':{len(head)}}  {'':<8} {line}"

    def _message(self, message: Message, direction: Direction | None, time: float | None) -> str:
        try:
            opcode = Opcode(message.opcode)
        except ValueError:
            self.malformed += 1
            return f"MALFORMED: unknown opcode {message.opcode}{_fields(message)}, {self._payload(message)}"
        name = opcode.name.lower().replace("_", "-").replace("nested-call", "nested")
        try:
            text = self._describe(opcode, message, direction, time)
        except RemoteProtocolError as exc:
            self.malformed += 1
            text = f"MALFORMED: {one_line(str(exc))}{_fields(message)}, {self._payload(message)}"
        return f"{name:<8} {text}"

    def _describe(self, opcode: Opcode, message: Message, direction: Direction | None, time: float | None) -> str:
        seq = message.seq
        match opcode:
            case Opcode.SETUP:
                return self._setup(message)
            case Opcode.HANG_UP:
                reason = decode_hang_up(message.payload)
                how = "in order" if reason.kind is DisconnectKind.REMOTE_HANGUP else f"because of: {reason.detail}"
                return f"{how}; highest call dispatched: {message.aux}"
            case Opcode.CALL | Opcode.NESTED_CALL:
                call = _Call(self._name(message.tag), time)
                self._calls[direction, seq] = call
                limit = "" if message.aux == NO_DEADLINE else f", within {message.aux / 1e6:g} s"
                return f"#{seq} {call.name}{limit}, {self._last(PartOf.CALL, message, direction)}"
            case Opcode.RESULT:
                return f"#{seq}{self._answered(seq, direction, time)}: {self._result(message, direction)}"
            case Opcode.CANCEL:
                known = self._calls.get((direction, seq))
                return f"#{seq}" + (f" {known.name}" if known else "")
            case Opcode.PING | Opcode.PONG:
                return f"{message.aux}"
            case Opcode.PART:
                try:
                    of = PartOf(message.tag)
                except ValueError:
                    raise RemoteProtocolError(f"a part of {message.tag}, which is neither call nor result") from None
                self._parts[direction, seq, of] = message.aux
                return f"#{seq}, of a {of.name.lower()} of {message.aux} bytes, {self._payload(message)}"

    def _setup(self, message: Message) -> str:
        fields = loads_strict(message.payload, what="setup")
        says = fields.get("role") if isinstance(fields, dict) else None
        setup = decode_setup(message.payload, expect=Role.EXECUTOR if says == "executor" else Role.CONTROLLER)
        parts = [f"{setup.role.value} {setup.identity!r}; "]
        parts[0] += ", ".join(f"{name} {setup.limits[name]}" for name in AGREED_FIELDS)
        if setup.role is Role.EXECUTOR:
            parts.append(f"{one_line(setup.triple)}, page size {setup.page_size}")
            for name, value in setup.values.items():
                parts.append(f"value {one_line(name)} = {describe_payload(value, self._shown)}")
            for name, address in setup.symbols.items():
                parts.append(f"symbol {one_line(name)} = {address:#x}")
                self._names.setdefault(address, one_line(name))
        return "\n".join(parts)

    def _answered(self, seq: int, direction: Direction | None, time: float | None) -> str:
        call = self._calls.pop((_OTHER[direction], seq), None) if direction is not None else None
        if call is None:
            return ""
        took = f" after {(time - call.time) * 1e3:.3f} ms" if time is not None and call.time is not None else ""
        return f" {call.name}{took}"

    def _result(self, message: Message, direction: Direction | None) -> str:
        if (direction, message.seq, PartOf.RESULT) in self._parts:
            kind = next((each.name.lower() for each in ResultKind if each == message.aux), f"kind {message.aux}")
            return f"{kind}, {self._last(PartOf.RESULT, message, direction)}"
        result = decode_result(message.aux, message.payload)
        if isinstance(result, Failed):
            return f"error {one_line(result.remote_type)}: {one_line(result.message)}"
        if isinstance(result, Refused):
            return f"refused: {one_line(result.message)}"
        return "cancelled" if message.aux == ResultKind.CANCELLED else self._payload(message)

    def _last(self, of: PartOf, message: Message, direction: Direction | None) -> str:
        """The payload of a call or result; only the end of it, if parts came before."""
        total = self._parts.pop((direction, message.seq, of), None)
        return self._payload(message) if total is None else f"the last of {total} bytes, {self._payload(message)}"

    def _name(self, tag: int) -> str:
        name = self._names.get(tag)
        return f"{tag:#x}" if name is None else f"{name} ({tag:#x})"

    def _payload(self, message: Message) -> str:
        return describe_payload(message.payload, self._shown)


def describe_payload(payload: bytes | memoryview, shown: int) -> str:
    """Bytes for people: how many, and the first of them, as text if that is what they are."""
    size = f"{len(payload)} byte{'' if len(payload) == 1 else 's'}"
    if not payload or not shown:
        return size
    begin = bytes(payload[:shown])
    text = begin.decode("utf-8", "ignore")
    more = "…" if len(payload) > shown else ""
    # A character may be cut in two where the excerpt ends: up to three bytes of it are missing then.
    whole = len(begin) - len(text.encode()) <= (3 if more else 0)
    if whole and text and all(char.isprintable() or char in "\n\t\r" for char in text):
        return f"{size}: {text!r}{more}"
    return f"{size}: {begin.hex(' ')}{more}"


def _fields(message: Message) -> str:
    return f" [number {message.seq}, tag {message.tag:#x}, aux {message.aux}]"


def _date(time: float) -> str:
    if not math.isfinite(time):
        return "at no time"
    try:
        return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"at {time:g}"
