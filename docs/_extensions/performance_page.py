# The directives of docs/performance.rst, made from the results files below bench/ when the documentation is built:
#
#     .. performance-picture::            everything that `orc-trio bench` measures, drawn
#     .. performance-tables:: SECTION     cells, fairness or growth, as tables
#     .. performance-peers::              how much faster than other libraries
#     .. performance-profiles::           where the time goes
#     .. performance-machine::            what it was measured on

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from scoreboard_page import table
from sphinx.util.docutils import SphinxDirective

import profiles
from orc_trio.bench.figures import show_size
from orc_trio.bench.plots import draw
from orc_trio.bench.report import Report
from orc_trio.bench.tables import tables

BENCH = Path(__file__).parents[2] / "bench"
RESULTS = BENCH / "results.json"
PEERS = BENCH / "speed" / "results.json"


class FromResults(SphinxDirective):
    """What the directives share."""

    def noted(self, path: Path) -> Path:
        """A results file; the page is made again when it has changed."""
        self.env.note_dependency(str(path))
        return path


class Picture(FromResults):
    """Renders everything as a picture."""

    def run(self) -> list[nodes.Node]:
        """Put it into the page."""
        written = io.StringIO()
        draw(Report.load(self.noted(RESULTS))).savefig(written, format="svg", metadata={"Date": None})
        svg = written.getvalue()
        return [nodes.raw("", f'<div class="sb-scroll">{svg[svg.index("<svg") :]}</div>', format="html")]


class Tables(FromResults):
    """Renders a section."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Its tables."""
        report = Report.load(self.noted(RESULTS))
        parts = {
            "cells": Report(report.plan, results=report.results),
            "fairness": Report(report.plan, fairness=report.fairness),
            "growth": Report(report.plan, curves=report.curves),
        }
        return [
            table(each.head, [[(text, "") for text in row] for row in each.rows])
            for each in tables(parts[self.arguments[0]])
        ]


class Peers(FromResults):
    """Renders how much faster than others we are."""

    def run(self) -> list[nodes.Node]:
        """A row for each peer, a column for each cell; then what could not be measured."""
        report = Report.load(self.noted(PEERS))
        cells = list(dict.fromkeys((result.cell.calls, result.cell.size) for result in report.results))
        names = dict.fromkeys((result.cell.against, result.cell.kind) for result in report.results)
        found = {(result.cell.against, result.cell.calls, result.cell.size): result for result in report.results}
        rows = []
        for name, kind in names:
            texts = [name + (" (TCP)" if kind == "tcp" else ""), report.versions.get(name, "")]
            for cell in cells:
                result = found.get((name, *cell))
                texts.append("–" if result is None else _two_digits(result.speed.median))
            rows.append([(text, "") for text in texts])
        head = ["Against", "Version", *(f"{calls} × {show_size(size)}" for calls, size in cells)]
        problems = [nodes.list_item("", nodes.paragraph("", f"{what}: {why}")) for what, why in report.problems.items()]
        return [table(head, rows), *([nodes.bullet_list("", *problems)] if problems else [])]


def _two_digits(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 1 else f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


class Profiles(FromResults):
    """Renders where the time goes."""

    def run(self) -> list[nodes.Node]:
        """A column for each cell, the most expensive room of all first."""
        document = json.loads(self.noted(profiles.FILE).read_text(encoding="utf-8"))
        head, rows = profiles.table(document["cells"])
        return [table(head, [[(text, "") for text in row] for row in rows])]


class Machine(FromResults):
    """Renders what it was measured on."""

    def run(self) -> list[nodes.Node]:
        """One sentence."""
        report = Report.load(self.noted(RESULTS))
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        where = "{system} {release}, {machine}, {cores} cores".format(**report.machine)
        plan = "{sets} pairs of processes, {rounds} slices of {seconds:g} s in each".format(**attrs.asdict(report.plan))
        return [nodes.paragraph("", f"Measured on {where}; {versions}; {plan}.")]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives; the stylesheet is the scoreboard's."""
    app.add_directive("performance-picture", Picture)
    app.add_directive("performance-tables", Tables)
    app.add_directive("performance-peers", Peers)
    app.add_directive("performance-profiles", Profiles)
    app.add_directive("performance-machine", Machine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
