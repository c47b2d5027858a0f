# The comparison with other libraries (bench/speed): its driver, with the two peers that need no environment, and with
# peers that do not do their part.

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from harness import no_hang
from orc_trio.bench.cells import Cell
from orc_trio.bench.figures import Plan
from orc_trio.bench.report import Report
from scoreboard.venvs import Environment, InstallError
from speed import __main__ as driver
from speed import pair
from speed.pair import BrokenPeerError, open_pair
from speed.peers import ADAPTERS, PEERS, SUBJECT, Peer, chosen

SHORT = Plan(sets=1, rounds=2, seconds=0.02)
OURS = [sys.executable, str(SUBJECT)]
FLOOR = [sys.executable, str(ADAPTERS / "peer_floor.py")]
SLOW = "import time; from ends import *; main(near_threads(lambda _: lambda data: time.sleep(0.01) or data), listening)"
TRIO = """
import itertools
from contextlib import asynccontextmanager
from ends import *

earlier = itertools.count()

@asynccontextmanager
async def connect(_address, calls):
    yield [echo] * calls

async def echo(payload):
    {}

main(near_trio(connect), listening)
"""


def adapter(folder: Path, text: str) -> list[str]:
    """An adapter that is a few lines."""
    path = folder / "adapter.py"
    path.write_text(f"import sys; sys.path.append({str(ADAPTERS)!r})\n{text}\n")
    return [sys.executable, str(path)]


def left(folder: Path) -> str:
    """The processes whose command names something in the folder."""
    return subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True).stdout


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("calls", [1, 3])
async def test_a_cell(kind: str, calls: int) -> None:
    """Both are called as often as there is time, and both processes' time is counted."""
    with no_hang():
        result = await driver.measure(Cell("orc_trio", "floor", kind, calls, 1000), OURS, FLOOR, SHORT)
    for figure in (result.speed, result.cpu):
        assert 0 < figure.low <= figure.median <= figure.high
    assert result.rate > 0


