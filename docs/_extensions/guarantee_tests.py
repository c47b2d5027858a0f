# The directive `guarantee-tests`: a table of the guarantees and the tests that name them.

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from laws import Law, guarantees, laws
from sphinx.util.docutils import SphinxDirective


class GuaranteeTests(SphinxDirective):
    """Renders the table."""

    def run(self) -> list[nodes.Node]:
        """Write it as reStructuredText and have that parsed."""
        by_number: dict[int, list[Law]] = {}
        for law in laws():
            by_number.setdefault(law.number, []).append(law)
        # A guarantee without a test breaks the build: warnings are errors there.
        for number in guarantees():
            if number not in by_number:
                self.state_machine.reporter.warning(f"no test names G{number}", line=self.lineno)
        lines = []
        for number, found in sorted(by_number.items()):
            lines += [f":ref:`G{number} <G{number}>`", ""]
            lines += [f"   * {plain(law.text)} (``{law.path}::{law.test}``)" for law in found]
            lines.append("")
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="guarantee-tests"), self.content_offset, node)
        return node.children


def plain(text: str) -> str:
    """A law as text: nothing in it is markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("guarantee-tests", GuaranteeTests)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
