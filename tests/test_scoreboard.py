# The scoreboard (bench/scoreboard): the rules for verdicts, the results file, the driver, and our own adapter.
#
# Nothing is installed here and no other library is run; what they do is in the committed results file.

from __future__ import annotations

import copy
import json
import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoreboard import results
from scoreboard.__main__ import run_cell
from scoreboard.cell import BrokenCellError, Cell, plain
from scoreboard.peers import ADAPTERS, PEERS, chosen
from scoreboard.probes import PROBES
from scoreboard.verdicts import NOTICE_MS, PROMPT_MS, RULES, Verdict, judge, main_time, shown

WATCH = 30.0
"""Seconds: what settles at all settles long before."""

TYPED = {"how": "error", "ms": 3.0, "type": "library.Closed", "text": ""}
LATE = {**TYPED, "ms": PROMPT_MS + 1}
BARE = {**TYPED, "type": "Exception"}
ORDERLY = {**TYPED, "orderly": True}
RETURNS = {"how": "result", "ms": 1.0}
CANCELLED = {"how": "cancelled", "ms": 1.0}
HANG = {"how": "hang"}
CRASH = {"how": "crash", "text": "Segmentation fault"}
CLOSES = {"call": TYPED, "closes": 8, "returned": 8, "early": 0, "errors": 0, "first_ms": 1.0, "last_ms": 2.0}
STOPPED = {"call": CANCELLED, "handler": "stopped", "handler_ms": 1.0, "next": RETURNS}


# The rules.


@pytest.mark.parametrize(
    ("probe", "facts", "verdict"),
    [
        ("A", {"call": TYPED}, "GOOD"),
        ("A", {"call": LATE}, "POOR"),
        ("A", {"call": BARE}, "POOR"),
        ("A", {"call": {**BARE, "type": "BaseException"}}, "POOR"),
        ("A", {"call": ORDERLY}, "BAD"),
        ("A", {"call": HANG}, "BAD"),
        ("A", {"call": CRASH}, "BAD"),
        ("A", {"call": CANCELLED}, "BAD"),
        ("A", {"call": RETURNS}, "BAD"),
        ("B", {"call": TYPED, "close": RETURNS}, "GOOD"),
        ("B", {"call": ORDERLY, "close": RETURNS}, "GOOD"),
        ("B", {"call": TYPED, "close": {**RETURNS, "ms": 1001.0}}, "POOR"),
        ("B", {"call": TYPED, "close": TYPED}, "POOR"),
        ("B", {"call": TYPED, "close": HANG}, "BAD"),
        ("B", {"call": TYPED, "close": CRASH}, "BAD"),
        ("B", {"call": TYPED, "close": CANCELLED}, "BAD"),
        ("B", {"call": CANCELLED, "close": RETURNS}, "BAD"),
        ("C", {"call": TYPED, "close": {**RETURNS, "ms": 5010.0}}, "GOOD"),
        ("C", {"call": TYPED, "close": {**RETURNS, "ms": 10_001.0}}, "POOR"),
        ("C", {"call": LATE, "close": RETURNS}, "POOR"),
        ("D", {"call": TYPED, "close": RETURNS}, "GOOD"),
        ("D", {"call": RETURNS, "close": RETURNS}, "BAD"),
        ("D", {"call": TYPED, "close": HANG}, "BAD"),
        ("E", CLOSES, "GOOD"),
        ("E", {**CLOSES, "early": 1}, "BAD"),
        ("E", {**CLOSES, "returned": 7}, "BAD"),
        ("E", {**CLOSES, "errors": 7}, "POOR"),
        ("E", {**CLOSES, "last_ms": 1001.0}, "POOR"),
        ("E", {**CLOSES, "call": CANCELLED}, "BAD"),
        ("E", {"call": HANG, "closes": 8, "returned": 0, "early": 0, "errors": 0}, "BAD"),
        ("F", {"call": {**TYPED, "ms": NOTICE_MS}}, "GOOD"),
        ("F", {"call": {**TYPED, "ms": NOTICE_MS + 1}}, "POOR"),
        ("F", {"call": ORDERLY}, "BAD"),
        ("F", {"call": HANG}, "BAD"),
        ("G", STOPPED, "GOOD"),
        ("G", {**STOPPED, "call": {**CANCELLED, "ms": PROMPT_MS + 1}}, "POOR"),
        ("G", {"call": CANCELLED, "handler": "ran on", "next": RETURNS}, "POOR"),
        ("G", {**STOPPED, "next": HANG}, "BAD"),
        ("G", {**STOPPED, "next": TYPED}, "BAD"),
        ("G", {**STOPPED, "call": HANG}, "BAD"),
        ("G", {"broken": "no connection"}, "NONE"),
    ],
)
def test_verdicts(probe: str, facts: dict[str, Any], verdict: str) -> None:
    """Each probe's facts are judged by its written rule, and whatever is not good has a reason."""
    found, why = judge(probe, facts)
    assert found.name == verdict
    assert bool(why) == (found is not Verdict.GOOD)


