"""Controller and executor in pure Python: no native code, nothing but orc_trio.

    python python_only.py [TEXT...]

The program starts itself a second time as an executor, which offers two functions.  `count` counts words, and asks the
controller which words it should leave out; `fail` shows what an error looks like at the other end.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import trio

import orc_trio

TEXT = "the executor runs what the controller sends and the controller serves what the executor calls"


def prepare(session: orc_trio.Session, bootstrap: orc_trio.BootstrapInfo) -> None:
    """Say what this executor offers."""
    stop_words_tag = bootstrap.add_tag("stop_words")

    async def count(args: bytes) -> bytes:
        stop_words = json.loads(await session.call_controller(stop_words_tag, b""))
        words = Counter(word for word in args.decode().split() if word not in stop_words)
        return json.dumps(words.most_common(3)).encode()

    async def fail(args: bytes) -> bytes:
        raise orc_trio.WrapperFunctionError("OutOfPaper", f"cannot print {len(args)} bytes")

    bootstrap.add_wrapper("count", count)
    bootstrap.add_wrapper("fail", fail)


async def control(text: str) -> None:
    """Be the controller."""
    registry = orc_trio.HandlerRegistry()

    @registry.handler("stop_words")
    async def stop_words(_args: bytes) -> bytes:
        print("the executor asks for stop words")
        return json.dumps(["the", "what", "and"]).encode()

    command = [sys.executable, __file__, "--execute"]
    async with orc_trio.open_executor_process(command, registry) as controller:
        symbols = controller.bootstrap.symbols
        for word, times in json.loads(await controller.call_wrapper(symbols["count"], text.encode())):
            print(f"{times} × {word}")
        try:
            await controller.call_wrapper(symbols["fail"], text.encode())
        except orc_trio.WrapperFunctionError as exc:
            print(f"an error from the executor: {exc.remote_type}: {exc.message}")
        print("the end:", await controller.disconnect())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--execute"]:  # the last argument is where the controller is
        orc_trio.run_executor(prepare)
    else:
        trio.run(control, " ".join(sys.argv[1:]) or TEXT)
