"""LLVM's executor as its controller sees it: libraries, memory, and running what is there.

The names and signatures of LLVM's wrapper functions drift from version to version.  Which ones an executor has is seen
from its bootstrap symbols: `RemoteExecutor` needs not be told the version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import attrs

from orc_trio.controller import Controller
from orc_trio.exceptions import WrapperFunctionError
from orc_trio.llvm import names
from orc_trio.llvm.calls import call_sps
from orc_trio.llvm.memory import Segment
from orc_trio.wire import sps

__all__ = ["RemoteExecutor"]

T = TypeVar("T")


@attrs.frozen
class RemoteExecutor:
    """LLVM's executor.

    Args:
        controller: Its controller.
    """

    controller: Controller

    async def open_library(self, path: str = "") -> int:
        """Open a shared library in the executor; without a path: its own process.

        Returns:
            A handle.

        Raises:
            WrapperFunctionError: It cannot be opened.
            OrcError: As for `Controller.call_wrapper`.

        Checkpoints:
            Always.

        Cancellation:
            It may be open all the same.
        """
        found: int = await self._call(
            f"{names.DYLIBS}_open_wrapper", names.OPEN, self._symbol(f"{names.DYLIBS}_Instance"), path, 0
        )
        return found

    async def lookup(self, library: int, symbols: Iterable[str], *, required: bool = True) -> dict[str, int]:
        """Find symbols of a library.

        Args:
            library: Its handle.
            symbols: Their names.
            required: Whether one that is missing is an error.

        Returns:
            Their addresses; one that is missing has none, or 0.

        Raises:
            WrapperFunctionError: One is missing.
            OrcError: As for `Controller.call_wrapper`.

        Checkpoints:
            Always.

        Cancellation:
            Leaves nothing.
        """
        wanted = list(symbols)
        pairs = [(name, required) for name in wanted]
        if f"{names.DYLIBS}_resolve_wrapper" in self.controller.bootstrap.symbols:
            answer = await self._bytes(f"{names.DYLIBS}_resolve_wrapper", names.RESOLVE_ARGUMENTS, library, pairs)
            maybe = _value(names.FOUND["maybe symbols"].unpack(answer))
            found = {name: each.address for name, each in zip(wanted, maybe, strict=True) if each is not None}
            if required and (missing := [name for name in wanted if name not in found]):
                raise WrapperFunctionError("LLVM", f"missing definitions for {', '.join(missing)}")
            return found
        instance = self._symbol(f"{names.DYLIBS}_Instance")
        answer = await self._bytes(f"{names.DYLIBS}_lookup_wrapper", names.LOOKUP_ARGUMENTS, instance, library, pairs)
        if len(answer) == 1 + 8 + 10 * len(wanted):
            return {
                name: each.address
                for name, each in zip(wanted, _value(names.FOUND["symbols"].unpack(answer)), strict=True)
            }
        return dict(zip(wanted, _value(names.FOUND["addresses"].unpack(answer)), strict=True))

    async def reserve(self, size: int) -> int:
        """Reserve memory; what can be done with it before `finalize` is up to the executor.

        Args:
            size: Bytes; a multiple of the page size.

        Returns:
            Its address.

        Raises:
            WrapperFunctionError: There is none.
            OrcError: As for `Controller.call_wrapper`.

        Checkpoints:
            Always.

        Cancellation:
            It may be reserved all the same, to the end of the executor.
        """
        found: int = await self._call(
            f"{names.MEMORY}_reserve_wrapper", names.RESERVE, self._symbol(f"{names.MEMORY}_Instance"), size
        )
        return found

    async def finalize(self, segments: Sequence[Segment]) -> int:
        """Fill reserved memory, and protect it.

        Args:
            segments: Parts of it.

        Returns:
            What to give to `release`.

        Raises:
            WrapperFunctionError: It cannot be done.
            OrcError: As for `Controller.call_wrapper`.

        Checkpoints:
            Always.

        Cancellation:
            It may be done all the same.
        """
        # LLVM's own bit for "for longer than the finalization" is not needed: it is what no bit means.
        parts = [(int(each.protection), each.address, each.size, each.content) for each in segments]
        instance = self._symbol(f"{names.MEMORY}_Instance")
        request: tuple[Any, ...] = (parts, [])
        if f"{names.MEMORY}_initialize_wrapper" in self.controller.bootstrap.symbols:
            found: int = await self._call(f"{names.MEMORY}_initialize_wrapper", names.INITIALIZE, instance, request)
            return found
        await self._call(f"{names.MEMORY}_finalize_wrapper", names.FINALIZE, instance, request)
        return min(each.address for each in segments)

    async def release(self, keys: Sequence[int]) -> None:
        """Give memory back.

        Args:
            keys: What `finalize` returned.

        Raises:
            WrapperFunctionError: It is not reserved.
            OrcError: As for `Controller.call_wrapper`.

        Checkpoints:
            Always.

        Cancellation:
            It may be given back all the same.
        """
        instance = self._symbol(f"{names.MEMORY}_Instance")
        name = f"{names.MEMORY}_deallocate_wrapper"
        if f"{names.MEMORY}_deinitialize_wrapper" in self.controller.bootstrap.symbols:
            await self._call(f"{names.MEMORY}_deinitialize_wrapper", names.RELEASE, instance, keys)
            name = f"{names.MEMORY}_release_wrapper"
        await self._call(name, names.RELEASE, instance, keys)

    async def write(self, address: int, data: bytes) -> None:
        """Write to memory of the executor that can be written to.

        Raises:
            OrcError: As for `Controller.call_wrapper`; `DisconnectedError` also if that memory is none.

        Checkpoints:
            Always.

        Cancellation:
            It may be written all the same.
        """
        await self._call(f"{names.BOOTSTRAP}_mem_write_buffers_wrapper", names.WRITE_BUFFERS, [(address, data)])

    async def run_as_main(self, address: int, argv: Sequence[str]) -> int:
        """Run a function as the ``main`` of a program.

        Returns:
            What it returned.

        Raises:
            OrcError: As for `Controller.call_wrapper`; `DisconnectedError` also if it ended its process.

        Checkpoints:
            Always.

        Cancellation:
            It runs on.
        """
        found: int = await self._call(f"{names.BOOTSTRAP}_run_as_main_wrapper", names.MAIN, address, argv)
        return found

    async def run_as_int_function(self, address: int, argument: int) -> int:
        """Run a function from an int to an int.  LLVM 16 and up.

        Raises:
            WrapperFunctionError: This executor cannot do that.
            OrcError: As for `Controller.call_wrapper`.

        Checkpoints:
            Always.

        Cancellation:
            It runs on.
        """
        found: int = await self._call(
            f"{names.BOOTSTRAP}_run_as_int_function_wrapper", names.INT_FUNCTION, address, argument
        )
        return found

    async def run_as_void_function(self, address: int) -> int:
        """Run a function of no argument that gives an int.  LLVM 16 and up.

        Raises:
            WrapperFunctionError: This executor cannot do that.
            OrcError: As for `Controller.call_wrapper`.

        Checkpoints:
            Always.

        Cancellation:
            It runs on.
        """
        found: int = await self._call(f"{names.BOOTSTRAP}_run_as_void_function_wrapper", names.VOID_FUNCTION, address)
        return found

    async def _call(self, name: str, signature: sps.Signature[Any], *args: Any) -> Any:
        return _value(await call_sps(self.controller, signature, self._symbol(name), *args))

    async def _bytes(self, name: str, arguments: tuple[sps.Codec[Any], ...], *args: Any) -> bytes:
        return bytes(await self.controller.call_wrapper(self._symbol(name), sps.Tuple(*arguments).pack(args)))

    def _symbol(self, name: str) -> int:
        try:
            return self.controller.bootstrap.symbols[name]
        except KeyError:
            raise WrapperFunctionError("LLVM", f"this executor has no {name}") from None


def _value(found: T | sps.Failure) -> T:
    if isinstance(found, sps.Failure):
        raise WrapperFunctionError("LLVM", found.message)
    return found
