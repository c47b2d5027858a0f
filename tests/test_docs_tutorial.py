# The tutorial does what it says: its programs are taken from the page and run, and print what the page shows.

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from docs_blocks import Block, blocks


def _steps() -> list[tuple[str, dict[str, str], str]]:
    """Each ``$ python PROGRAM`` on the page: the program, the files as they are at that point, the output shown."""
    files: dict[str, str] = {}
    steps = []
    for block in blocks("tutorial"):
        if block.language == "python" and block.caption:
            files[block.caption] = block.text
        elif _is_run(block):
            command, _, output = block.text.removeprefix("$ ").partition("\n")
            steps.append((shlex.split(command)[1], dict(files), output))
    return steps


def _is_run(block: Block) -> bool:
    return block.language == "console" and block.text.startswith("$ python ") and " -m " not in block.text


STEPS = _steps()


@pytest.mark.parametrize(("program", "files", "output"), STEPS, ids=[f"{n}-{step[0]}" for n, step in enumerate(STEPS)])
def test_tutorial(program: str, files: dict[str, str], output: str, tmp_path: Path) -> None:
    """Each program of the tutorial prints what the tutorial says."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    if program == "inside.py":  # the page says that its lines may come in another order
        assert sorted(done.stdout.splitlines()) == sorted(output.splitlines())
    else:
        assert done.stdout == output
