# `orc-trio conformance`: verdicts as a table, a page and JSON; and checks that hang or crash cost one verdict.

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cli_helpers import PATIENCE, Cli, orc_trio_process, started
from orc_trio.cli import conformance as command
from orc_trio.cli.exits import ExitCode

HERE = Path(__file__).parent


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(command, "_GRACE", 0.2)
    return Cli(capfdbinary)


def test_a_good_one(cli: Cli, tmp_path: Path) -> None:
    """All verdicts as a table on stdout, the reports in files, exit code 0, nothing on stderr."""
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    ended = cli("conformance", "conformance_subjects:good", "--html", page, "--json", data)
    lines = ended.out.decode().splitlines()
    assert ended.status == ExitCode.OK
    assert ended.err == ""
    assert lines[1] == "G1   exactly once                   passed"
    assert len([line for line in lines if line.startswith("G")]) == 26
    assert lines[-1] == "conformance_subjects:good: 26 passed"
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    found = json.loads(data.read_text())
    assert found["passed"] is True
    assert len(found["subjects"][0]["verdicts"]) == 26


def test_several_beside_each_other(cli: Cli) -> None:
    """Several factories are several columns; one that fails is exit code 1, and says what is wrong."""
    subjects = ["conformance_subjects:good", "conformance_subjects:faulty", "conformance_subjects:tests"]
    ended = cli("conformance", *subjects, "--only", "G9", "--only", "g11,G26", "--seed", "5")
    assert ended.status == ExitCode.FAILED
    text = ended.out.decode()
    lines = text.splitlines()
    assert lines[0].split() == subjects
    assert [line.split()[0] for line in lines[1:4]] == ["G9", "G11", "G26"]
    assert lines[2].split()[-3:] == ["passed", "failed", "passed"]
    assert "\nconformance_subjects:faulty: G11 one cause, one end: failed\n    expected: " in text
    assert "    the same order of tasks again: orc_trio.testing.run_scheduled(5, …)" in text
    assert "what a subject prints" not in text
    assert "what a subject prints" in ended.err


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        ("nonsense", "nonsense: write MODULE:FACTORY, for example my_tests:my_pairs"),
        (":x", ":x: write MODULE:FACTORY"),
        ("not_there:x", "not_there:x: cannot import not_there: ModuleNotFoundError: No module named 'not_there'"),
        ("conformance_subjects:nothing", "conformance_subjects:nothing: conformance_subjects has no nothing"),
        ("conformance_subjects:number", "that gives an async context manager: it cannot be called"),
        (
            "conformance_subjects:needs_an_argument",
            "context manager: TypeError: needs_an_argument() missing",
        ),
        ("conformance_subjects:gives_a_number", "context manager: it gives a int"),
        ("conformance_subjects:gives_a_coroutine", "context manager: it gives a coroutine"),
    ],
)
def test_what_is_no_factory(cli: Cli, subject: str, says: str) -> None:
    """What cannot be checked is one line, and exit code 2."""
    ended = cli("conformance", subject)
    assert ended.status == ExitCode.USAGE
    assert ended.out == b""
    (line,) = ended.err.splitlines()
    assert says in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing argument 'MODULE:FACTORY...'"),
        (["x:y", "--only", "G27,G1"], "--only: there is no guarantee G27; there are G1 to G26"),
        (["x:y", "--patience", "0"], "is not in the range"),
    ],
)
def test_a_wrong_command_line(cli: Cli, arguments: list[str], says: str) -> None:
    """A wrong command line is one line, and exit code 2."""
    ended = cli("conformance", *arguments)
    assert (ended.status, ended.out) == (ExitCode.USAGE, b"")
    assert says in ended.err


def test_a_report_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    """That is said, in one line; the table was shown."""
    ended = cli("conformance", "conformance_subjects:good", "--only", "G9", "--html", tmp_path / "not" / "there")
    assert ended.status == ExitCode.USAGE
    assert b"1 passed" in ended.out
    assert ended.err == f"orc-trio: {tmp_path}/not/there: No such file or directory\n"


def test_a_module_that_takes_the_process_down(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that ends the process when it is imported is named."""
    (tmp_path / "ends.py").write_text("import os; os._exit(7)\n")
    monkeypatch.chdir(tmp_path)
    ended = cli("conformance", "ends:x")
    assert ended.status == ExitCode.USAGE
    assert ended.err == "orc-trio: ends:x: the process that imports it exited with status 7\n"


def test_a_check_that_cannot_be_cancelled(cli: Cli) -> None:
    """A hang that shields itself is told, with where everybody stands, and costs its own verdict only."""
    ended = cli("conformance", "conformance_subjects:hard_to_stop", "--only", "G6,G26")
    text = ended.out.decode()
    assert ended.status == ExitCode.FAILED
    assert [line.split()[-1] for line in text.splitlines()[1:3]] == ["hung", "hung"]
    assert "it hangs, and cannot be cancelled: nothing was finished for " in text
    assert "waits in _shield (" in text


def test_a_check_that_blocks_the_loop(cli: Cli) -> None:
    """One whose event loop stands still is killed when patience has run out, and the next one goes on."""
    ended = cli("conformance", "conformance_subjects:blocked", "--only", "G1", "--only", "G2", "--patience", "1.5")
    text = ended.out.decode()
    assert ended.status == ExitCode.FAILED
    assert text.count("it was not over after 1.5 s, and its process was killed") == 2
    assert "conformance_subjects:blocked: 2 hung" in text


def test_a_check_that_crashes(cli: Cli) -> None:
    """One that takes its process down has failed, and says of what it died; the next one goes on."""
    ended = cli("conformance", "conformance_subjects:deadly", "--only", "G1,G2")
    text = ended.out.decode()
    assert ended.status == ExitCode.FAILED
    assert text.count("the process that ran it was killed by SIGSEGV") == 2


def test_progress_at_a_terminal() -> None:
    """At a terminal there is a line for each verdict as it comes; with several factories it says whose."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "orc_trio", "conformance", "--only", "G9,G10"]
    subjects = ["conformance_subjects:good", "conformance_subjects:tests"]
    done = subprocess.run(
        [*command, *subjects], cwd=HERE, stdout=subprocess.PIPE, stderr=theirs, timeout=PATIENCE, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert [line.partition(", ")[0] for line in shown] == [
        f"{subject}: {verdict}: passed"
        for subject in subjects
        for verdict in ("G9 only registered tags", "G10 errors are not bytes")
    ]
    assert b"2 passed" in done.stdout


def test_interrupted() -> None:
    """Ctrl-C ends it, and what it had started."""
    with started("conformance", "conformance_subjects:blocked", cwd=HERE) as process:
        deadline = time.monotonic() + PATIENCE
        while not (children := _children(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        for child in children:
            assert not Path(f"/proc/{child}").exists()


def _children(pid: int) -> list[int]:
    """The processes it runs checks in.  (Each thread has its own children: Trio forks in one of its workers.)"""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [each for each in path.read_text().split() if "child" in Path(f"/proc/{each}/cmdline").read_text()]
    return [int(each) for each in found]


def test_as_a_process() -> None:
    """The command as it is installed, with warnings as errors in what it starts."""
    ended = orc_trio_process(
        "conformance", "conformance_subjects:good", "--only", "G19", cwd=HERE, env={"PYTHONWARNINGS": "error"}
    )
    assert (ended.status, ended.err) == (0, "")
