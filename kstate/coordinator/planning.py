"""From one plan to the next: all rules of the control plane, in the order in which they apply.

Each looks at what is, not at what was done before, and leaves alone what is as it should be. So the same value comes
out whoever leads, and a plan is published only where a rule found something to change; one plan may hold many changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kstate.coordinator import assignment, joining, moves, parking, standbys, succession
from kstate.coordinator.control import undelivered
from kstate.coordinator.scene import Ownership, Scene, kept_of
from kstate.keyspace import FULL_RANGE
from kstate.plan import Shard, Tile

Rule = Callable[[Ownership, Scene], Ownership]


def changed(scene: Scene) -> Ownership | None:
    """Who has what after the deaths, arrivals and reports of this moment; None when the plan may stay as it is."""
    before = kept_of(scene.plan)
    after = evolved(before, scene)
    gone = [m for m in scene.plan.members if m.incarnation in scene.roll.dead]
    idle = {m.incarnation for m in gone} - set(undelivered(scene.plan, scene.roll.dead))
    came = any(m not in scene.plan.members for m in after.members)
    same = after is before or replace(after, members=before.members, drained=before.drained, notes=()) == before
    return None if same and not idle and not came else after


def evolved(now: Ownership, scene: Scene) -> Ownership:
    """Every rule once, in order."""
    for rule in _RULES:
        now = rule(now, scene)
    return now


def waits(scene: Scene) -> Iterator[str]:
    """What somebody waits for, one text each; the same text as long as the reason is the same."""
    if builds := assignment.waiting(scene.plan, scene.roll):
        yield builds
    yield from succession.waits(scene)
    yield from moves.waits(scene)
    yield from (f"parked: {parked.reason}" for parked in scene.plan.parked)


def _fitted(now: Ownership, scene: Scene) -> Ownership:
    """Tiles, nobody's yet, for operators that are new in the draft, and none of dropped ones.

    A worker of an older build keeps its tiles of a dropped operator until it stops: taking them would stop it.
    """
    free = {None, *scene.roll.fenced}
    tiles = [t for t in now.tiles if scene.job.operator(t.shard.operator) or t.worker not in free or _moves(t, now)]
    known = {tile.shard for tile in tiles}
    shards = scene.draft.shards if scene.draft else {}
    needed = [Shard(uid, p) for uid, partitions in shards.items() for p in range(partitions)]
    new = [Tile(shard, FULL_RANGE, None, scene.grant) for shard in needed if shard not in known]
    if not new and len(tiles) == len(now.tiles):
        return now
    dropped = len(tiles) < len(now.tiles) and scene.draft is None
    notes = ["the last tiles of dropped operators are gone"] if dropped else []
    return replace(now, tiles=(*tiles, *new)).noted(*notes)


def _moves(tile: Tile, now: Ownership) -> bool:
    return bool(now.moving(tile.shard, tile.key_range))


_RULES: tuple[Rule, ...] = (
    assignment.mustered,
    moves.after_deaths,
    _fitted,
    parking.fitted,
    succession.lost_given,
    succession.orphans_given,
    moves.advanced,
    moves.drained,
    joining.joined,
    standbys.assigned,
)
