"""Where the other end is and why it is trusted: the SPEC argument and the ``--vetted`` option of several commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orc_trio.exceptions import ConnectionSpecError
from orc_trio.transports import ConnectionSpec, VettedPeer, default_connectors

__all__ = ["spec", "vet", "vetted_option"]

_F = TypeVar("_F", bound=Callable[..., Any])


def spec(text: str) -> ConnectionSpec:
    """A connection spec on the command line; for ``click.argument(type=…)``.

    Raises:
        click.BadParameter: It is none, or not one that can be used.
    """
    try:
        parsed = ConnectionSpec.parse(text)
        default_connectors().find(parsed).check(parsed)
    except ConnectionSpecError as exc:
        raise click.BadParameter(str(exc)) from exc
    return parsed


def vetted_option(function: _F) -> _F:
    """The option ``--vetted``."""
    return click.option(
        "--vetted",
        type=click.Choice([answer.value for answer in VettedPeer]),
        help="Why the other end is trusted: inherited (it started us), checked (the system says who it is), unchecked. "
        "Default: what is true of the spec; TCP has none.",
    )(function)


def vet(where: ConnectionSpec, answer: str | None) -> VettedPeer:
    """Settle why the other end is trusted, before anything is opened.

    Raises:
        click.UsageError: The answer cannot be true of this spec, or one is missing.
    """
    connector = default_connectors().find(where)
    if answer is None:
        if connector.trusts_by_default is None:
            raise click.UsageError(
                f"{where}: {where.transport} cannot tell who is at the other end; add --vetted unchecked if whoever "
                "can reach it may take part, or use unix:…"
            )
        return connector.trusts_by_default
    vetted = VettedPeer(answer)
    if vetted not in connector.trusts:
        possible = " or ".join(sorted(each.value for each in connector.trusts))
        raise click.UsageError(f"{where}: its other end cannot be {answer}; say --vetted {possible}")
    return vetted
