"""What this worker owns of a shard: pieces, each with one progress, and which records they admit (rule S8).

A *piece* is a key range with one chain of markers, one grant and one progress. Normally a tile is one piece; after
splits and merges pieces with unequal progress run side by side, each skipping what it has done already, and coalesce
when they are equal. Live progress runs ahead of the lineage by what the running epoch has read; a rollback makes them
equal again.

A key range that is to move is a piece of its own before it goes: pieces are cut between two epochs, when what they
hold is what is committed. Its last marker then says RELEASE, and from that commit on it is not here any more (S6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kstate.interfaces import Batch
from kstate.keyspace import FULL_RANGE, KeyRange, slot_of, slot_of_offset
from kstate.plan import Shard
from kstate.progress import SlotMap
from kstate.state.agenda import Agendas
from kstate.state.cache import Entry, StateCache
from kstate.state.lineage import Lineage
from kstate.state.partition import cut_range
from kstate.state.replay import ReplayPiece, replay_pieces
from kstate.times import Times, joined
from kstate.worker.decode import select
from kstate.worker.duties import Duties
from kstate.worker.partial import Partials
from kstate.worker.watermarks import Told, Watermarks


@dataclass(slots=True, eq=False)
class Piece:
    """A key range with one live progress; `touched`: the running epoch did something that a marker must record."""

    key_range: KeyRange
    grant: int
    progress: dict[str, int]
    watermarks: Watermarks
    agendas: Agendas
    partials: Partials
    clock_ms: int = 0
    """The last reading of processing time."""
    touched: bool = False
    sent: Told | None = None
    """What the last watermark frames of this process said."""
    idle_at: float | None = None
    """Up to when (monotonic seconds) the watermark went on by the clock, while all inputs are idle; at first since when
    the piece is here.
    """

    @property
    def times(self) -> Times:
        """Event time as a marker keeps it."""
        return self.watermarks.frozen(self.clock_ms)

    @property
    def tells(self) -> Told:
        """What its next watermark frame says."""
        return self.watermarks.tells(self.agendas.event.next_at)

    @property
    def has_news(self) -> bool:
        """Whether that is due to be said."""
        return self.watermarks.to_send(self.sent, self.agendas.event.next_at)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a batch that a piece has not done before: its own, and where time matters the others' too."""

    piece: Piece
    own: Batch
    foreign: Batch | None
    """Rows of keys that the piece does not own; None where nobody wants them, or there are none."""


@dataclass(frozen=True, slots=True)
class PieceMaker:
    """How an operator's pieces are made of what their markers say."""

    watermarks: Callable[[Times], Watermarks]
    agendas: Callable[[KeyRange], Agendas]
    partials: Callable[[KeyRange, Iterable[int]], Partials]
    """Of a key range, given the slots at which ranges of the shard begin."""

    def piece(self, stored: ReplayPiece, grant: int, lineage: Lineage) -> Piece:
        """A piece as it was committed."""
        partials = self.partials(stored.key_range, [key_range.lo for key_range, _ in lineage])
        return Piece(
            stored.key_range,
            grant,
            dict(stored.progress),
            self.watermarks(stored.times),
            self.agendas(stored.key_range),
            partials,
            stored.times.clock_ms,
            touched=partials.pending,
        )

    def cut(self, piece: Piece, at: int) -> tuple[Piece, Piece]:
        """The slots of a piece below `at`, and those from there on; only between two epochs."""
        lower, upper = piece.partials.cut(at)
        return self._part_of(piece, lower), self._part_of(piece, upper)

    def _part_of(self, piece: Piece, partials: Partials) -> Piece:
        return Piece(
            partials.key_range,
            piece.grant,
            dict(piece.progress),
            self.watermarks(piece.times),
            self.agendas(partials.key_range),
            partials,
            piece.clock_ms,
            touched=piece.touched or partials.pending,
            sent=piece.sent,
            idle_at=piece.idle_at,
        )


