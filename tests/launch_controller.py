# A controller, to be killed: starts the executor of launch_executor.py and makes it do something.
#
#     python launch_controller.py WHAT [OPTIONS OF THE EXECUTOR]
#
# WHAT: the wrapper function to call and wait for; "traffic": calls in both directions, without an end.

from __future__ import annotations

import pathlib
import sys

import trio

import orc_trio
from orc_trio.launch import ExecutorProcess, open_executor_process

EXECUTOR = str(pathlib.Path(__file__).with_name("launch_executor.py"))
registry = orc_trio.HandlerRegistry()


@registry.handler("ask")
async def ask(args: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return args[::-1]


async def traffic(executor: ExecutorProcess, name: str, size: int) -> None:
    while True:
        await executor.call_wrapper(executor.bootstrap.symbols[name], bytes(size))


async def main(*arguments: str) -> None:
    what, *options = arguments
    async with open_executor_process([sys.executable, EXECUTOR, *options], registry) as executor:
        if what == "traffic":
            async with trio.open_nursery() as nursery:
                for size in (10, 100_000, 1_000_000):
                    nursery.start_soon(traffic, executor, "call_back", size)
                    nursery.start_soon(traffic, executor, "echo", size)
                print("busy", flush=True)
        else:
            await executor.call_wrapper(executor.bootstrap.symbols[what], b"19")


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
