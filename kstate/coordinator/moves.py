"""The life of a move: how a key range comes from one live worker to another (ARCHITECTURE.md, section 7).

    begun ─▶ WARM ── target is warm, source runs ──▶ RELEASE ── target runs ──▶ done: the tile is cut
               │                                       │
               └─ source or target is gone: cancelled  ├─ target dead and fenced: back to the source, same id
                                                       ├─ source dead and fenced: the range is the target's
                                                       └─ both: given like every lost range

Nothing is kept beside the plan: each step follows from the plan and from what workers report, so any leader takes it.
Once a release is ordered the range may go only to the move's target (S7), because the target may run it already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kstate.coordinator.scene import Ownership, Scene, exchanged, is_release, least, listed
from kstate.keyspace import KeyRange
from kstate.plan import Move, MovePhase, Tile

CLOSE_RECORDS = 100_000
"""The pieces of a shard at one worker share a reader: those ahead stand still until all are level. So many records it
does in about a second; what live workers report of one moment may be half as far apart.
"""


def begin(now: Ownership, scene: Scene, tile: Tile, key_range: KeyRange, target: str) -> Ownership:
    """A new move of a part of a live worker's tile; `order` is filled in by whoever carries one out."""
    assert tile.worker is not None
    grant = scene.grant
    move = Move(grant, tile.shard, key_range, tile.worker, target, grant, MovePhase.WARM)
    return replace(now, moves=(*now.moves, move))


def after_deaths(now: Ownership, scene: Scene) -> Ownership:
    """Moves of which the source or the target is gone are cancelled, turned round or completed."""
    for move in now.moves:
        now = _released_after_death(now, move, scene) if is_release(move) else _warm_after_change(now, move, scene)
    return now


def advanced(now: Ownership, scene: Scene) -> Ownership:
    """Every move of two live workers one phase further, where reports allow it."""
    for move in now.moves:
        if scene.roll.dead & {move.source, move.target}:
            continue
        if is_release(move):
            if scene.evidence.runs(move.target, move.shard, move.key_range, move.grant):
                now = handed(now, move).noted(f"{move} runs at {scene.roll.name(move.target)}: done")
        elif _may_release(now, move, scene):
            ordered = replace(move, phase=MovePhase.RELEASE)
            target, source = scene.roll.name(move.target), scene.roll.name(move.source)
            now = _with(now, move, ordered).noted(f"{move}: {target} is warm, {source} is to release")
    return now


def drained(now: Ownership, scene: Scene) -> Ownership:
    """All that drained workers have and that is not on its way begins to move to others, as far as there are any."""
    going = set(now.drained) - scene.roll.dead
    heirs = now.able(scene.roll)
    if not going or not heirs or scene.bounded:
        return now
    load, begun = now.loads(heirs), len(now.moves)
    for tile in now.tiles:
        # What an older build runs of a dropped operator ends with its worker: nobody else knows it.
        goes = tile.worker in going and scene.job.operator(tile.shard.operator) is not None
        for part in now.resting(tile) if goes else ():
            heir = least(load, heirs)
            load[heir.incarnation] += 1
            now = begin(now, scene, tile, part, heir.incarnation)
    texts = told(now.moves[begun:], scene)
    return now.noted(f"drained: {listed(texts, 'range')}") if texts else now


def told(begun: Iterable[Move], scene: Scene) -> list[str]:
    """What goes from whom to whom, for people."""
    name = scene.roll.name
    return [f"{m.shard} {m.key_range} from {name(m.source)} to {name(m.target)}" for m in begun]


def handed(now: Ownership, move: Move) -> Ownership:
    """The move is done: its range is cut out of the source's tile and is the target's, under the move's grant."""
    there = [t for t in now.tiles if t.shard == move.shard and t.key_range.overlap(move.key_range)]
    parts = {tile: [(move.key_range, move.target)] for tile in there}
    return exchanged(_without(now, move), parts, move.grant)


def waits(scene: Scene) -> list[str]:
    """What the moves under way wait for."""
    texts = []
    for move in scene.plan.moves:
        target, source = scene.roll.name(move.target), scene.roll.name(move.source)
        if is_release(move):
            texts.append(f"{move} waits for {source} to release it and {target} to run it")
        elif not scene.evidence.is_warm(move.target, move.shard, move.key_range, move.grant):
            texts.append(f"{move} waits for {target} to be warm")
        elif not scene.evidence.runs(move.source, move.shard, move.key_range):
            texts.append(f"{move} waits for {source} to run it")
        else:
            texts.append(f"{move} waits for {source} and {target} to stand within {CLOSE_RECORDS:,} records")
    return texts


def _may_release(now: Ownership, move: Move, scene: Scene) -> bool:
    """Both are ready; and what the target runs of the shard need not wait for long, unless the source is to go."""
    said = scene.evidence
    if not said.is_warm(move.target, move.shard, move.key_range, move.grant):
        return False
    close = move.source in now.drained or said.records_apart(move) <= CLOSE_RECORDS
    return close and said.runs(move.source, move.shard, move.key_range)


def _warm_after_change(now: Ownership, move: Move, scene: Scene) -> Ownership:
    """Nobody but the source has touched the range so far: any obstacle cancels the move."""
    obstacle = _obstacle(now, move, scene)
    return now if obstacle is None else _without(now, move).noted(f"{move} cancelled: {obstacle}")


def _obstacle(now: Ownership, move: Move, scene: Scene) -> str | None:
    """Why a move that is not yet under release must not go on."""
    for worker in (move.source, move.target):
        if worker in scene.roll.dead or all(m.incarnation != worker for m in now.members):
            return f"{scene.roll.name(worker)} is dead"
    if move.target in now.drained:
        return f"{scene.roll.name(move.target)} is being drained"
    if all(m.incarnation != move.target for m in now.able(scene.roll)):
        return f"{scene.roll.name(move.target)} runs another build"
    if scene.job.operator(move.shard.operator) is None:
        return f"operator {move.shard.operator} is dropped"
    return None


def _released_after_death(now: Ownership, move: Move, scene: Scene) -> Ownership:
    """S7. The dead count once they are fenced; until then the move stays as it is."""
    dead, fenced, name = scene.roll.dead, scene.roll.fenced, scene.roll.name
    if move.source in fenced and move.target not in dead:
        done = handed(now, move)
        return done.noted(f"{move}: {name(move.source)} is dead, {name(move.target)} has it")
    if move.target not in fenced:
        return now
    if move.source in fenced:
        return _without(now, move).noted(f"{move} ended: {name(move.source)} and {name(move.target)} are dead")
    if move.source not in dead:
        back = replace(move, target=move.source, grant=scene.grant)
        return _with(now, move, back).noted(f"{move}: {name(move.target)} is dead, back to {name(move.source)}")
    return now


def _with(now: Ownership, move: Move, changed: Move) -> Ownership:
    return replace(now, moves=tuple(changed if m == move else m for m in now.moves))


def _without(now: Ownership, move: Move) -> Ownership:
    return replace(now, moves=tuple(m for m in now.moves if m != move))
