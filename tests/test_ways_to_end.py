# The table of the ways to end in docs/shutdown/ends.rst: each line is made to happen, and seen from both sides.

from __future__ import annotations

import random
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import orc_trio
from campaigns.channel import ChannelStream, Fault, Lane, channel
from orc_trio import DisconnectedError, DisconnectKind, DisconnectReason, Limits

WAYS = tomllib.loads((Path(__file__).parents[1] / "docs" / "shutdown" / "ways.toml").read_text())["way"]
LIMITS = Limits(max_calls=1, drain_timeout=2.0, setup_timeout=3.0)


@attrs.define(eq=False)
class Scene:
    """Two ends in conversation, three calls in flight, and what everybody saw."""

    outward: Lane
    inward: Lane
    limits: Limits = LIMITS
    controller_owner: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    session_owner: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    controller: orc_trio.Controller = attrs.field(init=False)
    session: orc_trio.Session = attrs.field(init=False)
    go: trio.Event = attrs.field(factory=trio.Event)
    bad: trio.Event = attrs.field(factory=trio.Event)
    ends: dict[str, DisconnectReason] = attrs.field(factory=dict)
    seen: dict[str, str] = attrs.field(factory=dict)

    async def work(self, _args: bytes) -> bytes:
        await self.go.wait()
        return b"done"

    async def ask(self, args: bytes) -> bytes:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def go_wrong() -> None:
                await self.bad.wait()
                raise KeyboardInterrupt

            answer = await self.work(args)
            nursery.cancel_scope.cancel()
        return answer

    async def see(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            self.seen[name] = "result" if await call(*args) == b"done" else "other bytes"
        except DisconnectedError as exc:
            self.seen[name] = exc.certainty.name

    def freeze(self) -> None:
        self.outward.fault, self.inward.fault = Fault("freeze", 0), Fault("freeze", 0)

    def thaw(self) -> None:
        for lane in (self.outward, self.inward):
            lane.fault = None
            lane.change()

    def break_(self, *lanes: Lane, kind: str = "cut") -> None:
        for lane in lanes:
            lane.fault = Fault(kind, 0)
            lane.cut = kind == "cut"
            lane.change()


async def controller_disconnects(scene: Scene) -> None:
    await scene.controller.disconnect()


async def executor_detaches(scene: Scene) -> None:
    await scene.session.detach()


async def both_at_once(scene: Scene) -> None:
    scene.controller.begin_disconnect()
    scene.session.begin_detach()


async def softly(scene: Scene) -> None:
    scene.controller.begin_disconnect(finish_within=10)
    scene.go.set()


async def softly_out_of_time(scene: Scene) -> None:
    await scene.controller.disconnect(finish_within=10)


async def controllers_owner_is_cancelled(scene: Scene) -> None:
    scene.controller_owner.cancel()


async def sessions_owner_is_cancelled(scene: Scene) -> None:
    scene.session_owner.cancel()


async def is_killed(scene: Scene) -> None:
    scene.break_(scene.outward, scene.inward)


async def one_direction_breaks(scene: Scene) -> None:
    scene.break_(scene.inward)


async def reset(scene: Scene) -> None:
    scene.break_(scene.outward, scene.inward, kind="fail receive")


async def breaks_the_protocol(scene: Scene) -> None:
    scene.inward.buffer += b"GET / HTTP/1.1\r\n\r\n" * 10
    scene.inward.change()


async def handler_fails_badly(scene: Scene) -> None:
    scene.bad.set()


async def frozen(scene: Scene) -> None:
    scene.freeze()
    await scene.controller.disconnect()
    scene.thaw()


async def frozen_and_thaws(scene: Scene) -> None:
    scene.freeze()
    scene.controller.begin_disconnect()
    await trio.sleep(1)
    scene.thaw()


async def frozen_and_noticed(scene: Scene) -> None:
    scene.freeze()
    await scene.controller.wait_disconnected()
    scene.thaw()


ACTS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "controller disconnects": controller_disconnects,
    "executor detaches": executor_detaches,
    "both at once": both_at_once,
    "softly": softly,
    "softly, out of time": softly_out_of_time,
    "controller's owner is cancelled": controllers_owner_is_cancelled,
    "session's owner is cancelled": sessions_owner_is_cancelled,
    "executor is killed": is_killed,
    "controller is killed": is_killed,
    "one direction breaks": one_direction_breaks,
    "reset": reset,
    "executor breaks the protocol": breaks_the_protocol,
    "handler fails badly": handler_fails_badly,
    "frozen executor": frozen,
    "frozen executor that thaws": frozen_and_thaws,
    "frozen executor that is noticed": frozen_and_noticed,
}


def short(reason: DisconnectReason) -> str:
    """As in the table."""
    return reason.kind.name + (f" ({reason.cause.kind.name})" if reason.cause is not None else "")


