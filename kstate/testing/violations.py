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
    """An incarnation committed for slots that another one had taken over."""
    ORDER = "order"
    """All is there, but not in the order of its key."""
    STATE = "state"
    """Outputs are right, the state that the next ones will come from is not."""
    PLAN = "plan"
    """A plan that does not tile, or that goes back (S8)."""
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
