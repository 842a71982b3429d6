"""The time index and the agenda: what falls due next, whatever fits into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.errors import DecodeError
from kstate.keyspace import FULL_RANGE, KeyRange, slot_of
from kstate.state.agenda import Agenda, Agendas, index_changes
from kstate.state.checkpoint import TimeChange
from kstate.state.layout import Item, Timeline, index_bounds, index_key, lineage_key, parse_index_key, shard_bounds
from kstate.state.values import NEVER
from kstate.testing.memory_store import MemoryStore

OPERATOR, PARTITION = 7, 2
TIMELINES: tuple[Timeline, ...] = ("event", "processing", "ttl")
LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
ats = st.integers(-(1 << 63), (1 << 63) - 1)
names = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=4)
tricky = st.lists(st.sampled_from([b"\x00", b"\x01", b"\xff", b"\x00\xff", b"a"]), max_size=5).map(b"".join)
items = st.builds(Item, ats, names, tricky, tricky)


class Column(NamedTuple):
    """What the index knows of a state."""

    name: str
    timeline: Timeline | None


TIMERS = [Column("timer", "event")]


def test_a_key_of_the_index_has_the_documented_bytes() -> None:
    """Operator 7, partition 2, timelines 1 to 3, deadline 5, state 'é', key '1 0 ff', subkey '0'."""
    item = Item(5, "é", b"\x01\x00\xff", b"\x00")
    expected = "000003 0007 00000002 01 8000000000000005 c3a9 00 0100ffff 0000 00".replace(" ", "")
    assert index_key(7, 2, "event", item).hex() == expected
    assert index_key(7, 2, "processing", item)[9] == 2
    assert index_key(7, 2, "ttl", item)[9] == 3


@given(items)
def test_an_item_is_read_back_as_it_was_written(item: Item) -> None:
    """Zeros in key and subkey too."""
    assert parse_index_key(index_key(OPERATOR, PARTITION, "event", item)) == item


@given(st.lists(items, min_size=2, max_size=2))
def test_the_order_of_the_index_is_that_of_the_items(pair: list[Item]) -> None:
    """(deadline, name, key, tag): the order in which things fire."""
    left, right = pair
    keys = [index_key(OPERATOR, PARTITION, "ttl", item) for item in pair]
    assert (left < right) == (keys[0] < keys[1])


@pytest.mark.parametrize("cut", [0, 9, 17, 20, 24])
def test_a_key_that_ends_early_is_refused(cut: int) -> None:
    """It is none of the index."""
    with pytest.raises(DecodeError, match="none of the time index"):
        parse_index_key(index_key(1, 1, "event", Item(1, "abc", b"key", b""))[:cut])


@given(items, st.sampled_from(TIMELINES), ats)
def test_the_bounds_of_a_timeline_hold_its_items_and_no_others(item: Item, timeline: Timeline, since: int) -> None:
    """Nor anything else of the store."""
    key = index_key(OPERATOR, PARTITION, timeline, item)
    for other in TIMELINES:
        lo, hi = index_bounds(OPERATOR, PARTITION, other)
        assert (lo <= key < hi) == (other == timeline)
    lo, hi = index_bounds(OPERATOR, PARTITION, timeline, since)
    assert (lo <= key < hi) == (item.at >= since)
    assert lineage_key(65534, (1 << 31) - 1) < key < shard_bounds(1, 0, FULL_RANGE)[0]


class Bench:
    """An agenda beside what it has to know: the deadline of each (key, tag), as handlers see and as is committed."""

    def __init__(self, memory_items: int, ranges: Sequence[KeyRange] = (FULL_RANGE,)) -> None:
        self.memory_items = memory_items
        self.ranges = list(ranges)
        self.store = MemoryStore()
        self.live: dict[tuple[bytes, bytes], int] = {}
        self.committed: dict[tuple[bytes, bytes], int] = {}
        self.restart()

    def restart(self) -> None:
        """Go on from the store, as after a rollback or a crash."""
        self.live = dict(self.committed)
        self.agendas = [Agendas(self.store, OPERATOR, PARTITION, r, self.memory_items) for r in self.ranges]

    def set(self, key: bytes, tag: bytes, at: int) -> None:
        self.live[key, tag] = at
        next(a for a in self.agendas if slot_of(key) in a.event.key_range).event.add(Item(at, "timer", key, tag))

    def cancel(self, key: bytes, tag: bytes) -> None:
        self.live.pop((key, tag), None)

    def fire(self, upto: int, count: int = 1_000_000) -> list[Item]:
        """Pop what is due, at most `count` items of each piece; those that were still to fire."""
        fired = []
        for agendas in self.agendas:
            for _ in range(count):
                if (item := agendas.event.pop(upto)) is None:
                    break
                if self.live.get((item.key, item.subkey)) == item.at:
                    del self.live[item.key, item.subkey]
                    fired.append(item)
                else:
                    agendas.event.drop(item)
        return fired

    def check_fire(self, upto: int) -> None:
        """All that is due fires, in order."""
        expected = self.expected(upto)
        assert self.fire(upto) == expected
        assert all(agendas.event.next_at > upto for agendas in self.agendas)

    def commit(self) -> None:
        times = [
            TimeChange(0, *place, self.committed.get(place), self.live.get(place))
            for place in sorted(self.live.keys() | self.committed.keys())
            if self.committed.get(place) != self.live.get(place)
        ]
        for agendas in self.agendas:
            mine = [change for change in times if slot_of(change.key) in agendas.event.key_range]
            self.store.write(*agendas.changes(TIMERS, mine))
        for agendas in self.agendas:
            agendas.settled()
            assert len(agendas.event._heap) <= self.memory_items
            assert not agendas.event._beyond
        self.committed = dict(self.live)

    def coalesce(self) -> None:
        if len(self.agendas) > 1:
            low, high = self.agendas
            low.absorb(high)
            self.agendas, self.ranges = [low], [low.event.key_range]

    def expected(self, upto: int) -> list[Item]:
        """What is due, in order, one piece after the other."""
        due = sorted(Item(at, "timer", *place) for place, at in self.live.items() if at <= upto)
        return [item for agendas in self.agendas for item in due if slot_of(item.key) in agendas.event.key_range]


some_keys = st.sampled_from([b"a", b"b", b"c\x00", b"dd", b"e"])
some_tags = st.sampled_from([b"", b"\x00", b"t"])
some_ats = st.integers(0, 30)
sets = st.tuples(st.just("set"), some_keys, some_tags, some_ats)
actions = st.one_of(
    sets,
    sets,
    st.tuples(st.just("cancel"), some_keys, some_tags),
    st.tuples(st.just("check_fire"), some_ats),
    st.tuples(st.just("fire"), some_ats, st.integers(1, 3)),
    st.tuples(st.just("coalesce")),
)
ends = st.sampled_from([("commit",), ("commit", "restart"), ("commit", "restart"), ("restart",)])
epochs = st.tuples(st.lists(sets, max_size=10), st.lists(actions, max_size=8), ends)


@settings(deadline=None, max_examples=200)
@given(st.lists(epochs, min_size=1, max_size=5), st.integers(1, 12), st.booleans())
def test_an_agenda_pops_what_is_due_in_order_whatever_fits_into_memory(
    program: list[tuple[list[Any], list[Any], tuple[str, ...]]], memory_items: int, halves: bool
) -> None:
    """Against a dictionary that is sorted, over epochs, rollbacks, early ends of a run, and pieces that become one."""
    bench = Bench(memory_items, (LOW, HIGH) if halves else (FULL_RANGE,))
    for first, then, how in program:
        for name, *arguments in [*first, *then]:
            getattr(bench, name)(*arguments)
        for end in how:
            getattr(bench, end)()
    bench.check_fire(NEVER - 1)
    bench.commit()
    assert list(bench.store.scan(b"", b"\xff")) == [], "stale or not, what was popped is gone"


@settings(deadline=None, max_examples=100)
@given(st.lists(some_ats, max_size=40), some_ats, st.integers(0, 50))
def test_what_comes_next_can_be_looked_at(deadlines: list[int], upto: int, count: int) -> None:
    """In order, and nothing leaves the agenda."""
    bench = Bench(1_000)
    for number, at in enumerate(deadlines):
        bench.set(b"k%d" % number, b"", at)
    seen = bench.agendas[0].event.peek(count, upto)
    assert seen == bench.expected(upto)[:count]
    bench.check_fire(upto)


def test_pieces_that_read_unequally_far_become_one_that_lacks_nothing() -> None:
    """It has read as far as the one that read less; what either found stale is dropped."""
    low, high = b"b", b"a"
    for early, late in ((low, high), (high, low)):
        bench = Bench(10, (LOW, HIGH))
        for at in (1, 2, 3):
            bench.set(early, b"%d" % at, at)
            bench.set(late, b"%d" % at, 10 * at)
        bench.commit()
        stale = [Item(0, "timer", key, b"") for key in (early, late)]
        bench.store.write([index_key(OPERATOR, PARTITION, "event", item) for item in stale], [b"", b""])
        bench.restart()
        bench.fire(10, 1)
        bench.coalesce()
        bench.check_fire(100)
        bench.commit()
        assert list(bench.store.scan(b"", b"\xff")) == []


def test_a_deadline_set_again_after_it_was_found_stale_stays_in_the_index() -> None:
    """Else it would be lost at the next restart: the index changes of the epoch do not name it."""
    bench = Bench(10)
    bench.set(b"a", b"", 5)
    bench.commit()
    bench.set(b"a", b"", 9)
    assert bench.fire(5) == []
    bench.set(b"a", b"", 5)
    bench.commit()
    bench.restart()
    assert bench.fire(5) == [Item(5, "timer", b"a", b"")]


def test_stale_entries_of_the_index_are_dropped_when_they_are_due() -> None:
    """A restore leaves them; they do not stay for ever."""
    bench = Bench(10)
    stale = index_key(OPERATOR, PARTITION, "event", Item(3, "timer", b"a", b""))
    bench.store.write([stale], [b""])
    bench.restart()
    assert bench.fire(2) == []
    bench.commit()
    assert [key for key, _ in bench.store.scan(b"", b"\xff")] == [stale]
    assert bench.fire(3) == []
    bench.commit()
    assert list(bench.store.scan(b"", b"\xff")) == []


def test_an_item_that_is_there_twice_is_popped_once() -> None:
    """It was set again in vain."""
    agenda = Agenda(MemoryStore(), 1, 1, "event", FULL_RANGE)
    for at in (3, 5, 3, 3):
        agenda.add(Item(at, "timer", b"a", b""))
    assert [agenda.pop(9) for _ in range(3)] == [Item(3, "timer", b"a", b""), Item(5, "timer", b"a", b""), None]


def test_an_expiry_that_was_found_stale_and_comes_back_stays_in_the_index() -> None:
    """What is gone is deleted first."""
    store = MemoryStore()
    columns, item = [Column("seen", "ttl")], Item(5, "seen", b"a", b"")
    store.write([index_key(OPERATOR, PARTITION, "ttl", item)], [b""])
    agendas = Agendas(store, OPERATOR, PARTITION, FULL_RANGE)
    assert agendas.ttl.pop(5) == item
    agendas.ttl.drop(item)
    store.write(*agendas.changes(columns, [TimeChange(0, b"a", b"", 7, 5)]))
    agendas.settled()
    assert Agendas(store, OPERATOR, PARTITION, FULL_RANGE).ttl.pop(5) == item == agendas.ttl.pop(5)


def test_what_was_fired_leaves_the_index() -> None:
    """With the epoch that fired it, not before."""
    bench = Bench(10)
    bench.set(b"a", b"", 3)
    bench.commit()
    assert bench.fire(3) == [Item(3, "timer", b"a", b"")]
    assert len(list(bench.store.scan(b"", b"\xff"))) == 1
    bench.commit()
    assert list(bench.store.scan(b"", b"\xff")) == []


def test_memory_stays_bounded_when_deadlines_are_moved_on_and_on() -> None:
    """As with a session's gap: of what each epoch added, most was replaced by the next."""
    bench = Bench(20_000)
    for epoch in range(30):
        for number in range(200):
            bench.set(b"k%d" % number, b"", 1_000 + epoch)
        bench.commit()
    assert len(bench.agendas[0].event._heap) < 2_000
    assert len(bench.fire(2_000)) == 200


