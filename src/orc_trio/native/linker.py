"""The executor's linker: objects become code in this process, and go away again.

Linking is LLVM's (LLJIT with JITLink, which reports what does not fit instead of aborting). Around it, this module
adds what a program expects of a loader:

- *Symbols* come from the program's own objects, then from the names handed in (`imports`), then from this
  process: libc, libm, and every dylib loaded with `open_dylib`. What is missing is named, all of it, before
  the linker is asked.
- *Constructors* run on load in order of priority, destructors on unload in reverse.
- *atexit* handlers belong to the program: those registered while it runs a `main` run when that main returns, those
  registered by constructors on unload. Left to libc, they would run after the code is gone.
- *exit(status)* ends this process with that status, after the program's handlers, with stdio flushed. It does not
  run the destructors of this process's own libraries: other threads are still using them.

Nothing here is async, and loading or unloading may take long and runs the program's own code: call it in a thread.
Refuses: objects for another machine, thread-local variables (the linker says so), anything but ELF on Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from orc_trio.native import abi, elf, llvm
from orc_trio.native.errors import LinkError

_ATEXIT: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_CXA_ATEXIT: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_EXIT: Final = ctypes.CFUNCTYPE(None, ctypes.c_int)
_PLAIN: Final = ctypes.CFUNCTYPE(None)
_WITH_POINTER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

PROGRAM_SYMBOLS: Final = frozenset({"atexit", "__cxa_atexit", "__dso_handle", "exit"})
"""What every program gets an own version of."""

_loaded: Final[set[object]] = set()
"""The programs that have not been unloaded: their code may call their callbacks, whoever else has forgotten them."""

_LOADERS_OWN: Final = frozenset({"_GLOBAL_OFFSET_TABLE_"})

_USUAL_DYLIBS: Final = ("libm.so.6", "libgcc_s.so.1", "libstdc++.so.6")
"""What compilers link to without being told; tried, one after the other, while symbols are missing."""


def open_dylib(name: str) -> None:
    """Load a shared library so that programs loaded from now on find its symbols.

    Raises:
        LinkError: there is no such library, or it cannot be loaded.
    """
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as exc:
        raise LinkError(f"cannot load the library {name!r}: {exc}") from exc


def process_symbol(name: str) -> int | None:
    """Return the address of a symbol of this process and its libraries, or None."""
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (AttributeError, ValueError):
        return None
    return abi.address_of(found)


@attrs.define(eq=False)
class LoadedProgram:
    """Code that was linked into this process. Made by `Linker.load`."""

    name: str
    _tracker: Any = attrs.field(default=None, repr=False)
    _callbacks: list[object] = attrs.field(factory=list, repr=False)
    _exit_functions: list[tuple[int, int | None]] = attrs.field(factory=list, repr=False)
    _destructors: list[int] = attrs.field(factory=list, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)
    _addresses: dict[str, int] = attrs.field(factory=dict, repr=False)

    def lookup(self, symbol: str) -> int:
        """Return the address of a symbol of this program or, failing that, of the process.

        Raises:
            LinkError: there is no such symbol.
        """
        if self._tracker is None:
            raise LinkError(f"the program {self.name!r} has been unloaded")
        address = self._addresses.get(symbol)
        if address is None:
            address = process_symbol(symbol)
        if address is None:
            raise LinkError(f"the program {self.name!r} has no symbol {symbol!r}")
        return address

    def run_main(self, argv: Sequence[bytes], *, symbol: str = "main") -> int:
        """Run `int main(int argc, char **argv, char **envp)` on this thread; return its result.

        The program's `atexit` handlers that it registered meanwhile run before this returns, and stdio is flushed.
        """
        main = abi.MAIN(self.lookup(symbol))
        arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
        environment = [os.fsencode(f"{key}={value}") for key, value in os.environ.items()]
        variables = (ctypes.c_char_p * (len(environment) + 1))(*environment, None)
        mark = len(self._exit_functions)
        status: int = main(len(argv), arguments, variables)
        self._run_exit_functions(down_to=mark)
        abi.flush_stdio()
        return status

    def unload(self) -> None:
        """Run what the program left to be run at its end, and free its memory. No call may be running in it."""
        with self._lock:
            tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        self._run_exit_functions(down_to=0)
        self._run_destructors()
        abi.flush_stdio()
        tracker.close()
        _loaded.discard(self)

    def _run_exit_functions(self, *, down_to: int) -> None:
        while len(self._exit_functions) > down_to:
            address, argument = self._exit_functions.pop()
            if argument is None:
                _PLAIN(address)()
            else:
                _WITH_POINTER(address)(argument)

    def _run_destructors(self) -> None:
        while self._destructors:
            _PLAIN(self._destructors.pop())()

    def _exit(self, status: int) -> None:
        """Be the program's `exit`: does not return."""
        with contextlib.suppress(BaseException):  # nothing may stop an exit
            self._run_exit_functions(down_to=0)
            self._run_destructors()
        abi.flush_stdio()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(status & 0xFF)

    def _own_symbols(self) -> dict[str, int]:
        """Make the loader functions that are the program's own."""

        def atexit(function: int | None) -> int:
            self._exit_functions.append((function or 0, None))
            return 0

        def cxa_atexit(function: int | None, argument: int | None, _dso: int | None) -> int:
            self._exit_functions.append((function or 0, argument or 0))
            return 0

        made: dict[str, object] = {
            "atexit": _ATEXIT(atexit),
            "__cxa_atexit": _CXA_ATEXIT(cxa_atexit),
            "exit": _EXIT(self._exit),
        }
        dso_handle = ctypes.create_string_buffer(8)
        self._callbacks += [*made.values(), dso_handle]
        return {name: abi.address_of(made[name]) for name in made} | {"__dso_handle": ctypes.addressof(dso_handle)}