async def test_which_of_the_two(tmp_path: Path) -> None:
    """More than 1 is: we are faster."""
    slow = adapter(tmp_path, SLOW)
    with no_hang():
        faster = await driver.measure(Cell("orc_trio", "slow", "unix", 1, 16), OURS, slow, SHORT)
        slower = await driver.measure(Cell("orc_trio", "slow", "unix", 1, 16), slow, OURS, SHORT)
    assert faster.speed.median > 1 > slower.speed.median


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ImportError('no such thing')", "ImportError: no such thing"),
        ("pass", "it ended without a word"),
        (
            "from ends import *; main(lambda *_: print('ready', flush=True), listening)",
            "it ended without a word|it is gone",
        ),
        (
            "from ends import *; main(near_threads(lambda _: lambda _: b'other'), listening)",
            "the answer is something else",
        ),
        (TRIO.format("return b'other'"), "the answer is something else"),
        (TRIO.format("raise ValueError('torn')"), "ValueError: torn"),
        (TRIO.format("if next(earlier): raise ValueError('later')\n    return payload"), "ValueError: later"),
        (
            "from ends import *; main(lambda *_: [print('hello', flush=True) for _ in slices()], listening)",
            "it said 'hello'",
        ),
        ("from ends import *; main(lambda *_: time.sleep(60), listening)", "nothing happened for 1 s"),
    ],
)
async def test_a_peer_that_does_not_do_its_part(
    text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words are the reason; and nothing is left of it."""
    monkeypatch.setattr(pair.Program.read_line, "__defaults__", (1.0,))
    with no_hang():
        with pytest.raises(BrokenPeerError, match=why):
            async with open_pair(adapter(tmp_path, text), "unix", 1, 16) as opened:
                await opened.take_slice(0.01)
    assert not left(tmp_path)


async def test_a_pair_that_is_cancelled(tmp_path: Path) -> None:
    """Nothing is left of it."""
    with no_hang(), trio.move_on_after(0.1):
        async with open_pair(adapter(tmp_path, SLOW), "unix", 1, 16) as opened:
            await opened.take_slice(60)
    assert not left(tmp_path)


def test_threads_are_connected_before_anything_is_timed(tmp_path: Path) -> None:
    """Each has a connection of its own when the first slice is asked for."""
    text = f"""
from ends import *
def connect(_address):
    with open({str(tmp_path / "connected")!r}, "a") as file:
        print(threading.get_ident(), file=file)
    time.sleep(0.05)
    return lambda data: data
main(near_threads(connect), listening)
"""

    async def count() -> list[str]:
        async with open_pair(adapter(tmp_path, text), "unix", 5, 16):
            return (tmp_path / "connected").read_text().splitlines()

    threads = trio.run(count)
    assert len(threads) == len(set(threads)) == 5


def test_a_driver_that_is_killed(tmp_path: Path) -> None:
    """Its processes end by themselves, also those that hang."""
    hanging = adapter(tmp_path, "from ends import *; main(lambda *_: time.sleep(120), listening)")
    program = (
        f"import sys; sys.path[:0] = [{str(ADAPTERS.parents[1])!r}]\n"
        "import trio; from speed.pair import open_pair\n"
        "async def main():\n"
        f"    async with open_pair({hanging!r}, 'unix', 1, 16): pass\n"
        "trio.run(main)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        until = time.monotonic() + 60
        while " near " not in subprocess.run(["pgrep", "-af", str(tmp_path)], capture_output=True, text=True).stdout:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.kill()
    while left(tmp_path):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are named are measured and shown; what the file says of others stays."""
    monkeypatch.setattr(driver, "SIZES", (16,))
    monkeypatch.setattr(driver, "IN_FLIGHT", (1,))
    results = tmp_path / "results.json"
    other = Report(SHORT, problems={"rpyc": "not installed: no", "floor, 1 × 16 B": "it is gone"})
    other.save(results)
    options = ["--results", str(results), "--sets", "1", "--rounds", "2", "--seconds", "0.02"]
    monkeypatch.setattr(sys, "argv", ["speed", "--cache", str(tmp_path), *options, "floor"])
    driver.main()
    shown = capsys.readouterr()
    assert "orc_trio / floor, unix, 1 × 16 B: " in shown.err
    assert [line.split("  ")[0] for line in shown.out.splitlines()] == ["", "orc_trio / floor, unix, 1 × 16 B"]
    report = Report.load(results)
    assert [result.cell.against for result in report.results] == ["floor"]
    assert report.problems == {"rpyc": "not installed: no"}


def test_the_summary() -> None:
    """A problem of a peer that was asked for is told; not one of another."""
    report = Report(SHORT, problems={"rpyc, 1 × 16 B": "it is gone", "Pyro5": "not installed: no"})
    assert list(driver.summary(report, chosen(["rpyc"]))) == ["rpyc, 1 × 16 B: it is gone"]


def test_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is measured again replaces what there was; the rest stays; what could not be measured is told."""
    monkeypatch.setattr(driver, "SIZES", (16,))
    monkeypatch.setattr(driver, "IN_FLIGHT", (1,))
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('not today')")
    absent = Peer("absent", "absent", ("absent==1",), "none.py")

    def prepare(peer: Peer, _cache: Path) -> Environment:
        assert peer is absent
        raise InstallError("no matching distribution")

    monkeypatch.setattr(driver, "prepare", prepare)
    dead = Peer("dead", "dead", (), str(broken))
    report = Report(SHORT)
    floor = PEERS[0]
    for peer in (floor, dead, absent, floor):
        driver.run(peer, tmp_path / "cache", SHORT, report)
    assert [str(result.cell) for result in report.results] == ["orc_trio / floor, unix, 1 × 16 B"]
    assert set(report.problems) == {"dead, 1 × 16 B", "absent"}
    assert report.problems["dead, 1 × 16 B"] == "not today"
    assert report.problems["absent"] == "not installed: no matching distribution"
    report.save(tmp_path / "results.json")
    assert Report.load(tmp_path / "results.json") == report
    assert "orc_trio / dead, unix, 1 × 16 B: not today" in capsys.readouterr().err


def test_who_there_is() -> None:
    """Everybody has an adapter; a name that nobody has is told."""
    assert chosen([]) == list(PEERS)
    assert [peer.name for peer in chosen(["rpyc"])] == ["rpyc"]
    with pytest.raises(LookupError, match="no such peer: nobody"):
        chosen(["nobody"])
    for peer in PEERS:
        assert (ADAPTERS / peer.adapter).is_file()
