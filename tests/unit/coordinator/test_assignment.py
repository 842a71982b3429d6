"""Who gets which tile."""

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.coordinator.assignment import first_tiles, newcomers
from kstate.coordinator.planning import changed
from kstate.coordinator.scene import Ownership, Roll, Scene
from kstate.description import JobDescription, OperatorDescription
from kstate.keyspace import FULL_RANGE
from kstate.plan import Member, Plan, Registry, Shard, Tile, tiling_fault

JOB = JobDescription("app", tuple(OperatorDescription(uid, "none", ()) for uid in ("count", "a", "b", "new")))


def reassigned(old: Plan, present: Roll) -> Ownership | None:
    """What the next plan says after deaths and arrivals."""
    return changed(Scene(old, present, JOB))


def workers(count: int) -> list[Member]:
    """Named worker-1, worker-2, … with incarnations i1, i2 and so on."""
    return [Member(f"worker-{n}", f"i{n}") for n in range(1, count + 1)]


def plan(tiles: tuple[Tile, ...], members: list[Member], version: int = 1) -> Plan:
    """A plan with nothing but ownership."""
    return Plan("app", version, 1, tuple(members), (), tiles, Registry(), {}, {})


def roll(
    alive: list[Member],
    *,
    dead: frozenset[str] = frozenset(),
    fenced: frozenset[str] = frozenset(),
    overdue: frozenset[str] = frozenset(),
) -> Roll:
    """A roll that knows the names worker-1 … worker-9."""
    return Roll(tuple(alive), dead, fenced, overdue, {m.incarnation: m.name for m in workers(9)})


def owners(tiles: tuple[Tile, ...], uid: str) -> list[str | None]:
    """Who owns each partition of an operator."""
    return [tile.worker for tile in tiles if tile.shard.operator == uid]


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 12))
def test_the_first_plan_tiles_and_is_balanced(shards: dict[str, int], count: int) -> None:
    """S8 holds; per operator and in total nobody has two tiles more than another; runs are contiguous."""
    tiles = first_tiles(shards, workers(count), 1)
    assert tiling_fault(plan(tiles, workers(count))) is None
    for uid, partitions in shards.items():
        row = owners(tiles, uid)
        load = Counter(row)
        sizes = [load[m.incarnation] for m in workers(count)]
        assert len(row) == partitions
        assert max(sizes) - min(sizes) <= 1
        assert sum(left != right for left, right in pairwise(row)) == len(load) - 1
    totals = Counter(tile.worker for tile in tiles)
    sizes = [totals[m.incarnation] for m in workers(count)]
    assert max(sizes) - min(sizes) <= 1


def test_neighbouring_partitions_stay_together() -> None:
    """Four partitions and two workers: the first two here, the last two there; worker-10 comes after worker-9."""
    assert owners(first_tiles({"count": 4}, workers(2), 1), "count") == ["i1", "i1", "i2", "i2"]
    assert owners(first_tiles({"count": 10}, workers(10), 1), "count")[-1] == "i10"


def test_the_tiles_of_the_dead_go_to_the_successor_of_its_name() -> None:
    """The new incarnation of worker-2 gets all of them under a new grant; nobody else's change."""
    old = plan(first_tiles({"count": 4}, workers(2), 1), workers(2))
    heir = Member("worker-2", "i2b")
    got = reassigned(old, roll([heir, workers(1)[0]], dead=frozenset({"i2"}), fenced=frozenset({"i2"})))
    assert got is not None
    assert owners(got.tiles, "count") == ["i1", "i1", "i2b", "i2b"]
    assert [tile.grant for tile in got.tiles] == [1, 1, 2, 2]
    assert got.members == (Member("worker-1", "i1"), heir)
    tiles = "count[2] [0x0000, 0x10000), count[3] [0x0000, 0x10000)"
    assert got.reason == f"worker-2 joined; {tiles} of worker-2 to its successor worker-2"


