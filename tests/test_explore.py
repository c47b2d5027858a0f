# The exploration, and the proof that it can fail: every mutant below is the real core with one deliberate fault, and
# each must be caught, with a history that shows it.
#
# Worlds are chosen small enough that a mutant is caught within a second or two.

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest

from orc_trio.protocol import Peer
from orc_trio.protocol import calls as calls_module
from orc_trio.protocol import outbox as outbox_module
from orc_trio.protocol import peer as peer_module
from orc_trio.protocol import pending as pending_module
from orc_trio.protocol import serving as serving_module
from orc_trio.protocol.pings import Pings
from orc_trio.testing import DEFAULT_WORLDS, WORLDS, Answer, Caller, EndPlan, World, explore_world
from orc_trio.testing.explore_cli import main
from orc_trio.wire.messages import Opcode

KIB = 1024
BIG = 64 * KIB
ONE = EndPlan().limits
TWO = attrs.evolve(ONE, max_calls=2)
THREE = attrs.evolve(ONE, max_calls=3)

CALL = Caller()

# -- the core as shipped -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFAULT_WORLDS)
def test_the_shipped_core(name: str, say: Callable[[str, Mapping[str, int]], None]) -> None:
    """G1, G2, G4, G5, G7, G8, G10, G11, G13, G14, G16, G21: every interleaving of a small world."""
    found = explore_world(WORLDS[name], name=name)
    assert found.counterexample is None, str(found)
    assert found.complete
    assert found.quiet > 0
    say("explored", {"states": found.states, "transitions": found.transitions, "worlds": 1})


def test_every_kind_of_answer() -> None:
    """G10, G16, G26: values, errors and refusals reach their callers; what is too large, or made too early, nobody."""
    too_large = Caller(size=BIG + 1)
    answers = tuple(Caller(answer=answer) for answer in Answer)
    world = World(left=EndPlan(callers=(*answers, too_large), limits=THREE), right=EndPlan(limits=THREE, disconnects=1))
    found = explore_world(world)
    assert found.complete, str(found)


def test_exploring_twice_finds_the_same() -> None:
    """The same world gives the same figures: nothing depends on the clock or on addresses."""
    first, second = (explore_world(CALLING) for _ in range(2))
    assert attrs.evolve(first, seconds=0.0) == attrs.evolve(second, seconds=0.0)


def test_limits_of_the_search_are_said() -> None:
    """A search that stopped early says so."""
    found = explore_world(WORLDS["small"], name="small", max_states=100)
    assert not found.complete
    assert "NOT complete" in str(found)


def test_equal_callers_are_interchangeable() -> None:
    """The symmetry loses nothing: callers made different by a byte reach the same kinds of end, in more states."""
    plain = World(left=EndPlan(callers=(CALL, CALL)), right=EndPlan(disconnects=1))
    told_apart = attrs.evolve(plain, left=EndPlan(callers=(CALL, Caller(size=1))))
    assert explore_world(plain).states < explore_world(told_apart).states


# -- mutants -------------------------------------------------------------------------------------------------------


def rewritten(function: Callable[..., Any], module: types.ModuleType, *changes: tuple[str, str]) -> Callable[..., Any]:
    """``function`` with its source changed; each change must fit exactly once."""
    source = inspect.cleandoc("\n" + inspect.getsource(function))
    if source.startswith(("@property", "@staticmethod")):
        source = source.partition("\n")[2]
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {function.__qualname__}"
        source = source.replace(old, new)
    space: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + source, "<mutant>", "exec"), vars(module), space)
    return functools.wraps(function)(space[function.__name__])


@attrs.frozen
class Mutant:
    """One fault: where, what is changed, in which world it shows, and what the law that it breaks says."""

    name: str
    owner: type
    method: str
    changes: tuple[tuple[str, str], ...]
    world: World
    law: str


def world(left: EndPlan, right: EndPlan | None = None, **more: Any) -> World:
    return World(left=left, right=right or EndPlan(limits=left.limits, disconnects=1), **more)


