"""Part "moves": what splits, moves and merges cost the keys that move, and all others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.elastic.cluster import Carried, Cluster
from benchmarks.elastic.figures import latencies_ms, longest_gaps_ms, of_groups, produced_in, rounded, spread
from benchmarks.elastic.job import EPOCH_MS, UID
from benchmarks.elastic.keys import GROUPS, PARTITIONS, groups_of
from benchmarks.elastic.session import AFTER_S, quiet
from kstate.messages import OrderKind
from kstate.plan import Shard

PAUSE_S = 1.0
"""Between the windows of two moves."""
WINDOW_S = 2 * EPOCH_MS / 1000
"""A move is watched until so long after it is done."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A move, its groups, and the time in which it might be felt."""

    carried: Carried
    moved: frozenset[int]

    @property
    def end(self) -> float:
        """Of its window."""
        return self.carried.done + WINDOW_S


def measure(cluster: Cluster, moves: int, quiet_s: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Quiet, then the moves one by one, then quiet again."""
    before = quiet(cluster, quiet_s)
    began = time.time()
    watched = []
    for number in range(moves):
        each = _move(cluster, number)
        watched.append(each)
        say(f"move {number + 1} of {moves}: {_described(cluster.rows(each.carried.asked - AFTER_S), each)}")
    after = quiet(cluster, quiet_s)
    ended = time.time()
    rows = cluster.rows(began - quiet_s - 2 * AFTER_S)
    calm = [latencies_ms(produced_in(rows, run["from"], run["to"])) for run in (before, after)]
    listed = [_described(rows, each) for each in watched]
    everyone = frozenset(range(GROUPS))
    unmoved = [latencies_ms(_window(rows, each, everyone - each.moved)) for each in watched]
    moved = [latencies_ms(_window(rows, each, each.moved)) for each in watched]
    return {
        "quiet before": before,
        "quiet after": after,
        "quiet p99 ms": spread(_joined(calm))["p99"],
        "moves": listed,
        "keys that do not move, ms": spread(_joined(unmoved)),
        "keys that move, ms": spread(_joined(moved)),
        "longest gap of keys that do not move ms": spread([each["unmoved gap ms"] for each in listed]),
        "order to completion ms": spread([each["order to completion ms"] for each in listed]),
        "began": before["from"],
        "ended": ended,
        "windows": [(each.carried.asked, each.end, each.carried.order.kind.value) for each in watched],
    }


def _move(cluster: Cluster, number: int) -> Watched:
    """A partition is split, joined again, and moved as a whole; then the next one."""
    shard = Shard(UID, number // 3 % PARTITIONS)
    kind = (OrderKind.SPLIT, OrderKind.MERGE, OrderKind.MOVE)[number % 3]
    fields: dict[str, Any] = {"shard": shard}
    if kind is OrderKind.MOVE:
        owners = {tile.worker for tile in cluster.plan.tiles if tile.shard == shard}
        fields["target"] = next(m.name for m in cluster.plan.members if m.incarnation not in owners)
    carried = cluster.order(kind, **fields)
    moves = [move for move in carried.first.moves if move.order == carried.order.id]
    moved = set().union(*(groups_of(move.shard.partition, move.key_range) for move in moves))
    cluster.await_running(1)
    time.sleep(WINDOW_S + PAUSE_S)
    return Watched(carried, frozenset(moved))


def _window(rows: Any, watched: Watched, groups: frozenset[int]) -> Any:
    return produced_in(of_groups(rows, groups), watched.carried.asked, watched.end)


def _described(rows: Any, watched: Watched) -> dict[str, Any]:
    """A line of the list."""
    carried, order = watched.carried, watched.carried.order
    everyone = frozenset(range(GROUPS))
    unmoved, moved = (_window(rows, watched, groups) for groups in (everyone - watched.moved, watched.moved))
    near = rows[(rows["arrived"] > carried.asked - AFTER_S) & (rows["arrived"] < watched.end + AFTER_S)]
    gaps = [
        longest_gaps_ms(near, carried.asked, watched.end, groups).max(initial=0.0)
        for groups in (everyone - watched.moved, watched.moved)
    ]
    moves = [move for move in carried.first.moves if move.order == order.id]
    return {
        "kind": order.kind.value,
        "what": ", ".join(f"{move.shard} {move.key_range}" for move in moves),
        "order to plan ms": rounded((carried.begun - carried.asked) * 1000),
        "order to completion ms": rounded((carried.done - carried.asked) * 1000),
        "moved": spread(latencies_ms(moved)),
        "moved gap ms": rounded(gaps[1]),
        "unmoved": spread(latencies_ms(unmoved)),
        "unmoved gap ms": rounded(gaps[0]),
    }


def _joined(parts: list[Any]) -> list[float]:
    return [value for part in parts for value in part]
