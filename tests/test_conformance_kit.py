# The kit itself: the bench, the gate, verdicts, reports, and the two ways to run it in a process.

from __future__ import annotations

import html.parser
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import orc_trio
from orc_trio.testing import (
    QUICK_LIMITS,
    AccessPair,
    Hung,
    NotApplicable,
    Outcome,
    PairFactory,
    Report,
    SteadyClock,
    Subject,
    Verdict,
    check_controller_access,
    check_exactly_once,
    check_too_large,
    conformance_tests,
    connected_pair,
    no_leaks,
    pairs_of,
    run_conformance,
)
from orc_trio.testing.conformance import child
from orc_trio.testing.conformance.bench import Bench, Check, expect, fail
from orc_trio.testing.conformance.call import Call, calls
from orc_trio.testing.conformance.gate import GARBAGE, NO_SUCH_OPCODE, Gate, gated
from orc_trio.testing.conformance.noting import nothing_said
from orc_trio.testing.conformance.rig import attached
from orc_trio.testing.conformance.runner import explain, name_of, run_entry, select
from orc_trio.testing.conformance.stepping import spread
from orc_trio.wire import Message, Opcode

good = pairs_of(partial(connected_pair, "memory"))


def with_figures(pairs: PairFactory = good, **figures: Any) -> PairFactory:
    """Good pairs with other figures."""

    @asynccontextmanager
    async def factory() -> AsyncIterator[AccessPair]:
        async with pairs() as pair:
            yield attrs.evolve(pair, **figures)

    return factory


def entry(body: Callable[[Bench], Awaitable[None]]) -> Check:
    """A check of ours, for the bench."""

    async def function(_factory: PairFactory) -> None:
        raise AssertionError

    return Check("G1", "ours", function, body)


# --- the whole ---


@pytest.fixture
def clock() -> SteadyClock:
    """What a run needs in which all checks are made: a busy machine is no breach."""
    return SteadyClock()


async def test_all_checks_in_this_run(clock: SteadyClock) -> None:
    """A good access gets a verdict for each guarantee, all of them good; nothing is left behind."""
    with no_leaks():
        verdicts = await check_controller_access(good)
    assert [verdict.guarantee for verdict in verdicts] == [f"G{number}" for number in range(1, 27)]
    assert {verdict.outcome for verdict in verdicts} == {Outcome.PASSED}
    assert {verdict.why for verdict in verdicts} == {""}


async def test_what_a_pair_cannot_do_is_left_out(clock: SteadyClock) -> None:
    """Without hooks and figures what can be checked is, and what was left out is told."""
    nothing = dict.fromkeys(("cut", "freeze", "thaw", "garble", "max_message", "liveness"))
    roomy = attrs.evolve(QUICK_LIMITS, max_bytes=2**20, max_message=2**20)
    factory = with_figures(pairs_of(partial(connected_pair, "memory"), limits=roomy), **nothing, waived={"G6": "why"})
    verdicts = await check_controller_access(factory)
    by_guarantee = {verdict.guarantee: verdict for verdict in verdicts}
    assert {name: each.why for name, each in by_guarantee.items() if each.outcome is not Outcome.PASSED} == {
        "G6": "not claimed: why",
        "G15": "the pair has no freeze",
        "G17": "the pair has neither cut nor liveness with freeze",
        "G25": "the pair has no garble",
        "G26": "the pair has no max_message",
    }
    assert by_guarantee["G4"].why == "left out what needs cut, freeze"
    assert by_guarantee["G9"].why == ""


async def broken(reason: str = "broken on purpose") -> tuple[Any, Any]:
    raise RuntimeError(reason)


async def test_all_failures_are_gathered() -> None:
    """What is broken is raised in one group, each with a note that names its guarantee."""
    with pytest.raises(ExceptionGroup, match="26 guarantees are broken") as caught:
        await check_controller_access(pairs_of(broken))
    assert len(caught.value.exceptions) == 26
    for number, exc in enumerate(caught.value.exceptions, 1):
        assert isinstance(exc, AssertionError)
        assert "an unexpected RuntimeError came out of the pair: broken on purpose" in str(exc)
        assert exc.__notes__[0].startswith(f"G{number} ")


