"""What the two programs of a peer have in common.  Only the standard library: each runs where its peer is installed.

    python peer_NAME.py far ADDRESS              serves at a path (or elsewhere), and says where
    python peer_NAME.py near ADDRESS CALLS SIZE  calls: for each line on its input, as many seconds as that says

The near one writes a line when it is ready, and one for each slice: how many calls there were, and how long it took.
Both end when their input is closed, whatever they are doing: nothing is left behind when what started them is killed.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager

Echo = Callable[[bytes], Awaitable[object]]
Connect = Callable[[str, int], AbstractAsyncContextManager[Sequence[Echo]]]
"""Connects to an address, and gives as many ways to call as there shall be calls in flight."""
Near = Callable[[str, int, int], None]


def main(near: Near, far: Callable[[str], None]) -> None:
    """Be the one or the other."""
    threading.Thread(target=_leave_with_input, daemon=True).start()
    if sys.argv[1] == "far":
        far(sys.argv[2])
    else:
        near(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))


def _leave_with_input() -> None:
    poll = select.poll()
    poll.register(0, 0)  # tells only that the other end was closed
    poll.poll()
    os._exit(0)


def listening(address: object) -> None:
    """Say where the far program serves."""
    print(address, flush=True)


class Slice:
    """A slice of time: told to begin, it lasts for some seconds, and counts."""

    def __init__(self, seconds: float) -> None:
        self.calls = 0
        self._began = time.perf_counter()
        self._end = self._began + seconds

    def counts(self) -> bool:
        """Count a call; says whether there is time for another."""
        self.calls += 1
        return time.perf_counter() < self._end

    def tell(self) -> None:
        """It is over."""
        print(self.calls, time.perf_counter() - self._began, flush=True)


def slices() -> Iterator[Slice]:
    """Those that are asked for."""
    print("ready", flush=True)
    for line in sys.stdin:
        yield Slice(float(line))


def check(payload: bytes, answer: object) -> None:
    """The bytes have to come back."""
    if bytes(answer) != payload:  # type: ignore[call-overload]
        sys.exit("the answer is something else")


def near_asyncio(connect: Connect) -> Near:
    """The near program of a library for asyncio."""

    async def work(address: str, calls: int, size: int) -> None:
        payload = os.urandom(size)
        async with connect(address, calls) as echoes:
            check(payload, await echoes[0](payload))
            for slice_ in slices():

                async def go_on(echo: Echo, slice_: Slice = slice_) -> None:
                    await echo(payload)
                    while slice_.counts():
                        await echo(payload)

                await asyncio.gather(*map(go_on, echoes))
                slice_.tell()

    return lambda *arguments: asyncio.run(work(*arguments))


def near_trio(connect: Connect, *, answers: bool = True) -> Near:
    """The near program of a library for Trio; what does not give answers does not let them be checked."""
    import trio

    async def work(address: str, calls: int, size: int) -> None:
        payload = os.urandom(size)
        async with connect(address, calls) as echoes:
            answer = await echoes[0](payload)
            if answers:
                check(payload, answer)
            for slice_ in slices():

                async def go_on(echo: Echo, slice_: Slice = slice_) -> None:
                    await echo(payload)
                    while slice_.counts():
                        await echo(payload)

                async with trio.open_nursery() as nursery:
                    for echo in echoes:
                        nursery.start_soon(go_on, echo)
                slice_.tell()

    return lambda *arguments: trio.run(work, *arguments)


def near_threads(connect: Callable[[str], Callable[[bytes], object]]) -> Near:
    """The near program of a library that blocks: a thread and a connection for each call in flight."""

    def near(address: str, calls: int, size: int) -> None:
        payload = os.urandom(size)
        local = threading.local()
        begun = threading.Barrier(calls)

        def begin() -> None:
            begun.wait()  # so no thread does this twice
            local.echo = connect(address)
            check(payload, local.echo(payload))

        def go_on(slice_: Slice) -> None:
            local.echo(payload)
            while slice_.counts():
                local.echo(payload)

        with ThreadPoolExecutor(calls) as pool:
            for done in [pool.submit(begin) for _ in range(calls)]:
                done.result()
            for slice_ in slices():
                for done in [pool.submit(go_on, slice_) for _ in range(calls)]:
                    done.result()
                slice_.tell()

    return near
