"""The rules by which a cell of the scoreboard is good, poor or bad.

The results file holds facts; every verdict is made here, from facts alone, whenever the file is read.  `RULES` says in
words what the functions below do; the documentation prints it.

Of several runs one is shown: the middle one, when they are put in order from good to bad and from fast to slow.  It is
one run as it happened, not a mixture of several.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

Facts: TypeAlias = dict[str, Any]

PROMPT_MS: Final = 100.0
"""Within this time a call settles at once."""
CLOSE_MS: Final = 1000.0
"""Within this time a close is at once: some have a process to end."""
GOODBYE_MS: Final = 10_000.0
"""Within this time a close has to give up a peer that does not answer."""
NOTICE_MS: Final = 20_000.0
"""Within this time a frozen peer has to be noticed by itself."""

UNTYPED: Final = frozenset({"Exception", "BaseException"})


class Verdict(enum.IntEnum):
    """Ordered from good to bad.  ``NONE``: there is nothing to judge."""

    NONE = 0
    GOOD = 1
    POOR = 2
    BAD = 3


class Judgement(NamedTuple):
    """A verdict, and why; a good one needs no reason."""

    verdict: Verdict
    why: str = ""


class Shown(NamedTuple):
    """The run that is shown for a cell, of how many, and how many of them have its verdict."""

    facts: Facts
    judgement: Judgement
    runs: int
    alike: int


class Rule(NamedTuple):
    """One probe's rule, in words."""

    question: str
    good: str
    poor: str
    bad: str


RULES: Final[dict[str, Rule]] = {
    "A": Rule(
        "peer killed",
        "the call fails with a typed error within 100 ms",
        "later, or with a bare Exception",
        "it hangs, is cancelled, or is told that the connection was closed in good order",
    ),
    "B": Rule(
        "close",
        "the call fails with a typed error within 100 ms, and the close returns within 1 s",
        "either is later; the call fails with a bare Exception; the close raises",
        "either hangs; the call is cancelled, or returns",
    ),
    "C": Rule(
        "close, peer frozen",
        "the call fails with a typed error within 100 ms, and the close returns within 10 s",
        "as in B",
        "as in B",
    ),
    "D": Rule(
        "call after close",
        "the call fails with a typed error within 100 ms",
        "later, or with a bare Exception",
        "it hangs, is cancelled, or succeeds; or the close did not return",
    ),
    "E": Rule(
        "8 closes at once",
        "as in B, and no close returns before it is over",
        "as in B",
        "as in B; or a close returns early: before the call has settled, or before the first close has returned",
    ),
    "F": Rule(
        "peer frozen, nobody closes",
        "the call fails with a typed error within 20 s",
        "later, or with a bare Exception",
        "it hangs, is cancelled, or is told that the connection was closed in good order",
    ),
    "G": Rule(
        "caller cancelled",
        "the caller is free within 100 ms, the remote function stops, the next call works",
        "the caller is free later, or the remote function runs on",
        "the caller is not free, or the next call fails or hangs",
    ),
}  # fmt: skip

GOOD: Final = Judgement(Verdict.GOOD)


def judge(probe: str, facts: Facts) -> Judgement:
    """The verdict on one run of one probe.

    Args:
        probe: Its letter.
        facts: What `probes` wrote down.
    """
    if "broken" in facts:
        return Judgement(Verdict.NONE, facts["broken"])
    return max(_JUDGES[probe](facts), key=lambda judgement: judgement.verdict)


