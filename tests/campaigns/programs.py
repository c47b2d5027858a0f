# The two ends' programs: callers, callers that leave, handlers, disconnecters; each writes down what it saw.

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import attrs
import trio

import orc_trio
from campaigns.worlds import Draw
from orc_trio import Certainty, DisconnectReason
from orc_trio.testing import Answer, EndPlan
from orc_trio.testing._explore_oracle import Fate, argument, result

CERTAINTIES = {Certainty.NOT_SENT: "not sent", Certainty.NOT_STARTED: "not started", Certainty.UNKNOWN: "unknown"}

SEEN = {
    "idle": {Fate.IDLE},
    "no controller": {Fate.IDLE, Fate.REFUSED},
    "value": {Fate.VALUE},
    "error": {Fate.ERROR},
    # The end and a cancellation in one step: the cancellation is what its caller sees (G5).
    "left": {Fate.IDLE, Fate.LEFT_UNSENT, Fate.LEFT, Fate.LEFT_DONE, Fate.NOT_SENT, Fate.NOT_STARTED, Fate.UNKNOWN},
    "refused": {Fate.REFUSED, Fate.REFUSED_BY_PEER, Fate.TURNED_AWAY},
    "nesting": {Fate.REFUSED},
    "not sent": {Fate.NOT_SENT, Fate.REFUSED},
    "not started": {Fate.NOT_STARTED},
    "unknown": {Fate.UNKNOWN},
}
"""What a program may have seen of a call, and what may have become of it in the core."""


def seen_error(exc: orc_trio.OrcError, tag: int) -> str:
    """What a caller has seen that was told this."""
    match exc:
        case orc_trio.DisconnectedError():
            return CERTAINTIES[exc.certainty]
        case orc_trio.NoControllerError():
            return "no controller"
        case orc_trio.NestingLimitError():
            return "nesting"
        case orc_trio.CallRefusedError():
            return "refused"
        case orc_trio.WrapperFunctionError():
            assert (exc.remote_type, exc.message) == ("Error", str(tag)), exc
            return "error"
    raise exc


async def _too_early(_tag: int, _args: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    raise orc_trio.NoControllerError("its owner does not know the connection yet")


@attrs.define(eq=False)
class Victim(trio.abc.Instrument):
    """Cancels one of the programs' tasks when it has made so many steps.

    Attributes:
        name: Which task; None: none.
        steps: After how many steps.
        hit: Whether it got that far.
    """

    name: str | None = None
    steps: int = 0
    hit: bool = False
    _task: trio.lowlevel.Task | None = None
    _scope: trio.CancelScope | None = None

    @contextmanager
    def may_be(self, name: str) -> Iterator[trio.CancelScope]:
        """The current task has this name while it is inside."""
        with trio.CancelScope() as scope:
            if name == self.name and not self.hit:
                self._task, self._scope = trio.lowlevel.current_task(), scope
            try:
                yield scope
            finally:
                self._task = None if self._scope is scope else self._task

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        if task is self._task and self._scope is not None and not self.hit:
            if self.steps == 0:
                self.hit = True
                self._scope.cancel()
            self.steps -= 1


@attrs.define(eq=False)
class Side:
    """One end's program.

    Attributes:
        name: What it calls: "wrapper" or "controller".
        plan: What it may do.
        other: The other end's plan: its callers say what our handlers answer.
        dice: Decides when.
        victim: Who is cancelled.
        scripted: See `Draw`.
        open_callers: How many of its callers are not done.
        seen: What each caller saw.
        started: The handlers' own log: the calls whose function was called.
        running: Handlers that are running.
        ends: What those who disconnected, or waited for it, were told.
        told: What the on-disconnect callback was told.
    """

    name: str
    plan: EndPlan
    other: EndPlan
    dice: random.Random
    victim: Victim
    scripted: bool = False
    open_callers: int = 0
    seen: list[str] = attrs.field(init=False)
    started: list[int] = attrs.field(factory=list)
    running: int = 0
    ends: list[Any] = attrs.field(factory=list)
    told: list[DisconnectReason] = attrs.field(factory=list)
    scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict)
    call: Callable[[int, bytes], Awaitable[bytes]] = attrs.field(init=False)  # a handler may run before it is known

    def __attrs_post_init__(self) -> None:
        self.seen = ["idle"] * len(self.plan.callers)
        self.call = _too_early
        self.open_callers = sum(not caller.nested for caller in self.plan.callers)

    async def pause(self) -> None:
        """Some steps, or some time."""
        if self.scripted:
            await trio.lowlevel.checkpoint()
        elif self.dice.random() < 0.3:
            await trio.sleep(self.dice.choice([0.001, 0.5, 3.0]))
        else:
            for _ in range(self.dice.choice([0, 0, 1, 3, 10, 40])):
                await trio.lowlevel.checkpoint()

    async def caller(self, tag: int) -> None:
        """Make the call of that number."""
        try:
            await self.pause()
            await self.make(tag)
        finally:
            self.open_callers -= 1

    async def make(self, tag: int) -> None:
        """Make the call, and write down what is seen."""
        caller = self.plan.callers[tag]
        with self.victim.may_be(f"call_{self.name} {tag}") as scope:
            self.scopes[tag] = scope
            try:
                self.seen[tag] = await self._seen(tag, caller)
            except trio.Cancelled:
                self.seen[tag] = "left"
                raise
            finally:
                del self.scopes[tag]

    async def _seen(self, tag: int, caller: Any) -> str:
        try:
            found = await self.call(tag, argument(tag, caller.size))
        except orc_trio.OrcError as exc:
            return seen_error(exc, tag)
        assert found == result(tag, caller.result), "a result arrived with other bytes"
        return "value"

    def handler(self, tag: int) -> Callable[[bytes], Awaitable[bytes]]:
        """The function that serves the other end's call of that number."""
        caller = self.other.callers[tag]

        async def function(args: bytes) -> bytes:
            assert args == argument(tag, caller.size), "an argument arrived with other bytes"
            self.started.append(tag)
            self.running += 1
            try:
                await self.pause()
                if (nested := self._nested()) is not None:
                    await self.make(nested)
                    await self.pause()
                if not self.scripted and self.dice.random() < 0.1:
                    with suppress(trio.Cancelled), trio.CancelScope(shield=True):  # takes its time to leave
                        await self.pause()
            finally:
                self.running -= 1
            if caller.answer is Answer.ERROR:
                raise orc_trio.WrapperFunctionError("Error", str(tag))
            return result(tag, caller.result)

        return function

    def _nested(self) -> int | None:
        free = [
            tag
            for tag, caller in enumerate(self.plan.callers)
            if caller.nested and self.seen[tag] == "idle" and tag not in self.scopes
        ]
        return self.dice.choice(free) if free else None

    async def canceller(self) -> None:
        """Have some caller leave."""
        await self.pause()
        if self.scopes:
            self.scopes[self.dice.choice(list(self.scopes))].cancel()

    async def disconnecter(self, end: Any, finish_within: float = 0.0) -> None:
        """Disconnect, one way or another, and see that it is over then."""
        if self.scripted:
            with trio.move_on_after(60):
                while self.open_callers:
                    await trio.sleep(1)
        else:
            for _ in range(self.dice.choice([0, 1, 2, 4, 8])):
                await self.pause()
        how = "wait" if self.scripted else self.dice.choice(["wait", "wait", "begin", "give up", "owner"])
        if how == "begin":
            end.begin(finish_within)
            return
        if how == "owner" and not finish_within:
            end.owner.cancel()
            return
        with self.victim.may_be("disconnect" if self.name == "wrapper" else "detach") as scope:
            if how == "give up":
                scope.deadline = trio.current_time() + self.dice.choice([0, 0.1])
            self.ends.append(await end.disconnect(finish_within))
            assert self.running == 0, "G13: a handler is running after the end"


