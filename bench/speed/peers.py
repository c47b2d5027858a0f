"""The peers: what is installed, and which program drives it.

To add one: an adapter in ``adapters/`` (see ``ends.py`` there), and an entry here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

ADAPTERS: Final = Path(__file__).parent / "adapters"
SUBJECT: Final = ADAPTERS / "peer_orc_trio.py"
"""What is compared with them; it needs no environment of its own, nor does the floor."""


class Peer(NamedTuple):
    """One that is compared with."""

    name: str
    distribution: str
    """What the version is read from."""
    requirements: tuple[str, ...]
    """What pip installs; nothing: it runs where we do."""
    adapter: str
    """The program, in ``adapters/``."""
    kind: str = "unix"
    """How it connects: ``"unix"`` or ``"tcp"``; we do the same beside it."""


PEERS: Final = (
    Peer("floor", "trio", (), "peer_floor.py"),
    Peer("asyncio + msgpack", "msgpack", ("msgpack==1.2.4",), "peer_msgpack.py"),
    Peer("Pyro5", "Pyro5", ("Pyro5==5.17",), "peer_pyro5.py"),
    Peer("rpyc", "rpyc", ("rpyc==6.0.2",), "peer_rpyc.py"),
    Peer("pycapnp", "pycapnp", ("pycapnp==2.2.4",), "peer_pycapnp.py"),
    Peer("grpcio.aio", "grpcio", ("grpcio==1.85.1",), "peer_grpcio.py"),
    Peer("grpclib", "grpclib", ("grpclib==0.4.9", "protobuf==7.36.2"), "peer_grpclib.py"),
    Peer("purerpc", "purerpc", ("purerpc==0.8.0", "protobuf==7.36.2", "trio==0.35.0"), "peer_purerpc.py", "tcp"),
)


def chosen(names: Iterable[str]) -> list[Peer]:
    """The peers with those names; all if none is named."""
    wanted = set(names)
    if unknown := wanted - {peer.name for peer in PEERS}:
        raise LookupError(f"no such peer: {', '.join(sorted(unknown))}")
    return [peer for peer in PEERS if not wanted or peer.name in wanted]
