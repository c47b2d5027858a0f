"""LLVM's C ABI of wrapper functions, up to LLVM 23, by ctypes: calling them, and being called by them.

``Buffer fn(const char *data, size_t size)``.  The buffer is that of `orc_trio.native.abi`.

A ctypes callback cannot return a struct, so code calls us by a `Dispatch`: a few bytes of machine code.  x86-64 only.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any, Final

from orc_trio.native.abi import Buffer, address_of, flush_stdio, make, make_error, take

__all__ = [
    "Dispatch",
    "call_wrapper_function",
    "find_symbol",
    "run_as_int_function",
    "run_as_main",
    "run_as_void_function",
]

_WRAPPER: Final = ctypes.CFUNCTYPE(Buffer, ctypes.c_char_p, ctypes.c_size_t)
_DISPATCH: Final = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(Buffer), ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t
)
_MAIN: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))
_INT_FUNCTION: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
_VOID_FUNCTION: Final = ctypes.CFUNCTYPE(ctypes.c_int)


def call_wrapper_function(address: int, args: bytes) -> bytes:
    """Call a wrapper function.

    Raises:
        WrapperFunctionError: It answers with an out-of-band error.
    """
    return take(_WRAPPER(address)(args, len(args)))


class Dispatch:
    """Our end of ``Buffer dispatch(void *context, const void *tag, const char *data, size_t size)``.

    Args:
        serve: Serves a call: a tag, and the argument bytes.  What it raises becomes an out-of-band error: nothing may
            be raised into native code.

    Attributes:
        code: The machine code of the function.  It must be where it can be executed, and this must live as long.

    Raises:
        OSError: There is none for this machine.
    """

    def __init__(self, serve: Callable[[int, bytes], bytes]) -> None:
        if platform.machine() != "x86_64":
            raise OSError(
                f"being called by LLVM's wrapper functions is known for x86-64 only, not {platform.machine()}"
            )
        self._serve = serve
        self._callback = _DISPATCH(self._call)
        self.code: bytes = _TRAMPOLINE.replace(_PLACE, address_of(self._callback).to_bytes(8, "little"))

    def _call(self, result: Any, _context: int | None, tag: int | None, data: int | None, size: int) -> None:
        try:
            result[0] = make(self._serve(tag or 0, b"" if data is None else ctypes.string_at(data, size)))
        except BaseException as exc:  # noqa: ASYNC103
            result[0] = make_error(str(exc) or type(exc).__name__)


_PLACE: Final = b"\xee" * 8
_TRAMPOLINE: Final = bytes.fromhex(
    "4883ec18"  # sub rsp, 24
    "4989c8 4889d1 4889f2 4889fe 4889e7"  # mov r8, rcx; rcx, rdx; rdx, rsi; rsi, rdi; rdi, rsp
    "48b8eeeeeeeeeeeeeeee ffd0"  # mov rax, our function; call rax
    "488b0424 488b542408 4883c418 c3"  # mov rax, [rsp]; mov rdx, [rsp+8]; add rsp, 24; ret
)
"""From ``Buffer f(context, tag, data, size)`` to ``void g(Buffer *result, context, tag, data, size)``."""


def find_symbol(library: ctypes.CDLL, name: str) -> int:
    """A symbol's address; 0: there is none."""
    try:
        function = library[name]
    except AttributeError:
        return 0
    return address_of(function)


def run_as_main(address: int, argv: Sequence[str]) -> int:
    """Run a function as the main of a program, and write out what is left in its buffers."""
    values = [os.fsencode(each) for each in argv]
    array = (ctypes.c_char_p * (len(values) + 1))(*values, None)
    status = int(_MAIN(address)(len(values), array))
    flush_stdio()
    return status


def run_as_int_function(address: int, argument: int) -> int:
    """Run ``int f(int)``."""
    return int(_INT_FUNCTION(address)(argument))


def run_as_void_function(address: int) -> int:
    """Run ``int f(void)``."""
    return int(_VOID_FUNCTION(address)())
