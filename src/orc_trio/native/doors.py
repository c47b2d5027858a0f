"""What native code needs of a session and a controller, and no more: so that it runs on any that offers this."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from orc_trio.abc import Service
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.registry import WrapperTable


class PortalDoor(Protocol):
    """What is needed of a session's thread portal."""

    def call_controller(self, tag: int, args: bytes, /) -> bytes | memoryview:
        """Call a handler of the controller from a thread, and wait for the answer."""
        ...


class SessionDoor(Protocol):
    """What is needed of a session."""

    async def call_controller(self, tag: int, args: bytes, /) -> bytes | memoryview:
        """Call a handler of the controller."""
        ...

    def keepalive(self, name: str, /) -> AbstractContextManager[object]:
        """Hold up the session's shutdown until the context is left, from whatever thread."""
        ...

    def thread_portal(self) -> PortalDoor:
        """Return the door for threads."""
        ...


class HostSession(SessionDoor, Protocol):
    """What is needed of the session that native code is installed in."""

    @property
    def wrappers(self) -> WrapperTable:
        """Its wrapper functions."""
        ...

    def add_service(self, service: Service, /) -> object:
        """Tell a service when the session ends."""
        ...


class ControllerDoor(Protocol):
    """What is needed of a controller."""

    @property
    def bootstrap(self) -> BootstrapInfo:
        """What the executor said about itself."""
        ...

    async def call_wrapper(self, address: int, args: bytes, /) -> bytes | memoryview:
        """Call a wrapper function of the executor."""
        ...
