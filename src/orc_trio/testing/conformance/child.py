"""The process that ``orc-trio conformance`` runs checks in: ``python -m orc_trio.testing.conformance.child``.

It tells its parent, over a descriptor, what it does: one JSON object on a line for each of

* ``{"checks": [["G1", "exactly once"], …]}``: what it is going to do; comes first;
* ``{"usage": "…"}``: there is nothing to check, and why; comes instead, and last;
* ``{"hangs": "G1", "why": "…"}``: that check hangs, and is being cancelled;
* ``{"verdict": {…}}``: the next check is over.

The end of the descriptor after the last verdict is the end of the work; before it, the check that was running has taken
the process down.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import attrs

from orc_trio.testing.conformance.pair import PairFactory
from orc_trio.testing.conformance.runner import examine, select
from orc_trio.testing.conformance.suite import ConformanceTests

__all__ = ["NoFactoryError", "load_factory", "main"]


class NoFactoryError(Exception):
    """What was named is no factory of pairs; its text is one line that says why."""


def load_factory(text: str) -> PairFactory:
    """Import a factory.

    Args:
        text: ``module:factory``; the factory may have dots, and may be what `conformance_tests` gave.

    Raises:
        NoFactoryError: It cannot be imported, or is none.
    """
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise NoFactoryError(f"{text}: write MODULE:FACTORY, for example my_tests:my_pairs")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except Exception as exc:  # whatever somebody's module does when it is imported
        raise NoFactoryError(f"{text}: cannot import {module}: {type(exc).__name__}: {exc}") from exc
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise NoFactoryError(f"{text}: {module} has no {name}") from None
    if isinstance(found, ConformanceTests):
        return found.factory
    _check_factory(text, found)
    return cast("PairFactory", found)


def _check_factory(text: str, found: Any) -> None:
    problem = "it cannot be called"
    if callable(found):
        try:
            made = found()
        except Exception as exc:
            problem = f"{type(exc).__name__}: {exc}"
        else:
            if hasattr(made, "__aenter__") and hasattr(made, "__aexit__"):
                return
            if hasattr(made, "close"):  # a coroutine, which would complain
                made.close()
            problem = f"it gives a {type(made).__name__}"
    raise NoFactoryError(f"{text} is no function of no arguments that gives an async context manager: {problem}")


def main(arguments: Sequence[str]) -> None:
    """Run checks.

    Args:
        arguments: The descriptor to tell, the factory, the seed (or "") and the guarantees to check.
    """
    descriptor, text, seed, *only = arguments
    logging.getLogger("orc_trio").addHandler(logging.NullHandler())

    with open(int(descriptor), "w", encoding="utf-8") as parent:

        def tell(**what: object) -> None:
            parent.write(json.dumps(what) + "\n")
            parent.flush()

        try:
            factory = load_factory(text)
        except NoFactoryError as exc:
            tell(usage=str(exc))
            return
        checks = select(only)
        tell(checks=[(entry.guarantee, entry.title) for entry in checks])
        for entry in checks:
            verdict = examine(
                entry,
                factory,
                seed=int(seed) if seed else None,
                on_hang=lambda why, guarantee=entry.guarantee: tell(hangs=guarantee, why=why),  # type: ignore[misc]
            )
            tell(verdict=attrs.asdict(verdict) | {"outcome": verdict.outcome.value})


if __name__ == "__main__":  # pragma: no cover
    main(sys.argv[1:])
