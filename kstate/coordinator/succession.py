"""Who gets what has no owner: the ranges of the dead, of new operators, and what is parked no longer.

    lost ─▶ poisoned? parked
         ─▶ a live standby has a copy? to the warmest, at once
         ─▶ a part of it was moving, and the target has a copy? to the target, at once
         ─▶ the successor of the same name lives? to it: its disk has most of it
         ─▶ waited for it long enough? to those who have fewest, cut into `recovery.parallelism` ranges

Recovery is a move without a source: a scale-out with n = 1, parallel recovery with n > 1. Only that is given which
belonged to a worker that was fenced after its death was decided (S2), and nothing under a move: that has an heir (S7).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from kstate.coordinator.parking import is_parked, poisoned
from kstate.coordinator.scene import Ownership, Scene, by_name, exchanged, is_release, kept_of, least, listed
from kstate.keyspace import SLOTS, KeyRange
from kstate.plan import Member, Parked, Tile

Part = tuple[KeyRange, str | None]
"""A part of a tile and whose it becomes."""

CUT_WIDTH_MIN = SLOTS // 32
"""Narrower ranges do not come of a cut: deaths in a row would grind a shard to dust."""


def lost_given(now: Ownership, scene: Scene) -> Ownership:
    """What belonged to the fenced dead goes to whom it may go now; the rest waits."""
    if not scene.roll.fenced:
        return now
    load = now.loads(now.able(scene.roll))
    told: dict[tuple[str, str], list[str]] = {}
    parts: dict[Tile, list[Part]] = {}
    parked: list[Parked] = []
    for tile in now.tiles:
        if tile.worker not in scene.roll.fenced or now.moving(tile.shard, tile.key_range):
            continue
        if (poison := poisoned(tile, scene)) is not None:
            parked.append(poison)
            parts[tile] = [(tile.key_range, None)]
        elif given := _given(tile, now, load, scene):
            parts[tile], whom = given
            load.update(worker for _, worker in parts[tile] if worker is not None)
            told.setdefault((scene.roll.name(tile.worker), whom), []).extend(_texts(tile, parts[tile]))
    notes = [f"{listed(texts)} of {dead} to {whom}" for (dead, whom), texts in told.items()]
    notes += [f"parked: {poison.reason}" for poison in parked]
    return exchanged(replace(now, parked=(*now.parked, *parked)), parts, scene.grant).noted(*notes) if parts else now


def orphans_given(now: Ownership, scene: Scene) -> Ownership:
    """Tiles that nobody owns, and that are not parked, go to those who have fewest."""
    orphans = [t for t in now.tiles if t.worker is None and not is_parked(now, t.shard, t.key_range)]
    if not orphans or not (able := now.able(scene.roll)):
        return now
    load, heirs = now.loads(able), {}
    parts: dict[Tile, list[Part]] = {}
    for tile in sorted(orphans, key=lambda t: (t.shard, t.key_range)):
        heir = heirs[tile] = least(load, able)
        load[heir.incarnation] += 1
        parts[tile] = _dealt(tile, [heir])
    names = ", ".join(heir.name for heir in sorted(set(heirs.values()), key=by_name))
    return exchanged(now, parts, scene.grant).noted(f"{listed(orphans)} without owner to {names}")


def waits(scene: Scene) -> list[str]:
    """Which tiles wait for an owner, and why nobody gets them."""
    now = kept_of(scene.plan)
    if now.able(scene.roll):
        return []
    live = [m for m in now.members if m.incarnation not in scene.roll.dead]
    owners = {m.incarnation for m in live}
    stuck = [t for t in now.tiles if t.worker not in owners and not is_parked(now, t.shard, t.key_range)]
    why = "all that are there are being drained or run another build" if live else "nobody is there"
    return [f"{listed(stuck)} wait for a worker: {why}"] if stuck else []


def _given(tile: Tile, now: Ownership, load: Counter[str], scene: Scene) -> tuple[list[Part], str] | None:
    """Who gets which part of a lost tile now, and in words; what is left of it, or None: it waits."""
    assert tile.worker is not None
    able = now.able(scene.roll)
    if ready := _standbys(tile, able, scene):
        heir = least(load, ready)
        return _dealt(tile, [heir]), f"its standby {heir.name}"
    if copied := _on_their_way(tile, able, scene):
        return copied, f"{_names(copied, scene)}, on its way there"
    name = scene.roll.names.get(tile.worker)
    if successors := [m for m in able if m.name == name]:
        return _dealt(tile, successors[:1]), f"its successor {name}"
    if tile.worker not in scene.roll.overdue or not able:
        return None
    count = max(1, min(scene.recovery.parallelism, len(able), tile.key_range.width // CUT_WIDTH_MIN))
    heirs = sorted(able, key=lambda m: (load[m.incarnation], by_name(m)))[:count]
    parts = _dealt(tile, _seated(tile, heirs, now))
    return parts, f"{count} workers: {_names(parts, scene)}" if count > 1 else heirs[0].name


def _on_their_way(tile: Tile, able: list[Member], scene: Scene) -> list[Part]:
    """Parts of it that were moving, their release not yet ordered, to workers that have a copy of them."""
    workers = {m.incarnation for m in able}
    moving = [m for m in scene.plan.moves if (m.shard, m.source) == (tile.shard, tile.worker) and not is_release(m)]
    ready = [m for m in moving if m.target in workers and scene.evidence.has_copy(m.target, m.shard, m.key_range)]
    return [(part, m.target) for m in ready if (part := m.key_range.overlap(tile.key_range))]


def _texts(tile: Tile, parts: list[Part]) -> list[str]:
    """A tile that is given whole as such, else its parts."""
    whole = sum(part.width for part, _ in parts) == tile.key_range.width
    return [str(tile)] if whole else [f"{tile.shard} {part}" for part, _ in parts]


def _names(parts: list[Part], scene: Scene) -> str:
    return ", ".join(dict.fromkeys(scene.roll.name(worker) for _, worker in parts))


def _standbys(tile: Tile, able: list[Member], scene: Scene) -> list[Member]:
    """Live standbys that have a copy of a tile, only the warm ones where there are any."""
    named = {s.worker for s in scene.plan.standbys if s.shard == tile.shard and s.key_range.overlap(tile.key_range)}
    told, place = scene.evidence, (tile.shard, tile.key_range)
    ready = [m for m in able if m.incarnation in named and told.has_copy(m.incarnation, *place)]
    return [m for m in ready if told.is_warm(m.incarnation, *place)] or ready


def _seated(tile: Tile, heirs: list[Member], now: Ownership) -> list[Member]:
    """Those who own a range beside it next to that: what touches becomes one tile, or ranges would be cut ever smaller.

    Every worker that gets a part reads the whole log of the partition.
    """
    beside = [t for t in now.tiles if t.shard == tile.shard]
    below = next((t.worker for t in beside if t.key_range.hi == tile.key_range.lo), None)
    above = next((t.worker for t in beside if t.key_range.lo == tile.key_range.hi), None)
    return sorted(heirs, key=lambda m: (m.incarnation == above) - (m.incarnation == below))


def _dealt(tile: Tile, heirs: list[Member]) -> list[Part]:
    """A tile as parts of about equal width, one for each heir."""
    parts = tile.key_range.parts(len(heirs))
    return [(part, heir.incarnation) for part, heir in zip(parts, heirs, strict=True)]