def shown(probe: str, runs: Sequence[Facts]) -> Shown | None:
    """The run to show, or None if there is none.  Of an even number, the worse of the two in the middle."""
    if not runs:
        return None
    judged = sorted(
        ((judge(probe, facts), facts) for facts in runs), key=lambda pair: (pair[0].verdict, _time(probe, pair[1]))
    )
    judgement, facts = judged[len(judged) // 2]
    alike = sum(other.verdict == judgement.verdict for other, _ in judged)
    return Shown(facts, judgement, len(judged), alike)


def main_time(probe: str, facts: Facts) -> float | None:
    """The time, in milliseconds, that says most about a run: until all is over.  None: that never came."""
    time = _time(probe, facts)
    return None if time == float("inf") else time


def _time(probe: str, facts: Facts) -> float:
    if "broken" in facts:
        return float("inf")
    outcomes = [facts["call"], facts["close"]] if probe in {"B", "C"} else [facts["call"]]
    times: list[float] = [outcome.get("ms", float("inf")) for outcome in outcomes]
    if probe == "E":
        times.append(float(facts["last_ms"]) if facts["returned"] == facts["closes"] else float("inf"))
    return max(times)


def _fails(call: Facts, within: float = PROMPT_MS, orderly: bool = True) -> Judgement:
    """Of a call that has to fail; if not ``orderly``, then not by an error that says all was in order."""
    match call["how"]:
        case "hang":
            return Judgement(Verdict.BAD, "the call hangs")
        case "crash":
            return Judgement(Verdict.BAD, "the process ended")
        case "cancelled":
            return Judgement(Verdict.BAD, "the call is cancelled, by nobody")
        case "result":
            return Judgement(Verdict.BAD, "the call succeeds")
    if call.get("orderly") and not orderly:
        return Judgement(Verdict.BAD, "the error says that the end was in good order")
    if call["ms"] > within:
        return Judgement(Verdict.POOR, "the call settles late")
    if call["type"] in UNTYPED:
        return Judgement(Verdict.POOR, "the error has no type of its own")
    return GOOD


def _returns(close: Facts, within: float) -> Judgement:
    """Of a close."""
    match close["how"]:
        case "hang":
            return Judgement(Verdict.BAD, "the close hangs")
        case "crash":
            return Judgement(Verdict.BAD, "the process ended")
        case "cancelled":
            return Judgement(Verdict.BAD, "the close is cancelled, by nobody")
        case "error":
            return Judgement(Verdict.POOR, "the close raises")
    if close["ms"] > within:
        return Judgement(Verdict.POOR, "the close is late")
    return GOOD


def _killed(facts: Facts) -> list[Judgement]:
    return [_fails(facts["call"], orderly=False)]


def _closed(facts: Facts) -> list[Judgement]:
    return [_fails(facts["call"]), _returns(facts["close"], CLOSE_MS)]


def _closed_frozen(facts: Facts) -> list[Judgement]:
    return [_fails(facts["call"]), _returns(facts["close"], GOODBYE_MS)]


def _after_close(facts: Facts) -> list[Judgement]:
    return [_fails(facts["call"]), _returns(facts["close"], GOODBYE_MS)]


def _many_closes(facts: Facts) -> list[Judgement]:
    judgements = [_fails(facts["call"])]
    if facts["returned"] < facts["closes"]:
        judgements.append(Judgement(Verdict.BAD, f"{facts['closes'] - facts['returned']} closes hang"))
    if facts["early"]:
        judgements.append(Judgement(Verdict.BAD, f"{facts['early']} closes return before it is over"))
    if facts["errors"]:
        judgements.append(Judgement(Verdict.POOR, f"{facts['errors']} closes raise"))
    if facts.get("last_ms", 0.0) > CLOSE_MS:
        judgements.append(Judgement(Verdict.POOR, "the last close is late"))
    return judgements


def _frozen(facts: Facts) -> list[Judgement]:
    return [_fails(facts["call"], NOTICE_MS, orderly=False)]


def _cancelled(facts: Facts) -> list[Judgement]:
    judgements = []
    if facts["call"]["how"] != "cancelled":
        judgements.append(Judgement(Verdict.BAD, "the caller is not free"))
    elif facts["call"]["ms"] > PROMPT_MS:
        judgements.append(Judgement(Verdict.POOR, "the caller is free late"))
    if facts["handler"] != "stopped":
        judgements.append(Judgement(Verdict.POOR, "the remote function runs on"))
    if facts["next"]["how"] != "result":
        judgements.append(
            Judgement(Verdict.BAD, "the next call hangs" if facts["next"]["how"] == "hang" else "the next call fails")
        )
    return judgements or [GOOD]


_JUDGES: Final[dict[str, Callable[[Facts], list[Judgement]]]] = {
    "A": _killed,
    "B": _closed,
    "C": _closed_frozen,
    "D": _after_close,
    "E": _many_closes,
    "F": _frozen,
    "G": _cancelled,
}
