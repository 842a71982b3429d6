"""What becomes of an order: a fold over the control topic, from the order to the last of its moves.

asked ── refused, or nothing to do ──▶ over
  │
  └── a plan begins it ──▶ each of its moves: warm ─▶ release ─▶ done
                                              └─▶ cancelled    └─▶ elsewhere: its target died
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from kstate.coordinator.observed import MoveName, name_of
from kstate.messages import Control, JobHalted, Order, OrderAnswered, OrderKind, PlanPublished
from kstate.plan import Move, Plan


class LegState(StrEnum):
    """How far a move of the order is; the last three are final."""

    WARM = "warm"
    RELEASE = "release"
    DONE = "done"
    CANCELLED = "cancelled"
    ELSEWHERE = "elsewhere"


_FINAL = frozenset({LegState.DONE, LegState.CANCELLED, LegState.ELSEWHERE})


class Outcome(StrEnum):
    """What became of an order."""

    DONE = "done"
    """Everything is where it was ordered to be, by the newest plan."""
    NOTHING = "nothing to do"
    REFUSED = "refused"
    MISSED = "missed"
    """Some of it is not where it was ordered to be: cancelled, or its target died."""
    HALTED = "halted"
    UNDER_WAY = "under way"


@dataclass(frozen=True, slots=True)
class Leg:
    """One move of the order; workers by incarnation."""

    move: Move
    """As the newest plan with it has it."""
    target: str
    """As ordered."""
    times: tuple[tuple[LegState, float], ...]
    """Its states and when it came to them, in seconds since the order."""
    plan_version: int
    """Of the plan that brought it to its state."""
    reason: str = ""
    """Why it took another course than ordered."""
    owners: tuple[str | None, ...] = ()
    """Whose the range is in the end."""

    @property
    def state(self) -> LegState:
        """The present one."""
        return self.times[-1][0]

    @property
    def is_over(self) -> bool:
        """Nothing will change any more."""
        return self.state in _FINAL


@dataclass(frozen=True, slots=True)
class Progress:
    """An order and what became of it so far."""

    order: Order
    answer: OrderAnswered | None = None
    """Refused, or there was nothing to do."""
    plan: Plan | None = None
    """The newest one since the order began."""
    reason: str = ""
    """Of the plan that began it."""
    legs: Mapping[MoveName, Leg] = field(default_factory=dict)
    drained: str | None = None
    """The incarnation that a drain is about."""
    halted: str | None = None

    @property
    def is_answered(self) -> bool:
        """The leader has read it."""
        return self.answer is not None or self.plan is not None

    @property
    def is_over(self) -> bool:
        """Nothing of it is under way any more."""
        if self.answer is not None or self.halted is not None:
            return True
        if self.plan is None or not all(leg.is_over for leg in self.legs.values()):
            return False
        return self.drained is None or not self.plan.owned_by(self.drained)

    @property
    def outcome(self) -> Outcome:
        """So far."""
        if self.answer is not None:
            return Outcome.NOTHING if self.answer.accepted else Outcome.REFUSED
        if self.halted is not None:
            return Outcome.HALTED
        if not self.is_over:
            return Outcome.UNDER_WAY
        return Outcome.MISSED if self.missed else Outcome.DONE

    @property
    def missed(self) -> tuple[Leg, ...]:
        """Moves that did not come to the end that was ordered. A drain has none: what stayed is moved again."""
        if self.drained is not None:
            return ()
        return tuple(leg for leg in self.legs.values() if leg.is_over and leg.state is not LegState.DONE)


def after(progress: Progress, message: Control, at_s: float) -> Progress:
    """The progress after one more message of the control topic, read so many seconds after the order."""
    match message:
        case OrderAnswered(order=order) if order == progress.order.id:
            return replace(progress, answer=message)
        case PlanPublished(plan, reason, order) if order == progress.order.id or progress.plan is not None:
            if progress.plan is None:
                progress = replace(progress, reason=reason, drained=_drained(progress.order, plan))
            return replace(progress, plan=plan, legs=_legs(progress, plan, reason, at_s))
        case JobHalted(reason=reason):
            return replace(progress, halted=reason)
        case _:
            return progress


def _drained(order: Order, plan: Plan) -> str | None:
    if order.kind is not OrderKind.DRAIN:
        return None
    return next((m.incarnation for m in plan.members if m.name == order.worker), None)


def _legs(progress: Progress, plan: Plan, reason: str, at_s: float) -> dict[MoveName, Leg]:
    moves = {name_of(move): move for move in plan.moves if move.order == progress.order.id}
    legs = dict(progress.legs)
    for name, leg in progress.legs.items():
        if not leg.is_over:
            move = moves.get(name)
            legs[name] = _ended(leg, plan, reason, at_s) if move is None else _gone_on(leg, move, plan, reason, at_s)
    for name, move in moves.items():
        if name not in legs:
            legs[name] = Leg(move, move.target, ((LegState(move.phase.value), at_s),), plan.version)
    return legs


def _gone_on(leg: Leg, move: Move, plan: Plan, reason: str, at_s: float) -> Leg:
    """A move that is still under way; its target may be another one by now."""
    if move.target != leg.move.target:
        leg = replace(leg, reason=reason)
    state = LegState(move.phase.value)
    if state is leg.state:
        return replace(leg, move=move)
    return replace(leg, move=move, times=(*leg.times, (state, at_s)), plan_version=plan.version)


def _ended(leg: Leg, plan: Plan, reason: str, at_s: float) -> Leg:
    """A move that is gone from the plan: who has the range now?"""
    here = [t for t in plan.tiles if t.shard == leg.move.shard and t.key_range.overlap(leg.move.key_range)]
    owners = tuple(dict.fromkeys(tile.worker for tile in here))
    if owners == (leg.target,):
        state, reason = LegState.DONE, ""
    elif leg.move.target == leg.target and leg.state is LegState.WARM:
        state = LegState.CANCELLED
    else:
        state, reason = LegState.ELSEWHERE, leg.reason or reason
    return replace(leg, times=(*leg.times, (state, at_s)), plan_version=plan.version, reason=reason, owners=owners)
