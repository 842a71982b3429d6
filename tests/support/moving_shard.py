"""A shard that is cut, moved, recovered and joined, step by step, beside what its log says of every slot.

All of it is the engine's own: pieces' partial states, checkpoints, markers, followers, restores, stores that crash.
Only who owns what, and when, is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count, pairwise
from random import Random

from kstate.interfaces import Store
from kstate.keyspace import KeyRange, slot_of
from kstate.state.agenda import Agenda
from kstate.state.backup import backup_messages
from kstate.state.checkpoint import Changes, Checkpoint, EpochEnd, PieceId, advance, checkpoint
from kstate.state.follow import Follower
from kstate.state.layout import Item, Timeline, index_key, key_suffix, parse_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import Lineage, lineage_entry, released, stored_lineage
from kstate.state.partial_cells import Cell, parse_cell
from kstate.state.restore import RestoreTarget, TimedState, forget
from kstate.state.values import NEVER, split_value, value_prefix
from kstate.testing.memory_store import MemoryStore
from kstate.worker.partial import PartialColumn, Partials, PartialStore
from tests.support.backup_log import OPERATOR, SOURCE, BackupLog
from tests.support.restore_bench import SETTINGS, finish
from tests.support.state_bench import column_of

ALL = KeyRange(0, 48)
"""Slots are few, so that ranges meet and cross often."""
PREFIX = shard_prefix(OPERATOR, SOURCE.partition)
PARTIAL = frozenset({3, 4})
TIMED = {1: TimedState("timer", "event"), 2: TimedState("seen", "ttl")}
TIMELINES: tuple[Timeline, ...] = ("event", "ttl")
PLAIN = 5
"""A state whose values do not expire."""

InForce = dict[int, tuple[KeyRange, bytes]]
"""Slot → the range that its object was made for, and the object."""
Entries = dict[bytes, bytes | None]


def _keys() -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for number in count():
        key = b"key-%d" % number
        if (slot := slot_of(key)) in ALL:
            found.setdefault(slot, key)
            if len(found) == ALL.width:
                return found
    raise AssertionError


KEYS = _keys()
"""Slot → a key in it."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A number that is cut with rounding."""

    total: int

    def split(self, fraction: float) -> tuple[Sum, Sum]:
        lower = round(self.total * fraction)
        return Sum(lower), Sum(self.total - lower)

    def merge(self, other: Sum) -> Sum:
        return Sum(self.total + other.total)


COLUMNS = [
    PartialColumn(index, column_of(Sum, f"sum-{state_id}", state_id, cells=True), lambda: Sum(0))
    for index, state_id in enumerate(sorted(PARTIAL))
]


def target_of(key_range: KeyRange) -> RestoreTarget:
    """A range of the shard, with all that the engine must know of its states."""
    return RestoreTarget(SOURCE, OPERATOR, key_range, TIMED, PARTIAL)


@dataclass(eq=False)
class Owner:
    """Who runs a tile: pieces that touch, in a store that it may share with other owners of the same process."""

    name: str
    grant: int
    store: MemoryStore
    lineage: Lineage
    pieces: list[Partials]
    keyed: Entries = field(default_factory=dict)
    added: int = 0
    """What the running epoch changed, and added to the sums."""

    @property
    def tile(self) -> KeyRange:
        return KeyRange(self.pieces[0].key_range.lo, self.pieces[-1].key_range.hi)

    def piece(self, slot: int) -> int:
        """Which piece has a slot."""
        return next(at for at, piece in enumerate(self.pieces) if slot in piece.key_range)

    def cut(self, at: int) -> None:
        """Cut the piece that reaches over a slot's lower end."""
        index = self.piece(at)
        if self.pieces[index].key_range.lo < at:
            self.pieces[index : index + 1] = self.pieces[index].cut(at)

    def reload(self, tile: KeyRange) -> None:
        """One piece, as it was committed."""
        stored = PartialStore(self.store, PREFIX, COLUMNS)
        self.pieces = [stored.load(tile, [key_range.lo for key_range, _ in self.lineage])]
        self.keyed, self.added = {}, 0


