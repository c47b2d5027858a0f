"""Native code at run time: calls into it, its answers, and its calls to the controller.

Theory. A call into native code is two independent things. The *span* is machine code running on a worker thread's
stack: it holds a keepalive of the session and (unless it is nested) a token of the runtime's own limiter, from
before it starts until it returns, whatever happens to the call. The *pending call* is the promise of an answer: it
is settled by the first `ret(session, buffer, call_id)`, from whatever thread, before or after the span's end.
Neither waits for the other.

Rules:
- G1, exactly once: a call id is taken out of the table by whoever settles it; a second or late answer finds nothing,
  is freed, and dropped.
- G13: native code cannot be cancelled. A cancelled call gives up its promise and lets the span run; the span
  stays in `statistics()` and keeps its keepalive. A span whose call was given up before it began never begins.
- G7: nested calls take no token and never wait for one. What native code calls is nested when the call it is
  serving says so by its context, which every span's thread inherits.
- A span that waits for the controller gives its token back, for good: what it waits for may need one.
- Nothing raises into native code: every callback catches `BaseException` and answers with an out-of-band error.
- What native code holds a pointer to (the session struct, the callbacks) is never freed: it is small, and a thread
  that native code made itself may outlive everything here. A call through the pointer of a finished run is answered
  with an error.

Source: LLVM's ORC runtime for the shape of the calls and for what a keepalive covers (one stack, not a chain).
"""

from __future__ import annotations

import contextvars
import ctypes
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, TypeVar

import attrs
import outcome
import trio

from orc_trio.exceptions import NoControllerError, OrcError, WrapperFunctionError
from orc_trio.interrupts import uninterrupted
from orc_trio.native import abi, calls
from orc_trio.native.doors import PortalDoor, SessionDoor
from orc_trio.native.spans import GivenUpError, Span, span_here
from orc_trio.nesting import started

T = TypeVar("T")

DEFAULT_THREADS: Final = 64
"""How many native calls that are not nested run at once."""
MAX_SPANS: Final = 1024
"""A nested call takes no token and cannot wait: with so many running, given-up ones included, one more fails."""


@attrs.frozen
class NativeStatistics:
    """A snapshot of what native code is doing."""

    running: tuple[str, ...]
    """The spans: native code now on some worker thread's stack, by name."""
    unanswered: tuple[str, ...]
    """The calls whose answer is awaited, by name."""
    threads: int
    """How many calls that are not nested may run at once."""


_runtimes: Final[dict[int, NativeRuntime]] = {}


