"""Native code as seen by a controller: load an object into an executor, find its symbols, call them, run its main.

Everything is made of ordinary wrapper calls, by the names of `names`, so any controller and any executor that know
them can work together. What can go wrong is told apart: the object or symbol is at fault (`LinkError`), the code
answered with an error (`WrapperFunctionError`), or it took its executor with it (`DisconnectedError`, whose reason has
the exit status or signal).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import trio

from orc_trio.exceptions import WrapperFunctionError
from orc_trio.native import names
from orc_trio.native.doors import ControllerDoor
from orc_trio.native.errors import LinkError, NativeCodeError


async def load_object(
    controller: ControllerDoor,
    objects: bytes | Sequence[bytes],
    *,
    name: str = "program",
    tags: Mapping[str, int] | None = None,
    dylibs: Sequence[str] = (),
) -> NativeProgram:
    """Load object code into an executor, link it, and run its constructors.

    Args:
        controller: of the executor.
        objects: one relocatable object for the executor's machine, or several that make up one program.
        name: names the program in messages and statistics of the executor.
        tags: handler tags that the program finds by name (`find_tag("x")`, or the address of `orc_trio_tag_x`).
        dylibs: shared libraries of the executor's system to load first, for example `libz.so.1`.

    Returns:
        The program; it stays loaded until it is unloaded or the executor's session ends.

    Raises:
        LinkError: the objects do not fit, or something they need is not there.
        NativeCodeError: this executor does not run native code.
        DisconnectedError: the executor is gone; perhaps a constructor crashed.
        MessageTooLargeError: the objects are larger than the agreed message size.

    Checkpoints:
        Always.

    Cancellation:
        The executor may have loaded the program all the same; it goes with the session.
    """
    parts = [objects] if isinstance(objects, (bytes, bytearray, memoryview)) else list(objects)
    request = {
        "name": name,
        "objects": [bytes(part) for part in parts],
        "tags": {key: int(tag) for key, tag in (tags or {}).items()},
        "dylibs": list(dylibs),
    }
    answer = await _call(controller, names.LOAD_OBJECT, request)
    number = answer.take_unsigned("program")
    answer.end()
    return NativeProgram(controller=controller, number=number, name=name)


@attrs.define(eq=False)
class NativeProgram:
    """A program loaded into an executor. Made by `load_object`."""

    _controller: ControllerDoor = attrs.field(alias="controller")
    _number: int = attrs.field(alias="number")
    name: str
    _addresses: dict[str, int] = attrs.field(factory=dict, init=False)

    async def lookup(self, symbol: str) -> int:
        """Return the executor address of a symbol: of this program or, failing that, of its process.

        The address of a wrapper function can be given to `Controller.call_wrapper`.

        Raises:
            LinkError: there is no such symbol, or the program was unloaded.
            DisconnectedError: the executor is gone.

        Checkpoints:
            Always.

        Cancellation:
            Leaves nothing behind.
        """
        if symbol not in self._addresses:
            request = {"program": self._number, "symbol": symbol}
            answer = await _call(self._controller, names.LOOKUP, request)
            address = answer.take_unsigned("address")
            answer.end()
            self._addresses[symbol] = address
        else:
            await trio.lowlevel.checkpoint()
        return self._addresses[symbol]

    async def call(self, symbol: str, args: bytes = b"") -> bytes:
        """Call a wrapper function of this program (see `orc_trio.h`): bytes in, bytes out.

        Raises:
            LinkError: there is no such symbol, or the program was unloaded.
            WrapperFunctionError: the function answered with an error.
            DisconnectedError: the executor is gone; perhaps the function crashed.

        Checkpoints:
            Always.

        Cancellation:
            Gives up the answer. Native code cannot be stopped: the function runs on to its end.
        """
        address = await self.lookup(symbol)
        with _link_errors():
            return bytes(await self._controller.call_wrapper(address, args))

    async def run_main(self, argv: Sequence[str | bytes | os.PathLike[str]] = ()) -> int:
        """Run `int main(int argc, char **argv)` in a thread of the executor; it may be run more than once.

        Args:
            argv: the arguments, from `argv[0]` on; default: the program's name.

        Returns:
            What it returned: a C int. (A process would end with its lowest eight bits as exit status.)

        Raises:
            LinkError: the program has no main, or was unloaded.
            DisconnectedError: the executor is gone; the reason's `exit_status` says whether main called `exit`
                (0 or more) or crashed (the negative signal number).

        Checkpoints:
            Always.

        Cancellation:
            Gives up the result. Native code cannot be stopped: main runs on to its end.
        """
        request = {"program": self._number, "argv": [os.fsencode(arg) for arg in argv or (self.name,)]}
        answer = await _call(self._controller, names.RUN_MAIN, request)
        status = answer.take("status", int)
        answer.end()
        return status

    async def unload(self) -> None:
        """Run the program's destructors and free its memory.

        Waits until no call is running in it or owes an answer; calls made meanwhile are errors.

        Raises:
            LinkError: it was unloaded already.
            DisconnectedError: the executor is gone.

        Checkpoints:
            Always.

        Cancellation:
            Leaves it loaded, unless that had begun.
        """
        answer = await _call(self._controller, names.UNLOAD, {"program": self._number})
        answer.end()
        self._addresses.clear()


async def _call(controller: ControllerDoor, symbol: str, request: Mapping[str, object]) -> names.Fields:
    try:
        address = controller.bootstrap.symbols[symbol]
    except KeyError:
        raise NativeCodeError("this executor does not run native code (is llvmlite installed where it runs?)") from None
    with _link_errors():
        return names.Fields(await controller.call_wrapper(address, names.dumps(request)), symbol)


@contextmanager
def _link_errors() -> Iterator[None]:
    try:
        yield
    except WrapperFunctionError as exc:
        if exc.remote_type == names.LINK_ERROR:
            raise LinkError(exc.message) from exc
        raise
