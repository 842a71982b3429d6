"""From what was observed of a job to how it stands (`kstate.coordinator.status`): a pure function, for people only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from kstate.coordinator.control import ControlView
from kstate.coordinator.evidence import Evidence
from kstate.coordinator.observed import Heard, Observed, name_of
from kstate.coordinator.status import (
    DecisionStatus,
    LeaderStatus,
    Load,
    MoveStatus,
    Overview,
    ShardStatus,
    StandbyStatus,
    WorkerStatus,
)
from kstate.keyspace import KeyRange
from kstate.messages import Heartbeat, TilePhase, TileReport
from kstate.plan import Move, MovePhase, Plan, Shard, Tile, TopicPartition
from kstate.progress import SlotMap

_BY_READINESS = (TilePhase.RESTORING, TilePhase.WARMING, TilePhase.WARM, TilePhase.RUNNING)
_AWAY = frozenset({"silent", "dead", "leaving", "waiting", "of another build"})
"""States of workers that do nothing for the job."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the topics of the control plane do not say."""

    ends: Mapping[TopicPartition, int]
    """Of the inputs' partitions."""
    now_ms: int
    silence_max_ms: int
    """Who was not heard for longer is silent."""


class _Ranged(Protocol):
    """What lies somewhere: tiles, moves, standbys, reports of them."""

    @property
    def shard(self) -> Shard: ...

    @property
    def key_range(self) -> KeyRange: ...


def overview(app: str, observed: Observed, around: Surroundings) -> Overview:
    """How the job stands."""
    view, plan = observed.control, observed.control.plan
    leader = _leader(observed, around)
    workers = tuple(_workers(observed, around))
    state, reason = _job_state(view, leader, workers)
    return Overview(
        app=app,
        state=state,
        reason=reason,
        plan_version=None if plan is None else plan.version,
        build="" if plan is None else plan.build,
        leader=leader,
        workers=workers,
        shards=() if plan is None else tuple(_shard(tile, plan, observed, around) for tile in _in_order(plan.tiles)),
        moves=() if plan is None else tuple(_move(move, observed, around) for move in plan.moves),
        decisions=tuple(
            DecisionStatus(d.decision.term, d.decision.what, d.decision.reason, _age_s(d.at_ms, around))
            for d in observed.decisions
        ),
    )


def input_partitions(plan: Plan) -> set[TopicPartition]:
    """All that is read by anybody: where ends are needed to know lags."""
    operators = {tile.shard.operator for tile in plan.tiles}
    return {TopicPartition(topic, partition) for uid, topic, partition in plan.starts if uid in operators}


def _job_state(view: ControlView, leader: LeaderStatus | None, workers: Iterable[WorkerStatus]) -> tuple[str, str]:
    leading = leader is not None and leader.state == "leading"
    if view.halted is not None:
        return "halted", view.halted.reason
    if view.plan is not None and view.plan.complete:
        return "complete", ""
    if not leading:
        return "no leader", ""
    if view.plan is None:
        return "starting", ""
    return ("running" if any(w.state not in _AWAY for w in workers) else "no workers"), ""


# -- leader and workers


def _leader(observed: Observed, around: Surroundings) -> LeaderStatus | None:
    view = observed.control
    if not view.term:
        return None
    quiet = observed.leader_ms is None or around.now_ms - observed.leader_ms > around.silence_max_ms
    return LeaderStatus(view.leader, view.term, "silent" if quiet else "leading", _age_s(observed.leader_ms, around))


def _workers(observed: Observed, around: Surroundings) -> Iterator[WorkerStatus]:
    view, plan = observed.control, observed.control.plan
    tiles = Counter(tile.worker for tile in plan.tiles if tile.worker is not None) if plan else Counter()
    members = [member.incarnation for member in plan.members] if plan else []
    heard = [i for i, h in observed.heard.items() if i not in view.dead and _is_fresh(h, around)]
    concerned = sorted({*members, *tiles, *heard}, key=lambda i: (len(_name(i, observed)), _name(i, observed), i))
    for incarnation in concerned:
        state = _worker_state(incarnation, observed, around)
        if state == "waiting" and observed.heard[incarnation].beat.leaving:
            continue
        beat = _beat(incarnation, observed)
        member = plan.member(incarnation) if plan else None
        yield WorkerStatus(
            id=incarnation,
            name=_name(incarnation, observed),
            host=beat.host,
            pid=beat.pid,
            state=state,
            load=Load(beat.busy_percent, tiles[incarnation]),
            build=beat.build or (member.build if member else ""),
            plan_version=beat.plan_version,
            beat_age_s=_age_s(observed.heard[incarnation].at_ms, around) if incarnation in observed.heard else None,
        )


def _worker_state(incarnation: str, observed: Observed, around: Surroundings) -> str:
    view, heard = observed.control, observed.heard.get(incarnation)
    plan = view.plan
    if incarnation in view.dead:
        return "dead"
    if heard is None or not _is_fresh(heard, around):
        return "silent"
    if plan is not None and plan.build and heard.beat.build and heard.beat.build != plan.build:
        return "of another build"
    if plan is None or plan.member(incarnation) is None:
        return "waiting"
    if heard.beat.leaving:
        return "leaving"
    if incarnation in plan.drained:
        return "draining"
    return "restoring" if any(tile.phase == TilePhase.RESTORING for tile in heard.beat.tiles) else "running"


def _is_fresh(heard: Heard, around: Surroundings) -> bool:
    return around.now_ms - heard.at_ms <= around.silence_max_ms


def _beat(incarnation: str, observed: Observed) -> Heartbeat:
    """The newest heartbeat, an empty one of a worker that was not heard."""
    heard = observed.heard.get(incarnation)
    return Heartbeat(incarnation, incarnation, "", 0, 0, 0, ()) if heard is None else heard.beat


