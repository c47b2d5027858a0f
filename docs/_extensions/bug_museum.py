# The directive `bug-museum`: every exhibit of tests/museum, with its story, its change and the tests that kill it.

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from guarantee_tests import plain
from sphinx.util.docutils import SphinxDirective

sys.path.append(str(pathlib.Path(__file__).parents[2] / "tests"))

from museum.exhibits import Exhibit, exhibits

ISSUE = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)")


class BugMuseum(SphinxDirective):
    """Renders the exhibits."""

    def run(self) -> list[nodes.Node]:
        """Write them as reStructuredText and have that parsed."""
        shown = exhibits()
        text = "\n".join(
            [
                *heading("Seen in other libraries", "-"),
                *(line for exhibit in shown if exhibit.seen_in for line in rendered(exhibit)),
                *heading("Of our own making", "-"),
                "Mistakes that somebody could make here tomorrow, so that every guarantee has one that breaks it.",
                "",
                *(line for exhibit in shown if not exhibit.seen_in for line in rendered(exhibit)),
            ]
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def rendered(exhibit: Exhibit) -> Iterator[str]:
    """One exhibit."""
    yield from heading(plain(exhibit.title), "~")
    yield from exhibit.story.strip().splitlines()
    yield ""
    if exhibit.seen_in:
        yield f":Seen in: {listed(seen(where) for where in exhibit.seen_in)}"
    yield f":Breaks: {listed(f':ref:`{guarantee} <{guarantee}>`' for guarantee in exhibit.guarantees)}"
    how = "Killed, by a hang, by" if exhibit.hangs else "Killed by"
    yield f":Run it: ``nox -s museum -- {exhibit.name}``"
    yield f":{how}: {listed(f'``{test}``' for test in exhibit.killed_by)}"
    yield ""
    for change in exhibit.changes:
        yield from (".. code-block:: diff", f"   :caption: src/orc_trio/{change.file}", "")
        yield from (f"   {line}".rstrip() for line in change.diff().splitlines())
        yield ""


def heading(text: str, line: str) -> list[str]:
    """A heading."""
    return [text, line * len(text), ""]


def listed(items: Iterable[str]) -> str:
    """In one line."""
    return ", ".join(items)


def seen(where: str) -> str:
    """Where an exhibit was seen; an issue is a link."""
    if issue := ISSUE.fullmatch(where):
        return f"`{where} <https://github.com/{issue[1]}/issues/{issue[2]}>`__"
    return plain(where)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("bug-museum", BugMuseum)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
