# The profiles (bench/profiles.py): which line belongs to which room.

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import orc_trio
import profiles

SOURCE = Path(orc_trio.__file__).parent
TRIO = Path(trio.__file__).parent


def line_of(path: Path, text: str) -> tuple[str, int]:
    """The line with this text."""
    (number, *_) = (number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)
    return str(path), number


@pytest.mark.parametrize(
    ("line", "room"),
    [
        (line_of(SOURCE / "sockets.py", "os.readv("), profiles.SYSTEM),
        (line_of(SOURCE / "sockets.py", "self.activity += 1"), "sockets, pumps: moving messages"),
        (line_of(TRIO / "_core" / "_io_epoll.py", "self._epoll.poll("), profiles.SYSTEM),
        (line_of(TRIO / "_core" / "_run.py", "def reschedule"), "Trio: tasks, scopes, waiting"),
        (("<attrs generated methods trio._core._traps.WaitTaskRescheduled>", 28), "Trio: tasks, scopes, waiting"),
        (("<attrs generated methods orc_trio.calling.A>", 1), "calling, connection, controller: making a call"),
        (line_of(SOURCE / "wire" / "decoding.py", "def feed"), "wire: encoding, decoding, buffers"),
        (line_of(SOURCE / "protocol" / "peer.py", "def receive"), "protocol: what may happen, and what follows"),
        (line_of(SOURCE / "calling.py", "def make_call"), "calling, connection, controller: making a call"),
        (line_of(SOURCE / "dispatch.py", "def serve"), "handlers, dispatch, session: serving a call"),
        (line_of(SOURCE / "bench" / "subjects.py", "def _echo"), "the benchmark itself"),
        ((json.__file__, 10), profiles.OTHER),
        (("<string>", 1), profiles.OTHER),
    ],
)
def test_rooms(line: tuple[str, int], room: str) -> None:
    """By the file; a system call by its line."""
    assert profiles.room(*line) == room


def test_the_table() -> None:
    """A column for each cell; the room with the most to do first."""
    cells = [
        {"calls": 1, "size": 16, "shares": {"a": 0.3, "b": 0.7}},
        {"calls": 64, "size": 1024, "shares": {"a": 1.0}},
    ]
    assert profiles.table(cells) == (
        ["Room", "1 × 16 B", "64 × 1 KiB"],
        [["a", "30%", "100%"], ["b", "70%", "0%"]],
    )


def test_what_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls for as long as it is told to, and what it saw running is mostly known."""
    monkeypatch.setenv("PYTHONPATH", str(Path(profiles.__file__).parent))
    command = [sys.executable, "-m", "profiles", "--be", "3", "1000", "--seconds", "0.5"]
    done = subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert found.keys() <= {*profiles.ROOMS, profiles.SYSTEM, profiles.OTHER}
    assert sum(found.values()) > 10
    assert found.get(profiles.OTHER, 0) < sum(found.values()) / 2
