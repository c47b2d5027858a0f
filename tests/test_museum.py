# The bug museum: every exhibit fits the source as it is now, and the runner can tell when one is not killed.
#
# Whether all of them are killed is what `nox -s museum` finds out; here only a few are run.

from __future__ import annotations

import ast
import functools
import pathlib
import re

import attrs
import pytest

from museum.exhibits import FOLDER, ROOT, SOURCE, BrokenExhibit, Change, Exhibit, exhibits, read
from museum.runner import main, run

EXHIBITS = {exhibit.name: exhibit for exhibit in exhibits()}
GUARANTEES = re.findall(r"^\.\. _(G\d+):$", (ROOT / "docs" / "guarantees.rst").read_text(), re.MULTILINE)

# What ends other libraries' calls and connections in the wrong way: measured, or in their issues.
SEEN_ELSEWHERE = [
    "register-after-the-drain",
    "second-closer-returns-early",
    "double-close-deadlocks",
    "pending-on-the-wire-not-failed",
    "waiters-for-a-slot-forgotten",
    "settled-twice",
    "late-reply-wedges-the-reader",
    "drain-timeout-reported-as-clean",
    "close-frame-lost-when-the-queue-is-full",
    "handler-outlives-stop",
    "lock-held-while-user-code-runs",
    "reader-held-while-user-code-runs",
    "flow-limit-that-also-blocks-results",
    "local-and-remote-end-not-told-apart",
    "oversize-frame-kills-the-dispatch-loop",
    "cancelled-caller-tears-a-frame",
    "connect-failure-notified-twice",
    "connect-failure-never-notified",
]

every_exhibit = pytest.mark.parametrize("exhibit", EXHIBITS.values(), ids=EXHIBITS)


@every_exhibit
def test_it_fits(exhibit: Exhibit) -> None:
    """An exhibit's changes fit the source exactly once, change something, and give Python."""
    for file, text in exhibit.mutated().items():
        assert text != (SOURCE / file).read_text()


