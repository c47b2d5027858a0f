# Reads the code blocks of the documentation, so that tests can run them and compare them with the code.
#
# A block is what stands under `.. code-block:: LANGUAGE`; its name is its `:caption:`.

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent.parent / "docs"

_OPENING = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\S+)\n(?P<options>(?:(?P=indent) +:\w+:.*\n)*)", re.MULTILINE
)


class Block(NamedTuple):
    """One code block."""

    language: str
    caption: str
    text: str


def blocks(page: str) -> list[Block]:
    """The code blocks of ``docs/PAGE.rst``, in order."""
    source = (DOCS / f"{page}.rst").read_text(encoding="utf-8")
    found = []
    for match in _OPENING.finditer(source):
        outside = re.compile(rf"^ {{0,{len(match['indent'])}}}\S", re.MULTILINE).search(source, match.end())
        text = source[match.end() : outside.start() if outside else len(source)]
        caption = re.search(r":caption: (.*)", match["options"])
        found.append(Block(match["language"], caption[1] if caption else "", textwrap.dedent(text).strip("\n") + "\n"))
    return found


def captioned(page: str, caption: str) -> str:
    """The text of the one block with that caption."""
    (text,) = [block.text for block in blocks(page) if block.caption == caption]
    return text
