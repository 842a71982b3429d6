"""What the simulation may find wrong, by what it does to the results."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """The kinds of violation."""

    DOUBLED = "doubled"
    """A record, or a whole epoch, took effect more than once."""
    LOST = "lost"
    """A record, or a whole epoch, took no effect."""
    TWO_OWNERS = "two owners"
    """Two incarnations run the same slots, or one commits after it released them (S6)."""
    ORDER = "order"
    """All is there, but not in the order of its key."""
    STATE = "state"
    """Outputs are right, the state that the next ones will come from is not."""
    PLAN = "plan"
    """A plan that S2, S6, S7 or S8 forbid, or an order that is answered twice."""
    WEDGED = "wedged"
    """Faults are over and nothing goes on."""
    ERROR = "error"
    """A process died of something that is not in its contract."""


class Violation(NamedTuple):
    """One finding."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"
