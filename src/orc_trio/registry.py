"""What may be called: handlers by tag, wrapper functions by address.

Rules
-----
* Only what is registered can be called (G9).  A duplicate is an error, never a replacement.
* A `HandlerRegistry` belongs to a controller and may serve many connections.  It is frozen while any of them is open:
  what the executor may call does not change under its feet.
* A handler registered *by symbol name* gets its tag when an executor connects: the address of that name among the
  executor's bootstrap symbols.  A missing name is an error of that connection unless the handler is optional.  The
  binding belongs to the connection, not to the registry: two executors may have different addresses.
* A `WrapperTable` belongs to an executor's session and may grow and shrink while it is connected: code comes and goes.

Functions take one argument, ``bytes`` (a `memoryview` if registered with ``zero_copy``), and return bytes.  They are
coroutine functions, or plain functions; a plain function that may block is declared ``threaded``.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NewType, TypeAlias, TypeVar

import attrs

from orc_trio.exceptions import LocalProtocolError
from orc_trio.interrupts import interruptible
from orc_trio.wire.messages import U64_MAX

__all__ = ["Buffer", "ExecutorAddress", "Function", "Handler", "HandlerRegistry", "HandlerTag", "WrapperTable"]

Buffer: TypeAlias = bytes | bytearray | memoryview
Function: TypeAlias = Callable[[Any], "Buffer | Awaitable[Buffer]"]
_F = TypeVar("_F", bound=Function)

HandlerTag = NewType("HandlerTag", int)
"""An address in the executor that the controller has associated with a handler: 0 … 2⁶⁴−1."""
ExecutorAddress = NewType("ExecutorAddress", int)
"""The address of a wrapper function in the executor: 0 … 2⁶⁴−1."""

FIRST_PYTHON_ADDRESS: Final = 1 << 63
"""Addresses of Python functions and tags begin here: no native code can be there on any machine in use."""
_ADDRESS_STEP: Final = 16


@attrs.frozen
class Handler:
    """One function that may be called.

    Attributes:
        function: What to call.
        name: For logs and statistics.
        threaded: It is a plain function that may block: run it in a thread.
        zero_copy: It takes a read-only `memoryview`, which must not be kept beyond the call; but it may be returned.

    Raises:
        TypeError: The function cannot be called, or is a coroutine function and threaded; or the name is no text.
    """

    function: Function
    name: str
    threaded: bool = False
    zero_copy: bool = False

    def __attrs_post_init__(self) -> None:
        _check_function(self.function, self.threaded)
        _check_name(self.name)


@attrs.frozen
class _Named:
    handler: Handler
    optional: bool


class HandlerRegistry:
    """The entry points of a controller."""

    def __init__(self) -> None:
        self._by_symbol: dict[str, _Named] = {}
        self._by_tag: dict[int, Handler] = {}
        self._frozen = 0

    def __len__(self) -> int:
        return len(self._by_symbol) + len(self._by_tag)

    def handler(
        self, symbol: str, *, optional: bool = False, threaded: bool = False, zero_copy: bool = False
    ) -> Callable[[_F], _F]:
        """A decorator that registers a function by symbol name.

        Args:
            symbol: One of the executor's bootstrap symbols; its address is the tag.
            optional: An executor without that symbol may connect; it cannot call this handler then.
            threaded: The function is a plain function that may block: run it in a thread.
            zero_copy: Hand it a read-only `memoryview` instead of ``bytes``.

        Returns:
            A decorator that gives the function back unchanged.

        Raises:
            LocalProtocolError: The name is registered already, or the registry is frozen.
        """

        def register(function: _F) -> _F:
            self._check_changeable()
            if symbol in self._by_symbol:
                raise LocalProtocolError(f"a handler is registered for symbol {symbol!r} already")
            self._by_symbol[symbol] = _Named(Handler(function, symbol, threaded, zero_copy), optional)
            return function

        return register

    def register(
        self, tag: int, function: Function, *, name: str = "", threaded: bool = False, zero_copy: bool = False
    ) -> None:
        """Register a function by tag.

        Args:
            tag: The handler tag, 0 … 2⁶⁴−1.
            function: What to call.
            name: For logs and statistics; default: the function's own.
            threaded: The function is a plain function that may block: run it in a thread.
            zero_copy: Hand it a read-only `memoryview` instead of ``bytes``.

        Raises:
            LocalProtocolError: The tag is registered already, or the registry is frozen.
            ValueError: The tag is out of range.
        """
        self._check_changeable()
        _check_address(tag)
        if tag in self._by_tag:
            raise LocalProtocolError(f"a handler is registered for tag {tag:#x} already: {self._by_tag[tag].name}")
        self._by_tag[tag] = Handler(function, name or _name_of(function), threaded, zero_copy)

    def bind(self, symbols: Mapping[str, int]) -> Mapping[int, Handler]:
        """The handlers of one connection, by tag.

        Args:
            symbols: The executor's bootstrap symbols.

        Raises:
            LocalProtocolError: A symbol is missing, or two handlers would have the same tag.
        """
        bound = dict(self._by_tag)
        missing = [name for name, named in self._by_symbol.items() if name not in symbols and not named.optional]
        if missing:
            raise LocalProtocolError(f"the executor lacks the symbols of these handlers: {', '.join(sorted(missing))}")
        for name, named in self._by_symbol.items():
            tag = symbols.get(name)
            if tag is None:
                continue
            if tag in bound:  # G9: the executor is told of this, so it says nothing that only the controller knows
                raise LocalProtocolError(f"the symbol {name!r} has the tag {tag:#x}, as another handler has")
            bound[tag] = named.handler
        return bound

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep the registry from changing while this is entered.  May be entered more than once."""
        self._frozen += 1
        try:
            yield
        finally:
            self._frozen -= 1

    def _check_changeable(self) -> None:
        if self._frozen:
            raise LocalProtocolError("the registry is in use by an open connection and cannot change")


