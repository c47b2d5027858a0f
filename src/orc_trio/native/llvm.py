"""The one door to llvmlite.

Nothing here is imported with the package: llvmlite is an extra, so every use goes through `binding()`, which
either returns `llvmlite.binding` or says in one line what to install. The result is `Any` on purpose: llvmlite
has no type information.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any, Final

from orc_trio.native.errors import JitUnavailableError

SOURCE_IS_WRONG: Final = 65
"""The exit status by which the compiling child process says that the source is at fault."""

INSTALL_HINT: Final = "native code needs llvmlite: install it with  pip install 'orc_trio[jit]'"


@functools.cache
def binding() -> Any:
    """Return `llvmlite.binding`, initialised for this machine's own code.

    Raises:
        JitUnavailableError: llvmlite is not installed; the message says what to do.
    """
    try:
        llvm = importlib.import_module("llvmlite.binding")
    except ImportError as exc:
        raise JitUnavailableError(INSTALL_HINT) from exc
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def available() -> bool:
    """Say whether native code can be compiled and linked here."""
    return importlib.util.find_spec("llvmlite") is not None  # without the third of a second that loading takes