CALLING = world(EndPlan(callers=(CALL, CALL), cancels=1))
PAIR = world(EndPlan(callers=(CALL, CALL), cancels=1, limits=TWO))
BOTH_END = world(EndPlan(callers=(CALL,), disconnects=2))
QUEUE = world(EndPlan(callers=(CALL, CALL, CALL), cancels=1, limits=ONE), EndPlan())
SIZES = world(EndPlan(callers=(Caller(size=BIG), Caller(size=BIG - 1), Caller(size=1)), cancels=1, limits=THREE))
RESULTS = world(EndPlan(callers=(Caller(result=BIG), Caller(result=1)), cancels=1, limits=TWO))
PINGS = world(EndPlan(pings=2, disconnects=1), EndPlan(pings=1, disconnects=1))
NESTED = world(
    EndPlan(callers=(CALL, Caller(nested=True)), cancels=1, disconnects=1),
    EndPlan(callers=(Caller(nested=True), Caller(nested=True))),
)
NESTED_BOTH = world(EndPlan(callers=(CALL, CALL), limits=TWO), EndPlan(callers=(Caller(nested=True),) * 2, limits=TWO))
IN_PARTS = attrs.evolve(TWO, part_size=1)
PARTS = world(EndPlan(callers=(Caller(size=2, result=2), CALL), cancels=1, limits=IN_PARTS), batches=True)
ERRORS = world(EndPlan(callers=(Caller(answer=Answer.ERROR), Caller(answer=Answer.REFUSE)), limits=TWO))

SOFTLY = WORLDS["softly"]
SOFT_BOTH = World(left=EndPlan(callers=(CALL,), finishes=1), right=EndPlan(callers=(CALL,), finishes=1))

PENDING, OUTBOX, SERVED = pending_module.PendingCalls, outbox_module.Outbox, serving_module.ServedCalls
BUDGET = pending_module._Budget

