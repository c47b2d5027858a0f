"""The results file: facts, no verdicts; written by the driver, read by the documentation and the tests.

::

    {"format": 1,
     "conditions": {"cpu": …, "cores": …, "kernel": …, "python": …, "watch_s": …},
     "peers": [{"name": …, "setting": …, "version": …, "date": …, "close": …, "cancel": …, "problem": …,
                "absent": {probe: why}, "cells": {probe: [facts, …]}}, …]}

A peer's ``problem`` says why there are no cells.  Facts are what `probes` returns, or ``{"broken": why}``.  An outcome
in them is ``{"how": …}``: ``result``, ``error``, ``cancelled``, ``hang`` (the watch time was over) or ``crash`` (the
near process ended); the first three with ``ms``, an error with ``type``, ``text``, and ``orderly`` if that type means
that the connection was closed in good order.

What is measured together must be comparable: results of other conditions are not merged.  There is no host name in it
and no path.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from scoreboard.verdicts import RULES

Results: TypeAlias = dict[str, Any]

FILE: Final = Path(__file__).with_name("results.json")
FORMAT: Final = 1

_HOWS: Final = frozenset({"result", "error", "cancelled", "hang", "crash"})
_OUTCOMES: Final[Mapping[str, Sequence[str]]] = {
    "A": ("call",), "B": ("call", "close"), "C": ("call", "close"), "D": ("call", "close"), "E": ("call",),
    "F": ("call",), "G": ("call", "next"),
}  # fmt: skip


class OtherConditionsError(Exception):
    """Results from another machine, or with another watch time, cannot be merged."""


def conditions(watch: float) -> dict[str, Any]:
    """What must be the same for all results in one file."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "watch_s": watch,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def empty(watch: float) -> Results:
    """No results yet."""
    return {"format": FORMAT, "conditions": conditions(watch), "peers": []}


def load(path: Path = FILE) -> Results:
    """Read a results file and check it.

    Raises:
        ValueError: It is not one; says everything that is wrong.
    """
    results: Results = json.loads(path.read_text())
    if wrong := list(problems(results)):
        raise ValueError("\n".join(wrong))
    return results


def merge(old: Results, new: Results, order: Sequence[str]) -> Results:
    """The old results with the new ones in their places.

    Args:
        old: What was there.
        new: What replaces it, peer by peer.
        order: Keys of peers, see `key`; a peer that is not in it is dropped.

    Raises:
        OtherConditionsError: The two cannot be compared.
    """
    if old["conditions"] != new["conditions"]:
        raise OtherConditionsError(f"{old['conditions']} is not {new['conditions']}")
    found = {key(peer): peer for peer in [*old["peers"], *new["peers"]]}
    return {**new, "peers": [found[name] for name in order if name in found]}


def key(peer: Mapping[str, Any]) -> str:
    """What identifies a row."""
    return f"{peer['name']} ({peer['setting']})" if peer["setting"] else peer["name"]


def save(results: Results, path: Path = FILE) -> None:
    """Write a results file: one line for each run, so that changes can be read."""
    path.write_text(_dump(results, 0) + "\n")


def _dump(value: Any, depth: int) -> str:
    inside, outside = "\n" + " " * (depth + 1), "\n" + " " * depth
    if (
        isinstance(value, dict)
        and any(isinstance(item, dict | list) for item in value.values())
        and "call" not in value
    ):
        items = [f"{json.dumps(name)}: {_dump(item, depth + 1)}" for name, item in value.items()]
        return "{" + inside + f",{inside}".join(items) + outside + "}"
    if isinstance(value, list) and value:
        return "[" + inside + f",{inside}".join(_dump(item, depth + 1) for item in value) + outside + "]"
    return json.dumps(value, ensure_ascii=False)


def problems(results: Any) -> Iterator[str]:
    """Everything that makes this no results file."""
    try:
        if results["format"] != FORMAT:
            yield f"format {results['format']} is not {FORMAT}"
            return
        for name in ("cpu", "kernel", "python"):
            if not isinstance(results["conditions"][name], str):
                yield f"conditions: {name} is no text"
        for name in ("cores", "watch_s"):
            if not isinstance(results["conditions"][name], int | float):
                yield f"conditions: {name} is no number"
        keys = [key(peer) for peer in results["peers"]]
        for name in {name for name in keys if keys.count(name) > 1}:
            yield f"{name} is there twice"
        for peer in results["peers"]:
            for what in _peer_problems(peer):
                yield f"{key(peer)}: {what}"
    except (KeyError, TypeError, AttributeError) as exc:
        yield f"not a results file: {exc!r}"


def _peer_problems(peer: Mapping[str, Any]) -> Iterator[str]:
    for name in ("name", "setting", "version", "date", "close", "cancel", "problem"):
        if not isinstance(peer[name], str):
            yield f"{name} is no text"
    if peer["problem"] and peer["cells"]:
        yield "has a problem, and cells all the same"
    for probe in [*peer["cells"], *peer["absent"]]:
        if probe not in RULES:
            yield f"there is no probe {probe}"
            return
    for probe, runs in peer["cells"].items():
        if not runs:
            yield f"{probe}: no runs"
        for facts in runs:
            for what in _fact_problems(probe, facts):
                yield f"{probe}: {what}"


def _fact_problems(probe: str, facts: Mapping[str, Any]) -> Iterator[str]:
    if "broken" in facts:
        return
    for name in _OUTCOMES[probe]:
        outcome = facts[name]
        if outcome["how"] not in _HOWS:
            yield f"{name}: {outcome['how']!r} is no outcome"
        if outcome["how"] in {"result", "error", "cancelled"} and not outcome["ms"] >= 0:
            yield f"{name}: takes {outcome['ms']} ms"
        if outcome["how"] == "error" and not isinstance(outcome["type"], str):
            yield f"{name}: an error without a type"
    if probe == "E":
        if not 0 <= facts["early"] <= facts["returned"] <= facts["closes"] or facts["errors"] > facts["returned"]:
            yield "the numbers of closes do not fit together"
        if facts["returned"] and not facts["first_ms"] <= facts["last_ms"]:
            yield "the last close is before the first"
    if probe == "G" and facts["handler"] not in {"stopped", "ran on"}:
        yield f"the handler {facts['handler']!r}"
