"""The pytest plugin: makes one test for each guarantee of what `conformance_tests` left in a test module.

Rules
-----
* This is the only module that imports pytest, and only pytest imports it (by the entry point ``pytest11``).
* A test's name is its guarantee's number and title, so that ids are the same in every process and in every run.
* Each test is a Trio run of its own, whose order of tasks is decided by a seed.  A failure tells its seed, and
  ``--conformance-seed`` takes one.
* A failure shows what the check says, not how it got there; a traceback only if something unexpected was raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orc_trio.testing.conformance.bench import Check
from orc_trio.testing.conformance.pair import NotApplicable
from orc_trio.testing.conformance.runner import explain, run_entry, select
from orc_trio.testing.conformance.suite import ConformanceTests

__all__ = ["ConformanceItem", "ConformanceSuite", "pytest_addoption", "pytest_pycollect_makeitem"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's option."""
    parser.getgroup("orc_trio").addoption(
        "--conformance-seed",
        type=int,
        metavar="SEED",
        help="decides the order of tasks in conformance tests; a failed one tells the seed it had",
    )


def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> pytest.Collector | None:
    """Collect what `conformance_tests` made."""
    if not isinstance(obj, ConformanceTests):
        return None
    suite: ConformanceSuite = ConformanceSuite.from_parent(collector, name=name, tests=obj)
    return suite


class ConformanceSuite(pytest.Collector):
    """The tests of one access."""

    def __init__(self, *, tests: ConformanceTests, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tests = tests

    def collect(self) -> Iterator[pytest.Item]:
        """One test for each guarantee."""
        try:
            checks = select(self._tests.only)
        except ValueError as exc:
            raise self.CollectError(f"{self.name}: {exc}") from None
        for entry in checks:
            item: ConformanceItem = ConformanceItem.from_parent(self, name=str(entry), entry=entry, tests=self._tests)
            yield item


class ConformanceItem(pytest.Item):
    """The test of one guarantee.

    Attributes:
        obj: What is run: other plugins ask every test for it.
    """

    def __init__(self, *, entry: Check, tests: ConformanceTests, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._entry = entry
        self._factory = tests.factory
        self.obj: object = self.runtest

    def runtest(self) -> None:
        """Run the check.

        Raises:
            BaseException: What it raised.
        """
        try:
            run_entry(self._entry, self._factory, seed=self.config.getoption("conformance_seed"))
        except NotApplicable as exc:
            reason = str(exc)
        else:
            return
        pytest.skip(reason)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """What the check says."""
        return explain(self._entry, excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is, and its name."""
        assert self.parent is not None
        return self.path, None, f"{self.parent.name}: {self.name}"
