"""What the newest plan asks of one worker, shard by shard: a pure reading of the plan.

    runs      slots that it owns, each under a grant: by its tiles, and as target of moves whose release was ordered
    copies    slots that it keeps a copy of: as target of moves that are still warming, and as standby
    releases  slots that it is to release, each for a move

A worker carries a grant out once: what it released under a grant it owns again only under a newer one, whatever older
entries of a plan still say (S6; the plan that completes a move comes after the target runs).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kstate.keyspace import KeyRange
from kstate.plan import Move, MovePhase, Plan, Shard
from kstate.progress import SlotMap


class Role(NamedTuple):
    """What a worker has to do with some slots that do not run yet."""

    grant: int
    """Under which they are to run; of a standby 0."""
    runs: bool
    """They are to run as soon as they can; False: a copy."""
    awaits: int | None = None
    """They run only once the log says that their owner released them for this move (S6)."""
    move: KeyRange | None = None
    """Of the move that brings them: neighbours under two moves of one plan come each by itself."""


@dataclass(slots=True)
class Duties:
    """Of one worker in one shard."""

    runs: SlotMap[Role] = field(default_factory=SlotMap)
    copies: SlotMap[Role] = field(default_factory=SlotMap)
    releases: SlotMap[int] = field(default_factory=SlotMap)
    """Slot → move id."""
    cuts: set[int] = field(default_factory=set)
    """Bounds of what is to move away."""


def duties(plan: Plan, incarnation: str, given: Mapping[Shard, SlotMap[int]]) -> dict[Shard, Duties]:
    """What a plan asks of an incarnation; `given`: slot → the grant under which it was released."""
    found: dict[Shard, Duties] = defaultdict(Duties)
    for standby in plan.standbys:
        if standby.worker == incarnation:
            found[standby.shard].copies.assign(standby.key_range, Role(0, runs=False))
    for tile in plan.owned_by(incarnation):
        _take(found[tile.shard].runs, tile.key_range, Role(tile.grant, runs=True), given.get(tile.shard))
    for move in plan.moves:
        if move.source == incarnation:
            _leave(found[move.shard], move)
        if move.target == incarnation:
            _come(found[move.shard], move, given.get(move.shard))
    for duty in found.values():
        for key_range, _ in duty.runs:
            duty.copies.clear(key_range)
    return dict(found)


def _take(runs: SlotMap[Role], key_range: KeyRange, role: Role, given: SlotMap[int] | None) -> None:
    """Own slots, but for those that were released under this grant or a later one."""
    runs.assign(key_range, role)
    for part, grant in given.slice(key_range) if given else ():
        if grant >= role.grant:
            runs.clear(part)


def _leave(duty: Duties, move: Move) -> None:
    """The source's part of a move; what it has released already it does not run any more."""
    duty.cuts |= {move.key_range.lo, move.key_range.hi}
    if move.phase is MovePhase.RELEASE:
        for part, _ in duty.runs.slice(move.key_range):
            duty.releases.assign(part, move.id)


def _come(duty: Duties, move: Move, given: SlotMap[int] | None) -> None:
    """The target's part of a move; one that goes back to its source is first released like any other."""
    if move.phase is MovePhase.WARM:
        duty.copies.assign(move.key_range, Role(move.grant, runs=False, move=move.key_range))
    elif not len(duty.releases.slice(move.key_range)):
        _take(duty.runs, move.key_range, Role(move.grant, runs=True, awaits=move.id, move=move.key_range), given)
