# Every way to a controller that we ship, and the two that the documentation shows, against all guarantees.
#
# Each of these becomes 26 tests: `pytest -k over_tcp`, `pytest -k "G12 and over_tcp"`.

from __future__ import annotations

from functools import partial

import attrs
import trio

from orc_trio.testing import QUICK_LIMITS, TrickleStream, conformance_tests, connected_pair, pairs_of
from queue_pairs import queue_access_pairs, queue_transports

over_memory = conformance_tests(pairs_of(partial(connected_pair, "memory")))
over_unix = conformance_tests(pairs_of(partial(connected_pair, "unix")))
over_tcp = conformance_tests(pairs_of(partial(connected_pair, "tcp")))
in_parts = conformance_tests(
    pairs_of(partial(connected_pair, "unix"), limits=attrs.evolve(QUICK_LIMITS, part_size=1024))
)
over_pipes = conformance_tests(pairs_of(partial(connected_pair, "pipes")))
in_process = conformance_tests(pairs_of(partial(connected_pair, "inprocess")))


async def trickling() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Two ends between which every message comes in many pieces."""
    one, other = await connected_pair("memory")
    return TrickleStream(one, 1021), TrickleStream(other, 509)


over_a_trickle = conformance_tests(pairs_of(trickling))
over_a_queue_of_messages = conformance_tests(pairs_of(queue_transports))
of_the_queue_example = conformance_tests(queue_access_pairs)
