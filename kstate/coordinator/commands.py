"""What the leader can do, one value per thing."""

from __future__ import annotations

from dataclasses import dataclass

from kstate.plan import InputPartition, Plan


@dataclass(frozen=True, slots=True)
class Declare:
    """Commit the decision that an incarnation is dead, and see it committed."""

    incarnation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fence:
    """init_transactions on the id of one that was declared dead."""

    incarnation: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Commit a plan, and see it committed."""

    plan: Plan
    reason: str
    order: str = ""
    """Id of the order that this plan begins to carry out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Commit the answer to an order that no plan carries out."""

    order: str
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class TakeEnds:
    """Take H of these partitions."""

    places: tuple[InputPartition, ...]


@dataclass(frozen=True, slots=True)
class Halt:
    """Commit that the job stops until people have mended it."""

    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to lead: end with this exit code."""

    exit_code: int


Command = Declare | Fence | Publish | Answer | TakeEnds | Halt | Finish
