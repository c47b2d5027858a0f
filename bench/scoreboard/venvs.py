"""One virtual environment for each peer, made once and used again.

An environment is a folder in the cache, named after what is in it: other requirements, another Python, another folder.
A folder without its mark was not finished and is made anew.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final, Protocol

from scoreboard.cell import plain

_MARK: Final = "finished"
_PATIENCE: Final = 900.0
"""Seconds for pip: some peers are compiled."""
_CHATTER: Final = ("WARNING", "[notice]")


class InstallError(Exception):
    """A peer that cannot be installed; the text is pip's last line, if it came to that."""


class Installed(Protocol):
    """What is to be installed."""

    @property
    def distribution(self) -> str:
        """What the version is read from."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """What pip installs."""


class Environment:
    """Where one peer is installed.

    Args:
        python: The interpreter that can import it.
        version: The version of the peer that is installed there.
    """

    def __init__(self, python: str, version: str) -> None:
        self.python = python
        self.version = version


def prepare(peer: Installed, cache: Path) -> Environment:
    """The peer's environment in this cache; it is made if it is not there.

    Raises:
        InstallError: The peer cannot be installed with this Python.
    """
    wanted = "\n".join((*peer.requirements, sys.version))
    folder = cache / f"{peer.distribution}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / _MARK).exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        try:
            done = _run(*pip, *peer.requirements)
        except subprocess.TimeoutExpired as exc:
            raise InstallError(f"pip was not done after {_PATIENCE:g} s") from exc
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(_CHATTER)]
            raise InstallError(plain(lines[-1] if lines else f"pip exited with status {done.returncode}"))
        (folder / _MARK).touch()
    asked = _run(str(python), "-c", f"from importlib.metadata import version; print(version({peer.distribution!r}))")
    return Environment(str(python), asked.stdout.strip())


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