class OwnedShard:
    """The part of one shard that this worker owns, its committed lineage and its cache."""

    def __init__(
        self,
        shard: Shard,
        operator_id: int,
        cache: StateCache,
        starts: Mapping[str, int],
        maker: PieceMaker,
        partial: frozenset[int] = frozenset(),
    ) -> None:
        self.shard = shard
        self.operator_id = operator_id
        self.cache = cache
        self.lineage: Lineage = SlotMap()
        self.grants: SlotMap[int] = SlotMap()
        """Slot → the grant under which it is to run here; pieces take it on between two epochs."""
        self.pieces: list[Piece] = []
        self.cuts: frozenset[int] = frozenset()
        """Slots at which pieces are kept apart: the bounds of what is to move."""
        self.releases: SlotMap[int] = SlotMap()
        """Slot → the move whose release the plan orders."""
        self.starts = starts
        """Input topic → offset at which slots without a marker start."""
        self.table_ends: Mapping[str, int] = {}
        """Table topic → end to which it is read before any other input."""
        self.maker = maker
        self.partial = partial
        """The ids of partial states (kstate.state.partial_cells)."""

    def adopt(self, key_range: KeyRange, grant: int, lineage: Lineage) -> None:
        """Own a restored key range; its pieces start where its markers say."""
        self.grants.assign(key_range, grant)
        for part, position in lineage.slice(key_range):
            self.lineage.assign(part, position)
        self.pieces += self._committed_pieces(key_range, grant)

    def ordered(self, duty: Duties) -> None:
        """What the newest plan wants moved away."""
        self.cuts, self.releases = frozenset(duty.cuts), duty.releases

    def arrange(self) -> bool:
        """Between two epochs: cut the pieces where the plan wants it, and let them take on newer grants.

        Whether anything is other than it was.
        """
        before = [(piece.key_range, piece.grant) for piece in self.pieces]
        cuts = sorted({*self.cuts, *(key_range.lo for key_range, _ in self.grants)})
        self.pieces = [part for piece in self.pieces for part in self._cut(piece, cuts)]
        for piece in self.pieces:
            piece.grant = self.grants.get(piece.key_range.lo) or piece.grant
        return before != [(piece.key_range, piece.grant) for piece in self.pieces]

    def releasing(self, key_range: KeyRange) -> int | None:
        """The move that a piece is to be released for, once all pieces of the move are cut out."""
        for ordered, move in self.releases:
            if ordered.overlap(key_range) is not None:
                pieces = [piece.key_range for piece in self.pieces if piece.key_range.overlap(ordered)]
                return move if all(piece.overlap(ordered) == piece for piece in pieces) else None
        return None

    def give(self, key_range: KeyRange) -> None:
        """A piece was released: it is not owned any more (S6)."""
        self.pieces = [piece for piece in self.pieces if piece.key_range != key_range]
        self.lineage.clear(key_range)
        self.grants.clear(key_range)
        self.releases.clear(key_range)
        self.cache.evict(key_range)

    def rollback(self) -> None:
        """Forget the running epoch: live progress is what was committed."""
        self.cache.discard()
        self.pieces = [piece for part, grant in self.grants for piece in self._committed_pieces(part, grant)]

    def settled(self, stored_bytes: int) -> None:
        """The running epoch is committed; its changed values have this size."""
        self.cache.settle(stored_bytes)
        for piece in self.pieces:
            piece.touched = False
            piece.agendas.settled()
            piece.partials.settle()

    def _committed_pieces(self, key_range: KeyRange, grant: int) -> list[Piece]:
        parts = cut_range(key_range, sorted(cut for cut in self.cuts if key_range.lo < cut < key_range.hi))
        stored = [piece for part in parts for piece in replay_pieces(self.lineage, part, self.starts)]
        return [self.maker.piece(piece, grant, self.lineage) for piece in stored]

    def _cut(self, piece: Piece, cuts: Iterable[int]) -> list[Piece]:
        parts = [piece]
        for cut in cuts:
            if parts[-1].key_range.lo < cut < parts[-1].key_range.hi:
                parts[-1:] = self.maker.cut(parts[-1], cut)
        return parts

    def positions(self) -> dict[str, int]:
        """Where the reader of each input topic must stand: the least progress of any piece.

        Only tables while they are not read to their ends.
        """
        behind = [topic for topic in self.table_ends if self._behind(topic)]
        return {topic: min(piece.progress[topic] for piece in self.pieces) for topic in behind or self.starts}

    @property
    def reads_tables(self) -> bool:
        """The tables are not yet read to their ends."""
        return any(self._behind(topic) for topic in self.table_ends)

    def _behind(self, table: str) -> bool:
        return any(piece.progress[table] < self.table_ends[table] for piece in self.pieces)

    def coalesce(self) -> None:
        """Join neighbouring pieces under one grant that stand at equal progress."""
        pieces: list[Piece] = []
        for piece in sorted(self.pieces, key=lambda p: p.key_range.lo):
            last = pieces[-1] if pieces else None
            if last and self._mergeable(last, piece):
                _join(last, piece, self.maker)
            else:
                pieces.append(piece)
        self.pieces = pieces

    def parts(self, batch: Batch, *, foreign: bool) -> list[Part]:
        """What each piece has to do of a batch, and with `foreign` what else has passed it."""
        topic = batch.source.topic
        if len(self.pieces) == 1 and self.pieces[0].key_range == FULL_RANGE:
            piece = self.pieces[0]
            if not len(batch) or piece.progress[topic] <= batch.offsets[0]:
                return [Part(piece, batch, None)]
            rows = [row for row, offset in enumerate(batch.offsets) if offset >= piece.progress[topic]]
            return [Part(piece, select(batch, rows), None)]
        slots = [
            slot_of(key) if key is not None else slot_of_offset(offset)
            for key, offset in zip(batch.keys, batch.offsets, strict=True)
        ]
        return [_part(piece, batch, slots, foreign=foreign) for piece in self.pieces]

    def changed_in(self, piece: Piece) -> Iterable[Entry]:
        """The entries with changes that belong to a piece."""
        if len(self.pieces) == 1:
            return self.cache.changed
        return [entry for entry in self.cache.changed if entry.slot in piece.key_range]

    def _mergeable(self, left: Piece, right: Piece) -> bool:
        if left.key_range.hi != right.key_range.lo or left.grant != right.grant or left.key_range.hi in self.cuts:
            return False
        return left.progress == right.progress and not _behind_in_firing(*sorted((left, right), key=_watermark))


