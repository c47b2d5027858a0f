# Writes the intersphinx inventories in this folder: which page of another project's documentation explains a name.
#
#     python docs/inventories/make.py            write python.inv, trio.inv and attrs.inv
#     python docs/inventories/make.py --check    fail if they are not what this script writes
#
# The documentation is built without the network, so the inventories are in the repository; and since they need to
# hold only the names that our pages mention, they are short enough to be written by hand, here. To add a name, find it
# in the other project's documentation, put it under its page below, and run the script. A warning "reference target
# not found" of the documentation build names the next candidate.
#
# The format (version 2): four comment lines, then zlib-compressed lines
# `name domain:role priority uri display-name`, where a `$` at the end of the uri stands for the name and `-` as the
# display name for "the same".

from __future__ import annotations

import pathlib
import sys
import zlib

HERE = pathlib.Path(__file__).parent

# project -> version, page -> role -> names.  The anchor on the page is the name itself.
PAGES: dict[str, tuple[str, dict[str, dict[str, str]]]] = {
    "python": (
        "3",
        {
            "library/stdtypes.html": {
                "class": "bytes bytearray memoryview dict frozenset list range set str tuple",
                "method": "str.encode bytes.decode memoryview.release memoryview.cast",
            },
            "library/functions.html": {
                "class": "bool float int object property type",
                "function": "classmethod hasattr isinstance len open print repr staticmethod",
            },
            "library/constants.html": {"data": "None True False NotImplemented Ellipsis"},
            "library/exceptions.html": {
                "exception": "ArithmeticError AssertionError AttributeError BaseException BaseExceptionGroup "
                "BlockingIOError BrokenPipeError BufferError ConnectionError ConnectionRefusedError ConnectionResetError "
                "EOFError Exception ExceptionGroup FileExistsError FileNotFoundError GeneratorExit ImportError IndexError "
                "InterruptedError KeyError KeyboardInterrupt LookupError MemoryError ModuleNotFoundError NameError "
                "NotImplementedError OSError OverflowError PermissionError ProcessLookupError RecursionError "
                "ResourceWarning RuntimeError StopIteration SystemExit TimeoutError TypeError UnicodeDecodeError "
                "UnicodeError ValueError Warning",
            },
            "library/collections.abc.html": {
                "class": "collections.abc.AsyncGenerator collections.abc.AsyncIterable collections.abc.AsyncIterator "
                "collections.abc.Awaitable collections.abc.Buffer collections.abc.Callable collections.abc.Collection "
                "collections.abc.Container collections.abc.Coroutine collections.abc.Generator collections.abc.Hashable "
                "collections.abc.Iterable collections.abc.Iterator collections.abc.Mapping "
                "collections.abc.MutableMapping collections.abc.MutableSequence collections.abc.Sequence "
                "collections.abc.Set collections.abc.Sized",
            },
            "library/collections.html": {"class": "collections.deque collections.OrderedDict"},
            "library/contextlib.html": {
                "class": "contextlib.AbstractAsyncContextManager contextlib.AbstractContextManager "
                "contextlib.AsyncExitStack contextlib.ExitStack contextlib.nullcontext",
                "function": "contextlib.asynccontextmanager contextlib.contextmanager contextlib.aclosing "
                "contextlib.suppress",
            },
            "library/enum.html": {"class": "enum.Enum enum.Flag enum.IntEnum enum.IntFlag enum.StrEnum"},
            "library/typing.html": {
                "class": "typing.NamedTuple typing.NewType typing.Protocol typing.Generic typing.IO typing.TypeVar",
                "data": "typing.Any typing.Callable typing.ClassVar typing.Final typing.Literal typing.NoReturn "
                "typing.Never typing.Optional typing.Self typing.TypeAlias typing.Union typing.Annotated",
                "function": "typing.assert_never typing.cast typing.final typing.overload",
            },
            "library/types.html": {
                "class": "types.FunctionType types.MappingProxyType types.ModuleType types.SimpleNamespace "
                "types.TracebackType types.UnionType",
            },
            "library/abc.html": {"class": "abc.ABC", "function": "abc.abstractmethod"},
            "library/ctypes.html": {
                "class": "ctypes.CDLL ctypes.Structure ctypes.c_void_p",
                "function": "ctypes.CFUNCTYPE",
            },
            "library/functools.html": {"function": "functools.partial functools.wraps functools.lru_cache"},
            "library/logging.html": {"class": "logging.Logger", "function": "logging.getLogger"},
            "library/math.html": {"data": "math.inf"},
            "library/os.html": {
                "class": "os.PathLike",
                "function": "os._exit os.kill os.pipe os.abort os.close os.dup2 os.set_inheritable",
                "data": "os.environ os.devnull",
            },
            "library/pathlib.html": {"class": "pathlib.Path pathlib.PurePath"},
            "library/queue.html": {"class": "queue.Queue queue.SimpleQueue"},
            "library/random.html": {"class": "random.Random"},
            "library/select.html": {"function": "select.select select.poll"},
            "library/signal.html": {
                "class": "signal.Signals",
                "function": "signal.signal signal.strsignal signal.set_wakeup_fd",
                "data": "signal.SIGABRT signal.SIGINT signal.SIGKILL signal.SIGSEGV signal.SIGTERM",
            },
            "library/socket.html": {
                "class": "socket.socket",
                "function": "socket.socketpair socket.fromfd",
                "method": "socket.socket.fileno socket.socket.detach",
            },
            "library/ssl.html": {"class": "ssl.SSLContext", "exception": "ssl.SSLError"},
            "library/struct.html": {"class": "struct.Struct", "exception": "struct.error"},
            "library/subprocess.html": {
                "class": "subprocess.Popen subprocess.CompletedProcess",
                "attribute": "subprocess.Popen.returncode",
                "data": "subprocess.DEVNULL subprocess.PIPE subprocess.STDOUT",
            },
            "library/sys.html": {
                "data": "sys.argv sys.executable sys.stderr sys.stdin sys.stdout",
                "function": "sys.exit sys._current_frames",
            },
            "library/threading.html": {
                "class": "threading.Event threading.Lock threading.RLock threading.Thread threading.local "
                "threading.Condition",
                "function": "threading.get_ident threading.get_native_id",
            },
            "library/concurrent.futures.html": {
                "class": "concurrent.futures.Future concurrent.futures.ThreadPoolExecutor",
            },
            "library/contextvars.html": {"class": "contextvars.ContextVar contextvars.Context"},
            "library/multiprocessing.shared_memory.html": {"class": "multiprocessing.shared_memory.SharedMemory"},
            "library/asyncio.html": {"module": "asyncio"},
            "library/weakref.html": {
                "class": "weakref.WeakKeyDictionary weakref.WeakSet weakref.WeakValueDictionary weakref.ref",
            },
        },
    ),
    "trio": (
        "stable",
        {
            "reference-core.html": {
                "class": "trio.CancelScope trio.Nursery trio.MemoryReceiveChannel trio.MemorySendChannel trio.Event trio.Lock "
                "trio.Semaphore trio.Condition trio.CapacityLimiter trio.TaskStatus",
                "exception": "trio.Cancelled trio.TooSlowError trio.WouldBlock trio.EndOfChannel trio.BusyResourceError "
                "trio.ClosedResourceError trio.BrokenResourceError trio.RunFinishedError trio.TrioInternalError",
                "function": "trio.run trio.sleep trio.sleep_forever trio.sleep_until trio.current_time "
                "trio.current_effective_deadline trio.open_nursery trio.open_memory_channel trio.move_on_after "
                "trio.move_on_at trio.fail_after trio.fail_at trio.to_thread.run_sync "
                "trio.to_thread.current_default_thread_limiter trio.from_thread.run trio.from_thread.run_sync "
                "trio.from_thread.check_cancelled",
                "method": "trio.CancelScope.cancel trio.Nursery.start trio.Nursery.start_soon trio.Event.wait trio.Event.set",
                "attribute": "trio.CancelScope.shield trio.CancelScope.deadline trio.CancelScope.cancelled_caught "
                "trio.Nursery.cancel_scope",
                "data": "trio.TASK_STATUS_IGNORED",
            },
            "reference-io.html": {
                "class": "trio.abc.AsyncResource trio.abc.Channel trio.abc.HalfCloseableStream trio.abc.Listener "
                "trio.abc.ReceiveChannel trio.abc.ReceiveStream trio.abc.SendChannel trio.abc.SendStream trio.abc.Stream "
                "trio.Path trio.Process trio.SocketListener trio.SocketStream trio.SSLStream trio.SSLListener "
                "trio.StapledStream trio.socket.SocketType",
                "exception": "trio.NeedHandshakeError",
                "function": "trio.aclose_forcefully trio.open_tcp_stream trio.open_tcp_listeners trio.open_unix_socket "
                "trio.open_signal_receiver trio.run_process trio.lowlevel.open_process trio.serve_listeners trio.serve_tcp "
                "trio.socket.socketpair trio.socket.from_stdlib_socket",
                "method": "trio.abc.AsyncResource.aclose trio.abc.HalfCloseableStream.send_eof "
                "trio.abc.ReceiveStream.receive_some trio.abc.SendStream.send_all "
                "trio.abc.SendStream.wait_send_all_might_not_block",
                "attribute": "trio.Process.returncode",
            },
            "reference-lowlevel.html": {
                "class": "trio.abc.Instrument trio.abc.Clock trio.lowlevel.FdStream trio.lowlevel.ParkingLot "
                "trio.lowlevel.RunVar trio.lowlevel.Task trio.lowlevel.TrioToken",
                "function": "trio.lowlevel.cancel_shielded_checkpoint trio.lowlevel.checkpoint "
                "trio.lowlevel.checkpoint_if_cancelled trio.lowlevel.current_root_task trio.lowlevel.current_task "
                "trio.lowlevel.current_trio_token trio.lowlevel.reschedule trio.lowlevel.spawn_system_task "
                "trio.lowlevel.wait_readable trio.lowlevel.wait_task_rescheduled trio.lowlevel.wait_writable "
                "trio.lowlevel.in_trio_run trio.lowlevel.in_trio_task",
                "method": "trio.lowlevel.TrioToken.run_sync_soon",
            },
            "reference-testing.html": {
                "class": "trio.testing.MockClock trio.testing.MemoryReceiveStream trio.testing.MemorySendStream "
                "trio.testing.Sequencer trio.testing.RaisesGroup trio.testing.Matcher",
                "function": "trio.testing.check_half_closeable_stream trio.testing.check_two_way_stream "
                "trio.testing.lockstep_stream_pair trio.testing.memory_stream_pair trio.testing.memory_stream_pump "
                "trio.testing.assert_checkpoints trio.testing.assert_no_checkpoints "
                "trio.testing.wait_all_tasks_blocked trio.testing.open_stream_to_socket_listener",
            },
        },
    ),
    "attrs": (
        "stable",
        {
            "api.html": {
                "function": "attrs.define attrs.field attrs.frozen attrs.mutable attrs.evolve attrs.asdict attrs.fields",
                "class": "attrs.Attribute attrs.Factory",
                "exception": "attrs.exceptions.FrozenInstanceError",
            },
        },
    ),
}
# Pages that have a name of their own to point at.
LABELS = {
    "trio": {
        "reference-core.html#checkpoints": ("checkpoints", "Checkpoints"),
        "reference-core.html#cancellation": ("cancellation", "Cancellation and timeouts"),
    },
}


def inventory(project: str) -> bytes:
    """The bytes of one project's inventory."""
    version, pages = PAGES[project]
    lines = []
    for page, roles in pages.items():
        for role, names in roles.items():
            anchor = "#module-$" if role == "module" else "#$"
            lines += [f"{name} py:{role} 1 {page}{anchor} -" for name in names.split()]
    lines += [f"{name} std:label -1 {uri} {title}" for uri, (name, title) in LABELS.get(project, {}).items()]
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: {version}\n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(f"{line}\n" for line in sorted(lines)).encode(), 9)


def readable(data: bytes) -> bytes:
    """An inventory without its compression: compressors may differ in their bytes, not in what they say."""
    head, body = data[: data.index(b"\n", data.index(b"zlib")) + 1], data[data.index(b"\n", data.index(b"zlib")) + 1 :]
    return head + zlib.decompress(body)


def main(arguments: list[str]) -> str | None:
    """Write or check; what is returned is the error."""
    for project in PAGES:
        path = HERE / f"{project}.inv"
        made = inventory(project)
        if arguments != ["--check"]:
            path.write_bytes(made)
        elif not path.exists() or readable(path.read_bytes()) != readable(made):
            return f"{path.name} is not what make.py writes: run python docs/inventories/make.py"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