@attrs.define(eq=False)
class NativeRuntime:
    """Runs native code for one session. Made in the session's Trio run, by `NativeRuntime.start`."""

    _session: SessionDoor = attrs.field(alias="session")
    _portal: PortalDoor = attrs.field(alias="portal")
    _token: trio.lowlevel.TrioToken = attrs.field(alias="token")
    limiter: trio.CapacityLimiter
    tags: dict[str, int] = attrs.field(factory=dict)
    """Handler tags by name, for `find_tag`."""
    _find_tag: Callable[[str], int | None] = attrs.field(default=lambda _name: None, alias="find_tag")
    _spans: dict[Span, None] = attrs.field(factory=dict, init=False)
    _calls: dict[int, calls.PendingCall] = attrs.field(factory=dict, init=False)
    session_pointer: int = attrs.field(default=0, init=False)

    @classmethod
    def start(
        cls,
        session: SessionDoor,
        *,
        threads: int = DEFAULT_THREADS,
        find_tag: Callable[[str], int | None] = lambda _name: None,
    ) -> NativeRuntime:
        """Make the runtime of a session; call it in the session's Trio run.

        Args:
            session: whose keepalives to hold and whose controller to call.
            threads: how many native calls run at once, at least 1; nested ones come on top.
            find_tag: gives the tag of a name that is not in `tags`.
        """
        abi.check_platform()
        runtime = cls(
            session=session,
            portal=session.thread_portal(),
            token=trio.lowlevel.current_trio_token(),
            limiter=trio.CapacityLimiter(threads),
            find_tag=find_tag,
        )
        struct = abi.SessionStruct(
            abi.ABI_VERSION,
            ctypes.sizeof(abi.SessionStruct),
            abi.address_of(_CALL_CONTROLLER),
            abi.address_of(_CALL_CONTROLLER_SYNC),
            abi.address_of(_FIND_TAG),
        )
        abi.keep_for_ever(struct)
        runtime.session_pointer = ctypes.addressof(struct)
        _runtimes[runtime.session_pointer] = runtime
        return runtime

    def close(self) -> None:
        """Forget the session: native code that still calls is answered with an error from now on."""
        _runtimes.pop(self.session_pointer, None)

    def statistics(self) -> NativeStatistics:
        """Return a snapshot of what native code is doing."""
        return NativeStatistics(
            running=tuple(span.name for span in list(self._spans)),
            unanswered=tuple(call.name for call in list(self._calls.values())),
            threads=int(self.limiter.total_tokens),
        )

    @uninterrupted
    async def call(
        self,
        address: int,
        args: bytes,
        *,
        name: str = "",
        nested: bool = False,
        usage: calls.Usage | None = None,
    ) -> bytes:
        """Call a native wrapper function and wait for its answer.

        Args:
            address: of machine code with the ABI of a wrapper function. Nothing can check that it is.
            args: the bytes for it; they are copied.
            name: for statistics and messages.
            nested: take no limiter token (G7).
            usage: in use while the code runs, and while it owes the answer, also if that is given up.

        Returns:
            The bytes of its answer.

        Raises:
            WrapperFunctionError: it answered with an out-of-band error.
            KeepaliveDeniedError: the session is shutting down.

        Checkpoints:
            Always.

        Cancellation:
            Gives up the answer; the native code runs on to its end, and keeps its keepalive so long.
        """
        name = f"{name or 'native code'} at {address:#x}"
        usage = usage or calls.Usage()
        call_id, call = calls.register(name, self._token, usage)
        self._calls[call_id] = call

        def work() -> None:
            function = abi.WRAPPER_FUNCTION(address)
            function(self.session_pointer, abi.make(args), calls.RETURN_ADDRESS, call_id)

        def ended(result: outcome.Outcome[None]) -> None:
            if isinstance(result, outcome.Error):
                calls.settle(call_id, outcome.Error(result.error))

        span: Span | None = None
        try:
            span = await self._begin_span(name, work, ended, nested=nested, usage=usage)
            await call.settled.wait()
        finally:
            del self._calls[call_id]
            if span is None or span.give_up():
                calls.withdraw(call_id)
            else:
                calls.give_up(call_id)
        assert call.result is not None
        return call.result.unwrap()

    @uninterrupted
    async def run(
        self, name: str, work: Callable[[], T], *, nested: bool = False, usage: calls.Usage | None = None
    ) -> T:
        """Run a function that runs native code in a thread, as a span of its own.

        Args are those of `call`, but for `work`: the function, called in a worker thread.

        Raises:
            KeepaliveDeniedError: the session is shutting down.

        Checkpoints:
            Always.

        Cancellation:
            Gives up the result; the function runs on to its end, and keeps its keepalive so long.
        """
        done = trio.Event()
        results: list[outcome.Outcome[T]] = []

        def ended(result: outcome.Outcome[T]) -> None:
            results.append(result)
            done.set()

        def ended_in_thread(result: outcome.Outcome[T]) -> None:
            with suppress(trio.RunFinishedError):  # G19
                self._token.run_sync_soon(ended, result)

        span = await self._begin_span(name, work, ended_in_thread, nested=nested, usage=usage or calls.Usage())
        try:
            await done.wait()
        finally:
            span.give_up()
        return results[0].unwrap()

    async def _begin_span(
        self,
        name: str,
        work: Callable[[], T],
        ended: Callable[[outcome.Outcome[T]], None],
        *,
        nested: bool,
        usage: calls.Usage,
    ) -> Span:
        """Start a worker thread on `work`; it calls `ended` when all that the span held is released.

        Once this has returned, the span ends by itself; `ended` is not called if it was given up before it began.
        """
        if nested and len(self._spans) >= MAX_SPANS:
            raise WrapperFunctionError("TooManyThreads", f"{len(self._spans)} native calls are running")
        keepalive = self._session.keepalive(name)
        keepalive.__enter__()
        span = Span(name=name, keepalive=keepalive, usage=usage)
        try:
            if nested:
                await trio.lowlevel.checkpoint()
            else:
                started(False)  # G13: it begins when it has a thread
                await self.limiter.acquire_on_behalf_of(span)
                span.release_token = functools.partial(
                    self._token.run_sync_soon, self.limiter.release_on_behalf_of, span
                )
        except BaseException:
            span.end()
            raise
        usage.acquire()
        context = contextvars.copy_context()

        def in_thread() -> T:
            if not span.begin():
                raise GivenUpError
            self._spans[span] = None
            context.run(started)
            context.run(span_here.set, span)
            return context.run(work)

        def delivered(result: outcome.Outcome[T]) -> None:
            span.free_token()
            usage.release()
            span.end()
            begun = span in self._spans
            self._spans.pop(span, None)
            if begun:
                ended(result)

        try:
            trio.lowlevel.start_thread_soon(in_thread, delivered, name[:200])
        except BaseException:  # the system has no more threads for us
            span.free_token()
            usage.release()
            span.end()
            raise
        return span

    # --- called by native code, through the callbacks below ---

    def _call_controller_soon(self, tag: int, args: bytes, answer: Callable[[abi.Buffer], None]) -> None:
        """Start a call to the controller from any thread; `answer` is called once, in a thread."""
        context = contextvars.copy_context()
        span = span_here.get()
        usage = calls.Usage() if span is None else span.usage
        usage.acquire()  # the answer will run in the program that asked
        try:
            self._token.run_sync_soon(self._start_controller_call, tag, args, answer, context, usage)
        except trio.RunFinishedError:
            usage.release()
            raise

    def _start_controller_call(
        self,
        tag: int,
        args: bytes,
        answer: Callable[[abi.Buffer], None],
        context: contextvars.Context,
        usage: calls.Usage,
    ) -> None:
        work = functools.partial(self._controller_call, tag, args, answer, usage)
        trio.lowlevel.spawn_system_task(work, name="orc_trio.native.call_controller", context=context)

    async def _controller_call(  # noqa: ASYNC910
        self, tag: int, args: bytes, answer: Callable[[abi.Buffer], None], usage: calls.Usage
    ) -> None:
        # A system task: it belongs to no connection, since the native code that asked must be told whatever ends.
        # It does end, because the end of the connection settles every call to the controller.
        name = f"native code that called tag {tag:#x}"
        try:
            keepalive: AbstractContextManager[object] = self._session.keepalive(name)
        except OrcError:
            keepalive = nullcontext()  # shutting down; the code that asked is running, so it can be answered
        span = Span(name=name, keepalive=keepalive, usage=usage)
        keepalive.__enter__()
        self._spans[span] = None
        buffer = abi.Buffer(0, 0)

        def delivered(_result: outcome.Outcome[None]) -> None:
            usage.release()
            span.end()
            self._spans.pop(span, None)

        try:
            buffer = abi.make(await self._session.call_controller(tag, args))
        except Exception as exc:  # whatever it is, the native code is told
            buffer = abi.make_error(calls.describe(exc))
        except BaseException:  # Cancelled: the run is over
            buffer = abi.make_error("the executor is ending")
            raise
        finally:
            in_context = functools.partial(contextvars.copy_context().run, answer, buffer)
            try:
                trio.lowlevel.start_thread_soon(in_context, delivered, name)
            except RuntimeError as exc:  # no more threads: the native code is not told, and nothing here waits for it
                calls.log_escape("the answer to native code", exc)
                abi.discard(buffer)
                delivered(outcome.Value(None))