class MovingShard:
    """The log, the owners that tile it, copies of dead processes, and the model: what is committed, slot by slot."""

    def __init__(self) -> None:
        self.log = BackupLog()
        self.owners: list[Owner] = []
        self.standbys: list[tuple[Follower, MemoryStore]] = []
        self.graves: list[MemoryStore] = []
        """Stores that nobody uses: whoever restores may find one."""
        self.model: dict[int, InForce] = {state_id: {} for state_id in PARTIAL}
        self.keyed: dict[bytes, bytes] = {}
        self.committed = 0
        self._versions = count(1)
        self._epochs = count(1)
        self.give(ALL, MemoryStore())

    # -- who owns what

    def owner(self, slot: int) -> Owner:
        return next(owner for owner in self.owners if slot in owner.tile)

    def follower(self, key_range: KeyRange, store: MemoryStore) -> Follower:
        return Follower(self.log.log, store, target_of(key_range), self.log.clock, SETTINGS)

    def give(self, tile: KeyRange, store: MemoryStore) -> Owner:
        """A new owner restores a tile into a store; whoever had it is dead."""
        return self.adopt(self.follower(tile, store), store, next(self._versions))

    def adopt(self, follower: Follower, store: MemoryStore, grant: int, move: int | None = None) -> Owner:
        """A follower takes its range over."""
        tile = follower.target.key_range
        lineage = finish(follower.adopt(lambda found: move is None or released(found, tile, move)))
        follower.close()
        owner = Owner(f"w-{grant}", grant, store, lineage, [])
        owner.reload(tile)
        self.owners.append(owner)
        self.owners.sort(key=lambda each: each.tile)
        return owner

    def kill(self, store: MemoryStore, rng: Random) -> list[KeyRange]:
        """A process dies: its tiles have no owner, its store is what a crash leaves."""
        dead = [owner for owner in self.owners if owner.store is store]
        self.owners = [owner for owner in self.owners if owner.store is not store]
        for follower, _ in [pair for pair in self.standbys if pair[1] is store]:
            follower.close()
        self.standbys = [pair for pair in self.standbys if pair[1] is not store]
        store.crash(rng)
        self.graves.append(store)
        return [owner.tile for owner in dead]

    def move(self, owner: Owner, part: KeyRange, follower: Follower, store: MemoryStore) -> None:
        """A planned move of a part of a tile: its owner releases it, the follower adopts it, the owner forgets it."""
        move = next(self._versions)
        for at in (part.lo, part.hi):
            if owner.tile.lo < at < owner.tile.hi:
                owner.cut(at)
        self.commit(owner, part, move)
        rest = [piece for piece in owner.pieces if piece.key_range.overlap(part) is None]
        self.owners.remove(owner)
        lower = [piece for piece in rest if piece.key_range.hi <= part.lo]
        for pieces in (lower, rest[len(lower) :]):
            if pieces:
                self.owners.append(Owner(owner.name, owner.grant, owner.store, owner.lineage.copy(), pieces))
        self.adopt(follower, store, move, move)
        forget(owner.store, OPERATOR, SOURCE.partition, part, PARTIAL)

    def join(self, lower: Owner, upper: Owner) -> None:
        """Touching tiles of one process become one tile."""
        grant = next(self._versions)
        lineage = lower.lineage.copy()
        for key_range, position in upper.lineage.slice(upper.tile):
            lineage.assign(key_range, position)
        pieces, keyed = lower.pieces + upper.pieces, lower.keyed | upper.keyed
        joined = Owner(f"w-{grant}", grant, lower.store, lineage, pieces, keyed, lower.added + upper.added)
        at = self.owners.index(lower)
        self.owners[at : at + 2] = [joined]

    # -- what an owner does

    def add(self, slot: int, index: int, amount: int) -> None:
        """A call of a handler adds to a sum."""
        owner = self.owner(slot)
        piece = owner.pieces[owner.piece(slot)]
        piece.set(index, piece.get(index).merge(Sum(amount)), [])
        owner.added += amount

    def put(self, slot: int, state_id: int, expiry: int | None) -> None:
        """A call of a handler sets a value, or deletes it."""
        suffix = key_suffix(slot, state_id, KEYS[slot])
        value = value_prefix(7, expiry) + b"%d" % next(self._epochs) if expiry or state_id == PLAIN else None
        self.owner(slot).keyed[suffix] = value

    def commit(self, owner: Owner, release: KeyRange | None = None, move: int | None = None) -> None:
        """One transaction of all pieces with changes and of all that are released; then the store follows.

        As kstate.worker.epoch does it: all pieces stand behind the last record of the transaction.
        """
        progress = {"words": next(self._epochs)}
        made: list[tuple[Checkpoint, Changes, Partials]] = []
        for piece in owner.pieces:
            changes = self._changes(owner, piece)
            going = move if release and piece.key_range.overlap(release) else None
            if len(changes) or going:
                end = EpochEnd(owner.name, owner.grant, progress, release=going)
                name = PieceId(OPERATOR, SOURCE.partition, piece.key_range)
                made.append((checkpoint(name, changes, owner.lineage, end), changes, piece))
        if not made:
            return
        producer = self.log.producer(owner.name)
        producer.begin()
        for each, _, _ in made:
            blocks, marker = backup_messages(each, SOURCE.partition)
            producer.send(SOURCE.topic, [*blocks, marker], tracked=True)
        offset = producer.flush()[SOURCE][-1]
        producer.commit()
        for each, changes, piece in made:
            self._settle(owner, each, changes, offset)
            piece.settle()
        self.committed += owner.added
        owner.keyed, owner.added = {}, 0

    def _changes(self, owner: Owner, piece: Partials) -> Changes:
        own = {suffix: value for suffix, value in owner.keyed.items() if parse_suffix(suffix).slot in piece.key_range}
        return Changes(list(own), list(own.values())).joined(piece.changes())

    def _settle(self, owner: Owner, made: Checkpoint, changes: Changes, offset: int) -> None:
        advance(owner.lineage, made.marker, offset)
        stored = stored_lineage(owner.store, OPERATOR, SOURCE.partition)
        advance(stored, made.marker, offset)
        key, value = lineage_entry(owner.store, OPERATOR, SOURCE.partition, stored)
        run: Entries = {PREFIX + suffix: each for suffix, each in zip(changes.suffixes, changes.values, strict=True)}
        owner.store.write([*run, key, *_index_of(run)], [*run.values(), value, *(b"" for _ in _index_of(run))])
        self._note(made.marker.key_range, dict(zip(changes.suffixes, changes.values, strict=True)))

    def _note(self, key_range: KeyRange, entries: Entries) -> None:
        """The newest marker covering a slot counts."""
        told = {state_id for suffix in entries if (state_id := parse_suffix(suffix).state_id) in PARTIAL}
        for slot in range(key_range.lo, key_range.hi):
            for state_id in told:
                self.model[state_id].pop(slot, None)
        for suffix, value in entries.items():
            if (state_id := parse_suffix(suffix).state_id) in PARTIAL:
                if value is not None:
                    assert parse_cell(suffix) == Cell.of(key_range)
                    self.model[state_id] |= dict.fromkeys(range(key_range.lo, key_range.hi), (key_range, value))
            elif value is None:
                self.keyed.pop(suffix, None)
            else:
                self.keyed[suffix] = value

    # -- what must hold

    def check_tiling(self) -> None:
        """S8: tiles and pieces cover every slot once."""
        ranges = [piece.key_range for owner in self.owners for piece in owner.pieces]
        assert ranges[0].lo == ALL.lo
        assert ranges[-1].hi == ALL.hi
        assert all(lower.hi == upper.lo for lower, upper in pairwise(ranges))

    def check_owners(self) -> None:
        """Together the parts are the whole: entries, deadlines, and sums up to what runs."""
        held = [pair for owner in self.owners for pair in entries_of(owner.store, owner.tile)]
        assert held == sorted(self.keyed.items())
        for timeline in TIMELINES:
            due = [item for owner in self.owners for item in self._due(owner.store, owner.tile, timeline)]
            assert sorted(due) == self._deadlines(timeline, ALL)
        running = sum(piece.get(index).total for o in self.owners for piece in o.pieces for index in range(2))
        assert running == self.committed + sum(owner.added for owner in self.owners)

    def check_copy(self, store: Store, key_range: KeyRange) -> None:
        """A copy of a range at the end of the log holds all there is of it."""
        assert entries_of(store, key_range) == sorted(p for p in self.keyed.items() if _slot(p[0]) in key_range)
        for timeline in TIMELINES:
            assert self._due(store, key_range, timeline) == self._deadlines(timeline, key_range)
        for state_id in PARTIAL:
            expected = {slot: told for slot, told in self.model[state_id].items() if slot in key_range}
            assert in_force(store, key_range, state_id) == expected

    def check_total(self) -> None:
        """Whoever restores the whole finds all that was committed."""
        store = MemoryStore()
        follower = self.follower(ALL, store)
        lineage = finish(follower.adopt())
        self.check_copy(store, ALL)
        whole = PartialStore(store, PREFIX, COLUMNS).load(ALL, [key_range.lo for key_range, _ in lineage])
        assert sum(whole.get(index).total for index in range(2)) == self.committed

    def _deadlines(self, timeline: Timeline, key_range: KeyRange) -> list[Item]:
        items = [_item(suffix, value) for suffix, value in self.keyed.items() if _slot(suffix) in key_range]
        names = {state.name for state in TIMED.values() if state.timeline == timeline}
        return sorted(item for item in items if item and item.name in names)

    def _due(self, store: Store, key_range: KeyRange, timeline: Timeline) -> list[Item]:
        """What an agenda offers, without the stale."""
        agenda = Agenda(store, OPERATOR, SOURCE.partition, timeline, key_range)
        wanted = set(self._deadlines(timeline, key_range))
        return [item for item in iter(lambda: agenda.pop(NEVER), None) if item in wanted]


