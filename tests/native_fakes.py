"""A session, a controller and a portal that are only what native code needs of them: calls go straight across.

So the tests of `orc_trio.native` fail for its own faults alone; `test_native_executor` runs on the real thing too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
import trio

from orc_trio.abc import Service
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import KeepaliveDeniedError, UnknownHandlerTagError
from orc_trio.native import Target, compile_program
from orc_trio.registry import WrapperTable

CASES = Path(__file__).with_name("native_cases.c")
EXAMPLES = Path(__file__).parents[1] / "examples"


@attrs.define(eq=False)
class FakePortal:
    session: FakeSession
    token: trio.lowlevel.TrioToken

    def call_controller(self, tag: int, args: bytes) -> bytes:
        return trio.from_thread.run(self.session.call_controller, tag, args, trio_token=self.token)


@attrs.define(eq=False)
class FakeSession:
    """Handlers are found by tag at once; keepalives are counted by name."""

    handlers: dict[int, Callable[[bytes], bytes]] = attrs.field(factory=dict)
    wrappers: WrapperTable = attrs.field(factory=WrapperTable)
    keepalives: Counter[str] = attrs.field(factory=Counter)
    services: list[Service] = attrs.field(factory=list)
    shutting_down: bool = False
    hold: trio.Event | None = None
    """If given, handlers begin when it is set."""

    async def call_controller(self, tag: int, args: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            await self.hold.wait()
        if tag not in self.handlers:
            raise UnknownHandlerTagError(tag)
        return self.handlers[tag](args)

    def keepalive(self, name: str) -> AbstractContextManager[None]:
        if self.shutting_down:
            raise KeepaliveDeniedError(name)
        self.keepalives[name] += 1
        return self._held(name)

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        yield
        self.keepalives[name] -= 1

    def thread_portal(self) -> FakePortal:
        return FakePortal(self, trio.lowlevel.current_trio_token())

    def add_service(self, service: Service) -> None:
        self.services.append(service)

    @property
    def held(self) -> list[str]:
        """The names of the keepalives held now."""
        return sorted((+self.keepalives).elements())


@attrs.define(eq=False)
class FakeController:
    session: FakeSession
    bootstrap: BootstrapInfo

    async def call_wrapper(self, address: int, args: bytes) -> bytes:
        handler = self.session.wrappers.lookup(address)
        if handler is None:
            raise UnknownHandlerTagError(address)
        return await handler.function(args)


_objects: dict[Path, bytes] = {}


async def compiled(path: Path) -> bytes:
    """Compile a program for this machine, once in a test run."""
    if path not in _objects:
        _objects[path] = await compile_program(path, Target.host())
    return _objects[path]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does."""
    while not condition():
        await trio.sleep(0.001)
