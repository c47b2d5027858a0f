# How the scoreboard says things: verdicts, times, and what became of a call or a close, in a few words.

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from scoreboard.verdicts import Shown, Verdict, main_time

# What is there besides the colour.
MARKS: Final = {Verdict.GOOD: "✓", Verdict.POOR: "~", Verdict.BAD: "✗", Verdict.NONE: "–"}


def time(ms: float) -> str:
    """A time, with two digits that matter, in one piece."""
    if ms < 9.95:
        return f"{ms:.1f}\u00a0ms"
    if ms < 999.5:
        return f"{ms:.0f}\u00a0ms"
    return f"{ms / 1000:.1f}\u00a0s"


def error(name: str) -> str:
    """An error's type without its module."""
    return name.rpartition(".")[2]


def outcome(facts: Mapping[str, Any], expected: str = "") -> str:
    """What became of a call or a close; only the time, if it is what one expects."""
    if facts["how"] == expected:
        return time(facts["ms"])
    match facts["how"]:
        case "error":
            return f"{error(facts['type'])}, {time(facts['ms'])}"
        case "result":
            return f"returns, {time(facts['ms'])}"
        case "cancelled":
            return f"cancelled, {time(facts['ms'])}"
        case "crash":
            return "the process ends"
        case _:
            return "hangs"


def shortest(probe: str, shown: Shown) -> str:
    """What happened in a word or two, for a small place."""
    facts = shown.facts
    if "broken" in facts:
        return "failed"
    call = facts["call"]
    if probe == "G":
        if facts["next"]["how"] != "result":
            return "next call"
        return facts["handler"]
    if call["how"] == "error" and probe == "E" and facts["early"]:
        return f"{facts['early']} early"
    if call["how"] == "error" and call.get("orderly") and shown.judgement.verdict is Verdict.BAD:
        return "“in order”"
    if call["how"] != "error":
        return {"hang": "hang", "result": "succeeds", "crash": "crash"}.get(call["how"], call["how"])
    took = main_time(probe, facts)
    return "close hangs" if took is None else time(took)


def reason(shown: Shown) -> str:
    """The verdict with its reason, and how many runs agree if not all do."""
    judgement, runs, alike = shown.judgement, shown.runs, shown.alike
    text = judgement.verdict.name.lower() if judgement.verdict is not Verdict.NONE else "not measured"
    if judgement.why:
        text += f": {judgement.why}"
    if alike < runs:
        text += f" ({alike} of {runs} runs)"
    return text


def breakable(text: str) -> str:
    """A text whose long names may be broken between their parts."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "\u200b", text)
