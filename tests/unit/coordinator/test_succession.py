"""Who gets the ranges of the dead, what is parked, and who keeps copies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from kstate.config import RecoverySettings
from kstate.coordinator.completion import Achieved
from kstate.coordinator.planning import changed, waits
from kstate.coordinator.scene import Ownership, Scene
from kstate.coordinator.succession import CUT_WIDTH_MIN
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import Fatality, Heartbeat
from kstate.plan import Member, Parked, Shard, Standby, Tile
from kstate.progress import SlotMap
from tests.support.scenes import BUILD, LOWER, SHARD, UPPER, owners, plan, says, scene, tile, worker

ONE = RecoverySettings(standbys=1)


def after(now: Scene) -> Ownership:
    """What the next plan says; there must be one."""
    found = changed(now)
    assert found is not None
    return found


def kept(*workers: str, key_range: KeyRange = FULL_RANGE) -> tuple[Standby, ...]:
    """Standbys of count[0]."""
    return tuple(Standby(SHARD, key_range, w) for w in workers)


SUCCESSOR = Member("worker-1", "i1b", BUILD)


def test_a_standby_with_a_copy_gets_the_tile_at_once_and_before_the_successor() -> None:
    """No wait: its copy is all but complete. The warm one before the one that is behind."""
    newest = plan([tile("i1")], standbys=kept("i2", "i3"))
    beats = [says("i2", "warming"), says("i3", "warm")]
    got = after(scene(newest, *beats, fenced=["i1"], alive=[SUCCESSOR], recovery=RecoverySettings(standbys=2)))
    assert owners(got.tiles) == [(FULL_RANGE, "i3", 10)]
    assert "count[0] [0x0000, 0x10000) of worker-1 to its standby worker-3" in got.reason
    behind = after(scene(newest, says("i2", "warming"), fenced=["i1"], alive=[SUCCESSOR], recovery=ONE))
    assert owners(behind.tiles) == [(FULL_RANGE, "i2", 10)]


def test_a_standby_without_a_copy_is_no_better_than_another_worker() -> None:
    """It has not begun, or covers a part: the successor is next."""
    newest = plan([tile("i1")], standbys=kept("i2"))
    part = says("i2", "warm", key_range=LOWER)
    got = after(scene(newest, part, fenced=["i1"], alive=[SUCCESSOR], recovery=ONE))
    assert owners(got.tiles) == [(FULL_RANGE, "i1b", 10)]
    assert "count[0] [0x0000, 0x10000) of worker-1 to its successor worker-1" in got.reason


def test_a_copy_of_one_who_is_no_standby_counts_for_nothing() -> None:
    """A move's target that was cancelled: its copy is on its way out."""
    newest = plan([tile("i1")])
    assert after(scene(newest, says("i2", "warm"), overdue=["i1"])).tiles[0].worker == "i2", "as the least loaded"
    assert changed(scene(newest, says("i2", "warm"), fenced=["i1"])) is None


@pytest.mark.parametrize(
    ("parallelism", "workers", "width", "parts"),
    [(1, 4, SLOTS, 1), (2, 4, SLOTS, 2), (8, 4, SLOTS, 3), (3, 4, 2 * CUT_WIDTH_MIN, 2), (3, 4, CUT_WIDTH_MIN, 1)],
)
def test_a_lost_tile_is_cut_for_parallel_recovery(parallelism: int, workers: int, width: int, parts: int) -> None:
    """Into as many ranges as asked, as there are workers, and as are not too narrow; each to another worker."""
    tiles = [tile("i1", KeyRange(0, width))]
    tiles += [tile("i2", KeyRange(width, SLOTS))] if width < SLOTS else []
    now = scene(plan(tiles, workers), overdue=["i1"], recovery=RecoverySettings(parallelism=parallelism))
    given = [t for t in after(now).tiles if t.grant == 10]
    assert len(given) == parts == len({t.worker for t in given})
    assert sum(t.key_range.width for t in given) == width


@pytest.mark.parametrize(("below", "above"), [("i2", "i3"), ("i3", "i2"), ("i4", "i2"), ("i3", "i3")])
def test_parts_go_to_those_who_own_what_touches_them(below: str, above: str) -> None:
    """Then they become one tile with it."""
    lost = KeyRange(16384, 49152)
    tiles = [tile(below, KeyRange(0, lost.lo)), tile("i1", lost), tile(above, KeyRange(lost.hi, SLOTS))]
    now = scene(plan(tiles, 4), overdue=["i1"], recovery=RecoverySettings(parallelism=3))
    found = [t.worker for t in after(now).tiles if t.key_range.overlap(lost)]
    if below != above:
        assert (found[0], found[-1]) == (below, above)
    assert len(found) == 3 == len(set(found))


