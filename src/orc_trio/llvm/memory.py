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
import enum
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import attrs

__all__ = ["Action", "Filling", "Memory", "MemoryRequestError", "Protection", "Segment"]

Action = Callable[[], None]
"""What is done when memory is given back.  Raises `MemoryRequestError`."""


class MemoryRequestError(Exception):
    """What was asked for cannot be done; the text goes to the controller."""


class Protection(enum.IntFlag):
    """What may be done with memory.  Writing and executing at once is for nobody."""

    READ = 1
    WRITE = 2
    EXECUTE = 4


_WRITABLE: Final = Protection.READ | Protection.WRITE
_EVERYTHING: Final = _WRITABLE | Protection.EXECUTE


@attrs.frozen
class Segment:
    """A part of reserved memory, and what is to be there.

    Attributes:
        address: Where it begins; a multiple of the page size.
        size: Its size in bytes; what ``content`` leaves is zero.
        content: Its first bytes.
        protection: What may be done with it from then on.
    """

    address: int
    size: int
    content: bytes
    protection: Protection


@attrs.define(eq=False)
class Filling:
    """Segments that were filled together, and what is done when they are given back, in reverse."""

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
        address = self._libc.mmap(None, size, _WRITABLE, flags, -1, 0)
        if address in (None, 2**64 - 1):
            raise MemoryRequestError(f"{size} bytes cannot be reserved: {os.strerror(ctypes.get_errno())}")
        with self._lock:
            self._reserved[address] = size
        return int(address)

    def fill(self, segments: Sequence[Segment]) -> Filling:
        """Put segments where they belong, and protect them.  Higher bits of a protection are LLVM's own.

        Returns:
            What was filled; add to its ``undo``.
        """
        if not segments:
            raise MemoryRequestError("nothing is to be filled")
        filling = Filling(min(each.address for each in segments), max(each.address + each.size for each in segments))
        with self._lock:
            for segment in segments:
                self._check(segment)
            for segment in segments:
                size = _whole_pages(segment.size)
                self._protect(segment.address, size, _WRITABLE)
                ctypes.memmove(segment.address, segment.content, len(segment.content))
                self._protect(segment.address, size, segment.protection & _EVERYTHING)
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
        errors = _errors_of(reversed(filling.undo))
        start = filling.start - filling.start % mmap.PAGESIZE
        self._protect(start, _whole_pages(filling.stop - start), 0)
        _tell(errors)

    def release(self, address: int) -> None:
        """Give a reservation back, with all that was filled in it.

        Args:
            address: Where it begins.
        """
        with self._lock:
            size = self._reserved.pop(address, None)  # from here on nobody begins to use it
            if size is None:
                raise MemoryRequestError(f"nothing is reserved at {address:#x}")
            within = [key for key in self._fillings if address <= key < address + size]
        self._before_release(address, address + size)
        errors = _errors_of(partial(self.empty, key) for key in sorted(within, reverse=True))
        self._libc.munmap(address, size)
        _tell(errors)

    def reserves(self, address: int) -> bool:
        """Whether an address lies in memory that is reserved, and not about to be given back."""
        with self._lock:
            return any(start <= address < start + size for start, size in self._reserved.items())

    def close(self) -> None:
        """Give everything back."""
        _tell(_errors_of(partial(self.release, address) for address in sorted(self._reserved, reverse=True)))

    def _check(self, segment: Segment) -> None:
        if segment.protection & Protection.WRITE and segment.protection & Protection.EXECUTE:
            raise MemoryRequestError(f"the segment at {segment.address:#x} is to be written to and executed")
        if len(segment.content) > segment.size:
            raise MemoryRequestError(
                f"the segment at {segment.address:#x} has {len(segment.content)} bytes in {segment.size}"
            )
        if segment.address % mmap.PAGESIZE:
            raise MemoryRequestError(f"the segment at {segment.address:#x} does not begin with a page")
        stop = segment.address + _whole_pages(segment.size)
        if not any(start <= segment.address and stop <= start + size for start, size in self._reserved.items()):
            raise MemoryRequestError(f"the segment at {segment.address:#x} lies outside of what was reserved")
        if any(segment.address < each.stop and each.start < stop for each in self._fillings.values()):
            raise MemoryRequestError(f"the segment at {segment.address:#x} was filled before")

    def _protect(self, address: int, size: int, protection: int) -> None:
        if size and self._libc.mprotect(address, size, protection):
            raise MemoryRequestError(f"{address:#x} cannot be protected: {os.strerror(ctypes.get_errno())}")


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _errors_of(actions: Iterable[Action]) -> list[str]:
    """Do them all, whatever fails; what they said."""
    errors: list[str] = []
    for action in actions:
        try:
            action()
        except MemoryRequestError as exc:
            errors.append(str(exc))
    return errors


def _tell(errors: Sequence[str]) -> None:
    if errors:
        raise MemoryRequestError("; ".join(errors))