class WrapperTable:
    """The wrapper functions of an executor, by address.

    Attributes:
        fallback: Asked about an address that is not in the table: native code answers here.
    """

    def __init__(self) -> None:
        self._by_address: dict[int, Handler] = {}
        self._addresses = itertools.count(FIRST_PYTHON_ADDRESS, _ADDRESS_STEP)
        self.fallback: Callable[[int], Handler | None] | None = None

    def __len__(self) -> int:
        return len(self._by_address)

    def new_address(self) -> int:
        """An address that was never given out before and is no native one."""
        return next(self._addresses)

    def add(
        self,
        function: Function,
        *,
        name: str = "",
        address: int | None = None,
        threaded: bool = False,
        zero_copy: bool = False,
    ) -> ExecutorAddress:
        """Make a function callable.

        Args:
            function: What to call.
            name: For logs and statistics; default: the function's own.
            address: Where; default: a new address.
            threaded: The function is a plain function that may block: run it in a thread.
            zero_copy: Hand it a read-only `memoryview` instead of ``bytes``.

        Returns:
            Its address.

        Raises:
            LocalProtocolError: The address is taken.
            ValueError: The address is out of range.
        """
        where = self.new_address() if address is None else address
        _check_address(where)
        if where in self._by_address:
            raise LocalProtocolError(f"a wrapper function is at {where:#x} already: {self._by_address[where].name}")
        self._by_address[where] = Handler(function, name or _name_of(function), threaded, zero_copy)
        return ExecutorAddress(where)

    def remove(self, address: int) -> None:
        """Make a function uncallable again.  Calls that are running go on.

        Raises:
            KeyError: Nothing is there.
        """
        del self._by_address[address]

    def lookup(self, address: int) -> Handler | None:
        """The function at ``address``, or None."""
        handler = self._by_address.get(address)
        if handler is None and self.fallback is not None:
            handler = interruptible(self.fallback, address)
        return handler


def _check_function(function: object, threaded: bool) -> None:
    if not callable(function):
        raise TypeError(f"a handler must be callable, not {type(function).__name__}")
    if threaded and inspect.iscoroutinefunction(function):
        raise TypeError("a threaded handler must be a plain function: a coroutine function runs in its task")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a handler's name is a text, not {type(name).__name__}: first the function, then its name")


def _check_address(address: object) -> None:
    if type(address) is not int or not 0 <= address <= U64_MAX:
        raise ValueError(f"an address or tag is an integer from 0 to 2**64-1, not {address!r}")


def _name_of(function: Function) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__  # no repr: it may show anything
