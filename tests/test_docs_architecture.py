# The documentation knows all of the package: every module has its place in the house, every public name its reference.

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import orc_trio
from docs_blocks import DOCS

PUBLIC = ["orc_trio", *(f"orc_trio.{name}" for name in ("abc", "wire", "protocol", "transports", "native", "tracing"))]


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
        for path in (DOCS / "reference").glob("*.rst")
        for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(importlib.import_module(module).__all__) - described == set()
