"""The wire: messages and their framing, sans-IO.

Nothing below this package knows about tasks, sockets or clocks.  `orc_trio.wire.messages` says what a message is,
`orc_trio.wire.framing` how its bytes look, `orc_trio.wire.cbor` how the few structured payloads are read.
"""

from orc_trio.wire.cbor import dumps, loads_strict
from orc_trio.wire.framing import HEAD_SIZE, FrameDecoder, encode, encode_head
from orc_trio.wire.messages import NO_DEADLINE, NO_SEQ, Message, Opcode, PartOf, ResultKind

__all__ = [
    "HEAD_SIZE",
    "NO_DEADLINE",
    "NO_SEQ",
    "FrameDecoder",
    "Message",
    "Opcode",
    "PartOf",
    "ResultKind",
    "dumps",
    "encode",
    "encode_head",
    "loads_strict",
]
