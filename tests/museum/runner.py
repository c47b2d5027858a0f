# Runs the museum: every exhibit must be killed by the tests it names. `nox -s museum`, or `nox -s museum -- NAME NAME`.
#
# For each exhibit its tests are first run against a copy of the source as it is: they must pass. Then each of them is
# run against a copy with the fault in it, in a child of its own. What can come out:
#
# * killed: every test it names failed, as a test does: in its call;
# * killed by a hang: the same, but some of them hung, as the exhibit says;
# * SURVIVED: a test passed although the fault was there, so the tests are worth less than they seem;
# * BROKEN: the exhibit shows nothing. It does not fit the source, the package cannot be imported, a test is missing,
#   is skipped, fails without the fault, or ends in another way than the exhibit says.
#
# Only if all are killed is the exit status 0.

from __future__ import annotations

import enum
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from museum.children import Report, run_tests
from museum.exhibits import BrokenExhibit, Exhibit, copy_source, exhibits

AT_ONCE: Final = 2
PATIENCE: Final = 120.0
"""Seconds after which a test is taken to hang where none should."""
MARGIN: Final = 5
"""Where a hang is expected, it is taken for one after so many times what the test takes without the fault, or later."""
LAST_LINES: Final = 15


class Verdict(enum.Enum):
    """What came out."""

    KILLED = "killed"
    KILLED_BY_A_HANG = "killed by a hang"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


class Survived(Exception):
    """A test passed although the fault was there."""


@attrs.frozen
class Finding:
    """What came out for one exhibit.

    Attributes:
        exhibit: Which.
        verdict: What.
        lines: How each test failed; or why it is not killed.
        seconds: How long that took, in all.
    """

    exhibit: Exhibit
    verdict: Verdict
    lines: list[str]
    seconds: float

    def __str__(self) -> str:
        first = f"{self.exhibit.name}: {self.verdict.value}, {self.seconds:.1f} s"
        return "\n    ".join([first, *self.lines])


class Run:
    """One run of the museum.

    Args:
        show: Told every line of what there is to read.
    """

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._findings: list[Finding] = []

    async def all_of(self, shown: Sequence[Exhibit]) -> bool:
        """Run some exhibits, and show what came out.

        Returns:
            Whether all were killed.
        """
        began = trio.current_time()
        limit = trio.CapacityLimiter(AT_ONCE)
        with tempfile.TemporaryDirectory(prefix="museum-") as folder:
            async with trio.open_nursery() as nursery:
                for exhibit in shown:
                    await limit.acquire_on_behalf_of(exhibit)
                    nursery.start_soon(self._one, exhibit, pathlib.Path(folder, exhibit.name), len(shown), limit)
        self._table(trio.current_time() - began)
        return all(finding.verdict in (Verdict.KILLED, Verdict.KILLED_BY_A_HANG) for finding in self._findings)

    async def _one(self, exhibit: Exhibit, folder: pathlib.Path, number: int, limit: trio.CapacityLimiter) -> None:
        began = trio.current_time()
        try:
            verdict, lines = await _killed(exhibit, folder)
        except Survived as exc:
            verdict, lines = Verdict.SURVIVED, str(exc).splitlines()
        except BrokenExhibit as exc:
            verdict, lines = Verdict.BROKEN, str(exc).splitlines()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            limit.release_on_behalf_of(exhibit)
        finding = Finding(exhibit, verdict, lines, trio.current_time() - began)
        self._findings.append(finding)
        self._show(f"[{len(self._findings):{len(str(number))}}/{number}] {finding}")

    def _table(self, seconds: float) -> None:
        findings = sorted(self._findings, key=lambda finding: finding.exhibit.order)
        wide = max(len(finding.exhibit.name) for finding in findings)
        self._show("")
        for finding in findings:
            exhibit = finding.exhibit
            first, *others = (test.removeprefix("tests/") for test in exhibit.killed_by)
            by = first if finding.verdict is Verdict.KILLED else f"{first} ({finding.verdict.value})"
            self._show(f"{exhibit.name:{wide}}  {', '.join(exhibit.guarantees):8}  {finding.seconds:5.1f} s  {by}")
            for other in others:
                self._show(f"{'':{wide}}  {'':8}  {'':7}  {other}")
        count = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
        hangs = count[Verdict.KILLED_BY_A_HANG]
        tests = len({test for finding in findings for test in finding.exhibit.killed_by})
        self._show("")
        self._show(
            f"{len(findings)} exhibits, {tests} tests, {seconds:.0f} s: {count[Verdict.KILLED] + hangs} killed "
            f"({hangs} by a hang), {count[Verdict.SURVIVED]} survived, {count[Verdict.BROKEN]} broken"
        )


