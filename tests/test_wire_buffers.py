# Memory for large payloads.

from __future__ import annotations

import gc
import platform
import subprocess
import sys
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


# In a process of its own, whose memory has no history.
FAULTS = """
import resource, trio
from orc_trio.bench.subjects import open_here

async def main():
    async with open_here("orc_trio", 1) as (round_trip,):
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                await round_trip(bytes(1024 * 1024))
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(faults / 20)

trio.run(main)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the memory of glibc")
def test_pages_are_used_again() -> None:
    """A payload of 1 MiB goes there and back without new pages from the system for each; at first there are 512."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < 64
