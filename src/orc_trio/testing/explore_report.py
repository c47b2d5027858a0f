"""A history that breaks a law, as a sequence diagram for people.

The controller is on the left, the executor on the right, the channel between them.  A message is drawn twice: when it
is handed to the channel (``CALL #1 ──▷``) and when it arrives (``──▶ CALL #1``).  Below a step stands what it made
happen; at the end the law that does not hold.
"""

from __future__ import annotations

from typing import Final

import attrs

from orc_trio.wire.messages import Message, Opcode, PartOf, ResultKind

__all__ = ["Counterexample", "Line"]

_WIDTH: Final = 44
_NAMES: Final = ("controller", "executor")
_SAID: Final = {
    "cancel": "the caller of {} leaves",
    "cancel nested": "the nested caller of {} leaves",
    "call": "caller {} calls",
    "answer": "the handler of #{} answers",
    "ping": "pings",
    "disconnect": "disconnects",
    "finish": "begins to stop softly",
    "hang up": "has finished, and hangs up",
    "send failed": "sees that its send failed",
    "close": "closes",
    "give up": "gives up waiting, closes",
    "end of stream": "reads the end of the stream",
}


@attrs.frozen
class Line:
    """One step.

    Attributes:
        side: Which end: 0, 1, or 2 for the channel.
        what: What it did.
        which: With which call, or how much.
        messages: Those sent, received or lost.
        notes: What it made happen.
    """

    side: int
    what: str
    which: int
    messages: tuple[Message, ...]
    notes: tuple[str, ...]


@attrs.frozen
class Counterexample:
    """A shortest history that breaks a law.

    Attributes:
        law: Which.
        lines: The steps.
    """

    law: str
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        rows = [f"     {_NAMES[0]:^{_WIDTH}}│{_NAMES[1]:^{_WIDTH}}", f"     {'─' * _WIDTH}┼{'─' * _WIDTH}"]
        for number, line in enumerate(self.lines, 1):
            for index, text in enumerate(_texts(line)):
                label = f"{number:4}" if index == 0 else "    "
                rows.append(f"{label} {_placed(text, line.side)}".rstrip())
        return "\n".join([*rows, f"     ✗ {self.law}"])


def _placed(text: str, side: int) -> str:
    if side == 0:
        return f"{text:<{_WIDTH}}│"
    if side == 1:
        return f"{'':{_WIDTH}}│ {text}"
    return f"{f' {text} ':┄^{2 * _WIDTH + 1}}"


def _texts(line: Line) -> list[str]:
    right = line.side == 0
    names = ", ".join(map(_name, line.messages))
    if line.side == 2:
        head = f"{line.what}, " + (f"{names} lost" if names else "nothing lost")
    elif line.what == "take":
        head = f"{names} ──▷" if right else f"◁── {names}"
    elif line.what == "receive":
        head = f"{names} ◀──" if right else f"──▶ {names}"
    else:
        head = _SAID[line.what].format(line.which)
    return [head, *(f"  · {note}" for note in line.notes)]


def _name(message: Message) -> str:
    name = Opcode(message.opcode).name
    match message.opcode:
        case Opcode.HANG_UP:
            return f"{name} (watermark {message.aux})"
        case Opcode.CALL | Opcode.NESTED_CALL:
            return f"{name} #{message.seq} (call {message.tag})"
        case Opcode.RESULT:
            return f"{name} #{message.seq} {ResultKind(message.aux).name.lower()}"
        case Opcode.PART:
            return f"{name} of {PartOf(message.tag).name.lower()} #{message.seq}"
        case Opcode.CANCEL:
            return f"{name} #{message.seq}"
        case _:
            return name
