# The numbers of the wire are frozen: a stranger's peer depends on them.

from __future__ import annotations

from orc_trio import wire
from orc_trio.wire import NO_DEADLINE, NO_SEQ, Message, Opcode, PartOf, ResultKind


def test_the_numbers_of_the_wire() -> None:
    """G25: opcodes, result kinds and kinds of part have these numbers in version 1."""
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "SETUP": 0,
        "HANG_UP": 1,
        "RESULT": 2,
        "CALL": 3,
        "CANCEL": 4,
        "PING": 5,
        "PONG": 6,
        "NESTED_CALL": 7,
        "PART": 8,
    }
    assert {kind.name: kind.value for kind in ResultKind} == {"VALUE": 0, "ERROR": 1, "CANCELLED": 2, "REFUSED": 3}
    assert {part.name: part.value for part in PartOf} == {"CALL": 0, "RESULT": 1}
    assert (NO_SEQ, NO_DEADLINE) == (0, 2**64 - 1)


def test_a_message_is_five_values() -> None:
    """A message is opcode, sequence number, tag, aux, payload; all but the opcode may be left out."""
    assert Message(Opcode.PING) == (5, 0, 0, 0, b"")
    assert Message._fields == ("opcode", "seq", "tag", "aux", "payload")


def test_what_the_package_offers() -> None:
    """Every name the package announces is there."""
    assert all(hasattr(wire, name) for name in wire.__all__)
