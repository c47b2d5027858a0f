"""One end of an attached pair, as the checks use it: what it does, what its functions did, and what it was told.

Rules
-----
* What a function did is known from its own log, not from what either end says about it.
* The log holds no payloads, only their first bytes.
* Functions that do not hear their cancellation wait for `Party.release`, which is set when the pair is left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import trio

from orc_trio.exceptions import WrapperFunctionError
from orc_trio.reasons import DisconnectReason
from orc_trio.registry import Buffer
from orc_trio.session import Session
from orc_trio.statistics import ConnectionStatistics
from orc_trio.testing.conformance.bench import Bench, expect

__all__ = ["FUNCTIONS", "ControllerParty", "ExecutorParty", "Party", "Serve", "wrapper_symbol"]

Serve: TypeAlias = Callable[["Party", bytes], Awaitable[bytes]]
"""A function at an end: told the end, and its argument bytes."""
_LOGGED: Final = 24


class Party(ABC):
    """One end.

    Attributes:
        name: ``"executor"`` or ``"controller"``.
        bench: Where the check works.
        other: The other end.
        started: The calls that were begun here, in order: the function's name, and the first bytes of its argument.
        told: What this end's on-disconnect callback was told.
        order: What happened, in order, at both ends.
        release: What functions that do not hear their cancellation wait for.
    """

    name: str
    other: Party

    def __init__(self, bench: Bench, order: list[str]) -> None:
        self.bench = bench
        self.started: list[tuple[str, bytes]] = []
        self.told: list[DisconnectReason] = []
        self.order = order
        self.release: trio.Event = trio.Event()
        self._running: Counter[str] = Counter()
        self._changed = trio.Event()

    def __str__(self) -> str:
        return f"the {self.name}"

    # What it does

    @abstractmethod
    async def call(self, name: str, args: Buffer = b"") -> bytes:
        """Call the function of that name at the other end."""

    @abstractmethod
    async def call_tag(self, tag: int, args: Buffer = b"") -> bytes:
        """Call whatever is under a tag or address at the other end."""

    @abstractmethod
    async def disconnect(self) -> DisconnectReason:
        """End the conversation, and wait until it is over here."""

    @abstractmethod
    async def wait(self) -> DisconnectReason:
        """Wait until it is over here."""

    @abstractmethod
    def begin(self) -> None:
        """Begin to end the conversation."""

    @property
    def begins_at_once(self) -> bool:
        """Whether `begin` has done so when it returns."""
        return True

    @abstractmethod
    def from_thread(self) -> Callable[[], DisconnectReason]:
        """What a thread calls to end the conversation and wait."""

    @abstractmethod
    def statistics(self) -> ConnectionStatistics | None:
        """What this end holds, if it says so."""

    # What is known of it

    def serve(self, name: str, function: Serve) -> Callable[[bytes], Awaitable[bytes]]:
        """A function of this end's, with a log."""

        async def served(args: bytes) -> bytes:  # noqa: ASYNC910
            self.started.append((name, bytes(args[:_LOGGED])))
            self._running[name] += 1
            self.change()
            try:
                return bytes(await function(self, args))
            finally:
                self._running[name] -= 1
                self.order.append(f"{self.name}'s {name} ended")
                self.change()

        return served

    def count(self, name: str) -> int:
        """How many calls of that function were begun here."""
        return sum(each == name for each, _ in self.started)

    def busy(self, name: str | None = None) -> int:
        """How many calls (of that function) are running here."""
        return self._running.total() if name is None else self._running[name]

    def on_disconnect(self, reason: DisconnectReason) -> None:
        """The callback."""
        self.told.append(reason)
        self.order.append(f"{self.name} told")
        self.change()

    def change(self) -> None:
        """Something that somebody may wait for happened here."""
        self._changed.set()

    async def until(self, condition: Callable[[], object], what: str, why: str = "nobody may wait for ever") -> None:
        """Wait for something that shows in this end's log.

        Args:
            condition: Whether it has happened.
            what: What shall happen, as for `Bench.soon`.
            why: Why it matters.

        Raises:
            AssertionError: It did not happen.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        with self.bench.soon(what, why):
            while not condition():
                self._changed = trio.Event()
                await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def until_busy(
        self, name: str, count: int = 1, what: str = "", why: str = "nobody may wait for ever"
    ) -> None:
        """Wait until so many calls of a function are running here.

        Args:
            name: The function.
            count: How many.
            what: What that means, as for `Bench.soon`.
            why: Why it matters.

        Raises:
            AssertionError: They are not.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        await self.until(lambda: self.busy(name) == count, what or f"{self} serves {count} calls of {name}", why)

    def empty(self) -> None:
        """Expect that this end holds nothing any more, as far as it says what it holds."""
        held = self.statistics()
        if held is not None:
            counts = (held.pending_calls, held.waiting_calls, held.abandoned_calls, held.served_calls)
            expect(
                counts == (0, 0, 0, 0),
                expected=f"{self} holds no call when it is over",
                got=repr(held),
                why="what a table still holds is never settled, and never let go (G1)",
            )


