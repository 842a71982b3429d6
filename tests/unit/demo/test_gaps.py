import pytest

from benchmarks.demo.gaps import GROUPS, Gap, Group, Grouping, gaps
from kstate.keyspace import SLOTS, KeyRange, partition_of, slot_of

A, B = Group(0, 0), Group(0, 1)


def test_a_key_belongs_to_the_group_of_its_partition_and_slot() -> None:
    """As the job itself places it: by murmur2 and by the slot; every group comes up among a few thousand words."""
    grouping = Grouping(4)
    keys = [f"word-{number}".encode() for number in range(3_000)]
    for key in keys:
        group = grouping(key)
        assert group.partition == partition_of(key, 4)
        assert slot_of(key) in group.key_range
        assert grouping(key) is group
    assert {grouping(key) for key in keys} == set(grouping.groups)


def test_the_groups_of_a_partition_tile_its_slots() -> None:
    """None is left out and none is in two, so that a group moves whole or not at all when a half moves."""
    ranges = [group.key_range for group in Grouping(1).groups]
    assert [r.lo for r in ranges] == [SLOTS // GROUPS * n for n in range(GROUPS)]
    assert ranges[-1].hi == SLOTS
    upper = KeyRange(SLOTS // 2, SLOTS)
    assert [Group(0, n).within(0, upper) for n in range(GROUPS)] == [False] * 4 + [True] * 4
    assert not Group(1, GROUPS - 1).within(0, upper)


def test_a_group_that_is_cut_is_not_within() -> None:
    """Some of its keys stay: its results say nothing about those that moved."""
    assert not Group(0, 0).within(0, KeyRange(0, SLOTS // GROUPS - 1))


def test_the_longest_gap_is_that_of_the_slowest_group() -> None:
    """Of all groups that are asked for, not of their results together."""
    times = {A: [0.0, 1.0, 2.0, 3.0], B: [0.0, 0.5, 2.5, 3.0]}
    found = gaps(times, [A, B], 0.2, 2.8)
    assert found.longest == Gap(B, 0.5, 2.5)
    assert found.longest.seconds == 2.0
    assert (found.groups, found.silent, found.fault) == (2, (), "")
    assert gaps(times, [A], 0.2, 2.8).longest == Gap(A, 0.0, 1.0)


def test_a_gap_counts_whole_that_only_touches_the_window() -> None:
    """It may begin before the deed and end after the time in which we look; what lies wholly outside does not count."""
    times = {A: [0.0, 5.0, 5.5, 6.0, 9.0]}
    assert gaps(times, [A], 4.9, 5.2).longest == Gap(A, 0.0, 5.0)
    assert gaps(times, [A], 5.1, 5.9).longest in (Gap(A, 5.0, 5.5), Gap(A, 5.5, 6.0))
    assert gaps(times, [A], 5.1, 6.1).longest == Gap(A, 6.0, 9.0)


@pytest.mark.parametrize("seen", [[], [1.0, 2.0], [3.5, 5.0]])
def test_a_group_that_was_not_seen_before_and_after_is_never_taken_for_quick(seen: list[float]) -> None:
    """Nobody knows how long its gap is: the figure is missing, and named."""
    found = gaps({A: seen, B: [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}, [A, B], 2.5, 4.5)
    assert found.silent == (A,)
    assert "1 of 2 key groups were not seen before and after it" in found.fault


def test_no_groups_have_no_gap() -> None:
    """A figure about nothing is a fault, too."""
    found = gaps({}, [], 0.0, 1.0)
    assert (found.longest, found.fault) == (None, "no key group was looked at")
