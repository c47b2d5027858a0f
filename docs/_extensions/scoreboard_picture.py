# The picture of the scoreboard: peers down, probes across, as SVG.
#
# A cell has a colour and a mark for its verdict, a word or a time, and below it a bar whose length is the time, on a
# logarithmic scale; a hatched bar of full length hung. Colours come from the stylesheet, so that they follow the theme.

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

import scoreboard_words as words

from scoreboard import results
from scoreboard.verdicts import RULES, Shown, Verdict, main_time, shown

LABEL: Final = 150
CELL: Final = 76
ROW: Final = 38
HEAD: Final = 62
FOOT: Final = 54
GAP: Final = 3

SHORTEST_MS: Final = 0.1


def picture(found: Mapping[str, Any]) -> str:
    """The results as an SVG element.

    Args:
        found: The results, as read from the file.
    """
    peers = found["peers"]
    longest = found["conditions"]["watch_s"] * 1000
    width, height = LABEL + CELL * len(RULES), HEAD + ROW * len(peers) + FOOT
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "class": "sb-picture",
            "role": "img",
        },
    )
    svg.set("aria-label", "The scoreboard as a picture; the tables below say the same in words")
    _hatching(svg)
    for at, probe in enumerate(RULES):
        _heading(svg, LABEL + CELL * at + CELL / 2, probe)
    for at, peer in enumerate(peers):
        _row(svg, HEAD + ROW * at, peer, longest)
    _legend(svg, HEAD + ROW * len(peers) + 16, longest)
    return ElementTree.tostring(svg, encoding="unicode")


def _hatching(svg: ElementTree.Element) -> None:
    definitions = ElementTree.SubElement(svg, "defs")
    attributes = {"id": "sb-hatch", "width": "5", "height": "5", "patternUnits": "userSpaceOnUse"}
    pattern = ElementTree.SubElement(definitions, "pattern", attributes)
    ElementTree.SubElement(pattern, "path", {"d": "M-1 6 L6 -1", "class": "sb-hatching"})


def _heading(svg: ElementTree.Element, middle: float, probe: str) -> None:
    _text(svg, middle, 18, probe, "sb-letter", "middle")
    for at, line in enumerate(textwrap.wrap(RULES[probe].question, 13)):
        _text(svg, middle, 34 + 13 * at, line, "sb-small", "middle")


def _row(svg: ElementTree.Element, top: float, peer: Mapping[str, Any], longest: float) -> None:
    below = peer["setting"] or peer["version"]
    _text(svg, 0, top + (16 if below else 22), peer["name"], "sb-name")
    if below:
        _text(svg, 0, top + 30, f"with {below}" if peer["setting"] else below, "sb-small")
    if peer["problem"]:
        _text(svg, LABEL + 6, top + 22, textwrap.shorten(peer["problem"], 90, placeholder=" …"), "sb-small")
        return
    for at, probe in enumerate(RULES):
        cell = shown(probe, peer["cells"].get(probe, []))
        if cell is None and peer["setting"]:
            continue  # this row is about one probe
        why = peer["absent"].get(probe, "not measured")
        group = ElementTree.SubElement(svg, "g", {"class": f"sb-{_name(cell)}"})
        title = ElementTree.SubElement(group, "title")
        title.text = f"{results.key(peer)}, {probe}: {words.reason(cell) if cell else why}"
        _cell(group, LABEL + CELL * at + GAP / 2, top + GAP / 2, probe, cell, longest)


def _cell(group: ElementTree.Element, left: float, top: float, probe: str, cell: Shown | None, longest: float) -> None:
    width, height = CELL - GAP, ROW - GAP
    _box(group, left, top, width, height, "sb-cell", round_by=4)
    text = words.MARKS[_verdict(cell)]
    if cell is not None:
        text += f" {words.shortest(probe, cell)}"
    _text(group, left + width / 2, top + 18, text, "sb-word", "middle")
    if cell is None or cell.judgement.verdict is Verdict.NONE:
        return
    took, room = main_time(probe, cell.facts), width - 10
    _box(group, left + 5, top + height - 9, room, 4, "sb-rail", round_by=2)
    if took is None:
        _box(group, left + 5, top + height - 9, room, 4, "sb-hung", round_by=2)
    else:
        _box(group, left + 5, top + height - 9, room * _share(took, longest), 4, "sb-bar", round_by=2)


def _share(ms: float, longest: float) -> float:
    """How much of the scale a time takes."""
    share = math.log(max(ms, SHORTEST_MS) / SHORTEST_MS) / math.log(longest / SHORTEST_MS)
    return min(1.0, max(0.04, share))


def _legend(svg: ElementTree.Element, top: float, longest: float) -> None:
    left = float(LABEL)
    for verdict, text in ((Verdict.GOOD, "good"), (Verdict.POOR, "poor"), (Verdict.BAD, "bad")):
        group = ElementTree.SubElement(svg, "g", {"class": f"sb-{verdict.name.lower()}"})
        _box(group, left, top - 12, 18, 17, "sb-cell", round_by=3)
        _text(group, left + 9, top + 1, words.MARKS[verdict], "sb-word", "middle")
        _text(svg, left + 24, top + 1, text, "sb-small")
        left += 68
    _text(svg, left, top + 1, "– does not apply", "sb-small")
    _text(svg, LABEL, top + 26, "bars:", "sb-small")
    start, room = LABEL + 48.0, 320.0
    group = ElementTree.SubElement(svg, "g", {"class": "sb-scale"})
    _box(group, start, top + 20, room, 4, "sb-rail", round_by=2)
    ticks = [ms for ms in (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0) if ms < longest / 2]
    for ms in [*ticks, longest]:
        place = start + room * (0.0 if ms == SHORTEST_MS else _share(ms, longest))
        _box(group, place - 0.5, top + 17, 1, 10, "sb-tick")
        name = f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"
        _text(svg, place, top + 37, name, "sb-small", "middle")
    _box(group, start + room + 14, top + 20, 30, 4, "sb-hung", round_by=2)
    _text(svg, start + room + 50, top + 26, "hang", "sb-small")


def _verdict(cell: Shown | None) -> Verdict:
    return Verdict.NONE if cell is None else cell.judgement.verdict


def _name(cell: Shown | None) -> str:
    return _verdict(cell).name.lower()


def _text(parent: ElementTree.Element, x: float, y: float, text: str, css_class: str, anchor: str = "start") -> None:
    attributes = {"x": f"{x:g}", "y": f"{y:g}", "class": css_class, "text-anchor": anchor}
    ElementTree.SubElement(parent, "text", attributes).text = text


def _box(
    parent: ElementTree.Element, x: float, y: float, width: float, height: float, css_class: str, *, round_by: float = 0
) -> None:
    attributes = {"x": x, "y": y, "width": width, "height": height, "rx": round_by}
    box = ElementTree.SubElement(parent, "rect", {name: f"{value:.4g}" for name, value in attributes.items()})
    box.set("class", css_class)
