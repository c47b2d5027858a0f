"""A controller that compiles callback.c, loads it into an executor, calls its functions, and serves their call-backs.

    python native_callback.py

Needs the extra `jit` and a C compiler.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

import orc_trio
from orc_trio.native import Target, compile_program, load_object

LINES = ["one", "and another", "last"]
INPUT, LOG = 0x1000, 0x2000
"""The handler tags: any numbers, as long as both ends mean the same by them."""


async def main() -> None:
    """Be the controller."""
    registry = orc_trio.HandlerRegistry()
    lines = iter(LINES)

    async def read(args: bytes) -> bytes:
        return b"you asked for " + args if args else next(lines, "").encode()

    async def log(args: bytes) -> bytes:
        print("log:", args.decode())
        return b""

    registry.register(INPUT, read)
    registry.register(LOG, log)
    command = [sys.executable, "-m", "orc_trio", "executor"]
    async with orc_trio.open_executor_process(command, registry) as controller:
        source = Path(__file__).with_name("callback.c")
        compiled = await compile_program(source, Target.of(controller.bootstrap))
        program = await load_object(controller, compiled, name="callback", tags={"input": INPUT, "log": LOG})
        print((await program.call("greet", b"Ada")).decode())
        try:
            await program.call("greet")
        except orc_trio.WrapperFunctionError as exc:
            print("error:", exc.message)
        print((await program.call("relay", b"tea")).decode())
        print("main returned", await program.run_main())
        await program.unload()
    print("the end:", controller.disconnect_reason)


if __name__ == "__main__":
    trio.run(main)
