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


# One of its requirements is a commit on GitHub, of its debugger: the release does as well here.  Trio 0.23 is the last
# with `MultiError`.
_TRACTOR: Final = (
    "--no-deps", "tractor==0.1.0a5", "trio==0.23.2", "attrs==26.1.0", "idna==3.20", "outcome==1.3.0.post0",
    "sniffio==1.3.1", "sortedcontainers==2.4.0", "async-generator==1.10", "trio-typing==0.10.0", "tricycle==0.3.0",
    "colorlog==6.12.0", "wrapt==2.5.2", "msgspec==0.22.0", "pdbpp==0.12.1", "fancycompleter==0.11.1",
    "pyrepl==0.11.5", "Pygments==2.21.0", "typing-extensions==4.16.0",
)  # fmt: skip

PEERS: Final = (
    Peer("floor", "trio", (), "peer_floor.py"),
    Peer("asyncio + msgpack", "msgpack", ("msgpack==1.2.4",), "peer_msgpack.py"),
    Peer("Pyro5", "Pyro5", ("Pyro5==5.17",), "peer_pyro5.py"),
    Peer("rpyc", "rpyc", ("rpyc==6.0.2",), "peer_rpyc.py"),
    Peer("pycapnp", "pycapnp", ("pycapnp==2.2.4",), "peer_pycapnp.py"),
    Peer("grpcio.aio", "grpcio", ("grpcio==1.85.1",), "peer_grpcio.py"),
    Peer("grpclib", "grpclib", ("grpclib==0.4.9", "protobuf==7.36.2"), "peer_grpclib.py"),
    Peer("purerpc", "purerpc", ("purerpc==0.8.0", "protobuf==7.36.2", "trio==0.35.0"), "peer_purerpc.py", "tcp"),
    Peer("tractor", "tractor", _TRACTOR, "peer_tractor.py", "tcp"),
)


def chosen(names: Iterable[str]) -> list[Peer]:
    """The peers with those names; all if none is named."""
    wanted = set(names)
    if unknown := wanted - {peer.name for peer in PEERS}:
        raise LookupError(f"no such peer: {', '.join(sorted(unknown))}")
    return [peer for peer in PEERS if not wanted or peer.name in wanted]
