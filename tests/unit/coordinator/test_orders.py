"""What people ask for: moves, or a refusal that names the thing and the mend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kstate.coordinator.orders import Reply, carried_out
from kstate.coordinator.scene import Ownership, kept_of
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.messages import Order, OrderKind
from kstate.plan import Parked, Plan, Shard, moves_fault
from tests.support.scenes import HALF, LOWER, SHARD, UPPER, move, owners, plan, scene, tile, worker

SPLIT, MERGE, MOVE = OrderKind.SPLIT, OrderKind.MERGE, OrderKind.MOVE
DRAIN, REBALANCE = OrderKind.DRAIN, OrderKind.REBALANCE
OTHER = Shard("count", 1)


def order(kind: OrderKind, **fields: Any) -> Order:
    """Order 1f3a about count[0]."""
    shard = None if kind in {DRAIN, REBALANCE} else SHARD
    return Order("1f3a", kind, **{"shard": shard, **fields})


def begun(asked: Order, newest: Plan, **options: Any) -> Ownership:
    """What the plan says that begins the order; its moves keep the invariants."""
    found = carried_out(asked, kept_of(newest), scene(newest, **options))
    assert isinstance(found, Ownership), found
    after = replace(newest, version=newest.version + 1, tiles=found.tiles, moves=found.moves)
    assert moves_fault(after) is None
    assert all(m.order == "1f3a" for m in found.moves if m not in newest.moves)
    assert found.reason.endswith("(order 1f3a)")
    return found


def reply(asked: Order, newest: Plan, **options: Any) -> Reply:
    """The answer to an order that no plan carries out."""
    found = carried_out(asked, kept_of(newest), scene(newest, **options))
    assert isinstance(found, Reply)
    return found


def ways(found: Ownership) -> list[tuple[KeyRange, str, str]]:
    """What goes from whom to whom."""
    return [(m.key_range, m.source, m.target) for m in found.moves]


def test_a_split_sends_the_upper_half_to_who_has_fewest() -> None:
    """Without a slot: two halves; the id and the grant of the move are the version of the plan that begins it."""
    found = begun(order(SPLIT), plan([tile("i1"), tile("i2", partition=1)]))
    assert found.moves == (replace(move(UPPER, target="i3"), id=10, grant=10, order="1f3a"),)
    assert found.reason == ("split count[0] [0x0000, 0x10000): [0x8000, 0x10000) to worker-3 (order 1f3a)")


def test_a_split_into_parts_spreads_them() -> None:
    """The first part stays; the others go to different workers, in order."""
    found = begun(order(SPLIT, parts=4), plan([tile("i1")], workers=3))
    quarter = 65536 // 4
    assert ways(found) == [
        (KeyRange(quarter, 2 * quarter), "i1", "i2"),
        (KeyRange(2 * quarter, 3 * quarter), "i1", "i3"),
        (KeyRange(3 * quarter, 65536), "i1", "i2"),
    ]


def test_a_split_at_a_slot_or_of_a_range_or_to_a_worker() -> None:
    """The tile is found by the slot, where there are several; a range within a tile may be split."""
    tiles = [tile("i1", LOWER), tile("i2", UPPER)]
    assert ways(begun(order(SPLIT, at=7, target="worker-3"), plan(tiles))) == [(KeyRange(7, HALF), "i1", "i3")]
    inner = KeyRange(HALF + 10, HALF + 20)
    assert ways(begun(order(SPLIT, key_range=inner), plan(tiles))) == [(KeyRange(HALF + 15, HALF + 20), "i2", "i3")]


def test_a_move_takes_every_part_of_the_range_that_the_target_has_not() -> None:
    """One move for each tile that the range touches."""
    tiles = [tile("i1", LOWER), tile("i2", KeyRange(HALF, 50_000)), tile("i3", KeyRange(50_000, 65536))]
    found = begun(order(MOVE, key_range=KeyRange(100, 60_000), target="worker-3"), plan(tiles))
    assert ways(found) == [(KeyRange(100, HALF), "i1", "i3"), (KeyRange(HALF, 50_000), "i2", "i3")]


def test_a_move_without_a_target_goes_to_who_has_fewest_and_is_not_the_source() -> None:
    """What is on its way to a worker counts as its own."""
    tiles = [tile("i1"), tile("i3", partition=1), tile("i1", partition=2)]
    busy = replace(move(), shard=Shard("count", 2))
    assert ways(begun(order(MOVE), plan(tiles, workers=4, moves=(busy,))))[1:] == [(FULL_RANGE, "i1", "i4")]
    assert ways(begun(order(MOVE), plan(tiles, workers=4, drained=("i4",)))) == [(FULL_RANGE, "i1", "i2")]


def test_a_merge_brings_whole_tiles_to_who_has_most_of_them() -> None:
    """All tiles that touch the range, also where it covers only a part of them."""
    tiles = [tile("i1", KeyRange(0, 100)), tile("i2", KeyRange(100, HALF)), tile("i3", UPPER)]
    found = begun(order(MERGE, key_range=KeyRange(50, 150)), plan(tiles))
    assert ways(found) == [(KeyRange(0, 100), "i1", "i2")]
    everything = begun(order(MERGE, target="worker-1"), plan(tiles))
    assert ways(everything) == [(KeyRange(100, HALF), "i2", "i1"), (UPPER, "i3", "i1")]


def test_a_merge_of_what_is_together_has_nothing_to_do() -> None:
    """It is accepted: touching tiles of one worker are joined without an order."""
    said = reply(order(MERGE), plan([tile("i1", LOWER), tile("i1", UPPER)]))
    assert (said.accepted, said.reason.startswith("nothing to do: ")) == (True, True)


def test_a_drain_moves_all_in_one_plan_and_spreads_it() -> None:
    """The worker is named in the plan, so that it gets nothing more."""
    tiles = [tile("i1", partition=n) for n in range(3)] + [tile("i2", partition=3)]
    found = begun(order(DRAIN, worker="worker-1"), plan(tiles))
    assert found.drained == ("i1",)
    assert [(m.shard.partition, m.target) for m in found.moves] == [(0, "i3"), (1, "i2"), (2, "i3")]
    assert found.tiles == tuple(tiles)


def test_a_worker_with_nothing_can_be_drained_even_if_it_is_alone_in_that() -> None:
    """Nothing has to be taken."""
    assert begun(order(DRAIN, worker="worker-2"), plan([tile("i1")], workers=2)).drained == ("i2",)


def test_a_rebalance_evens_out_the_number_of_tiles_per_operator() -> None:
    """From who has most to who has fewest, until nobody has two more than another."""
    tiles = [tile("i1", partition=n) for n in range(5)] + [tile("i2", partition=5)]
    found = begun(order(REBALANCE), plan(tiles))
    load = dict.fromkeys(("i1", "i2", "i3"), 0)
    for t in tiles:
        load[next((m.target for m in found.moves if m.shard == t.shard), t.worker or "")] += 1
    assert load == {"i1": 2, "i2": 2, "i3": 2}
    assert len(found.moves) == 3


def test_a_rebalance_of_what_is_even_has_nothing_to_do() -> None:
    """Also while moves are under way that make it so."""
    assert reply(order(REBALANCE), plan([tile("i1"), tile("i2", partition=1)])).accepted
    tiles = [tile("i1"), tile("i1", partition=1)]
    assert reply(order(REBALANCE), plan(tiles, workers=2, moves=(move(),))).accepted


def test_a_rebalance_says_so_where_only_one_worker_may_get_anything() -> None:
    """The others are drained: that is no evenness."""
    found = reply(order(REBALANCE), replace(plan([tile("i1"), tile("i1", partition=1)], workers=2), drained=("i2",)))
    assert found.reason == "nothing to do: worker-1 is the only worker that may get anything"


PARKED = Parked(SHARD, FULL_RANGE, "poison at words@7")
ORPHAN = plan([tile(None)], parked=(PARKED,))


@pytest.mark.parametrize(
    ("asked", "newest", "said"),
    [
        (order(SPLIT, shard=Shard("x", 0)), plan([tile("i1")]), "there is no operator 'x'; there are: count"),
        (order(SPLIT, shard=Shard("count", 7)), plan([tile("i1")]), "no count[7]; 'count' has partitions 0 … 0"),
        (order(MOVE, shard=None), plan([tile("i1")]), "a move needs an operator and a partition"),
        (order(SPLIT), plan([tile("i1", LOWER), tile("i2", UPPER)]), "has 2 tiles; say which range"),
        (
            order(SPLIT, key_range=KeyRange(9, HALF + 9)),
            plan([tile("i1", LOWER), tile("i2", UPPER)]),
            "within one tile",
        ),
        (order(SPLIT, at=HALF, key_range=UPPER), plan([tile("i1")]), "slot 32768 cuts nothing off"),
        (order(SPLIT, key_range=KeyRange(3, 4)), plan([tile("i1")]), "a single slot: a hot key cannot be split"),
        (order(SPLIT, parts=1), plan([tile("i1")]), "cannot be cut into 1 parts; name 2 … 65536"),
        (order(SPLIT, target="worker-1"), plan([tile("i1")]), "worker-1 owns count[0] [0x0000, 0x10000) already"),
        (order(SPLIT), plan([tile("i1")], workers=1), "there is no other worker to take it; start one"),
        (order(MOVE, target="worker-1"), plan([tile("i1")]), "worker-1 owns count[0] [0x0000, 0x10000) already"),
        (order(MOVE, target="bob"), plan([tile("i1")]), "no worker 'bob'; there are: worker-1, worker-2, worker-3"),
        (order(MOVE, target="worker-2"), plan([tile("i1")], drained=("i2",)), "worker-2 is being drained"),
        (order(MOVE), plan([tile("i1")], moves=(move(UPPER),)), "move 5 of count[0] [0x8000, 0x10000) is under way"),
        (order(MERGE), plan([tile("i1", LOWER), tile("i2", UPPER)], moves=(move(LOWER),)), "is under way"),
        (order(MOVE), ORPHAN, "nobody owns count[0] [0x0000, 0x10000) (poison at words@7); name a target"),
        (order(SPLIT), ORPHAN, "nobody owns count[0]"),
        (order(MERGE), ORPHAN, "nobody owns count[0]"),
        (order(DRAIN), plan([tile("i1")]), "a worker is needed; name one of: worker-1, worker-2, worker-3"),
        (order(DRAIN, worker="worker-9"), plan([tile("i1")]), "worker-9 is dead; there are: worker-1"),
        (order(DRAIN, worker="worker-1"), plan([tile("i1")], workers=1), "no other worker to take what worker-1 has"),
        (order(MOVE), plan([tile("i1")], bounded=True), "this is a bounded run"),
    ],
)
def test_a_mistake_is_refused_by_name(asked: Order, newest: Plan, said: str) -> None:
    """The thing, what there is instead, and the mend."""
    answer = reply(asked, newest)
    assert not answer.accepted
    assert said in answer.reason


def test_workers_of_another_build_and_the_dead_are_no_targets() -> None:
    """Each said as it is, also of one that waits to join."""
    newest = plan([tile("i1")], members=(worker(1), worker(2, "older")))
    asked = order(MOVE, target="worker-2")
    assert "worker-2 runs build older" in reply(asked, newest).reason
    assert (
        "worker-5 runs build newer" in reply(order(MOVE, target="worker-5"), newest, alive=[worker(5, "newer")]).reason
    )
    dead = reply(order(MOVE, target="worker-3"), plan([tile("i1")]), dead=["i3"])
    assert dead.reason == "worker-3 is dead; there are: worker-1, worker-2"


def test_what_the_dead_owned_is_not_moved_by_order() -> None:
    """It is recovered; the order may be repeated then."""
    said = reply(order(MOVE), plan([tile("i1")]), dead=["i1"])
    assert said.reason == "count[0] [0x0000, 0x10000) is being recovered: worker-1 is dead; try again when it runs"


def test_a_parked_range_is_tried_where_an_order_says() -> None:
    """Given at once, for nobody can release it; a split leaves the first part parked."""
    moved = begun(order(MOVE, target="worker-2"), ORPHAN)
    assert owners(moved.tiles) == [(FULL_RANGE, "i2", 10)]
    assert moved.moves == ()
    cut = begun(order(SPLIT, at=100, target="worker-2"), ORPHAN)
    assert owners(cut.tiles) == [(KeyRange(0, 100), None, 1), (KeyRange(100, 65536), "i2", 10)]


def test_draining_twice_is_no_mistake() -> None:
    """It is accepted and has nothing to do."""
    assert reply(order(DRAIN, worker="worker-1"), plan([tile("i1")], drained=("i1",))).accepted
