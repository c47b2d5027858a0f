# The benchmarks: that they measure what they say.  How fast anything is, no test says.

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from cli_helpers import Cli
from harness import FaultyStream, no_hang
from orc_trio.bench import cells, floor
from orc_trio.bench.cells import CELLS, Cell, Figure, Plan
from orc_trio.bench.subjects import SUBJECTS

SHORT = Plan(sets=1, rounds=2, seconds=0.02)


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capfdbinary)


@pytest.mark.parametrize("size", [0, 1, 65_532, 65_533, 1_000_000])
async def test_the_floor_gives_back_what_it_was_given(size: int) -> None:
    """A message of any size, cut anywhere, is sent back, once; and the end is an end."""
    ours, theirs = trio.socket.socketpair()
    stream, other = FaultyStream(trio.SocketStream(ours)), trio.SocketStream(theirs)
    stream.most = 3 if size < 100 else 1000
    payload = os.urandom(size)
    received = bytearray()

    async def receive_some(max_bytes: int | None = None) -> bytes:
        data = await FaultyStream.receive_some(stream, max_bytes)
        received.extend(data)
        return bytes(data)

    stream.receive_some = receive_some  # type: ignore[method-assign]
    with no_hang():
        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(floor.serve, other)
            async with stream:
                for _ in range(2):
                    received.clear()
                    await floor.ping_pong(stream, payload)  # type: ignore[arg-type]
                    assert received == size.to_bytes(4, "big") + payload


async def test_the_floor_says_that_the_other_end_has_closed() -> None:
    """A ping-pong that nobody answers is no message of no bytes, in whole or in part."""
    for last in (b"", b"\0\0\0\5ab"):
        ours, theirs = trio.socket.socketpair()
        stream, other = trio.SocketStream(ours), trio.SocketStream(theirs)
        async with stream:
            await other.send_all(last)
            await other.aclose()
            with pytest.raises((EOFError, trio.BrokenResourceError)):
                await floor.ping_pong(stream, b"")


@pytest.mark.parametrize("cell", [Cell(name, "floor", "tcp", 3, 1000) for name in SUBJECTS] + [CELLS[0]], ids=str)
async def test_every_subject_is_measured(cell: Cell) -> None:
    """A cell gives as many ratios as there are rounds, and leaves no process and no descriptor."""
    cores = os.sched_getaffinity(0)
    with no_hang():
        result = await cells.measure(cell, SHORT)
    assert result.cell is cell
    for figure in (result.speed, result.cpu):
        assert 0 < figure.low <= figure.median <= figure.high
    assert result.rate > 0
    assert os.sched_getaffinity(0) == cores
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222


def test_figures() -> None:
    """A figure is the median, between the quartiles."""
    assert Figure.of([1, 2, 3, 4, 100]) == Figure(median=3, low=2, high=4)
    assert str(CELLS[0]) == "orc_trio / floor, unix, 1 × 16 B"
    assert len(set(map(str, CELLS))) == len(CELLS)


def test_the_command(cli: Cli, tmp_path: Path) -> None:
    """A table on standard output, and everything as JSON; what cannot be written is told in a line."""
    options = ["--only", "1 × 16 B", "--sets", "1", "--rounds", "2", "--seconds", "0.01"]
    ended = cli("bench", *options, "--json", tmp_path / "results.json")
    assert ended.status == 0
    head, *lines = ended.out.decode().splitlines()
    assert head.split() == ["speed", "quartiles", "CPU", "calls/s", "here"]
    assert [line.split("  ")[0] for line in lines] == [str(cell) for cell in CELLS if "1 × 16 B" in str(cell)]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["plan"] == {"sets": 1, "rounds": 2, "seconds": 0.01}
    assert [result["cell"]["size"] for result in written["results"]] == [16] * len(lines)
    assert {"python", "trio", "orc_trio", "cbor2"} == set(written["versions"])
    ended = cli("bench", *options, "--json", tmp_path)
    assert ended.status == 2
    assert ended.err == f"orc-trio: {tmp_path}: Is a directory\n"


def test_no_such_cell(cli: Cli) -> None:
    """A name that no cell has is told, with those there are."""
    ended = cli("bench", "--only", "fast")
    assert ended.status == 2
    assert "no cell is named like that; there are: orc_trio / floor, unix" in ended.err