def test_the_middle_run_is_shown() -> None:
    """Of several runs the middle one is shown, by verdict first and by time second; and how many are like it."""
    runs = [{"call": HANG}, {"call": {**TYPED, "ms": 5.0}}, {"call": {**TYPED, "ms": 3.0}}]
    cell = shown("A", runs)
    assert cell is not None
    assert cell.facts is runs[1]
    assert (cell.judgement.verdict, cell.runs, cell.alike) == (Verdict.GOOD, 3, 2)
    assert shown("A", []) is None


def test_of_two_runs_the_worse_is_shown() -> None:
    """Of an even number of runs, the worse of the two in the middle is shown."""
    cell = shown("A", [{"call": LATE}, {"call": TYPED}])
    assert cell is not None
    assert cell.judgement.verdict is Verdict.POOR


def test_a_runs_time_is_that_until_all_is_over() -> None:
    """The time that stands for a run is the longest of what had to happen; none if something never did."""
    assert main_time("B", {"call": TYPED, "close": {**RETURNS, "ms": 9.0}}) == 9.0
    assert main_time("B", {"call": TYPED, "close": HANG}) is None
    assert main_time("D", {"call": TYPED, "close": {**RETURNS, "ms": 9.0}}) == 3.0
    assert main_time("E", {**CLOSES, "last_ms": 9.0}) == 9.0
    assert main_time("E", {**CLOSES, "returned": 7}) is None
    assert main_time("A", {"broken": "no connection"}) is None


# The results file.


@pytest.fixture
def committed() -> results.Results:
    """The results that are in the repository."""
    return results.load()


def rows(found: results.Results) -> dict[str, Any]:
    """Its peers by their keys."""
    return {results.key(peer): peer for peer in found["peers"]}


def test_the_committed_results_are_complete(committed: results.Results) -> None:
    """Every peer has its row, in order, with at least three runs of every probe it offers, or says why not."""
    assert list(rows(committed)) == [peer.key for peer in PEERS]
    for peer in PEERS:
        row = rows(committed)[peer.key]
        if not row["problem"]:
            assert sorted(row["cells"]) == sorted(set(peer.probes) - set(peer.absent)), peer.key
            assert all(len(runs) >= 3 for runs in row["cells"].values()), peer.key


def test_ours_is_good_in_every_cell(committed: results.Results) -> None:
    """In the committed results ours is good in every run of every cell, but for F, which needs the liveness check."""
    ours = {key: row for key, row in rows(committed).items() if row["name"] == "orc_trio"}
    not_good = {
        (key, probe)
        for key, row in ours.items()
        for probe, runs in row["cells"].items()
        if any(judge(probe, facts).verdict is not Verdict.GOOD for facts in runs)
    }
    assert not_good == {("orc_trio", "F")}
    assert set(ours["orc_trio"]["cells"]) == set(RULES)
    assert list(ours["orc_trio (liveness_timeout=1.0)"]["cells"]) == ["F"]


def test_the_committed_results_name_no_place() -> None:
    """No path is in the results: of a home directory, a temporary one, an environment, or a source file."""
    text = results.FILE.read_text()
    assert [word for word in ("/home", "/root", "/tmp", "/work", "site-packages", ".py") if word in text] == []


SPOILERS: dict[str, Callable[[results.Results], object]] = {
    "format": lambda found: found.update(format=0),
    "conditions": lambda found: found["conditions"].update(cpu=None),
    "watch time": lambda found: found["conditions"].update(watch_s="long"),
    "twice": lambda found: found["peers"].append(found["peers"][0]),
    "no version": lambda found: found["peers"][0].pop("version"),
    "problem and cells": lambda found: found["peers"][0].update(problem="not installed"),
    "no such probe": lambda found: found["peers"][0]["cells"].update(Z=[{}]),
    "no runs": lambda found: found["peers"][0]["cells"].update(A=[]),
    "no such outcome": lambda found: found["peers"][0]["cells"].update(A=[{"call": {"how": "well"}}]),
    "no call": lambda found: found["peers"][0]["cells"].update(A=[{}]),
    "no type": lambda found: found["peers"][0]["cells"].update(A=[{"call": {**TYPED, "type": None}}]),
    "negative time": lambda found: found["peers"][0]["cells"].update(A=[{"call": {**TYPED, "ms": -1}}]),
    "more early than returned": lambda found: found["peers"][0]["cells"].update(E=[{**CLOSES, "early": 9}]),
    "last before first": lambda found: found["peers"][0]["cells"].update(E=[{**CLOSES, "last_ms": 0.5}]),
    "handler": lambda found: found["peers"][0]["cells"].update(G=[{**STOPPED, "handler": "?"}]),
    "no results": lambda found: found.clear(),
}


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_a_spoilt_file_is_found_out(
    spoil: Callable[[results.Results], object], committed: results.Results, tmp_path: Path
) -> None:
    """A results file with anything wrong in it is refused."""
    spoilt = copy.deepcopy(committed)
    spoil(spoilt)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(spoilt))
    with pytest.raises(ValueError, match=r"\S"):
        results.load(path)


