"""The state is written anew while it changes, and what is then left of the log after a trim holds all of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kstate import Input, Operator, PartialState, ValueState
from kstate.clock import run_steps
from kstate.config import RebaseSettings, Settings
from kstate.interfaces import TopicSpec
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange, slot_of
from kstate.plan import Tile, TopicPartition
from kstate.state.backup import backup_messages
from kstate.state.blocks import Block, BlockKind, decode_frame
from kstate.state.layout import shard_bounds, shard_prefix
from kstate.state.partial_cells import is_cell
from kstate.state.restore import RestoreTarget, restore
from kstate.testing.memory_store import MemoryStore
from kstate.worker.epoch import Prepared, settle
from kstate.worker.rebasing import LOOK_S, Rebasing

MakeBench = Callable[..., Any]
BACKUP = TopicPartition("bench.keep.backup", 0)
LOWER, UPPER = KeyRange(0, SLOTS // 2), KeyRange(SLOTS // 2, SLOTS)
SMALL = RebaseSettings(grown_bytes=400, slice_bytes=100, log_bytes=2_000)


@dataclass(frozen=True)
class Put:
    """A value to keep; empty: to drop what is kept."""

    text: str


@dataclass(frozen=True)
class Seen:
    """How much was seen by all keys of a piece."""

    puts: int = 0

    def split(self, fraction: float) -> tuple[Seen, Seen]:
        lower = round(self.puts * fraction)
        return Seen(lower), Seen(self.puts - lower)

    def merge(self, other: Seen) -> Seen:
        return Seen(self.puts + other.puts)


class Keep(Operator[str], uid="keep"):
    """Keeps the last text of each key."""

    puts = Input(Put, topic="puts")
    text = ValueState(str)
    seen = PartialState(Seen, initial=Seen)

    @puts.each
    def put(self, put: Put, ctx: Any) -> None:
        self.seen.set(Seen(self.seen.get().puts + 1))
        if put.text:
            self.text.set(put.text)
        else:
            self.text.clear()


class Rig:
    """A bench whose epochs are written to a log in memory, and read back from there."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        bench.log.create_topics([TopicSpec(BACKUP.topic, 1)])
        self._producer = bench.log.producer("w-1")
        self._producer.open()

    def put(self, texts: dict[bytes, str]) -> None:
        """Records of the running epoch."""
        self.bench.feed(*(self.bench.row(Put(text), key) for key, text in texts.items()))

    def write(self, prepared: Prepared) -> Sequence[int]:
        """A transaction; the offsets of its markers."""
        self._producer.begin()
        for piece in prepared.pieces:
            blocks, marker = backup_messages(piece.checkpoint, 0)
            self._producer.send(BACKUP.topic, blocks)
            self._producer.send(BACKUP.topic, [marker], tracked=True)
        offsets: Sequence[int] = self._producer.flush()[BACKUP]
        self._producer.commit()
        return offsets

    def commit(self) -> Prepared:
        """The epoch, if there is anything in it."""
        shard = self.bench.shard
        tiles = tuple(Tile(shard.shard, piece.key_range, "w-1", 1) for piece in shard.pieces)
        self.bench.rebasing.tick([shard], replace(self.bench.plan, tiles=tiles))
        prepared: Prepared = self.bench.prepare()
        if prepared.pieces:
            settle(prepared, "bench", {BACKUP: self.write(prepared)}, self.bench.store, self.bench.rebasing)
        self.bench.processor.start_epoch()
        return prepared

    @property
    def base(self) -> int:
        """The least base of all slots."""
        bases: list[int] = [position.base for position in self.bench.shard.lineage.values()]
        return min(bases)

    def trim(self) -> None:
        """As the leader does."""
        self.bench.log.delete_records({BACKUP: self.base})

    def stored(self, store: MemoryStore) -> list[tuple[bytes, bytes]]:
        """The state of the shard in a store."""
        return list(store.scan(*shard_bounds(1, 0, FULL_RANGE)))

    def restored(self, *ranges: KeyRange) -> MemoryStore:
        """A new store, from what is left of the log, range by range."""
        store = MemoryStore()
        partial = self.bench.shard.partial
        for key_range in ranges or (FULL_RANGE,):
            target = RestoreTarget(BACKUP, 1, key_range, partial=partial)
            run_steps(restore(self.bench.log, store, target, self.bench.clock, Settings()), self.bench.clock)
        return store


def outgrown(bench: MakeBench) -> Rig:
    """Forty keys, whose blocks are larger than what is stored: a cycle is due with the next epoch."""
    rig = Rig(bench(Keep, rebase=SMALL))
    rig.put(dict.fromkeys(keys(40), "x" * 20))
    assert not base_bytes(rig.commit())
    return rig


def base_bytes(prepared: Prepared) -> int:
    """Bytes of base blocks."""
    frames = [frame for piece in prepared.pieces for frame in piece.checkpoint.blocks]
    blocks = [block for frame in frames if isinstance(block := decode_frame(frame), Block)]
    return sum(len(block.frame) for block in blocks if block.header.kind is BlockKind.BASE)


def keys(count: int) -> list[bytes]:
    """Some keys."""
    return [b"k%d" % number for number in range(count)]


@pytest.mark.parametrize("seed", range(40))
def test_what_a_trim_leaves_holds_the_whole_state(bench: MakeBench, seed: int) -> None:
    """Random epochs, with deletions, over one piece or two, trimmed whenever a base moved on."""
    rng = random.Random(seed)
    rig = Rig(bench(Keep, ranges=[FULL_RANGE] if seed % 2 else [LOWER, UPPER], rebase=SMALL))
    bases, trimmed = set(), 0
    for _ in range(120):
        some = rng.sample(keys(30), rng.randrange(1, 8))
        rig.put({key: rng.choice(["", "x" * rng.randrange(60)]) for key in some})
        rig.commit()
        bases.add(rig.base)
        if rng.random() < 0.3 and rig.base > trimmed:
            trimmed = rig.base
            rig.trim()
    assert len(bases) > 3, "several cycles came to their end"
    assert rig.stored(rig.restored()) == rig.stored(rig.bench.store)
    assert keyed(rig, rig.restored(LOWER, UPPER)) == keyed(rig, rig.bench.store)


