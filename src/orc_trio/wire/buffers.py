"""Memory for large payloads that arrive."""

from __future__ import annotations

import contextlib
import mmap
import sys
from typing import Final

__all__ = ["new_buffer"]

_LAZY_FROM: Final = 4 * 1024 * 1024


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