MUTANTS = [
    # the race of a call with the latch
    Mutant(
        "a call is registered after the drain",
        Peer,
        "call",
        (
            ("self.state is PeerState.DRAINING", "False"),
            ("if not self.open:", "if not (self.open or self.cause):"),
        ),
        CALLING,
        "accepted after the latch",
    ),
    Mutant(
        "a call before the ends agree",
        Peer,
        "call",
        (("if not self.open:", "if self.state is PeerState.CLOSED:"),),
        CALLING,
        "G2",
    ),
    Mutant(
        "the refusal is not typed",
        Peer,
        "call",
        (("raise DisconnectedError(self.cause, Certainty.NOT_SENT)", "raise NoControllerError"),),
        CALLING,
        "G21",
    ),
    Mutant(
        "the refusal claims to know nothing",
        Peer,
        "call",
        (("Certainty.NOT_SENT", "Certainty.UNKNOWN"),),
        CALLING,
        "G4",
    ),
    # settling
    Mutant(
        "settled twice",
        Peer,
        "_settle",
        (("self.events.append(CallSettled(call, outcome))", "self.events += [CallSettled(call, outcome)] * 2"),),
        CALLING,
        "G1",
    ),
    Mutant(
        "a result does not free its place",
        Peer,
        "_on_result",
        (("    self._pending.free(call)\n    self._settle", "    self._settle"),),
        CALLING,
        "G1",
    ),
    Mutant(
        "waiters are forgotten at the latch",
        PENDING,
        "drain",
        (("[*self.placed.values(), *self._waiting]", "[*self.placed.values()]"),),
        CALLING,
        "G14",
    ),
    Mutant(
        "those with a place are forgotten at the latch",
        PENDING,
        "drain",
        (("[*self.placed.values(), *self._waiting]", "[*self._waiting]"),),
        CALLING,
        "G14",
    ),
    Mutant("waiters stay in the table", PENDING, "drain", (("    self._waiting.clear()\n", ""),), CALLING, "G8"),
    Mutant(
        "the latch settles backwards",
        PENDING,
        "drain",
        (("return iter(calls)", "return reversed(calls)"),),
        PAIR,
        "in the order",
    ),
    Mutant(
        "waiters settle first",
        PENDING,
        "drain",
        (("[*self.placed.values(), *self._waiting]", "[*self._waiting, *self.placed.values()]"),),
        CALLING,
        "in the order",
    ),
    Mutant(
        "told before it is drained",
        Peer,
        "latch",
        (
            ("    self.cause = cause\n", "    self.cause = cause\n    self.events.append(Latched(cause))\n"),
            ("    self.events.append(Latched(cause))\n    return", "    return"),
        ),
        CALLING,
        "G14",
    ),
    Mutant(
        "a call left is settled at the latch",
        Peer,
        "latch",
        (("call.state = OutboundState.SETTLED", "self._settle(call, Disconnected(cause, Certainty.UNKNOWN))"),),
        CALLING,
        "G1",
    ),
    Mutant(
        "a call left is settled by its result",
        Peer,
        "_on_result",
        (("if call.state is OutboundState.ABANDONED", "if False"),),
        CALLING,
        "G1",
    ),
    Mutant(
        "the latch answers",
        Peer,
        "latch",
        (("self._settle(call, Disconnected(cause, certainty))", 'self._settle(call, Value(b""))'),),
        CALLING,
        "no handler gave",
    ),
    Mutant(
        "the wrong place is freed",
        PENDING,
        "free",
        (("del self.placed[call.seq]", "del self.placed[call.seq + 1]"),),
        CALLING,
        "the core raised KeyError",
    ),
    # certainty
    Mutant(
        "NOT_SENT for a call that was sent",
        Peer,
        "latch",
        (("else Certainty.UNKNOWN", "else Certainty.NOT_SENT"),),
        CALLING,
        "failed as NOT_SENT",
    ),
    Mutant(
        "UNKNOWN for one that was not",
        Peer,
        "latch",
        (("Disconnected(cause, Certainty.NOT_SENT)", "Disconnected(cause, Certainty.UNKNOWN)"),),
        CALLING,
        "G4",
    ),
    Mutant(
        "the watermark is off by one where it is read",
        Peer,
        "latch",
        (("call.seq > watermark", "call.seq >= watermark"),),
        CALLING,
        "a handler had it",
    ),
    Mutant(
        "the watermark is off by one where it is kept",
        SERVED,
        "dispatch",
        (("max(self.watermark, call.seq)", "call.seq - 1"),),
        CALLING,
        "watermark",
    ),
    Mutant(
        "the watermark is not used",
        Peer,
        "_on_hang_up",
        (("watermark=message.aux", "watermark=None"),),
        CALLING,
        "never started",
    ),
    Mutant(
        "no watermark is taken for zero",
        Peer,
        "latch",
        (("(watermark is not None and call.seq > watermark)", "call.seq > (watermark or 0)"),),
        BOTH_END,
        "a handler had it",
    ),
    # cancelling
    Mutant(
        "a cancel overtakes its call",
        Peer,
        "cancel",
        (
            (
                "            self._outbox.remove(call)\n            self._pending.leave(call)\n",
                (
                    "            self._outbox.entries[Message(Opcode.CANCEL, call.seq)] = None\n"
                    "            self._outbox.entries.move_to_end(call)\n"
                    "            call.state = OutboundState.ABANDONED\n"
                    "            return\n"
                ),
            ),
        ),
        CALLING,
        "G1: the table",
    ),
    Mutant(
        "a queued call that was left is sent",
        Peer,
        "cancel",
        (
            (
                "            self._outbox.remove(call)\n            self._pending.leave",
                "            self._pending.leave",
            ),
        ),
        CALLING,
        "G4: call 0 was sent",
    ),
    Mutant(
        "a cancel frees the place",
        Peer,
        "cancel",
        (("            call.state = OutboundState.ABANDONED\n", "            self._pending.free(call)\n"),),
        CALLING,
        "G1",
    ),
    Mutant(
        "a waiting call that was left stays",
        Peer,
        "cancel",
        (
            (
                "        case OutboundState.WAITING:\n            self._pending.leave(call)\n",
                "        case OutboundState.WAITING:\n            return\n",
            ),
        ),
        CALLING,
        "G8",
    ),
    Mutant(
        "a cancel for a call answered is answered again",
        SERVED,
        "cancel",
        (("return call if call.state is InboundState.RUNNING else None", "return call"),),
        RESULTS,
        "G8",
    ),
    Mutant(
        "a cancel for a call finished is a violation",
        SERVED,
        "cancel",
        (("seq == 0 or seq > self._last_seq", "True"),),
        CALLING,
        "keep the protocol",
    ),
    Mutant(
        "a result that crosses a cancel is a violation",
        PENDING,
        "get",
        (("OutboundState.QUEUED", "OutboundState.ABANDONED"),),
        CALLING,
        "keep the protocol",
    ),
    # limits and back-pressure
    Mutant(
        "one call too many",
        BUDGET,
        "fits",
        (("self.calls < self.max_calls", "self.calls <= self.max_calls"),),
        CALLING,
        "G8",
    ),
    Mutant(
        "one call too few is accepted",
        SERVED,
        "begin",
        ((">= max_calls", ">= max_calls - 1"),),
        PAIR,
        "keep the protocol",
    ),
    Mutant("one byte too many", BUDGET, "fits", (("<= self.max_bytes", "<= self.max_bytes + 1"),), SIZES, "G8"),
    Mutant(
        "one byte too few is accepted",
        SERVED,
        "begin",
        (("size > self._limits.max_bytes", "size >= self._limits.max_bytes"),),
        SIZES,
        "keep the protocol",
    ),
    Mutant(
        "a small call overtakes a large one",
        PENDING,
        "submit",
        (("elif self._waiting or not", "elif not"),),
        SIZES,
        "G8",
    ),
    Mutant(
        "a free place is not given on", PENDING, "free", (("    self._admit()", "    pass"),), QUEUE, "there is room"
    ),
    Mutant(
        "a waiter that leaves holds up the others",
        PENDING,
        "leave",
        (("        self._admit()", "        pass"),),
        SIZES,
        "there is room",
    ),
    Mutant(
        "the last to wait goes first",
        PENDING,
        "_admit",
        (("next(iter(self._waiting))", "next(reversed(self._waiting))"),),
        QUEUE,
        "G8",
    ),
    Mutant("bytes are not given back", BUDGET, "free", (("    self.size -= size", "    pass"),), SIZES, "G8"),
    Mutant(
        "a place is given back before the result is sent",
        Peer,
        "respond",
        (
            (
                "    call.state = InboundState.ANSWERED\n",
                "    call.state = InboundState.ANSWERED\n    self._served.finish(call)\n",
            ),
        ),
        CALLING,
        "G1",
    ),
    Mutant("a place is never given back", Peer, "take", (("self._served.finish(entry)", "pass"),), QUEUE, "G1"),
    Mutant(
        "the larger limit is in force",
        Peer,
        "_on_setup",
        (("self.limits = agreed", "agreed = self.limits"),),
        attrs.evolve(PAIR, right=EndPlan(disconnects=1)),
        "the smaller one",
    ),
    Mutant("nested calls wait", PENDING, "submit", (("if call.nested:", "if False:"),), NESTED, "G8: a call waits"),
    Mutant(
        "the nested budget is ignored",
        PENDING,
        "submit",
        (("if not self._nested.fits(call.size)", "if False"),),
        NESTED_BOTH,
        "G7",
    ),
    Mutant(
        "the nested mark is lost",
        calls_module.OutboundCall,
        "sent",
        (("Opcode.NESTED_CALL if self.nested else Opcode.CALL", "Opcode.CALL"),),
        NESTED,
        "G7",
    ),
    # results
    Mutant(
        "results have no bound", OUTBOX, "_has_room", (("<= self.max_bytes", "<= 2 * self.max_bytes"),), RESULTS, "G8"
    ),
    Mutant(
        "a small result overtakes a large one",
        OUTBOX,
        "put_result",
        (("self._results_outside or not", "not"),),
        attrs.evolve(
            RESULTS, left=EndPlan(callers=(Caller(result=BIG), Caller(result=BIG), Caller(result=0)), limits=THREE)
        ),
        "overtake",
    ),
    Mutant("results outside are forgotten", OUTBOX, "release", (("entered.append(call)", "pass"),), RESULTS, "G8"),
    Mutant(
        "results outside are dropped at the latch",
        OUTBOX,
        "close",
        (("entered = list(self._results_outside)", "entered = []"),),
        RESULTS,
        "G14",
    ),
    Mutant(
        "results are dropped at the latch",
        OUTBOX,
        "close",
        (("isinstance(entry, InboundCall) or", "False or"),),
        CALLING,
        "G14",
    ),
    Mutant(
        "a late answer is sent",
        Peer,
        "respond",
        (
            ("if self.cause is not None", "if self.state is PeerState.CLOSED"),
            ("if call.state is not InboundState.RUNNING", "if False"),
        ),
        CALLING,
        "G13",
    ),
    Mutant(
        "errors become values",
        Peer,
        "_queue_result",
        (("kind, payload = encode_result(outcome)", "kind, payload = 0, encode_result(outcome)[1]"),),
        ERRORS,
        "G10",
    ),
    Mutant("a value is cancelled", Peer, "respond", (("if call.cancel_requested and", "if"),), CALLING, "G5"),
    # the end
    Mutant(
        "the hang-up is dropped",
        OUTBOX,
        "close",
        (("    self.entries[hang_up] = None\n", ""),),
        CALLING,
        "nothing happens any more",
    ),
    Mutant(
        "the hang-up goes first",
        OUTBOX,
        "close",
        (
            (
                "    self.entries[hang_up] = None\n",
                "    self.entries[hang_up] = None\n    self.entries.move_to_end(hang_up, last=False)\n",
            ),
        ),
        CALLING,
        "before the hang-up",
    ),
    Mutant(
        "calls are sent after the latch",
        OUTBOX,
        "close",
        (("isinstance(entry, InboundCall) or", "True or"),),
        CALLING,
        "G4",
    ),
    Mutant(
        "the hang-up is not answered",
        Peer,
        "_on_hang_up",
        (
            (
                "    self.latch(reason, watermark=message.aux)\n",
                (
                    "    if self.cause is None:\n"
                    "        self.latch(reason, watermark=message.aux)\n"
                    "        self._outbox.clear()\n"
                ),
            ),
        ),
        CALLING,
        "only one end knows",
    ),
    Mutant(
        "the cause changes",
        Peer,
        "latch",
        (
            (
                "    if self.cause is not None:\n        return self.cause\n",
                "    if self.cause is not None:\n        self.cause = cause\n        return self.cause\n",
            ),
        ),
        BOTH_END,
        "G11",
    ),
    Mutant(
        "the latch falls twice",
        Peer,
        "latch",
        (
            ("    if self.cause is not None:\n        return self.cause\n", ""),
            ("next_state(self.state, Trigger.LATCH)", "PeerState.DRAINING"),
        ),
        BOTH_END,
        "G11",
    ),
    Mutant(
        "calls are accepted after the latch",
        Peer,
        "receive",
        (("if self.state is PeerState.DRAINING and", "if False and"),),
        CALLING,
        "G13",
    ),
    Mutant(
        "the peer's hang-up is not told",
        Peer,
        "_on_hang_up",
        (("    self.events.append(PeerHungUp())", "    pass"),),
        CALLING,
        "G16",
    ),
    Mutant("tables are not emptied at the latch", Peer, "latch", (("    self._served.drain()\n", ""),), CALLING, "G1"),
    Mutant(
        "the queue is not emptied at the end",
        Peer,
        "end",
        (("    self._outbox.clear()", "    pass"),),
        attrs.evolve(CALLING, right=EndPlan(disconnects=1, gives_up=True)),
        "terminal state",
    ),
    # the soft stop
    Mutant(
        "a soft stop refuses nothing here",
        Peer,
        "call",
        (("if self.state is PeerState.FINISHING and not nested:", "if False:"),),
        SOFTLY,
        "accepted during a soft stop",
    ),
    Mutant(
        "a soft stop refuses nested calls here",
        Peer,
        "call",
        (("if self.state is PeerState.FINISHING and not nested:", "if self.state is PeerState.FINISHING:"),),
        World(left=EndPlan(callers=(Caller(nested=True),), finishes=1), right=EndPlan(callers=(CALL,))),
        "nobody stops softly",
    ),
    Mutant(
        "a soft stop refuses nothing of the peer",
        Peer,
        "_on_call",
        (("if self.state is PeerState.FINISHING and not call.nested:", "if False:"),),
        SOFT_BOTH,
        "accepted during a soft stop",
    ),
    Mutant(
        "a soft stop refuses the peer's nested calls",
        Peer,
        "_on_call",
        (("if self.state is PeerState.FINISHING and not call.nested:", "if self.state is PeerState.FINISHING:"),),
        SOFTLY,
        "G1",
    ),
    Mutant(
        "what is turned away counts as dispatched",
        Peer,
        "_on_call",
        (
            (
                "    call = self._served.begin(message)\n",
                "    call = self._served.begin(message)\n    self._served.dispatch(call)\n",
            ),
        ),
        SOFT_BOTH,
        "watermark",
    ),
    Mutant(
        "what is turned away is answered twice",
        Peer,
        "_on_call",
        (("        return\n", "        pass\n"),),
        SOFT_BOTH,
        "accepted during a soft stop",
    ),
    Mutant(
        "finished while a call is pending",
        Peer,
        "_in_flight",
        (("len(self._pending) or ", ""),),
        SOFTLY,
        "something is in flight",
    ),
    Mutant(
        "finished while a call waits",
        Peer,
        "_in_flight",
        (("len(self._pending) or self._pending.waiting or ", ""),),
        SOFTLY,
        "something is in flight",
    ),
    Mutant(
        "finished while a handler runs",
        Peer,
        "_in_flight",
        ((" or served)", ")"),),
        SOFT_BOTH,
        "something is in flight",
    ),
    Mutant(
        "finished before the results have arrived",
        Peer,
        "finished",
        ((" and self._all_arrived", ""),),
        SOFTLY,
        "still on its way",
    ),
    Mutant(
        "a soft stop never asks",
        Peer,
        "_ask_whether_all_arrived",
        (("if self.state is PeerState.FINISHING and", "if False and"),),
        SOFTLY,
        "has not come to its end",
    ),
    # pings, parts
    Mutant("a pong is forgotten", Pings, "answered", (("    self._outstanding = False", "    pass"),), PINGS, "G17"),
    Mutant("a second ping while one is out", Pings, "ping", (("if self._outstanding:", "if False:"),), PINGS, "G17"),
    Mutant(
        "a pong after the hang-up",
        Peer,
        "receive",
        (("message.opcode != Opcode.HANG_UP", "message.opcode not in (Opcode.HANG_UP, Opcode.PING)"),),
        attrs.evolve(PINGS, batches=True),
        "follows the hang-up",
    ),
    Mutant(
        "a part is a second call",
        SERVED,
        "begin",
        (("payload = self._arriving.complete(seq, message.payload)", "payload = None"),),
        PARTS,
        "keep the protocol",
    ),
    Mutant(
        "the rest of a call that was left is sent",
        Peer,
        "cancel",
        (
            (
                '                self._outbox.remove(call)\n                call.payload = b""\n',
                "                pass\n",
            ),
        ),
        PARTS,
        "not counted right",
    ),
    Mutant(
        "a call that is not complete may have run",
        Peer,
        "latch",
        (("bool(call.payload) or ", ""),),
        PARTS,
        "was not complete",
    ),
    Mutant(
        "a part goes behind the hang-up",
        OUTBOX,
        "_part",
        (("if self._closing:", "if False:"),),
        PARTS,
        "not sent before the hang-up",
    ),
    Mutant(
        "parts are not counted",
        OUTBOX,
        "take",
        (("            self.call_bytes -= self.part_size\n", ""),),
        PARTS,
        "not counted right",
    ),
    Mutant(
        "the last part is forgotten",
        Peer,
        "_on_result",
        (("if payload is None:", "if True:"),),
        PARTS,
        "other bytes",
    ),
]


