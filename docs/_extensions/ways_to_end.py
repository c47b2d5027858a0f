# The directive `ways-to-end`: the two-party table, from docs/shutdown/ways.toml, which the tests read too.

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

SOURCE = Path(__file__).parents[1] / "shutdown" / "ways.toml"
COLUMNS = ("controller", "executor", "running", "waiting", "back")


def cell(text: str) -> str:
    """One cell, as reStructuredText."""
    if text == "-":
        return "—"
    return text if text == "result" else " ".join(f"``{part}``" for part in text.split())


class WaysToEnd(SphinxDirective):
    """Renders the table."""

    def run(self) -> list[nodes.Node]:
        """Write it as reStructuredText and have that parsed."""
        self.env.note_dependency(str(SOURCE))
        lines = [
            ".. list-table::",
            "   :header-rows: 1",
            "   :widths: 28 17 17 13 12 13",
            "   :class: ways-to-end",
            "",
            "   * - What happens",
            "     - Controller's end",
            "     - Executor's end",
            "     - Controller's call, running",
            "     - waiting for room",
            "     - Executor's call, running",
        ]
        for way in tomllib.loads(SOURCE.read_text(encoding="utf-8"))["way"]:
            lines += [f"   * - {way['how']}", *(f"     - {cell(way[name])}" for name in COLUMNS)]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="ways-to-end"), self.content_offset, node)
        return node.children


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("ways-to-end", WaysToEnd)
    app.add_css_file("shutdown.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
