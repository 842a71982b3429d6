"""Poison: a record that kills its process must not travel through all workers.

Workers say in every heartbeat where earlier processes of their name died (`Heartbeat.fatalities`). A range at which so
many died that it cannot be chance is *parked*: nobody gets it when it is to be given, the others run, and the plan says
where the record stands. A new build, or an order that names a target, tries it again.
"""

from __future__ import annotations

from dataclasses import replace

from kstate.coordinator.scene import Ownership, Scene, listed
from kstate.keyspace import KeyRange
from kstate.messages import Fatality
from kstate.plan import Parked, Shard, Tile


def poisoned(tile: Tile, scene: Scene) -> Parked | None:
    """Why a tile that has lost its worker is parked instead of given; None when it is not."""
    for fatality in scene.evidence.fatalities(tile.shard, tile.key_range):
        if fatality.deaths >= scene.deaths_max and not _is_past(fatality, scene):
            where = f"{fatality.topic}[{tile.shard.partition}]@{fatality.offset}"
            what = f"{fatality.deaths} processes died in a row with {where} in hand"
            mend = "mend the handler or the record there, then start a new build, or move the range to a worker"
            return Parked(tile.shard, tile.key_range, f"{tile}: {what}; {mend}")
    return None


def fitted(now: Ownership, scene: Scene) -> Ownership:
    """Parked is what nobody owns and was parked before; a new build tries all of it again."""
    if not now.parked:
        return now
    if scene.plan.build != scene.roll.build:
        tried = [tile for tile in now.tiles if is_parked(now, tile.shard, tile.key_range)]
        note = [f"{listed(tried)} parked no longer: a new build"] if tried else []
        return replace(now, parked=()).noted(*note)
    rest = [tile for tile in now.tiles if tile.worker is None]
    kept = [(tile, parked) for parked in now.parked for tile in rest if _touches(parked, tile.shard, tile.key_range)]
    parked = {(tile.shard, tile.key_range): replace(entry, key_range=tile.key_range) for tile, entry in kept}
    return replace(now, parked=tuple(parked.values()))


def is_parked(now: Ownership, shard: Shard, key_range: KeyRange) -> bool:
    """Whether any slot of a range is parked."""
    return any(_touches(parked, shard, key_range) for parked in now.parked)


def _touches(parked: Parked, shard: Shard, key_range: KeyRange) -> bool:
    return parked.shard == shard and parked.key_range.overlap(key_range) is not None


def _is_past(fatality: Fatality, scene: Scene) -> bool:
    """Whether somebody has committed more since."""
    progress = scene.achieved.shards.get(fatality.shard)
    if progress is None or progress.gaps(fatality.key_range):
        return False
    return all(at.get(fatality.topic, -1) > fatality.offset for _, at in progress.slice(fatality.key_range))