@attrs.define(eq=False)
class _Controller:
    controller: orc_trio.Controller
    owner: trio.CancelScope

    def begin(self, finish_within: float) -> None:
        self.controller.begin_disconnect(finish_within=finish_within)

    async def disconnect(self, finish_within: float) -> Any:
        return await self.controller.disconnect(finish_within=finish_within)


@attrs.define(eq=False)
class _Session:
    session: orc_trio.Session
    owner: trio.CancelScope
    dice: random.Random

    def begin(self, finish_within: float) -> None:
        if self.dice.random() < 0.5:
            self.session.begin_detach(finish_within=finish_within)
        else:
            self.session.begin_shutdown(finish_within=finish_within)

    async def disconnect(self, finish_within: float) -> Any:
        if self.dice.random() < 0.5:
            return await self.session.detach(finish_within=finish_within)
        return await self.session.shutdown(finish_within=finish_within)


async def run_all(side: Side, end: Any, draw: Draw) -> None:
    """Everybody who does something at that end, at once."""
    soft = math.inf if draw.world.gentle else side.dice.choice([0.01, 1.0, 20.0])
    async with trio.open_nursery() as nursery:
        for tag, caller in enumerate(side.plan.callers):
            if not caller.nested:
                nursery.start_soon(side.caller, tag)
        for _ in range(side.plan.cancels):
            nursery.start_soon(side.canceller)
        for _ in range(side.plan.disconnects):
            nursery.start_soon(side.disconnecter, end)
        for _ in range(side.plan.finishes):
            nursery.start_soon(side.disconnecter, end, soft)


async def be_controller(side: Side, stream: Any, draw: Draw) -> None:
    """The controller's owner."""
    registry = orc_trio.HandlerRegistry()
    for tag in range(len(side.other.callers)):
        registry.register(tag, side.handler(tag))
    with side.victim.may_be("open_controller") as owner, suppress(orc_trio.DisconnectedError):
        async with orc_trio.open_controller(
            stream, registry, limits=side.plan.limits, on_disconnect=side.told.append
        ) as controller:
            side.call = controller.call_wrapper
            await run_all(side, _Controller(controller, owner), draw)
            with side.victim.may_be("wait_disconnected"):
                side.ends.append(await controller.wait_disconnected())
            side.ends.append(await controller.wait_disconnected())


async def be_executor(side: Side, stream: Any, draw: Draw) -> None:
    """The session's owner."""
    with side.victim.may_be("open_session") as owner:
        async with orc_trio.open_session() as session:
            session.on_disconnect(side.told.append)
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            for tag in range(len(side.other.callers)):
                session.wrappers.add(side.handler(tag), address=tag)
            side.call = session.call_controller
            everybody = partial(run_all, side, _Session(session, owner, side.dice), draw)
            async with trio.open_nursery() as nursery:
                if (
                    early := not side.scripted and side.dice.random() < 0.2
                ):  # some call, or disconnect, before it is attached
                    nursery.start_soon(everybody)
                with (
                    side.victim.may_be("attach"),
                    suppress(orc_trio.DisconnectedError, orc_trio.LocalProtocolError),
                ):
                    access = orc_trio.StreamControllerAccess(stream, limits=side.plan.limits)
                    await session.attach(access, bootstrap)
                    if not early:
                        nursery.start_soon(everybody)
            with suppress(orc_trio.NoControllerError):
                with side.victim.may_be("wait_detached"):
                    side.ends.append(await session.wait_detached())
                side.ends.append(await session.wait_detached())
            with side.victim.may_be("shutdown"):
                side.ends.append(await session.shutdown())
