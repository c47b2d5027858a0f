# The comparison with other libraries (bench/speed): its driver, with the two peers that need no environment, and with
# peers that do not do their part.

from __future__ import annotations

import subprocess
import sys
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


def adapter(folder: Path, text: str) -> list[str]:
    """An adapter that is a few lines."""
    path = folder / "adapter.py"
    path.write_text(f"import sys; sys.path.append({str(ADAPTERS)!r})\n{text}\n")
    return [sys.executable, str(path)]


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
    done = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)  # noqa: ASYNC221
    assert done.stdout == ""


async def test_a_pair_that_is_cancelled(tmp_path: Path) -> None:
    """Nothing is left of it."""
    with no_hang(), trio.move_on_after(0.1):
        async with open_pair(adapter(tmp_path, SLOW), "unix", 1, 16) as opened:
            await opened.take_slice(60)
    done = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)  # noqa: ASYNC221
    assert done.stdout == ""


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
    assert "orc_trio / dead, unix, 1 × 16 B: not today" in capsys.readouterr().out


def test_who_there_is() -> None:
    """Everybody has an adapter; a name that nobody has is told."""
    assert chosen([]) == list(PEERS)
    assert [peer.name for peer in chosen(["rpyc"])] == ["rpyc"]
    with pytest.raises(LookupError, match="no such peer: nobody"):
        chosen(["nobody"])
    for peer in PEERS:
        assert (ADAPTERS / peer.adapter).is_file()
