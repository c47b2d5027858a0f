"""The caller's side of a call: from the argument bytes to the outcome, in the caller's own task.

Rules
-----
* Between the check that the connection is open and the wait there is no checkpoint (G2).
* A caller that is cancelled is released at once, and the protocol core is told in that step (G5).  If the call was
  answered in the same step, the answer wins; if the end has failed it, the cancellation does.
* While it waits, nothing here holds a copy of the payload (G8).
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import trio

from orc_trio.dispatch import as_bytes
from orc_trio.exceptions import WrapperFunctionError
from orc_trio.interrupts import uninterrupted
from orc_trio.nesting import serving
from orc_trio.protocol import Disconnected, Peer
from orc_trio.protocol.outcomes import unwrap
from orc_trio.registry import Buffer

__all__ = ["make_call"]


@uninterrupted
async def make_call(
    peer: Peer,
    tag: int,
    args: Buffer,
    *,
    zero_copy: bool,
    wake: Callable[[], None],
    left: Callable[[], object],
    origin: Callable[[], object],
) -> bytes | memoryview:
    """Make one call; see `orc_trio.connection.Connection.call`.

    Args:
        peer: The protocol core.
        tag: Handler tag or executor address.
        args: The argument bytes.
        zero_copy: The result may be a `memoryview` of a buffer of its own.
        wake: Told when there is something to send.
        left: Told when the caller has left.
        origin: Marks an error that came by this connection (G9).

    Raises:
        OrcError: As there.

    Checkpoints:
        Always.

    Cancellation:
        The caller is released at once; the peer is told.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        payload = as_bytes(args, "the argument of a call")
        # G2: from here to the wait there is no checkpoint.
        call = peer.call(
            operator.index(tag), payload, nested=serving() is not None, deadline=trio.current_effective_deadline()
        )
    except Exception:
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise
    del payload
    wake()

    def abandon(_raise_cancel: object) -> trio.lowlevel.Abort:
        if call.outcome is not None and not isinstance(call.outcome, Disconnected):
            return trio.lowlevel.Abort.FAILED  # settled a moment ago, in the same step: it is about to be woken
        call.waiter = None  # what stays is a tombstone: it must not hold on to the task
        if call.outcome is None:
            peer.cancel(call)
            left()
        return trio.lowlevel.Abort.SUCCEEDED

    if call.outcome is None:  # a transport may end the connection while it sends
        call.waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abandon)
    else:
        await trio.lowlevel.cancel_shielded_checkpoint()
    assert call.outcome is not None
    try:
        result = unwrap(call.outcome, tag)
    except WrapperFunctionError as exc:
        exc._origin = origin
        raise
    return result if zero_copy else bytes(result)
