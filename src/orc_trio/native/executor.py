"""Native code in an executor: installs the wrapper functions that load, find, run and unload it.

`install_native` gives a session three things: the wrapper functions of `names`, the values a compiler needs to know
this machine, and a fallback for addresses that are no Python function's, so that `call_wrapper` with a native address
calls the machine code there. What code does and when it may run is `runtime`'s business; how it gets here, `linker`'s.

Rules:
- Unloading a program waits until no call is running in it or owes an answer, and refuses new calls meanwhile. At
  the session's shutdown what can be unloaded is; the rest stays in memory, because it may be executing (G22).
- An address is called if it was looked up here or lies in executable memory of this process. That is no protection
  (the controller may run any code here, that is what an executor is for): it makes a wrong number an error instead
  of a crash.
- A crash, an abort or an exit of native code ends this process. Nothing here tries to survive it.

Refuses: everything, with one clear line, where llvmlite is not installed.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from orc_trio.abc import Service
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.exceptions import CallRefusedError, KeepaliveDeniedError, RemoteProtocolError, WrapperFunctionError
from orc_trio.native import abi, llvm, names
from orc_trio.native.calls import Usage
from orc_trio.native.doors import HostSession
from orc_trio.native.errors import LinkError
from orc_trio.native.linker import Linker, LoadedProgram, open_dylib
from orc_trio.native.runtime import DEFAULT_THREADS, NativeRuntime, NativeStatistics
from orc_trio.nesting import serving
from orc_trio.registry import Handler

_log = logging.getLogger("orc_trio.native")

TAG_SYMBOL_PREFIX: Final = "orc_trio_tag_"
"""A program's `extern char orc_trio_tag_NAME` has the handler tag of that name as its address."""

_GET_SESSION: Final = "orc_trio_get_session"


def install_native(session: HostSession, bootstrap: BootstrapInfo, *, threads: int = DEFAULT_THREADS) -> NativeSupport:
    """Make a session able to load and run native code. Call it in the session's Trio run, before it attaches.

    Args:
        session: the executor's session.
        bootstrap: what it will attach with; symbols and values are added, and its triple is set to LLVM's.
        threads: how many native calls may run at once, at least 1; nested ones come on top.

    Returns:
        What is running: for statistics.

    Raises:
        JitUnavailableError: llvmlite is not installed.
        NativeCodeError: this platform is not supported.
        LocalProtocolError: native code is installed in this session already, or the bootstrap info is sealed.
    """
    binding = llvm.binding()
    runtime = NativeRuntime.start(session, threads=threads, find_tag=bootstrap.symbols.get)
    support = NativeSupport(runtime=runtime, bootstrap=bootstrap)
    for name, function in (
        (names.LOAD_OBJECT, support._load_object),
        (names.LOOKUP, support._lookup),
        (names.RUN_MAIN, support._run_main),
        (names.UNLOAD, support._unload),
    ):
        bootstrap.add_wrapper(name, _reporting(function))
    bootstrap.triple = binding.get_process_triple()
    bootstrap.set_value("cpu", binding.get_host_cpu_name().encode())
    bootstrap.set_value("features", binding.get_host_cpu_features().flatten().encode())
    bootstrap.set_value("llvm", ".".join(map(str, binding.llvm_version_info)).encode())
    session.wrappers.fallback = support._handler_at
    session.add_service(support)
    return support


def _reporting(function: Callable[[bytes], Awaitable[bytes]]) -> Callable[[bytes], Awaitable[bytes]]:
    """Make the errors a controller should see ones that cross."""

    async def wrapper(args: bytes) -> bytes:
        try:
            return await function(args)
        except LinkError as exc:
            raise WrapperFunctionError(names.LINK_ERROR, str(exc)) from exc
        except RemoteProtocolError as exc:
            raise WrapperFunctionError(names.BAD_ARGUMENTS, str(exc)) from exc
        except KeepaliveDeniedError as exc:
            raise CallRefusedError(str(exc)) from exc

    return wrapper


@attrs.define(eq=False)
class _Program:
    loaded: LoadedProgram
    usage: Usage = attrs.field(factory=Usage)
    leaving: bool = False