async def test_a_check_by_itself() -> None:
    """Each check is a function of a factory; it returns nothing, or raises."""
    assert await check_exactly_once(good) is None  # type: ignore[func-returns-value]
    with pytest.raises(NotApplicable, match="no max_message"):
        await check_too_large(with_figures(max_message=None))
    with pytest.raises(AssertionError, match="RuntimeError"):
        await check_exactly_once(pairs_of(broken))
    assert check_exactly_once.__name__ == "check_exactly_once"
    assert "settle" in (check_exactly_once.__doc__ or "")


def test_one_run_for_each_check() -> None:
    """The runner gives a report of verdicts, in order, tells each, and can be told which, and with which seed."""
    told: list[Verdict] = []
    report = run_conformance(good, name="mine", only=["g10", "G9"], seed=7, progress=told.append)
    (subject,) = report.subjects
    assert subject.name == "mine"
    assert subject.verdicts == tuple(told)
    assert [(verdict.guarantee, verdict.outcome, verdict.seed) for verdict in told] == [
        ("G9", Outcome.PASSED, 7),
        ("G10", Outcome.PASSED, 7),
    ]
    assert report.passed
    with pytest.raises(ValueError, match="there is no guarantee G27, H1; there are G1 to G26"):
        run_conformance(good, only=["H1", "G27", "G1"])


def test_every_verdict() -> None:
    """Failed, hung, not applicable: each is a verdict, with its reason and a seed by which it can be had again."""

    async def hang(_bench: Bench) -> None:
        await trio.sleep_forever()

    def verdict(factory: PairFactory, guarantee: str) -> Verdict:
        return run_conformance(factory, only=[guarantee]).subjects[0].verdicts[0]

    failed = verdict(pairs_of(broken), "G3")
    assert failed.outcome is Outcome.FAILED
    assert f"orc_trio.testing.run_scheduled({failed.seed}, …)" in failed.why
    assert "in broken" in failed.why  # the traceback of what was not expected
    assert verdict(with_figures(max_message=None), "G26").outcome is Outcome.NOT_APPLICABLE
    assert str(verdict(good, "G26")) == "G26 too large: passed"

    @asynccontextmanager
    async def stuck() -> AsyncIterator[AccessPair]:
        async with good() as pair:

            @asynccontextmanager
            async def open_controller(_registry: Any, *, on_disconnect: Any = None) -> AsyncIterator[Any]:
                await trio.sleep_forever()
                yield

            yield attrs.evolve(pair, open_controller=open_controller, patience=0.2)

    hung = verdict(stuck, "G1")
    assert hung.outcome is Outcome.FAILED
    assert "both ends connect" in hung.why


# --- the bench ---


async def run(body: Callable[[Bench], Awaitable[None]], factory: PairFactory = good, **kwargs: Any) -> str:
    return await entry(body).run(factory, **kwargs)


async def test_a_hang_is_found() -> None:
    """When nothing is finished for too long, that is an error that says where everybody stands."""

    async def hang(_bench: Bench) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="the one that hangs")
            await trio.sleep_forever()

    told: list[str] = []
    impatient = with_figures(patience=0.05, drain_timeout=0.001, liveness=None)
    with pytest.raises(Hung, match="the one that hangs") as caught:
        await run(hang, impatient, on_hang=told.append)
    assert "in hang" in str(caught.value) or "hang (" in str(caught.value)
    assert told == [str(caught.value)]


async def test_a_breach_is_not_lost_in_a_hang() -> None:
    """If a breach was found, and what has to be left then takes too long, it is the breach that is raised."""

    async def breach(bench: Bench) -> None:
        async with attached(bench, wrap_host=Stuck) as rig:
            async with trio.open_nursery() as nursery:
                calls(nursery, rig.controller, "echo", [b"x"])
                await trio.testing.wait_all_tasks_blocked()
                fail(expected="one", got="two", why="it is three")

    class Stuck:
        def __init__(self, host: Any) -> None:
            self.host = host

        def __getattr__(self, name: str) -> Any:
            return getattr(self.host, name)

        async def run_wrapper(self, *_args: Any) -> bytes:
            with trio.move_on_after(0.5, shield=True):
                await trio.sleep_forever()
            return b""

    with pytest.raises(AssertionError, match="expected: one") as caught:
        await run(breach, with_figures(patience=0.1, drain_timeout=0.01, liveness=None))
    assert any(note.startswith("and then it hung: ") for note in caught.value.__notes__)


