"""Being LLVM's executor: what its controllers call, under the names they look for.

Each wrapper function runs in a thread: what it does may be code that LLVM sent, which may call back and wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import trio

from orc_trio.abc import Service
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import WrapperFunctionError
from orc_trio.llvm import abi, names
from orc_trio.llvm.memory import Memory, MemoryRequestError, Protection, Segment
from orc_trio.registry import Handler
from orc_trio.session import Session
from orc_trio.wire import sps

__all__ = ["install_llvm"]

_INSTANCE: Final = 1
"""There is one manager of each kind: any number will do for it."""
_USUAL_LIBRARIES: Final = ("libgcc_s.so.1", "libstdc++.so.6")


def install_llvm(session: Session, bootstrap: BootstrapInfo, version: int = max(names.VERSIONS)) -> None:
    """Offer what LLVM's controllers need.  Its memory is given back when the session is shut down.

    Args:
        session: The executor's session, opened with ``threads=math.inf``: LLVM's protocol does not say which calls are
            nested, so functions that call back and wait might hold every thread that their answers need.
        bootstrap: Its bootstrap information.
        version: LLVM's major version.

    Raises:
        ValueError: That is too old.
        OSError: Not for this machine.
    """
    wanted = names.version_for(version)
    executor = _Executor(session, bootstrap)
    executor.offer_memory(wanted)
    executor.offer_access(wanted)
    executor.offer_symbols(wanted)
    executor.offer_running(wanted)
    executor.offer_frames(wanted)
    session.add_service(executor)
    session.wrappers.fallback = _native


def _native(address: int) -> Handler:
    """The wrapper function of LLVM's own that is at an address."""
    return Handler(partial(abi.call_wrapper_function, address), f"native {address:#x}", threaded=True)


