"""Who gets which tile: the first plan, and the tiles of the dead.

Whole partitions only; moves, splits and parallel recovery come on top of the same values. Every function is pure, and a
result that does not tile is an error here, before anybody sees it (S8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kstate.keyspace import FULL_RANGE
from kstate.plan import Member, Plan, Shard, Tile


@dataclass(frozen=True, slots=True)
class Roll:
    """Who may get tiles, and whose tiles may be given, at one moment."""

    alive: tuple[Member, ...]
    """Those who heartbeat, members of the plan or not, the freshest first."""
    dead: frozenset[str]
    fenced: frozenset[str]
    """Declared dead, seen, and fenced since: their tiles may be given (S2)."""
    overdue: frozenset[str]
    """Dead whose successor was waited for long enough."""
    names: Mapping[str, str]
    """Incarnation → name, of the dead too."""
    build: str = ""
    """Of the leader's job: only those who run the same join and get tiles."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """The part of a plan that says who owns what, and why it came to be."""

    members: tuple[Member, ...]
    dead: tuple[str, ...]
    tiles: tuple[Tile, ...]
    reason: str


def by_name(member: Member) -> tuple[int, str, str]:
    """Sort key: worker-2 before worker-10."""
    return len(member.name), member.name, member.incarnation


def first_tiles(shards: Mapping[str, int], members: Sequence[Member], grant: int) -> tuple[Tile, ...]:
    """Whole partitions of every operator (uid → partition count), spread evenly, in runs of neighbours.

    Each worker gets as many tiles of each operator as any other, give or take one; what is left over goes to whoever
    has fewest in total, so that many small operators do not all land on the first worker.
    """
    workers = sorted(members, key=by_name)
    load: Counter[str] = Counter()
    tiles: list[Tile] = []
    for uid, partitions in shards.items():
        share, rest = divmod(partitions, len(workers))
        favoured = set(sorted(range(len(workers)), key=lambda i: (load[workers[i].incarnation], i))[:rest])
        owners = [w.incarnation for i, w in enumerate(workers) for _ in range(share + (i in favoured))]
        load.update(owners)
        tiles += [Tile(Shard(uid, p), FULL_RANGE, owner, grant) for p, owner in enumerate(owners)]
    return tuple(tiles)


def spread(tiles: Sequence[Tile], givable: set[Tile], members: Sequence[Member], grant: int) -> tuple[Tile, ...]:
    """The same tiles, those that may be given handed to the least loaded members under a new grant."""
    load = Counter({m.incarnation: 0 for m in members})
    load.update(t.worker for t in tiles if t.worker is not None and t.worker in load and t not in givable)
    order = {m.incarnation: i for i, m in enumerate(sorted(members, key=by_name))}
    given: dict[Tile, Tile] = {}
    for tile in sorted(givable, key=lambda t: (t.shard, t.key_range)):
        heir = min(order, key=lambda i: (load[i], order[i]))
        load[heir] += 1
        given[tile] = replace(tile, worker=heir, grant=grant)
    return tuple(given.get(tile, tile) for tile in tiles)


def reassigned(plan: Plan, roll: Roll) -> Ownership | None:
    """Who owns what after the deaths and arrivals of this moment; None when the plan may stay as it is.

    The tiles of a fenced dead worker go, whole, to the live member of its name, its successor, and after the wait for
    it to those who have fewest. Newcomers become members; one whose name a live member bears has to wait. Members of
    another build keep what they own, and get nothing.
    """
    grant = plan.version + 1
    members, joined = _members(plan, roll)
    able = [member for member in members if member.build == roll.build]
    tiles, notes = plan.tiles, []
    for dead in dict.fromkeys(t.worker for t in plan.tiles if t.worker in roll.fenced):
        assert dead is not None
        lost = {tile for tile in tiles if tile.worker == dead}
        heirs = _heirs(dead, able, roll)
        if heirs:
            tiles = spread(tiles, lost, heirs, grant)
            notes.append(f"{_count(len(lost), 'tile')} of {dead} to {_names(heirs)}")
    if able and (orphans := {tile for tile in tiles if tile.worker is None}):
        tiles = spread(tiles, orphans, able, grant)
        notes.append(f"{_count(len(orphans), 'tile')} without owner to {_names(able)}")
    if joined:
        notes.append(f"{_names(joined)} joined")
    idle = {m.incarnation for m in plan.members} - {tile.worker for tile in plan.tiles}
    if gone := [m for m in plan.members if m.incarnation in roll.dead & idle]:
        notes.append(f"{_names(gone)} gone")
    if tiles == plan.tiles and not joined and not gone:
        return None
    undelivered = tuple(sorted(roll.dead & {tile.worker for tile in tiles if tile.worker}))
    return Ownership(members, undelivered, tiles, "; ".join(notes))


def newcomers(plan: Plan | None, roll: Roll) -> tuple[Member, ...]:
    """Live workers outside the plan that may join: of the leader's build, one per name, none whose name a live member
    bears.
    """
    members = () if plan is None else tuple(m for m in plan.members if m.incarnation not in roll.dead)
    taken = {m.name for m in members}
    known = {m.incarnation for m in members} | roll.dead
    fresh: dict[str, Member] = {}
    for member in roll.alive:
        if member.build == roll.build and member.incarnation not in known and member.name not in taken:
            fresh.setdefault(member.name, member)
    return tuple(sorted(fresh.values(), key=by_name))


def waiting(plan: Plan | None, roll: Roll) -> str | None:
    """Why workers that are there get no tiles, or tiles no worker, because of their builds; None when nobody waits."""
    members = () if plan is None else plan.members
    others = [m for m in roll.alive if m.build != roll.build and m not in members and m.incarnation not in roll.dead]
    stuck = [t for t in plan.tiles if t.worker is None or t.worker in roll.dead] if plan else []
    if not others:
        return None
    who = ", ".join(f"{m.name} (build {m.build or 'unknown'})" for m in sorted(others, key=by_name))
    able = [m for m in members if m.build == roll.build and m.incarnation not in roll.dead]
    wait = f"{_count(len(stuck), 'tile')} without owner wait for a worker of this build"
    return f"the leader runs build {roll.build}, not so {who}: {wait if stuck and not able else 'they get no tiles'}"


def _members(plan: Plan, roll: Roll) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
    """The live members of the next plan, and those of them that are new."""
    joined = newcomers(plan, roll)
    stayed = [m for m in plan.members if m.incarnation not in roll.dead]
    return tuple(sorted([*stayed, *joined], key=by_name)), joined


def _heirs(dead: str, members: Sequence[Member], roll: Roll) -> list[Member]:
    """Who the tiles of a dead worker may go to now; empty: wait."""
    name = roll.names.get(dead)
    successors = [m for m in members if m.name == name]
    return successors or (list(members) if dead in roll.overdue else [])


def _names(members: Sequence[Member]) -> str:
    return ", ".join(m.name for m in members)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