def test_several_tiles_are_spread_over_the_least_loaded() -> None:
    """Each counts as soon as it is given."""
    tiles = [tile("i1", partition=n) for n in range(4)] + [tile("i2", partition=4)]
    got = after(scene(plan(tiles), overdue=["i1"]))
    load = Counter(t.worker for t in got.tiles)
    assert (load["i2"], load["i3"]) == (3, 2)


def test_drained_workers_and_other_builds_inherit_nothing() -> None:
    """Rather the tile waits, and somebody is told."""
    members = (worker(1), worker(2), worker(3, "older"))
    now = scene(plan([tile("i1")], members=members, drained=("i2",)), overdue=["i1"])
    assert changed(now) is None
    assert [reason for reason in waits(now) if reason.startswith("count[0] [0x0000, 0x10000) wait for a worker: ")]


# -- parking


def died(deaths: int, incarnation: str = "i2", offset: int = 7, name: str = "worker-2") -> Heartbeat:
    """A worker whose earlier processes died with words[0]@7 in hand."""
    fatality = Fatality(SHARD, FULL_RANGE, "words", offset, deaths)
    return Heartbeat(incarnation, name, "h", 1, 1, 9, (), fatalities=(fatality,))


def test_a_range_at_which_three_processes_died_is_parked_instead_of_given() -> None:
    """By name: operator, partition, range, topic and offset; other tiles of the dead are given."""
    now = scene(plan([tile("i1"), tile("i1", partition=1)]), died(3), overdue=["i1"])
    got = after(now)
    assert [t.worker for t in got.tiles] == [None, "i2"]
    (parked,) = got.parked
    assert (parked.shard, parked.key_range) == (SHARD, FULL_RANGE)
    assert parked.reason.startswith(
        "count[0] [0x0000, 0x10000): 3 processes died in a row with words[0]@7 in hand; mend"
    )
    assert f"parked: {parked.reason}" in got.reason


def test_deaths_are_added_up_over_workers_and_not_over_processes_of_one() -> None:
    """Two at one worker and one at another are three; what two processes of one worker repeat is the same."""
    newest = plan([tile("i1")])
    assert after(scene(newest, died(2), died(1, "i3", name="worker-3"), overdue=["i1"])).parked
    assert not after(scene(newest, died(2), died(2, "i2b"), overdue=["i1"])).parked
    assert not after(scene(newest, died(2), died(1, "i3", offset=8, name="worker-3"), overdue=["i1"])).parked


def test_a_record_that_somebody_has_got_past_is_no_poison() -> None:
    """Committed progress beyond it proves it."""
    beyond = Achieved({SHARD: SlotMap([(FULL_RANGE, {"words": 8})])})
    at_it = Achieved({SHARD: SlotMap([(FULL_RANGE, {"words": 7})])})
    newest = plan([tile("i1")])
    assert not after(scene(newest, died(3), overdue=["i1"], achieved=beyond)).parked
    assert after(scene(newest, died(3), overdue=["i1"], achieved=at_it)).parked


def test_a_live_owner_keeps_a_poisoned_range() -> None:
    """It may get past the record; if it dies the range is parked then."""
    assert changed(scene(plan([tile("i1")]), died(3))) is None


PARKED = (Parked(SHARD, FULL_RANGE, "poison"),)


def test_a_parked_range_stays_without_owner_until_a_new_build() -> None:
    """Whoever joins; a leader of another build tries it again."""
    newest = plan([tile(None)], parked=PARKED)
    assert changed(scene(newest)) is None
    assert [reason for reason in waits(scene(newest)) if reason == "parked: poison"]
    got = after(scene(replace(newest, build="older")))
    assert (got.tiles[0].worker, got.parked) == ("i1", ())


def test_what_is_given_by_order_is_parked_no_longer() -> None:
    """What is left stays so, and says its range."""
    newest = plan([tile(None, LOWER), tile("i1", UPPER)], parked=PARKED)
    assert after(scene(newest)).parked == (Parked(SHARD, LOWER, "poison"),)


# -- standbys


def standbys(found: Ownership) -> list[tuple[int, str]]:
    """Partition and worker of each."""
    return [(s.shard.partition, s.worker) for s in found.standbys]