@attrs.define(eq=False)
class NativeSupport(Service):
    """What `install_native` installed."""

    runtime: NativeRuntime
    _bootstrap: BootstrapInfo = attrs.field(alias="bootstrap")
    _linker: Linker = attrs.field(factory=Linker, init=False)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _programs: dict[int, _Program] = attrs.field(factory=dict, init=False)
    _functions: dict[int, tuple[_Program, str]] = attrs.field(factory=dict, init=False)
    _callbacks: dict[str, Any] = attrs.field(factory=dict, init=False)

    def statistics(self) -> NativeStatistics:
        """Return a snapshot of what native code is doing."""
        return self.runtime.statistics()

    # --- the wrapper functions ---

    async def _load_object(self, args: bytes) -> bytes:
        fields = names.Fields(args, "load_object")
        name = fields.take("name", str)
        objects = fields.take_list("objects", bytes)
        tags = fields.take_map("tags", str, int)
        dylibs = fields.take_list("dylibs", str)
        fields.end()
        if not all(0 <= tag < 2**64 for tag in tags.values()):
            raise RemoteProtocolError("load_object: a tag is out of range")
        imports = {TAG_SYMBOL_PREFIX + key: tag for key, tag in {**self._bootstrap.symbols, **tags}.items()}
        imports[_GET_SESSION] = self._get_session_address()

        def load() -> LoadedProgram:
            for dylib in dylibs:
                open_dylib(dylib)
            return self._linker.load(objects, name=name, imports=imports)

        self.runtime.tags.update(tags)
        loaded = await self.runtime.run(f"loading {name!r}", load, nested=_nested())
        number = next(self._numbers)
        self._programs[number] = _Program(loaded)
        return names.dumps({"program": number})

    async def _lookup(self, args: bytes) -> bytes:
        fields = names.Fields(args, "lookup")
        number = fields.take_unsigned("program")
        symbol = fields.take("symbol", str)
        fields.end()
        await trio.lowlevel.checkpoint()
        program = self._program(number)
        address = program.loaded.lookup(symbol)
        self._functions[address] = (program, symbol)
        return names.dumps({"address": address})

    async def _run_main(self, args: bytes) -> bytes:
        fields = names.Fields(args, "run_main")
        number = fields.take_unsigned("program")
        argv = fields.take_list("argv", bytes)
        fields.end()
        program = self._program(number)
        if any(b"\0" in argument for argument in argv):
            raise RemoteProtocolError("run_main: an argument contains a NUL byte")
        program.loaded.lookup("main")
        status = await self.runtime.run(
            f"main of {program.loaded.name!r}",
            functools.partial(program.loaded.run_main, argv),
            nested=_nested(),
            usage=program.usage,
        )
        return names.dumps({"status": status})

    async def _unload(self, args: bytes) -> bytes:
        fields = names.Fields(args, "unload")
        number = fields.take_unsigned("program")
        fields.end()
        program = self._program(number)
        token = trio.lowlevel.current_trio_token()
        idle = trio.Event()
        program.leaving = True
        try:
            if not program.usage.when_idle(lambda: token.run_sync_soon(idle.set)):
                await idle.wait()
        finally:
            program.usage.when_idle(None)
            program.leaving = False
        self._forget(number)
        await self.runtime.run(f"unloading {program.loaded.name!r}", program.loaded.unload, nested=_nested())
        return names.dumps({})

    # --- native functions by address ---

    def _handler_at(self, address: int) -> Handler | None:
        program, symbol = self._functions.get(address, (None, ""))
        if program is None and not is_executable(address):
            return None
        function = functools.partial(self._call, address, program, symbol)
        return Handler(_reporting(function), symbol or f"native {address:#x}")

    async def _call(self, address: int, program: _Program | None, symbol: str, args: bytes) -> bytes:
        if program is None:
            return await self.runtime.call(address, args, nested=_nested())
        if program.leaving:
            raise LinkError(f"the program {program.loaded.name!r} is being unloaded")
        name = f"{program.loaded.name}:{symbol}"
        return await self.runtime.call(address, args, name=name, nested=_nested(), usage=program.usage)

    # --- the end (a session's service) ---

    async def on_shutdown(self) -> None:
        """Unload every program that nothing is running in.

        Checkpoints:
            Always.

        Cancellation:
            Leaves the rest loaded.
        """
        self.runtime.close()
        for number, program in list(self._programs.items()):
            if program.usage.count:
                _log.info("native program %r stays loaded: it still owes answers", program.loaded.name)
                continue
            self._forget(number)
            await trio.to_thread.run_sync(program.loaded.unload, abandon_on_cancel=True)
        await trio.to_thread.run_sync(abi.flush_stdio, abandon_on_cancel=True)

    # --- helpers ---

    def _program(self, number: int) -> _Program:
        try:
            program = self._programs[number]
        except KeyError:
            raise LinkError(f"there is no program {number} (was it unloaded?)") from None
        if program.leaving:
            raise LinkError(f"the program {program.loaded.name!r} is being unloaded")
        return program

    def _forget(self, number: int) -> None:
        program = self._programs.pop(number)
        for address in [address for address, (owner, _) in self._functions.items() if owner is program]:
            del self._functions[address]

    def _get_session_address(self) -> int:
        if _GET_SESSION not in self._callbacks:
            pointer = self.runtime.session_pointer
            self._callbacks[_GET_SESSION] = abi.GET_SESSION(lambda: pointer)
            abi.keep_for_ever(self._callbacks[_GET_SESSION])
        return abi.address_of(self._callbacks[_GET_SESSION])


def _nested() -> bool:
    """Say whether the call being served is nested (G7)."""
    return bool(getattr(serving(), "nested", False))


def is_executable(address: int) -> bool:
    """Say whether there is code at an address of this process. Where that cannot be known: yes."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                span, access, *_ = line.split(maxsplit=2)
                start, end = (int(part, 16) for part in span.split("-"))
                if start <= address < end:
                    return "x" in access
    except OSError:
        return 0 < address < 1 << 63
    return False
