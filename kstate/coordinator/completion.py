"""When a bounded run is over: `--until-end`.

The ends of external inputs are fixed in the plan once, at the start. An operator is *finished* when each of its tiles
has committed progress up to the ends of all its inputs: nothing more will come from it. Then, and only then, the ends
of its internal streams can be taken: outputs are committed together with the progress that was reported, so an end
taken after the report includes them. When all operators are finished, so is the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from kstate.description import JobDescription, OperatorDescription
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import TileReport
from kstate.plan import InputPartition, Plan, Shard
from kstate.progress import Progress, SlotMap


@dataclass(frozen=True, slots=True)
class Achieved:
    """Committed progress as reported, by shard and slot. Invariant: it never goes back, whoever reports it (S8)."""

    shards: Mapping[Shard, SlotMap[Progress]] = field(default_factory=dict)


def reported(achieved: Achieved, tiles: tuple[TileReport, ...]) -> Achieved:
    """Take in a heartbeat: progress counts once committed, so also that of a worker that has died since."""
    shards = dict(achieved.shards)
    for tile in tiles:
        progress = shards.get(tile.shard, SlotMap()).copy()
        for key_range, before in _pieces(progress, tile.key_range):
            progress.assign(key_range, _furthest(before, tile.progress))
        shards[tile.shard] = progress
    return replace(achieved, shards=shards)


def finished(job: JobDescription, plan: Plan, achieved: Achieved) -> frozenset[str]:
    """The uids of the operators that will process nothing more in this bounded run."""
    return frozenset(o.uid for o in job.operators if _is_finished(o, plan, achieved))


def open_ends(job: JobDescription, plan: Plan, achieved: Achieved) -> tuple[InputPartition, ...]:
    """Partitions of internal streams whose end can be taken now: their source is finished."""
    over = finished(job, plan, achieved)
    return tuple(
        place
        for operator in job.operators
        for source in operator.inputs
        if source.internal and source.source_uid in over
        for place in input_partitions(operator.uid, source.topic, plan)
        if place not in plan.ends
    )


def input_partitions(uid: str, topic: str, plan: Plan) -> Iterator[InputPartition]:
    """Every partition of an operator's input."""
    return ((uid, topic, partition) for partition in range(plan.partitions[topic]))


def _is_finished(operator: OperatorDescription, plan: Plan, achieved: Achieved) -> bool:
    shards = {tile.shard for tile in plan.tiles if tile.shard.operator == operator.uid}
    return all(_is_done(operator, shard, plan, achieved) for shard in shards)


def _is_done(operator: OperatorDescription, shard: Shard, plan: Plan, achieved: Achieved) -> bool:
    """Whether all slots of a shard have come to the ends of all inputs."""
    progress = achieved.shards.get(shard, SlotMap())
    if progress.gaps(FULL_RANGE):
        return False
    ends = {source.topic: plan.ends.get((operator.uid, source.topic, shard.partition)) for source in operator.inputs}
    return all(end is not None and at.get(topic, -1) >= end for _, at in progress for topic, end in ends.items())


def _pieces(progress: SlotMap[Progress], key_range: KeyRange) -> list[tuple[KeyRange, Progress]]:
    """The range cut where the map changes, gaps included."""
    known = list(progress.slice(key_range))
    return known + [(gap, {}) for gap in progress.gaps(key_range)]


def _furthest(left: Progress, right: Progress) -> Progress:
    return {topic: max(left.get(topic, 0), right.get(topic, 0)) for topic in {*left, *right}}
