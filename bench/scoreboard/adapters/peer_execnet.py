"""execnet: a gateway to a local process; a call is a function executed there, and its channel."""

from __future__ import annotations

from pathlib import Path

import execnet
from ends import Far, Reporter, main, near_threads


def remote(channel, adapters, pipe, name):
    """Sent as source text: it must bring everything along."""
    import sys

    sys.path.insert(0, adapters)
    from ends import Far, Reporter

    far = Far(Reporter(pipe))
    if name == "wait":
        far.wait_blocking()
    channel.send(None)


class Connection:
    def __init__(self, report: Reporter) -> None:
        self.path = report.path
        self.group = execnet.Group()
        self.gateway = self.group.makegateway("popen")
        self.call("echo")

    def call(self, name: str) -> object:
        adapters = str(Path(__file__).parent)
        return self.gateway.remote_exec(remote, adapters=adapters, pipe=self.path, name=name).receive()

    def close(self) -> None:
        self.group.terminate(timeout=1.0)  # as the library does at exit; the default is to wait without end


def far(report: Reporter, handlers: Far) -> None:
    raise NotImplementedError("the far end is execnet's own program")


if __name__ == "__main__":
    main(near_threads(Connection), far)
