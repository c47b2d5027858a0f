# The directive `state-machine`: a transition table of the product as a picture.
#
#     .. state-machine:: orc_trio.protocol.TRANSITIONS
#
# The table maps each state to what may happen there and where that leads; states are enum members, in the order in
# which they can come.  The picture is drawn from it each time: a row of states, an arrow for each transition.

from __future__ import annotations

import enum
import html
import importlib
from collections.abc import Mapping
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

WIDTH, HEIGHT, GAP = 118, 40, 96
LEVEL = 34  # how much higher an arc is that spans one state more


def label(value: Any) -> str:
    """What a state or a trigger is called."""
    return str(value.value if isinstance(value, enum.Enum) else value)


def arrows(table: Mapping[Any, Mapping[Any, Any]]) -> list[tuple[int, int, str]]:
    """Each transition: from which state, to which, by what.

    Raises:
        ValueError: One goes back, or to a state that is not in the table.
    """
    places = {state: index for index, state in enumerate(table)}
    found = []
    for state, row in table.items():
        for trigger, target in row.items():
            if places[target] <= places[state]:
                raise ValueError(f"{label(state)} goes back to {label(target)}")
            found.append((places[state], places[target], label(trigger)))
    return found


def picture(table: Mapping[Any, Mapping[Any, Any]], name: str) -> str:
    """The table as SVG; the name tells it apart from other pictures on its page."""
    found = arrows(table)
    states = list(table)
    title = "; ".join(f"{label(states[start])}, {text}: {label(states[end])}" for start, end, text in found)
    longest = max((end - start for start, end, _ in found), default=1)
    top = 16 + LEVEL * (longest - 1) + 14
    width = len(table) * WIDTH + (len(table) - 1) * GAP
    parts = []
    for index, state in enumerate(table):
        x = index * (WIDTH + GAP)
        parts.append(
            f'<rect x="{x + 1}" y="{top}" width="{WIDTH - 2}" height="{HEIGHT}" rx="9" fill="none" '
            'stroke="currentColor" stroke-width="1.5"/>'
            f'<text x="{x + WIDTH / 2}" y="{top + HEIGHT / 2 + 5}" text-anchor="middle" font-weight="600">'
            f"{html.escape(label(state))}</text>"
        )
    for start, end, text in found:
        parts.append(_arrow(start, end, text, top, name))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(title, quote=True)}" '
        f'viewBox="-2 0 {width + 4} {top + HEIGHT + 4}" style="max-width:{width}px;width:100%;height:auto" '
        f'font-family="inherit" font-size="14" fill="currentColor"><defs><marker id="{name}" viewBox="0 0 10 10" '
        'refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
        '<path d="M0 1 L10 5 L0 9 z" fill="currentColor"/></marker></defs>' + "".join(parts) + "</svg>"
    )


def _arrow(start: int, end: int, text: str, top: int, name: str) -> str:
    line = f'fill="none" stroke="currentColor" stroke-width="1.3" marker-end="url(#{name})"'
    if end == start + 1:
        left, right, y = start * (WIDTH + GAP) + WIDTH, end * (WIDTH + GAP), top + HEIGHT / 2
        path = f'<path d="M{left} {y} L{right - 1} {y}" {line}/>'
        return path + _text(text, (left + right) / 2, y - 7, GAP - 12)
    # From the upper edge, over the states between, down to the upper edge.
    left = start * (WIDTH + GAP) + WIDTH * 0.72
    right = end * (WIDTH + GAP) + WIDTH * (0.28 if end - start == 2 else 0.5)
    high = top - 10 - LEVEL * (end - start - 1)
    path = f'<path d="M{left} {top} C{left} {high} {left} {high} {left + 26} {high} '
    path += f'L{right - 26} {high} C{right} {high} {right} {high} {right} {top - 1}" {line}/>'
    return path + _text(text, (left + right) / 2, high - 5, right - left - 30)


def _text(text: str, x: float, y: float, room: float) -> str:
    """Words, broken into lines that fit above a line."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(f"{lines[-1]} {word}") * 6.6 > room:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "".join(
        f'<text x="{x}" y="{y - 14 * (len(lines) - 1 - index)}" text-anchor="middle" font-size="12">'
        f"{html.escape(line)}</text>"
        for index, line in enumerate(lines)
    )


class StateMachine(SphinxDirective):
    """Draws a transition table; those who cannot see it are told the same in words."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        module, _, name = self.arguments[0].rpartition(".")
        table = getattr(importlib.import_module(module), name)
        drawn = picture(table, name.lower().replace("_", "-"))
        return [nodes.raw("", f'<figure class="state-machine">{drawn}</figure>', format="html")]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("state-machine", StateMachine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
