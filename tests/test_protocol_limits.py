# Limits: what a figure may be, and what two ends agree on.

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import RemoteProtocolError
from orc_trio.protocol import AGREED_FIELDS, Limits
from orc_trio.protocol.limits import MAX_MAX_MESSAGE, MIN_MAX_MESSAGE, agree

figures = st.builds(
    dict,
    max_calls=st.integers(1, 2**63 - 1),
    max_nested_calls=st.integers(0, 2**63 - 1),
    max_bytes=st.integers(MAX_MAX_MESSAGE, 2**63 - 1),
    max_message=st.integers(MIN_MAX_MESSAGE, MAX_MAX_MESSAGE),
)


def test_the_defaults() -> None:
    """G8, G15: the documented defaults."""
    assert attrs.asdict(Limits()) == {
        "max_calls": 1024,
        "max_nested_calls": 1024,
        "max_bytes": 64 << 20,
        "max_message": 64 << 20,
        "setup_timeout": 10.0,
        "drain_timeout": 5.0,
        "handler_grace": 0.0,
        "liveness_timeout": None,
        "part_size": None,
        "send_buffer": None,
    }


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        ({"max_calls": 0}, "max_calls must be a whole number of at least 1"),
        ({"max_calls": 1.0}, "max_calls must be a whole number"),
        ({"max_calls": True}, "max_calls must be a whole number"),
        ({"max_calls": 2**63}, "max_calls must be below"),
        ({"max_nested_calls": -1}, "max_nested_calls must be a whole number of at least 0"),
        ({"max_bytes": 0}, "max_bytes must be"),
        ({"max_message": 65535}, "max_message must be at least 65536 bytes, not 65535"),
        ({"max_message": 2**32, "max_bytes": 2**33}, "max_message must be at most"),
        ({"max_message": 65537, "max_bytes": 65536}, "max_bytes .65536. must not be less than max_message .65537."),
        ({"setup_timeout": -1}, "setup_timeout must be a number of seconds"),
        ({"drain_timeout": math.nan}, "drain_timeout must be a number of seconds"),
        ({"drain_timeout": "5"}, "drain_timeout must be a number of seconds"),
        ({"liveness_timeout": True}, "liveness_timeout must be a number of seconds"),
        ({"send_buffer": 0}, "send_buffer must be a whole number of at least 1"),
        ({"send_buffer": 2**31}, r"send_buffer must be below 2\*\*31"),
    ],
)
def test_figures_that_cannot_be(figure: dict[str, Any], text: str) -> None:
    """G8: max_bytes ≥ max_message ≥ 64 KiB and sane figures, or an error that says what is wrong."""
    with pytest.raises(ValueError, match=text):
        Limits(**figure)


def test_the_smallest_and_the_largest() -> None:
    """G8: the bounds themselves are allowed."""
    smallest = Limits(max_calls=1, max_nested_calls=0, max_bytes=65536, max_message=65536, drain_timeout=0)
    assert smallest.problem() is None
    Limits(max_bytes=2**63 - 1, max_message=MAX_MAX_MESSAGE, setup_timeout=math.inf, liveness_timeout=3)


@given(figures, figures)
def test_both_ends_agree_on_the_same(ours: dict[str, int], theirs: dict[str, int]) -> None:
    """G8: what is in force is the smaller figure, the same at both ends; the times stay each end's own."""
    here = agree(Limits(**ours, drain_timeout=1.5), theirs)
    there = agree(Limits(**theirs), ours)
    for name in AGREED_FIELDS:
        assert getattr(here, name) == getattr(there, name) == min(ours[name], theirs[name])
    assert (here.drain_timeout, there.drain_timeout) == (1.5, 5.0)


@pytest.mark.parametrize(
    "figure", [{"max_calls": 0}, {"max_message": 1}, {"max_bytes": 65536, "max_message": 2**20}, {"max_bytes": 0}]
)
def test_figures_that_do_not_fit_are_the_peers_fault(figure: dict[str, int]) -> None:
    """G8: a peer that announces figures that do not fit together is refused, and told how."""
    theirs = {name: getattr(Limits(), name) for name in AGREED_FIELDS} | figure
    with pytest.raises(RemoteProtocolError, match=r"must (not )?be"):
        agree(Limits(), theirs)


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_a_liveness_timeout_of_nothing_is_refused(zero: float) -> None:
    """G17: A liveness timeout of zero seconds is refused; None switches the check off, and any other is one."""
    with pytest.raises(ValueError, match="liveness_timeout must be more than 0 seconds; None switches the check off"):
        Limits(liveness_timeout=zero)
    for timeout in (None, 0.001, 1, math.inf):
        assert Limits(liveness_timeout=timeout).liveness_timeout == timeout
