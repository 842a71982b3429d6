"""What no plan may do to the one before it, checked before anybody sees it (S2, S7).

A plan that breaks one of these rules would let two workers own a slot. The rules of the control plane do not make such
plans; should a mistake in them do it nevertheless, the leader stops here and nobody acts on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from kstate.coordinator.evidence import Evidence
from kstate.coordinator.scene import is_release
from kstate.keyspace import KeyRange
from kstate.plan import Move, Plan, Shard, Tile

Fenced = frozenset[str]
T = TypeVar("T", Tile, Move)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A range over which neither plan changes: its tile and its move in the plan before and in the one after."""

    key_range: KeyRange
    old: Tile
    new: Tile | None
    """None: the shard is gone."""
    old_move: Move | None
    new_move: Move | None

    def __str__(self) -> str:
        return f"{self.old.shard} {self.key_range}"


def giving_fault(before: Plan, after: Plan, fenced: Fenced) -> str | None:
    """What breaks S2: a slot that was taken from a worker that may live, without a release; None when nothing does."""
    for at in _stretches(before, after):
        if at.old_move is not None and is_release(at.old_move):
            continue
        owner, grant = (None, after.version) if at.new is None else (at.new.worker, at.new.grant)
        if owner == at.old.worker:
            if at.new is not None and grant < at.old.grant:
                return f"{at}: its grant goes back from {at.old.grant} to {grant}"
        elif at.old.worker is not None and at.old.worker not in fenced:
            return f"{at} is taken from {at.old.worker}, who is not fenced"
        elif grant != after.version:
            return f"{at} is given to {owner} under the old grant {grant}"
    return None


def release_fault(before: Plan, after: Plan, fenced: Fenced, evidence: Evidence) -> str | None:
    """What breaks S7: a range under release that went to anybody but its heir; None when nothing does."""
    for at in _stretches(before, after):
        old, new = at.old_move, at.new_move
        if old is None or not is_release(old):
            if new is not None and is_release(new) and (old is None or replace(old, phase=new.phase) != new):
                return f"{new} is under release before it was warm"
            continue
        fault = _ended(at, old, fenced, evidence) if new is None or new.id != old.id else _kept(at, old, new, fenced)
        if fault:
            return f"{old}: {fault}"
    return None


def _kept(at: _Stretch, old: Move, new: Move, fenced: Fenced) -> str | None:
    """A move under release goes on."""
    if not is_release(new) or new.source != old.source or at.new is None or at.new.worker != old.source:
        return "its release was ordered and cannot be taken back"
    if new.target == old.target:
        return None if new.grant == old.grant else "its target has another grant"
    if old.target not in fenced:
        return f"{old.target} is replaced by {new.target} and not fenced"
    return None if new.grant > old.grant else f"{new.target} has the grant of the target before"


def _ended(at: _Stretch, old: Move, fenced: Fenced, evidence: Evidence) -> str | None:
    """A move under release is over."""
    if at.new is not None and at.new.worker == old.target and at.new.grant == old.grant:
        runs = evidence.runs(old.target, old.shard, at.key_range, old.grant)
        return None if runs or old.source in fenced else f"{old.target} does not run it, {old.source} is not fenced"
    if old.source not in fenced or old.target not in fenced:
        owner = at.new.worker if at.new is not None else None
        return f"it went to {owner}, but {old.source} and {old.target} are not both fenced"
    return None


def _stretches(before: Plan, after: Plan) -> Iterator[_Stretch]:
    """Both plans side by side, cut at all bounds of either."""
    tiles, old_moves, new_moves = (_by_shard(after.tiles), _by_shard(before.moves), _by_shard(after.moves))
    for old in before.tiles:
        there = tiles[old.shard], old_moves[old.shard], new_moves[old.shard]
        ranges = [thing.key_range for things in there for thing in things]
        bounds = {bound for r in ranges for bound in (r.lo, r.hi) if bound in old.key_range}
        for lo, hi in pairwise(sorted(bounds | {old.key_range.lo, old.key_range.hi})):
            yield _Stretch(KeyRange(lo, hi), old, _at(there[0], lo), _at(there[1], lo), _at(there[2], lo))


def _by_shard(things: Iterable[T]) -> Mapping[Shard, list[T]]:
    found: dict[Shard, list[T]] = defaultdict(list)
    for thing in things:
        found[thing.shard].append(thing)
    return found


def _at(things: Iterable[T], slot: int) -> T | None:
    return next((thing for thing in things if slot in thing.key_range), None)
