"""The plan: which worker owns which key range of which operator's partition (the paper's routing state ρ).

Only the leader writes plans, each one whole, as one record of the control topic. Everything a process needs to know
after the control topic has been trimmed behind the newest plan stands in it: members, undelivered deaths, the id
registry, schema texts and start offsets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kstate.keyspace import SLOTS, KeyRange
from kstate.progress import SlotMap

InputPartition = tuple[str, str, int]
"""(operator uid, topic, partition): the key of a plan's starts and ends."""


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """A partition of a Kafka topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """What a backup partition holds: one operator's state for one input partition index."""

    operator: str
    partition: int

    def __str__(self) -> str:
        return f"{self.operator}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class Member:
    """A live worker process: `name` owns a data folder, `incarnation` is its transactional id and never reused."""

    name: str
    incarnation: str
    build: str = ""
    """Of the job it runs (`JobDescription.build`): a worker gets tiles only from a leader of the same build."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A key range of a shard and who owns it; `worker` is an incarnation, None while nobody does.

    `grant` is the plan version that assigned it: a worker carries a grant out once, and every marker repeats it.
    """

    shard: Shard
    key_range: KeyRange
    worker: str | None
    grant: int

    def __str__(self) -> str:
        return f"{self.shard} {self.key_range}"


class MovePhase(StrEnum):
    """How far a move is (ARCHITECTURE.md, section 7); one that is done, or cancelled, is in the plan no more."""

    WARM = "warm"
    """The target reads the backup log of the range; the source works on. May be cancelled."""
    RELEASE = "release"
    """The source is ordered to release: from now on the range goes to the move's target and to nobody else (S7)."""


@dataclass(frozen=True, slots=True)
class Move:
    """A key range of a tile on its way from the tile's worker to another one: split, merge, rebalance and drain alike.

    The tile stays the source's until the target reports that it runs the range; then a plan cuts the tile. A range
    whose worker is dead needs no move: it is given. `id` is the version of the plan that made it and is never reused;
    together with shard and key range it names the move. `grant` is the version of the plan that named the present
    target: the target runs the range under it, before and after the plan that completes the move.
    """

    id: int
    shard: Shard
    key_range: KeyRange
    source: str
    target: str
    grant: int
    phase: MovePhase
    order: str = ""
    """Id of the order of a person that asked for it."""

    def __str__(self) -> str:
        return f"move {self.id} of {self.shard} {self.key_range}"