def _name(incarnation: str, observed: Observed) -> str:
    """For people: the name by which they start it."""
    return observed.control.names.get(incarnation) or _beat(incarnation, observed).name


# -- shards


def _shard(tile: Tile, plan: Plan, observed: Observed, around: Surroundings) -> ShardStatus:
    owner = tile.worker
    mine = [] if owner is None else _reported(tile, _beat(owner, observed))
    running = [report for report in mine if report.phase == TilePhase.RUNNING]
    parked = [p.reason for p in plan.parked if _touches(p, tile)]
    progress = _least(running)
    return ShardStatus(
        operator=tile.shard.operator,
        partition=tile.shard.partition,
        lo=tile.key_range.lo,
        hi=tile.key_range.hi,
        worker=None if owner is None else _name(owner, observed),
        incarnation=owner,
        grant=tile.grant,
        phase="parked" if parked else _shard_phase(tile, plan, observed, mine),
        epoch=max((report.epoch for report in mine), default=0),
        progress=progress,
        lag=_lag(tile, progress, around),
        state_bytes=sum(report.state_bytes for report in mine),
        parked=parked[0] if parked else None,
        deaths=_deaths(tile, observed),
        standbys=tuple(_standbys(tile, plan, observed)),
    )


def _shard_phase(tile: Tile, plan: Plan, observed: Observed, mine: Iterable[TileReport]) -> str:
    """By what its worker reports of it; a range that is released already is not the worker's any more."""
    if tile.worker is None:
        return "unowned"
    if tile.worker in observed.control.dead:
        return "lost"
    still = SlotMap([(tile.key_range, True)])
    for move in plan.moves:
        if move.phase is MovePhase.RELEASE and _touches(move, tile):
            still.clear(move.key_range)
    if not len(still):
        return "moving"
    mine = list(mine)
    if any(report.phase == TilePhase.RESTORING for report in mine):
        return "restoring"
    for report in mine:
        still.clear(report.key_range)
    return "waiting" if len(still) else "running"


def _reported(tile: Tile, beat: Heartbeat) -> list[TileReport]:
    """What its worker says of the pieces of a tile; copies are another matter."""
    return [r for r in beat.tiles if r.phase in {TilePhase.RUNNING, TilePhase.RESTORING} and _touches(r, tile)]


def _least(reports: Iterable[TileReport]) -> dict[str, int]:
    """By topic, the progress of the piece that is least far; nothing while it is not known of one."""
    reports = list(reports)
    if not reports or not all(report.progress for report in reports):
        return {}
    topics = {topic for report in reports for topic in report.progress}
    return {t: min(r.progress[t] for r in reports if t in r.progress) for t in sorted(topics)}


def _lag(tile: Tile, progress: Mapping[str, int], around: Surroundings) -> int | None:
    lags = [
        max(0, around.ends[source] - offset)
        for topic, offset in progress.items()
        if (source := TopicPartition(topic, tile.shard.partition)) in around.ends
    ]
    return sum(lags) if lags else None


def _deaths(tile: Tile, observed: Observed) -> int:
    """At the place where most died, added up as the leader does; the dead do not take back what they said, so they do
    not count.
    """
    beats = {i: heard.beat for i, heard in observed.heard.items() if i not in observed.control.dead}
    return max((fatality.deaths for fatality in Evidence(beats).fatalities(tile.shard, tile.key_range)), default=0)


def _standbys(tile: Tile, plan: Plan, observed: Observed) -> Iterator[StandbyStatus]:
    for standby in plan.standbys:
        if not _touches(standby, tile):
            continue
        copies = _copies(standby, _beat(standby.worker, observed))
        yield StandbyStatus(_name(standby.worker, observed), *_copy_state(copies))


def _copies(place: _Ranged, beat: Heartbeat) -> list[TileReport]:
    return [r for r in beat.tiles if r.phase in {TilePhase.WARM, TilePhase.WARMING} and _touches(r, place)]


def _copy_state(copies: Iterable[TileReport]) -> tuple[str, int]:
    """Phase and distance of the copy that is least far."""
    copies = list(copies)
    phases = {copy.phase for copy in copies}
    phase = next((phase for phase in _BY_READINESS if phase in phases), "starting")
    return phase, max((copy.behind for copy in copies), default=0)


# -- moves


def _move(move: Move, observed: Observed, around: Surroundings) -> MoveStatus:
    course = observed.courses.get(name_of(move))
    copy, behind = copy_state(move, observed)
    return MoveStatus(
        id=move.id,
        phase=move.phase.value,
        age_s=_age_s(course.began_ms, around) if course else None,
        phase_age_s=_age_s(course.phase_ms, around) if course else None,
        operator=move.shard.operator,
        partition=move.shard.partition,
        lo=move.key_range.lo,
        hi=move.key_range.hi,
        source=_name(move.source, observed),
        target=_name(move.target, observed),
        grant=move.grant,
        order=move.order,
        copy=copy,
        behind=behind,
    )


def copy_state(move: Move, observed: Observed) -> tuple[str, int]:
    """How the target stands with the range of a move, and how many records of the backup log it has still to read."""
    beat = _beat(move.target, observed)
    return _copy_state(r for r in beat.tiles if r.grant == move.grant and _touches(r, move))


# -- small parts


def _in_order(tiles: Iterable[Tile]) -> list[Tile]:
    return sorted(tiles, key=lambda tile: (tile.shard, tile.key_range.lo))


def _touches(one: _Ranged, other: _Ranged) -> bool:
    return one.shard == other.shard and one.key_range.overlap(other.key_range) is not None


def _age_s(at_ms: int | None, around: Surroundings) -> float | None:
    return None if at_ms is None else max(0, around.now_ms - at_ms) / 1000
