"""A leader that splits and joins key ranges when it gives tiles away, so that slot maps are put to work (S8).

The real leader gives whole tiles so far. This one gives each whole tile in two halves to two workers, and joins two
halves when both are given at the same time: pieces with unequal progress then run side by side in one worker, and two
workers write to one backup partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kstate.clock import Steps
from kstate.coordinator.commands import Command, Publish
from kstate.coordinator.leader import Leader
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.plan import Plan, Tile

CUT = SLOTS // 2


class CuttingLeader(Leader):
    """The real leader, but for the key ranges of the tiles that it gives."""

    def _carry_out(self, command: Command) -> Steps[None]:
        if isinstance(command, Publish):
            command = replace(command, plan=replace(command.plan, tiles=recut(command.plan)))
        yield from super()._carry_out(command)


def recut(plan: Plan) -> tuple[Tile, ...]:
    """The tiles of a plan, those that it gives now joined where they can be and cut in two where they are whole."""
    kept = [tile for tile in plan.tiles if not _is_given(tile, plan)]
    given = sorted((tile for tile in plan.tiles if _is_given(tile, plan)), key=lambda t: (t.shard, t.key_range))
    joined = _joined(given)
    workers = [member.incarnation for member in plan.members]
    cut = [part for tile in joined for part in (_halves(tile, workers) if tile in given else [tile])]
    return tuple(sorted([*kept, *cut], key=lambda t: (t.shard, t.key_range)))


def _is_given(tile: Tile, plan: Plan) -> bool:
    return tile.grant == plan.version and tile.worker is not None


def _joined(given: Sequence[Tile]) -> list[Tile]:
    """Neighbours in one shard become one tile of the first one's worker."""
    joined: list[Tile] = []
    for tile in given:
        last = joined[-1] if joined else None
        if last and last.shard == tile.shard and last.key_range.hi == tile.key_range.lo:
            joined[-1] = replace(last, key_range=KeyRange(last.key_range.lo, tile.key_range.hi))
        else:
            joined.append(tile)
    return joined


def _halves(tile: Tile, workers: Sequence[str]) -> list[Tile]:
    """A whole tile in two, the upper half to the next worker in order."""
    if tile.key_range != FULL_RANGE or len(workers) < 2 or tile.worker not in workers:
        return [tile]
    neighbour = workers[(workers.index(tile.worker) + 1) % len(workers)]
    return [
        replace(tile, key_range=KeyRange(0, CUT)),
        replace(tile, key_range=KeyRange(CUT, SLOTS), worker=neighbour),
    ]
