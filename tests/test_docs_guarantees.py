# The contract in docs/guarantees.rst and the tests name each other.

from __future__ import annotations

import importlib.util
import pathlib
import types

ROOT = pathlib.Path(__file__).parents[1]


def laws_module() -> types.ModuleType:
    """The module by which the documentation finds the tests that name a guarantee."""
    spec = importlib.util.spec_from_file_location("laws", ROOT / "docs" / "_extensions" / "laws.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_guarantee_has_a_test() -> None:
    """Each guarantee is named by the docstring of at least one test."""
    laws = laws_module()
    named = {law.number for law in laws.laws()}
    assert [f"G{number}" for number in laws.guarantees() if number not in named] == []


def test_no_test_names_an_unknown_guarantee() -> None:
    """Tests name only guarantees that exist, and the guarantees are numbered without gaps."""
    laws = laws_module()
    numbers = laws.guarantees()
    assert numbers == list(range(1, len(numbers) + 1))
    assert {law.number for law in laws.laws()} <= set(numbers)