class ExecutorParty(Party):
    """The executor's end: a session."""

    name = "executor"

    def __init__(self, bench: Bench, order: list[str], session: Session) -> None:
        super().__init__(bench, order)
        self.tags: dict[str, int] = {}
        self._session = session

    async def call(self, name: str, args: Buffer = b"") -> bytes:
        """See `Party.call`."""
        return await self._session.call_controller(self.tags[name], args)

    async def call_tag(self, tag: int, args: Buffer = b"") -> bytes:
        """See `Party.call_tag`."""
        return await self._session.call_controller(tag, args)

    async def disconnect(self) -> DisconnectReason:
        """See `Party.disconnect`."""
        return await self._session.detach()

    async def wait(self) -> DisconnectReason:
        """See `Party.wait`."""
        return await self._session.wait_detached()

    def begin(self) -> None:
        """See `Party.begin`."""
        self._session.begin_detach()

    def from_thread(self) -> Callable[[], DisconnectReason]:
        """See `Party.from_thread`."""
        return self._session.thread_portal().detach

    def statistics(self) -> ConnectionStatistics | None:
        """See `Party.statistics`."""
        return self._session.statistics().connection


class ControllerParty(Party):
    """The controller's end.

    Attributes:
        end: A `ControllerEnd`, and perhaps more; there when it is connected.
    """

    name = "controller"
    end: Any

    def __init__(self, bench: Bench, order: list[str], nursery: trio.Nursery) -> None:
        super().__init__(bench, order)
        self._nursery = nursery

    async def call(self, name: str, args: Buffer = b"") -> bytes:
        """See `Party.call`."""
        return await self.call_tag(self.end.bootstrap.symbols[wrapper_symbol(name)], args)

    async def call_tag(self, tag: int, args: Buffer = b"") -> bytes:
        """See `Party.call_tag`."""
        result: bytes = await self.end.call_wrapper(tag, args)
        return result

    async def disconnect(self) -> DisconnectReason:
        """See `Party.disconnect`."""
        end: DisconnectReason = await self.end.disconnect()
        return end

    async def wait(self) -> DisconnectReason:
        """See `Party.wait`."""
        end: DisconnectReason = await self.end.wait_disconnected()
        return end

    @property
    def begins_at_once(self) -> bool:
        """See `Party.begins_at_once`."""
        return hasattr(self.end, "begin_disconnect")

    def begin(self) -> None:
        """See `Party.begin`."""
        if self.begins_at_once:
            self.end.begin_disconnect()
        else:
            self._nursery.start_soon(self.end.disconnect)

    def from_thread(self) -> Callable[[], DisconnectReason]:
        """See `Party.from_thread`."""
        if hasattr(self.end, "thread_portal"):
            disconnect: Callable[[], DisconnectReason] = self.end.thread_portal().disconnect
            return disconnect
        token = trio.lowlevel.current_trio_token()
        return lambda: trio.from_thread.run(self.disconnect, trio_token=token)

    def statistics(self) -> ConnectionStatistics | None:
        """See `Party.statistics`."""
        return self.end.statistics() if hasattr(self.end, "statistics") else None


def wrapper_symbol(name: str) -> str:
    """The bootstrap symbol of the executor's function; that of the controller's is the name itself."""
    return f"wrapper {name}"


# The functions at both ends


async def echo(_party: Party, args: bytes) -> bytes:  # noqa: ASYNC124, ASYNC910
    """Answers at once."""
    return args  # noqa: ASYNC910


async def hang(_party: Party, _args: bytes) -> bytes:
    """Does not answer; hears its cancellation."""
    await trio.sleep_forever()
    raise AssertionError


async def hold(party: Party, args: bytes) -> bytes:
    """Answers when it is released."""
    await party.release.wait()
    return args


async def deaf(party: Party, args: bytes) -> bytes:
    """Answers when it is released; does not hear its cancellation."""
    with trio.CancelScope(shield=True):
        await party.release.wait()
    return args


async def linger(party: Party, _args: bytes) -> bytes:
    """Does not answer; when it is cancelled, its clean-up goes on until it is released."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await party.release.wait()
    raise AssertionError


async def refuse(_party: Party, args: bytes) -> bytes:  # noqa: ASYNC124, ASYNC910
    """Raises a deliberate error."""
    raise WrapperFunctionError("Deliberate", args.decode())


FUNCTIONS: Final[Mapping[str, Serve]] = MappingProxyType(
    {each.__name__: each for each in (echo, hang, hold, deaf, linger, refuse)}
)
"""What every pair has at both ends."""
