"""What a test module writes to have a controller access checked by pytest; the plugin makes tests of it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from orc_trio.testing.conformance.pair import PairFactory

__all__ = ["ConformanceTests", "conformance_tests"]


@attrs.frozen(eq=False)
class ConformanceTests:
    """Stands for one test for each guarantee.  Made by `conformance_tests`.

    Attributes:
        factory: Makes the pairs.
        only: The guarantees to check; none: all.
    """

    factory: PairFactory
    only: tuple[str, ...] = ()


def conformance_tests(factory: PairFactory, *, only: Sequence[str] = ()) -> ConformanceTests:
    """Have pytest check a controller access: a test for each guarantee.

    At the top level of a test module::

        my_access = orc_trio.testing.conformance_tests(my_pairs)

    becomes ``test_mine.py::my_access::G1 exactly once`` and so on.  A check that does not apply is skipped, with its
    reason.

    Args:
        factory: Makes the pairs.
        only: The guarantees to check, as in ``["G4", "G12"]``; default: all.
    """
    return ConformanceTests(factory, tuple(only))