class _Executor(Service):
    def __init__(self, session: Session, bootstrap: BootstrapInfo) -> None:
        self._bootstrap = bootstrap
        self._memory = Memory(self._forget_frames)
        self._frames: set[int] = set()
        self._frames_lock = threading.Lock()
        self._process = ctypes.CDLL(None)
        self._libraries: dict[int, ctypes.CDLL] = {}
        self._actions: dict[int, Callable[[int, int], None]] = {}  # functions of ours that only memory calls
        self._own: dict[str, int] = {}  # functions of ours that are looked up in the process
        for name in _USUAL_LIBRARIES:
            with contextlib.suppress(OSError):  # code that needs it will not find its symbols
                ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        portal = session.thread_portal()
        self._dispatch = abi.Dispatch(portal.call_controller)
        code = self._dispatch.code
        at = self._memory.reserve(len(code))
        self._memory.fill([Segment(at, len(code), code, Protection.READ | Protection.EXECUTE)])
        bootstrap.add_symbol(f"{names.DISPATCH}_ctx", _INSTANCE)
        bootstrap.add_symbol(f"{names.DISPATCH}_fn", at)

    async def on_shutdown(self) -> None:
        await trio.to_thread.run_sync(self._memory.close)

    # What is offered

    def offer_memory(self, version: names.Version) -> None:
        prefix = names.MEMORY
        self._bootstrap.add_symbol(f"{prefix}_Instance", _INSTANCE)
        self._add(f"{prefix}_reserve_wrapper", names.RESERVE, self._reserve)
        if version.initializes:
            self._add(f"{prefix}_initialize_wrapper", names.INITIALIZE, self._initialize)
            self._add(f"{prefix}_deinitialize_wrapper", names.RELEASE, self._each(self._memory.empty))
            self._add(f"{prefix}_release_wrapper", names.RELEASE, self._each(self._memory.release))
        else:
            self._add(f"{prefix}_finalize_wrapper", names.FINALIZE, self._finalize)
            self._add(f"{prefix}_deallocate_wrapper", names.RELEASE, self._each(self._memory.release))

    def offer_access(self, version: names.Version) -> None:
        self._add(f"{names.BOOTSTRAP}_mem_write_buffers_wrapper", names.WRITE_BUFFERS, _write)
        for name, codec in names.NUMBERS.items():
            if name != "pointers" or version.reads:
                pairs = sps.Sequence(sps.Tuple(sps.ADDRESS, codec))
                signature = sps.Signature(names.NOTHING, pairs)
                self._add(f"{names.BOOTSTRAP}_mem_write_{name}_wrapper", signature, partial(_write_numbers, codec))
            if version.reads:
                read = sps.Signature(sps.Sequence(codec), names.ADDRESSES)
                self._add(f"{names.BOOTSTRAP}_mem_read_{name}_wrapper", read, partial(_read_numbers, codec))
        if version.reads:
            self._add(f"{names.BOOTSTRAP}_mem_read_buffers_wrapper", names.READ_BUFFERS, _read_buffers)
            self._add(f"{names.BOOTSTRAP}_mem_read_strings_wrapper", names.READ_STRINGS, _read_strings)

    def offer_symbols(self, version: names.Version) -> None:
        prefix, found = names.DYLIBS, names.FOUND[version.found]
        self._bootstrap.add_symbol(f"{prefix}_Instance", _INSTANCE)
        self._add(f"{prefix}_open_wrapper", names.OPEN, self._open)
        find = partial(self._find, version.found)
        if version.resolves:
            self._add(f"{prefix}_resolve_wrapper", sps.Signature(found, *names.RESOLVE_ARGUMENTS), find)
        else:
            signature = sps.Signature(found, *names.LOOKUP_ARGUMENTS)
            self._add(f"{prefix}_lookup_wrapper", signature, lambda _instance, handle, wanted: find(handle, wanted))

    def offer_running(self, version: names.Version) -> None:
        self._add(f"{names.BOOTSTRAP}_run_as_main_wrapper", names.MAIN, abi.run_as_main)
        if version.functions:
            name = f"{names.BOOTSTRAP}_run_as_int_function_wrapper"
            self._add(name, names.INT_FUNCTION, abi.run_as_int_function)
            name = f"{names.BOOTSTRAP}_run_as_void_function_wrapper"
            self._add(name, names.VOID_FUNCTION, abi.run_as_void_function)

    def offer_frames(self, version: names.Version) -> None:
        functions = {
            "llvm_orc_registerEHFrame": self._register,
            "llvm_orc_deregisterEHFrame": self._deregister,
            "llvm_orc_registerJITLoaderGDB": _ignore,  # for debuggers
        }
        for name, function in functions.items():
            if version.frames == "action":
                address: int = self._bootstrap.add_tag(f"{name}AllocAction")
                self._actions[address] = function
                continue
            full = f"{name}Wrapper" if function is _ignore else f"{name}SectionWrapper"
            self._own[full] = self._add(full, names.FRAMES, function)

    def _add(self, name: str, signature: sps.Signature[Any], function: Callable[..., Any]) -> int:
        def wrapper(args: bytes) -> bytes:
            try:
                answer = function(*signature.arguments.unpack(args))
            except MemoryRequestError as exc:
                answer = sps.Failure(str(exc))
            return signature.result.pack(answer)

        return self._bootstrap.add_wrapper(name, wrapper, threaded=True)

    # Memory

    def _reserve(self, _instance: int, size: int) -> int:
        return self._memory.reserve(size)

    def _initialize(self, _instance: int, request: tuple[Any, ...]) -> int:
        segments, actions = request
        filling = self._memory.fill(
            [Segment(at, size, content, Protection(bits)) for bits, at, size, content in segments]
        )
        try:
            for at_once, at_end in actions:
                self._act(*at_once)
                filling.undo.append(partial(self._act, *at_end))
        except MemoryRequestError:
            self._memory.empty(filling.start)
            raise
        return filling.start

    def _finalize(self, instance: int, request: tuple[Any, ...]) -> None:
        self._initialize(instance, request)

    def _each(self, function: Callable[[int], None]) -> Callable[[int, Sequence[int]], None]:
        def do(_instance: int, keys: Sequence[int]) -> None:
            for key in reversed(keys):
                function(key)

        return do

    def _act(self, address: int, args: bytes) -> None:
        """Do an action: a wrapper function, ours or LLVM's; at 0 there is none."""
        if not address:
            return
        if function := self._actions.get(address):
            function(*names.FRAMES.arguments.unpack(args))
            return
        try:
            failure = names.FRAMES.result.unpack(abi.call_wrapper_function(address, args))
        except WrapperFunctionError as exc:
            failure = sps.Failure(exc.message)
        if failure is not None:
            raise MemoryRequestError(failure.message)

    # Symbols

    def _open(self, _instance: int, path: str, _mode: int) -> int | sps.Failure:
        try:
            library = ctypes.CDLL(path or None, mode=ctypes.RTLD_GLOBAL)
        except OSError as exc:
            return sps.Failure(str(exc))
        self._libraries[library._handle] = library
        return library._handle

    def _find(self, kind: str, handle: int, wanted: Sequence[tuple[str, bool]]) -> list[Any] | sps.Failure:
        library = self._libraries.get(handle)
        if library is None:
            return sps.Failure(f"no library has the handle {handle:#x}")
        found = [self._own.get(name) or abi.find_symbol(library, name) for name, _ in wanted]
        missing = [name for (name, required), at in zip(wanted, found, strict=True) if required and not at]
        if missing:
            return sps.Failure(f"missing definitions for {', '.join(missing)}")
        if kind == "addresses":
            return found
        symbols = [sps.Symbol(at, sps.Symbol.EXPORTED if at else 0) for at in found]
        return symbols if kind == "symbols" else [symbol if symbol.address else None for symbol in symbols]

    # Exception frames.  LLVM 19 does not wait for them to be registered or deregistered before it gives their memory
    # back: these calls may be served in any order, and each must find the frames readable.

    def _register(self, start: int, _stop: int) -> None:
        with self._frames_lock:
            if not self._memory.reserves(start):
                raise MemoryRequestError(f"there is no memory for frames at {start:#x}")
            self._frames.add(start)
            self._process["__register_frame"](ctypes.c_void_p(start))

    def _deregister(self, start: int, _stop: int) -> None:
        with self._frames_lock:
            if start in self._frames:
                self._frames.remove(start)
                self._process["__deregister_frame"](ctypes.c_void_p(start))

    def _forget_frames(self, start: int, stop: int) -> None:
        for frame in [each for each in self._frames.copy() if start <= each < stop]:
            self._deregister(frame, stop)


def _ignore(_start: int, _stop: int) -> None:
    pass


def _write(pairs: Iterable[tuple[int, bytes]]) -> tuple[()]:
    for at, data in pairs:
        ctypes.memmove(at, data, len(data))
    return ()


def _write_numbers(codec: sps.Codec[int], pairs: Iterable[tuple[int, int]]) -> tuple[()]:
    return _write((at, codec.pack(number)) for at, number in pairs)


def _read_numbers(codec: sps.Codec[int], places: Iterable[int]) -> list[int]:
    return [codec.unpack(ctypes.string_at(at, codec.least)) for at in places]


def _read_buffers(ranges: Iterable[tuple[int, int]]) -> list[bytes]:
    return [ctypes.string_at(start, stop - start) for start, stop in ranges]


def _read_strings(places: Iterable[int]) -> list[str]:
    return [ctypes.string_at(at).decode("utf-8", "surrogateescape") for at in places]
