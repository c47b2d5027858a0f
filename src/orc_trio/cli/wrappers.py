"""``--wrappers MODULE:OBJECT``: the Python functions an executor offers.

OBJECT is one of

* a function of one argument, bytes to bytes, async or plain: offered under its own name;
* a `Handler`, which also says whether the function needs a thread: offered under its name;
* a mapping from names to functions or handlers;
* a function of two arguments, ``install(session, bootstrap)``: adds what it likes, keeps the session to call back.

OBJECT may have dots; the current directory is searched first.  Refused with one line: everything else.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import click

from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import OrcError
from orc_trio.registry import Handler
from orc_trio.session import Session

__all__ = ["Installer", "load_wrappers"]

Installer: TypeAlias = Callable[[Session, BootstrapInfo], object]


def load_wrappers(texts: Sequence[str]) -> list[Installer]:
    """Import what ``--wrappers`` names.

    Raises:
        click.UsageError: One cannot be imported, or is not one of the things above.
    """
    if texts and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return [_load(text) for text in texts]


def _load(text: str) -> Installer:
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise click.UsageError(f"--wrappers {text}: write MODULE:OBJECT, for example --wrappers my_functions:echo")
    try:
        found: Any = importlib.import_module(module)
    except Exception as exc:  # whatever somebody's module does when it is imported
        raise click.UsageError(f"--wrappers {text}: cannot import {module}: {type(exc).__name__}: {exc}") from exc
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise click.UsageError(f"--wrappers {text}: {module} has no {name}") from None
    return _installer(text, name.rpartition(".")[2], found)


def _installer(text: str, name: str, found: object) -> Installer:
    if isinstance(found, Mapping):
        entries = [_entry(f"{text}[{key!r}]", key, value) for key, value in found.items()]

        def install_all(_session: Session, bootstrap: BootstrapInfo) -> None:
            for handler in entries:
                _add(text, bootstrap, handler)

        return install_all
    if _arity(found) == 2 and callable(found):
        return found

    handler = _entry(text, name, found)
    return lambda _session, bootstrap: _add(text, bootstrap, handler)


def _entry(text: str, name: object, found: object) -> Handler:
    if isinstance(found, Handler):
        return found
    if not isinstance(name, str) or not callable(found) or _arity(found) != 1:
        raise click.UsageError(
            f"--wrappers {text}: neither a function of the argument bytes, nor a mapping of names to such functions, "
            "nor install(session, bootstrap)"
        )
    return Handler(found, name)


def _add(text: str, bootstrap: BootstrapInfo, handler: Handler) -> None:
    try:
        bootstrap.add_wrapper(handler.name, handler.function, threaded=handler.threaded, zero_copy=handler.zero_copy)
    except OrcError as exc:
        raise click.UsageError(f"--wrappers {text}: {exc}") from exc


def _arity(found: object) -> int | None:
    """How many positional arguments it needs; None: that cannot be told."""
    if not callable(found):
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(each.kind is inspect.Parameter.KEYWORD_ONLY and each.default is each.empty for each in parameters):
        return None
    return sum(each.kind in positional and each.default is each.empty for each in parameters)
