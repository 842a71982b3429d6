from benchmarks.demo.gaps import Group, Grouping
from benchmarks.demo.timeline import Carried, Deed, effect, rows
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.plan import Shard

HIGH = KeyRange(SLOTS // 2, SLOTS)
GROUPS = Grouping(2).groups
UPPER = Carried(Shard("count", 1), HIGH, "worker-1", "worker-2")
MOVED = [Group(1, number) for number in range(4, 8)]


def steady(until: float, step: float = 0.25) -> list[float]:
    """Results that never stop."""
    return [step * n for n in range(int(until / step) + 1)]


def times(pause: tuple[float, float]) -> dict[Group, list[float]]:
    """Steady results of all groups; those that move are not seen within the pause."""
    since, until = pause
    held = [at for at in steady(10) if not since < at < until]
    return {group: held if group in MOVED else steady(10) for group in GROUPS}


def test_the_moved_keys_and_the_others_are_told_apart() -> None:
    """The pause is that of the groups within the moved range; all others, of the same partition too, are the others."""
    deed = Deed("split", 4.0, 5.0, 6.0, (UPPER,))
    found = effect(deed, times((4.5, 5.25)), GROUPS, "count")
    assert found.moved
    assert found.others
    assert (found.moved.groups, found.others.groups) == (4, 12)
    assert found.moved.longest
    assert found.moved.longest.seconds == 0.75
    assert found.others.longest
    assert found.others.longest.seconds == 0.25
    assert found.faults == []


def test_another_operator_that_moves_has_no_keys_among_the_results() -> None:
    """A tile of `split` that moves, moves no word."""
    lines = Carried(Shard("split", 1), FULL_RANGE, "worker-1", "worker-2")
    found = effect(Deed("rebalance", 4.0, 5.0, 6.0, (lines,)), times((4.5, 5.25)), GROUPS, "count")
    assert found.moved is None
    assert found.others
    assert found.others.groups == 16


def test_where_everything_moves_there_are_no_others() -> None:
    """A dash is shown, and that is no fault."""
    whole = tuple(Carried(Shard("count", p), FULL_RANGE, "worker-2", "worker-1") for p in (0, 1))
    found = effect(Deed("kill", 4.0, 5.0, 6.0, whole), times((4.5, 5.25)), GROUPS, "count")
    assert found.others is None
    assert found.faults == []
    assert rows([found], 0.0)[0][4] == "–"


def test_moved_keys_that_are_never_seen_again_are_reported_as_such() -> None:
    """Not as a gap that ends where we stopped looking."""
    found = effect(Deed("split", 4.0, 5.0, 6.0, (UPPER,)), times((4.5, 99)), GROUPS, "count")
    assert rows([found], 0.0)[0][3] == "not seen"
    (fault,) = found.faults
    assert fault.startswith("split: the gaps of the moved keys: 4 of 4 key groups were not seen before and after it")
    assert fault.endswith("[1] [0x8000, 0xa000), [1] [0xa000, 0xc000), [1] [0xc000, 0xe000)")


def test_a_row_says_when_what_from_where_to_where_and_how_long() -> None:
    """Ranges by operator and partition; whole partitions without range; ways below."""
    whole = Carried(Shard("split", 0), FULL_RANGE, "worker-2", "worker-1")
    deed = Deed("split", 14.0, 15.0, 16.0, (UPPER, whole), "warm 0.10 s, done 1.00 s")
    shifted = {group: [10 + at for at in seen] for group, seen in times((4.5, 5.25)).items()}
    assert rows([effect(deed, shifted, GROUPS, "count")], began=2.0) == [
        (
            "12.0 s",
            "split\nwarm 0.10 s, done 1.00 s",
            "count[1] [0x8000, 0x10000)\n  worker-1 → worker-2\nsplit[0]\n  worker-2 → worker-1",
            "0.75 s",
            "0.25 s",
        )
    ]
