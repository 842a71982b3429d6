"""What a person asks for becomes moves, or a refusal that names the thing and the mend.

An order is carried out by one plan, which names it, or answered by a message; either stands in the control topic, so an
order that was answered is never carried out twice, whoever leads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from kstate.coordinator import moves
from kstate.coordinator.refusals import (
    Replied,
    check_owned,
    check_resting,
    checked_live,
    checked_shard,
    checked_target,
    checked_tile,
)
from kstate.coordinator.scene import Ownership, Scene, by_name, exchanged, least, listed
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Order, OrderKind
from kstate.plan import Member, Shard, Tile


@dataclass(frozen=True, slots=True)
class Reply:
    """No plan carries the order out: it is refused, or there is nothing to do."""

    accepted: bool
    reason: str


def carried_out(order: Order, now: Ownership, scene: Scene) -> Ownership | Reply:
    """What the next plan says when it begins this order."""
    if scene.bounded:
        return Reply(False, "this is a bounded run: nothing is moved, it ends by itself")
    try:
        after = _KINDS[order.kind](order, now, scene)
    except Replied as replied:
        return Reply(replied.accepted, replied.reason)
    begun = tuple(m if m in now.moves else replace(m, order=order.id) for m in after.moves)
    return replace(after, moves=begun, notes=(f"{'; '.join(after.notes)} (order {order.id})",))


def _split(order: Order, now: Ownership, scene: Scene) -> Ownership:
    """The first part stays, the others go to the target, or to those who have fewest."""
    shard = checked_shard(order, now)
    tile = checked_tile(order, shard, now)
    key_range = order.key_range or tile.key_range
    _, *parts = _parts(order, shard, key_range)
    if order.target is None or tile.worker is not None:
        check_owned(tile, now, scene)
    heirs = _heirs(order, now, scene, {tile.worker})
    if heirs[0].incarnation == tile.worker:
        raise Replied(f"{heirs[0].name} owns {tile} already; a split needs another worker for the other part")
    load = now.loads(heirs)
    texts = []
    for part in parts:
        check_resting(shard, part, now)
        heir = least(load, heirs)
        load[heir.incarnation] += 1
        now = _sent(now, scene, tile, part, heir)
        texts.append(f"{part} to {heir.name}")
    return now.noted(f"split {shard} {key_range}: {listed(texts, 'part')}")


def _move(order: Order, now: Ownership, scene: Scene) -> Ownership:
    """Every part of the range that is not the target's goes to it."""
    shard = checked_shard(order, now)
    tiles = _overlapped(shard, order.key_range or FULL_RANGE, now)
    heirs = _heirs(order, now, scene, {tile.worker for tile in tiles})
    return _gathered(order, tiles, order.key_range or FULL_RANGE, least(now.loads(heirs), heirs), now, scene)


def _merge(order: Order, now: Ownership, scene: Scene) -> Ownership:
    """All tiles that touch the range, whole, to one worker: touching tiles of one worker are joined."""
    shard = checked_shard(order, now)
    tiles = _overlapped(shard, order.key_range or FULL_RANGE, now)
    if order.target is not None:
        heir = checked_target(order.target, now, scene)
    else:
        widths = Counter[str | None]()
        for tile in tiles:
            widths[tile.worker] += tile.key_range.width
        able = now.able(scene.roll)
        holders = [m for m in able if m.incarnation in widths] or _heirs(order, now, scene, set())
        heir = min(holders, key=lambda m: (-widths[m.incarnation], by_name(m)))
    if all(tile.worker == heir.incarnation for tile in tiles):
        raise Replied(f"nothing to do: {listed(tiles)} {'is' if len(tiles) == 1 else 'are'} with {heir.name}", True)
    return _gathered(order, tiles, FULL_RANGE, heir, now, scene)


def _drain(order: Order, now: Ownership, scene: Scene) -> Ownership:
    """It gets nothing more, and all that it has begins to move."""
    member = checked_live(order.worker, now, scene)
    if member.incarnation in now.drained:
        raise Replied(f"nothing to do: {member.name} is being drained already", True)
    has = [tile for tile in now.tiles if tile.worker == member.incarnation]
    now = replace(now, drained=(*now.drained, member.incarnation))
    if has and not now.able(scene.roll):
        raise Replied(f"there is no other worker to take what {member.name} has; start one of this build first")
    return moves.drained(now.noted(f"drain {member.name}"), scene)