def test_a_standstill_is_no_time() -> None:
    """In a run of its own, no bound of a check runs out because the machine had no time for it."""

    async def stand_still(bench: Bench) -> None:
        with bench.soon("it is done", within=0.5):
            time.sleep(1)  # noqa: ASYNC251
            await trio.sleep(0.2)

    run_entry(entry(stand_still), with_figures())


async def test_what_no_call_may_raise() -> None:
    """A call that surfaces as something else than the documented errors is a breach."""

    class Odd:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def call_controller(self, *_args: Any, **_kwargs: Any) -> bytes:
            await trio.lowlevel.checkpoint()
            raise ConnectionResetError("the socket")

    @asynccontextmanager
    async def odd() -> AsyncIterator[AccessPair]:
        async with good() as pair:
            yield attrs.evolve(pair, access=Odd(pair.access))

    async def call(bench: Bench) -> None:
        async with attached(bench) as rig:
            await Call(rig.executor, "echo", b"x").make()

    with pytest.raises(AssertionError, match="gives bytes or one of orc_trio's errors\nhappened: ConnectionResetError"):
        await run(call, odd)


async def test_progress_is_no_hang(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever finishes something now and then may take as long as it takes."""

    async def slow(bench: Bench) -> None:
        for _ in range(20):
            await trio.sleep(15)
            async with bench.pair():
                pass

    await run(slow)
    assert trio.current_time() >= 300


async def test_a_step_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """A step that does not happen soon is a breach that says what did not happen, and why it matters."""

    async def wait(bench: Bench) -> None:
        with bench.soon("the sun rises", "it is dark"):
            await trio.sleep_forever()

    with pytest.raises(AssertionError) as caught:
        await run(wait)
    assert str(caught.value) == "expected: the sun rises\nhappened: not within 10 s\nit matters: it is dark"

    async def poll(bench: Bench) -> None:
        await bench.poll(lambda: trio.current_time() > 5, "five seconds pass")
        await bench.poll(lambda: False, "it never happens", within=3)

    with pytest.raises(AssertionError, match="it never happens\nhappened: not within 3 s"):
        await run(poll)


async def test_of_several_breaches_the_first_is_raised() -> None:
    """Nurseries' groups are opened; the first breach is raised, the others are its notes."""

    async def several(_bench: Bench) -> None:
        async def later() -> None:
            await trio.lowlevel.checkpoint()
            raise LookupError("another thing")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            try:
                await trio.sleep_forever()
            finally:
                fail(expected="one", got="two", why="it is three")

    with pytest.raises(AssertionError, match="expected: one") as caught:
        await run(several)
    assert "also: LookupError: another thing" in caught.value.__notes__


async def test_what_is_not_expected_is_a_breach() -> None:
    """Whatever else comes out is a breach too, with its own traceback; an interrupt is not held up."""

    async def odd(_bench: Bench) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("odd")

    with pytest.raises(AssertionError, match="an unexpected KeyError came out of the pair: 'odd'") as caught:
        await run(odd)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "in odd" in explain(entry(odd), caught.value)

    async def interrupted(_bench: Bench) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await run(interrupted)


async def test_a_check_can_be_cancelled() -> None:
    """Whoever runs a check can cancel it."""

    async def forever(_bench: Bench) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0.01) as scope:
        await run(forever)
    assert scope.cancelled_caught


async def test_what_is_no_factory() -> None:
    """A factory that gives something else is told so."""

    @asynccontextmanager
    async def wrong() -> AsyncIterator[Any]:
        yield "a pair"

    with pytest.raises(AssertionError, match="a factory gives an AccessPair, not 'a pair'"):
        await check_exactly_once(wrong)


async def test_a_factory_that_hangs(autojump_clock: trio.testing.MockClock) -> None:
    """One that hangs is a hang."""

    @asynccontextmanager
    async def hangs() -> AsyncIterator[Any]:
        await trio.sleep_forever()
        yield

    with pytest.raises(Hung, match="the factory did not open and close a pair within 60 s"):
        await check_exactly_once(hangs)


