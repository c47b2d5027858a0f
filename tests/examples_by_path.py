"""Imports one of the examples, which are in no package."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from cli_helpers import EXAMPLES


def load(name: str) -> ModuleType:
    """Import one of the examples; once, so that its classes are the same for all tests."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
