"""G25 and G26: what is no message, and what is too large."""

from __future__ import annotations

import trio
import trio.testing

from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import DisconnectedError, MessageTooLargeError, WrapperFunctionError
from orc_trio.reasons import DisconnectKind
from orc_trio.session import open_session
from orc_trio.testing.conformance.bench import Bench, check, expect
from orc_trio.testing.conformance.call import Call, calls
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import attached

__all__ = ["check_any_bytes", "check_too_large"]


@check("G25", "any bytes")
async def check_any_bytes(bench: Bench) -> None:
    """What is no message ends the conversation as a violation with a clear reason: no crash, no hang.

    * In a conversation, with calls pending in both directions: these settle, functions end, both ends are over.
    * Before the controller has accepted: the attach fails, CONNECT_FAILED.
    """
    bench.needs("garble")
    async with trio.open_nursery() as at_once:
        at_once.start_soon(_before_the_setup, bench)
        for pending in (False, True):
            at_once.start_soon(_in_a_conversation, bench, pending)


async def _in_a_conversation(bench: Bench, pending: bool) -> None:
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        assert rig.pair.garble is not None
        made: list[Call] = []
        if pending:
            for party in rig.parties:
                made += calls(nursery, party, "hang", [b"pending"])
            for party in rig.parties:
                await party.until_busy("hang")
        await trio.testing.wait_all_tasks_blocked()
        await rig.pair.garble()
        end, other_end = await rig.over()
        expect(
            end.kind is DisconnectKind.PROTOCOL_VIOLATION and end.detail and end.detail.isprintable(),
            expected="a protocol violation, with a detail that can be printed",
            got=repr(end),
            why="what came was no message, and somebody has to find out why",
        )
        expect(
            not other_end.orderly,
            expected="no orderly end for the controller either",
            got=str(other_end),
            why="it was given up",
        )
        for call in made:
            await call.disconnected()
        expect(not rig.executor.busy(), expected="no function is running", got="one is", why="it is over (G13)")


async def _before_the_setup(bench: Bench) -> None:
    caught: list[DisconnectedError] = []
    async with bench.pair() as pair, open_session() as session:
        assert pair.garble is not None

        async def attach() -> None:  # noqa: ASYNC910
            try:
                await session.attach(pair.access, BootstrapInfo.for_session(session))
            except DisconnectedError as exc:
                caught.append(exc)

        with bench.soon("an attach that is answered with nonsense fails", within=bench.drain_bound):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attach)
                await trio.testing.wait_all_tasks_blocked()
                await pair.garble()
    expect(
        len(caught) == 1 and caught[0].reason.kind is DisconnectKind.CONNECT_FAILED,
        expected="DisconnectedError, CONNECT_FAILED",
        got=", ".join(map(repr, caught)) or "nothing",
        why="whatever is there does not speak our language",
    )


@check("G26", "too large")
async def check_too_large(bench: Bench) -> None:
    """What is too large fails by itself, before anything is sent, and the conversation lives; in both directions.

    * A call of the largest size goes through, and so does its result; one byte more is `MessageTooLargeError`.
    * A result that is too large is an error of its call.
    """
    bench.needs("max_message")
    most = bench.figures.max_message
    assert most is not None

    async def grow(_party: Party, args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(int(args))

    async with attached(bench, {"grow": grow}) as rig:
        for caller in rig.parties:
            server = caller.other
            fits = await Call(caller, "echo", bytes(most)).make()
            await fits.echoed()
            began = len(server.started)
            large = Call(caller, "echo", bytes(most + 1))
            with bench.soon("a call that is too large fails"):
                await large.run()
            error = large.outcome
            expect(
                isinstance(error, MessageTooLargeError) and (error.size, error.limit) == (most + 1, most),
                expected=f"MessageTooLargeError: {most + 1} bytes, {most} is the limit",
                got=repr(error),
                why="the caller has to know that this call can never succeed",
            )
            result = Call(caller, "grow", b"%d" % (most + 1))
            with bench.soon("a call whose result is too large fails"):
                await result.run()
            expect(
                isinstance(result.outcome, WrapperFunctionError),
                expected="a result that is too large is an error of that call",
                got=repr(result.outcome)[:200],
                why="the caller waits for an answer",
            )
            after = await Call(caller, "echo", b"still here").make()
            await after.echoed()
            names = [name for name, _ in server.started[began:]]
            expect(
                names == ["grow", "echo"],
                expected="the call that was too large did not reach the other end",
                got=", ".join(names),
                why="nothing of it was to be sent",
            )
