"""Who may have tiles at all, and who gets which of them first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kstate.coordinator.control import undelivered
from kstate.coordinator.scene import Ownership, Roll, Scene, by_name, counted
from kstate.keyspace import FULL_RANGE
from kstate.plan import Member, Plan, Shard, Tile


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


def mustered(now: Ownership, scene: Scene) -> Ownership:
    """The dead are members no more, newcomers are; one whose name a live member bears has to wait.

    Members of another build stay and keep what they own. Who is drained is forgotten with the member.
    """
    roll = scene.roll
    joined = newcomers(now, roll)
    if not joined and all(m.incarnation not in roll.dead for m in now.members):
        return now
    stayed = tuple(m for m in now.members if m.incarnation not in roll.dead)
    holders = set(undelivered(scene.plan, roll.dead))
    gone = [m for m in now.members if m.incarnation in roll.dead and m.incarnation not in holders]
    members = tuple(sorted([*stayed, *joined], key=by_name)) if joined else stayed
    drained = tuple(incarnation for incarnation in now.drained if any(m.incarnation == incarnation for m in stayed))
    notes = [f"{_names(joined)} joined"] if joined else []
    notes += [f"{_names(gone)} gone"] if gone else []
    return replace(now, members=members, drained=drained).noted(*notes)


def newcomers(now: Ownership | Plan | None, roll: Roll) -> tuple[Member, ...]:
    """Live workers outside the plan that may join: of the leader's build, one per name, none whose name a live member
    bears.
    """
    members = () if now is None else tuple(m for m in now.members if m.incarnation not in roll.dead)
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
    wait = f"{counted(len(stuck), 'tile')} without owner wait for a worker of this build"
    return f"the leader runs build {roll.build}, not so {who}: {wait if stuck and not able else 'they get no tiles'}"


def _names(members: Sequence[Member]) -> str:
    return ", ".join(m.name for m in members)
