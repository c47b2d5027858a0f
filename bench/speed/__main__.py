"""Compare with other libraries: install each, and call by turns over ours and over theirs.

Progress goes to the standard error; at the end there is a table of what was measured, and of what could not be and why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import trio

from orc_trio.bench.cells import SIZES, Cell, Result
from orc_trio.bench.figures import Plan
from orc_trio.bench.processes import Slice, take_turns
from orc_trio.bench.report import Report
from orc_trio.bench.tables import tables
from scoreboard.venvs import Environment, InstallError, prepare
from speed.pair import BrokenPeerError, open_pair
from speed.peers import ADAPTERS, PEERS, SUBJECT, Peer, chosen

FILE: Final = Path(__file__).with_name("results.json")
IN_FLIGHT: Final = (1, 64)


def cells(peer: Peer) -> list[Cell]:
    """What is measured of a peer."""
    return [Cell("orc_trio", peer.name, peer.kind, calls, size) for calls in IN_FLIGHT for size in SIZES]


async def measure(cell: Cell, ours: Sequence[str], theirs: Sequence[str], plan: Plan) -> Result:
    """Measure one cell.

    Args:
        cell: What.
        ours: Our adapter, and what runs it.
        theirs: The peer's.
        plan: How long.

    Raises:
        BrokenPeerError: One of the two does not do its part.
    """
    found: list[tuple[Slice, Slice]] = []
    for _ in range(plan.sets):
        async with (
            open_pair(ours, cell.kind, cell.calls, cell.size) as our,
            open_pair(theirs, cell.kind, cell.calls, cell.size) as their,
        ):
            for warmed in (our, their):
                await warmed.take_slice(plan.seconds / 2)
            found += await take_turns(our.take_slice, their.take_slice, plan)
    return Result.of(cell, found)


def compare(peer: Peer, environment: Environment, plan: Plan) -> Iterator[tuple[Cell, Result | str]]:
    """Each cell of a peer, and what came out, or why nothing did."""
    ours, theirs = [sys.executable, str(SUBJECT)], [environment.python, str(ADAPTERS / peer.adapter)]
    for cell in cells(peer):
        try:
            yield cell, trio.run(measure, cell, ours, theirs, plan)
        except BrokenPeerError as exc:
            yield cell, str(exc)


def forget(report: Report, peer: Peer) -> None:
    """Take out what is known about a peer."""
    report.results = [result for result in report.results if result.cell.against != peer.name]
    report.versions = {name: version for name, version in report.versions.items() if name != peer.name}
    report.problems = {what: why for what, why in report.problems.items() if named(what) != peer.name}


def named(problem: str) -> str:
    """The peer that a problem is of."""
    return problem.partition(",")[0]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="speed", description=__doc__)
    parser.add_argument("peers", nargs="*", help="which (all): " + ", ".join(peer.name for peer in PEERS))
    parser.add_argument("--cache", type=Path, required=True, help="folder for the peers' virtual environments")
    parser.add_argument("--results", type=Path, default=FILE, help="the results file")
    parser.add_argument("--sets", type=int, default=3, help="fresh pairs of processes for each cell (3)")
    parser.add_argument("--rounds", type=int, default=4, help="slices of each of the two in one (4)")
    parser.add_argument("--seconds", type=float, default=0.25, help="the length of a slice (0.25)")
    arguments = parser.parse_args()
    try:
        peers = chosen(arguments.peers)
    except LookupError as exc:
        parser.error(str(exc))
    plan = Plan(arguments.sets, arguments.rounds, arguments.seconds)
    report = Report(plan)
    if arguments.peers and arguments.results.exists():
        report = Report.load(arguments.results)
    for peer in peers:
        run(peer, arguments.cache, plan, report)
        report.save(arguments.results)
    for text in summary(report, peers):
        print(text)


def run(peer: Peer, cache: Path, plan: Plan, report: Report) -> None:
    """Measure a peer, and put it into the report instead of what is there."""
    forget(report, peer)
    try:
        environment = prepare(peer, cache) if peer.requirements else Environment(sys.executable, "")
    except InstallError as exc:
        report.problems = {**report.problems, peer.name: f"not installed: {exc}"}
        say(f"{peer.name}: not installed: {exc}")
        return
    if environment.version:
        report.versions = {**report.versions, peer.name: environment.version}
    for cell, found in compare(peer, environment, plan):
        if isinstance(found, str):
            report.problems = {**report.problems, f"{peer.name}, {cell.calls} × {cell.size} B": found}
            say(f"{cell}: {found}")
        else:
            report.results.append(found)
            say(f"{cell}: {found.speed.median:.2f} times as fast, {found.cpu.median:.2f} of the CPU")


def say(text: str) -> None:
    """A result, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def summary(report: Report, peers: Sequence[Peer]) -> Iterator[str]:
    """What is known about these peers: a table, and a line for each problem."""
    names = {peer.name for peer in peers}
    for table in tables(Report(report.plan, [result for result in report.results if result.cell.against in names])):
        yield str(table)
    for what, why in report.problems.items():
        if named(what) in names:
            yield f"{what}: {why}"


if __name__ == "__main__":
    main()
