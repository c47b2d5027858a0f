# Many callers and many who disconnect, tasks and threads that Trio did not start, over a real socket.
#
# What runs when is the kernel's affair here, so a run is not reproducible; it is checked like all others.

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

import orc_trio
from campaigns.channel import Lane
from campaigns.programs import Side, Victim, seen_error
from campaigns.runs import Figures, check, recorded
from campaigns.worlds import CALL, Draw
from orc_trio import Limits
from orc_trio.protocol import Role
from orc_trio.testing import EndPlan, World
from orc_trio.testing._explore_oracle import argument, result


def in_thread(function: Callable[[], None], threads: list[threading.Thread]) -> None:
    """Run it in a thread of its own."""
    thread = threading.Thread(target=function)
    threads.append(thread)
    thread.start()


def call_from_thread(side: Side, call: Callable[[int, bytes], bytes], tag: int) -> None:
    """Make the call of that number, and write down what is seen."""
    caller = side.plan.callers[tag]
    try:
        assert call(tag, argument(tag, caller.size)) == result(tag, caller.result)
        side.seen[tag] = "value"
    except orc_trio.OrcError as exc:
        side.seen[tag] = seen_error(exc, tag)


def run_crowd(seed: int, figures: Figures) -> None:
    """One crowd.

    Raises:
        Exception: Something does not hold; a note has the number.
    """
    try:
        _run_crowd(random.Random(seed), figures)
    except BaseException as exc:
        exc.add_note(f"crowd {seed}")
        raise


def _run_crowd(dice: random.Random, figures: Figures) -> None:
    limits = Limits(max_calls=dice.choice([1, 4, 1024]), drain_timeout=20.0)
    world = World(
        left=EndPlan(callers=(CALL,) * dice.randrange(30), disconnects=dice.randrange(1, 8), limits=limits),
        right=EndPlan(callers=(CALL,) * dice.randrange(30), disconnects=dice.randrange(8), limits=limits),
    )
    drawn = Draw(world=world, capacity=0, scripted=True)
    left = Side("wrapper", world.left, world.right, dice, Victim(), scripted=True)
    right = Side("controller", world.right, world.left, dice, Victim(), scripted=True)

    async def crowd(side: Side, portal: Any, call: Any, ends: list[tuple[Any, Any]]) -> None:
        """Everybody at one end; each is a task or a thread."""
        side.call = call
        from_thread = portal.call_wrapper if side is left else portal.call_controller
        threads: list[threading.Thread] = []
        async with trio.open_nursery() as nursery:
            doers: list[tuple[Any, Any]] = [
                (partial(side.make, tag), partial(call_from_thread, side, from_thread, tag))
                for tag in range(len(side.plan.callers))
            ]
            doers += [dice.choice(ends) for _ in range(side.plan.disconnects)]
            dice.shuffle(doers)
            for task, thread in doers:
                for _ in range(dice.choice([0, 0, 1, 5])):
                    await trio.lowlevel.checkpoint()
                if dice.random() < 0.5:
                    nursery.start_soon(task)
                else:
                    in_thread(thread, threads)
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)

    async def disconnected(side: Side, disconnect: Any) -> None:
        side.ends.append(await disconnect())
        assert side.running == 0, "G13: a handler is running after the end"

    def disconnected_in_thread(side: Side, disconnect: Any) -> None:
        side.ends.append(disconnect())

    async def control(stream: trio.SocketStream) -> None:
        registry = orc_trio.HandlerRegistry()
        for tag in range(len(world.right.callers)):
            registry.register(tag, left.handler(tag))
        async with orc_trio.open_controller(
            stream, registry, limits=limits, on_disconnect=left.told.append
        ) as controller:
            portal = controller.thread_portal()
            ways = [
                (
                    partial(disconnected, left, controller.disconnect),
                    partial(disconnected_in_thread, left, portal.disconnect),
                )
            ]
            await crowd(left, portal, controller.call_wrapper, ways)
            left.ends.append(await controller.wait_disconnected())

    async def execute(stream: trio.SocketStream) -> None:
        async with orc_trio.open_session() as session:
            session.on_disconnect(right.told.append)
            for tag in range(len(world.left.callers)):
                session.wrappers.add(right.handler(tag), address=tag)
            access = orc_trio.StreamControllerAccess(stream, limits=limits)
            await session.attach(access, orc_trio.BootstrapInfo.for_session(session))
            portal = session.thread_portal()
            ways = [
                (
                    partial(disconnected, right, getattr(session, name)),
                    partial(disconnected_in_thread, right, getattr(portal, name)),
                )
                for name in ("detach", "shutdown")
            ]
            await crowd(right, portal, session.call_controller, ways)
            right.ends.append(await session.wait_detached())

    async def main() -> None:
        one, other = trio.socket.socketpair()
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control, trio.SocketStream(one))
                nursery.start_soon(execute, trio.SocketStream(other))

    with recorded() as peers:
        trio.run(main)
    lanes = {role: Lane(dice, 0, None) for role in Role}
    check(
        drawn,
        {Role.CONTROLLER: (left, lanes[Role.CONTROLLER]), Role.EXECUTOR: (right, lanes[Role.EXECUTOR])},
        peers,
        figures,
    )