@attrs.define(eq=False)
class Linker:
    """Links objects into this process; one per executor is enough."""

    _jit: Any = attrs.field(default=None, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, repr=False)

    def load(
        self, objects: Sequence[bytes], *, name: str = "program", imports: Mapping[str, int] | None = None
    ) -> LoadedProgram:
        """Link objects into one program and run its constructors.

        Args:
            objects: relocatable ELF objects for this machine, at least one.
            name: for messages.
            imports: symbols to resolve to these addresses, before this process's own are looked at.

        Raises:
            LinkError: the objects do not fit this machine or each other, or a symbol is not found.
            JitUnavailableError: llvmlite is not installed.
        """
        abi.check_platform()
        number = next(self._numbers)
        known = dict(imports or {})
        if not objects:
            raise LinkError("there is no object to load")
        read = [elf.read_object(data, unique=f"{number}_{index}") for index, data in enumerate(objects)]
        _check(read, known)
        jit = self._compiler()
        program = LoadedProgram(name=name)
        builder = llvm.binding().JITLibraryBuilder().add_current_process()
        defined = frozenset[str]().union(*(obj.defined for obj in read))
        # The program's own atexit and exit get names of their own: LLVM's library has an atexit already.
        own = {f"__orc_trio_{number}_{key}": value for key, value in program._own_symbols().items()}
        rename = {f"{key}": f"__orc_trio_{number}_{key}" for key in PROGRAM_SYMBOLS if key not in defined}
        needed = frozenset[str]().union(*(obj.undefined for obj in read)) | own.keys()
        for symbol, address in (known | own).items():
            if symbol in needed and symbol not in defined:
                builder.import_symbol(symbol, address)
        for obj in read:
            builder.add_object_img(obj.rewritten(rename))
        # Exporting every definition makes the whole program link now: errors belong to the load, not to a later call.
        for symbol in defined:
            builder.export_symbol(symbol)
        arrays = [array for obj in read for array in obj.arrays]
        for array in arrays:
            builder.export_symbol(array.symbol)
        try:
            program._tracker = tracker = builder.link(jit, f"orc_trio.{number}")
        except RuntimeError as exc:
            raise LinkError(_explain(name, str(exc))) from exc
        _loaded.add(program)
        program._addresses.update({symbol: tracker[symbol] for symbol in defined})
        program._destructors += _pointers((array for array in arrays if not array.init), tracker)
        for constructor in _pointers((array for array in arrays if array.init), tracker):
            _PLAIN(constructor)()
        return program

    def _compiler(self) -> Any:
        with self._lock:
            if self._jit is None:
                binding = llvm.binding()
                machine = binding.Target.from_default_triple().create_target_machine(jit=True)
                self._jit = binding.create_lljit_compiler(machine, use_jit_link=True)
            return self._jit


def _pointers(arrays: Iterable[elf.PointerArray], tracker: Any) -> list[int]:
    """Return the function addresses in these sections, in the order in which constructors run."""
    found: list[int] = []
    for array in sorted(arrays, key=lambda array: array.priority):
        values = list((ctypes.c_uint64 * array.count).from_address(tracker[array.symbol]))
        if array.backward:
            values.reverse()
        found += [value for value in values if value not in (0, 2**64 - 1)]
    return found


def _check(read: Sequence[elf.ObjectFile], imports: Mapping[str, int]) -> None:
    here = elf.host_machine()
    for obj in read:
        if obj.machine != here:
            raise LinkError(f"the object is for {obj.machine}, and this executor is {here}")
    seen: set[str] = set()
    for obj in read:
        twice = sorted(seen & obj.strong)
        if twice:
            raise LinkError(f"defined in more than one object: {', '.join(twice)}")
        seen |= obj.strong
    defined = frozenset[str]().union(*(obj.defined for obj in read))
    wanted = frozenset[str]().union(*(obj.undefined for obj in read))
    missing = _missing(wanted - defined - seen - imports.keys() - PROGRAM_SYMBOLS - _LOADERS_OWN)
    for dylib in _USUAL_DYLIBS:
        if not missing:
            return
        with contextlib.suppress(LinkError):
            open_dylib(dylib)
        missing = _missing(missing)
    if missing:
        shown = sorted(missing)[:20]
        more = f" and {len(missing) - len(shown)} more" if len(missing) > len(shown) else ""
        raise LinkError(f"not defined anywhere: {', '.join(shown)}{more}")


def _missing(wanted: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in wanted if process_symbol(name) is None)


def _explain(name: str, error: str) -> str:
    hint = " (position-independent code is needed: compile with -fPIC, and without thread-local variables)"
    return f"the linker could not load {name!r}: {error}{hint if 'materialize' in error else ''}"
