"""G20 to G22: a session's states, its calls, and its keepalives, with this access."""

from __future__ import annotations

import threading

import trio
import trio.testing

from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import (
    DisconnectedError,
    KeepaliveDeniedError,
    LocalProtocolError,
    NoControllerError,
)
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.session import Session, open_session
from orc_trio.statistics import SessionState
from orc_trio.testing.conformance.bench import Bench, check, expect, fail
from orc_trio.testing.conformance.call import calls
from orc_trio.testing.conformance.checks.ending import LOCAL
from orc_trio.testing.conformance.noting import Recorder, logged
from orc_trio.testing.conformance.pair import AccessPair
from orc_trio.testing.conformance.rig import attached

__all__ = [
    "check_calls_outside_a_conversation",
    "check_shutdown_waits_for_keepalives",
    "check_states_go_forward",
]


@check("G20", "states only go forward")
async def check_states_go_forward(bench: Bench) -> None:
    """A session goes start → attached → detached → shut down, and attaches once, whether that succeeds or not.

    * A second attach is refused in every state, and changes nothing.
    * An attach to a way that is cut, before it or meanwhile, fails: CONNECT_FAILED, NOT_SENT; on-disconnect is told
      once; and the one attach is used up.
    """
    async with attached(bench) as rig, bench.pair() as other:
        states = [SessionState.START, rig.session.state]
        await _refused(rig.session, other)
        (call,) = calls(rig.nursery, rig.executor, "echo", [b"still attached"])
        await call.result()
        await rig.executor.disconnect()
        states.append(rig.session.state)
        await _refused(rig.session, other)
        await rig.session.shutdown()
        states.append(rig.session.state)
        await _refused(rig.session, other)
    expect(
        states == list(SessionState),
        expected=" → ".join(state.value for state in SessionState),
        got=" → ".join(state.value for state in states),
        why="whoever looks at the state acts on it",
    )
    if bench.has("cut"):
        for meanwhile in (False, True):
            await _failed_attach(bench, meanwhile)


async def _refused(session: Session, other: AccessPair) -> None:
    state = session.state
    try:
        await session.attach(other.access, BootstrapInfo.for_session(session))
    except LocalProtocolError:
        expect(session.state is state, expected=state.value, got=session.state.value, why="it changed nothing")
        return  # noqa: ASYNC910
    fail(
        expected=f"a second attach is refused while the session is {state.value}",
        got="it was not",
        why="a session has one conversation",
    )


async def _failed_attach(bench: Bench, meanwhile: bool) -> None:
    told: list[DisconnectReason] = []
    caught: list[DisconnectedError] = []
    async with bench.pair() as pair, bench.pair() as other, open_session() as session:
        assert pair.cut is not None
        session.on_disconnect(told.append)

        async def attach() -> None:  # noqa: ASYNC910
            try:
                await session.attach(pair.access, BootstrapInfo.for_session(session))
            except DisconnectedError as exc:
                caught.append(exc)

        with bench.soon("an attach to a way that is cut fails", within=bench.drain_bound):
            async with trio.open_nursery() as nursery:
                if not meanwhile:
                    await pair.cut()
                nursery.start_soon(attach)
                if meanwhile:
                    await trio.testing.wait_all_tasks_blocked()
                    await pair.cut()
        expect(
            len(caught) == 1
            and caught[0].reason.kind is DisconnectKind.CONNECT_FAILED
            and caught[0].certainty is Certainty.NOT_SENT,
            expected="DisconnectedError, CONNECT_FAILED and NOT_SENT",
            got=", ".join(map(repr, caught)) or "nothing",
            why="there never was a conversation",
        )
        expect(
            told == [caught[0].reason] and session.state is SessionState.DETACHED,
            expected="on-disconnect is told once, and the session is detached",
            got=f"told {', '.join(map(str, told)) or 'nothing'}; it is {session.state.value}",
            why="a failed attach ends as any other: once, and for everybody the same",
        )
        await _refused(session, other)


