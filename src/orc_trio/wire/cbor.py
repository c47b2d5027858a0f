"""Strict CBOR for the few payloads the protocol itself reads: setup, hang-up reasons, error results.

Rules (G25): definite lengths only; no duplicate keys; at most `MAX_DEPTH` levels; no trailing bytes; **no tag at
all**.  cbor2 by default turns tags into bignums, dates, regular expressions and shared references; each of those is
code an attacker may choose, so every tag number is mapped to an error, the known ones by ``semantic_decoders``, the
rest by ``tag_hook``.

Refused: anything that is not exactly one well-formed item.  What the item must contain is the caller's business; the
``expect_*`` helpers make those checks short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final, NoReturn

import cbor2

from orc_trio.exceptions import RemoteProtocolError

__all__ = ["MAX_DEPTH", "dumps", "loads_strict"]

MAX_DEPTH: Final = 8


def _refuse_tag(*_args: object) -> NoReturn:
    raise cbor2.CBORDecodeError("tags are not allowed")


class _EveryTag(dict[int, Callable[..., Any]]):
    """A mapping with the same refusal for every tag number."""

    def __missing__(self, _key: int) -> Callable[..., Any]:
        return _refuse_tag


# Tag numbers cbor2 knows: <https://cbor2.readthedocs.io/>, "Customizing"; listed so that a version which reads the
# mapping by items, not by lookup, refuses them too.
_KNOWN_TAGS: Final = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 43000, 52, 54, 100, 256, 258, 260, 261, 1004, 55799)
_REFUSE_ALL: Final[Mapping[int, Callable[..., Any]]] = _EveryTag(dict.fromkeys(_KNOWN_TAGS, _refuse_tag))


def dumps(value: Any) -> bytes:
    """Encode ``value``: definite lengths, shortest integers, no tags for the types the protocol uses."""
    return cbor2.dumps(value)


def loads_strict(data: bytes | memoryview, *, what: str = "payload") -> Any:
    """Decode exactly one CBOR item from ``data_untrusted``.

    Args:
        data: The bytes, as they came from the peer.
        what: Names the thing in error messages.

    Returns:
        The item: None, bool, int, float, str, bytes, list, dict, `cbor2.undefined` or a simple value.

    Raises:
        RemoteProtocolError: The bytes are not exactly one strict item.  The peer's fault.
    """
    data_untrusted = BytesIO(data)
    try:
        decoder = cbor2.CBORDecoder(
            data_untrusted,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSE_ALL,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            read_size=1,
        )
        item = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as exc:
        raise RemoteProtocolError(f"{what}: not strict CBOR: {_one_line(exc)}") from exc
    if trailing := len(data_untrusted.getbuffer()) - data_untrusted.tell():
        raise RemoteProtocolError(f"{what}: {trailing} bytes after the CBOR item")
    return item


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200]
