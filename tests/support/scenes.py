"""Scenes in which the leader decides: a plan of a few workers, and what they report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kstate.config import RecoverySettings
from kstate.coordinator.completion import Achieved
from kstate.coordinator.evidence import Evidence
from kstate.coordinator.scene import Roll, Scene
from kstate.description import JobDescription, OperatorDescription
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import Fatality, Heartbeat, TilePhase, TileReport
from kstate.plan import Member, Move, MovePhase, Plan, Registry, Shard, Tile

HALF = SLOTS // 2
LOWER, UPPER = KeyRange(0, HALF), KeyRange(HALF, SLOTS)
SHARD = Shard("count", 0)
JOB = JobDescription("app", tuple(OperatorDescription(uid, "none", ()) for uid in ("count", "sum")))
BUILD = JOB.build


def worker(number: int, build: str = BUILD) -> Member:
    """worker-1 with incarnation i1, and so on."""
    return Member(f"worker-{number}", f"i{number}", build)


def tile(owner: str | None, key_range: KeyRange = FULL_RANGE, partition: int = 0, grant: int = 1) -> Tile:
    """A tile of count[0], unless it says otherwise."""
    return Tile(Shard("count", partition), key_range, owner, grant)


def move(
    key_range: KeyRange = FULL_RANGE,
    phase: MovePhase = MovePhase.WARM,
    *,
    source: str = "i1",
    target: str = "i2",
    grant: int = 5,
) -> Move:
    """Move 5 of count[0]."""
    return Move(5, SHARD, key_range, source, target, grant, phase)


def plan(tiles: Iterable[Tile], workers: int = 3, version: int = 9, **fields: Any) -> Plan:
    """Plan 9 of worker-1 … worker-3."""
    members = fields.pop("members", tuple(worker(n) for n in range(1, workers + 1)))
    return Plan("app", version, 1, members, (), tuple(tiles), Registry(), {}, {}, build=BUILD, **fields)


def says(
    incarnation: str,
    phase: str,
    grant: int = 1,
    key_range: KeyRange = FULL_RANGE,
    shard: Shard = SHARD,
    fatalities: tuple[Fatality, ...] = (),
) -> Heartbeat:
    """A heartbeat of a worker with one piece."""
    report = TileReport(shard, key_range, grant, TilePhase(phase), 1, {})
    return Heartbeat(incarnation, f"worker-{incarnation[1:2]}", "h", 1, 1, 9, (report,), fatalities=fatalities)


def scene(
    newest: Plan,
    *beats: Heartbeat,
    dead: Iterable[str] = (),
    fenced: Iterable[str] = (),
    overdue: Iterable[str] = (),
    alive: Iterable[Member] = (),
    recovery: RecoverySettings | None = None,
    achieved: Achieved | None = None,
) -> Scene:
    """The fenced are dead, too; all members are heard, and `alive` beside them."""
    gone = frozenset({*dead, *fenced, *overdue})
    present = tuple(m for m in (*newest.members, *alive) if m.incarnation not in gone)
    names = {m.incarnation: m.name for m in newest.members} | {f"i{n}": f"worker-{n}" for n in range(1, 10)}
    roll = Roll(present, gone, frozenset({*fenced, *overdue}), frozenset(overdue), names, BUILD)
    heard = Evidence({beat.incarnation: beat for beat in beats})
    return Scene(
        newest,
        roll,
        JOB,
        evidence=heard,
        achieved=achieved or Achieved(),
        recovery=recovery or RecoverySettings(),
    )


def owners(tiles: Iterable[Tile]) -> list[tuple[KeyRange, str | None, int]]:
    """Range, worker and grant of each tile."""
    return [(t.key_range, t.worker, t.grant) for t in tiles]
