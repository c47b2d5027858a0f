# Memory for large payloads.

from __future__ import annotations

import gc
import weakref

import pytest

from orc_trio.wire.buffers import new_buffer

MIB = 2**20


@pytest.mark.parametrize("size", [1, 100_000, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 64 * MIB])
def test_a_buffer(size: int) -> None:
    """It has the size that was asked for, is zero, and can be written to."""
    buffer = memoryview(new_buffer(size))
    assert (len(buffer), buffer.format, buffer.readonly) == (size, "B", False)
    assert (buffer[0], buffer[-1]) == (0, 0)
    buffer[-1] = 7
    rest = buffer[size // 2 :]
    del buffer
    assert rest[-1] == 7


def test_it_goes_with_its_last_reference() -> None:
    """G19: What the system gave goes back."""
    buffer = new_buffer(4 * MIB)
    pages = weakref.ref(buffer)
    rest = memoryview(buffer)[-1:]
    del buffer
    assert pages() is not None
    del rest
    gc.collect()
    assert pages() is None


def test_more_than_there_is() -> None:
    """It says so."""
    with pytest.raises(MemoryError, match="bytes for a payload"):
        new_buffer(2**62)
