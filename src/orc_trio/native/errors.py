"""What can go wrong with native code, as exceptions.

::

    OrcError
    └── NativeCodeError            something about native code; the message is one a user can act on
        ├── JitUnavailableError    llvmlite is not installed here (also an ImportError)
        ├── CompileError           the source is wrong, or no compiler could take it
        └── LinkError              the executor could not load the object, or a symbol is not there

A fault *in* the code is none of these: it ends the executor, so the controller sees a
`DisconnectedError` whose reason carries the exit status.
"""

from __future__ import annotations

from orc_trio.exceptions import OrcError


class NativeCodeError(OrcError):
    """Native code could not be compiled, loaded, found or run."""


class JitUnavailableError(NativeCodeError, ImportError):
    """llvmlite, which links and compiles native code, is not installed."""


class CompileError(NativeCodeError):
    """The source could not be compiled; the message is the compiler's, with file and line."""


class LinkError(NativeCodeError):
    """An object could not be loaded into the executor, or does not define a symbol asked for."""