def _rebalance(_: Order, now: Ownership, scene: Scene) -> Ownership:
    """Tiles go from those who have most to those who have fewest until nobody has two more than another."""
    able = now.able(scene.roll)
    before = now
    while (pair := _uneven(now, able)) is not None:
        tile, heir = pair
        now = moves.begin(now, scene, tile, tile.key_range, heir.incarnation)
    begun = now.moves[len(before.moves) :]
    if not begun and len(able) == 1:
        raise Replied(f"nothing to do: {able[0].name} is the only worker that may get anything", True)
    if not begun:
        raise Replied(f"nothing to do: the tiles of {listed((m.name for m in able), 'worker')} are even", True)
    return now.noted(f"rebalance: {listed(moves.told(begun, scene))}")


_KINDS: Mapping[OrderKind, Callable[[Order, Ownership, Scene], Ownership]] = {
    OrderKind.SPLIT: _split,
    OrderKind.MOVE: _move,
    OrderKind.MERGE: _merge,
    OrderKind.DRAIN: _drain,
    OrderKind.REBALANCE: _rebalance,
}


def _parts(order: Order, shard: Shard, key_range: KeyRange) -> list[KeyRange]:
    """The range cut at a slot, or into equal parts."""
    lo, hi, n = key_range.lo, key_range.hi, order.parts
    if key_range.width < 2:
        raise Replied(f"{shard} {key_range} is a single slot: a hot key cannot be split")
    if order.at is not None:
        if not lo < order.at < hi:
            raise Replied(f"slot {order.at} cuts nothing off {shard} {key_range}; name one of {lo + 1} … {hi - 1}")
        return [KeyRange(lo, order.at), KeyRange(order.at, hi)]
    if not 2 <= n <= key_range.width:
        raise Replied(f"{shard} {key_range} cannot be cut into {n} parts; name 2 … {key_range.width}")
    return key_range.parts(n)


def _gathered(
    order: Order, tiles: list[Tile], key_range: KeyRange, heir: Member, now: Ownership, scene: Scene
) -> Ownership:
    """The parts of tiles within a range on their way to one worker."""
    texts = []
    for tile in tiles:
        part = tile.key_range.overlap(key_range)
        assert part is not None
        check_resting(tile.shard, part, now)
        if tile.worker == heir.incarnation:
            continue
        if order.target is None or tile.worker is not None:
            check_owned(tile, now, scene)
        now = _sent(now, scene, tile, part, heir)
        texts.append(f"{tile.shard} {part} from {scene.roll.name(tile.worker)}")
    if not texts:
        raise Replied(f"{heir.name} owns {listed(tiles)} already")
    return now.noted(f"{order.kind} {listed(texts, 'range')} to {heir.name}")


def _sent(now: Ownership, scene: Scene, tile: Tile, part: KeyRange, heir: Member) -> Ownership:
    """On its way from its owner; a part that nobody owns is given at once."""
    if tile.worker is not None:
        return moves.begin(now, scene, tile, part, heir.incarnation)
    whole = next(t for t in now.tiles if t.shard == tile.shard and t.key_range.overlap(part))
    return exchanged(now, {whole: [(part, heir.incarnation)]}, scene.grant)


def _heirs(order: Order, now: Ownership, scene: Scene, without: Iterable[str | None]) -> list[Member]:
    """Who may get it: the worker that was named, or all that may and are not among `without`."""
    if order.target is not None:
        return [checked_target(order.target, now, scene)]
    owners = set(without)
    heirs = [m for m in now.able(scene.roll) if m.incarnation not in owners]
    if not heirs:
        raise Replied("there is no other worker to take it; start one of this build first")
    return heirs


def _overlapped(shard: Shard, key_range: KeyRange, now: Ownership) -> list[Tile]:
    return [t for t in now.tiles if t.shard == shard and t.key_range.overlap(key_range)]


def _uneven(now: Ownership, able: list[Member]) -> tuple[Tile, Member] | None:
    """A tile to move, and to whom; of the operator of which its owner has most more than the heir has."""
    if not able:
        return None
    load = now.loads(able)
    heir = least(load, able)
    for owner in sorted(able, key=lambda m: (-load[m.incarnation], by_name(m))):
        if load[owner.incarnation] < load[heir.incarnation] + 2:
            return None
        free = [t for t in now.tiles if t.worker == owner.incarnation and not now.moving(t.shard, t.key_range)]
        if free:
            surplus = Counter(t.shard.operator for t in now.tiles if t.worker == owner.incarnation)
            surplus.subtract(t.shard.operator for t in now.tiles if t.worker == heir.incarnation)
            return max(free, key=lambda t: surplus[t.shard.operator]), heir
    return None
