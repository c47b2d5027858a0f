# The door for threads: calls and ends from any thread, at any time, and never a bare Cancelled.

from __future__ import annotations

import math
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import orc_trio
from harness import connected_ends, every_transport, no_hang
from orc_trio import Certainty, DisconnectKind, Handler
from orc_trio.testing import PairKind
from orc_trio.threads import Portal, RunEnded
from session_fakes import LOCAL, REMOTE, FakeAccess, Threads, attached


async def echo(args: bytes) -> bytes:
    return args


@every_transport
async def test_calls_from_threads(kind: str) -> None:
    """G12: threads that Trio did not start call both ways; the results are bytes."""
    async with connected_ends(kind, wrappers={"wrapper": echo}, handlers={"handler": echo}) as ends:
        session, controller = ends.session.thread_portal(), ends.controller.thread_portal()
        handler, wrapper = ends.symbols["handler"], ends.symbols["wrapper"]

        def call() -> Any:
            return [
                session.call_controller(handler, bytearray(b"x")),
                controller.call_wrapper(wrapper, memoryview(b"y")),
            ]

        assert await Threads(8, call).joined() == [[b"x", b"y"]] * 8
        assert await trio.to_thread.run_sync(call) == [b"x", b"y"]


@every_transport
async def test_errors_cross(kind: str) -> None:
    """G10: what a call raises is raised in the thread."""

    async def fail(_args: bytes) -> bytes:
        raise orc_trio.WrapperFunctionError("Deliberate", "message")

    async with connected_ends(kind, wrappers={"fail": fail}) as ends:
        portal = ends.controller.thread_portal()
        (error,) = await Threads(1, lambda: portal.call_wrapper(ends.symbols["fail"], b"")).joined()
        assert isinstance(error, orc_trio.WrapperFunctionError)
        assert str(error) == "Deliberate: message"
        (error,) = await Threads(1, lambda: portal.call_wrapper(1, b"")).joined()
        assert isinstance(error, orc_trio.UnknownHandlerTagError)


