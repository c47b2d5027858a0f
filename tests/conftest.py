# What all tests share: how hypothesis runs, and which tests need the extra `jit`.
#
# Fixtures that only one module's tests need live in that test file.

from __future__ import annotations

import importlib.util
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hypothesis
import pytest

from orc_trio.testing.leaks import open_descriptors, wait_for_workers

# No deadline: the machine may be busy with other things. No explanations: they cost much time and mislead where tasks
# interleave. `HYPOTHESIS_PROFILE=thorough` looks longer, `quick` (what nox uses after the first Python) shorter.
PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("default", deadline=None, print_blob=True, phases=PHASES)
hypothesis.settings.register_profile("thorough", hypothesis.settings.get_profile("default"), max_examples=5000)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("default"), max_examples=30)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A shell lets what it starts in the background ignore interrupts, and its children inherit that; the tests send some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HAVE_JIT = importlib.util.find_spec("llvmlite") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs native code where the extra is not installed."""
    if HAVE_JIT:
        return
    for item in items:
        if item.get_closest_marker("native"):
            item.add_marker(pytest.mark.skip(reason="needs the extra `jit`"))


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """G19: no test leaves a descriptor: one that only the garbage collector closes would be missed by another test."""
    before = open_descriptors()
    yield
    if open_descriptors().items() - before.items():
        wait_for_workers()
        assert not open_descriptors().items() - before.items()


# --- figures -----------------------------------------------------------------------------------------------------
#
# What explored, tried out or counted something says so at the end of the run.


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str, Mapping[str, int]], None]:
    """Have figures printed at the end of the run, by name; those of the same name are added up."""

    def record(name: str, counts: Mapping[str, int]) -> None:
        record_property(f"figure: {name}", dict(counts))

    return record


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures."""
    figures: dict[str, Counter[str]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "call":
            for name, counts in report.user_properties:
                if name.startswith("figure: "):
                    figures.setdefault(name.removeprefix("figure: "), Counter()).update(counts)
    if figures:
        terminalreporter.section("figures")
        for name, counts in sorted(figures.items()):
            terminalreporter.line(f"{name}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}")
