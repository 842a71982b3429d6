"""The agenda: what of one piece falls due next, on one timeline.

Deadlines are part of stored values (an `Expiring` of a timer, a window, a value with a ttl). The local time index lists
them in the order in which they fire (kstate.state.layout); it is written with the state that it was derived from, so
it never lacks a committed deadline. It may hold stale ones. An `Agenda` keeps the next part of the index in memory,
together with what the running epoch added:

    index   |---- read: in the heap ----|---- not read yet: in the store, this epoch's part in `beyond` ----|
                                     horizon

Invariants: every deadline that a value of the piece has is in the heap, in `beyond`, or in the store behind the
horizon; an empty heap means that nothing is left anywhere. An item counts only while the value it stands for has that
very deadline: whoever pops it must look, and say `drop` when not. So an undone handler call needs no undo here, an item
may be there twice, and after a rollback a new agenda is made from the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Protocol, TypeAlias

from kstate.interfaces import Store
from kstate.keyspace import KeyRange, slot_of
from kstate.state.checkpoint import TimeChange
from kstate.state.layout import Item, Timeline, index_bounds, index_key, parse_index_key
from kstate.state.values import NEVER

MEMORY_ITEMS = 100_000
"""Items in memory between epochs; about 250 bytes each."""

_READ_FRACTION = 10
"""One read of the index brings at most this fraction of the items that may be in memory."""

_RENEW_ITEMS_MIN = 1_000
"""So many additions, most of them replaced soon after, before it is worth to read the index anew."""


IndexChanges: TypeAlias = tuple[list[bytes], list[bytes | None]]
"""Keys of the time index, and for each an empty value = put, or None = delete."""


class Indexed(Protocol):
    """What the index needs to know of a state's column."""

    @property
    def name(self) -> str: ...

    @property
    def timeline(self) -> Timeline | None: ...


