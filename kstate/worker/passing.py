"""What time does without any record: processing-time timers, idle inputs, what a full epoch left over."""

from __future__ import annotations

from collections.abc import Collection

from kstate.plan import TopicPartition
from kstate.worker.edges import WorkerEdges
from kstate.worker.idle import IdleInputs
from kstate.worker.ownership import OwnedShard, Piece
from kstate.worker.process import Processor
from kstate.worker.tiles import Tiles


class Passing:
    """Looks at the clock on behalf of all tiles, in between two batches."""

    def __init__(self, tiles: Tiles, edges: WorkerEdges, idle_ms: int) -> None:
        self._tiles = tiles
        self._clock = edges.clock
        self._idle = IdleInputs(edges.clock, idle_ms, edges.log)

    def read_clock(self) -> None:
        """One reading of processing time per epoch; it never goes back, whatever the machine's clock does."""
        before = [piece.clock_ms for shard in self._tiles.shards.values() for piece in shard.pieces]
        clock_ms = max(self._clock.time_ms(), *before) if before else self._clock.time_ms()
        for processor in self._tiles.processors.values():
            processor.cursor.clock_ms = clock_ms

    def polled(self, delivered: Collection[TopicPartition]) -> None:
        """The inputs were polled, and these brought records."""
        self._idle.told(self._tiles.at_end(), delivered)

    def tick(self) -> bool:
        """Let time pass for every shard; whether anything came of it that a commit must record."""
        self._idle.told(self._tiles.at_end(), ())  # the reader may have been placed anew: then nothing is idle
        idle, done, now = self._idle.look(), False, self._clock.monotonic()
        for shard in self._tiles.shards.values():
            processor = self._tiles.processors[shard.shard.operator]
            for piece in shard.pieces:
                if piece.idle_at is None:  # what has passed before is in its marker, or was never seen by this process
                    piece.idle_at = now
            if processor.tracks_time and idle and not self._tiles.bounded:
                self._pass_idle(shard, processor, idle)
            if processor.tells_time:
                done = self._tell(shard) or done
            done = processor.tick(shard) or done
        return done

    def _tell(self, shard: OwnedShard) -> bool:
        """Where there is something to tell downstream that no record brought, an epoch does."""
        told = False
        for piece in shard.pieces:
            if not piece.touched and piece.has_news:
                piece.touched = told = True
        return told

    def _pass_idle(self, shard: OwnedShard, processor: Processor, idle: Collection[TopicPartition]) -> None:
        """Let the watermark go on where there is nothing to read.

        Not in a bounded run: its results must not depend on how long it takes.
        """
        sources = [TopicPartition(topic, shard.shard.partition) for topic in processor.external_topics]
        since = {source.topic: self._idle.since(source) for source in sources if source in idle}
        for piece in shard.pieces:
            piece.watermarks.set_idle(*since)
            if piece.watermarks.idle and len(since) == len(sources):  # seen so by this process, for all of them
                self._go_on(piece, max(since.values(), default=self._clock.monotonic()))

    def _go_on(self, piece: Piece, idle_since: float) -> None:
        """By the clock's rate, from where the watermark stood when the last input became idle."""
        now = self._clock.monotonic()
        start = max(now if piece.idle_at is None else piece.idle_at, idle_since)
        elapsed_ms = int((now - start) * 1000)
        piece.watermarks.advance_idle(elapsed_ms)
        piece.idle_at = start + elapsed_ms / 1000
