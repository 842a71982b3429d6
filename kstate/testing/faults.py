"""What can go wrong, as values: faults of single calls, and blows that hit a whole process at a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from kstate.testing.memory_log import Call, Fault

FAULTS: Mapping[str, tuple[Fault, ...]] = {
    "open": (Fault.RETRYABLE, Fault.NOT_APPLIED, Fault.APPLIED),
    "fence": (Fault.RETRYABLE, Fault.NOT_APPLIED, Fault.APPLIED),
    "begin": (Fault.TAINTED,),
    "send": (Fault.RETRYABLE, Fault.REFUSED, Fault.UNDELIVERED),
    "flush": (Fault.RETRYABLE, Fault.NOT_APPLIED),
    "commit": (Fault.APPLIED, Fault.NOT_APPLIED, Fault.APPLIED_LATE, Fault.APPLIED_TWICE, Fault.RETRYABLE),
    "report": (Fault.LOST, Fault.DELAYED),
    "poll": (Fault.SHORT, Fault.EMPTY, Fault.RETRYABLE),
}
"""Operation → the faults that mean something for it; every other operation may meet RETRYABLE."""


def some_fault(rng: Random, call: Call) -> Fault:
    """A fault that this call can meet; of commits most are in doubt."""
    return rng.choice(FAULTS.get(call.operation, (Fault.RETRYABLE,)))


class Blow(Enum):
    """What can hit a process at a step."""

    CRASH = auto()
    """Kill -9."""
    HOLD = auto()
    """SIGSTOP for a while: it comes back as a zombie."""
    DELAY = auto()
    """The main thread is slow for a while, heartbeats go on."""
    BREAK = auto()
    """The next call that it makes fails."""
    CUT = auto()
    """The broker does not answer it for a while."""
    CUT_CONTROL = auto()
    """It cannot read the control topic for a while."""
    SILENCE = auto()
    """Its heartbeats are lost for a while: a false suspicion."""
    STOP = auto()
    """SIGTERM; for a leader a crash."""
    DOUBT = auto()
    """Its next commit is in doubt."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A blow that hits the process which takes the n-th step of a name, counted over all processes of the role."""

    role: str
    """"worker" or "leader"; or the part in a move: "source", "target", "releaser", "adopter", and "mover", the leader.
    """
    step: str
    nth: int
    blow: Blow
    seconds: float
    """How long it lasts, where it lasts."""