async def _killed(exhibit: Exhibit, folder: pathlib.Path) -> tuple[Verdict, list[str]]:
    """How the tests of an exhibit kill it.

    Raises:
        Survived: One does not.
        BrokenExhibit: It shows nothing.
    """
    exhibit.mutated()  # what does not fit need not be tried
    control = folder / "control"
    copy_source(control)
    _insist_on_passed(exhibit, await run_tests(exhibit.killed_by, control, patience=PATIENCE))
    verdict, lines = Verdict.KILLED, []
    for number, test in enumerate(exhibit.killed_by):
        copy = folder / str(number)
        exhibit.put_into(copy)
        report = await run_tests([test], copy, patience=exhibit.hangs or PATIENCE)
        if report.package != str(copy / "orc_trio"):
            raise BrokenExhibit(f"the changed package was not imported{_last_lines(report)}")
        if report.hung and report.running and exhibit.hangs:
            verdict = Verdict.KILLED_BY_A_HANG
            lines.append("it hangs")
        elif report.hung:
            raise BrokenExhibit(f"{test} hangs, and the exhibit does not say that it does{_last_lines(report)}")
        elif report.status == 0:
            raise Survived(f"{test} passed, although: {exhibit.title}")
        elif report.status != 1 or "failed" not in report.of(test):
            raise BrokenExhibit(f"{test} did not fail as a test does (status {report.status}){_last_lines(report)}")
        else:
            lines += [raised[:150] for raised in report.raised.values()]
    return verdict, lines


def _insist_on_passed(exhibit: Exhibit, report: Report) -> None:
    for test in exhibit.killed_by:
        if report.of(test) != {"passed"}:
            how = ", ".join(sorted(report.of(test))) or "not run"
            raise BrokenExhibit(f"without the fault {test} is {how}{_last_lines(report)}")
    if report.status != 0 or report.hung:
        raise BrokenExhibit(f"without the fault the tests end with status {report.status}{_last_lines(report)}")
    longest = max(report.seconds.values())
    if exhibit.hangs and exhibit.hangs < MARGIN * longest:
        raise BrokenExhibit(f"a test takes {longest:.1f} s, so after {exhibit.hangs:g} s it does not hang yet")


def _last_lines(report: Report) -> str:
    return "".join(f"\n| {line}" for line in report.output.splitlines()[-LAST_LINES:])


def run(shown: Sequence[Exhibit], show: Callable[[str], object]) -> int:
    """Run exhibits.

    Args:
        shown: Which, at least one.
        show: Told every line of what there is to read.

    Returns:
        The exit status: 0 if all were killed, 1 if not.
    """
    return 0 if trio.run(Run(show).all_of, shown) else 1


def main(arguments: Sequence[str]) -> int:
    """Run all exhibits, or those that are named.

    Returns:
        The exit status: 0 if all were killed, 1 if not, 2 if there is no such exhibit.
    """
    everything = {exhibit.name: exhibit for exhibit in exhibits()}
    if missing := [name for name in arguments if name not in everything]:
        print(f"no such exhibit: {', '.join(missing)}; there are: {', '.join(everything)}")
        return 2
    shown = [everything[name] for name in dict.fromkeys(arguments or everything)]
    return run(shown, lambda line: print(line, flush=True))
