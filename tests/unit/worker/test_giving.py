"""Pieces that are cut for a move, released, and gone: what an owner does with a key range that it hands over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kstate import Context, Input, Operator, Output, PartialState, Timer, ValueState
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange, slot_of
from kstate.progress import SlotMap
from kstate.state.blocks import Block, decode_frame
from kstate.state.layout import parse_suffix
from kstate.state.markers import MarkerKind

MakeBench = Callable[..., Any]
LOWER, UPPER = KeyRange(0, SLOTS // 2), KeyRange(SLOTS // 2, SLOTS)
KEYS = [b"k%d" % number for number in range(40)]


@dataclass(frozen=True)
class Hit:
    """Something happened."""

    at: int


@dataclass(frozen=True)
class Told:
    """How often, by now."""

    key: str
    hits: int


@dataclass(frozen=True)
class Seen:
    """How much was seen by all keys of a piece."""

    hits: int = 0

    def split(self, fraction: float) -> tuple[Seen, Seen]:
        lower = round(self.hits * fraction)
        return Seen(lower), Seen(self.hits - lower)

    def merge(self, other: Seen) -> Seen:
        return Seen(self.hits + other.hits)


class Count(Operator[str], uid="count"):
    """Counts per key, and per piece; tells a while after the last hit."""

    hits = Input(Hit, topic="hits", event_time="at")
    told = Output(Told, topic="told")
    n = ValueState(int, default=0)
    seen = PartialState(Seen, initial=Seen)
    pause = Timer()

    @hits.each
    def hit(self, hit: Hit, ctx: Context) -> None:
        self.n.set(self.n.get() + 1)
        self.seen.set(Seen(self.seen.get().hits + 1))
        self.pause.set(after=timedelta(seconds=10))

    @pause.fires
    def tell(self, ctx: Context) -> None:
        self.told.emit(Told(self.key, self.n.get()))


def rows(bench: Any, at: int) -> list[Any]:
    """One hit per key."""
    return [bench.row(Hit(at), key) for key in KEYS]


def order(bench: Any, key_range: KeyRange = UPPER, move: int = 7) -> None:
    """As a plan does that orders a release."""
    bench.shard.cuts = frozenset({key_range.lo, key_range.hi})
    bench.shard.releases = SlotMap([(key_range, move)])


def test_a_range_that_is_to_move_becomes_a_piece_between_two_epochs_only(bench: MakeBench) -> None:
    """In mid-epoch a piece holds what is not committed yet: it stays whole, and is not released."""
    b = bench(Count)
    b.feed(*rows(b, 1_000))
    order(b)
    assert b.shard.releasing(FULL_RANGE) is None
    markers = [piece.checkpoint.marker for piece in b.commit().pieces]
    assert [(marker.key_range, marker.kind) for marker in markers] == [(FULL_RANGE, MarkerKind.EPOCH)]
    b.shard.arrange()
    assert [piece.key_range for piece in b.shard.pieces] == [LOWER, UPPER]
    assert [b.shard.releasing(piece.key_range) for piece in b.shard.pieces] == [None, 7]


def test_the_last_marker_of_a_released_range_names_the_move_and_where_it_stands(bench: MakeBench) -> None:
    """Also where nothing happened to it in the epoch; what stays is marked only if it has something to say."""
    b = bench(Count)
    b.feed(*rows(b, 1_000))
    b.commit()
    order(b)
    b.shard.arrange()
    progress = dict(b.shard.pieces[1].progress)
    released = [p.checkpoint.marker for p in b.commit().pieces if p.checkpoint.marker.kind is MarkerKind.RELEASE]
    assert [(marker.key_range, marker.move, marker.progress) for marker in released] == [(UPPER, 7, progress)]
    assert released[0].times.inputs == {"hits": 1_000}


def test_parts_of_a_piece_carry_their_part_of_its_own_state(bench: MakeBench) -> None:
    """Both write their own object in the same epoch, which takes the old one away."""
    b = bench(Count)
    b.feed(*rows(b, 1_000))
    b.commit()
    order(b)
    b.shard.arrange()
    cells: dict[KeyRange, list[tuple[int, bytes, bool]]] = {}
    for piece in b.commit().pieces:
        for frame in piece.checkpoint.blocks:
            block = decode_frame(frame)
            assert isinstance(block, Block)
            own = [(parse_suffix(suffix), value) for suffix, value in zip(*block.entries(), strict=True)]
            cells[piece.piece.key_range] = [
                (parsed[0], parsed[3], value is not None) for parsed, value in own if not parsed[2]
            ]
    assert sorted(cells) == [LOWER, UPPER]
    assert [(slot, there) for slot, _, there in sorted(cells[LOWER], key=lambda cell: cell[2])] == [
        (0, False),
        (0, True),
    ]
    assert [(slot, there) for slot, _, there in cells[UPPER]] == [(UPPER.lo, True)]


def test_what_was_given_leaves_no_trace_in_memory(bench: MakeBench) -> None:
    """Pieces, lineage, grants and cached values: a range that comes back later is read from the store anew."""
    b = bench(Count)
    b.feed(*rows(b, 1_000))
    b.commit()
    order(b)
    b.shard.arrange()
    b.commit()
    b.shard.give(UPPER)
    assert [piece.key_range for piece in b.shard.pieces] == [LOWER]
    assert b.shard.lineage.gaps(FULL_RANGE) == [UPPER]
    assert b.shard.grants == SlotMap([(LOWER, 1)])
    b.feed(*rows(b, 2_000))
    changed = {entry.key_bytes for entry in b.shard.cache.changed}
    assert changed == {key for key in KEYS if slot_of(key) in LOWER}
    b.shard.rollback()
    assert [piece.key_range for piece in b.shard.pieces] == [LOWER]


def test_an_undone_epoch_leaves_the_cuts_as_they_are(bench: MakeBench) -> None:
    """The release that did not commit is tried again with the next epoch."""
    b = bench(Count)
    b.feed(*rows(b, 1_000))
    b.commit()
    order(b)
    b.shard.arrange()
    b.feed(*rows(b, 2_000))
    b.prepare()
    b.shard.rollback()
    b.processor.start_epoch()
    assert [piece.key_range for piece in b.shard.pieces] == [LOWER, UPPER]
    assert b.shard.releasing(UPPER) == 7


def test_pieces_under_different_grants_join_only_when_the_plan_gives_them_one(bench: MakeBench) -> None:
    """A merge: the neighbour has arrived, and a later plan makes one tile of both."""
    b = bench(Count, ranges=(LOWER, UPPER))
    b.feed(*rows(b, 1_000))
    assert [piece.checkpoint.marker.grant for piece in b.commit().pieces] == [1, 2]
    b.shard.grants.assign(FULL_RANGE, 5)
    assert [piece.grant for piece in b.shard.pieces] == [1, 2], "an epoch that runs ends under the old grants"
    b.shard.arrange()
    b.feed(*rows(b, 2_000))
    markers = [piece.checkpoint.marker for piece in b.commit().pieces]
    assert [(marker.key_range, marker.grant, len(marker.previous)) for marker in markers] == [(FULL_RANGE, 5, 2)]


def test_timers_go_on_in_the_parts_of_a_piece(bench: MakeBench) -> None:
    """Each part fires its own, once, at the watermark of the record that makes them due."""
    b = bench(Count)
    b.feed(*rows(b, 1_000))
    b.commit()
    b.shard.cuts = frozenset({UPPER.lo})
    b.shard.arrange()
    b.feed(b.row(Hit(60_000), KEYS[0]))
    told = b.emitted("told")
    assert sorted(each.key for each in told) == sorted(key.decode() for key in KEYS)
    assert {each.hits for each in told} == {1}
