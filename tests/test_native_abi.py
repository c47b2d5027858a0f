"""The C ABI: what `abi` makes is what `orc_trio.h` says, and buffers survive the way there and back."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import WrapperFunctionError
from orc_trio.native import INCLUDE_DIRECTORY, NativeCodeError, abi


@given(st.binary(max_size=40))
def test_bytes_survive_a_buffer(data: bytes) -> None:
    """A buffer gives back the bytes it was made of."""
    assert abi.take(abi.make(data)) == data


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 65536, 3_000_000])
def test_size_decides_where_the_bytes_are(size: int) -> None:
    """Up to eight bytes travel inside the buffer, more behind a pointer."""
    buffer = abi.make(bytes(range(1, 256)) * (size // 255) + bytes(range(1, size % 255 + 1)))
    assert buffer.size == size
    assert abi.take(buffer) == (bytes(range(1, 256)) * (size // 255) + bytes(range(1, size % 255 + 1)))


@pytest.mark.parametrize("data", [bytearray(b"0123456789"), memoryview(b"0123456789")])
def test_any_bytes_like_object_can_be_sent(data: bytearray | memoryview) -> None:
    """A buffer is made of any bytes-like object, by copying."""
    assert abi.take(abi.make(data)) == b"0123456789"


@pytest.mark.parametrize(
    ("text", "arrives"),
    [("it broke", "it broke"), ("", "unknown error"), ("ä\0tail", "ä"), ("x" * 100_000, "x" * abi.MAX_ERROR_TEXT)],
)
def test_an_error_is_no_bytes(text: str, arrives: str) -> None:
    """G10: an out-of-band error is distinct from every byte result, never empty, and bounded."""
    buffer = abi.make_error(text)
    assert buffer.size == 0
    assert buffer.word
    with pytest.raises(WrapperFunctionError) as caught:
        abi.take(buffer)
    assert (caught.value.remote_type, caught.value.message) == (abi.NATIVE_ERROR, arrives)


@pytest.mark.parametrize("buffer", [abi.Buffer(0, 100), abi.Buffer(0, 2**63)])
def test_a_null_pointer_is_not_followed(buffer: abi.Buffer) -> None:
    """A buffer that claims bytes at the null pointer is an error, not a crash."""
    with pytest.raises(WrapperFunctionError, match="null pointer"):
        abi.take(buffer)


def test_an_impossible_size_is_not_believed() -> None:
    """A buffer that claims more bytes than can be is an error; what it points to is freed."""
    buffer = abi.make(b"0123456789")
    buffer.size = 2**60
    with pytest.raises(WrapperFunctionError, match="buffer of 1152921504606846976 bytes"):
        abi.take(buffer)


def test_other_platforms_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a buffer would travel otherwise than declared, nothing is called."""
    abi.check_platform()
    monkeypatch.setattr("sys.byteorder", "big")
    with pytest.raises(NativeCodeError, match="64-bit little-endian"):
        abi.check_platform()


def test_discard_takes_any_buffer() -> None:
    """Whatever a buffer holds can be freed unseen."""
    for buffer in (abi.make(b""), abi.make(b"12345678"), abi.make(b"123456789"), abi.make_error("x")):
        abi.discard(buffer)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_header_and_python_agree(tmp_path: Path) -> None:
    """The header compiles without warnings as C and C++, and its structs have the sizes and offsets of ours."""
    probe = tmp_path / "probe.c"
    probe.write_text(
        "#include <orc_trio.h>\n#include <stdio.h>\n"
        'int main(void) { printf("%zu %zu %zu %zu %zu %d", sizeof(orc_trio_buffer), offsetof(orc_trio_buffer, size),'
        " sizeof(orc_trio_session), offsetof(orc_trio_session, call_controller), offsetof(orc_trio_session, find_tag),"
        " ORC_TRIO_ABI_VERSION); return 0; }\n"
    )
    strict = ["-Wall", "-Wextra", "-Werror", f"-I{INCLUDE_DIRECTORY}"]
    subprocess.run(["cc", *strict, "-std=c99", "-o", tmp_path / "probe", probe], check=True)
    if shutil.which("c++"):
        subprocess.run(["c++", *strict, "-x", "c++", "-fsyntax-only", probe], check=True)
    printed = subprocess.run([tmp_path / "probe"], check=True, capture_output=True, text=True).stdout
    ours = (
        ctypes.sizeof(abi.Buffer),
        abi.Buffer.size.offset,  # type: ignore[attr-defined]
        ctypes.sizeof(abi.SessionStruct),
        abi.SessionStruct.call_controller.offset,
        abi.SessionStruct.find_tag.offset,
        abi.ABI_VERSION,
    )
    assert tuple(map(int, printed.split())) == ours
