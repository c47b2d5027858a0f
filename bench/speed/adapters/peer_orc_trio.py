"""orc_trio, as ``orc-trio bench`` measures it."""

from __future__ import annotations

import peer_floor
from ends import main, near_trio

from orc_trio.bench.subjects import SUBJECTS

peer_floor.SUBJECT = SUBJECTS["orc_trio"]

if __name__ == "__main__":
    main(near_trio(peer_floor.connect), peer_floor.far)
