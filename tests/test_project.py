# The project's own files agree with each other.

from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def readme_commands() -> list[str]:
    """The lines of README.md's shell blocks."""
    blocks = (ROOT / "README.md").read_text().split("```sh\n")[1:]
    return [line for block in blocks for line in block.split("```")[0].splitlines() if line]


def test_readme_commands() -> None:
    """README.md has two commands: one that runs a program, one that tests; .ci/run ends with the second."""
    run, test = readme_commands()
    program = run.partition("orc-trio run ")[2].split()[0]
    assert (ROOT / program).exists()
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == test


def test_inventories() -> None:
    """The inventories in docs/ are what their script writes."""
    subprocess.run([sys.executable, ROOT / "docs" / "inventories" / "make.py", "--check"], check=True)
