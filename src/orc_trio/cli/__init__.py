"""The command line: ``orc-trio run | executor | call | decode | conformance | bench``.

Rules
-----
* An error is one line on stderr: what is wrong, and the way out.  A traceback is a bug of ours.
* The exit codes are those of `orc_trio.cli.exits`; ``run`` gives its program's.
* What a peer sent is shown with control characters made visible: it may not drive the terminal.
* SIGINT and SIGTERM end a command through its cancel scopes, so that everything is closed; a second one ends it at
  once.
* Commands are imported when they are used: ``decode`` does not pay for the compiler.

Nothing imports this package but the console script and ``__main__``.
"""

from __future__ import annotations

from orc_trio.cli.commands import main

__all__ = ["main"]