def _runtime(session: int | None) -> NativeRuntime:
    runtime = _runtimes.get(session or 0)
    if runtime is None:
        raise NoControllerError("this session is over")
    return runtime


def _on_call_controller(session: int | None, tag: int, args: abi.Buffer, ret: int | None, reply_id: int) -> None:
    def answer(buffer: abi.Buffer) -> None:
        if ret is None:
            abi.discard(buffer)
        else:
            abi.RETURN(ret)(session, buffer, reply_id)

    try:
        try:
            payload = abi.take(args)
            _runtime(session)._call_controller_soon(tag, payload, answer)
        except BaseException as exc:  # noqa: ASYNC103 - nothing may raise into native code
            answer(abi.make_error(calls.describe(exc)))
    except BaseException as exc:  # noqa: ASYNC103
        calls.log_escape("a call to the controller", exc)


def _on_call_controller_sync(session: int | None, tag: int, args: abi.Buffer, result: Any) -> None:
    try:
        try:
            span = span_here.get()
            if span is not None:
                span.free_token()
            payload = abi.take(args)
            buffer = abi.make(_runtime(session)._portal.call_controller(tag, payload))
        except BaseException as exc:  # noqa: ASYNC103
            buffer = abi.make_error(calls.describe(exc))
        if result:
            result[0] = buffer
        else:
            abi.discard(buffer)
    except BaseException as exc:  # noqa: ASYNC103
        calls.log_escape("a call to the controller", exc)


def _on_find_tag(session: int | None, name: bytes | None) -> int:
    try:
        runtime = _runtime(session)
        text = (name or b"").decode("utf-8", "replace")
        tag = runtime.tags.get(text)
        return (runtime._find_tag(text) if tag is None else tag) or 0
    except BaseException:  # noqa: ASYNC103
        return 0  # noqa: ASYNC104


# Made once: native code may hold these addresses as long as the process lives.
_CALL_CONTROLLER: Final = abi.CALL_CONTROLLER(_on_call_controller)
_CALL_CONTROLLER_SYNC: Final = abi.CALL_CONTROLLER_SYNC(_on_call_controller_sync)
_FIND_TAG: Final = abi.FIND_TAG(_on_find_tag)
