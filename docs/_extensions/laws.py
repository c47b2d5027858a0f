# Which tests name which guarantees.
#
# A test's docstring is its law, and begins with the numbers of the guarantees that it proves: """G1, G14: ...""".

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
NUMBERS = re.compile(r"((?:G\d+[,\s/]*(?:and\s+)?)+):\s*(.*)", re.DOTALL)


class Law(NamedTuple):
    """One guarantee, and one test that names it."""

    number: int
    path: str
    test: str
    text: str


def laws() -> Iterator[Law]:
    """Every naming of a guarantee by a test, in the order of files and lines."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            if found := NUMBERS.match(ast.get_docstring(node) or ""):
                text = " ".join(found[2].split())
                for number in re.findall(r"\d+", found[1]):
                    yield Law(int(number), path.relative_to(ROOT).as_posix(), node.name, text)


def guarantees() -> list[int]:
    """The numbers of all guarantees: the labels in docs/guarantees.rst."""
    text = (ROOT / "docs" / "guarantees.rst").read_text()
    return [int(number) for number in re.findall(r"^\.\. _G(\d+):$", text, re.MULTILINE)]