def test_what_is_saved_is_what_is_loaded(committed: results.Results, tmp_path: Path) -> None:
    """Saving and loading changes nothing, and the committed file is as the driver writes it."""
    path = tmp_path / "results.json"
    results.save(committed, path)
    assert results.load(path) == committed
    assert path.read_text() == results.FILE.read_text()


def test_merging_replaces_what_is_new(committed: results.Results) -> None:
    """A merge replaces the rows that were measured again, keeps the others and the order, and drops unknown peers."""
    order = [peer.key for peer in PEERS]
    again = {**rows(committed)["rpyc"], "version": "99"}
    stranger = {**again, "name": "gone"}
    merged = results.merge(
        {**committed, "peers": [stranger, *committed["peers"]]}, {**committed, "peers": [again]}, order
    )
    assert list(rows(merged)) == order
    assert rows(merged)["rpyc"]["version"] == "99"
    assert rows(merged)["orc_trio"] == rows(committed)["orc_trio"]


def test_other_conditions_are_not_merged(committed: results.Results) -> None:
    """Results from another machine, or of another watch time, are not mixed in."""
    elsewhere = {**committed, "conditions": {**committed["conditions"], "cores": 3}}
    with pytest.raises(results.OtherConditionsError):
        results.merge(committed, elsewhere, [])


# The peers, and the driver.


def test_peers() -> None:
    """Each peer has a key of its own and an adapter; a name stands for all its rows; a wrong name is an error."""
    assert len({peer.key for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        compile((ADAPTERS / peer.adapter).read_text(), peer.adapter, "exec")
        assert set(peer.absent) <= set(peer.probes) <= set(PROBES) == set(RULES)
    assert [peer.key for peer in chosen(["orc_trio"])] == ["orc_trio", "orc_trio (liveness_timeout=1.0)"]
    assert chosen([]) == list(PEERS)
    with pytest.raises(LookupError, match="nobody"):
        chosen(["nobody", "rpyc"])


def test_plain_text() -> None:
    """A text is told without paths, addresses and ports, but with the addresses of projects, and is cut."""
    assert plain("in /usr/lib/x.py: <A at 0x7f0012345678> port 43210") == "in …: <A at …> port …"
    assert plain("stack: 7ff497a8f064 7ff497a85880 end") == "stack: … end"
    assert plain("needs a @ git+https://example.org/a/b ; now") == "needs a @ git+https://example.org/a/b ; now"
    assert len(plain("x" * 1000)) == 120


def cell(*arguments: str, watch: float = WATCH) -> Cell:
    """A cell with the peer that does as it is told."""
    program = str(Path(__file__).with_name("scoreboard_adapter.py"))
    return Cell([sys.executable, program, *arguments], watch, threading.Lock(), orderly=["LookupError"])


def test_outcomes() -> None:
    """The driver tells a result from an error, and an error that means good order from others."""
    with cell("raise", "return") as pair:
        pair.connect()
        facts = PROBES["B"](pair)
    assert facts["close"].keys() == {"how", "ms"}
    assert facts["close"]["how"] == "result"
    assert facts["call"].items() >= {"how": "error", "type": "LookupError", "text": "as told", "orderly": True}.items()


def test_a_hang_is_an_outcome() -> None:
    """What has not settled when the watch time is over hangs, and the rest is told all the same."""
    with cell("hang", "return", watch=3.0) as pair:
        pair.connect()
        facts = PROBES["E"](pair)
    assert facts["call"] == {"how": "hang"}
    assert (facts["returned"], facts["early"], facts["errors"]) == (8, 8, 0)


def test_a_crash_is_an_outcome() -> None:
    """A near process that ends is not waited for: its last words are the outcome."""
    with cell("hang", "exit") as pair:
        pair.connect()
        facts = PROBES["B"](pair)
    assert facts["call"] == facts["close"] == {"how": "crash", "text": "these are my last words"}


def test_a_cell_that_does_not_begin() -> None:
    """A call that fails before the far end has it is no outcome: the cell is broken, and says why."""
    with cell("refuse", "return") as pair:
        pair.connect()
        with pytest.raises(BrokenCellError, match="did not start: LookupError: as told"):
            PROBES["A"](pair)


def test_a_cell_leaves_nothing(tmp_path: Path) -> None:
    """When a cell is left, its processes are gone: a frozen one, one in another session, and one nobody knew of."""
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    with cell("hang", "return", str(held), watch=0.1) as pair:
        pair.connect()
        PROBES["F"](pair)
    ended, _, _ = select.select([reader], [], [], WATCH)
    assert ended  # nobody holds it any more
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize("probe", ["A", "B"])
def test_our_adapter(probe: str) -> None:
    """G11: through the scoreboard's driver, a killed peer and a local close are told to the caller by a typed error."""
    facts = run_cell(chosen(["orc_trio"])[0], probe, sys.executable, WATCH, threading.Lock())
    assert facts["call"]["how"] == "error"
    assert facts["call"]["type"] == "orc_trio.exceptions.DisconnectedError"
    assert facts["call"]["text"].startswith({"A": "end of stream without a hang-up", "B": "local hang-up"}[probe])
    if probe == "B":
        assert facts["close"]["how"] == "result"
