# A hostile peer, played from any bytes: the same laws are tried by hypothesis in the default run and by atheris.
#
# The bytes are a program: each step either sends this end a message (any message, well-formed or not), or lets this
# end's own program call, cancel, answer, ping, send or hang up.
#
# Laws: nothing the peer sends raises (G25); every accepted call settles exactly once (G1); the latch falls once (G11);
# after it nothing is accepted (G2, G21) and no handler starts (G13); the hang-up is the last message out (G14); what is
# held stays within the agreed limits whatever the peer does (G8).

from __future__ import annotations

from orc_trio.exceptions import OrcError
from orc_trio.protocol import (
    CallReceived,
    CallSettled,
    Cancelled,
    Failed,
    InboundCall,
    Latched,
    Limits,
    OutboundCall,
    Peer,
    PeerState,
    Refused,
    Role,
    Setup,
    Value,
)
from orc_trio.protocol.setup import encode_setup
from orc_trio.reasons import DisconnectKind, DisconnectReason
from orc_trio.wire import Message, Opcode, dumps
from orc_trio.wire.messages import U64_MAX

KIB = 1024
LIMITS = Limits(max_calls=3, max_nested_calls=2, max_bytes=64 * KIB, max_message=64 * KIB)
PLACES = LIMITS.max_calls + LIMITS.max_nested_calls
LOCAL = DisconnectReason(DisconnectKind.LOCAL_HANGUP)
SETUP = encode_setup(Setup.of(Role.EXECUTOR, LIMITS))
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 255, 64 * KIB, 64 * KIB + 1, 2**63, U64_MAX - 1, U64_MAX)
PAYLOADS = (b"", b"", b"a", b"abcdefghi", bytes(30 * KIB), bytes(64 * KIB), bytes(64 * KIB + 1), SETUP)
STRUCTURED = (dumps(None), dumps({"type": "T", "message": "m"}), dumps({"kind": "k"}), dumps([1]), b"\xc2\x40", b"\xff")
ANSWERS = (Value(b""), Value(bytes(40 * KIB)), Value(bytes(65 * KIB)), Failed("T", "m"), Refused("r"), Cancelled())


class Program:
    """Numbers out of bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def number(self, below: int) -> int:
        self.at += 1
        return self.data[self.at - 1] % below if self.at <= len(self.data) else 0

    def raw(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]


class Play:
    """One connection, and what has been seen of it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.peer = Peer(Role.CONTROLLER, LIMITS)
        self.made: list[OutboundCall] = []
        self.left: set[OutboundCall] = set()
        self.settled: set[OutboundCall] = set()
        self.serving: list[InboundCall] = []
        self.latches = 0
        self.hung_up = False

    def run(self) -> None:
        if self.program.number(16):
            self.peer.receive(Message(Opcode.SETUP, payload=SETUP))
        self.observe()
        while self.program:
            self.step()
            self.observe()
        self.peer.latch(LOCAL)
        self.observe()
        while self.peer.has_output:
            self.take()
        self.observe()
        self.peer.end()
        assert self.hung_up
        assert self.latches == 1
        assert all((call in self.settled) != (call in self.left) for call in self.made)
        held = self.peer.statistics()
        assert held.state is PeerState.CLOSED
        assert not any((held.pending_calls, held.waiting_calls, held.abandoned_calls, held.bytes_in_flight))
        assert not any((held.served_calls, held.waiting_results, held.queued_messages, held.queued_bytes))

    def step(self) -> None:
        program = self.program
        match program.number(12):
            case 0:
                self.call(PAYLOADS[program.number(len(PAYLOADS))], nested=False)
            case 1:
                self.call(PAYLOADS[program.number(len(PAYLOADS))], nested=True)
            case 2 if self.made:
                call = self.made[program.number(len(self.made))]
                if call not in self.settled:
                    self.left.add(call)
                self.peer.cancel(call)
            case 3 | 4 if self.serving:
                call = self.serving.pop(program.number(len(self.serving)))
                self.peer.respond(call, ANSWERS[program.number(len(ANSWERS))])
            case 5:
                self.peer.ping()
            case 6:
                self.take()
            case 7 if program.number(8) == 1:
                self.peer.latch(LOCAL)
            case _:
                self.peer.receive(self.message())

    def message(self) -> Message:
        program = self.program
        opcode = program.number(10)
        seq, tag, aux = (NUMBERS[program.number(len(NUMBERS))] for _ in range(3))
        match program.number(4):
            case 0:
                payload = program.raw(program.number(16))
            case 1:
                payload = STRUCTURED[program.number(len(STRUCTURED))]
            case _:
                payload = PAYLOADS[program.number(len(PAYLOADS))]
        return Message(opcode, seq, tag, aux, memoryview(payload) if program.number(2) else payload)

    def call(self, payload: bytes, *, nested: bool) -> None:
        try:
            self.made.append(self.peer.call(1, payload, nested=nested))
        except OrcError:
            return
        assert not self.latches

    def take(self) -> None:
        for message in self.peer.take(max_bytes=4 * KIB):
            assert not self.hung_up
            self.hung_up = message.opcode == Opcode.HANG_UP

    def observe(self) -> None:
        """Act on the events as a shell would, and check the laws."""
        for event in self.peer.poll_events():
            if isinstance(event, CallSettled):
                assert event.call not in self.settled
                assert event.call not in self.left
                self.settled.add(event.call)
            elif isinstance(event, CallReceived):
                assert not self.latches
                self.serving.append(event.call)
            elif isinstance(event, Latched):
                self.latches += 1
                assert set(self.made) == self.settled | self.left
        assert self.latches == (self.peer.cause is not None)
        held = self.peer.statistics()
        assert held.pending_calls + held.abandoned_calls <= PLACES
        assert held.served_calls <= PLACES
        assert held.bytes_in_flight <= 2 * LIMITS.max_bytes
        if not self.latches:
            assert held.queued_messages <= 3 * PLACES + 3
            assert held.queued_bytes <= 3 * LIMITS.max_bytes