def test_nothing_of_an_unfenced_worker_is_given() -> None:
    """S2: declared dead is not enough, not even when its successor is there."""
    old = plan(first_tiles({"count": 4}, workers(2), 1), workers(2))
    heir = Member("worker-2", "i2b")
    got = reassigned(old, roll([workers(1)[0], heir], dead=frozenset({"i2"}), overdue=frozenset({"i2"})))
    assert got is not None
    assert got.tiles == old.tiles
    assert got.members == (Member("worker-1", "i1"), heir)


def test_the_successor_is_waited_for() -> None:
    """Until the wait is over nothing changes; then the others get the tiles, the least loaded first."""
    members = workers(3)
    old = plan(first_tiles({"a": 3, "b": 2}, members, 1), members)
    assert owners(old.tiles, "b") == ["i1", "i2"]
    gone = frozenset({"i2"})
    assert reassigned(old, roll([members[0], members[2]], dead=gone, fenced=gone)) is None
    got = reassigned(old, roll([members[0], members[2]], dead=gone, fenced=gone, overdue=gone))
    assert got is not None
    assert owners(got.tiles, "a") == ["i1", "i3", "i3"]
    assert owners(got.tiles, "b") == ["i1", "i1"]
    assert {m.name for m in got.members} == {"worker-1", "worker-3"}


def test_with_nobody_left_the_tiles_wait() -> None:
    """All dead and fenced, nobody alive: no plan, and nothing is lost; whoever joins gets all."""
    old = plan(first_tiles({"count": 2}, workers(2), 1), workers(2))
    gone = frozenset({"i1", "i2"})
    assert reassigned(old, roll([], dead=gone, fenced=gone, overdue=gone)) is None
    got = reassigned(old, roll([Member("worker-7", "i7")], dead=gone, fenced=gone, overdue=gone))
    assert got is not None
    assert owners(got.tiles, "count") == ["i7", "i7"]


def test_a_newcomer_joins_without_tiles_when_all_are_owned() -> None:
    """It becomes a member; tiles move only by planned moves."""
    old = plan(first_tiles({"count": 2}, workers(2), 1), workers(2))
    got = reassigned(old, roll(workers(3)))
    assert got is not None
    assert got.tiles == old.tiles
    assert [m.name for m in got.members] == ["worker-1", "worker-2", "worker-3"]


def test_a_newcomer_gets_tiles_without_owner() -> None:
    """Tiles that nobody owns go at once to whoever has fewest."""
    owned = first_tiles({"count": 2}, workers(1), 1)
    old = plan((*owned, Tile(Shard("new", 0), FULL_RANGE, None, 2)), workers(1))
    got = reassigned(old, roll(workers(2)))
    assert got is not None
    assert owners(got.tiles, "new") == ["i2"]


def test_a_name_in_use_has_to_wait() -> None:
    """A second worker of the same name is no newcomer while the first lives; of two waiting, the freshest joins."""
    old = plan(first_tiles({"count": 2}, workers(1), 1), workers(1))
    twin, late = Member("worker-1", "twin"), Member("worker-1", "late")
    assert newcomers(old, roll([twin, workers(1)[0]])) == ()
    assert reassigned(old, roll([twin, workers(1)[0]])) is None
    assert newcomers(old, roll([late, twin], dead=frozenset({"i1"}))) == (late,)


def test_a_dead_incarnation_never_comes_back() -> None:
    """Heartbeats of one that was declared dead make it no member again."""
    assert newcomers(None, roll(workers(2), dead=frozenset({"i1"}))) == (workers(2)[1],)


def test_a_member_without_tiles_that_died_leaves_the_plan() -> None:
    """It owned nothing, so nothing has to be fenced."""
    old = plan(first_tiles({"count": 1}, workers(1), 1), workers(2))
    got = reassigned(old, roll(workers(1), dead=frozenset({"i2"})))
    assert got is not None
    assert got.members == (workers(1)[0],)
    assert got.reason == "worker-2 gone"
