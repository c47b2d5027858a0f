"""Real machine code as wrapper functions (extra: `jit`).

The controller compiles (`compiler`), ships the object by an ordinary wrapper call (`controller`); the executor links it
(`linker`), and calls it and serves its calls (`runtime`) through the C ABI of `abi` and `include/orc_trio.h`.

This package imports without llvmlite; what needs it raises `JitUnavailableError`, which says what to install.
"""

from orc_trio.native.compiler import INCLUDE_DIRECTORY, Target, compile_ir, compile_program, link_library
from orc_trio.native.controller import NativeProgram, load_object
from orc_trio.native.errors import CompileError, JitUnavailableError, LinkError, NativeCodeError
from orc_trio.native.executor import NativeSupport, install_native
from orc_trio.native.llvm import INSTALL_HINT, available
from orc_trio.native.runtime import NativeStatistics

__all__ = [
    "INCLUDE_DIRECTORY",
    "INSTALL_HINT",
    "CompileError",
    "JitUnavailableError",
    "LinkError",
    "NativeCodeError",
    "NativeProgram",
    "NativeStatistics",
    "NativeSupport",
    "Target",
    "available",
    "compile_ir",
    "compile_program",
    "install_native",
    "link_library",
    "load_object",
]