@check("G21", "calls outside a conversation")
async def check_calls_outside_a_conversation(bench: Bench) -> None:
    """Before the attach, while it ends, and afterwards, a call fails at once, and nothing of it is sent.

    * Before and after: `NoControllerError`.
    * Between the latch and the end: `DisconnectedError` with the cause, NOT_SENT; at either end.
    """
    async with bench.pair(), open_session() as session:
        try:
            await session.call_controller(1, b"early")
        except NoControllerError:
            pass
        else:
            fail(expected="NoControllerError before the attach", got="a result", why="there is nobody to call")
    for side in (0, 1):
        async with attached(bench) as rig, trio.open_nursery() as nursery:
            party = rig.parties[side]
            calls(nursery, party.other, "linger", [b"lingers"])
            await party.until_busy("linger")
            party.begin()
            (call,) = calls(nursery, party, "echo", [b"between"])
            error = await call.disconnected(Certainty.NOT_SENT)
            expect(
                error.reason.kind is LOCAL,
                expected="its reason is the cause: a local hang-up",
                got=str(error.reason),
                why="there is one cause, and it is fixed already",
            )
            party.release.set()
            end, _ = await rig.over()
            (late,) = calls(nursery, party, "echo", [b"after"])
            await late.failed()
            if party is rig.executor:
                expect(
                    isinstance(late.outcome, NoControllerError),
                    expected="NoControllerError after the end",
                    got=repr(late.outcome),
                    why="there is no controller any more",
                )
            expect(
                not party.other.count("echo"),
                expected="neither call reached the other end",
                got=f"{party.other.count('echo')} did; the end was {end}",
                why="a call that is refused here must not run there",
            )


@check("G22", "shutdown waits for keepalives")
async def check_shutdown_waits_for_keepalives(bench: Bench) -> None:
    """With this access, too, a shutdown waits for every keepalive and gives no new one; a cancelled owner's is bounded.

    * Held by a task, and by a function in a thread that runs on: the conversation is over, ``on_shutdown`` waits.
    * The owner is cancelled and a keepalive is not released: it ends within the bound, without ``on_shutdown``.
    """
    await _held_by_a_task(bench)
    await _held_by_a_thread(bench)
    await _never_released(bench)


async def _held_by_a_task(bench: Bench) -> None:
    order: list[str] = []

    def prepare(session: Session) -> None:
        session.add_service(Recorder("service", order))

    async with attached(bench, prepare=prepare, order=order) as rig:
        release = trio.Event()

        async def hold() -> None:
            with rig.session.keepalive("held"):
                await release.wait()
                order.append("released")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(rig.session.shutdown)
            await rig.over()
            await trio.testing.wait_all_tasks_blocked()
            expect(
                rig.session.state is SessionState.DETACHED and "service shut down" not in order,
                expected="the conversation is over, and the shutdown waits for the keepalive",
                got=f"{rig.session.state.value}; {' → '.join(order)}",
                why="whoever holds it is running code that a service would free",
            )
            try:
                rig.session.keepalive("late")
            except KeepaliveDeniedError:
                pass
            else:
                fail(expected="no new keepalive is given", got="one was", why="the shutdown would never come")
            release.set()
        expect(
            order[-2:] == ["released", "service shut down"],
            expected="on_shutdown comes when the keepalive is released",
            got=" → ".join(order),
            why="nothing may be freed before",
        )


async def _held_by_a_thread(bench: Bench) -> None:
    order: list[str] = []
    started, release = threading.Event(), threading.Event()

    def block(args: bytes) -> bytes:
        started.set()
        release.wait()
        order.append("returned")
        return args

    def prepare(session: Session) -> None:
        session.add_service(Recorder("service", order))

    try:
        async with attached(bench, threaded={"block": block}, prepare=prepare, order=order) as rig:
            (call,) = calls(rig.nursery, rig.controller, "block", [b""])
            with bench.soon("the thread starts"):
                await trio.to_thread.run_sync(started.wait, abandon_on_cancel=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.session.shutdown)
                await rig.over()
                await call.disconnected()
                await trio.testing.wait_all_tasks_blocked()
                early = "service shut down" in order
                release.set()
    finally:
        release.set()
    expect(
        not early and order.index("returned") < order.index("service shut down"),
        expected="on_shutdown waits for a function that runs on in its thread",
        got=" → ".join(order),
        why="that function may be executing what the service frees",
    )


async def _never_released(bench: Bench) -> None:
    order: list[str] = []
    sessions: list[Session] = []

    def prepare(session: Session) -> None:
        sessions.append(session)
        session.add_service(Recorder("service", order))
        session.keepalive("stuck")

    bounded = bench.soon("a cancelled owner does not wait for a keepalive for ever", within=bench.drain_bound)
    with logged(), bounded, trio.CancelScope() as scope:
        async with attached(bench, prepare=prepare, order=order, service_timeout=0.05):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    (session,) = sessions
    expect(
        "service detached" in order and "service shut down" not in order,
        expected="the service is told of the detach, and on_shutdown is not called",
        got=" → ".join(order),
        why="its memory may be executing at that moment",
    )
    expect(
        session.statistics().keepalives == ("stuck",),
        expected="the holder is named in the statistics",
        got=repr(session.statistics().keepalives),
        why="somebody has to find out who it was",
    )