@every_transport
async def test_disconnected_calls(kind: str) -> None:
    """G11: a thread's pending call is failed by the end, with its cause; a later one has no controller."""

    async def forever(_args: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with connected_ends(kind, wrappers={"forever": forever}) as ends:
        portal = ends.controller.thread_portal()
        threads = Threads(8, lambda: portal.call_wrapper(ends.symbols["forever"], b""))
        while ends.controller.statistics().pending_calls < 8:
            await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(portal.disconnect)
        for error in await threads.joined():
            assert isinstance(error, orc_trio.DisconnectedError)
            assert error.reason == LOCAL
        (error,) = await Threads(1, lambda: portal.call_wrapper(1, b"")).joined()
        assert isinstance(error, orc_trio.NoControllerError)


async def test_on_the_trio_thread() -> None:
    """G12: portal methods called on the Trio thread raise RuntimeError, in a task and in a callback of the loop."""
    async with connected_ends("memory") as ends:
        session, controller = ends.session.thread_portal(), ends.controller.thread_portal()
        methods: list[Any] = [
            session.detach,
            session.disconnect,
            session.shutdown,
            controller.disconnect,
            lambda: session.call_controller(1, b""),
            lambda: controller.call_wrapper(1, b""),
        ]
        raised: list[Any] = []

        def all_of_them() -> None:
            for method in methods:
                with pytest.raises(RuntimeError, match="Trio thread"):
                    method()
                raised.append(method)

        all_of_them()
        trio.lowlevel.current_trio_token().run_sync_soon(all_of_them)
        while len(raised) < 2 * len(methods):
            await trio.lowlevel.checkpoint()
        assert ends.session.state is orc_trio.SessionState.ATTACHED
        assert ends.controller.disconnect_reason is None


def test_on_the_trio_thread_of_another_run() -> None:
    """G12: nor may they block another Trio run than theirs."""

    async def make() -> orc_trio.SessionPortal:
        async with orc_trio.open_session() as session:
            return session.thread_portal()

    async def use() -> None:
        with pytest.raises(RuntimeError, match="Trio thread"):
            portal.shutdown()

    portal = trio.run(make)
    trio.run(use)


def test_made_outside_of_trio() -> None:
    """G12: a portal is made on the Trio thread."""
    with pytest.raises(RuntimeError):
        Portal()


async def test_from_another_trio_run_in_a_thread() -> None:
    """G12: a thread with a Trio run of its own uses a worker thread of its own."""
    async with orc_trio.open_session() as session:
        portal = session.thread_portal()
        await attached(session)

        async def other() -> Any:
            return await trio.to_thread.run_sync(portal.detach)

        assert await Threads(1, lambda: trio.run(other)).joined() == [LOCAL]


@pytest.mark.parametrize("known", [False, True])
def test_the_run_ends_under_a_call(known: bool) -> None:
    """G11, G12: a call whose run ends under it fails as disconnected, UNKNOWN; who waits for the end still gets it."""
    calling = threading.Event()

    class Slow:
        """A session whose calls outlive it."""

        disconnect_reason = LOCAL if known else None

        def begin_detach(self) -> orc_trio.DisconnectReason:
            return LOCAL

        async def call_controller(self, _tag: int, _args: Any) -> bytes:
            calling.set()
            await trio.sleep_forever()
            raise AssertionError

        async def detach(self, *, finish_within: float) -> orc_trio.DisconnectReason:
            calling.set()
            await trio.sleep(0.1)  # its owner is a system task, and says goodbye
            return REMOTE

        async def shutdown(self, *, finish_within: float) -> orc_trio.DisconnectReason | None:
            return await self.detach(finish_within=finish_within)

    async def main(method: str, *args: Any) -> Threads:
        calling.clear()
        portal = orc_trio.SessionPortal(Slow())
        threads = Threads(1, lambda: getattr(portal, method)(*args))
        await trio.to_thread.run_sync(calling.wait)
        return threads

    (error,) = trio.run(main, "call_controller", 1, b"").join()
    assert isinstance(error, orc_trio.DisconnectedError)
    assert error.certainty is Certainty.UNKNOWN
    assert error.reason.kind is (DisconnectKind.LOCAL_HANGUP if known else DisconnectKind.OWNER_CANCELLED)
    assert trio.run(main, "detach").join() == [REMOTE]
    assert trio.run(main, "shutdown").join() == [REMOTE]


def test_the_run_has_ended() -> None:
    """G12: after the run there is nothing to run in."""

    async def make() -> Portal:
        return Portal()

    portal = trio.run(make)
    with pytest.raises(RunEnded):
        portal._run(trio.lowlevel.checkpoint)


async def test_a_nested_call_from_a_threaded_wrapper() -> None:
    """G7: a call made by a thread that serves a call is nested: it needs no slot."""
    limits = orc_trio.Limits(max_calls=1)

    def wrapper(args: bytes) -> bytes:
        return portal.call_controller(ends.symbols["handler"], args)

    async with connected_ends(
        "memory", threaded={"wrapper": wrapper}, handlers={"handler": echo}, limits=limits
    ) as ends:
        portal = ends.session.thread_portal()

        async def call() -> None:
            assert await ends.call("wrapper", b"x") == b"x"

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(call)


async def test_threads_call_while_it_ends() -> None:
    """G1, G12: calls and ends from many threads at once: every call settles, once, in a named way."""
    async with orc_trio.open_session() as session:
        portal = session.thread_portal()
        await attached(session, FakeAccess())

        def work() -> set[Any]:
            seen = set()
            for i in range(20):
                if i == 10:
                    portal.detach()
                try:
                    seen.add(portal.call_controller(1, b"x"))
                except orc_trio.OrcError as exc:
                    seen.add(type(exc))
            return seen

        for seen in await Threads(8, work).joined():
            assert seen <= {b"x", orc_trio.NoControllerError, orc_trio.DisconnectedError}
            assert orc_trio.NoControllerError in seen


# --- threads that enter the Trio run by themselves, and would wait for themselves ---

PATIENT = orc_trio.Limits(handler_grace=math.inf)


@every_transport
@pytest.mark.parametrize("softly", [False, True])
@pytest.mark.parametrize("where", ["controller", "executor"])
async def test_a_thread_that_serves_a_call_ends_it_from_thread(kind: str, where: str, softly: bool) -> None:
    """G12: a thread that serves a call, and ends its connection by ``trio.from_thread``, does not wait for itself."""
    seen: list[Any] = []

    def serve(_args: bytes) -> bytes:
        end = ends.controller.disconnect if where == "controller" else ends.session.detach
        seen.append(trio.from_thread.run(partial(end, finish_within=math.inf if softly else 0.0)))
        return b"served"

    async def call() -> None:
        here = where == "controller"
        caller = ends.session.call_controller if here else ends.controller.call_wrapper
        try:
            assert await caller(ends.symbols["serve"], b"") == b"served"
        except orc_trio.DisconnectedError:
            assert not softly

    threaded = {"serve": Handler(serve, "serve", threaded=True)}
    on = {"handlers": threaded} if where == "controller" else {"wrappers": threaded}
    async with connected_ends(kind, limits=PATIENT, **on) as ends:  # type: ignore[arg-type]
        await call()
        ended = ends.controller.wait_disconnected if where == "controller" else ends.session.wait_detached
        assert await ended() == LOCAL
    assert seen == [LOCAL]


async def test_a_thread_with_a_keepalive_shuts_down_from_thread() -> None:
    """G12, G24: so does a thread that holds a keepalive and shuts its session down."""

    def work() -> None:
        with session.keepalive("thread"):
            assert trio.from_thread.run(session.shutdown) is None
            assert session.state is not orc_trio.SessionState.SHUT_DOWN

    with no_hang():
        async with orc_trio.open_session() as session:
            await trio.to_thread.run_sync(work)
            await session.shutdown()


@every_transport
@pytest.mark.parametrize("by", ["from_thread", "portal"])
async def test_a_thread_two_connections_deep(kind: PairKind, by: str) -> None:
    """G12: a thread serving a call of a connection that was opened by a handler of another ends that other one."""
    seen: list[Any] = []

    def inner(_args: bytes) -> bytes:
        seen.append(trio.from_thread.run(ends.session.detach) if by == "from_thread" else portal.detach())
        return b""

    async def outer(_args: bytes) -> bytes:
        with trio.CancelScope(shield=True):
            async with connected_ends(kind, threaded={"inner": inner}) as others:
                await others.call("inner")
        return b"served"

    async with connected_ends(kind, wrappers={"outer": outer}, limits=PATIENT) as ends:
        portal = ends.session.thread_portal()
        with pytest.raises(orc_trio.DisconnectedError):
            await ends.call("outer")
        assert await ends.session.wait_detached() == LOCAL
    assert seen == [LOCAL]


@pytest.mark.parametrize("abandoned", [False, True])
@pytest.mark.parametrize("by", ["from_thread", "portal"])
async def test_a_thread_of_a_keepalives_holder(abandoned: bool, by: str) -> None:
    """G12, G24: a thread works for the task that started it, also if Trio would let it go."""

    def work() -> None:
        if by == "portal":
            portal.shutdown()
        else:
            trio.from_thread.run(session.shutdown)
        assert session.state is not orc_trio.SessionState.SHUT_DOWN

    with no_hang():
        async with orc_trio.open_session() as session:
            portal = session.thread_portal()
            with session.keepalive("task"):
                await trio.to_thread.run_sync(work, abandon_on_cancel=abandoned)
            await session.shutdown()


@every_transport
async def test_a_task_that_a_thread_started_elsewhere_waits(kind: PairKind) -> None:
    """G12: a task that a threaded function started in another nursery returns in the terminal state only."""
    seen: list[Any] = []

    async def background() -> None:
        reason = await ends.session.detach()
        seen.append((reason, ends.session.disconnect_reason))

    def serve(_args: bytes) -> bytes:
        trio.from_thread.run_sync(application.start_soon, background)
        return b""

    async with trio.open_nursery() as application:
        async with connected_ends(kind, threaded={"serve": serve}) as ends:
            with suppress(orc_trio.DisconnectedError):
                await ends.call("serve")
    assert seen == [(LOCAL, LOCAL)]
