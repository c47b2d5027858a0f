"""Pairs for the tests of ``orc-trio conformance``: good ones, and such as hang, crash, or are none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

import orc_trio
from orc_trio.abc import AccessHost
from orc_trio.testing import QUICK_LIMITS, AccessPair, PairFactory, conformance_tests, connected_pair, pairs_of

QUICK = attrs.evolve(QUICK_LIMITS, drain_timeout=0.1, liveness_timeout=None)
good = pairs_of(partial(connected_pair, "memory"), limits=QUICK)
tests = conformance_tests(good)
number = 5


def with_access(access: Callable[..., Any]) -> PairFactory:
    """Pairs with an access of our own, over memory."""

    @asynccontextmanager
    async def factory() -> AsyncIterator[AccessPair]:
        async with good() as pair:
            pair.access.run = partial(access, pair.access.run)  # type: ignore[method-assign]
            yield attrs.evolve(pair, patience=0.3)

    return factory


async def _shield(run: Callable[..., Any], host: AccessHost) -> orc_trio.DisconnectReason:
    await run(host)
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()
    raise AssertionError


async def _block(_run: Callable[..., Any], _host: AccessHost) -> orc_trio.DisconnectReason:
    time.sleep(1000)  # noqa: ASYNC251
    raise AssertionError


async def _die(_run: Callable[..., Any], _host: AccessHost) -> orc_trio.DisconnectReason:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


async def _fail(run: Callable[..., Any], host: AccessHost) -> orc_trio.DisconnectReason:
    print("what a subject prints is no report")
    await run(host)
    return orc_trio.DisconnectReason(orc_trio.DisconnectKind.REMOTE_HANGUP)


hard_to_stop, blocked, deadly, faulty = map(with_access, (_shield, _block, _die, _fail))


def needs_an_argument(_argument: object) -> None:
    """No factory."""


def gives_a_number() -> int:
    """No factory either."""
    return 5


async def gives_a_coroutine() -> None:
    """Nor this one."""