def test_expect() -> None:
    """What holds is no breach."""
    expect(True, expected="", got="", why="")
    with pytest.raises(AssertionError, match="expected: a\nhappened: b\nit matters: c"):
        expect([], expected="a", got="b", why="c")


@pytest.mark.parametrize(
    "figures",
    [
        {"max_message": 0},
        {"max_calls": -1},
        {"drain_timeout": 0.0},
        {"liveness": 0.0},
        {"patience": 0.0},
        {"freeze": None},
    ],
)
async def test_figures_that_make_no_sense(figures: dict[str, Any]) -> None:
    """Figures of nothing are refused; so is a pair that can thaw and not freeze."""
    async with good() as pair:
        with pytest.raises(ValueError, match="more than 0|can thaw can freeze"):
            attrs.evolve(pair, **figures)


def test_spread() -> None:
    """All numbers if there are few; otherwise the first ones, and then evenly to the last."""
    assert list(spread(5, 10)) == [1, 2, 3, 4, 5]
    many = list(spread(1000, 30))
    assert len(many) == 30
    assert many[:10] == list(range(1, 11))
    assert many[-1] == 1000
    assert many == sorted(set(many))


def test_complaints_are_found() -> None:
    """A warning in the log, a Python warning, and an exception that nobody can catch are complaints."""

    class Bad:
        def __del__(self) -> None:
            raise LookupError("nobody can catch it")

    with pytest.raises(AssertionError, match="WARNING: said") as caught:  # noqa: PT012
        with nothing_said():
            logging.getLogger("mine").warning("said %s", "so")
            Bad()
    assert "nobody can catch it" in str(caught.value)
    with nothing_said(quiet=False):
        logging.getLogger("mine").warning("not looked at")
    with nothing_said() as forget:
        logging.getLogger("mine").warning("forgotten")
        forget()
        logging.getLogger("mine").info("no complaint")


# --- the gate ---


@pytest.mark.parametrize("kind", ["memory", "unix"])
async def test_an_open_gate_is_a_stream(kind: Any) -> None:
    """A stream behind an open gate is a stream like any other."""

    async def ends() -> Any:
        gate = Gate()
        return tuple(gated(end, gate) for end in await connected_pair(kind))

    await trio.testing.check_half_closeable_stream(ends, None)


async def test_a_frozen_gate_holds_everything() -> None:
    """While it is frozen nothing arrives; when it is thawed everything does."""
    gate = Gate()
    one, other = (gated(end, gate) for end in await connected_pair("memory"))
    await one.send_all(b"sent before")
    await gate.freeze()
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            while data := await other.receive_some():
                received.append(bytes(data))

        @nursery.start_soon
        async def send() -> None:
            await one.send_all(b"sent meanwhile")
            await one.send_eof()  # type: ignore[attr-defined]

        await trio.testing.wait_all_tasks_blocked()
        assert received == []
        await gate.thaw()
    assert received == [b"sent before", b"sent meanwhile"]


async def test_who_waits_at_a_frozen_gate_can_leave() -> None:
    """A receive that is cancelled while it is frozen loses nothing; a close wakes whoever waits."""
    gate = Gate()
    one, other = (gated(end, gate) for end in await connected_pair("memory"))
    await one.send_all(b"kept")
    await gate.freeze()
    with trio.move_on_after(0.01):
        await other.receive_some()
    with pytest.RaisesGroup(trio.ClosedResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, b"never sent")
            await trio.testing.wait_all_tasks_blocked()
            await one.aclose()
    await gate.thaw()
    assert await other.receive_some(3) == b"kep"
    assert await other.receive_some(3) == b"t"


