"""An order's course in words for people, and as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kstate.cli.order_progress import Leg, LegState, Outcome, Progress
from kstate.coordinator.observed import Observed
from kstate.coordinator.overview import copy_state
from kstate.coordinator.scene import counted
from kstate.errors import ConfigError, KstateError, RetryableError
from kstate.messages import OrderKind

Names = Mapping[str, str]
"""Incarnation → name."""

EXIT_CODES: Mapping[Outcome, int] = {
    Outcome.DONE: 0,
    Outcome.NOTHING: 0,
    Outcome.REFUSED: ConfigError.exit_code,
    Outcome.MISSED: KstateError.exit_code,
    Outcome.HALTED: KstateError.exit_code,
    Outcome.UNDER_WAY: RetryableError.exit_code,
}


def changed_lines(before: Progress, now: Progress, names: Names) -> Iterator[str]:
    """What one message of the control topic changed."""
    if before.plan is None and now.plan is not None and now.reason:
        yield f"plan {now.plan.version}: {now.reason}"
    for key, leg in now.legs.items():
        known = before.legs.get(key)
        if known is None or known.state is not leg.state:
            yield _line(leg, _state_text(leg, names), names)
        elif known.move.target != leg.move.target:
            yield _line(leg, f"goes to {_names([leg.move.target], names)} instead: {leg.reason}", names)


def still_lines(progress: Progress, observed: Observed) -> Iterator[str]:
    """Moves that take long."""
    for leg in progress.legs.values():
        if not leg.is_over:
            copy, behind = copy_state(leg.move, observed)
            text = f"still in phase {leg.state}: the copy is {copy}, {behind:,} records to read"
            yield _line(leg, text, observed.control.names)


def verdict(progress: Progress, seconds: float) -> str:
    """What became of the order."""
    moves = counted(len(progress.legs), "move")
    match progress.outcome:
        case Outcome.NOTHING:
            return _reason(progress)
        case Outcome.REFUSED:
            return f"refused: {_reason(progress)}"
        case Outcome.HALTED:
            return f"the job was halted: {_reason(progress)}"
        case Outcome.MISSED:
            return f"not as ordered: {len(progress.missed)} of {moves} came to another end, {seconds:.1f} s"
        case Outcome.UNDER_WAY:
            over = sum(leg.is_over for leg in progress.legs.values())
            return f"under way after {seconds:.1f} s, {over} of {moves} over; it goes on: see `kstate status`"
        case Outcome.DONE:
            gone = progress.order.kind is OrderKind.DRAIN
            note = f"; {progress.order.worker} has nothing left and may be stopped" if gone else ""
            return f"done in {seconds:.1f} s, {moves}{note}"


def as_json(progress: Progress, names: Names, seconds: float) -> dict[str, Any]:
    """The order and each of its moves; times in seconds since the order."""
    return {
        "order": progress.order.id,
        "kind": progress.order.kind.value,
        "outcome": progress.outcome.value,
        "reason": _reason(progress),
        "plan_version": progress.plan.version if progress.plan else None,
        "seconds": round(seconds, 3),
        "moves": [_leg_json(leg, names) for leg in progress.legs.values()],
    }


def _leg_json(leg: Leg, names: Names) -> dict[str, Any]:
    move = leg.move
    return {
        "id": move.id,
        "operator": move.shard.operator,
        "partition": move.shard.partition,
        "lo": move.key_range.lo,
        "hi": move.key_range.hi,
        "source": _names([move.source], names),
        "target": _names([leg.target], names),
        "state": leg.state.value,
        "reason": leg.reason,
        "workers": [_names([owner], names) for owner in leg.owners],
        "plan_version": leg.plan_version,
        "times": {state.value: round(at_s, 3) for state, at_s in leg.times},
    }


def _reason(progress: Progress) -> str:
    if progress.answer is not None:
        return progress.answer.reason
    if progress.halted is not None:
        return progress.halted
    return "; ".join(leg.reason for leg in progress.missed) or progress.reason


def _line(leg: Leg, text: str, names: Names) -> str:
    way = f"{_names([leg.move.source], names)} → {_names([leg.target], names)}"
    return f"{leg.move.shard} {leg.move.key_range}  {way}  {text}"


def _state_text(leg: Leg, names: Names) -> str:
    match leg.state:
        case LegState.DONE:
            return f"done with plan {leg.plan_version}"
        case LegState.CANCELLED:
            return f"cancelled with plan {leg.plan_version}: {leg.reason}"
        case LegState.ELSEWHERE:
            return f"now of {_names(leg.owners, names)}, plan {leg.plan_version}: {leg.reason}"
        case state:
            return state.value


def _names(incarnations: Iterable[str | None], names: Names) -> str:
    """Workers for people."""
    return ", ".join("nobody" if each is None else names.get(each, each) for each in incarnations)