@pytest.mark.parametrize("way", [way for way in WAYS if way["id"] in ACTS], ids=lambda way: way["id"].replace(" ", "-"))
async def test_what_each_side_sees(way: dict[str, str], autojump_clock: trio.testing.MockClock) -> None:
    """G4, G11: the two-party table: for this way to end, what both ends and three calls in flight were told."""
    limits = attrs.evolve(LIMITS, liveness_timeout=2.0 if "noticed" in way["id"] else None)
    here, there, lanes = channel(random.Random(0), 1 << 20)
    scene = Scene(*lanes, limits)
    act = ACTS[way["id"]]
    ready = trio.Event()

    async def control() -> None:
        registry = orc_trio.HandlerRegistry()
        registry.handler("ask")(scene.ask)
        with scene.controller_owner:
            try:
                async with orc_trio.open_controller(
                    here, registry, limits=limits, on_disconnect=lambda end: scene.ends.update(controller=end)
                ) as scene.controller:
                    work = scene.controller.bootstrap.symbols["work"]
                    callers.start_soon(scene.see, "running", scene.controller.call_wrapper, work, b"")
                    while not scene.controller.statistics().pending_calls:
                        await trio.lowlevel.checkpoint()
                    callers.start_soon(scene.see, "waiting", scene.controller.call_wrapper, work, b"")
                    while not scene.controller.statistics().waiting_calls:
                        await trio.lowlevel.checkpoint()
                    ready.set()
                    await scene.controller.wait_disconnected()
            except* KeyboardInterrupt:
                assert act is handler_fails_badly

    async def execute() -> None:
        with scene.session_owner:
            async with orc_trio.open_session() as scene.session:
                scene.session.on_disconnect(lambda end: scene.ends.update(executor=end))
                bootstrap = orc_trio.BootstrapInfo.for_session(scene.session)
                bootstrap.add_wrapper("work", scene.work)
                ask = bootstrap.add_tag("ask")
                await scene.session.attach(orc_trio.StreamControllerAccess(there, limits=LIMITS), bootstrap)
                callers.start_soon(scene.see, "back", scene.session.call_controller, ask, b"")
                await scene.session.wait_detached()

    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        nursery.start_soon(control)
        nursery.start_soon(execute)
        await ready.wait()
        while not (scene.session.statistics().running_wrappers and scene.controller.statistics().running_handlers):
            await trio.lowlevel.checkpoint()
        await act(scene)
    seen = {name: short(end) for name, end in scene.ends.items()} | scene.seen
    assert {key: value for key, value in seen.items() if way[key] != "-"} == {
        key: value for key, value in way.items() if key not in ("id", "how") and value != "-"
    }


async def refused(stream: ChannelStream, registry: orc_trio.HandlerRegistry, seen: list[str]) -> None:
    """A controller that does not come about."""
    with pytest.raises(DisconnectedError) as caught:
        await _open(stream, registry)
    seen.append(short(caught.value.reason))


async def _open(stream: ChannelStream, registry: orc_trio.HandlerRegistry) -> None:
    async with orc_trio.open_controller(stream, registry, limits=LIMITS):
        pytest.fail("it connected")


def told(name: str, side: str) -> str:
    (way,) = [way for way in WAYS if way["id"] == name]
    return str(way[side])


async def test_no_setup(autojump_clock: trio.testing.MockClock) -> None:
    """G11, G20: an executor that says nothing: CONNECT_FAILED."""
    here, _there, _ = channel(random.Random(0), 1 << 20)
    seen: list[str] = []
    await refused(here, orc_trio.HandlerRegistry(), seen)
    assert seen == [told("no setup", "controller")]


async def test_two_controllers(autojump_clock: trio.testing.MockClock) -> None:
    """G11, G20: two controllers at one connection: both say that it came to nothing."""
    here, there, _ = channel(random.Random(0), 1 << 20)
    seen: list[str] = []
    async with trio.open_nursery() as nursery:
        for stream in (here, there):
            nursery.start_soon(refused, stream, orc_trio.HandlerRegistry(), seen)
    assert [each.partition(" ")[0] for each in seen] == [told("two controllers", "controller")] * 2


async def test_a_handlers_symbol_is_missing(autojump_clock: trio.testing.MockClock) -> None:
    """G11, G20: a handler for a symbol that the executor lacks: both ends are told so."""
    here, there, _ = channel(random.Random(0), 1 << 20)
    registry = orc_trio.HandlerRegistry()
    registry.handler("nowhere")(bytes)
    seen: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, here, registry, seen)
        async with orc_trio.open_session() as session:
            bootstrap = orc_trio.BootstrapInfo.for_session(session)
            await session.attach(orc_trio.StreamControllerAccess(there, limits=LIMITS), bootstrap)
            assert short(await session.wait_detached()) == told("a handler's symbol is missing", "executor")
    assert seen == [told("a handler's symbol is missing", "controller")]


def test_the_table_is_complete() -> None:
    """G11: every kind of end is in the table, and every line of it is tried."""
    cells = " ".join(way["controller"] + " " + way["executor"] for way in WAYS)
    assert [kind.name for kind in DisconnectKind if kind.name not in cells] == []
    apart = {"no setup", "two controllers", "a handler's symbol is missing"}
    assert {way["id"] for way in WAYS} == set(ACTS) | apart