def entries_of(store: Store, key_range: KeyRange) -> list[tuple[bytes, bytes]]:
    """The keyed entries of a range in a store, by suffix."""
    pairs = store.scan(*shard_bounds(OPERATOR, SOURCE.partition, key_range))
    suffixes = ((key[len(PREFIX) :], value) for key, value in pairs)
    return [pair for pair in suffixes if parse_suffix(pair[0]).state_id not in PARTIAL]


def in_force(store: Store, key_range: KeyRange, state_id: int) -> InForce:
    """What the cells in the slots of a range say: of each slot once, and of none beyond the range."""
    told: InForce = {}
    for key, value in store.scan(*shard_bounds(OPERATOR, SOURCE.partition, key_range)):
        suffix = key[len(PREFIX) :]
        if parse_suffix(suffix).state_id == state_id:
            cell = parse_cell(suffix)
            for slot in range(cell.valid.lo, cell.valid.hi):
                assert slot in key_range
                assert slot not in told
                told[slot] = cell.nominal, value
    return told


def _slot(suffix: bytes) -> int:
    return parse_suffix(suffix).slot


def _item(suffix: bytes, value: bytes) -> Item | None:
    """The deadline of a value."""
    _, state_id, key, subkey = parse_suffix(suffix)
    expiry = split_value(value).expiry
    return None if expiry is None else Item(expiry, TIMED[state_id].name, key, subkey)


def _index_of(run: Entries) -> Iterable[bytes]:
    """The time index of what an epoch wrote; stale entries stay, as they may."""
    for stored_key, value in run.items():
        suffix = stored_key[len(PREFIX) :]
        if value and parse_suffix(suffix).state_id in TIMED and (item := _item(suffix, value)):
            timeline = TIMED[parse_suffix(suffix).state_id].timeline
            yield index_key(OPERATOR, SOURCE.partition, timeline, item)
