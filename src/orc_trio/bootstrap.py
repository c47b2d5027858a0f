"""Bootstrap information: what an executor says about itself, and the names by which a controller finds its code.

The same class serves both ends.  The executor makes one `for_session`, fills it, and attaches with it; from then on it
is sealed.  The controller receives one, sealed from the start.

* ``values`` are byte strings under names.
* ``symbols`` are addresses under names: wrapper functions, handler tags, anything else that has an address.
"""

from __future__ import annotations

import mmap
import platform
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from orc_trio.exceptions import LocalProtocolError
from orc_trio.registry import ExecutorAddress, Function, HandlerTag, WrapperTable
from orc_trio.wire.messages import U64_MAX

__all__ = ["BootstrapInfo", "HasWrappers", "host_triple"]


class HasWrappers(Protocol):
    """What `BootstrapInfo.for_session` needs of a session."""

    @property
    def wrappers(self) -> WrapperTable:
        """The table its wrapper functions go to."""


def host_triple() -> str:
    """This machine's target triple, as far as Python knows it; `orc_trio.native` asks LLVM instead."""
    if sys.platform == "darwin":
        return f"{platform.machine()}-apple-darwin"
    return f"{platform.machine() or 'unknown'}-unknown-{sys.platform}-gnu"


class BootstrapInfo:
    """What an executor says about itself.

    Args:
        triple: Its target triple.
        page_size: Its page size, in bytes.
        values: Byte strings under names.
        symbols: Addresses under names.
        wrappers: Where `add_wrapper` puts functions; None: sealed, nothing can be added.
    """

    def __init__(
        self,
        *,
        triple: str,
        page_size: int,
        values: Mapping[str, bytes] | None = None,
        symbols: Mapping[str, int] | None = None,
        wrappers: WrapperTable | None = None,
    ) -> None:
        self.triple = triple
        self.page_size = page_size
        self._values = dict(values or {})
        self._symbols = dict(symbols or {})
        self._wrappers = wrappers

    @classmethod
    def for_session(cls, session: HasWrappers) -> BootstrapInfo:
        """An empty one for a session's executor: this machine's triple and page size, no values, no symbols."""
        return cls(triple=host_triple(), page_size=mmap.PAGESIZE, wrappers=session.wrappers)

    @property
    def values(self) -> Mapping[str, bytes]:
        """Byte strings under names."""
        return MappingProxyType(self._values)

    @property
    def symbols(self) -> Mapping[str, int]:
        """Addresses under names."""
        return MappingProxyType(self._symbols)

    def add_wrapper(
        self, name: str, function: Function, *, threaded: bool = False, zero_copy: bool = False
    ) -> ExecutorAddress:
        """Make a function callable and publish its address.

        Args:
            name: The symbol's name.
            function: Takes the argument bytes, returns the result bytes; a coroutine function or a plain one.
            threaded: It is a plain function that may block: run it in a thread.
            zero_copy: Hand it a read-only `memoryview` instead of ``bytes``.

        Returns:
            Its address.

        Raises:
            LocalProtocolError: The name is taken, or this is sealed.
        """
        wrappers = self._open(name)
        address = wrappers.add(function, name=name, threaded=threaded, zero_copy=zero_copy)
        self._symbols[name] = address
        return address

    def add_tag(self, name: str) -> HandlerTag:
        """Publish a handler tag: an address the controller can associate a handler with.

        Returns:
            The tag, for `Session.call_controller`.

        Raises:
            LocalProtocolError: The name is taken, or this is sealed.
        """
        tag = HandlerTag(self._open(name).new_address())
        self._symbols[name] = tag
        return tag

    def add_symbol(self, name: str, address: int) -> None:
        """Publish any address.

        Args:
            name: The symbol's name.
            address: 0 … 2⁶⁴−1.

        Raises:
            LocalProtocolError: The name is taken, or this is sealed.
            ValueError: The address is out of range.
        """
        self._open(name)
        if type(address) is not int or not 0 <= address <= U64_MAX:
            raise ValueError(f"an address is an integer from 0 to 2**64-1, not {address!r}")
        self._symbols[name] = address

    def set_value(self, name: str, value: bytes) -> None:
        """Publish a byte string.

        Raises:
            LocalProtocolError: This is sealed.
        """
        self._writable()
        self._values[name] = bytes(memoryview(value))  # not bytes(value): that would make zeros of an integer

    def seal(self) -> None:
        """Refuse additions from now on."""
        self._wrappers = None

    def _open(self, name: str) -> WrapperTable:
        wrappers = self._writable()
        if name in self._symbols:
            raise LocalProtocolError(f"there is a bootstrap symbol {name!r} already")
        return wrappers

    def _writable(self) -> WrapperTable:
        if self._wrappers is None:
            raise LocalProtocolError("this bootstrap information was sent (or received) and cannot change")
        return self._wrappers
