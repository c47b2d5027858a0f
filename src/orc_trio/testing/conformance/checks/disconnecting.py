"""G12: who may end a conversation, and when."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import attrs
import trio
import trio.testing

from orc_trio.abc import ControllerAccess, Service
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import CallRefusedError, DisconnectedError, NoControllerError
from orc_trio.reasons import DisconnectReason
from orc_trio.session import Session, open_session
from orc_trio.testing.conformance.bench import Bench, check, expect
from orc_trio.testing.conformance.call import Call, calls
from orc_trio.testing.conformance.checks.ending import LOCAL
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import attached
from orc_trio.threads import SessionPortal

__all__ = ["check_disconnect_is_for_everyone"]


@check("G12", "disconnect is for everyone")
async def check_disconnect_is_for_everyone(bench: Bench) -> None:
    """Any task and any thread may end it, any number at once, at any time; nobody hangs, and all get the same end.

    * Tasks, worker threads, and threads that Trio did not start, all at once, at either end: none returns while a
      function of that end is still cleaning up.
    * A function, its child task and its thread; a holder of a keepalive; an on-disconnect callback; a service: they get
      the cause, and do not wait for themselves.
    * Before it is attached, while it is attaching, and afterwards; and from a thread after the Trio run has ended.
    * A caller that is cancelled while it waits leaves the disconnect running.
    * A soft one: calls in flight finish first, with the nested calls that they need, and new ones are refused; what
      does not finish in time is cut off.  If the access has no ``begin_finish``, nobody has to be given time.
    """
    for side in (0, 1):
        await _everybody_at_once(bench, side)
        await _cancelled_waiter(bench, side)
        for who in ("task", "child"):
            await _from_within(bench, side, who)
    await _from_a_thread_of_its_own(bench)
    await _from_the_sessions_own(bench)
    await _before_attaching(bench)
    await _softly(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_while_attaching, bench)
        nursery.start_soon(_after_the_run, bench)


async def _everybody_at_once(bench: Bench, side: int) -> None:
    ends: list[DisconnectReason] = []
    early: list[str] = []

    async with attached(bench) as rig:
        party = rig.parties[side]
        from_thread = party.from_thread()

        def note(who: str, end: DisconnectReason) -> None:
            ends.append(end)
            if party.busy() or party.told != [end]:
                early.append(who)

        async def task() -> None:
            note("a task", await party.disconnect())

        def thread() -> None:
            note("a thread", from_thread())

        foreign = [threading.Thread(target=thread, daemon=True) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            calls(nursery, party.other, "linger", [b"lingers"])
            await party.until_busy("linger")
            for each in foreign:
                each.start()
            for _ in range(8):
                nursery.start_soon(task)
            for _ in range(2):
                nursery.start_soon(trio.to_thread.run_sync, thread)
            await trio.testing.wait_all_tasks_blocked()
            expect(
                not ends,
                expected="nobody returns while a function is still cleaning up",
                got=f"{len(ends)} did",
                why="after a disconnect nothing of it may run any more: memory may be freed, files may be closed",
            )
            party.release.set()
            everybody = "all tasks and threads that disconnect return"
            await bench.poll(lambda: len(ends) == 13, everybody, within=bench.drain_bound)
        expect(
            not early and set(ends) == {party.told[0]},
            expected="everybody returns in the terminal state, with the same end",
            got=f"{', '.join(early) or 'nobody'} returned early; the ends were {', '.join(map(str, set(ends)))}",
            why="whoever has disconnected relies on it being over",
        )


async def _cancelled_waiter(bench: Bench, side: int) -> None:
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        party = rig.parties[side]
        calls(nursery, party.other, "linger", [b"lingers"])
        await party.until_busy("linger")
        with bench.soon("a task that is cancelled while it waits for the end is released"):
            async with trio.open_nursery() as waiters:
                waiters.start_soon(party.disconnect)
                await trio.testing.wait_all_tasks_blocked()
                waiters.cancel_scope.cancel()
        party.release.set()
        with bench.soon("the disconnect goes on when its caller is cancelled", within=bench.drain_bound):
            end = await party.wait()
        expect(end.kind is LOCAL, expected=f"{party} hung up", got=str(end), why="its disconnect was begun")


async def _from_within(bench: Bench, side: int, who: str) -> None:
    seen: list[DisconnectReason] = []

    async def disconnect(party: Party) -> None:
        with trio.move_on_after(bench.figures.patience / 2, shield=True):  # it is cancelled by its own disconnect
            seen.append(await party.disconnect())

    async def leave(party: Party, args: bytes) -> bytes:
        if who == "task":
            await disconnect(party)
        else:
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112
                nursery.start_soon(disconnect, party)
        return args

    async with attached(bench, {"leave": leave}) as rig:
        party = rig.parties[side]
        call = Call(party.other, "leave")
        with bench.soon(
            f"a function's {who} that disconnects its own end does not wait for itself", within=bench.drain_bound
        ):
            await call.run()
            end = await party.wait()
        await call.disconnected()
        expect(
            [reason.kind for reason in seen] == [LOCAL] and end.kind is LOCAL,
            expected=f"the function's {who} gets the cause, a local hang-up",
            got=f"{', '.join(map(str, seen)) or 'nothing'}; the end was {end}",
            why="it cannot wait for the end, which waits for it",
        )


async def _from_a_thread_of_its_own(bench: Bench) -> None:
    portals: list[SessionPortal] = []
    seen: list[DisconnectReason] = []
    done = threading.Event()

    def leave(args: bytes) -> bytes:
        seen.append(portals[0].detach())
        done.set()
        return args

    def prepare(session: Session) -> None:
        portals.append(session.thread_portal())

    async with attached(bench, threaded={"leave": leave}, prepare=prepare) as rig:
        call = Call(rig.controller, "leave")
        with bench.soon("a thread that runs a wrapper function may disconnect", within=bench.drain_bound):
            await call.run()
            await rig.executor.wait()
            await trio.to_thread.run_sync(done.wait, abandon_on_cancel=True)
        await call.disconnected()
    expect([each.kind for each in seen] == [LOCAL], expected="it gets the cause", got=str(seen), why="as any function")


@attrs.define(eq=False)
class _Detaches(Service):
    """A service that detaches its session when it is told of the detach."""

    session: Session
    seen: list[DisconnectReason] = attrs.field(factory=list)

    async def on_detach(self, reason: DisconnectReason | None) -> None:
        self.seen.append(await self.session.detach())


async def _from_the_sessions_own(bench: Bench) -> None:
    services: list[_Detaches] = []
    seen: list[DisconnectReason] = []

    def prepare(session: Session) -> None:
        services.append(_Detaches(session))
        session.add_service(services[0])
        session.on_disconnect(lambda _reason: seen.append(session.begin_detach()))

    async with attached(bench, prepare=prepare) as rig:
        with rig.session.keepalive("holder"), bench.soon("who holds a keepalive may detach"):
            seen.append(await rig.session.detach())
        await rig.over()
        with bench.soon("a service may detach the session it is told of"):
            await rig.session.shutdown()
    seen += services[0].seen
    expect(
        [reason.kind for reason in seen] == [LOCAL] * 3,
        expected="a keepalive's holder, a callback and a service get the cause",
        got=", ".join(map(str, seen)),
        why="they would wait for themselves",
    )


async def _before_attaching(bench: Bench) -> None:
    async with bench.pair(), open_session() as session:
        with bench.soon("a session may be detached before it is attached"):
            await session.detach()


async def _while_attaching(bench: Bench) -> None:
    async with bench.pair() as pair, open_session() as session, trio.open_nursery() as nursery:
        outcome: list[Exception | None] = []

        async def attach() -> None:  # noqa: ASYNC910
            try:
                await session.attach(pair.access, BootstrapInfo.for_session(session))
            except DisconnectedError as exc:
                outcome.append(exc)
            else:
                outcome.append(None)

        nursery.start_soon(attach)
        await trio.testing.wait_all_tasks_blocked()
        with bench.soon("a session may be detached while it is attaching", within=bench.drain_bound):
            end = await session.detach()
        await bench.poll(lambda: outcome, "the attach then gives up")
        expect(
            outcome[0] is not None and end == session.disconnect_reason,
            expected="an attach that is given up fails, and everybody gets the same end",
            got=f"{outcome[0]!r}; {end}",
            why="nobody may wait for a controller that is not wanted any more",
        )


async def _softly(bench: Bench) -> None:
    async def nest(party: Party, args: bytes) -> bytes:
        await party.release.wait()
        return await party.call("echo", args)

    async with attached(bench, {"nest": nest}) as rig, trio.open_nursery() as nursery:
        made = [call for party in rig.parties for call in calls(nursery, party, "nest", [b"in flight"])]
        for party in rig.parties:
            await party.until_busy("nest")
        nursery.start_soon(partial(rig.session.detach, finish_within=bench.figures.patience))
        await trio.testing.wait_all_tasks_blocked()
        if type(rig.pair.access).begin_finish is not ControllerAccess.begin_finish:
            for party in rig.parties:
                call = await Call(party, "echo", b"new").make()
                expect(
                    isinstance(call.outcome, CallRefusedError),
                    expected=f"while calls in flight finish, a new one of {party} is refused",
                    got=repr(call.outcome),
                    why="it would hold up an end that was asked for, and its caller has to know that it did not run",
                )
                party.release.set()
            for call in made:
                await call.result()
        await rig.over()
    async with attached(bench) as rig, trio.open_nursery() as nursery:
        (call,) = calls(nursery, rig.controller, "hang", [b"does not finish"])
        await rig.executor.until_busy("hang")
        with bench.soon("a detach that gives calls a moment is over after it", within=bench.drain_bound):
            end = await rig.session.detach(finish_within=0.05)
        await call.disconnected()
        expect(end.kind is LOCAL, expected="a local hang-up", got=str(end), why="it was asked for")


async def _after_the_run(bench: Bench) -> None:
    found: dict[str, Any] = {}

    async def main() -> None:
        inner = bench.again()
        async with attached(inner) as rig:
            found["session"] = rig.session.thread_portal()
            found["controller"] = rig.controller.from_thread()
            found["end"] = await rig.executor.disconnect()

    def thread() -> None:
        trio.run(main)
        found["again"] = found["session"].detach()
        try:
            found["session"].call_controller(1, b"")
        except NoControllerError as exc:
            found["call"] = exc

    with bench.soon("after its Trio run has ended, a thread may still disconnect", within=bench.drain_bound + 5):
        await trio.to_thread.run_sync(thread, abandon_on_cancel=True)
    expect(
        found.get("again") == found["end"] and "call" in found,
        expected="the same end as before; and a call says that there is no controller",
        got=repr({key: found.get(key) for key in ("again", "call")}),
        why="a thread cannot know whether the run has ended",
    )