def _watermark(piece: Piece) -> int:
    return piece.watermarks.current


def _behind_in_firing(early: Piece, late: Piece) -> bool:
    """Whether the one still has to fire what it must not do at the watermark of the other.

    Both stand before the same record, but at one of them it moved the watermark already: an epoch was full while that
    piece fired what the record makes due.
    """
    return early.agendas.event.next_at <= _watermark(early) < _watermark(late)


def _part(piece: Piece, batch: Batch, slots: list[int], *, foreign: bool) -> Part:
    done = piece.progress[batch.source.topic]
    new = [row for row, offset in enumerate(batch.offsets) if offset >= done]
    own = [row for row in new if slots[row] in piece.key_range]
    others = [row for row in new if slots[row] not in piece.key_range] if foreign else []
    return Part(piece, select(batch, own), select(batch, others) if others else None)


def _join(left: Piece, right: Piece, maker: PieceMaker) -> None:
    """Make one piece of two neighbours at equal progress."""
    left.key_range = KeyRange(left.key_range.lo, right.key_range.hi)
    left.watermarks = maker.watermarks(joined(left.times, right.times))
    left.agendas.absorb(right.agendas)
    left.partials = left.partials.join(right.partials)
    left.clock_ms = max(left.clock_ms, right.clock_ms)
    left.touched = left.touched or right.touched or left.partials.pending
    left.sent = None
