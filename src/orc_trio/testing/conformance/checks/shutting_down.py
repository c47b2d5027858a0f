"""G23 and G24: a session's services, and who may shut it down, with this access."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import trio
import trio.testing

from orc_trio.abc import Service
from orc_trio.reasons import DisconnectReason
from orc_trio.session import Session, open_session
from orc_trio.statistics import SessionState
from orc_trio.testing.conformance.bench import Bench, check, expect, leaves
from orc_trio.testing.conformance.call import calls
from orc_trio.testing.conformance.checks.ending import LOCAL
from orc_trio.testing.conformance.noting import Recorder
from orc_trio.testing.conformance.party import Party
from orc_trio.testing.conformance.rig import Ending, attached, endings
from orc_trio.threads import SessionPortal

__all__ = ["check_services", "check_shutdown_is_for_everyone"]


@attrs.define(eq=False)
class _Failing(Recorder):
    """A service that fails."""

    async def on_detach(self, reason: DisconnectReason | None) -> None:
        await super().on_detach(reason)
        raise ValueError(f"{self.name} on_detach")

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        raise KeyError(f"{self.name} on_shutdown")


@check("G23", "services")
async def check_services(bench: Bench) -> None:
    """Services are told of the detach, then shut down in reverse, however it ends; no error is lost.

    * Each is told the end that everybody gets; all ``on_detach`` come before the first ``on_shutdown``.
    * One that raises stops no other, and its errors are raised in one group when the session is left.
    * If nothing was ever attached, they are told so.
    """
    for how, end in endings(bench).items():
        await _told_in_order(bench, how, end)
    await _failing_services(bench)
    order: list[str] = []
    async with bench.pair(), open_session() as session:
        service = Recorder("service", order)
        session.add_service(service)
    expect(
        order == ["service detached", "service shut down"] and service.reasons == [None],
        expected="a service of a session that was never attached is told, without a reason",
        got=f"{' → '.join(order)}; {service.reasons}",
        why="it may have something to free all the same",
    )


async def _told_in_order(bench: Bench, how: str, end: Ending) -> None:
    order: list[str] = []
    services = [Recorder(name, order) for name in ("first", "second", "third")]

    def prepare(session: Session) -> None:
        for service in services:
            session.add_service(service)

    async with attached(bench, prepare=prepare) as rig:
        await end(rig, rig.executor)
        reason, _ = await rig.over()
        await rig.session.shutdown()
    expect(
        order == [f"{each.name} detached" for each in services] + [f"{each.name} shut down" for each in services[::-1]],
        expected="all are told of the detach in the order of their addition, then shut down in reverse",
        got=" → ".join(order),
        why="what was added later may stand on what was added before",
    )
    expect(
        all(service.reasons == [reason] for service in services),
        expected=f"when {how}, each is told {reason}",
        got=", ".join(str(each) for service in services for each in service.reasons),
        why="there is one end",
    )


async def _failing_services(bench: Bench) -> None:  # noqa: ASYNC910
    order: list[str] = []
    raised: list[BaseException] = []

    def prepare(session: Session) -> None:
        session.add_service(Recorder("first", order))
        session.add_service(_Failing("failing", order))
        session.add_service(Recorder("last", order))

    try:
        async with attached(bench, prepare=prepare) as rig:
            await rig.executor.disconnect()
            await rig.session.shutdown()
    except* (ValueError, KeyError) as group:
        raised += leaves(group)
    expect(
        {type(exc) for exc in raised} == {ValueError, KeyError} and len(order) == 6,
        expected="both errors of the failing service are raised, and the others were told all the same",
        got=f"{', '.join(map(repr, raised)) or 'nothing'}; {' → '.join(order)}",
        why="one service's error neither stops the others nor is lost",
    )


@attrs.define(eq=False)
class _ShutsDown(Service):
    """A service that asks for the shutdown when it is told of the detach."""

    session: Session
    seen: list[DisconnectReason | None] = attrs.field(factory=list)

    async def on_detach(self, reason: DisconnectReason | None) -> None:
        self.seen.append(await self.session.shutdown())


@check("G24", "shutdown is for everyone")
async def check_shutdown_is_for_everyone(bench: Bench) -> None:
    """A shutdown may be asked for from anywhere a disconnect may, any number of times, and all get the same end.

    * Tasks, worker threads, and threads that Trio did not start, all at once: they return when it is shut down.
    * A wrapper function, its thread, a holder of a keepalive, and a service: they get the cause, and it is not lost.
    """
    await _all_at_once(bench)
    for who in ("task", "thread", "holder", "service"):
        await _asked_by(bench, who)


async def _all_at_once(bench: Bench) -> None:
    seen: list[tuple[DisconnectReason | None, SessionState]] = []

    async with attached(bench) as rig, trio.open_nursery() as nursery:
        portal = rig.session.thread_portal()

        async def task() -> None:
            seen.append((await rig.session.shutdown(), rig.session.state))

        def thread() -> None:
            seen.append((portal.shutdown(), rig.session.state))

        for _ in range(3):
            threading.Thread(target=thread, daemon=True).start()
            nursery.start_soon(task)
            nursery.start_soon(trio.to_thread.run_sync, thread)
        await bench.poll(
            lambda: len(seen) == 9, "everybody who asks for the shutdown returns", within=bench.drain_bound
        )
        end = await rig.executor.wait()
    expect(
        set(seen) == {(end, SessionState.SHUT_DOWN)},
        expected=f"all return when it is shut down, with the same end, {end}",
        got=", ".join(f"{reason} ({state.value})" for reason, state in set(seen)),
        why="whoever has shut it down relies on it",
    )


async def _asked_by(bench: Bench, who: str) -> None:
    seen: list[Any] = []
    portals: list[SessionPortal] = []
    services: list[_ShutsDown] = []
    done = threading.Event()

    async def leave(_party: Party, args: bytes) -> bytes:
        with trio.move_on_after(bench.figures.patience / 2, shield=True):  # it is cancelled by its own shutdown
            seen.append(await rig.session.shutdown())
        return args

    def leave_thread(args: bytes) -> bytes:
        seen.append(portals[0].shutdown())
        done.set()
        return args

    def prepare(session: Session) -> None:
        portals.append(session.thread_portal())
        if who == "service":
            services.append(_ShutsDown(session))
            session.add_service(services[0])

    async with attached(bench, {"leave": leave}, threaded={"dive": leave_thread}, prepare=prepare) as rig:
        match who:
            case "task" | "thread":
                (call,) = calls(rig.nursery, rig.controller, "leave" if who == "task" else "dive", [b""])
                await call.disconnected()
            case "holder":
                with rig.session.keepalive("holder"), bench.soon("who holds a keepalive may ask for the shutdown"):
                    seen.append(await rig.session.shutdown())
            case "service":
                await rig.executor.disconnect()
                seen += services[0].seen
        await bench.poll(
            lambda: rig.session.state is SessionState.SHUT_DOWN,
            f"the shutdown that a {who} asked for comes",
            within=bench.drain_bound,
        )
        if who == "thread":
            with bench.soon("the thread returns"):
                await trio.to_thread.run_sync(done.wait, abandon_on_cancel=True)
        expect(
            len(seen) == 1 and isinstance(seen[0], DisconnectReason) and seen[0].kind is LOCAL,
            expected=f"the {who} gets the cause, a local hang-up",
            got=repr(seen),
            why="it would wait for itself",
        )
