"""Touching tiles of one worker become one tile: the end of a merge, and of a split that was undone.

The joined tile has a new grant, and the worker goes on with what it runs: only tiles that run, and are under no move,
are joined, so nothing is restored. Their pieces coalesce when they stand at equal progress (S8).
"""

from __future__ import annotations

from dataclasses import replace

from kstate.coordinator.scene import Ownership, Scene, in_order, listed
from kstate.keyspace import KeyRange
from kstate.plan import Tile


def joined(now: Ownership, scene: Scene) -> Ownership:
    """Every run of touching tiles that one worker runs as one tile."""
    runs: list[list[Tile]] = []
    for tile in in_order(now.tiles, now.tiles):
        if runs and _touch(runs[-1][-1], tile) and all(_is_calm(t, now, scene) for t in (runs[-1][-1], tile)):
            runs[-1].append(tile)
        else:
            runs.append([tile])
    made = [_one(run, scene.grant) for run in runs if len(run) > 1]
    if not made:
        return now
    tiles = tuple(_one(run, scene.grant) if len(run) > 1 else run[0] for run in runs)
    names = ", ".join(sorted({scene.roll.name(tile.worker) for tile in made}))
    return replace(now, tiles=tiles).noted(f"{listed(made)} joined at {names}")


def _touch(left: Tile, right: Tile) -> bool:
    same = left.shard == right.shard and left.worker == right.worker is not None
    return same and left.key_range.hi == right.key_range.lo


def _is_calm(tile: Tile, now: Ownership, scene: Scene) -> bool:
    """A live worker of this build runs it, under the grant that the newest plan says, and it is under no move."""
    if tile not in scene.plan.tiles or now.moving(tile.shard, tile.key_range):
        return False
    if tile.worker is None or all(m.incarnation != tile.worker for m in now.able(scene.roll)):
        return False
    return scene.evidence.runs(tile.worker, tile.shard, tile.key_range, tile.grant)


def _one(run: list[Tile], grant: int) -> Tile:
    return replace(run[0], key_range=KeyRange(run[0].key_range.lo, run[-1].key_range.hi), grant=grant)