class Agenda:
    """What is due of one piece on one timeline; `next_at` is the first deadline, NEVER when there is none."""

    __slots__ = (
        *("next_at", "key_range", "_store", "_place", "_memory_items"),
        *("_heap", "_beyond", "_horizon", "_stale", "_added", "_read"),
    )

    def __init__(
        self,
        store: Store,
        operator_id: int,
        partition: int,
        timeline: Timeline,
        key_range: KeyRange,
        memory_items: int = MEMORY_ITEMS,
    ) -> None:
        """Of the committed state in the store; `memory_items` bounds what stays in memory between epochs."""
        self._store = store
        self._place = operator_id, partition, timeline
        self.key_range = key_range
        self._memory_items = memory_items
        self._heap: list[Item] = []
        self._beyond: list[Item] = []
        self._horizon: Item | None = None
        """The last item that was read, None when all were."""
        self._stale: set[Item] = set()
        self._added = 0
        self._read = 0
        """Items looked at in the store, and added, since the index was read from its beginning."""
        self.next_at = NEVER
        self._renew(index_bounds(*self._place)[0])

    def add(self, item: Item) -> None:
        """A value of this piece has this deadline now."""
        self._added += 1
        if self._stale:
            self._stale.discard(item)
        if self._horizon is not None and item > self._horizon:
            self._beyond.append(item)
            return
        heappush(self._heap, item)
        self.next_at = min(self.next_at, item.at)

    def pop(self, upto: int) -> Item | None:
        """The first item with `at <= upto`, which leaves the agenda; None when there is none."""
        if self.next_at > upto or not self._heap:
            return None
        item = heappop(self._heap)
        while self._heap and self._heap[0] == item:
            heappop(self._heap)
        self._advance()
        return item

    def peek(self, count: int, upto: int) -> list[Item]:
        """The next at most `count` items in memory with `at <= upto`, in order; they stay."""
        heap = self._heap
        if not heap:
            return []
        found: list[Item] = []
        front = [(heap[0], 0)]
        while front and len(found) < count:
            item, place = heappop(front)
            if item.at > upto:
                break
            found.append(item)
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heappush(front, (heap[child], child))
        return found

    def drop(self, item: Item) -> None:
        """A popped item turned out to be stale: the index may forget it."""
        self._stale.add(item)

    def finished(self) -> list[bytes]:
        """Keys of the index to delete when the epoch is settled, before its index changes are put."""
        return [index_key(*self._place, item) for item in sorted(self._stale)]

    def settled(self) -> None:
        """The epoch's index changes and the deletion of what is finished are in the store."""
        self._stale.clear()
        if self._horizon is None:
            assert not self._beyond, "everything was read"
        self._beyond.clear()
        worthwhile = self._added >= max(_RENEW_ITEMS_MIN, self._read)
        if len(self._heap) > self._memory_items or worthwhile:
            # Nothing before the first deadline is left in the index, but, in RocksDB, the graves of what was there.
            self._renew(index_bounds(*self._place, since=self.next_at)[0] if self.next_at < NEVER else None)

    def absorb(self, other: Agenda) -> None:
        """Be the agenda of both pieces: they are neighbours and became one."""
        low, high = sorted((self.key_range, other.key_range))
        assert low.hi == high.lo, f"{self.key_range} and {other.key_range} are no neighbours"
        self.key_range = KeyRange(low.lo, high.hi)
        horizons = [each for each in (self._horizon, other._horizon) if each is not None]
        self._horizon = min(horizons, default=None)
        items = [*self._heap, *self._beyond, *other._heap, *other._beyond]
        self._heap, self._beyond = [], []
        self._stale |= other._stale
        self._added += other._added
        self._read += other._read
        self._sort_in(items)
        self._advance()

    def _advance(self) -> None:
        """Read on when nothing is left in memory; find the first deadline."""
        while not self._heap and self._horizon is not None:
            self._read_on(index_key(*self._place, self._horizon) + b"\x00")
        self.next_at = self._heap[0].at if self._heap else NEVER

    def _renew(self, lo: bytes | None) -> None:
        """Forget what is in memory, and read the index from here on; None: there is nothing in it."""
        self._heap, self._added, self._read = [], 0, 0
        self._horizon = None
        if lo is not None:
            self._read_on(lo)
        self._advance()

    def _read_on(self, lo: bytes) -> None:
        """Read the next items of the index; what the epoch added among them joins them."""
        limit = max(1, self._memory_items // _READ_FRACTION)
        read = list(islice(self._indexed(lo), limit))
        self._horizon = read[-1] if len(read) == limit else None
        beyond, self._beyond = self._beyond, []
        self._sort_in([*read, *beyond])

    def _sort_in(self, items: list[Item]) -> None:
        """Items to where they belong as the horizon stands."""
        horizon = self._horizon
        if horizon is None:
            self._heap += items
        else:
            self._heap += [item for item in items if item <= horizon]
            self._beyond += [item for item in items if item > horizon]
        heapify(self._heap)

    def _indexed(self, lo: bytes) -> Iterator[Item]:
        """The items of this piece in the index from a key on; other pieces have theirs between them."""
        _, hi = index_bounds(*self._place)
        for key, _ in self._store.scan(lo, hi):
            self._read += 1
            item = parse_index_key(key)
            if slot_of(item.key) in self.key_range:
                yield item


class Agendas:
    """The three agendas of a piece."""

    __slots__ = ("_place", "event", "processing", "ttl")

    def __init__(
        self, store: Store, operator_id: int, partition: int, key_range: KeyRange, memory_items: int = MEMORY_ITEMS
    ) -> None:
        """Of the committed state in the store."""
        place = self._place = operator_id, partition
        self.event = Agenda(store, *place, "event", key_range, memory_items)
        self.processing = Agenda(store, *place, "processing", key_range, memory_items)
        self.ttl = Agenda(store, *place, "ttl", key_range, memory_items)

    def __getitem__(self, timeline: Timeline) -> Agenda:
        agenda: Agenda = getattr(self, timeline)
        return agenda

    def changes(self, columns: Sequence[Indexed], times: Sequence[TimeChange]) -> IndexChanges:
        """What the epoch means for the time index, in the order in which it must be written with the state.

        `times` are those of the piece. Expiries of values are learnt here, not when they are set: nobody waits for
        them.
        """
        gone = [key for agenda in self._all() for key in agenda.finished()]
        operator_id, partition = self._place
        keys, values = index_changes(operator_id, partition, columns, times)
        for index, key, subkey, _, new_at in times:
            if columns[index].timeline == "ttl" and new_at is not None and new_at != NEVER:
                self.ttl.add(Item(new_at, columns[index].name, key, subkey))
        return [*gone, *keys], [*[None] * len(gone), *values]

    def settled(self) -> None:
        """The epoch's changes of the index are in the store; see Agenda.settled."""
        for agenda in self._all():
            agenda.settled()

    def absorb(self, other: Agendas) -> None:
        """See Agenda.absorb."""
        self.event.absorb(other.event)
        self.processing.absorb(other.processing)
        self.ttl.absorb(other.ttl)

    def _all(self) -> tuple[Agenda, Agenda, Agenda]:
        return self.event, self.processing, self.ttl


def index_changes(
    operator_id: int, partition: int, columns: Sequence[Indexed], times: Sequence[TimeChange]
) -> IndexChanges:
    """What an epoch's changed deadlines mean for the time index, as keys to put (empty value) or to delete (None).

    `times` are of one shard, their `index` is that of `columns`. To be written with the state, behind what is
    `finished`: an item may be among both.
    """
    keys: list[bytes] = []
    values: list[bytes | None] = []
    for index, key, subkey, old_at, new_at in times:
        column = columns[index]
        if column.timeline is None or old_at == new_at:
            continue
        for at, value in ((old_at, None), (new_at, b"")):
            if at is not None and at != NEVER:
                keys.append(index_key(operator_id, partition, column.timeline, Item(at, column.name, key, subkey)))
                values.append(value)
    return keys, values
