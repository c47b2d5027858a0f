"""Measure: make the environments, run every cell in fresh processes, and write the results file."""

from __future__ import annotations

import argparse
import datetime
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scoreboard import results
from scoreboard.cell import BrokenCellError, Cell, plain
from scoreboard.peers import ADAPTERS, PEERS, Peer, chosen
from scoreboard.probes import PROBES, Facts
from scoreboard.venvs import Environment, InstallError, prepare
from scoreboard.verdicts import judge, main_time

AT_ONCE = 12
"""Cells that may wait together; see `cell` for what they may not do together."""


def run_cell(peer: Peer, probe: str, python: str, watch: float, turn: threading.Lock) -> Facts:
    """One probe of one peer, in fresh processes.

    Args:
        peer: Whom.
        probe: Its letter.
        python: The interpreter that can import the peer.
        watch: Seconds to watch for something to happen.
        turn: Held while nothing else may run.
    """
    command = [python, str(ADAPTERS / peer.adapter), *peer.arguments]
    try:
        with Cell(command, watch, turn, peer.orderly) as cell:
            cell.connect()
            return PROBES[probe](cell)
    except BrokenCellError as exc:
        return {"broken": str(exc)}
    except OSError as exc:  # the far process is gone already
        return {"broken": plain(f"{type(exc).__name__}: {exc}")}


def row(peer: Peer, version: str = "", problem: str = "") -> dict[str, Any]:
    """A peer's entry in the results, without its cells."""
    return {
        "name": peer.name,
        "setting": peer.setting,
        "version": version,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "close": peer.close,
        "cancel": peer.cancel,
        "problem": problem,
        "absent": dict(peer.absent),
        "cells": {},
    }


def measure(prepared: list[tuple[Peer, Environment]], runs: int, watch: float) -> Iterator[dict[str, Any]]:
    """Run all cells of these peers; yields each peer's entry as soon as it is complete."""
    turn = threading.Lock()
    done = 0
    total = sum(len(set(peer.probes) - set(peer.absent)) * runs for peer, _ in prepared)

    def one(peer: Peer, probe: str, python: str) -> Facts:
        nonlocal done
        facts = run_cell(peer, probe, python, watch, turn)
        verdict, why = judge(probe, facts)
        time = main_time(probe, facts)
        done += 1
        took = "" if time is None else f" {time:.1f} ms"
        say(f"[{done}/{total}] {peer.key} {probe}: {verdict.name.lower()}{took}{why and f' ({why})'}")
        return facts

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            begun: list[tuple[Peer, Environment, dict[str, list[Future[Facts]]]]] = []
            for peer, environment in prepared:
                probes = [probe for probe in peer.probes if probe not in peer.absent]
                cells = {
                    probe: [pool.submit(one, peer, probe, environment.python) for _ in range(runs)] for probe in probes
                }
                begun.append((peer, environment, cells))
            for peer, environment, cells in begun:
                entry = row(peer, environment.version)
                entry["cells"] = {probe: [future.result() for future in futures] for probe, futures in cells.items()}
                yield entry
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scoreboard", description=__doc__)
    parser.add_argument("peers", nargs="*", help="which (all): " + ", ".join(dict.fromkeys(p.name for p in PEERS)))
    parser.add_argument("--cache", type=Path, required=True, help="folder for the peers' virtual environments")
    parser.add_argument("--results", type=Path, default=results.FILE, help="the results file")
    parser.add_argument("--runs", type=int, default=3, help="runs of each cell (3)")
    parser.add_argument("--watch", type=float, default=40.0, help="seconds after which a cell hangs (40)")
    arguments = parser.parse_args()
    try:
        peers = chosen(arguments.peers)
    except LookupError as exc:
        parser.error(str(exc))

    found = results.empty(arguments.watch)
    if arguments.peers and arguments.results.exists():
        old = results.load(arguments.results)
        try:
            results.merge(old, found, [])
        except results.OtherConditionsError as exc:
            parser.error(f"the results that are there are of other conditions: {exc}. Run all peers")
        found = old
    order = [peer.key for peer in PEERS]

    def add(entry: dict[str, Any]) -> None:
        nonlocal found
        found = results.merge(found, {**found, "peers": [entry]}, order)
        results.save(found, arguments.results)

    prepared = []
    for peer in peers:
        say(f"installing {peer.key}")
        try:
            prepared.append((peer, prepare(peer, arguments.cache)))
        except InstallError as exc:
            say(f"not installed: {exc}")
            add(row(peer, problem=f"not installed: {exc}"))
    for entry in measure(prepared, arguments.runs, arguments.watch):
        add(entry)


if __name__ == "__main__":
    main()
