"""The peers: what is installed, which program drives it, and what it does not offer.

To add one: an adapter in ``adapters/`` (see ``ends.py`` there), and an entry here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

ADAPTERS: Final = Path(__file__).parent / "adapters"
ROOT: Final = Path(__file__).parents[2]

_THREADS: Final = "a call blocks its thread, and a thread cannot be cancelled"


class Peer(NamedTuple):
    """One row of the scoreboard."""

    name: str
    distribution: str
    """What the version is read from."""
    requirements: tuple[str, ...]
    """What pip installs."""
    adapter: str
    """The program, in ``adapters/``."""
    close: str
    """How a connection is closed, as its documentation says to."""
    cancel: str = ""
    """How a caller is cancelled."""
    setting: str = ""
    """What is set in this row that is not the default."""
    arguments: tuple[str, ...] = ()
    """For the adapter: what makes the setting."""
    probes: str = "ABCDEFG"
    absent: Mapping[str, str] = MappingProxyType({})
    """Probes that make no sense here, and why."""
    orderly: tuple[str, ...] = ()
    """Errors that say, by their documentation, that the connection was closed in good order."""

    @property
    def key(self) -> str:
        """The row's name in the results file."""
        return f"{self.name} ({self.setting})" if self.setting else self.name


_OWNER = "a connection is closed by its opener, by leaving the block"

PEERS: Final = (
    Peer(
        "orc_trio", "orc-trio", ("-e", str(ROOT)), "peer_orc_trio.py",
        close="await controller.disconnect()", cancel="a cancel scope",
    ),
    Peer(
        "orc_trio", "orc-trio", ("-e", str(ROOT)), "peer_orc_trio.py",
        close="await controller.disconnect()",
        setting="liveness_timeout=1.0", arguments=("--liveness", "1.0"), probes="F",
    ),
    Peer(
        "pycapnp", "pycapnp", ("pycapnp==2.2.4",), "peer_pycapnp.py",
        close="client.close()", cancel="task.cancel()",
    ),
    Peer(
        "grpcio.aio", "grpcio", ("grpcio==1.85.1",), "peer_grpcio.py",
        close="await channel.close()", cancel="task.cancel()",
    ),
    Peer(
        "grpcio.aio", "grpcio", ("grpcio==1.85.1",), "peer_grpcio.py",
        close="await channel.close()",
        setting="keepalive 1 s", arguments=("--keepalive",), probes="F",
    ),
    Peer(
        "grpclib", "grpclib", ("grpclib==0.4.9", "protobuf==7.36.2"), "peer_grpclib.py",
        close="channel.close()", cancel="task.cancel()",
    ),
    Peer(
        "mcp", "mcp", ("mcp==2.3.0",), "peer_mcp.py",
        close="leaving async with Client(...)", cancel="task.cancel()", absent={"E": _OWNER},
    ),
    Peer(
        "dask.distributed", "distributed", ("distributed==2026.8.0",), "peer_distributed.py",
        close="await rpc.close_rpc()", cancel="task.cancel()",
    ),
    Peer(
        "cbor-rpc", "cbor-rpc", ("cbor-rpc==1.0.1",), "peer_cbor_rpc.py",
        close="await pipe.terminate()", cancel="await handle.cancel()",
    ),
    Peer(
        "Twisted AMP", "twisted", ("twisted==26.10.0",), "peer_twisted.py",
        close="transport.loseConnection()", cancel="deferred.cancel()",
        orderly=("twisted.internet.error.ConnectionDone",),
    ),
    Peer(
        "execnet", "execnet", ("execnet==2.1.2",), "peer_execnet.py",
        close="group.terminate(timeout=1.0)", absent={"G": _THREADS},
    ),
    Peer(
        "rpyc", "rpyc", ("rpyc==6.0.2",), "peer_rpyc.py",
        close="connection.close()", absent={"G": _THREADS},
    ),
    Peer(
        "zerorpc", "zerorpc", ("zerorpc==0.6.3",), "peer_zerorpc.py",
        close="client.close()", cancel="greenlet.kill()",
    ),
    Peer(
        "purerpc", "purerpc", ("purerpc==0.8.0", "protobuf==7.36.2", "trio==0.35.0"), "peer_purerpc.py",
        close="leaving async with insecure_channel(...)", cancel="a cancel scope", absent={"E": _OWNER},
    ),
    Peer(
        "trio-jsonrpc", "trio-jsonrpc", ("trio-jsonrpc==0.4.0",), "peer_trio_jsonrpc.py",
        close="leaving async with open_jsonrpc_ws(...)", cancel="a cancel scope", absent={"E": _OWNER},
    ),
    Peer(
        "tractor", "tractor", ("tractor==0.1.0a5",), "peer_tractor.py",
        close="await portal.cancel_actor()", cancel="a cancel scope",
    ),
)  # fmt: skip


def chosen(names: Iterable[str]) -> list[Peer]:
    """The peers with those names, each with all its settings; all peers if none is named."""
    wanted = set(names)
    if unknown := wanted - {peer.name for peer in PEERS}:
        raise LookupError(f"no such peer: {', '.join(sorted(unknown))}")
    return [peer for peer in PEERS if not wanted or peer.name in wanted]