async def test_a_cut_gate_is_the_end() -> None:
    """When it is cut, who receives is at the end, and who sends is told that it is broken; also who waits already."""
    for frozen in (False, True):
        gate = Gate()
        one, other = (gated(end, gate) for end in await connected_pair("unix"))
        if frozen:
            await gate.freeze()
        ends: list[bytes] = []
        with pytest.RaisesGroup(trio.BrokenResourceError):
            async with trio.open_nursery() as nursery:

                async def receive(ends: list[bytes] = ends, other: Any = other) -> None:
                    ends.append(await other.receive_some())

                nursery.start_soon(receive)
                nursery.start_soon(one.send_all, bytes(10**7))
                await trio.testing.wait_all_tasks_blocked(0.01)
                await gate.cut()
                await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await other.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await other.send_eof()  # type: ignore[attr-defined]
        assert await other.receive_some() == b""
        await gate.freeze()
        assert await one.receive_some() == b""
        for end in (one, other):
            await end.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await end.receive_some()


async def test_garbage() -> None:
    """What is garbled is received next, once."""
    gate = Gate()
    one, other = (gated(end, gate) for end in await connected_pair("memory"))
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            received.append(await other.receive_some())

        await trio.testing.wait_all_tasks_blocked()
        await other.garble()
    assert received == [GARBAGE]
    await one.send_all(b"x")
    assert await other.receive_some() == b"x"


async def test_a_gate_for_messages() -> None:
    """Message transports are gated as streams are; what is garbled is a message that does not exist."""
    gate = Gate()
    one, other = (gated(end, gate) for end in await connected_pair("inprocess"))
    one.max_payload = 17
    assert one.max_payload == 17
    assert one.at_boundary
    assert one.exit_status is None
    message = Message(Opcode.SETUP)
    received: list[Message] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            for _ in range(2):
                received.extend(await other.receive())

        await gate.freeze()
        nursery.start_soon(one.send, [message])
        await trio.testing.wait_all_tasks_blocked()
        assert received == []
        await gate.thaw()
        await trio.testing.wait_all_tasks_blocked()
        await other.garble()
    assert received == [message, Message(NO_SUCH_OPCODE)]
    assert one.activity == 1
    await one.send_eof()
    assert await other.receive() == []
    await gate.cut()
    assert await other.receive() == []
    with pytest.raises(trio.BrokenResourceError):
        await other.send([message])
    for end in (one, other):
        await end.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await end.receive()


# --- reports ---


REPORT = Report(
    subjects=(
        Subject(
            name="one",
            verdicts=(
                Verdict(guarantee="G2", title="one step", outcome=Outcome.PASSED, why="no cut", seconds=0.25, seed=3),
                Verdict(guarantee="G10", title="errors", outcome=Outcome.FAILED, why="a <b>\nc & d", seed=4),
            ),
        ),
        Subject(
            name="other",
            verdicts=(
                Verdict(guarantee="G2", title="one step", outcome=Outcome.HUNG, why="it hangs"),
                Verdict(guarantee="G11", title="the end", outcome=Outcome.NOT_APPLICABLE, why="no freeze"),
            ),
        ),
    )
)


def test_a_report_as_text() -> None:
    """A table of guarantees and verdicts, what was not looked at, what is wrong, and how many of each."""
    assert REPORT.text() == (
        "               one     other\n"
        "G2   one step  passed  hung\n"
        "G10  errors    failed\n"
        "G11  the end           not applicable\n"
        "\n"
        "one: G2 one step: passed (no cut)\n"
        "other: G11 the end: not applicable (no freeze)\n"
        "\n"
        "one: G10 errors: failed\n    a <b>\n    c & d\n"
        "\n"
        "other: G2 one step: hung\n    it hangs\n"
        "\n"
        "one: 1 passed, 1 failed\n"
        "other: 1 not applicable, 1 hung"
    )
    assert not REPORT.passed
    assert str(REPORT.subjects[0].verdicts[1]) == "G10 errors: failed (a <b>)"
    assert Report(subjects=()).passed
    assert Subject(name="nothing", verdicts=()).summary() == "no checks"


def test_a_report_as_json() -> None:
    """For programs: what json.dumps takes, with everything in it."""
    found = json.loads(json.dumps(REPORT.as_dict()))
    assert found["passed"] is False
    assert [subject["passed"] for subject in found["subjects"]] == [False, False]
    assert found["subjects"][0]["verdicts"][1] == {
        "guarantee": "G10",
        "title": "errors",
        "outcome": "failed",
        "why": "a <b>\nc & d",
        "seconds": 0.0,
        "seed": 4,
    }


