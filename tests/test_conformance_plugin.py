# The pytest plugin: one test for each guarantee, with names that can be read and chosen, and failures that say what is
# wrong. Each case is a test run of its own, in a process of its own.

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import TypeAlias

import pytest

Run: TypeAlias = Callable[..., pytest.RunResult]
pytest_plugins = ["pytester"]

MINE = """
    from functools import partial

    import attrs
    from contextlib import asynccontextmanager
    from orc_trio import DisconnectReason, DisconnectKind
    from orc_trio.testing import conformance_tests, connected_pair, pairs_of

    good = pairs_of(partial(connected_pair, "memory"))

    @asynccontextmanager
    async def narrow():
        async with good() as pair:
            yield attrs.evolve(pair, garble=None, max_message=None, waived={"G6": "of a whim"})

    @asynccontextmanager
    async def faulty():
        async with good() as pair:
            call = pair.access.call_controller
            async def wrong(tag, args, *, zero_copy=False):
                return await call(tag, args[:1])
            pair.access.call_controller = wrong
            yield pair

    def unexpected():
        raise LookupError("there is no factory today")
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    def run(module: str, *arguments: str, ini: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_mine=textwrap.dedent(MINE) + textwrap.dedent(module))
        # Always one: temporary files may be below our own.
        pytester.makeini(textwrap.dedent(ini) or "[pytest]\n")
        return pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", *arguments)

    return run


def test_one_test_for_each_guarantee(run: Run) -> None:
    """Ids name the guarantee and say what it is; they are the same each time, and each can be asked for."""
    result = run("my_access = conformance_tests(good)", "--collect-only", "-q")
    ids = [line for line in result.outlines if "::" in line]
    assert len(ids) == 26
    assert ids[0] == "test_mine.py::my_access::G1 exactly once"
    assert ids[11] == "test_mine.py::my_access::G12 disconnect is for everyone"
    result = run("my_access = conformance_tests(good)", ids[8], ids[9])
    result.assert_outcomes(passed=2)
    result = run("my_access = conformance_tests(good)", "-k", "G12 or G13", "--collect-only", "-q")
    assert [line for line in result.outlines if "::" in line] == ids[11:13]


def test_beside_others(run: Run) -> None:
    """It works with pytest-trio's mode, with xdist, in classes, and with the module's markers."""
    module = """
        import pytest
        pytestmark = pytest.mark.mine
        my_access = conformance_tests(good, only=["G9"])
        class TestThem:
            theirs = conformance_tests(good, only=["G10"])
        async def test_other():
            pass
    """
    ini = """
        [pytest]
        trio_mode = true
        filterwarnings = error
        markers = mine: mine
    """
    result = run(module, "-n", "2", "-m", "mine", "-v", ini=ini)
    result.assert_outcomes(passed=3)
    text = result.stdout.str()
    assert "test_mine.py::my_access::G9 only registered tags" in text
    assert "test_mine.py::TestThem::theirs::G10 errors are not bytes" in text


def test_not_applicable_is_skipped(run: Run) -> None:
    """A check that does not apply is skipped, and its reason is shown."""
    module = 'my_access = conformance_tests(narrow, only=["G6", "G25", "G26", "G10"])'
    result = run(module, "-rs")
    result.assert_outcomes(passed=1, skipped=3)
    for reason in ("not claimed: of a whim", "the pair has no garble", "the pair has no max_message"):
        result.stdout.fnmatch_lines([f"SKIPPED*: {reason}"])


def test_a_failure_shows_what_the_check_says(run: Run) -> None:
    """A breach shows what was expected, what happened, why it matters and the seed; nothing of how it got there."""
    result = run('my_access = conformance_tests(faulty, only=["G3"])')
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "my_access: G3 whole frames" in text
    for line in ("expected: the executor's call echo", "happened: 1 bytes that begin with", "it matters: bytes of"):
        assert f"\n{line}" in text
    assert "Traceback" not in text
    assert "pytest_plugin" not in text
    seed = re.search(r"run_scheduled\((\d+), …\)", text)
    assert seed is not None
    again = run('my_access = conformance_tests(faulty, only=["G3"])', f"--conformance-seed={seed[1]}")
    assert f"run_scheduled({seed[1]}, …)" in again.stdout.str()


def test_an_unexpected_error_shows_where_it_is_from(run: Run) -> None:
    """What is no breach of a check's is shown with its own traceback."""
    result = run('my_access = conformance_tests(unexpected, only=["G1"])')
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "an unexpected LookupError came out of the pair: there is no factory today" in text
    assert re.search(r'test_mine.py", line \d+, in unexpected', text)


def test_an_interrupt_ends_the_session(run: Run) -> None:
    """Ctrl-C while a check runs is no failed test: pytest stops, as it does in any other test."""
    module = """
        @asynccontextmanager
        async def interrupted():
            async with good() as pair:
                async def call(tag, args, *, zero_copy=False):
                    raise KeyboardInterrupt
                pair.access.call_controller = call
                yield pair
        my_access = conformance_tests(interrupted, only=["G1", "G2"])
    """
    result = run(module)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes()


def test_a_guarantee_that_does_not_exist(run: Run) -> None:
    """That is an error of the module, in one line."""
    result = run('my_access = conformance_tests(good, only=["G99"])')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["my_access: there is no guarantee G99; there are G1 to G26"])
