"""G11: how a conversation ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
import trio.testing

from orc_trio.reasons import DisconnectKind
from orc_trio.testing.conformance.bench import Bench, check, expect, leaves
from orc_trio.testing.conformance.call import Call, calls
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import Rig, attached

__all__ = ["BROKEN", "LOCAL", "REMOTE", "check_one_cause_one_end"]

LOCAL, REMOTE = DisconnectKind.LOCAL_HANGUP, DisconnectKind.REMOTE_HANGUP
BROKEN = (DisconnectKind.EOF_WITHOUT_HANGUP, DisconnectKind.TRANSPORT_ERROR)


@check("G11", "one cause, one end")
async def check_one_cause_one_end(bench: Bench) -> None:
    """Every call that was failed, everybody who waits and every callback is told the same; and it is the truth.

    * One end hangs up: a local hang-up for it, a remote one for the other.  Both at once: each sees its own.
    * The way is cut: never a hang-up, and never in order.
    * The callbacks are told once.  A call's reason is the end, or the end's cause.
    * An interrupt in a wrapper function ends it as an internal error, reaches the session's owner, and is no orderly
      end for the controller.
    """
    for side in (0, 1):
        async with attached(bench) as rig:
            breaker = rig.parties[side]
            await _end_with_pending(rig, breaker.begin)
            await _told(rig, {breaker: (LOCAL,), breaker.other: (REMOTE,)})
    for _ in range(3):
        async with attached(bench) as rig:

            def both(rig: Rig = rig) -> None:
                rig.executor.begin()
                rig.controller.begin()

            await _end_with_pending(rig, both)
            late = () if rig.controller.begins_at_once else (REMOTE,)  # or it may be a moment late
            await _told(rig, {rig.executor: (LOCAL, *late), rig.controller: (LOCAL, *late)})
    if bench.has("cut"):
        async with attached(bench) as rig:
            await _end_with_pending(rig, lambda: None, cut=True)
            await _told(rig, dict.fromkeys(rig.parties, BROKEN))
    await _interrupted(bench)


async def _end_with_pending(rig: Rig, begin: Callable[[], object], *, cut: bool = False) -> None:
    count = min(3, rig.bench.places)
    made: dict[Party, list[Call]] = {}
    async with trio.open_nursery() as nursery:
        for party in rig.parties:
            made[party] = calls(nursery, party, "hang", [b"%d" % number for number in range(count)])
        for party in rig.parties:
            await party.until_busy("hang", count)
        begin()
        if cut:
            assert rig.pair.cut is not None
            await rig.pair.cut()
        await rig.over()
    for party in rig.parties:
        end = await party.wait()
        reasons = {(await call.disconnected()).reason for call in made[party]}
        expect(
            len(reasons) == 1 and reasons <= {end, end.cause},
            expected=f"the calls of {party} fail with the one reason for which it ended: {end}",
            got=", ".join(map(str, reasons)),
            why="there is one cause, and whoever is hit by it is told it",
        )


async def _told(rig: Rig, kinds: dict[Party, Sequence[DisconnectKind]]) -> None:  # noqa: ASYNC910
    for party, allowed in kinds.items():
        end = await party.wait()
        again = await party.disconnect()
        expect(
            end.kind in allowed,
            expected=f"it ended for {party} as {' or '.join(kind.value for kind in allowed)}",
            got=str(end),
            why="what is reported is what happened; nothing that broke is called orderly",
        )
        expect(
            party.told == [end] and again == end,
            expected=f"{party}'s callback is told {end}, once, and a disconnect afterwards returns the same",
            got=f"told {', '.join(map(str, party.told)) or 'nothing'}; returned {again}",
            why="there is one end, and everybody hears of the same",
        )


class _Interrupt(BaseException):
    pass


async def _interrupted(bench: Bench) -> None:  # noqa: ASYNC910
    async def interrupt(_party: Party, _args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        raise _Interrupt

    raised: list[BaseException] = []
    told: list[Party] = []
    try:
        async with attached(bench, {"interrupt": interrupt}) as rig:
            told += rig.parties
            call = await Call(rig.controller, "interrupt").make()
            await call.disconnected()
            await rig.controller.wait()
            await trio.sleep_forever()
    except BaseException as exc:  # noqa: ASYNC103
        raised += leaves(exc)
        if isinstance(exc, trio.Cancelled) or any(isinstance(leaf, KeyboardInterrupt) for leaf in raised):
            raise
    expect(
        [type(exc) for exc in raised] == [_Interrupt],
        expected="an interrupt in a wrapper function is raised to the session's owner",
        got=", ".join(map(repr, raised)) or "nothing",
        why="a KeyboardInterrupt or SystemExit must not get lost in a function's task",
    )
    (executor, controller) = told
    expect(
        [reason.kind for reason in executor.told] == [DisconnectKind.INTERNAL_ERROR],
        expected="for the executor it ended as an internal error",
        got=", ".join(map(str, executor.told)),
        why="the end says what happened",
    )
    expect(
        len(controller.told) == 1 and not controller.told[0].orderly,
        expected="for the controller it did not end in order",
        got=", ".join(map(str, controller.told)),
        why="the executor did not want to end: something went wrong there",
    )
