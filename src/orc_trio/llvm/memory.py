"""Memory for code that LLVM sends: reserved, filled, protected, and given back.  Nothing here knows SPS or Trio.

Rules
-----
* No page can be written to and executed at any moment (W^X): what asks for both is refused.
* What is written lies within a reservation, and no two fillings overlap: the controller may be wrong (G25).
* Nothing is left: `close` gives back every page, after the actions that belong to it.
* Any thread may use it.  Actions run without the lock: they may be anybody's code, and come back here.

Refuses: what is not Linux with 64 bits.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

import attrs

__all__ = ["Action", "Filling", "Memory", "MemoryRequestError", "Part"]

Action = Callable[[], None]
"""What is done when memory is given back.  Raises `MemoryRequestError`."""

READ: Final = 1
WRITE: Final = 2
EXECUTE: Final = 4


class MemoryRequestError(Exception):
    """What was asked for cannot be done; the text goes to the controller."""


@attrs.frozen
class Part:
    """What is to be at some place.

    Attributes:
        protection: Bits of `READ`, `WRITE`, `EXECUTE`; higher ones are LLVM's own.
        address: Where it begins.
        size: Its size in bytes.
        content: Its first bytes; what follows is zero.
    """

    protection: int
    address: int
    size: int
    content: bytes


@attrs.define(eq=False)
class Filling:
    """Parts that were filled together, and what is done when they are given back, in reverse."""

    start: int
    stop: int
    undo: list[Action] = attrs.field(factory=list)


class Memory:
    """The memory of one executor.

    Args:
        before_release: Called with the range of a reservation that is about to be given back, while it can be read.
    """

    def __init__(self, before_release: Callable[[int, int], None] = lambda _start, _stop: None) -> None:
        if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
            raise MemoryRequestError("code for LLVM's executors can be held on Linux with 64 bits only")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [
            *(ctypes.c_void_p, ctypes.c_size_t),
            *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
        ]
        self._libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._before_release = before_release
        self._lock = threading.Lock()
        self._reserved: dict[int, int] = {}
        self._fillings: dict[int, Filling] = {}

    def __len__(self) -> int:
        return len(self._reserved)

    def reserve(self, size: int) -> int:
        """Reserve memory.  It is zero, and can be read and written: LLVM 19 looks at some before it has filled it.

        Returns:
            Its address.
        """
        size = _whole_pages(size)
        if not 0 < size < 2**47:
            raise MemoryRequestError(f"{size} bytes cannot be reserved")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = self._libc.mmap(None, size, READ | WRITE, flags, -1, 0)
        if address in (None, 2**64 - 1):
            raise MemoryRequestError(f"{size} bytes cannot be reserved: {os.strerror(ctypes.get_errno())}")
        with self._lock:
            self._reserved[address] = size
        return int(address)

    def fill(self, parts: Sequence[Part]) -> Filling:
        """Put parts where they belong, and protect them.

        Returns:
            What was filled; add to its ``undo``.
        """
        if not parts:
            raise MemoryRequestError("nothing is to be filled")
        filling = Filling(min(each.address for each in parts), max(each.address + each.size for each in parts))
        with self._lock:
            for part in parts:
                self._check(part)
            for part in parts:
                size = _whole_pages(part.size)
                self._protect(part.address, size, READ | WRITE)
                ctypes.memmove(part.address, part.content, len(part.content))
                self._protect(part.address, size, part.protection & (READ | WRITE | EXECUTE))
            self._fillings[filling.start] = filling
        return filling

    def empty(self, key: int) -> None:
        """Undo a filling; the memory stays reserved, and nothing can be done with it any more.

        Args:
            key: Where the filling begins.
        """
        with self._lock:
            filling = self._fillings.pop(key, None)
        if filling is None:
            raise MemoryRequestError(f"nothing was filled at {key:#x}")
        errors: list[str] = []
        while filling.undo:
            try:
                filling.undo.pop()()
            except MemoryRequestError as exc:
                errors.append(str(exc))
        start = filling.start - filling.start % mmap.PAGESIZE
        self._protect(start, _whole_pages(filling.stop - start), 0)
        if errors:
            raise MemoryRequestError("; ".join(errors))

    def release(self, address: int) -> None:
        """Give a reservation back, with all that was filled in it.

        Args:
            address: Where it begins.
        """
        with self._lock:
            size = self._reserved.get(address)
            if size is None:
                raise MemoryRequestError(f"nothing is reserved at {address:#x}")
            within = [key for key in self._fillings if address <= key < address + size]
        self._before_release(address, address + size)
        errors: list[str] = []
        for key in sorted(within, reverse=True):
            try:
                self.empty(key)
            except MemoryRequestError as exc:
                errors.append(str(exc))
        with self._lock:
            if self._reserved.pop(address, None) is not None:
                self._libc.munmap(address, size)
        if errors:
            raise MemoryRequestError("; ".join(errors))

    def close(self) -> None:
        """Give everything back."""
        errors: list[str] = []
        for address in sorted(self._reserved, reverse=True):
            try:
                self.release(address)
            except MemoryRequestError as exc:
                errors.append(str(exc))
        if errors:
            raise MemoryRequestError("; ".join(errors))

    def _check(self, part: Part) -> None:
        if part.protection & WRITE and part.protection & EXECUTE:
            raise MemoryRequestError(f"the part at {part.address:#x} is to be written to and executed")
        if len(part.content) > part.size:
            raise MemoryRequestError(f"the part at {part.address:#x} has {len(part.content)} bytes in {part.size}")
        if part.address % mmap.PAGESIZE:
            raise MemoryRequestError(f"the part at {part.address:#x} does not begin with a page")
        stop = part.address + _whole_pages(part.size)
        if not any(start <= part.address and stop <= start + size for start, size in self._reserved.items()):
            raise MemoryRequestError(f"the part at {part.address:#x} lies outside of what was reserved")
        if any(part.address < each.stop and each.start < stop for each in self._fillings.values()):
            raise MemoryRequestError(f"the part at {part.address:#x} was filled before")

    def _protect(self, address: int, size: int, protection: int) -> None:
        if size and self._libc.mprotect(address, size, protection):
            raise MemoryRequestError(f"{address:#x} cannot be protected: {os.strerror(ctypes.get_errno())}")


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
