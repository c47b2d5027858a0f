# A pytest plugin for the runner's children: says which package is being tested, and what each test does as it does it.
#
# A line of JSON for each: {"package": PATH} first, then {"test": ID, "when": "start"} and, for each phase of the test,
# {"test": ID, "when": "setup" | "call" | "teardown", "outcome": …, "seconds": …}; before that, if it fails,
# {"test": ID, "raised": TEXT}. They go to the descriptor whose number is in the environment, so the runner knows what a
# child was doing when it had to be killed.

from __future__ import annotations

import json
import os
import pathlib
import traceback
from typing import Any, Final

import pytest

VARIABLE: Final = "ORC_TRIO_MUSEUM_WITNESS"


class Witness:
    """Writes the lines."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # what the tests start does not hold it open
        self._descriptor = descriptor

    def say(self, **fields: Any) -> None:
        """One line."""
        os.write(self._descriptor, json.dumps(fields).encode() + b"\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.say(test=nodeid, when="start")

    def pytest_exception_interact(self, node: pytest.Item, call: pytest.CallInfo[Any]) -> None:
        exc = None if call.excinfo is None else call.excinfo.value
        while isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        self.say(test=node.nodeid, raised="" if exc is None else traceback.format_exception_only(exc)[0].split("\n")[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.say(test=report.nodeid, when=report.when, outcome=report.outcome, seconds=report.duration)


def pytest_configure(config: pytest.Config) -> None:
    """Import the package before any test does, and say where it is."""
    import orc_trio

    witness = Witness(int(os.environ.pop(VARIABLE)))
    witness.say(package=str(pathlib.Path(orc_trio.__file__).parent))
    config.pluginmanager.register(witness)
