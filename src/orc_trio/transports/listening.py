"""Accepting one peer: what tcp:listen and unix:listen have in common.

Rules
-----
* The listening socket lives until one peer was accepted that passed the check, and no longer.  Peers that
  fail it are closed, logged as a warning, and do not count.
* A peer that gave up before it was accepted does not count either.
* Peers that wait in the queue when listening ends are reset by the system.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from orc_trio.transports.specs import ConnectionSpec

__all__ = ["BACKLOG", "accept_one"]

BACKLOG: Final = 16
"""How many peers may wait while one is looked at."""

_log: Final = logging.getLogger("orc_trio.transports")


async def accept_one(
    listener: trio.socket.SocketType,
    spec: ConnectionSpec,
    objection: Callable[[trio.socket.SocketType], str | None],
) -> trio.SocketStream:
    """Wait for the first peer nothing speaks against.

    Args:
        listener: Bound and listening; stays open.
        spec: For the log.
        objection: What speaks against a peer; None: nothing.

    Returns:
        The peer's stream; the caller closes it.

    Raises:
        OSError: The system cannot accept anybody, for example for want of descriptors.

    Checkpoints:
        At least one.

    Cancellation:
        Leaves nothing open but ``listener``.
    """
    while True:
        try:
            peer, _ = await listener.accept()
        except ConnectionAbortedError:
            await trio.lowlevel.checkpoint()
            continue
        try:
            why = objection(peer)
            if why is None:
                return trio.SocketStream(peer)
        except OSError as exc:
            why = f"who it is cannot be learnt: {exc.strerror}"
        except BaseException:
            peer.close()
            raise
        peer.close()
        _log.warning("%s: a peer was turned away: %s", spec, why)
