# The benchmarks: that they measure what they say.  How fast anything is, no test says.

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio

from cli_helpers import Cli
from harness import FaultyStream, no_hang
from orc_trio.bench import cells, floor
from orc_trio.bench.cells import CELLS, Cell, Result
from orc_trio.bench.fairness import MODES, Fairness, measure_fairness
from orc_trio.bench.figures import Figure, Plan
from orc_trio.bench.growth import GROWTHS, Curve, Growth, Point
from orc_trio.bench.report import Report, regressions
from orc_trio.bench.subjects import SUBJECTS, open_here

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


async def test_an_upload_over_the_floor() -> None:
    """All of it arrives before it is answered; an end inside it is an end."""
    ours, theirs = trio.socket.socketpair()
    stream, other = trio.SocketStream(ours), trio.SocketStream(theirs)
    with no_hang():
        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(floor.swallow, other)
            async with stream:
                for size in (0, 1, 1_000_000):
                    await floor.upload(stream, bytes(size))
                nursery.cancel_scope.cancel()
    ours, theirs = trio.socket.socketpair()
    stream, other = trio.SocketStream(ours), trio.SocketStream(theirs)
    async with other:
        async with stream:
            await stream.send_all(b"\0\0\0\5ab")
        with pytest.raises(EOFError):
            await floor.swallow(other)
    ours, theirs = trio.socket.socketpair()
    stream, other = trio.SocketStream(ours), trio.SocketStream(theirs)
    async with stream:
        await other.aclose()
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await floor.upload(stream, b"")


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


@pytest.mark.parametrize("size", [16, 20_000])
async def test_the_skeleton_gives_everybody_his_own(size: int) -> None:
    """Many at once, also when the socket takes no more for a while: each caller gets what it sent."""
    with no_hang():
        async with open_here("skeleton", 40) as round_trips, trio.open_nursery() as callers:

            async def check(number: int) -> None:
                for _ in range(3):
                    payload = bytes([number]) * size
                    assert await round_trips[number](payload) == payload

            for number in range(40):
                callers.start_soon(check, number)


