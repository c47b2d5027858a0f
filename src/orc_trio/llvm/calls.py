"""Calling LLVM's wrapper functions: arguments and results in SPS."""

from __future__ import annotations

from typing import Any, TypeVar

from orc_trio.controller import Controller
from orc_trio.wire import sps

__all__ = ["call_sps"]

T = TypeVar("T")


async def call_sps(controller: Controller, signature: sps.Signature[T], address: int, *args: Any) -> T:
    """Call a wrapper function whose signature is known.

    Args:
        controller: The controller of the executor that has it.
        signature: Its signature.
        address: Its address.
        *args: Its arguments.

    Returns:
        Its result; an error that it passes as a value is a `Failure`.

    Raises:
        TypeError, ValueError: The arguments do not fit the signature.
        RemoteProtocolError: The result does not.
        OrcError: As for `Controller.call_wrapper`.

    Checkpoints:
        Always.

    Cancellation:
        As there.
    """
    answer = await controller.call_wrapper(address, signature.arguments.pack(args), zero_copy=True)
    return signature.result.unpack(answer)
