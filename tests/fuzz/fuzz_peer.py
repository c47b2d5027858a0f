# Fuzzes the protocol core: `nox -s fuzz`, or `python tests/fuzz/fuzz_peer.py -max_total_time=600 CORPUS`.
#
# The hostile peer and the laws are in hostile.py, which the default test run shares.

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["orc_trio"]):
    import hostile


def one_input(data: bytes) -> None:
    """Play one input, then end, and check the laws."""
    hostile.Play(hostile.Program(data)).run()


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
