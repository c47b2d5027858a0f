"""``python -m orc_trio.testing.explore_cli [WORLD …]``: explore, and print what was found.

Without names: every world.  The exit status is 1 if a law is broken somewhere, 2 if a name is unknown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orc_trio.testing.explore import explore_world
from orc_trio.testing.explore_plan import WORLDS

__all__ = ["main"]


def main(names: Sequence[str]) -> int:
    """Explore the worlds with these names; none: all of them.

    Returns:
        The exit status.
    """
    unknown = [name for name in names if name not in WORLDS]
    if unknown:
        print(f"no such world: {', '.join(unknown)}; there are: {', '.join(WORLDS)}", file=sys.stderr)
        return 2
    states = broken = 0
    for name in names or WORLDS:
        found = explore_world(WORLDS[name], name=name, progress=_say if sys.stderr.isatty() else None)
        print(found, flush=True)
        states += found.states
        broken += not found.complete
    print(f"{states:,} states in all; {broken} worlds with a broken law" if broken else f"{states:,} states in all")
    return int(broken > 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":  # pragma: no cover
    sys.exit(main(sys.argv[1:]))
