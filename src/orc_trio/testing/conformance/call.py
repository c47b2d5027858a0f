"""Calls that the checks make, and what may become of them.

A call's outcome is bytes, an error of orc_trio's, or its caller's own cancellation.  Anything else is a breach: above
all a bare `trio.Cancelled` where nobody had cancelled the caller, which would take its task down in silence (G11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from orc_trio.exceptions import DisconnectedError, NoControllerError, OrcError
from orc_trio.reasons import Certainty
from orc_trio.registry import Buffer
from orc_trio.testing.conformance.bench import expect, fail
from orc_trio.testing.conformance.party import Party

__all__ = ["CANCELLED", "Call", "calls"]

CANCELLED: Final = "cancelled"


@attrs.define(eq=False)
class Call:
    """A call that is made by a task of its own.

    Attributes:
        caller: Which end makes it.
        name: The function.
        args: The argument bytes.
        scope: Cancels its caller.
        outcome: Bytes, an error, or ``CANCELLED``; None while it has not settled.
        made: Whether it was begun.
    """

    caller: Party
    name: str
    args: Buffer = b""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    outcome: bytes | OrcError | str | None = None
    made: bool = False
    _settled: trio.Event = attrs.field(factory=trio.Event)

    def __str__(self) -> str:
        shown = bytes(self.args[:12])
        return f"{self.caller}'s call {self.name}({shown!r}{'…' if len(self.args) > 12 else ''})"

    async def run(self) -> None:  # noqa: ASYNC910
        """Make it, and note its outcome.

        Raises:
            AssertionError: It surfaced as something that no call may surface as.

        Checkpoints:
            Always.

        Cancellation:
            Is its outcome.
        """
        cancelled = False
        with self.scope:
            try:
                self.made = True
                self.outcome = await self.caller.call(self.name, self.args)
            except OrcError as exc:
                self.outcome = exc.with_traceback(None)
            except trio.Cancelled:  # noqa: ASYNC103
                cancelled = trio.current_effective_deadline() == float("-inf")
                if cancelled:
                    raise
            except KeyboardInterrupt:  # that is no breach
                raise
            except BaseException as exc:
                fail(
                    expected=f"{self} gives bytes or one of orc_trio's errors",
                    got=f"{type(exc).__name__}: {exc}",
                    why="callers can handle only what they can expect",
                )
            finally:
                if cancelled:
                    self.outcome = CANCELLED
                self._settled.set()
                self.caller.change()
                self.caller.other.change()
        expect(
            self.outcome is not None,
            expected=f"{self} gives bytes or one of orc_trio's errors",
            got="a bare Cancelled, and nobody had cancelled its caller",
            why="a failed call that looks like a cancellation takes its caller's task down in silence (G11)",
        )

    async def make(self) -> Call:
        """Make it in this task, and expect it to settle.

        Raises:
            AssertionError: It does not settle, or surfaced as something that no call may surface as.

        Checkpoints:
            Always.

        Cancellation:
            Is its outcome.
        """
        with self.caller.bench.soon(f"{self} settles", "a caller that is never answered waits for ever (G1)"):
            await self.run()
        return self

    async def settled(self, within: float | None = None) -> None:
        """Wait for its outcome.

        Args:
            within: Seconds; default: as `Bench.soon`.

        Raises:
            AssertionError: It does not settle.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        why = "a caller that is never answered waits for ever (G1)"
        with self.caller.bench.soon(f"{self} settles", why, within=within):
            await self._settled.wait()

    async def result(self) -> bytes:
        """Wait for it, and for a result.

        Raises:
            AssertionError: It has another outcome.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        await self.settled()
        if not isinstance(self.outcome, bytes):
            fail(
                expected=f"{self} has a result",
                got=repr(self.outcome),
                why="the function returned one, and nothing had ended",
            )
        return self.outcome

    async def echoed(self) -> None:
        """Wait for it, a call of ``echo``, and for what was sent.

        Raises:
            AssertionError: It has another outcome.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        result = await self.result()
        expect(
            result == self.args,
            expected=f"{self} gives the {len(self.args)} bytes that were sent",
            got=f"{len(result)} bytes that begin with {result[:12]!r}",
            why="bytes of another call were taken for this one's: a message was torn, or answers were mixed up",
        )

    async def disconnected(self, *certainties: Certainty) -> DisconnectedError:
        """Wait for it, and for a disconnect error (with one of these certainties).

        Raises:
            AssertionError: It has another outcome.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        await self.settled()
        wanted = " or ".join(each.name for each in certainties) or "any certainty"
        if not isinstance(self.outcome, DisconnectedError) or (
            certainties and self.outcome.certainty not in certainties
        ):
            fail(
                expected=f"{self} fails as disconnected, {wanted}",
                got=repr(self.outcome),
                why="a call that the end of the conversation failed says so, and what is known about it (G4, G11)",
            )
        return self.outcome

    async def failed(self) -> None:
        """Wait for it, and for the end of the conversation to have failed it (or its not being there any more).

        Raises:
            AssertionError: It has another outcome.

        Checkpoints:
            Always.

        Cancellation:
            Changes nothing.
        """
        await self.settled()
        expect(
            isinstance(self.outcome, (DisconnectedError, NoControllerError)),
            expected=f"{self} fails because there is no conversation any more",
            got=repr(self.outcome),
            why="after the end no call can have a result",
        )


def calls(nursery: trio.Nursery, caller: Party, name: str, arguments: Sequence[Buffer]) -> list[Call]:
    """Make calls, each in a task of its own."""
    made = [Call(caller, name, args) for args in arguments]
    for each in made:
        nursery.start_soon(each.run, name=str(each))
    return made