def test_each_tile_has_its_standbys_spread_evenly_and_never_its_owner() -> None:
    """Six tiles and three workers, one standby each: two for everybody."""
    tiles = [tile(f"i{1 + n % 3}", partition=n) for n in range(6)]
    got = after(scene(plan(tiles), recovery=ONE))
    there = [worker for _, worker in standbys(got)]
    assert sorted(there) == ["i1", "i1", "i2", "i2", "i3", "i3"]
    assert all(t.worker != s.worker for t, s in zip(tiles, got.standbys, strict=True))


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), (2, 2), (5, 2)])
def test_there_are_as_many_standbys_as_can_be(wanted: int, count: int) -> None:
    """With three workers two at most."""
    got = after(scene(plan([tile("i1")]), recovery=RecoverySettings(standbys=wanted)))
    assert len(got.standbys) == count


def test_standbys_stay_where_they_are() -> None:
    """An arrangement that is complete is not changed, whoever leads; nor by a worker of another build."""
    tiles: list[Tile] = [tile("i1"), tile("i2", partition=1)]
    newest = plan(tiles, standbys=(*kept("i2"), Standby(tiles[1].shard, FULL_RANGE, "i3")))
    assert changed(scene(newest, recovery=ONE)) is None
    older = replace(newest, members=(*newest.members, worker(4, "older")))
    assert changed(scene(older, recovery=ONE)) is None


def test_what_an_older_build_still_runs_of_a_dropped_operator_has_no_standby() -> None:
    """Workers of this build do not know the operator."""
    dropped = replace(tile("i1"), shard=Shard("gone", 0))
    newest = plan([dropped, tile("i2")], members=(worker(1, "older"), worker(2), worker(3)))
    got = after(scene(newest, recovery=ONE))
    assert [(s.shard, s.worker) for s in got.standbys] == [(SHARD, "i3")]


def test_a_standby_that_died_or_is_drained_is_replaced_at_once() -> None:
    """And one of which its worker has become the owner."""
    newest = plan([tile("i1")], standbys=kept("i2"))
    assert standbys(after(scene(newest, dead=["i2"], recovery=ONE))) == [(0, "i3")]
    assert standbys(after(scene(replace(newest, drained=("i2",)), recovery=ONE))) == [(0, "i3")]
    promoted = after(scene(newest, says("i2", "warm"), fenced=["i1"], recovery=ONE))
    assert (promoted.tiles[0].worker, standbys(promoted)) == ("i2", [(0, "i3")])


def test_ranges_of_standbys_follow_the_tiles() -> None:
    """A tile that was cut: both parts keep the worker, but for one that it owns itself."""
    newest = plan([tile("i1", LOWER), tile("i1", UPPER)], workers=2, standbys=kept("i2"))
    got = after(scene(newest, recovery=ONE))
    assert [(s.key_range, s.worker) for s in got.standbys] == [(LOWER, "i2"), (UPPER, "i2")]
    assert got.reason == "standbys follow their tiles"
    owner = plan([tile("i1", LOWER), tile("i2", UPPER)], workers=2, standbys=kept("i2"))
    found = after(scene(owner, recovery=ONE)).standbys
    assert [(s.key_range, s.worker) for s in found] == [(LOWER, "i2"), (UPPER, "i1")]


def test_a_newcomer_takes_standbys_over_before_they_are_given_up_elsewhere() -> None:
    """First one more than needed; when all are warm the busiest gives its own up. So it comes to rest."""
    tiles = [tile("i1", partition=n) for n in range(4)]
    there = tuple(Standby(t.shard, FULL_RANGE, "i2") for t in tiles)
    newest = plan(tiles, standbys=there)
    got = after(scene(newest, recovery=ONE))
    assert standbys(got)[:4] == [(0, "i2"), (0, "i3"), (1, "i2"), (1, "i3")]
    second = replace(newest, version=10, standbys=got.standbys)
    assert changed(scene(second, recovery=ONE)) is None, "not yet warm"
    warm = [
        replace(says(w, "warm"), tiles=tuple(says(w, "warm", shard=t.shard).tiles[0] for t in tiles))
        for w in ("i2", "i3")
    ]
    last = after(scene(second, *warm, recovery=ONE))
    assert sorted(standbys(last)) == [(0, "i3"), (1, "i3"), (2, "i2"), (3, "i2")]
    assert changed(scene(replace(second, version=11, standbys=last.standbys), *warm, recovery=ONE)) is None
