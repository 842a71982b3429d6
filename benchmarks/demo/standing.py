"""Whether a job stands as its plan says: read from the newest plan and the newest heartbeats; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kstate.messages import Heartbeat, TilePhase
from kstate.plan import Plan, Tile


def unsettled(plan: Plan | None, beats: Mapping[str, Heartbeat], workers: int) -> str:
    """What is still to happen until all workers run all tiles of the plan and nothing moves; empty: nothing."""
    if plan is None:
        return "there is no plan"
    if len(plan.members) < workers:
        return f"plan {plan.version} has {len(plan.members)} of {workers} workers"
    if plan.moves:
        return f"plan {plan.version} has {plan.moves[0]} under way"
    waiting = next((tile for tile in plan.tiles if not runs(tile, beats)), None)
    return "" if waiting is None else f"{waiting} is not reported to run at {waiting.worker or 'anybody'}"


def runs(tile: Tile, beats: Mapping[str, Heartbeat]) -> bool:
    """Whether the owner of a tile says that it runs all of it under its grant."""
    beat = beats.get(tile.worker or "")
    if beat is None:
        return False
    parts = [
        report.key_range.overlap(tile.key_range)
        for report in beat.tiles
        if report.shard == tile.shard and report.phase is TilePhase.RUNNING and report.grant >= tile.grant
    ]
    return sum(part.width for part in parts if part) == tile.key_range.width


def shares(plan: Plan) -> dict[str, int]:
    """Worker's name → how many tiles it has, every member."""
    count = Counter(tile.worker for tile in plan.tiles)
    return {member.name: count[member.incarnation] for member in plan.members}


def is_uneven(plan: Plan) -> bool:
    """Whether some worker has two tiles more than another one."""
    counts = shares(plan).values()
    return max(counts) - min(counts) > 1


def name_of(incarnation: str | None, beats: Mapping[str, Heartbeat]) -> str:
    """A worker for people."""
    return "nobody" if incarnation is None else beats[incarnation].name if incarnation in beats else incarnation