@dataclass(frozen=True, slots=True)
class Standby:
    """A worker that keeps a copy of a key range it does not own close to the end of its backup log."""

    shard: Shard
    key_range: KeyRange
    worker: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A key range that nobody gets, because what comes next in its input killed several processes."""

    shard: Shard
    key_range: KeyRange
    reason: str


@dataclass(frozen=True, slots=True)
class Registry:
    """Numeric ids of operators and states by name, never reused; they stand in every stored key.

    Invariant: from plan to plan nothing is forgotten but what the job dropped, whose ids go to `retired`.
    """

    operators: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(operator uid, state name) → id, unique within the operator, from 1."""
    schemas: Mapping[int, str] = field(default_factory=dict)
    """Schema id of stored values → canonical schema text, from 1; of all that was ever written."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Operator uid → canonical text of its key type; a changed key type is refused."""
    written: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    """(operator uid, state name) → ids of all schemas that its values may be written with, the newest last."""
    forms: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(operator uid, state name) → what is stored, beside the schema: a changed form is refused."""
    streams: Mapping[str, int] = field(default_factory=dict)
    """Topic of an internal stream → schema id of its records, which do not name it themselves."""
    retired: tuple[tuple[str, str, int], ...] = ()
    """(operator uid, state name or "" for the operator, id) of what was dropped: the ids are never given again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Routing as of one version; versions only grow.

    Invariant (S8): for each operator and partition the key ranges of the tiles cover [0, 65536) once.
    """

    app: str
    version: int
    term: int
    members: tuple[Member, ...]
    dead: tuple[str, ...]
    """Incarnations declared dead whose tiles are not yet given away."""
    tiles: tuple[Tile, ...]
    registry: Registry
    partitions: Mapping[str, int]
    """Partition count of every topic when the first plan was made; a later change is refused."""
    starts: Mapping[InputPartition, int]
    """(operator uid, topic, partition) → offset at which a slot without a marker starts; never "latest"."""
    ends: Mapping[InputPartition, int] = field(default_factory=dict)
    """(operator uid, topic, partition) → end offset of a bounded run; an internal stream's end is added when it is
    fixed.
    """
    bounded: bool = False
    complete: bool = False
    """A bounded run is finished: workers stop, exit code 0."""
    build: str = ""
    """Of the job that the leader runs; tiles were granted in plans of the build that their worker runs."""
    moves: tuple[Move, ...] = ()
    """Under way. Invariant: each lies within one tile of its source; moves of one shard do not overlap."""
    standbys: tuple[Standby, ...] = ()
    parked: tuple[Parked, ...] = ()
    """Of tiles without a worker."""
    drained: tuple[str, ...] = ()
    """Incarnations of members that get no more tiles: somebody wants them gone."""

    def member(self, incarnation: str) -> Member | None:
        """The live member with this incarnation id."""
        return next((m for m in self.members if m.incarnation == incarnation), None)

    def owned_by(self, incarnation: str) -> tuple[Tile, ...]:
        """The tiles of one worker."""
        return tuple(tile for tile in self.tiles if tile.worker == incarnation)


def tiling_fault(plan: Plan) -> str | None:
    """What breaks S8 in this plan, None when nothing does."""
    by_shard: dict[Shard, list[KeyRange]] = defaultdict(list)
    for tile in plan.tiles:
        by_shard[tile.shard].append(tile.key_range)
    for shard, ranges in by_shard.items():
        cover = SlotMap[int]()
        for key_range in ranges:
            if len(cover.slice(key_range)):
                return f"{shard}: {key_range} is covered twice in plan {plan.version}"
            cover.assign(key_range, 1)
        if gaps := cover.gaps(KeyRange(0, SLOTS)):
            return f"{shard}: {gaps[0]} has no tile in plan {plan.version}"
    return None


def moves_fault(plan: Plan) -> str | None:
    """What breaks the invariants of the moves under way, None when nothing does."""
    moving: dict[Shard, SlotMap[int]] = defaultdict(SlotMap)
    for move in plan.moves:
        if len(moving[move.shard].slice(move.key_range)):
            return f"{move} overlaps another one in plan {plan.version}"
        moving[move.shard].assign(move.key_range, move.id)
        if not any(_holds(tile, move) for tile in plan.tiles):
            return f"{move} is not within a tile of its source {move.source} in plan {plan.version}"
        if not move.id <= move.grant <= plan.version:
            return f"{move} has grant {move.grant} in plan {plan.version}"
    return None


def _holds(tile: Tile, move: Move) -> bool:
    within = tile.key_range.overlap(move.key_range) == move.key_range
    return tile.shard == move.shard and tile.worker == move.source and within


def control_topic(app: str) -> str:
    """Plans and decisions of the leader, one partition."""
    return f"{app}.control"


def reports_topic(app: str) -> str:
    """Heartbeats, ends of processes, and orders of people; one partition."""
    return f"{app}.reports"


def backup_topic(app: str, uid: str) -> str:
    """Blocks and markers of an operator, as many partitions as its input."""
    return f"{app}.{uid}.backup"


def dlq_topic(app: str, uid: str) -> str:
    """Records of an operator that could not be decoded or processed."""
    return f"{app}.{uid}.dlq"


def stream_topic(app: str, uid: str, stream: str) -> str:
    """An internal stream: an edge from operator to operator."""
    return f"{app}.{uid}.{stream}"


def leader_id(app: str) -> str:
    """The leader's fixed transactional id."""
    return f"{app}-leader"
