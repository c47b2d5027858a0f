"""``python -m orc_trio``: the same as ``orc-trio``."""

from __future__ import annotations

import sys

from orc_trio.cli import main

if __name__ == "__main__":
    sys.exit(main())
