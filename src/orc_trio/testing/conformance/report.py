"""What was found: verdicts, and reports of them as text and as JSON (as HTML: `orc_trio.testing.conformance.page`)."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import attrs

__all__ = ["Outcome", "Report", "Subject", "Verdict"]


class Outcome(enum.Enum):
    """How a check ended."""

    PASSED = "passed"
    """No breach was found."""
    FAILED = "failed"
    """A breach was found, or something unexpected came out of the pair."""
    NOT_APPLICABLE = "not applicable"
    """The pair cannot do what the check needs, or does not claim the guarantee."""
    HUNG = "hung"
    """It did not come to its end."""

    @property
    def good(self) -> bool:
        """Whether it speaks against nothing."""
        return self in (Outcome.PASSED, Outcome.NOT_APPLICABLE)


@attrs.frozen(kw_only=True)
class Verdict:
    """What one check found.

    Attributes:
        guarantee: Its number: ``"G12"``.
        title: The check's name.
        outcome: How it ended.
        why: What is wrong; why it does not apply; what a check that passed had to leave out.  May be empty.
        seconds: How long it took.
        seed: What decided the order of tasks: for `run_conformance`.
    """

    guarantee: str
    title: str
    outcome: Outcome
    why: str = ""
    seconds: float = 0.0
    seed: int = 0

    def __str__(self) -> str:
        first = self.why.split("\n", 1)[0]
        return f"{self.guarantee} {self.title}: {self.outcome.value}{f' ({first})' if first else ''}"


@attrs.frozen(kw_only=True)
class Subject:
    """What was checked, and what was found.

    Attributes:
        name: Its name, for people.
        verdicts: One for each check, in order.
    """

    name: str
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed or hung."""
        return all(verdict.outcome.good for verdict in self.verdicts)

    def summary(self) -> str:
        """How many checks ended how."""
        counts = Counter(verdict.outcome for verdict in self.verdicts)
        return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]) or "no checks"


@attrs.frozen(kw_only=True)
class Report:
    """What was found about one subject, or several beside each other.

    Attributes:
        subjects: What was checked.
    """

    subjects: tuple[Subject, ...]

    @classmethod
    def of(cls, reports: Iterable[Report]) -> Report:
        """Several reports beside each other."""
        return cls(subjects=tuple(subject for report in reports for subject in report.subjects))

    @property
    def passed(self) -> bool:
        """Whether no check of any subject failed or hung."""
        return all(subject.passed for subject in self.subjects)

    def rows(self) -> Iterator[tuple[str, str, list[Verdict | None]]]:
        """Each guarantee with its title, and each subject's verdict (None: not looked at)."""
        titles = {verdict.guarantee: verdict.title for subject in self.subjects for verdict in subject.verdicts}
        found = [{verdict.guarantee: verdict for verdict in subject.verdicts} for subject in self.subjects]
        for guarantee in sorted(titles, key=lambda name: int(name[1:])):
            yield guarantee, titles[guarantee], [verdicts.get(guarantee) for verdicts in found]

    def text(self) -> str:
        """The report for a terminal: a table, then what was not looked at, then what is wrong."""
        heads = [subject.name for subject in self.subjects]
        rows = [
            [guarantee, title, *(verdict.outcome.value if verdict else "" for verdict in verdicts)]
            for guarantee, title, verdicts in self.rows()
        ]
        widths = [max(map(len, column)) for column in zip(["", "", *heads], *rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        head = "  ".join(cell.ljust(width) for cell, width in zip(["", "", *heads], widths, strict=True)).rstrip()
        parts = ["\n".join([head, *lines])]
        found = [(subject, verdict) for subject in self.subjects for verdict in subject.verdicts if verdict.why]
        if remarks := [f"{subject.name}: {verdict}" for subject, verdict in found if verdict.outcome.good]:
            parts.append("\n".join(remarks))
        for subject, verdict in found:
            if not verdict.outcome.good:
                why = "\n".join(f"    {line}" for line in verdict.why.splitlines())
                parts.append(f"{subject.name}: {verdict.guarantee} {verdict.title}: {verdict.outcome.value}\n{why}")
        parts.append("\n".join(f"{subject.name}: {subject.summary()}" for subject in self.subjects))
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The report for programs: what `json.dumps` takes."""
        return {
            "orc_trio": version("orc-trio"),
            "passed": self.passed,
            "subjects": [
                {
                    "name": subject.name,
                    "passed": subject.passed,
                    "verdicts": [
                        attrs.asdict(verdict) | {"outcome": verdict.outcome.value} for verdict in subject.verdicts
                    ],
                }
                for subject in self.subjects
            ],
        }

    def html(self) -> str:
        """The report as a web page that stands alone."""
        from orc_trio.testing.conformance.page import page

        return page(self)
