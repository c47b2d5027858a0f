# The directive `conformance-checks`: each check of the kit, under its guarantee, with what its docstring says.

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from orc_trio.testing.conformance.runner import select


class ConformanceChecks(SphinxDirective):
    """Renders them."""

    def run(self) -> list[nodes.Node]:
        """Write them as reStructuredText and have that parsed."""
        lines = []
        for entry in select(()):
            lines += [f":ref:`{entry.guarantee} <{entry.guarantee}>`: {entry.title}", ""]
            lines += [f"   .. function:: orc_trio.testing.{entry.function.__name__}(factory)", "      :async:", ""]
            lines += [f"      {line}" for line in inspect.cleandoc(entry.body.__doc__ or "").splitlines()] + [""]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="conformance-checks"), self.content_offset, node)
        return node.children


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("conformance-checks", ConformanceChecks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
