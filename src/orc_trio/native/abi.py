"""The C ABI between this process and native code, as ctypes types; `include/orc_trio.h` is the same for C.

A wrapper function is asynchronous and returns nothing, so that ctypes can carry it in both directions (a ctypes
callback cannot return a struct)::

    void fn(Session *session, Buffer args, void (*ret)(Session *, Buffer, uint64_t call_id), uint64_t call_id)

A `Buffer` is a union of a pointer and eight inline bytes, then a size. ctypes cannot pass a union by value, so
the union is declared as the 64-bit word it is: on every platform accepted here (64-bit, little-endian) a struct
of two such words travels exactly as the C struct does.

Rules:
- Whoever receives a buffer owns it. `take` copies the bytes and frees; after it the buffer must not be used.
- Payloads beyond eight bytes come from C's `malloc`, on both sides.
- A size of 0 with a pointer is an out-of-band error, a C string; `take` raises it as `WrapperFunctionError`.
- Nothing here may raise into native code: that is the rule of the callers in `runtime`.

Refuses: 32-bit and big-endian platforms (`check_platform`).
Source of the shape: the buffer and wrapper-function ABI of LLVM's ORC runtime.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Final

from orc_trio.exceptions import WrapperFunctionError
from orc_trio.native.errors import NativeCodeError

ABI_VERSION: Final = 1
INLINE_SIZE: Final = 8

NATIVE_ERROR: Final = "NativeError"
"""The `remote_type` of an out-of-band error that native code itself reported."""

MAX_PAYLOAD: Final = 2**31 - 1
"""Bytes of a payload that can be copied out of native memory at all; sessions agree on far less."""

MAX_ERROR_TEXT: Final = 64 * 1024
"""Bytes of an out-of-band error's text that are looked at; the rest is cut off."""


class Buffer(ctypes.Structure):
    """Bytes by value: inline up to eight, from malloc beyond, or an error text. See the module's rules."""

    _fields_ = [("word", ctypes.c_uint64), ("size", ctypes.c_size_t)]

    word: int
    size: int


RETURN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, Buffer, ctypes.c_uint64)
"""`void (Session *, Buffer result, uint64_t id)`: takes over the buffer."""

WRAPPER_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, Buffer, ctypes.c_void_p, ctypes.c_uint64)
"""`void (Session *, Buffer args, RETURN ret, uint64_t call_id)`: takes over the buffer."""

CALL_CONTROLLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, Buffer, ctypes.c_void_p, ctypes.c_uint64)
"""`void (Session *, uint64_t tag, Buffer args, RETURN ret, uint64_t id)`."""

CALL_CONTROLLER_SYNC = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, Buffer, ctypes.POINTER(Buffer))
"""`void (Session *, uint64_t tag, Buffer args, Buffer *result)`."""

FIND_TAG = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p)
"""`uint64_t (Session *, const char *name)`."""

GET_SESSION = ctypes.CFUNCTYPE(ctypes.c_void_p)
"""`Session *(void)`."""

MAIN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_char_p))
"""`int main(int argc, char **argv, char **envp)`."""


class SessionStruct(ctypes.Structure):
    """What native code gets a pointer to: `struct orc_trio_session` of the header."""

    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("struct_size", ctypes.c_uint32),
        ("call_controller", ctypes.c_void_p),
        ("call_controller_sync", ctypes.c_void_p),
        ("find_tag", ctypes.c_void_p),
    ]


_libc: Final = ctypes.CDLL(None)
_malloc: Final = _libc.malloc
_malloc.restype = ctypes.c_void_p
_malloc.argtypes = [ctypes.c_size_t]
_free: Final = _libc.free
_free.restype = None
_free.argtypes = [ctypes.c_void_p]
_fflush: Final = _libc.fflush
_fflush.restype = ctypes.c_int
_fflush.argtypes = [ctypes.c_void_p]


def check_platform() -> None:
    """Refuse a platform whose calling convention the buffer's declaration does not fit.

    Raises:
        NativeCodeError: this is not a 64-bit little-endian platform.
    """
    if ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        raise NativeCodeError("native code runs on 64-bit little-endian platforms only")


def address_of(callback: object) -> int:
    """Return the machine address of a ctypes callback; the callback must be kept alive as long as it is used."""
    address = ctypes.cast(callback, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address


def _copied_to_malloc(data: bytes) -> int:
    address: int | None = _malloc(len(data))
    if address is None:
        raise MemoryError(f"malloc({len(data)}) failed")
    ctypes.memmove(address, data, len(data))
    return address


def make(data: bytes | bytearray | memoryview) -> Buffer:
    """Return a buffer holding a copy of `data`, owned by whoever it is passed to."""
    plain = bytes(data)
    if len(plain) <= INLINE_SIZE:
        return Buffer(int.from_bytes(plain, "little"), len(plain))
    return Buffer(_copied_to_malloc(plain), len(plain))


def make_error(text: str) -> Buffer:
    """Return a buffer that is an out-of-band error; `text` ends at its first NUL, and is never empty."""
    encoded = text.encode("utf-8", "replace").partition(b"\0")[0][:MAX_ERROR_TEXT] or b"unknown error"
    return Buffer(_copied_to_malloc(encoded + b"\0"), 0)


def take(buffer: Buffer) -> bytes:
    """Copy the bytes out of a received buffer and free what it held.

    Raises:
        WrapperFunctionError: the buffer is an out-of-band error (the native code's doing).
    """
    word, size = buffer.word, buffer.size
    if 0 < size <= INLINE_SIZE:
        return word.to_bytes(INLINE_SIZE, "little")[:size]
    if word == 0:
        if size:
            raise WrapperFunctionError(NATIVE_ERROR, f"native code gave a null pointer for {size} bytes")
        return b""
    try:
        if size > MAX_PAYLOAD:
            raise WrapperFunctionError(NATIVE_ERROR, f"native code gave a buffer of {size} bytes")
        if size:
            return ctypes.string_at(word, size)
        text = ctypes.string_at(word)[:MAX_ERROR_TEXT]
    finally:
        _free(word)
    raise WrapperFunctionError(NATIVE_ERROR, text.decode("utf-8", "replace"))


def discard(buffer: Buffer) -> None:
    """Free what a received buffer held, without looking at it."""
    if buffer.word and not 0 < buffer.size <= INLINE_SIZE:
        _free(buffer.word)


def flush_stdio() -> None:
    """Write out what C's stdio of this process has buffered, for all its open files.

    A file that another thread is blocked in (reading from a terminal, say) cannot be flushed, nor can those after it;
    after a second they are left as they are. Blocks; call it in a thread.
    """
    flusher = threading.Thread(target=_fflush, args=(None,), name="flush stdio", daemon=True)
    flusher.start()
    flusher.join(1.0)


_kept_for_ever: Final[list[object]] = []


def keep_for_ever(thing: object) -> None:
    """Keep a small thing whose address native code has: a thread it made itself may use it at any time."""
    _kept_for_ever.append(thing)
