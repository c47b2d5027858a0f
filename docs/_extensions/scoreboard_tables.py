# The tables of the scoreboard, as texts and classes; scoreboard_page.py puts them into the page.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import scoreboard_words as words

from scoreboard import results
from scoreboard.verdicts import Shown, shown

Facts = Mapping[str, Any]
Cell = tuple[str, str]
"""A cell's text, and its class."""


def call(facts: Facts) -> str:
    """What became of the call."""
    return words.outcome(facts["call"])


def close(facts: Facts) -> str:
    """What became of the close."""
    return words.outcome(facts["close"], expected="result")


def first_close(facts: Facts) -> str:
    """When the first of many closes returned."""
    return words.time(facts["first_ms"]) if facts["returned"] else "hangs"


def last_close(facts: Facts) -> str:
    """When all of them had."""
    return words.time(facts["last_ms"]) if facts["returned"] == facts["closes"] else "hangs"


def early(facts: Facts) -> str:
    """How many of them returned too early."""
    return str(facts["early"])


def handler(facts: Facts) -> str:
    """What the remote function did."""
    return f"stopped, {words.time(facts['handler_ms'])}" if facts["handler"] == "stopped" else str(facts["handler"])


def caller(facts: Facts) -> str:
    """What became of the caller that was cancelled."""
    return words.outcome(facts["call"], expected="cancelled")


def following(facts: Facts) -> str:
    """What became of the next call."""
    return words.outcome(facts["next"], expected="result")


# For each probe: the headings, and the texts under them.
COLUMNS: Final[dict[str, dict[str, Callable[[Facts], str]]]] = {
    "A": {"The call": call},
    "B": {"The call": call, "The close": close},
    "C": {"The call": call, "The close": close},
    "D": {"The call": call},
    "E": {"The call": call, "First close": first_close, "Last close": last_close, "Early": early},
    "F": {"The call": call},
    "G": {"The caller": caller, "The remote function": handler, "The next call": following},
}


def probe_rows(probe: str, found: results.Results) -> Iterator[list[Cell]]:
    """The rows of one probe's table."""
    columns = COLUMNS[probe].values()
    for peer in found["peers"]:
        cell = shown(probe, peer["cells"].get(probe, []))
        name = (results.key(peer), "sb-peer")
        if cell is not None:
            yield [name, _verdict(cell), *((_said(cell, column), "") for column in columns)]
        elif probe in peer["absent"]:
            yield [name, (f"– {peer['absent'][probe]}", "sb-none"), *(("", "") for _ in columns)]


def peer_rows(found: results.Results) -> Iterator[list[Cell]]:
    """The rows of the table of peers: those with results, with their defaults."""
    for peer in found["peers"]:
        if peer["cells"] and not peer["setting"]:
            cancel = (peer["cancel"], "sb-code") if "(" in peer["cancel"] else (peer["cancel"] or "–", "")
            yield [(peer["name"], "sb-peer"), (peer["version"], ""), (peer["close"], "sb-code"), cancel]


def _verdict(cell: Shown) -> Cell:
    verdict = cell.judgement.verdict
    return f"{words.MARKS[verdict]} {words.reason(cell)}", f"sb-{verdict.name.lower()}"


def _said(cell: Shown, column: Callable[[Facts], str]) -> str:
    return "" if "broken" in cell.facts else words.breakable(column(cell.facts))