class Page(html.parser.HTMLParser):
    """Checks that elements are closed, and collects what is of interest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append(tag)
        self.ids |= {found["id"] or ""} if "id" in found else set()
        self.links |= {found["href"] or ""} if "href" in found else set()
        assert not {"src", "onload", "onclick"} & found.keys()
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_as_a_page() -> None:
    """A page that stands alone: well-formed, nothing loaded from elsewhere, every verdict in words, links that lead."""
    text = REPORT.html()
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.links == {"#G2-1", "#G10-1", "#G2-2", "#G11-2"}
    assert {link[1:] for link in page.links} <= page.ids
    assert {"caption", "th", "main", "title"} <= set(page.tags)
    assert "prefers-color-scheme: dark" in text
    assert 'scope="row"' in text
    assert 'scope="col"' in text
    for word in ("passed", "failed", "hung", "not applicable", "not looked at", "a <b>\nc & d", "seed 4"):
        assert word in page.text


def test_reports_beside_each_other() -> None:
    """Several reports make one."""
    one, other = (Report(subjects=(subject,)) for subject in REPORT.subjects)
    assert Report.of([one, other]) == REPORT


def test_the_process_that_runs_checks(capfd: pytest.CaptureFixture[str]) -> None:
    """It tells what it is going to do, then each verdict; or why there is nothing to check."""

    def told(*arguments: str) -> list[dict[str, Any]]:
        reading, writing = os.pipe()
        child.main([str(writing), *arguments])
        with open(reading, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    what, first, second = told("conformance_subjects:good", "3", "G9", "G10")
    assert what == {"checks": [["G9", "only registered tags"], ["G10", "errors are not bytes"]]}
    assert first["verdict"]["outcome"] == second["verdict"]["outcome"] == "passed"
    assert first["verdict"]["seed"] == 3
    assert told("conformance_subjects:number", "") == [
        {
            "usage": "conformance_subjects:number is no function of no arguments that gives an async context manager: "
            "it cannot be called"
        }
    ]
    assert capfd.readouterr() == ("", "")


def test_factories_by_name() -> None:
    """A factory is found by module and name, also what `conformance_tests` gave; anything else says what is wrong."""
    found = child.load_factory("conformance_subjects:good")
    assert found is child.load_factory("conformance_subjects:tests")
    assert found is child.load_factory("conformance_subjects:tests.factory")
    for text, says in {
        "nonsense": "write MODULE:FACTORY",
        "not_there:x": "cannot import not_there",
        "conformance_subjects:nothing": "has no nothing",
        "conformance_subjects:needs_an_argument": "TypeError",
        "conformance_subjects:gives_a_number": "it gives a int",
        "conformance_subjects:gives_a_coroutine": "it gives a coroutine",
    }.items():
        with pytest.raises(child.NoFactoryError, match=says):
            child.load_factory(text)


def test_names() -> None:
    """A factory's name is its own."""
    assert name_of(connected_pair) == "connected_pair"  # type: ignore[arg-type]
    assert name_of(partial(good)) == "partial"


def test_what_conformance_tests_gives() -> None:
    """It keeps the factory, and which guarantees are meant."""
    tests = conformance_tests(good, only=["G1"])
    assert tests.factory is good
    assert tests.only == ("G1",)


def test_the_checks_are_named_as_the_guarantees_are() -> None:
    """There is one check for each guarantee, each with a title and a docstring of its own."""
    checks = select(())
    assert len({check.title for check in checks}) == len({check.function.__doc__ for check in checks}) == 26
    assert all(check.function.__doc__ for check in checks)
    assert all(hasattr(orc_trio.testing, check.function.__name__) for check in checks)


def test_quick_limits() -> None:
    """The limits of the pairs are small, and are the pairs' figures."""

    async def main() -> AccessPair:
        async with good() as pair:
            return pair

    pair = trio.run(main)
    assert (pair.max_message, pair.max_calls) == (QUICK_LIMITS.max_message, QUICK_LIMITS.max_calls)
    assert (pair.drain_timeout, pair.liveness) == (QUICK_LIMITS.drain_timeout, QUICK_LIMITS.liveness_timeout)
