# Writes a few well-formed conversations into a folder, for the fuzzers to begin with: python tests/fuzz/seeds.py FOLDER

from __future__ import annotations

import pathlib
import sys

import cbor2

from orc_trio.wire.framing import encode
from orc_trio.wire.messages import Message, Opcode

SETUP = cbor2.dumps({"version": 1, "role": "executor", "limits": {}, "identity": "seed"})
MESSAGES = [
    Message(Opcode.SETUP, 0, 0, 0, SETUP),
    Message(Opcode.CALL, 1, 1 << 63, (1 << 64) - 1, b"arguments"),
    Message(Opcode.CANCEL, 1, 0, 0, b""),
    Message(Opcode.PART, 2, 0, 8, b"half"),
    Message(Opcode.NESTED_CALL, 2, 4096, 1_000_000, b"half"),
    Message(Opcode.RESULT, 1, 0, 0, b"result"),
    Message(Opcode.PING, 0, 0, 7, b""),
    Message(Opcode.PONG, 0, 0, 7, b""),
    Message(Opcode.HANG_UP, 0, 0, 2, cbor2.dumps(None)),
]


def main(folder: pathlib.Path) -> None:
    """Write them: fixed-width, as any other CBOR library would, and all in one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, message in enumerate(MESSAGES):
        (folder / f"fixed-{number}").write_bytes(encode(message))
        (folder / f"short-{number}").write_bytes(cbor2.dumps(cbor2.dumps(list(message))))
    (folder / "conversation").write_bytes(b"".join(map(encode, MESSAGES)))


main(pathlib.Path(sys.argv[1]))
