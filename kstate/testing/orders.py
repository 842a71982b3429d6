"""Somebody who orders moves of a simulated cluster, as the commands `kstate split`, `move` and so on do.

Most orders make sense when they are given; by the time the leader hears of them they may not any more, and some never
did. An order is repeated until the control topic answers it, whatever happens to leaders meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from kstate.clock import Step, Steps
from kstate.keyspace import SLOTS, KeyRange
from kstate.messages import Order, OrderKind
from kstate.plan import Plan, Shard, Tile, reports_topic
from kstate.testing.cluster import Cluster
from kstate.wire import encode_report

REPEATED = Step("ordered", wait=0.1)
"""A CLI repeats an order about every second; here everything is about ten times as quick."""
NONSENSE_SHARE = 0.08
FOOLISH_SHARE = 0.1
"""Of the targets: anybody, the present owner too."""
PAUSE_S_MAX = 0.3


def send_order(cluster: Cluster, order: Order) -> None:
    """Send it once."""
    topic = reports_topic(cluster.blueprint.topology.app)
    if topic in cluster.world.log.broker.topics:
        cluster.world.log.report(topic, {"value": encode_report(order), "partition": 0})


class Person:
    """Gives a number of orders, one after the other."""

    def __init__(self, cluster: Cluster, rng: Random, count: int) -> None:
        self._cluster = cluster
        self._rng = rng
        self._count = count

    def orders(self) -> Steps[None]:
        """Until all are answered, or there is nobody left to answer them: the job is over."""
        for number in range(self._count):
            yield Step("thinking", wait=self._rng.random() * PAUSE_S_MAX)
            while (plan := self._cluster.plan()) is None:
                yield Step("thinking", wait=0.1)
            order = some_order(self._rng, plan, f"order-{number}")
            self._cluster.world.tell("person", f"orders {_told(order)}")
            while order.id not in self._cluster.verdicts:
                if self._is_over():
                    return
                send_order(self._cluster, order)
                yield REPEATED

    def _is_over(self) -> bool:
        plan = self._cluster.plan()
        return self._cluster.halted or (plan is not None and plan.complete)


def some_order(rng: Random, plan: Plan, order_id: str) -> Order:
    """An order that may be given while this plan holds."""
    if rng.random() < NONSENSE_SHARE:
        return _nonsense(rng, plan, order_id)
    make = rng.choices([make for make, _ in _ORDERS], [weight for _, weight in _ORDERS])[0]
    return make(rng, plan, order_id)


def _split(rng: Random, plan: Plan, order_id: str) -> Order:
    tile = rng.choice(plan.tiles)
    key_range = tile.key_range if rng.random() < 0.7 else None
    if rng.random() < 0.7 and tile.key_range.width > 1:
        at = rng.randrange(tile.key_range.lo + 1, tile.key_range.hi)
        return Order(order_id, OrderKind.SPLIT, tile.shard, key_range, target=_target(rng, plan, tile), at=at)
    return Order(order_id, OrderKind.SPLIT, tile.shard, key_range, parts=rng.randint(2, 4))


def _move(rng: Random, plan: Plan, order_id: str) -> Order:
    tile = rng.choice(plan.tiles)
    return Order(order_id, OrderKind.MOVE, tile.shard, _part(rng, tile), target=_target(rng, plan, tile))


def _merge(rng: Random, plan: Plan, order_id: str) -> Order:
    cut = [tile.shard for tile in plan.tiles if tile.key_range.width < SLOTS]
    shard = rng.choice(cut or [tile.shard for tile in plan.tiles])
    return Order(order_id, OrderKind.MERGE, shard, target=rng.choice((None, *_names(plan))))


def _drain(rng: Random, plan: Plan, order_id: str) -> Order:
    return Order(order_id, OrderKind.DRAIN, worker=rng.choice(_names(plan)))


def _rebalance(_: Random, __: Plan, order_id: str) -> Order:
    return Order(order_id, OrderKind.REBALANCE)


_ORDERS: tuple[tuple[Callable[[Random, Plan, str], Order], int], ...] = (
    (_split, 5),
    (_move, 5),
    (_merge, 3),
    (_drain, 1),
    (_rebalance, 2),
)
"""With their weights."""


def _nonsense(rng: Random, plan: Plan, order_id: str) -> Order:
    """What no command should send, and somebody will."""
    tile = rng.choice(plan.tiles)
    lo = rng.randrange(SLOTS)
    return Order(
        order_id,
        rng.choice(list(OrderKind)),
        rng.choice((None, tile.shard, Shard("nothing", 0), Shard(tile.shard.operator, 99))),
        rng.choice((None, tile.key_range, KeyRange(lo, rng.randint(lo + 1, SLOTS)), KeyRange(lo, lo + 1))),
        rng.choice((None, "nobody", *_names(plan))),
        rng.choice((None, "nobody", *_names(plan))),
        rng.choice((None, 0, rng.randrange(SLOTS), SLOTS)),
        rng.choice((1, 2, 100)),
    )


def _part(rng: Random, tile: Tile) -> KeyRange:
    """A tile, or a part of it."""
    if rng.random() < 0.5:
        return tile.key_range
    lo = rng.randrange(tile.key_range.lo, tile.key_range.hi)
    return KeyRange(lo, rng.randint(lo + 1, tile.key_range.hi))


def _target(rng: Random, plan: Plan, tile: Tile) -> str | None:
    others = [member.name for member in plan.members if member.incarnation != tile.worker]
    return rng.choice((None, *(_names(plan) if rng.random() < FOOLISH_SHARE else others)))


def _names(plan: Plan) -> list[str]:
    return [member.name for member in plan.members] or ["nobody"]


def _told(order: Order) -> str:
    words = (
        ("", order.shard),
        ("", order.key_range),
        ("worker ", order.worker),
        ("to ", order.target),
        ("at ", order.at),
    )
    told = [f"{word}{what}" for word, what in words if what is not None]
    return " ".join([f"{order.id}: {order.kind}", *told])