async def test_fairness_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mode is measured against small calls alone."""
    monkeypatch.setattr("orc_trio.bench.fairness._LARGE", 1024 * 1024)
    with no_hang():
        found = await measure_fairness(SHORT)
    assert [each.mode for each in found] == list(MODES)
    for each in found:
        assert each.alone > 0
        assert each.beside > 0
        assert each.rate > 0
        assert each.ratio.low > 0


@pytest.mark.parametrize("growth", GROWTHS, ids=str)
async def test_growth_is_measured(growth: Growth) -> None:
    """A point is what it says; and the limit on descriptors is as large as it has to be, and no larger."""
    with no_hang():
        point = await growth.point(40, SHORT)
    assert point.at == 40
    assert point.value > 0
    assert (point.ratio is not None) == bool(growth.curve.against)
    assert list(growth.steps) == sorted(set(growth.steps))


async def test_more_idle_connections_than_descriptors() -> None:
    """The soft limit is raised for this process and the serving one."""
    (idle,) = (growth for growth in GROWTHS if growth.curve.name == "idle connections")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        with no_hang():
            point = await idle.point(80, SHORT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert point.value > 0


def test_figures() -> None:
    """A figure is the median, between the quartiles."""
    assert Figure.of([1, 2, 3, 4, 100]) == Figure(median=3, low=2, high=4)
    assert str(CELLS[0]) == "orc_trio / floor, unix, 1 × 16 B"
    assert len(set(map(str, CELLS))) == len(CELLS)


def a_report(*, speed: float = 2.0, ratio: float = 0.5, beside: float = 2.0, held: float = 10.0) -> Report:
    """A report with one figure of each kind."""

    def figure(median: float) -> Figure:
        return Figure(median, median * 0.9, median * 1.1)

    return Report(
        SHORT,
        [Result(CELLS[0], speed=figure(speed), cpu=figure(1 / speed), rate=1000.0)],
        [Fairness("in parts", alone=0.001, beside=0.002, ratio=figure(beside), rate=1e9)],
        [
            Curve("calls in flight", "calls/s", "64", True, [Point(1, 5.0, figure(speed)), Point(10, 6.0, figure(1))]),
            Curve("pending", "µs each", "tasks", False, [Point(1, 5.0, figure(ratio))]),
            Curve("idle", "KiB each", "", False, [Point(1, held)]),
        ],
    )


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nothing is lost; what is no report is refused."""
    report = a_report()
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report
    for text in ("", "[]", "{}", '{"format": 2}', '{"format": 1, "plan": {}}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="not a report"):
            Report.load(tmp_path / "other.json")


def test_what_is_worse_is_told() -> None:
    """By more than the tolerance, in the direction that is worse; not what only one of the two has."""
    before = a_report()
    assert regressions(before, before, 0) == []
    assert regressions(before, a_report(speed=1.6, ratio=0.6, beside=2.5, held=12), 0.25) == []
    assert regressions(before, a_report(speed=9, ratio=0.1, beside=1, held=5), 0.25) == []
    assert regressions(before, a_report(speed=1.4, ratio=0.7, beside=2.7, held=14), 0.25) == [
        "orc_trio / floor, unix, 1 × 16 B: 1.40, was 2.00",
        "16 B beside 64 MiB, in parts: 2.70, was 2.00",
        "calls in flight, 1: 1.40, was 2.00",
        "pending, 1: 0.70, was 0.50",
        "idle, 1: 14.00, was 10.00",
    ]
    assert regressions(Report(SHORT), a_report(speed=0.1), 0.25) == []
    assert regressions(a_report(), Report(SHORT), 0.25) == []


DRAW = """
import sys
from pathlib import Path
from orc_trio.bench.plots import draw, save
from orc_trio.bench.report import Report

for name in sys.argv[1:]:
    report = Report.load(Path(name + ".json"))
    save(report, Path(name + ".svg"))
    print(*(axes.get_xlabel() for axes in draw(report).axes), sep=";")
"""


def test_a_report_is_drawn(tmp_path: Path) -> None:
    """Bars for the cells, a curve for each growth; also of half a report, and of none.

    In a process of its own, as matplotlib keeps its fonts open.
    """
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    report = a_report()
    parts = {
        "all": report,
        "cells": Report(SHORT, report.results),
        "curve": Report(SHORT, curves=report.curves[1:2]),
        "none": Report(SHORT),
    }
    for name, part in parts.items():
        part.save(tmp_path / f"{name}.json")
    done = subprocess.run(
        [sys.executable, "-c", DRAW, *parts], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    bars = "times as many calls in a second (median and quartiles)"
    assert done.stdout.splitlines() == [f"{bars};calls in flight;;pending;;idle", bars, "pending;", ""]
    for name in parts:
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


OPTIONS = ["--sets", "1", "--rounds", "2", "--seconds", "0.01"]


def test_the_command(cli: Cli, tmp_path: Path) -> None:
    """A table on standard output, and everything as JSON; what cannot be written is told in a line."""
    options = ["--only", "1 × 16 B", *OPTIONS]
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


def test_the_command_shows_everything(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fairness and growth have tables of their own; a report of before decides about the exit code."""
    monkeypatch.setattr("orc_trio.bench.fairness._LARGE", 1024 * 1024)
    few = [
        attrs.evolve(growth, steps=(1, 20))
        for growth in GROWTHS
        if growth.curve.name in ("calls in flight", "idle connections")
    ]
    monkeypatch.setattr("orc_trio.cli.bench.GROWTHS", few)
    only = ["--only", "fairness", "--only", "growth", *OPTIONS]
    ended = cli("bench", *only, "--json", tmp_path / "results.json")
    assert ended.status == 0
    tables = ended.out.decode().split("\n\n")
    assert [table.split("  ")[0] for table in tables] == [
        "99 of 100 calls of 16 B beside 64 MiB",
        *(growth.curve.name for growth in few),
    ]
    assert [len(table.splitlines()) for table in tables] == [1 + len(MODES), *(3 for _ in few)]

    report = Report.load(tmp_path / "results.json")
    (idle,) = (curve for curve in report.curves if curve.name == "idle connections")
    only = ["--only", "idle", *OPTIONS]
    assert cli("bench", *only, "--compare", tmp_path / "results.json").status == 0
    halved = [attrs.evolve(point, value=point.value / 2) for point in idle.points]
    report.curves = [attrs.evolve(idle, points=halved)]
    report.save(tmp_path / "results.json")
    ended = cli("bench", *only, "--compare", tmp_path / "results.json")
    assert ended.status == 1
    assert ended.err.startswith("orc-trio: worse than before: idle connections, 1: ")
    assert cli("bench", *only, "--compare", tmp_path / "results.json", "--tolerance", "0.7").status == 0


def test_what_the_command_needs_is_looked_at_first(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that is none, a picture of no known kind, no matplotlib: told before anything is measured."""
    (tmp_path / "none.json").write_text("{}")
    ended = cli("bench", "--compare", tmp_path / "none.json")
    assert ended.status == 2
    assert "none.json: not a report of orc-trio bench" in ended.err
    ended = cli("bench", "--compare", tmp_path / "absent.json")
    assert ended.status == 2
    assert ended.err.endswith("absent.json: No such file or directory\n")
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "orc_trio.bench.plots", raising=False)
        patch.setitem(sys.modules, "matplotlib", None)
        patch.setitem(sys.modules, "matplotlib.axes", None)
        ended = cli("bench", "--plot", tmp_path / "plot.svg")
    assert ended.status == 2
    assert "pip install 'orc-trio[plot]'" in ended.err


def test_a_picture(tmp_path: Path) -> None:
    """It is drawn beside the table; a kind that there is not is told before anything is measured."""
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    command = [sys.executable, "-m", "orc_trio", "bench", "--only", "unix, 1 × 16 B", *OPTIONS, "--plot"]
    done = subprocess.run([*command, tmp_path / "plot.svg"], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("  ")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    done = subprocess.run([*command, "plot.doc"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "the name must end in one of" in done.stderr


def test_no_such_cell(cli: Cli) -> None:
    """A name that no cell has is told, with those there are."""
    ended = cli("bench", "--only", "fast")
    assert ended.status == 2
    assert "nothing is named like that; there are: orc_trio / floor, unix" in ended.err
