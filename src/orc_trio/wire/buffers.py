"""Memory for large payloads that arrive.

Theory
------
What a new page of memory costs (the system makes it, zeroed, when it is first touched) is several times what it costs
to fill it.  A C library that gives memory back to the system whenever there is some to spare, and takes it again for
the next payload, pays that for every page of every payload.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import sys
from typing import Final

__all__ = ["keep_memory", "new_buffer"]

_LAZY_FROM: Final = 4 * 1024 * 1024
_KEPT: Final = 16 * 1024 * 1024


@functools.cache
def keep_memory() -> None:
    """Have the C library keep what large payloads have used for the next ones, instead of giving it back: once.

    glibc learns by itself how large the blocks are that a program frees and wants again: it keeps twice the largest
    that it has seen.  So it is shown one, which is never touched and costs nothing.  Other libraries do not mind.
    """
    bytes(_KEPT)


def new_buffer(size: int) -> bytearray | mmap.mmap:
    """Memory that can be written to, of ``size`` bytes, at least 1.

    Much of it is zero pages of the system's, which become memory one by one as they are written to: zeroing 64 MiB at
    once would hold up everything else for some 30 ms.  Huge pages, where there are some: three times the bandwidth.

    Raises:
        MemoryError: There is not so much.
    """
    if size < _LAZY_FROM or sys.platform == "win32":
        return bytearray(size)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as exc:
        raise MemoryError(f"{size} bytes for a payload: {exc.strerror}") from exc
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
