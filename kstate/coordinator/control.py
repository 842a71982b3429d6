"""The control topic as its readers must understand it: a fold over its messages, in log order.

Messages need no check against older terms: all that stands in the topic was written under the leader's one
transactional id, and opening it fences the holder before, so log order is the order of the decisions (S3).

Once the topic was trimmed it begins with a plan. Then the term is the plan's, its leader is not known before it beats,
and of the dead only those are known whose tiles were not yet given away. The others own nothing, and one that wakes up
finds that it was named once and is named no more (kstate.worker.control).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from kstate.errors import KstateError
from kstate.messages import Control, JobHalted, OrderAnswered, PlanPublished, TermStarted, WorkerDied
from kstate.plan import MovePhase, Plan, moves_fault, tiling_fault

DECISIONS_KEPT = 20
"""For people; older ones stand in the control topic, as far as it goes back."""

ANSWERS_KEPT = 1_000
"""Ids of orders that were answered: an order is repeated for some seconds after its answer, not for longer."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Something a leader decided, and why, for people."""

    term: int
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class ControlView:
    """All that was decided so far.

    Invariants: `term` and the version of `plan` never go back; `dead` never shrinks; every plan tiles (S8), and its
    moves do not overlap.
    """

    term: int = 0
    leader: str = ""
    """Empty as well when the start of its term was trimmed."""
    plan: Plan | None = None
    dead: frozenset[str] = frozenset()
    """Every incarnation declared dead in what was read: it stays dead."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Incarnation → name of every member of any plan read: the name of a dead one tells who its successor is."""
    halted: JobHalted | None = None
    """The present term halted the job; a new term starts it anew."""
    decisions: tuple[Decision, ...] = ()
    answered: tuple[str, ...] = ()
    """Ids of the orders that a plan carries out or that were refused, the newest last."""

    def lost(self) -> tuple[str, ...]:
        """Declared dead, tiles not yet given away: what S2 still has to fence before it may give.

        The target of a move under release counts as well: it may have adopted the range already (S7).
        """
        return () if self.plan is None else undelivered(self.plan, self.dead)

    def is_live_member(self, incarnation: str) -> bool:
        """Named by the newest plan, and no decision since says that it is dead."""
        return self.plan is not None and incarnation not in self.dead and self.plan.member(incarnation) is not None


def take(view: ControlView, message: Control) -> ControlView:
    """The view after one more message. Raises KstateError for a plan that breaks an invariant: nobody may act on it."""
    match message:
        case TermStarted(term, leader):
            if term <= view.term:
                raise KstateError(f"Control topic: term {term} of {leader} follows term {view.term}; terms only grow.")
            started = Decision(term, f"term {term} starts", f"{leader} leads")
            return replace(_noted(view, started), term=term, leader=leader, halted=None)
        case WorkerDied(term, incarnation, reason):
            died = Decision(term, f"{incarnation} is dead", reason)
            return replace(_noted(view, died), dead=view.dead | {incarnation})
        case JobHalted(term, reason, exit_code):
            halted = Decision(term, f"the job halts with exit code {exit_code}", reason)
            return replace(_noted(view, halted), halted=message)
        case PlanPublished(plan, reason, order):
            published = Decision(plan.term, f"plan {plan.version}", reason)
            return _with_plan(_answered(_noted(_in_term(view, plan.term), published), order), plan)
        case OrderAnswered(term, order, accepted, reason):
            what = f"order {order} is {'done' if accepted else 'refused'}"
            return _answered(_noted(view, Decision(term, what, reason)), order)


def undelivered(plan: Plan, dead: Container[str]) -> tuple[str, ...]:
    """Those of the dead who own tiles of this plan, or may: the targets of its moves under release."""
    holders = [t.worker for t in plan.tiles if t.worker is not None]
    holders += [m.target for m in plan.moves if m.phase is MovePhase.RELEASE]
    return tuple(dict.fromkeys(holder for holder in holders if holder in dead))


def _with_plan(view: ControlView, plan: Plan) -> ControlView:
    version = 0 if view.plan is None else view.plan.version
    if plan.version <= version:
        raise KstateError(f"Control topic: plan {plan.version} follows plan {version}; versions only grow (S8).")
    if fault := tiling_fault(plan) or moves_fault(plan):
        raise KstateError(f"Control topic: {fault} (S8).")
    names = {member.incarnation: member.name for member in plan.members}
    return replace(view, plan=plan, dead=view.dead | set(plan.dead), names={**view.names, **names})


def _in_term(view: ControlView, term: int) -> ControlView:
    """The view in the term of a plan, if its start was trimmed."""
    return view if term <= view.term else replace(view, term=term, leader="", halted=None)


def _answered(view: ControlView, order: str) -> ControlView:
    return replace(view, answered=(*view.answered, order)[-ANSWERS_KEPT:]) if order else view


def _noted(view: ControlView, decision: Decision) -> ControlView:
    return replace(view, decisions=(*view.decisions, decision)[-DECISIONS_KEPT:])