@pytest.fixture
def mutated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Mutant:
    mutant: Mutant = request.param
    original = inspect.getattr_static(mutant.owner, mutant.method)
    function = original
    wrap: Callable[[Any], Any] = lambda changed: changed  # noqa: E731
    if isinstance(original, staticmethod):
        function, wrap = original.__func__, staticmethod
    elif isinstance(original, property):
        function, wrap = original.fget, property
    module = inspect.getmodule(mutant.owner)
    assert module is not None
    changed = rewritten(function, module, *mutant.changes)
    monkeypatch.setattr(mutant.owner, mutant.method, wrap(changed))
    table = dict(peer_module._RECEIVERS)
    for opcode, receiver in table.items():
        if receiver is function:
            monkeypatch.setattr(
                peer_module, "_RECEIVERS", types.MappingProxyType(dict(peer_module._RECEIVERS) | {opcode: changed})
            )
    return mutant


@pytest.mark.parametrize("mutated", MUTANTS, indirect=True, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_caught(mutated: Mutant) -> None:
    """The exploration can fail: a core with this one fault breaks a law, and the history is shown."""
    found = explore_world(mutated.world, name=mutated.name, max_states=200_000)
    assert found.counterexample is not None, "it survived"
    assert mutated.law in found.counterexample.law, str(found)
    print(found.counterexample.law)
    diagram = str(found.counterexample)
    assert f"✗ {found.counterexample.law}" in diagram
    assert len(found.counterexample.lines) <= 30


def test_a_core_of_ones_own() -> None:
    """A class derived from the core can be explored too, at one end or at both."""

    class Forgetful(Peer):
        def end(self) -> None:
            super().end()
            self.cause = None

    world = World(left=EndPlan(), right=EndPlan(disconnects=1))
    assert explore_world(world).complete
    found = explore_world(world, left=Forgetful)
    assert found.counterexample is not None
    assert found.counterexample.law.startswith("G11")


def test_going_round_in_circles_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Liveness: a handler that answers must come to an end; one that takes its answer back for ever is found."""
    changed = rewritten(
        Peer._on_pong,
        peer_module,
        (
            "    self._pings.answered(message)\n",
            "    self._outbox.put(Message(Opcode.PING, aux=message.aux))\n    return\n",
        ),
    )
    monkeypatch.setattr(
        peer_module, "_RECEIVERS", types.MappingProxyType({**peer_module._RECEIVERS, Opcode.PONG: changed})
    )
    found = explore_world(World(left=EndPlan(pings=1), right=EndPlan()))
    assert found.counterexample is not None
    assert found.counterexample.law.startswith("liveness")


DIAGRAM = """\
                      controller                 │                  executor
     ────────────────────────────────────────────┼────────────────────────────────────────────
   1 SETUP ──▷                                   │
   2                                             │ ◁── SETUP
   3 SETUP ◀──                                   │
       · open                                    │
   4 caller 0 calls                              │
   5 CALL #1 (call 0) ──▷                        │
   6                                             │ ──▶ SETUP
                                                 │   · open
   7                                             │ ──▶ CALL #1 (call 0)
                                                 │   · handler of call 0 starts
   8 ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ cut left to right, nothing lost ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄
   9 sees that its send failed                   │
       · call 0 failed, not started              │
       · LATCH: transport error: sending failed  │
     ✗ G4: call 0 failed as never started, but a handler had it
"""


def test_a_history_reads_like_a_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of the controller on the left, of the executor on the right, cuts across; the law at the end."""
    known = "bool(call.payload) or (watermark is not None and call.seq > watermark)"
    changed = rewritten(Peer.latch, peer_module, (known, "True"))
    monkeypatch.setattr(Peer, "latch", changed)
    found = explore_world(World(left=EndPlan(callers=(CALL,)), right=EndPlan(), cuts=1))
    assert [line.rstrip() for line in str(found.counterexample).splitlines()] == DIAGRAM.splitlines()


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints what was explored; its exit status says whether every law holds."""
    assert main(["parts"]) == 0
    assert "states in all" in capsys.readouterr().out
    assert main(["nowhere"]) == 2
    assert "no such world: nowhere" in capsys.readouterr().err
    monkeypatch.setattr(Peer, "latch", rewritten(Peer.latch, peer_module, ("call.seq > watermark", "True")))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["queue"]) == 1
    told = capsys.readouterr()
    assert "✗ G4" in told.out
    assert "queue: depth 1" in told.err
