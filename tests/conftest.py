# What all tests share: how hypothesis runs, and which tests need the extra `jit`.
#
# Fixtures that only one module's tests need live in that test file.

from __future__ import annotations

import importlib.util
import os

import hypothesis
import pytest

# No deadline: the machine may be busy with other things. No explanations: they cost much time and mislead where tasks
# interleave. `HYPOTHESIS_PROFILE=thorough` looks longer, `quick` (what nox uses after the first Python) shorter.
PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("default", deadline=None, print_blob=True, phases=PHASES)
hypothesis.settings.register_profile("thorough", hypothesis.settings.get_profile("default"), max_examples=5000)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("default"), max_examples=30)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

HAVE_JIT = importlib.util.find_spec("llvmlite") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs native code where the extra is not installed."""
    if HAVE_JIT:
        return
    for item in items:
        if item.get_closest_marker("native"):
            item.add_marker(pytest.mark.skip(reason="needs the extra `jit`"))