def test_the_index_is_not_read_before_the_first_deadline() -> None:
    """There, nothing is left but graves; RocksDB would go through them one by one."""
    bench = Bench(100)
    for number in range(30):
        bench.set(b"k%d" % number, b"", number)
    bench.commit()
    assert len(bench.fire(20)) == 21
    seen: list[bytes] = []
    scan = bench.store.scan

    def watched(lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        seen.append(lo)
        return scan(lo, hi)

    bench.store.scan = watched  # type: ignore[method-assign]
    for number in range(200):
        bench.set(b"k%d" % number, b"", 50)
    bench.commit()
    assert [lo[:18] for lo in seen] == [index_bounds(OPERATOR, PARTITION, "event", 21)[0]]


def test_expiries_are_learnt_when_the_epoch_is_settled() -> None:
    """Handles need not tell of them."""
    agendas = Agendas(MemoryStore(), OPERATOR, PARTITION, FULL_RANGE)
    columns = [Column("seen", "ttl"), Column("plain", None)]
    keys, values = agendas.changes(columns, [TimeChange(0, b"a", b"", None, 5), TimeChange(1, b"a", b"", None, 4)])
    assert (keys, values) == ([index_key(OPERATOR, PARTITION, "ttl", Item(5, "seen", b"a", b""))], [b""])
    agendas.settled()
    assert agendas["ttl"].next_at == 5
    assert agendas["event"].next_at == agendas["processing"].next_at == NEVER


def test_a_moved_deadline_is_dropped_and_added() -> None:
    """In the index; what never expires is not in it."""
    times = [TimeChange(0, b"a", b"s", 3, 4), TimeChange(0, b"b", b"", 3, None), TimeChange(0, b"c", b"", NEVER, NEVER)]
    keys, values = index_changes(OPERATOR, PARTITION, TIMERS, times)
    assert [parse_index_key(key) for key in keys] == [
        Item(3, "timer", b"a", b"s"),
        Item(4, "timer", b"a", b"s"),
        Item(3, "timer", b"b", b""),
    ]
    assert values == [None, b"", None]


def test_only_neighbours_become_one() -> None:
    """Anything else would take keys in that another piece has."""
    low, other = (Agenda(MemoryStore(), 1, 1, "event", r) for r in (KeyRange(0, 5), KeyRange(6, 9)))
    with pytest.raises(AssertionError, match="no neighbours"):
        low.absorb(other)
