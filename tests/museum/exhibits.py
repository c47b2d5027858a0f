# The exhibits of the bug museum: what they are, where they are kept, and how one is put into a copy of the source.
#
# An exhibit is one fault: a bug that other libraries really had, or a breach of one of our guarantees, translated into
# changes of our own source. It is one TOML file beside this module, named by its slug:
#
#     title = "A second closer returns early"
#     story = """What the bug does to a user, in two to four sentences."""
#     seen_in = ["grpc-go#903", "execnet", "rpyc"]    # left out: nowhere but here
#     guarantees = ["G12"]                            # which it breaks
#     killed_by = ["tests/test_x.py::test_y[memory]"] # every one of these must fail
#     hangs = 8                                       # a hang is how it shows: after so many seconds it is one
#
#     [[changes]]
#     file = "controller.py"                          # below src/orc_trio
#     old = '''whole lines, which occur exactly once'''
#     new = '''what they are replaced by'''
#
# The faults are not in the product, and nothing in the product switches them on.

from __future__ import annotations

import difflib
import pathlib
import re
import shutil
import tomllib
from typing import Final

import attrs

ROOT: Final = pathlib.Path(__file__).parents[2]
SOURCE: Final = ROOT / "src" / "orc_trio"
FOLDER: Final = pathlib.Path(__file__).parent


class BrokenExhibit(Exception):
    """An exhibit that shows nothing: it does not fit the source any more, or is not written as it should be."""


@attrs.frozen
class Change:
    """One place that is changed.

    Attributes:
        file: Relative to the package.
        old: Whole lines, which occur there exactly once.
        new: What they are replaced by.
    """

    file: str
    old: str
    new: str

    def diff(self) -> str:
        """As a diff, without line numbers: they would change all the time."""
        old, new = self.old.splitlines(), self.new.splitlines()
        return "\n".join(list(difflib.unified_diff(old, new, n=len(old), lineterm=""))[3:])

    def applied_to(self, text: str) -> str:
        """``text`` with the change made.

        Raises:
            BrokenExhibit: The old lines are not there, or more than once; or they are no whole lines.
        """
        if not self.old.endswith("\n") or (self.new and not self.new.endswith("\n")):
            raise BrokenExhibit(f"{self.file}: a change is of whole lines")
        changed, found = re.subn(f"^{re.escape(self.old)}", lambda _: self.new, text, flags=re.MULTILINE)
        if found != 1:
            raise BrokenExhibit(f"{self.file}: the old lines occur {found} times:\n{self.old}")
        return changed


@attrs.frozen
class Exhibit:
    """One fault, its story, and what kills it.

    Attributes:
        name: The slug.
        title: A headline.
        story: What it does to a user.
        guarantees: Which it breaks: ``G1`` and so on.
        changes: How our source is made to have it.
        killed_by: The ids of the tests that must fail, each of them.
        seen_in: Where it was seen: a library, or a library's issue.
        hangs: If a hang is how it shows: seconds after which a test is taken to hang.
    """

    name: str
    title: str
    story: str
    guarantees: tuple[str, ...]
    changes: tuple[Change, ...]
    killed_by: tuple[str, ...]
    seen_in: tuple[str, ...] = ()
    hangs: float | None = None

    @property
    def order(self) -> tuple[bool, int, str]:
        """Where it stands: what others had comes first, then by guarantee."""
        return not self.seen_in, min(int(guarantee[1:]) for guarantee in self.guarantees), self.name

    def mutated(self) -> dict[str, str]:
        """The changed files, by their names, as they are when every change is made.

        Raises:
            BrokenExhibit: It does not fit the source, or gives no Python.
        """
        texts: dict[str, str] = {}
        for change in self.changes:
            path = SOURCE / change.file
            if not path.is_file():
                raise BrokenExhibit(f"{change.file}: there is no such file")
            texts[change.file] = change.applied_to(texts.get(change.file, path.read_text()))
        for file, text in texts.items():
            try:
                compile(text, file, "exec", dont_inherit=True)
            except SyntaxError as exc:
                raise BrokenExhibit(f"{file}: what comes out is no Python: {exc}") from None
        return texts

    def put_into(self, folder: pathlib.Path) -> None:
        """Make ``folder`` a place from which the package can be imported, with this fault in it.

        Raises:
            BrokenExhibit: See `mutated`; nothing was written.
        """
        texts = self.mutated()
        copy_source(folder)
        for file, text in texts.items():
            (folder / "orc_trio" / file).write_text(text)


def copy_source(folder: pathlib.Path) -> None:
    """Make ``folder`` a place from which the package can be imported, as it is."""
    shutil.copytree(SOURCE, folder / "orc_trio", ignore=shutil.ignore_patterns("__pycache__"))


def read(path: pathlib.Path) -> Exhibit:
    """The exhibit in one file.

    Raises:
        BrokenExhibit: It is not written as it should be.
    """
    try:
        fields = tomllib.loads(path.read_text())
        changes = tuple(Change(**change) for change in fields.pop("changes"))
        lists = {name: tuple(fields.pop(name, ())) for name in ("guarantees", "killed_by", "seen_in")}
        exhibit = Exhibit(name=path.stem, changes=changes, **lists, **fields)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise BrokenExhibit(f"{path.name}: {exc}") from exc
    for needed in ("title", "story", "guarantees", "changes", "killed_by"):
        if not getattr(exhibit, needed):
            raise BrokenExhibit(f"{path.name}: {needed} is empty")
    return exhibit


def exhibits() -> list[Exhibit]:
    """All of them, in the order in which they are shown."""
    return sorted((read(path) for path in FOLDER.glob("*.toml")), key=lambda exhibit: exhibit.order)
