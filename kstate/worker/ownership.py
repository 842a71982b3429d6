"""What this worker owns of a shard: pieces, each with one progress, and which records they admit (rule S8).

A *piece* is a key range with one chain of markers and one progress. Normally a tile is one piece; after splits and
merges pieces with unequal progress run side by side, each skipping what it has done already, and coalesce when they
are equal. Live progress runs ahead of the lineage by what the running epoch has read; a rollback makes them equal
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kstate.interfaces import Batch
from kstate.keyspace import FULL_RANGE, KeyRange, slot_of, slot_of_offset
from kstate.plan import Shard, Tile
from kstate.progress import SlotMap
from kstate.state.cache import Entry, StateCache
from kstate.state.lineage import Lineage
from kstate.state.replay import replay_pieces
from kstate.worker.decode import select
from kstate.worker.partial import NO_PARTIALS, Partials


@dataclass(slots=True)
class Piece:
    """A key range with one live progress; `touched`: the running epoch did something that a marker must record."""

    key_range: KeyRange
    grant: int
    progress: dict[str, int]
    watermark: dict[str, int] = field(default_factory=dict)
    touched: bool = False
    partials: Partials = NO_PARTIALS


class OwnedShard:
    """The part of one shard that this worker owns, its committed lineage and its cache."""

    def __init__(self, shard: Shard, operator_id: int, cache: StateCache, starts: Mapping[str, int]) -> None:
        self.shard = shard
        self.operator_id = operator_id
        self.cache = cache
        self.lineage: Lineage = SlotMap()
        self.tiles: dict[KeyRange, Tile] = {}
        self.pieces: list[Piece] = []
        self.starts = starts
        """Input topic → offset at which slots without a marker start."""

    def adopt(self, tile: Tile, lineage: Lineage) -> None:
        """Own a restored tile; its pieces start where its markers say."""
        self.tiles[tile.key_range] = tile
        for key_range, position in lineage.slice(tile.key_range):
            self.lineage.assign(key_range, position)
        self.pieces += self._committed_pieces(tile)

    def rollback(self) -> None:
        """Forget the running epoch: live progress is what was committed."""
        self.cache.discard()
        self.pieces = [piece for tile in self.tiles.values() for piece in self._committed_pieces(tile)]

    def settled(self, stored_bytes: int) -> None:
        """The running epoch is committed; its changed values have this size."""
        self.cache.settle(stored_bytes)
        for piece in self.pieces:
            piece.touched = False

    def _committed_pieces(self, tile: Tile) -> list[Piece]:
        return [
            Piece(piece.key_range, tile.grant, dict(piece.progress), dict(piece.times.inputs))
            for piece in replay_pieces(self.lineage, tile.key_range, self.starts)
        ]

    def positions(self) -> dict[str, int]:
        """Where the reader of each input topic must stand: the least progress of any piece."""
        return {topic: min(piece.progress[topic] for piece in self.pieces) for topic in self.starts}

    def coalesce(self) -> None:
        """Join neighbouring pieces of one tile that stand at equal progress."""
        joined: list[Piece] = []
        for piece in sorted(self.pieces, key=lambda p: p.key_range.lo):
            last = joined[-1] if joined else None
            if last and self._mergeable(last, piece):
                last.key_range = KeyRange(last.key_range.lo, piece.key_range.hi)
                last.touched = last.touched or piece.touched
            else:
                joined.append(piece)
        self.pieces = joined

    def admit(self, batch: Batch) -> Batch:
        """The rows of a batch that belong to a piece and were not done before; live progress moves to the batch's
        end.
        """
        topic = batch.source.topic
        rows = self._admitted(batch, topic)
        for piece in self.pieces:
            if piece.progress[topic] < batch.next_offset:
                piece.touched = piece.touched or len(batch) > 0
                piece.progress[topic] = batch.next_offset
        return batch if rows is None else select(batch, rows)

    def _admitted(self, batch: Batch, topic: str) -> list[int] | None:
        """Rows admitted, None for all of them."""
        if not len(batch):
            return None
        whole = len(self.pieces) == 1 and self.pieces[0].key_range == FULL_RANGE
        if whole and self.pieces[0].progress[topic] <= batch.offsets[0]:
            return None
        owned = SlotMap((piece.key_range, piece.progress[topic]) for piece in self.pieces)
        rows = []
        for row, (key, offset) in enumerate(zip(batch.keys, batch.offsets, strict=True)):
            done = owned.get(slot_of(key) if key is not None else slot_of_offset(offset))
            if done is not None and offset >= done:
                rows.append(row)
        return rows

    def changed_in(self, piece: Piece) -> Iterable[Entry]:
        """The entries with changes that belong to a piece."""
        if len(self.pieces) == 1:
            return self.cache.changed
        return [entry for entry in self.cache.changed if entry.slot in piece.key_range]

    def _mergeable(self, left: Piece, right: Piece) -> bool:
        if left.key_range.hi != right.key_range.lo or left.key_range.hi in {tile.lo for tile in self.tiles}:
            return False
        return left.progress == right.progress and left.watermark == right.watermark
