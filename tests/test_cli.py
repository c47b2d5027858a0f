# The command line as a whole: help, errors in one line, exit codes.

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli_helpers import ORC_TRIO, Cli, orc_trio_process
from orc_trio.cli import commands
from orc_trio.cli.commands import orc_trio as group
from orc_trio.cli.exits import ExitCode, one_line, signal_status

COMMANDS = sorted(group.commands)
CLI_PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.rst"


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capsysbinary)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(cli: Cli, command: str) -> None:
    """Every command's help has examples and the exit codes."""
    ended = cli(command, "--help")
    assert ended.status == 0
    assert ended.err == ""
    text = ended.out.decode()
    assert "Examples:\n" in text
    assert f"\n    orc-trio {command} " in text
    assert "Exit codes:" in text or "Exit codes: the program's own" in text


def test_no_command(cli: Cli) -> None:
    """Without a command: the help, on stderr."""
    ended = cli()
    assert ended.status == ExitCode.USAGE
    assert ended.out == b""
    assert all(f"\n  {command} " in ended.err for command in COMMANDS)


def test_version(cli: Cli) -> None:
    """--version says which it is."""
    ended = cli("--version")
    assert ended.status == 0
    assert ended.out.startswith(b"orc-trio, version ")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nonsense"], "No such command 'nonsense'; see orc-trio --help"),
        (["--nonsense"], "No such option"),
        (["run"], "Missing argument 'PROGRAM'; see orc-trio run --help"),
        (["run", "-O9", "x.ll"], "not in the range 0<=x<=3"),
        (["run", "--vetted", "checked", "x.ll"], "without one, leave it out"),
        (["run", "--spec", "nonsense", "x.ll"], "'nonsense' is not a connection spec: it has no '='; write transport"),
        (["call", "carrier:pigeon=x", "s"], "there is no transport 'carrier'"),
        (["call", "tcp:connect=127.0.0.1", "s"], "the port is missing"),
        (["call", "tcp:connect=127.0.0.1:9", "s"], "add --vetted unchecked if whoever can reach it may take part"),
        (["call", "unix:connect=/x", "s", "--vetted", "inherited"], "say --vetted checked or unchecked"),
        (["call", "unix:connect=/x", "s", "-d", "a", "-x", "00"], "one of --data, --hex and --file"),
        (["call", "unix:connect=/x", "-d", "a"], "no SYMBOL to call"),
        (["call", "unix:connect=/x", "s", "--hex", "0"], "--hex 0: "),
        (["call", "unix:connect=/x", "s", "--file", "/nowhere/x"], "/nowhere/x: No such file or directory"),
        (["call", "unix:connect=/x", "s", "--timeout", "0"], "0.0 is not in the range"),
        (["call", "unix:connect=/x", "s", "--trace", "/nowhere/x"], "--trace /nowhere/x: No such file or directory"),
        (["decode", "/nowhere/x"], "/nowhere/x: No such file or directory"),
        (["decode", "/"], "/: Is a directory"),
        (["executor", "tcp:listen=127.0.0.1:0"], "add --vetted unchecked"),
    ],
)
def test_errors_are_one_line(cli: Cli, argv: list[str], says: str) -> None:
    """A wrong command line is exit code 2 and one line that says what is wrong."""
    ended = cli(*argv)
    assert ended.status == ExitCode.USAGE
    assert ended.out == b""
    (line,) = ended.err.splitlines()
    assert line.startswith("orc-trio: ")
    assert says in line


def test_nobody_there(cli: Cli, tmp_path: Path) -> None:
    """A spec at which nobody is: one line, exit code 3."""
    ended = cli("call", f"unix:connect={tmp_path}/x", "s")
    assert ended == (ExitCode.DISCONNECTED, b"", f"orc-trio: unix:connect={tmp_path}/x: No such file or directory\n")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (click.Abort(), 130, ""),
        (KeyboardInterrupt(), 130, ""),
        (click.FileError("f", "why"), 1, "orc-trio: Could not open file 'f': why\n"),
        (commands.OrcError("one\ntwo \x07"), 3, "orc-trio: one\ntwo \\x07\n"),
        (commands.Failure("alas", 77), 77, "orc-trio: alas\n"),
        (commands.Failure("", 5), 5, ""),
    ],
)
def test_errors_of_a_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, says: str
) -> None:
    """What a command raises becomes its line and its exit code."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr(group, "invoke", fail)
    assert cli("decode", "x") == (status, b"", says)


def test_a_bug_is_a_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is not hidden."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(group, "invoke", fail)
    with pytest.raises(ZeroDivisionError):
        cli("decode", "x")


def test_one_line() -> None:
    """A stranger's text cannot drive the terminal."""
    assert one_line("a\nb\x1b[31m\x9b é") == "a\\nb\\x1b[31m\\x9b é"
    assert signal_status(11) == 139


def test_broken_pipe() -> None:
    """`orc-trio … | head`: it stops without complaint, as if SIGPIPE had ended it."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*ORC_TRIO, "--help"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_completion() -> None:
    """Shells can be taught to complete."""
    ended = orc_trio_process(env={"_ORC_TRIO_COMPLETE": "bash_source"})
    assert ended.status == 0
    assert b"complete" in ended.out


def test_module_and_script() -> None:
    """`python -m orc_trio` and `orc-trio` are the same; starting is quiet under -W error."""
    module = orc_trio_process("--version")
    script = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import sys; from orc_trio.cli import main; sys.exit(main())",
            "--version",
        ],
        capture_output=True,
        check=False,
    )
    assert module == (script.returncode, script.stdout, script.stderr.decode())
    assert module.status == 0


def test_the_page_has_every_option() -> None:
    """docs/cli.rst names every command, every option, and every exit code."""
    page = CLI_PAGE.read_text(encoding="utf-8")
    for name, command in group.commands.items():
        assert f"orc-trio {name}\n" in page
        section = page[page.index(f"\norc-trio {name}\n") :]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for option in parameter.opts + parameter.secondary_opts:
                    assert f"``{option}" in section, f"{name} {option}"
    for code in ExitCode:
        assert f"   * - {code.value}\n" in page, code
