# The scoreboard's page: its picture and its tables, also of results that are odd.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scoreboard import results
from scoreboard.verdicts import RULES

sys.path.append(str(Path(__file__).parents[1] / "docs" / "_extensions"))

import scoreboard_words as words
from scoreboard_picture import picture
from scoreboard_tables import COLUMNS, peer_rows, probe_rows

SVG = "{http://www.w3.org/2000/svg}"
ERROR = {"how": "error", "ms": 0.04, "type": "library.errors.ConnectionLost", "text": "<&\"'>"}
LATE = {"how": "result", "ms": 1e9}
HANG = {"how": "hang"}


def peer(name: str, cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A row of results."""
    row = {"name": name, "setting": "", "version": "1", "date": "2026-01-01", "close": "close()", "cancel": ""}
    return {**row, "problem": "", "absent": {}, "cells": cells, **more}


ODD = {
    "format": results.FORMAT,
    "conditions": {"cpu": "<cpu>", "cores": 1, "kernel": "k", "python": "p", "watch_s": 40.0},
    "peers": [
        peer("<not> & installed", {}, version="", problem="not installed: needs <this> & that " + "x" * 200),
        peer("no cells at all", {}),
        peer("hangs", {"A": [{"call": HANG}] * 3, "B": [{"call": HANG, "close": HANG}]}),
        peer(
            "everything",
            {
                "A": [{"call": {**ERROR, "orderly": True}}],
                "B": [{"call": {"how": "cancelled", "ms": 1.0}, "close": ERROR}],
                "C": [{"call": ERROR, "close": HANG}],
                "D": [{"call": LATE, "close": LATE}],
                "E": [{"call": ERROR, "closes": 8, "returned": 0, "early": 0, "errors": 0}],
                "F": [{"call": {"how": "crash", "text": "gone"}}, {"call": ERROR}],
                "G": [{"call": {"how": "cancelled", "ms": 1.0}, "handler": "ran on", "next": HANG}],
            },
        ),
        peer("broken", {"A": [{"broken": "no connection: <x>"}]}, absent={"E": "<why>"}),
        peer("set", {"F": [{"call": ERROR}]}, setting="on=<1>"),
        peer("early", {"E": [{"call": ERROR, "closes": 8, "returned": 8, "early": 7, "errors": 0,
                              "first_ms": 0.1, "last_ms": 5000.0}]}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("found", [ODD, {**ODD, "peers": []}, results.load()], ids=["odd", "empty", "committed"])
def test_picture(found: results.Results) -> None:
    """The picture is well-formed, names every peer, and no box in it is outside, however odd the results."""
    assert list(results.problems(found)) == []
    svg = ElementTree.fromstring(picture(found))
    assert svg.tag == f"{SVG}svg"
    texts = [element.text for element in svg.iter(f"{SVG}text")]
    assert [row["name"] for row in found["peers"] if row["name"] not in texts] == []
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    for box in svg.iter(f"{SVG}rect"):
        left, top, wide, high = (float(box.get(name, "")) for name in ("x", "y", "width", "height"))
        assert 0 <= left <= left + wide <= width
        assert 0 <= top <= top + high <= height
        assert wide > 0


def test_picture_says_what_it_shows() -> None:
    """Each cell of the picture has a class, a mark and a text to read out; a missing one says why it is missing."""
    svg = ElementTree.fromstring(picture(ODD))
    told = {}
    for group in svg.iter(f"{SVG}g"):
        title, word = group.find(f"{SVG}title"), group.find(f"{SVG}text[@class='sb-word']")
        if title is not None and word is not None:
            told[str(title.text)] = (group.get("class"), word.text)
    assert told["hangs, A: bad: the call hangs"] == ("sb-bad", "✗ hang")
    assert told["hangs, C: not measured"] == ("sb-none", "–")
    assert told["broken, E: <why>"] == ("sb-none", "–")
    assert told["broken, A: not measured: no connection: <x>"] == ("sb-none", "– failed")
    assert told["early, E: bad: 7 closes return before it is over"] == ("sb-bad", "✗ 7 early")
    assert told["set (on=<1>), F: good"] == ("sb-good", "✓ 0.0\u00a0ms")
    assert told["everything, A: bad: the error says that the end was in good order"] == ("sb-bad", "✗ “in order”")
    assert told["everything, C: bad: the close hangs"] == ("sb-bad", "✗ close hangs")
    assert told["everything, F: bad: the process ended (1 of 2 runs)"] == ("sb-bad", "✗ crash")
    assert told["everything, G: bad: the next call hangs"] == ("sb-bad", "✗ next call")


def test_bars_are_longer_for_longer() -> None:
    """A bar is the longer the longer it took, never outside its rail, and a hang has a bar of its own kind."""
    widths = []
    for ms in (0.01, 1.0, 100.0, 39_000.0, 1e9):
        found = {**ODD, "peers": [peer("one", {"A": [{"call": {**ERROR, "ms": ms}}]})]}
        svg = ElementTree.fromstring(picture(found))
        bar, rail = svg.find(f".//{SVG}rect[@class='sb-bar']"), svg.find(f".//{SVG}rect[@class='sb-rail']")
        assert bar is not None
        assert rail is not None
        widths.append(float(bar.get("width", "")))
        assert widths[-1] <= float(rail.get("width", ""))
    assert widths == sorted(widths)
    assert len(set(widths)) == len(widths) - 1 or len(set(widths)) == len(widths)
    hung = ElementTree.fromstring(picture({**ODD, "peers": [peer("one", {"A": [{"call": HANG}]})]}))
    assert hung.find(f".//{SVG}rect[@class='sb-bar']") is None


@pytest.mark.parametrize("probe", RULES)
def test_tables(probe: str) -> None:
    """Every row has a text for every heading, and its verdict as a mark and as a class, also of odd results."""
    for found in (ODD, results.load()):
        for name, verdict, *texts in probe_rows(probe, found):
            assert name[0]
            assert verdict[1] in {"sb-good", "sb-poor", "sb-bad", "sb-none"}
            assert verdict[0][0] in words.MARKS.values()
            assert len(texts) == len(COLUMNS[probe])


def test_table_of_peers() -> None:
    """The table of peers has those that were measured, once each."""
    names = [row[0][0] for row in peer_rows(ODD)]
    assert names == ["hangs", "everything", "broken", "early"]


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0.0, "0.0 ms"), (9.94, "9.9 ms"), (9.96, "10 ms"), (999.4, "999 ms"), (999.6, "1.0 s"), (5e3, "5.0 s")],
)
def test_times(ms: float, text: str) -> None:
    """A time is told with two digits, in milliseconds or seconds."""
    assert words.time(ms) == text.replace(" ", "\u00a0")