@functools.cache
def functions(path: str) -> set[str]:
    """The functions of one file of tests."""
    module = ast.parse((ROOT / path).read_text())
    return {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@every_exhibit
def test_its_tests_exist(exhibit: Exhibit) -> None:
    """The tests that kill an exhibit are there, under their names."""
    for test in exhibit.killed_by:
        path, _, name = test.partition("::")
        assert name.partition("[")[0] in functions(path), test


@every_exhibit
def test_it_breaks_guarantees_that_exist(exhibit: Exhibit) -> None:
    """An exhibit breaks guarantees that exist, each named once."""
    assert set(exhibit.guarantees) <= set(GUARANTEES)
    assert len(set(exhibit.guarantees)) == len(exhibit.guarantees)


def test_what_was_seen_elsewhere_is_there() -> None:
    """The museum has every bug that it was made for, and says where it was seen."""
    assert [name for name in SEEN_ELSEWHERE if name not in EXHIBITS or not EXHIBITS[name].seen_in] == []


def test_every_guarantee_can_be_broken() -> None:
    """For each guarantee there is an exhibit that breaks it."""
    broken = {guarantee for exhibit in EXHIBITS.values() for guarantee in exhibit.guarantees}
    assert [guarantee for guarantee in GUARANTEES if guarantee not in broken] == []


def test_three_of_them_are_killed() -> None:
    """The tests kill three exhibits: a call that is never settled, a closer that does not wait, a late handler."""
    shown = ["register-after-the-drain", "second-closer-returns-early", "handler-starts-after-the-end"]
    lines: list[str] = []
    assert run([EXHIBITS[name] for name in shown], lines.append) == 0, "\n".join(lines)
    assert lines[-1].endswith("3 killed (0 by a hang), 0 survived, 0 broken")


# --- the runner ---

FUNCTION = "def _name_of(function: Function) -> str:\n"
TEST = "tests/test_registry.py::test_a_function_without_a_name"


def fake(name: str, body: str = "", **fields: object) -> Exhibit:
    """An exhibit that puts ``body`` into a function that its test calls."""
    changes = (Change("registry.py", FUNCTION, FUNCTION + body),)
    exhibit = Exhibit(name, "A fake", "It is not shown.", ("G1",), changes, (TEST,))
    return attrs.evolve(exhibit, **fields)


def test_the_runner_tells_what_is_not_killed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What survives, shows nothing, or hangs is told apart; nothing that hangs is left; the exit status is 1."""
    pid = tmp_path / "pid"
    monkeypatch.setenv("ORC_TRIO_MUSEUM_PID", str(pid))
    hangs = """
    import os, pathlib, subprocess, time
    pathlib.Path(os.environ["ORC_TRIO_MUSEUM_PID"]).write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
    time.sleep(1000)
"""
    shown = {
        "SURVIVED": fake("survives", "    assert callable(function)\n"),
        "killed by a hang": fake("hangs", hangs, hangs=1.0),
        "BROKEN": fake("does not apply", changes=(Change("registry.py", "no such line\n", ""),)),
        "BROKEN, too": fake("no import", changes=(Change("registry.py", FUNCTION, "import nothing\n" + FUNCTION),)),
        "BROKEN, also": fake("has no test", "    return ''\n", killed_by=("tests/test_registry.py::test_nothing",)),
        "BROKEN, as well": fake("is impatient", "    return ''\n", hangs=1e-6),
    }
    lines: list[str] = []
    assert run(list(shown.values()), lines.append) == 1
    told = "\n".join(lines)
    for verdict, exhibit in shown.items():
        assert f"] {exhibit.name}: {verdict.partition(',')[0]}, " in told, told
    assert "the old lines occur 0 times" in told
    assert "No module named 'nothing'" in told
    assert "test_nothing is not run" in told
    assert "so after 1e-06 s it does not hang yet" in told
    assert lines[-1].endswith("1 killed (1 by a hang), 1 survived, 4 broken")
    status = pathlib.Path("/proc", pid.read_text(), "stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """An exhibit that does not exist is told; the exit status is 2."""
    assert main(["settled-twice", "nowhere"]) == 2
    assert "no such exhibit: nowhere; there are: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title = ", "Invalid value"),
        ("title = 'x'", "changes"),
        ("title = 'x'\nstory = 'y'\nchanges = []", "guarantees is empty"),
        ("title = 'x'\nstory = 'y'\nchanges = []\nwhy = 5", "why"),
    ],
)
def test_what_is_no_exhibit(text: str, says: str, tmp_path: pathlib.Path) -> None:
    """A file that is no exhibit says why."""
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(BrokenExhibit, match=f"bad.toml.*{says}"):
        read(path)


def test_a_change_is_of_whole_lines() -> None:
    """A change of a part of a line is refused, and so is one that fits twice."""
    with pytest.raises(BrokenExhibit, match="whole lines"):
        Change("x.py", "a", "b").applied_to("a\n")
    with pytest.raises(BrokenExhibit, match="occur 2 times"):
        Change("x.py", "a\n", "b\n").applied_to("a\na\n")
    with pytest.raises(BrokenExhibit, match="occur 0 times"):
        Change("x.py", "a\n", "b\n").applied_to("aa\n")
    assert Change("x.py", "a\n", "b\n").applied_to("aa\na\n") == "aa\nb\n"
    assert Change("x.py", "a\nb\n", "a\nc\n").diff() == " a\n-b\n+c"


def test_an_exhibit_that_gives_no_python() -> None:
    """Changes that give no Python, or are of a file that is not there, are refused."""
    with pytest.raises(BrokenExhibit, match="no Python"):
        fake("unfinished", "    if\n").mutated()
    with pytest.raises(BrokenExhibit, match="no such file"):
        fake("elsewhere", changes=(Change("nowhere.py", "a\n", ""),)).mutated()


def test_all_files_are_exhibits() -> None:
    """Each file is one exhibit, named by what it is."""
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(EXHIBITS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", name) for name in EXHIBITS)
