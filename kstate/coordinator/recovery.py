"""Recovery from a worker's death, in the order of S2: decide, see, fence, give.

    member ── suspected ──▶ DECLARE ── seen in control ──▶ FENCE ── init_transactions succeeded ──▶ GIVE

Each step is taken from what is known, not from what was done before: the decision counts when it has been read back
from the control topic, so a leader that comes later takes up wherever the last one stopped and fences once more, which
is harmless. Giving is `succession.lost_given`; until somebody can take the tiles they stay with the dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from kstate.coordinator.commands import Declare, Fence
from kstate.coordinator.control import ControlView
from kstate.coordinator.membership import Membership


@dataclass(frozen=True, slots=True)
class Recovery:
    """What this leader knows of the dead whose tiles are not given away.

    Invariant: `fenced` holds only what this leader itself fenced after it had read the decision in its own term.
    """

    fenced: frozenset[str] = frozenset()
    since_ms: Mapping[str, int] = field(default_factory=dict)
    """Dead incarnation → when this leader first knew, on its monotonic clock: how long its successor was waited for."""

    def overdue(self, now_ms: int, wait_ms: Callable[[str], int]) -> frozenset[str]:
        """The dead whose successor was waited for long enough, by how long each one's is."""
        return frozenset(i for i, since in self.since_ms.items() if now_ms - since >= wait_ms(i))


def noticed(recovery: Recovery, view: ControlView, now_ms: int) -> Recovery:
    """The control topic was read on: new deaths start their wait, those whose tiles are given are done with."""
    lost = view.lost()
    since = {i: recovery.since_ms.get(i, now_ms) for i in lost}
    return replace(recovery, fenced=recovery.fenced & set(lost), since_ms=since)


def was_fenced(recovery: Recovery, view: ControlView, incarnation: str) -> Recovery:
    """A fence succeeded; one that was not preceded by the decision proves nothing and does not count."""
    if incarnation not in view.lost():
        return recovery
    return replace(recovery, fenced=recovery.fenced | {incarnation})


def next_step(view: ControlView, membership: Membership, recovery: Recovery) -> Declare | Fence | None:
    """The next thing to do about the dead and the suspected; None when all that is left is to give."""
    members: Iterable[str] = () if view.plan is None else (m.incarnation for m in view.plan.members)
    for incarnation in members:
        if incarnation not in view.dead and (reason := membership.suspicion(incarnation)):
            return Declare(incarnation, reason)
    return next((Fence(incarnation) for incarnation in view.lost() if incarnation not in recovery.fenced), None)
