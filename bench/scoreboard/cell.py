"""One cell of the scoreboard: a fresh pair of processes, told what to do, and watched.

Rules
-----
* Nothing is reused: every cell has processes, a pipe and a directory of its own, and nothing of them is left.
* Every wait is bounded.  A hang is an outcome like another.
* Times come from the processes' own clock readings (the system's monotonic clock is one for all), so it does not
  matter when the driver gets to read them.  A time counts from the *trigger*: the signal, or the first close begun.
* What is timed is alone on the machine: a cell holds the turn from its start until `ALONE` seconds after its trigger.
  Cells that only wait, wait together.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

Outcome: TypeAlias = dict[str, Any]
"""What became of a call or a close: ``how``, ``ms``, and for an error ``type`` and ``text``; see `results`."""

SETUP = 30.0
"""Seconds to connect and to get the first call going."""
ALONE = 2.0
"""Seconds after the trigger for which no other cell may do anything."""

_POLL = 0.1
_TEXT = 120


class BrokenCellError(Exception):
    """The pair did not get as far as the probe; says why."""


class Cell:
    """A near and a far process.  A context manager: leaving kills both.

    Args:
        command: Starts the adapter; ``near`` and the path of the pipe are put after its second word (the program).
        watch: Seconds after the trigger within which something must happen.
        turn: Held while the cell needs the machine for itself.
        orderly: The names of the error types by which this library says that a connection ended in good order.
    """

    def __init__(self, command: Sequence[str], watch: float, turn: threading.Lock, orderly: Sequence[str] = ()) -> None:
        self._command = list(command)
        self._watch = watch
        self._turn = turn
        self._orderly = orderly
        self._events: list[dict[str, Any]] = []
        self._unread = b""
        self._ops = 0
        self._alone_until = float("inf")
        self._far: int | None = None

    def __enter__(self) -> Self:
        self._turn.acquire()
        self._my_turn = True
        self._directory = Path(tempfile.mkdtemp(prefix="cell-"))
        path = self._directory / "events"
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._stderr = (self._directory / "stderr").open("w+")
        program = self._command[:2]
        self._near = subprocess.Popen(
            [*program, "near", str(path), *self._command[2:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,  # one signal ends everything that stayed in it
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._far is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._far, signal.SIGKILL)
            os.close(self._far)
        # Not waited for until now: as long as it is not, its number and its group's number are its own.
        os.killpg(self._near.pid, signal.SIGKILL)
        assert self._near.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._near.stdin.close()
        self._near.wait()
        os.close(self._pipe)
        self._stderr.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._let_others()

    # What is done to the pair.

    def connect(self) -> None:
        """Wait until the pair is connected."""
        if not self._wait(lambda: bool(self._find("connected") and self._find("hello")), SETUP):
            raise BrokenCellError(f"no connection: {self._last_words()}")

    def begin_call(self, name: str) -> int:
        """Begin to call a far function; returns the operation's number."""
        (op,) = self._numbers(1)
        self._tell(do="call", op=op, name=name)
        return op

    def begin_wait(self) -> int:
        """Begin a call that stays pending, and wait until the far end has started on it."""
        op = self.begin_call("wait")
        self._wait(lambda: bool(self._find("started") or self._find("settled", op)), SETUP)
        if not self._find("started"):
            failed = self._find("settled", op)
            why = f"{failed['type']}: {failed['text']}" if failed and "type" in failed else self._last_words()
            raise BrokenCellError(plain(f"the call did not start: {why}"))
        return op

    def begin_closes(self, count: int = 1) -> tuple[list[int], float]:
        """Begin to close, so many times at once; returns the operations' numbers and the trigger's time."""
        ops = self._numbers(count)
        sent = self.trigger()
        self._tell(do="close", ops=ops)
        self.watch(lambda: bool(self._find("begun", ops[0])))
        begun = self._find("begun", ops[0])
        return ops, begun["at"] if begun else sent

    def cancel(self, op: int) -> float:
        """Cancel an operation's caller; returns the trigger's time."""
        sent = self.trigger()
        self._tell(do="cancel", op=op)
        self.watch(lambda: bool(self._find("cancelling", op)))
        begun = self._find("cancelling", op)
        return begun["at"] if begun else sent

    def signal_far(self, number: signal.Signals) -> float:
        """Send the far process a signal; returns the trigger's time."""
        assert self._far is not None
        sent = self.trigger()
        signal.pidfd_send_signal(self._far, number)
        return sent

    def trigger(self) -> float:
        """Count time from now."""
        now = time.monotonic()
        self._alone_until = now + ALONE
        return now

    # What is seen of it.

    def watch(self, happened: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait for something, for the watch time or so many seconds; returns whether it happened."""
        return self._wait(happened, self._watch if seconds is None else seconds)

    def watch_settled(self, *ops: int) -> bool:
        """Wait until all these operations have settled."""
        return self.watch(lambda: all(self._find("settled", op) for op in ops))

    def settled_at(self, op: int) -> float | None:
        """When an operation settled."""
        event = self._find("settled", op)
        return event["at"] if event else None

    def begun_at(self, op: int) -> float | None:
        """When an operation was begun."""
        event = self._find("begun", op)
        return event["at"] if event else None

    def stopped_at(self) -> float | None:
        """When the far function stopped."""
        event = self._find("stopped")
        return event["at"] if event else None

    def outcome(self, op: int, since: float) -> Outcome:
        """What became of an operation; its time counts from ``since``."""
        event = self._find("settled", op)
        if event is None:
            if self._near_ended():
                return {"how": "crash", "text": self._last_words()}
            return {"how": "hang"}
        outcome: Outcome = {"how": event["how"], "ms": milliseconds(event["at"] - since)}
        if event["how"] == "error":
            outcome |= {"type": event["type"], "text": plain(event["text"])}
            if event["type"] in self._orderly:
                outcome["orderly"] = True
        return outcome

    # How.

    def _numbers(self, count: int) -> list[int]:
        first = self._ops + 1
        self._ops += count
        return list(range(first, first + count))

    def _tell(self, **command: object) -> None:
        assert self._near.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # seen as a crash
            self._near.stdin.write(json.dumps(command).encode() + b"\n")
            self._near.stdin.flush()

    def _find(self, did: str, op: int | None = None) -> dict[str, Any] | None:
        return next((e for e in self._events if e["did"] == did and (op is None or e["op"] == op)), None)

    def _wait(self, happened: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            gone = self._near_ended()
            self._read()
            if happened():
                return True
            now = time.monotonic()
            if gone or now > deadline:
                return False
            if now > self._alone_until:
                self._let_others()
            select.select([self._pipe], [], [], _POLL)

    def _near_ended(self) -> bool:
        return os.waitid(os.P_PID, self._near.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, 65536):
                self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            event = json.loads(line)
            self._events.append(event)
            if event["did"] == "hello" and self._far is None:
                # By this, and not by its number, which may be somebody else's one day.
                self._far = os.pidfd_open(event["pid"])

    def _let_others(self) -> None:
        if self._my_turn:
            self._my_turn = False
            self._turn.release()

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read().splitlines() if line.strip(" |+-")]
        return plain(lines[-1] if lines else "it said nothing")


def plain(text: str) -> str:
    """A text in short, without what is only true of this machine or this time: paths, addresses, ports, names."""
    text = text.replace(socket.gethostname(), "…")
    text = re.sub(r"(?<![:/\w])(?:/[\w.+@-]+){2,}", "…", text)
    text = re.sub(r"\b0x[0-9a-f]{6,}|\b[0-9a-f]{9,}\b|\b\d{4,}\b", "…", text)
    text = re.sub(r"…( …)+", "…", text)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def milliseconds(seconds: float) -> float:
    """Rounded to what can be told apart."""
    return round(seconds * 1000, 2)
