"""What an order must be right about; each refusal names the thing, what is there instead, and the mend."""

from __future__ import annotations

from kstate.coordinator.scene import Ownership, Scene, by_name, listed
from kstate.keyspace import KeyRange
from kstate.messages import Order
from kstate.plan import Member, Shard, Tile


class Replied(Exception):  # noqa: N818 (no error: how a reply leaves the nested checks)
    """No plan carries the order out."""

    def __init__(self, reason: str, accepted: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.accepted = accepted


def checked_shard(order: Order, now: Ownership) -> Shard:
    """The shard that an order names, if there is such a one."""
    shard = order.shard
    if shard is None:
        raise Replied(f"a {order.kind} needs an operator and a partition")
    known = {tile.shard for tile in now.tiles}
    if all(s.operator != shard.operator for s in known):
        names = ", ".join(sorted({s.operator for s in known}))
        raise Replied(f"there is no operator '{shard.operator}'; there are: {names}")
    if shard not in known:
        partitions = 1 + max(s.partition for s in known if s.operator == shard.operator)
        raise Replied(f"there is no {shard}; '{shard.operator}' has partitions 0 … {partitions - 1}")
    return shard


def checked_tile(order: Order, shard: Shard, now: Ownership) -> Tile:
    """The one tile that a split is about: that of its range, that of its slot, or the only one."""
    tiles = [tile for tile in now.tiles if tile.shard == shard]
    if (wanted := order.key_range) is not None:
        found = [tile for tile in tiles if tile.key_range.overlap(wanted) == wanted]
        fault = f"{shard} {wanted} is not within one tile"
    elif order.at is not None and len(tiles) > 1:
        found = [tile for tile in tiles if order.at in tile.key_range]
        fault = f"{shard} has no slot {order.at}"
    else:
        found = tiles if len(tiles) == 1 else []
        fault = f"{shard} has {len(tiles)} tiles; say which range is to be split"
    if not found:
        raise Replied(f"{fault}; its tiles are: {', '.join(str(tile.key_range) for tile in tiles)}")
    return found[0]


def checked_live(name: str | None, now: Ownership, scene: Scene) -> Member:
    """The live member of this name."""
    roll = scene.roll
    if name is None:
        raise Replied("a worker is needed; name one of: " + _present(now, scene))
    live = [m for m in now.members if m.name == name and m.incarnation not in roll.dead]
    if live:
        return live[0]
    if others := [m for m in roll.alive if m.name == name]:
        raise Replied(f"{name} runs build {others[0].build or 'unknown'}, the leader {roll.build}: it is no member")
    if name in roll.names.values():
        raise Replied(f"{name} is dead; there are: {_present(now, scene)}")
    raise Replied(f"there is no worker '{name}'; there are: {_present(now, scene)}")


def checked_target(name: str, now: Ownership, scene: Scene) -> Member:
    """The live member of this name, if it may get something."""
    member = checked_live(name, now, scene)
    if member.build != scene.roll.build:
        raise Replied(f"{name} runs build {member.build or 'unknown'}, the leader {scene.roll.build}: it gets nothing")
    if member.incarnation in now.drained:
        raise Replied(f"{name} is being drained: it gets nothing; start it again to use it")
    return member


def check_owned(tile: Tile, now: Ownership, scene: Scene) -> None:
    """A live worker has it."""
    if tile.worker is None:
        why = next((p.reason for p in now.parked if p.shard == tile.shard and p.key_range.overlap(tile.key_range)), "")
        mend = "name a target to have it tried there" if why else "it is given as soon as a worker is there"
        raise Replied(f"nobody owns {tile}{f' ({why})' if why else ''}; {mend}")
    if tile.worker in scene.roll.dead:
        raise Replied(f"{tile} is being recovered: {scene.roll.name(tile.worker)} is dead; try again when it runs")


def check_resting(shard: Shard, key_range: KeyRange, now: Ownership) -> None:
    """No move is under way there."""
    if under_way := now.moving(shard, key_range):
        raise Replied(f"{listed(under_way, 'move')} is under way; try again when it is done")


def _present(now: Ownership, scene: Scene) -> str:
    live = [m for m in now.members if m.incarnation not in scene.roll.dead]
    return ", ".join(m.name for m in sorted(live, key=by_name)) or "none"
