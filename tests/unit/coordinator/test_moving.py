"""Moves, orders, deaths, fences and leader changes in any order: no slot has two owners, and all comes to rest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.config import RecoverySettings
from kstate.coordinator.core import Rules
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import Fatality, Order, OrderKind, ProcessExited
from tests.support.moving import SHARDS, ModelWorker, MovingCluster

NAMES = ("a", "b", "c", "d")
EIGHTH = SLOTS // 8
NAME = st.sampled_from(NAMES)
RANGE = st.tuples(st.integers(0, 7), st.integers(1, 8)).map(
    lambda p: KeyRange(p[0] * EIGHTH, max(p[0] + 1, p[1]) * EIGHTH)
)
ORDER = st.builds(
    Order,
    id=st.just(""),
    kind=st.sampled_from(OrderKind),
    shard=st.sampled_from(SHARDS),
    key_range=st.none() | RANGE,
    worker=NAME,
    target=st.none() | st.sampled_from((*NAMES, "x")),
    at=st.none() | st.integers(0, 8).map(lambda n: n * EIGHTH),
    parts=st.integers(1, 4),
)
WORKER_ACTIONS = st.tuples(
    st.sampled_from(("read", "read", "work", "work", "beat", "beat", "turn", "turn", "turn", "kill", "exit", "start")),
    NAME,
)
LEADER_ACTIONS = st.sampled_from(("hear", "hear", "wait", "one", "one", "all", "lose", "take over", "quiet", "repeat"))
POISON = st.tuples(st.just("poison"), NAME, st.sampled_from(SHARDS), st.integers(1, 3))
ACTIONS = st.lists(
    st.one_of(WORKER_ACTIONS, WORKER_ACTIONS, LEADER_ACTIONS, LEADER_ACTIONS, ORDER, POISON), max_size=80
)
RECOVERY = st.builds(RecoverySettings, standbys=st.integers(0, 2), parallelism=st.integers(1, 3))


def running(recovery: RecoverySettings, workers: int = 3) -> MovingCluster:
    """A cluster whose first tiles run."""
    cluster = MovingCluster(Rules(expected_workers=workers, recovery=recovery))
    for name in NAMES[:workers]:
        cluster.start(name)
    cluster.settle(3)
    return cluster


def act(cluster: MovingCluster, number: int, action: Any) -> None:
    """One action of the leader, a worker, or a person."""
    match action:
        case Order():
            cluster.order(Order(f"o{number}", *(getattr(action, f) for f in ORDER_FIELDS)))
        case "poison", name, shard, deaths:
            if (worker := cluster.newest(name)) is not None:
                worker.fatalities = (Fatality(shard, FULL_RANGE, "words", 7, deaths),)
        case "start", name:
            cluster.start(name)
        case what, name:
            if (worker := cluster.newest(name)) is not None:
                do(cluster, worker, what)
        case what:
            lead(cluster, what)


def lead(cluster: MovingCluster, what: str) -> None:
    """One action of the leader."""
    match what:
        case "hear":
            cluster.see(*cluster.beats)
            cluster.beats.clear()
        case "wait" | "quiet":
            for _ in range(1 if what == "wait" else 6):
                cluster.wait()
        case "one" | "lose":
            cluster.decide(lost=what == "lose")
        case "all":
            cluster.lead()
        case "take over":
            cluster.take_over()
        case "repeat":
            cluster.repeat_orders()


ORDER_FIELDS = ("kind", "shard", "key_range", "worker", "target", "at", "parts")


def do(cluster: MovingCluster, worker: ModelWorker, what: str) -> None:
    """One action of a worker that lives."""
    if what in {"read", "turn"}:
        cluster.read(worker)
    if what in {"work", "turn"}:
        cluster.work(worker)
    if what in {"beat", "turn"} and worker.alive:
        cluster.beats.append(worker.beat())
    if what in {"kill", "exit"}:
        worker.alive = False
    if what == "exit":
        cluster.see(ProcessExited(worker.incarnation, -9))


@settings(max_examples=150, deadline=None)
@given(RECOVERY, ACTIONS)
def test_no_slot_ever_has_two_owners_and_all_comes_to_rest(recovery: RecoverySettings, actions: Iterable[Any]) -> None:
    """Any schedule, then a fresh worker and quiet: no moves are left, all tiles run, or are parked, with standbys."""
    cluster = running(recovery)
    for number, action in enumerate(actions):
        act(cluster, number, action)
    cluster.start("z")
    cluster.settle()


# -- long walks, biased towards what is rare

TOLD = (
    "is warm, .* is to release",
    "runs at .*: done",
    "cancelled: .* is dead",
    "cancelled: .* is being drained",
    "is dead, back to",
    "is dead, .* has it",
    "ended: .* and .* are dead",
    "to its standby",
    "to its successor",
    "on its way there",
    "to [23] workers: ",
    "parked: .* processes died",
    "joined at",
    "^split ",
    "^merge ",
    "^move .* from .* to ",
    "^drain ",
    "^rebalance: ",
    "is under way$",
)
"""What must happen in the walks for them to be worth their name, as reasons say it."""


def walk(seed: int, steps: int = 120) -> MovingCluster:
    """A random schedule; while a move is under way its workers are the likeliest to die or to be slow."""
    chance = Random(seed)
    recovery = RecoverySettings(standbys=chance.choice((0, 0, 1, 2)), parallelism=chance.choice((1, 2, 3)))
    cluster = running(recovery, workers=chance.choice((2, 3, 4)))
    for number in range(steps):
        act(cluster, number, _next_action(cluster, chance))
    cluster.start("z")
    cluster.settle()
    return cluster


def _next_action(cluster: MovingCluster, chance: Random) -> Any:
    moves = cluster.plan.moves if cluster.plan else ()
    if moves and chance.random() < 0.06:
        move = chance.choice(moves)
        worker = cluster.workers[chance.choice((move.source, move.target))]
        return chance.choice(("kill", "exit", "exit")), worker.name
    if chance.random() < 0.08:
        lo = chance.randrange(8)
        key_range = KeyRange(lo * EIGHTH, chance.randint(lo + 1, 8) * EIGHTH)
        return Order(
            "",
            chance.choice(list(OrderKind)),
            chance.choice(SHARDS),
            chance.choice((None, FULL_RANGE, key_range)),
            chance.choice(NAMES),
            chance.choice((None, *NAMES)),
            chance.choice((None, chance.randint(1, 7) * EIGHTH)),
            chance.randint(2, 3),
        )
    if chance.random() < 0.02:
        return "poison", chance.choice(NAMES), chance.choice(SHARDS), 3
    if chance.random() < 0.5:
        whats = ("turn", "turn", "turn", "turn", "read", "work", "beat", "kill", "exit", "start", "start")
        return chance.choices(whats, (9, 9, 9, 9, 4, 4, 4, 1, 1, 3, 3))[0], chance.choice(NAMES)
    return chance.choices(
        ("hear", "wait", "all", "one", "lose", "take over", "quiet", "repeat"), (9, 6, 9, 6, 2, 1, 1, 3)
    )[0]


def test_long_walks_come_to_rest_and_see_everything_that_can_happen_to_a_move() -> None:
    """Seeded; each reason that the rules can give is given in some walk, so none of them goes untried."""
    told: set[str] = set()
    for seed in range(100):
        told.update(part for reason in walk(seed).reasons() for part in reason.split("; "))
    unseen = [pattern for pattern in TOLD if not any(re.search(pattern, text) for text in told)]
    assert unseen == []
