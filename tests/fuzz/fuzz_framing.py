# Fuzzes the frame decoder: `nox -s fuzz`, or `python tests/fuzz/fuzz_framing.py -max_total_time=600 CORPUS`.
#
# Laws (G25): any bytes give messages or a RemoteProtocolError, nothing else; how the bytes are cut makes no difference;
# no payload is larger than the limit; what was read can be written and read again.

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["orc_trio"]):
    from orc_trio.exceptions import RemoteProtocolError
    from orc_trio.wire import framing

MAX_PAYLOAD = 4096


def decode(chunks: list[bytes]) -> tuple[list[tuple[int, int, int, int, bytes]], bool]:
    """The messages in the chunks, and whether an error ended them."""
    decoder = framing.FrameDecoder(MAX_PAYLOAD, first_max=MAX_PAYLOAD)
    messages = []
    try:
        for chunk in chunks:
            messages += [(*message[:4], bytes(message.payload)) for message in decoder.feed(chunk)]
        decoder.raise_pending()
    except RemoteProtocolError:
        return messages, True
    return messages, False


def one_input(data: bytes) -> None:
    """Check the laws for one input."""
    provider = atheris.FuzzedDataProvider(data)
    size = provider.ConsumeIntInRange(1, 64)
    stream = provider.ConsumeBytes(provider.remaining_bytes())
    whole, failed = decode([stream])
    pieces, pieces_failed = decode([stream[at : at + size] for at in range(0, len(stream), size)])
    assert (whole, failed) == (pieces, pieces_failed)
    assert all(len(message[4]) <= MAX_PAYLOAD for message in whole)
    written = [framing.encode(framing.Message(*message)) for message in whole if message[0] < 24]
    assert decode(written)[1] is False
    assert len(decode(written)[0]) == len(written)


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
