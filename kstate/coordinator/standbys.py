"""Standbys: workers that keep a copy of a range that they do not own, so that it can be given to them at once.

`recovery.standbys` of them per tile, as far as there are workers; never its owner, only workers of the leader's build,
spread evenly. What is there stays: a copy that is to go elsewhere is first made there, and given up when all are warm.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from kstate.coordinator.scene import Ownership, Scene, least, listed
from kstate.plan import Member, Standby, Tile


def assigned(now: Ownership, scene: Scene) -> Ownership:
    """The standbys of the tiles as they are now."""
    wanted = scene.recovery.standbys
    if not wanted and not now.standbys:
        return now
    able = {m.incarnation: m for m in now.able(scene.roll)}
    there = defaultdict(list)
    for standby in now.standbys:
        there[standby.shard].append(standby)
    kept = {t: _kept(t, there[t.shard], able) for t in now.tiles if _is_to_be_copied(t, scene)} if wanted else {}
    load = Counter(dict.fromkeys(able, 0))
    load.update(m.incarnation for members in kept.values() for m in members)
    for tile, members in kept.items():
        others = _others(tile, members, able)
        while len(members) < wanted and others:
            _add(members, others, load)
    for tile, members in kept.items():
        _end_surplus(tile, members, load, scene)
    for tile, members in kept.items():
        if len(members) == wanted:
            _shift(members, _others(tile, members, able), load)
    standbys = tuple(Standby(t.shard, t.key_range, m.incarnation) for t, members in kept.items() for m in members)
    return now if standbys == now.standbys else replace(now, standbys=standbys).noted(*_told(standbys, now, scene))


def _is_to_be_copied(tile: Tile, scene: Scene) -> bool:
    """Somebody has it, and its operator is not one that only an older build still knows."""
    return tile.worker is not None and scene.job.operator(tile.shard.operator) is not None


def _kept(tile: Tile, there: list[Standby], able: dict[str, Member]) -> list[Member]:
    """Those of the shard's who have a copy of any part of it and may keep it."""
    copies = dict.fromkeys(s.worker for s in there if s.key_range.overlap(tile.key_range))
    return [able[worker] for worker in copies if worker in able and worker != tile.worker]


def _others(tile: Tile, members: list[Member], able: dict[str, Member]) -> list[Member]:
    """Who may begin a copy of it."""
    return [m for m in able.values() if m.incarnation != tile.worker and m not in members]


def _add(members: list[Member], others: list[Member], load: Counter[str]) -> None:
    newcomer = least(load, others)
    members.append(newcomer)
    others.remove(newcomer)
    load[newcomer.incarnation] += 1


def _end_surplus(tile: Tile, members: list[Member], load: Counter[str], scene: Scene) -> None:
    """One too many: the busiest ends when all are warm, and does not count until then."""
    if len(members) > scene.recovery.standbys:
        busiest = max(members, key=lambda m: load[m.incarnation])
        load[busiest.incarnation] -= 1
        if all(scene.evidence.is_warm(m.incarnation, tile.shard, tile.key_range) for m in members):
            members.remove(busiest)


def _shift(members: list[Member], others: list[Member], load: Counter[str]) -> None:
    """Towards an even spread: one more where somebody has two fewer than another, which is to end its own then."""
    busiest = max(members, key=lambda m: load[m.incarnation])
    if others and load[busiest.incarnation] >= load[least(load, others).incarnation] + 2:
        _add(members, others, load)
        load[busiest.incarnation] -= 1


def _told(after: tuple[Standby, ...], before: Ownership, scene: Scene) -> list[str]:
    """Who begins and who ends, for people; a copy of a range that was merely cut or joined does neither."""
    began, ended = _new(after, before.standbys, scene), _new(before.standbys, after, scene)
    notes = [f"standby of {listed(began, 'range')} begins"] if began else []
    notes += [f"standby of {listed(ended, 'range')} ends"] if ended else []
    return notes or ["standbys follow their tiles"]


def _new(these: Iterable[Standby], those: Iterable[Standby], scene: Scene) -> list[str]:
    """Which of these have nothing in common with any of those."""
    old = defaultdict(list)
    for s in those:
        old[s.shard, s.worker].append(s.key_range)
    new = [s for s in these if not any(s.key_range.overlap(r) for r in old[s.shard, s.worker])]
    return [f"{s.shard} {s.key_range} at {scene.roll.name(s.worker)}" for s in new]
