# The directives of docs/scoreboard.rst, made from bench/scoreboard/results.json when the documentation is built:
#
#     .. scoreboard-picture::         all peers and probes at a glance
#     .. scoreboard-probe:: A         the rule of one probe, and what each peer did
#     .. scoreboard-peers::           which versions, closed and cancelled how, measured when and where
#
# A cell has its verdict as a class, for the stylesheet, and as a mark and a word, for everybody.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import scoreboard_words as words
from docutils import nodes
from scoreboard_picture import picture
from scoreboard_tables import COLUMNS, Cell, peer_rows, probe_rows
from sphinx.util.docutils import SphinxDirective

from scoreboard import results
from scoreboard.verdicts import RULES


class FromResults(SphinxDirective):
    """What the directives share."""

    def found(self) -> results.Results:
        """The results; the page is made again when they, or the rules, have changed."""
        for path in (results.FILE, *Path(__file__).parent.glob("scoreboard_*.py")):
            self.env.note_dependency(str(path))
        return results.load()


class Picture(FromResults):
    """Renders the picture."""

    def run(self) -> list[nodes.Node]:
        """Put it into the page: it takes its colours from there."""
        return [nodes.raw("", f'<div class="sb-scroll">{picture(self.found())}</div>', format="html")]


class Probe(FromResults):
    """Renders one probe: its rule, and a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """One row for each peer that has results, or a reason why not."""
        probe = self.arguments[0]
        rule = RULES[probe]
        rules = [("good", rule.good), ("poor", rule.poor), ("bad", rule.bad)]
        return [_lines(rules), table(["Peer", "Verdict", *COLUMNS[probe]], probe_rows(probe, self.found()))]


class Peers(FromResults):
    """Renders what is known about the peers and the machine."""

    def run(self) -> list[nodes.Node]:
        """A sentence, a table, and a list of those that could not be measured."""
        found = self.found()
        where, dates = found["conditions"], sorted({peer["date"] for peer in found["peers"]})
        text = f"Measured on {' to '.join(dict.fromkeys([*dates[:1], *dates[-1:]]))}, {where['cpu']}, "
        text += f"{where['cores']} cores, {where['kernel']}, {where['python']}. "
        text += f"What has not ended after {where['watch_s']:g} s, hangs."
        headings = ["Peer", "Version", "Closed by", "Caller cancelled by"]
        unmeasured = [
            nodes.list_item("", nodes.paragraph("", f"{results.key(peer)}: {peer['problem']}"))
            for peer in found["peers"]
            if peer["problem"]
        ]
        after = [nodes.bullet_list("", *unmeasured)] if unmeasured else []
        return [nodes.paragraph("", text), table(headings, peer_rows(found)), *after]


def table(headings: Sequence[str], rows: Iterable[list[Cell]]) -> nodes.table:
    """A table; its first column are the rows' headings."""
    group = nodes.tgroup(cols=len(headings))
    group += [nodes.colspec(colwidth=1, stub=int(column == 0)) for column in range(len(headings))]
    group += nodes.thead("", _row([(heading, "") for heading in headings]))
    group += nodes.tbody("", *(_row(cells) for cells in rows))
    return nodes.table("", group, classes=["sb-table"])


def _row(cells: Sequence[Cell]) -> nodes.row:
    row = nodes.row()
    for text, css_class in cells:
        inside = nodes.literal(text, text) if css_class == "sb-code" else nodes.Text(text)
        row += nodes.entry("", nodes.paragraph("", "", inside), classes=[css_class] if css_class else [])
    return row


def _lines(rules: Sequence[tuple[str, str]]) -> nodes.Node:
    block = nodes.line_block(classes=["sb-rules"])
    marks = {verdict.name.lower(): mark for verdict, mark in words.MARKS.items()}
    for name, text in rules:
        label = nodes.inline("", f"{marks[name]} {name}", classes=[f"sb-{name}", "sb-label"])
        block += nodes.line("", "", label, nodes.Text(f" {text}"))
    return block


def setup(app: Any) -> dict[str, bool]:
    """Register the directives and the stylesheet."""
    app.add_directive("scoreboard-picture", Picture)
    app.add_directive("scoreboard-probe", Probe)
    app.add_directive("scoreboard-peers", Peers)
    app.add_css_file("scoreboard.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