def keyed(rig: Rig, store: MemoryStore) -> list[tuple[bytes, bytes]]:
    """Without partial states, which are cut where ranges are."""
    at = len(shard_prefix(1, 0))
    return [(key, value) for key, value in rig.stored(store) if not is_cell(key[at:], rig.bench.shard.partial)]


def test_a_base_is_where_the_cycle_began_and_only_once_it_has_ended(bench: MakeBench) -> None:
    """Until then the marker inherits the older one (P9)."""
    rig = outgrown(bench)
    stood = rig.bench.shard.lineage.get(0).offset
    pieces = 0
    while rig.base == 0:
        rig.put({b"k1": "y"})
        pieces += bool(base_bytes(rig.commit()))
    assert pieces > 3
    assert rig.base == stood


def test_a_slice_is_no_larger_than_the_changes_or_the_setting(bench: MakeBench) -> None:
    """But for a slot, which is written whole."""
    rig = outgrown(bench)
    rig.put({b"k1": "y"})
    assert 0 < base_bytes(rig.commit()) < 100 + 150
    rig.put(dict.fromkeys(keys(20), "z" * 20))
    assert 100 + 150 < base_bytes(rig.commit()) < 20 * 60


def test_what_did_not_commit_is_written_again(bench: MakeBench) -> None:
    """The cycle goes on only with what is certain."""
    rig = outgrown(bench)
    rig.put({b"k1": "y"})
    (undone,) = rig.bench.prepare().pieces
    rig.bench.shard.rollback()
    rig.bench.processor.start_epoch()
    rig.put({b"k1": "y"})
    (again,) = rig.commit().pieces
    assert undone.base == again.base
    rig.put({b"k1": "y"})
    (next_one,) = rig.commit().pieces
    assert next_one.base is not None
    assert again.base is not None
    assert next_one.base.key_range.lo == again.base.key_range.hi


def test_a_cycle_comes_to_its_end_without_further_records(bench: MakeBench) -> None:
    """And then nothing more is written."""
    rig = outgrown(bench)
    rig.put({b"k1": "y"})
    rig.commit()
    epochs = 0
    while rig.commit().pieces:
        epochs += 1
    assert epochs > 3
    assert rig.base > 0
    rig.trim()
    assert rig.stored(rig.restored()) == rig.stored(rig.bench.store)


def test_a_range_without_changes_does_not_pin_the_log_that_others_write(bench: MakeBench) -> None:
    """It is looked at now and then; with what the log holds behind its base its own state is written anew."""
    rig = Rig(bench(Keep, ranges=[LOWER, UPPER], rebase=SMALL))
    idle, busy = ([key for key in keys(60) if slot_of(key) in half] for half in (LOWER, UPPER))
    rig.put(dict.fromkeys(idle[:5] + busy[:5], "x" * 20))
    rig.commit()
    for _ in range(60):
        rig.put({busy[0]: "y" * 20})
        rig.commit()
    assert rig.bench.shard.lineage.get(0).base == 0
    rig.bench.clock.sleep(LOOK_S)
    while rig.commit().pieces:
        pass
    assert rig.bench.shard.lineage.get(0).base > 0
    rig.trim()
    assert rig.stored(rig.restored()) == rig.stored(rig.bench.store)


def test_large_neighbours_do_not_urge_each_other_for_ever(bench: MakeBench) -> None:
    """What one writes anew is log behind the bases of all others: once each has done so, there is rest."""
    rig = Rig(bench(Keep, ranges=FULL_RANGE.parts(8), rebase=replace(SMALL, grown_bytes=1 << 30, slice_bytes=2_000)))
    rig.put(dict.fromkeys(keys(400), "x" * 40))
    rig.commit()
    for _ in range(100):
        rig.put(dict.fromkeys(keys(40)[::20], "y"))
        rig.commit()
    written = 0
    for _ in range(10):
        rig.bench.clock.sleep(LOOK_S)
        while epoch := rig.commit().pieces:
            written += len(epoch)
            assert written < 1_000
    assert written > 8
    rig.bench.clock.sleep(LOOK_S)
    assert not rig.commit().pieces
    assert rig.stored(rig.restored()) == rig.stored(rig.bench.store)


def test_a_piece_that_is_cut_begins_anew(bench: MakeBench) -> None:
    """Its running cycle has written slots for the whole; each part writes its own from its first slot on (P9)."""
    rig = outgrown(bench)
    rig.put({b"k1": "y"})
    assert base_bytes(rig.commit())
    rig.bench.shard.cuts = frozenset({UPPER.lo})
    rig.bench.shard.arrange()
    for _ in range(200):
        rig.put(dict.fromkeys(keys(10), "z" * 20))
        rig.commit()
        if rig.base:
            break
    rig.trim()
    assert rig.base > 0
    assert rig.stored(rig.restored()) == rig.stored(rig.bench.store)


def test_nothing_is_written_anew_where_little_has_changed(bench: MakeBench) -> None:
    """With the defaults a small state never is."""
    rig = Rig(bench(Keep))
    for _ in range(50):
        rig.put(dict.fromkeys(keys(10), "z" * 20))
        assert not base_bytes(rig.commit())
    assert isinstance(rig.bench.rebasing, Rebasing)
