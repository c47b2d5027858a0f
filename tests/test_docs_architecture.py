# The documentation knows all of the package: every module has its place in the house, every public name its reference.

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import orc_trio
import orc_trio.testing
from docs_blocks import DOCS
from orc_trio.testing.conformance.runner import select

PARTS = ("abc", "wire", "protocol", "transports", "native", "tracing", "testing")
PUBLIC = ["orc_trio", *(f"orc_trio.{name}" for name in PARTS)]
GENERATED = "orc_trio.testing.check_"
"""What the directive `conformance-checks` describes."""


def test_every_module_has_its_floor() -> None:
    """The page of the architecture names every module of the package."""
    page = (DOCS / "architecture.rst").read_text(encoding="utf-8")
    modules = {module.name for module in pkgutil.iter_modules(orc_trio.__path__)}
    assert {name for name in modules if f"``{name}``" not in page} == set()


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """What a public module exports is described in the reference."""
    described = {
        name.rpartition(".")[2]
        for path in [*(DOCS / "reference").glob("*.rst"), DOCS / "explore.rst"]
        for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    names = set(importlib.import_module(module).__all__)
    assert {name for name in names - described if not f"{module}.{name}".startswith(GENERATED)} == set()


def test_every_check_is_in_the_documentation() -> None:
    """The checks of the conformance kit are described by the page, from their docstrings."""
    page = (DOCS / "conformance.rst").read_text(encoding="utf-8")
    assert "\n.. conformance-checks::\n" in page
    names = {entry.function.__name__ for entry in select(())}
    assert names <= set(orc_trio.testing.__all__)
