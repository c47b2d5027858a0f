# `orc-trio call`: one call, its answer, what can go wrong.

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import orc_trio
from cli_helpers import Cli, executor, started
from orc_trio.cli.call import Output, format_answer
from orc_trio.tracing import read_records

Talk = Callable[..., "tuple[int, bytes, str]"]


@pytest.fixture
def talk(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> Talk:
    """Call a function of an executor: `talk("echo", "-d", "x")`."""
    cli = Cli(capsysbinary)

    def talk_once(*argv: str | Path, **wrappers: Callable[[bytes], object]) -> tuple[int, bytes, str]:
        path = tmp_path / "s"
        with executor(f"unix:listen={path}", wrappers or {"echo": lambda args: args}):
            return cli("call", f"unix:connect={path}", *argv)

    return talk_once


def test_answer(talk: Talk) -> None:
    """The answer goes to stdout as it is, if stdout is no terminal."""
    assert talk("echo", "--data", "hé") == (0, "hé".encode(), "")
    assert talk("echo") == (0, b"", "")
    assert talk("echo", "--hex", "00 ff") == (0, b"\x00\xff", "")
    assert talk("echo", "--hex", "00ff", "--output", "hex") == (
        0,
        b"00000000  00 ff" + b" " * 42 + b"  ..\n",
        "",
    )


def test_answer_at_a_terminal(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal, the answer is text with a line end."""
    monkeypatch.setattr("orc_trio.cli.call.is_terminal", lambda: True)
    assert talk("echo", "--data", "hi") == (0, b"hi\n", "")


def test_files(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument bytes may come from a file or from stdin."""
    (tmp_path / "f").write_bytes(b"\x00file")
    assert talk("echo", "--file", tmp_path / "f")[1] == b"\x00file"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"stdin")))
    assert talk("echo", "--file", "-")[1] == b"stdin"


@pytest.mark.parametrize(
    ("answer", "output", "shown"),
    [
        (b"", "text", b""),
        (b"a", "text", b"a\n"),
        (b"a\n", "text", b"a\n"),
        (b"a\x1b", "text", b"00000000  61 1b" + b" " * 42 + b"  a.\n"),
        (b"\xff", "text", b"00000000  ff" + b" " * 45 + b"  .\n"),
        (b"\xff\n", "raw", b"\xff\n"),
        (b"", "hex", b""),
        (
            b"0123456789abcdef ",
            "hex",
            b"00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef\n"
            b"00000010  20" + b" " * 45 + b"   \n",
        ),
    ],
)
def test_formats(answer: bytes, output: Output, shown: bytes) -> None:
    """raw is raw, text is text if it is, hex is a dump."""
    assert format_answer(answer, output) == shown


def test_listing(talk: Talk) -> None:
    """Without a symbol: what the executor says about itself."""
    status, out, err = talk()
    assert (status, err) == (0, "")
    lines = out.decode().splitlines()
    assert lines[0].startswith("triple     ")
    assert lines[1].startswith("page size  ")
    assert lines[2:] == ["value      greeting = b'hi \\x1b'", "symbol     0x8000000000000000 echo"]


def test_by_address(talk: Talk) -> None:
    """A function can be called by its address."""
    assert talk("0x8000000000000000", "-d", "x") == (0, b"x", "")
    assert talk("0x1234") == (1, b"", "orc-trio: there is no function at 0x1234 in this executor\n")


def test_no_such_symbol(talk: Talk) -> None:
    """A wrong name: the error lists the right ones."""
    assert talk("nix") == (1, b"", "orc-trio: the executor has no symbol 'nix'; there are: echo\n")
    assert talk(str(1 << 64))[0] == 1


def test_error_answer(talk: Talk) -> None:
    """An error instead of an answer: its type and message, harmless for the terminal, and exit code 1."""

    def refuse(_args: bytes) -> bytes:
        raise orc_trio.WrapperFunctionError("Nope", "no\n\x1b[31m")

    assert talk("refuse", refuse=refuse) == (1, b"", "orc-trio: refuse answered with an error: Nope: no\\n\\x1b[31m\n")


def test_timeout(talk: Talk) -> None:
    """--timeout: one line, exit code 3.  It holds for connecting too, which has to be over by then."""

    async def sleep(_args: bytes) -> bytes:
        await trio.sleep_forever()

    assert talk("sleep", "--timeout", "3", sleep=sleep) == (3, b"", "orc-trio: no answer within 3 s\n")


def test_timeout_is_long_enough(talk: Talk) -> None:
    """An answer within the timeout is an answer."""
    assert talk("echo", "--timeout", "50", "-d", "x") == (0, b"x", "")


def test_trace(talk: Talk, tmp_path: Path) -> None:
    """--trace writes every message."""
    assert talk("echo", "-d", "x", "--trace", tmp_path / "t")[0] == 0
    with (tmp_path / "t").open("rb") as file:
        assert [each.message.payload for each in read_records(file) if each.message][2:4] == [b"x", b"x"]


def test_trace_to_a_full_disk(talk: Talk) -> None:
    """A trace that cannot be written costs a line, not the answer."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    status, out, err = talk("echo", "-d", "x", "--trace", "/dev/full")
    assert (status, out) == (0, b"x")
    assert err == "orc-trio: the trace is incomplete: /dev/full: No space left on device\n"


def test_lost(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    """A connection that ends during the call: why, and whether the call may have run."""
    (tmp_path / "killer.py").write_text("import os\ndef die(args): os._exit(0)\n")
    path = tmp_path / "s"
    with started("executor", "--wrappers", "killer:die", f"unix:listen={path}", cwd=tmp_path) as process:
        assert b"listening" in process.stderr.readline()
        ended = Cli(capsysbinary)("call", f"unix:connect={path}", "die")
    assert ended == (3, b"", "orc-trio: end of stream without a hang-up; the call: unknown\n")


def test_waiting_for_an_executor(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A listening spec says where it waits; the timeout holds for waiting too."""
    ended = Cli(capsysbinary)("call", "tcp:listen=127.0.0.1:0", "x", "--vetted", "unchecked", "--timeout", "2")
    assert ended.status == 3
    first, second = ended.err.splitlines()
    assert first.startswith("orc-trio call: waiting for an executor on tcp:listen=127.0.0.1:")
    assert second == "orc-trio: no answer within 2 s"
