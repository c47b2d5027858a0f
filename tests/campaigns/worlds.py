# Random worlds: two ends' plans, and what goes wrong between them, drawn from one number.
#
# A world here is that of the exploration (`orc_trio.testing.World`), so that the same laws apply to it.

from __future__ import annotations

import random

import attrs

from campaigns.channel import Fault
from orc_trio import Limits
from orc_trio.testing import Answer, Caller, EndPlan, World

KIB = 1024
SIZES = (0, 0, 1, 200, 5000, 64 * KIB)


@attrs.frozen(kw_only=True)
class Draw:
    """One world, and how it is run.

    Attributes:
        world: What may happen.
        capacity: Bytes that the channel holds in each direction.
        outward: What goes wrong from the controller to the executor.
        inward: The same, the other way.
        scripted: Everybody calls at once, and whoever disconnects does so when all have had their answers.
    """

    world: World
    capacity: int
    outward: Fault | None = None
    inward: Fault | None = None
    scripted: bool = False


def caller(dice: random.Random) -> Caller:
    return Caller(
        size=dice.choice(SIZES),
        result=dice.choice(SIZES),
        answer=dice.choice([Answer.VALUE, Answer.VALUE, Answer.ERROR]),
        nested=dice.random() < 0.25,
    )


def end(dice: random.Random, limits: Limits) -> EndPlan:
    return EndPlan(
        callers=tuple(caller(dice) for _ in range(dice.choice([0, 1, 2, 3, 6]))),
        cancels=dice.choice([0, 0, 1, 2]),
        disconnects=dice.choice([0, 0, 1, 3]),
        finishes=dice.choice([0, 0, 0, 1]),
        limits=limits,
    )


def fault(dice: random.Random) -> Fault | None:
    kind = dice.choice([None, None, "cut", "cut", "freeze", "fail send", "fail receive"])
    if kind is None:
        return None
    if kind.startswith("fail"):
        return Fault(kind, dice.randrange(8))
    return Fault(kind, dice.choice([dice.randrange(400), dice.randrange(3000), dice.randrange(200_000)]))


CALL = Caller(size=20, result=20)
SCRIPT = Draw(
    world=World(
        left=EndPlan(
            callers=(CALL, attrs.evolve(CALL, answer=Answer.ERROR), Caller(size=300), Caller(nested=True)),
            disconnects=1,
        ),
        right=EndPlan(callers=(CALL, attrs.evolve(CALL, nested=True), Caller(result=300)), disconnects=1),
    ),
    capacity=4096,
    scripted=True,
)
"""A conversation with everything in it, for faults that are tried everywhere."""


def draw(seed: int) -> Draw:
    """The world of that number."""
    dice = random.Random(seed)
    limits = Limits(
        max_calls=dice.choice([1, 2, 3, 1024]),
        max_nested_calls=dice.choice([0, 1, 2, 1024]),
        max_bytes=64 * KIB * dice.choice([1, 2, 100]),
        max_message=64 * KIB,
        liveness_timeout=dice.choice([None, None, 2.0]),
        handler_grace=dice.choice([0.0, 0.0, 1.0]),
        part_size=dice.choice([None, None, 1000, 20_000]),
    )
    left, right = end(dice, limits), end(dice, limits)
    # Nobody waits for ever: somebody ends it.
    if not (left.disconnects or right.disconnects or left.finishes or right.finishes):
        left = attrs.evolve(left, **{dice.choice(["disconnects", "finishes"]): 1})
    outward, inward = (fault(dice), fault(dice)) if dice.random() < 0.7 else (None, None)
    return Draw(
        world=World(left=left, right=right, cuts=sum(each is not None for each in (outward, inward))),
        capacity=dice.choice([100, 4096, 1 << 20]),
        outward=outward,
        inward=inward,
    )
