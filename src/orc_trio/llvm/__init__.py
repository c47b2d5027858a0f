"""The real LLVM at the other end: its wire below our protocol core, and its wrapper functions.

What LLVM's protocol cannot carry, nothing above it can promise there; `orc_trio.llvm.translation` says what that is.
"""

from orc_trio.llvm.calls import call_sps
from orc_trio.llvm.executor import RemoteExecutor
from orc_trio.llvm.launch import find_llvm_executor, open_llvm_executor
from orc_trio.llvm.memory import Protection, Segment
from orc_trio.llvm.serving import install_llvm
from orc_trio.llvm.transport import SimpleRemoteTransport
from orc_trio.wire.simple_remote import Dialect

__all__ = [
    "Dialect",
    "Protection",
    "RemoteExecutor",
    "Segment",
    "SimpleRemoteTransport",
    "call_sps",
    "find_llvm_executor",
    "install_llvm",
    "open_llvm_executor",
]
