"""Moves without end: orders as the command line sends them, repeated until they are answered."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from kstate.keyspace import FULL_RANGE
from kstate.messages import Order, OrderKind
from kstate.plan import Plan, Tile
from tests.support.chaos_control import ControlWatch
from tests.support.chaos_troupe import Troupe

REPEAT_S = 1.0
GIVE_UP_S = 150.0
PAUSE_S = (0.3, 1.5)
"""Between the end of one move and the next order."""
TILES_MAX = 4
"""Of a shard, before its parts are merged again."""


@dataclass(slots=True)
class Mover:
    """The thread; from `work` on it orders whenever no move is under way. A context manager."""

    control: ControlWatch
    troupe: Troupe
    dice: random.Random
    ordered: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    unanswered: int = 0
    failure: Exception | None = None
    _sent: int = 0
    _quiet: threading.Event = field(default_factory=threading.Event)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Mover:
        self.rest()
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10)

    def rest(self) -> None:
        """No further orders until `work`."""
        self._quiet.set()

    def work(self) -> None:
        """Order again."""
        self._quiet.clear()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self.dice.uniform(*PAUSE_S)):
                plan = self.control.plan
                if plan is None or plan.moves or self._quiet.is_set() or len(plan.members) < 2:
                    continue
                if (order := self._next_order(plan)) is not None:
                    self._see_through(order)
        except Exception as failure:  # noqa: BLE001 - shown by whoever looks at the mover
            self.failure = failure

    def _see_through(self, order: Order) -> None:
        """Repeat it until control answers."""
        self.ordered[order.kind.value] += 1
        begun = repeated = time.monotonic()
        self.troupe.order(order)
        while order.id not in self.control.answers:
            if self._stopping.wait(0.02):
                return
            now = time.monotonic()
            if now - begun > GIVE_UP_S:
                self.unanswered += 1
                return
            if now - repeated > REPEAT_S:
                repeated = now
                self.troupe.order(order)
        answer = self.control.answers[order.id]
        if answer == "accepted":
            self.accepted[order.kind.value] += 1
        else:
            self.refused.append(f"{order.kind.value}: {answer}")

    def _next_order(self, plan: Plan) -> Order | None:
        """A split, merge, move or rebalance that makes sense of this plan; merges before there are too many tiles."""
        tiles = [tile for tile in plan.tiles if tile.worker is not None]
        if not tiles:
            return None
        tile = self.dice.choice(tiles)
        crowd = [other for other in tiles if other.shard == tile.shard]
        others = [m.name for m in plan.members if m.incarnation != tile.worker and m.incarnation not in plan.drained]
        if not others:
            return None
        self._sent += 1
        name, target = f"chaos-{self._sent}-{self.dice.getrandbits(32):08x}", self.dice.choice(others)
        roll = self.dice.random()
        if len(crowd) >= TILES_MAX or (len(crowd) > 1 and roll < 0.2):
            return Order(name, OrderKind.MERGE, tile.shard, FULL_RANGE, target=self._owner(plan, crowd, tile))
        if roll < 0.25:
            return Order(name, OrderKind.REBALANCE)
        if roll < 0.6 and tile.key_range.width > 4096:
            return self._split(name, tile, target)
        return Order(name, OrderKind.MOVE, tile.shard, tile.key_range, target=target)

    def _split(self, name: str, tile: Tile, target: str) -> Order:
        span = tile.key_range
        at = span.lo + int(span.width * self.dice.uniform(0.3, 0.7))
        return Order(name, OrderKind.SPLIT, tile.shard, span, target=target, at=at)

    def _owner(self, plan: Plan, crowd: list[Tile], tile: Tile) -> str | None:
        """To whom a shard is merged: to one who has some of it, or to whom the leader chooses."""
        owners = [plan.member(t.worker) for t in crowd if t.worker is not None]
        names = [member.name for member in owners if member is not None]
        return self.dice.choice([*names, None]) if names else None
