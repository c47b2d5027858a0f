"""zerorpc over a Unix socket.  Its callers are greenlets: what `ends` does for other styles is done here for gevent."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import gevent
import zerorpc
from ends import Far, Reporter, listening, main, start_far
from gevent.fileobject import FileObjectThread


def near(report: Reporter) -> None:
    client = zerorpc.Client()
    client.connect(start_far(report))
    client.echo()
    greenlets: dict[int, gevent.Greenlet] = {}

    def operate(op: int, act: Callable[[], object]) -> None:
        report("begun", op=op)
        try:
            act()
        except gevent.GreenletExit as exc:
            report.settled(op, "cancelled", exc)
        except BaseException as exc:
            report.settled(op, "error", exc)
        else:
            report.settled(op, "result")

    report("connected")
    for line in FileObjectThread(sys.stdin.buffer, "rb"):
        command = json.loads(line)
        match command["do"]:
            case "call":
                greenlets[command["op"]] = gevent.spawn(operate, command["op"], getattr(client, command["name"]))
            case "close":
                for op in command["ops"]:
                    gevent.spawn(operate, op, client.close)
            case "cancel":
                report("cancelling", op=command["op"])
                greenlets[command["op"]].kill(block=False)


def far(report: Reporter, handlers: Far) -> None:
    class Service:
        def wait(self) -> None:
            handlers.wait_blocking(gevent.sleep)

        def echo(self) -> None:
            pass

    server = zerorpc.Server(Service())
    address = f"ipc://{report.path}.zerorpc"
    server.bind(address)
    listening(address)
    server.run()


if __name__ == "__main__":
    main(near, far)
