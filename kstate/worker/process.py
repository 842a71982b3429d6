"""Runs one operator over what its pieces have not done yet.

    part of a batch ──▶ decoded, rejects aside ──▶ entries of the keys (kstate.worker.admission)
                    ──▶ handlers (kstate.worker.handling), timers and windows (kstate.worker.firing)

Where the operator goes by event time, what a record makes due is done before its handler is called. An epoch that is
full by then ends there, and the rest of the batch is read again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kstate.api.operator import Operator
from kstate.api.specs import InputSpec, OperatorSpec
from kstate.clock import Step, Steps
from kstate.interfaces import Batch
from kstate.state.values import NEVER
from kstate.times import UNKNOWN_TIME
from kstate.worker.admission import Admission
from kstate.worker.decode import Decoded
from kstate.worker.firing import Firing
from kstate.worker.handles import Handles
from kstate.worker.handling import Call, Handling
from kstate.worker.ownership import OwnedShard, Part, Piece
from kstate.worker.rejects import Rejects
from kstate.worker.surroundings import Surroundings
from kstate.worker.watermark_line import Frames, WatermarkLine, line_of, still, without_frames

PROCESSED = Step("processed")

SWEEP = 1_000
"""Expired values removed at a time."""


def tracks_time(spec: OperatorSpec) -> bool:
    """Whether the watermark matters to the operator, or to one that reads what it emits."""
    return spec.timed or any(output.timed for output in spec.outputs)


@dataclass(frozen=True, slots=True)
class Machinery:
    """What a record goes through: admission, handlers, and what falls due on the way."""

    admission: Admission
    handling: Handling
    firing: Firing

    @property
    def rejects(self) -> Rejects:
        """The records that failed."""
        return self.admission.rejects


class Processor:
    """One operator in this worker: its instance, bound handles, decoders and failed records."""

    def __init__(
        self,
        spec: OperatorSpec,
        instance: Operator[Any],
        handles: Handles,
        calls: Mapping[str, Call],
        machinery: Machinery,
        around: Surroundings,
    ) -> None:
        """`instance` has its handles already; calls go by topic."""
        self.spec = spec
        self.instance = instance
        self.cursor = handles.cursor
        self.cursor.store = around.store
        self.outputs = handles.outputs
        self.windows = handles.windows
        self.rejects: Rejects = machinery.rejects
        self.tracks_time = tracks_time(spec)
        self.tells_time = any(output.timed for output in spec.outputs)
        self._handling = machinery.handling
        self._admission = machinery.admission
        self._firing = machinery.firing
        self._calls = calls
        self._around = around
        self.external_topics = [each.topic for each in spec.inputs if not each.internal and each.table is None]
        self._inputs = {each.topic: each for each in spec.inputs}

    def receive(self, batch: Batch) -> Batch:
        """The batch as it can be processed. RetryableError when that cannot be done now: read it again."""
        return self._admission.receive(batch)

    def process(self, shard: OwnedShard, batch: Batch) -> Steps[bool]:
        """Do what the shard's pieces have not done of one received batch of one input.

        False when the epoch was full before all of it was done: progress says how far, the rest is to be read again.
        """
        given, complete = self._inputs[batch.source.topic], True
        foreign = self.tracks_time and given.table is None
        for part in shard.parts(batch, foreign=foreign):
            piece, reached = part.piece, batch.next_offset
            if piece.progress[given.topic] >= reached:
                continue
            if len(part.own) or part.foreign is not None:
                stopped_at = self._part(shard, part, given)
                if stopped_at is not None:
                    reached, complete = stopped_at, False
            piece.touched = piece.touched or len(batch) > 0
            piece.progress[given.topic] = reached
        if len(batch):
            yield PROCESSED
        return complete

    def tick(self, shard: OwnedShard) -> bool:
        """Fire what is due without a record: by processing time, by idle inputs, or left over from a full epoch.

        Also forgets expired values, a few at a time. Whether anything was done.
        """
        done = False
        for piece in shard.pieces:
            watermark = piece.watermarks.current
            if piece.agendas.processing.next_at <= self.cursor.clock_ms:
                self._enter(shard, piece)
                self._firing.fire_due(shard, piece, "processing", self.cursor.clock_ms, watermark)
                piece.touched = done = True
            if piece.agendas.event.next_at <= watermark:
                self._enter(shard, piece)
                self._firing.fire_due(shard, piece, "event", watermark, watermark)
                piece.touched = done = True
            if piece.agendas.ttl.next_at <= watermark:
                self._enter(shard, piece)
                self._firing.sweep(shard, piece, watermark, SWEEP)
                piece.touched = done = True
        return done

    @property
    def careful(self) -> bool:
        """State values are checked after every call: the epoch is redone because one did not encode."""
        return self._handling.careful

    @careful.setter
    def careful(self, careful: bool) -> None:
        self._handling.careful = self._firing.careful = careful

    def collected_bytes(self) -> int:
        """Size of the outputs collected in the running epoch."""
        return sum(output.size_bytes for output in self.outputs.values())

    @property
    def late(self) -> int:
        """Records of the running epoch that came too late for their windows."""
        return sum(window.late for window in self.windows)

    def start_epoch(self) -> None:
        """Forget outputs and failed records: they are committed, or undone."""
        self.rejects.clear()
        self.cursor.journal.clear()
        for output in self.outputs.values():
            output.start_epoch()
        for window in self.windows:
            window.late = 0

    def _enter(self, shard: OwnedShard, piece: Piece, topic: str = "") -> None:
        """Put the cursor into a piece, which learns what time it is; records of this topic follow, or what is due."""
        self._around.in_hand.note(shard, piece, topic, self._begun)
        self.cursor.enter(shard, piece)
        piece.clock_ms = max(piece.clock_ms, self.cursor.clock_ms)

    def _begun(self) -> tuple[int, int]:
        """The offset of the last record that was begun, -1: none; and how many records and timers the epoch has had.

        Another thread may ask, to see whether they grow.
        """
        batch, row = self.cursor.batch, self.cursor.row
        return -1 if batch is None or row >= len(batch) else batch.offsets[row], self.rejects.handled

    def _part(self, shard: OwnedShard, part: Part, given: InputSpec) -> int | None:
        """One piece's part of a batch; the offset at which it stopped because the epoch is full, else None."""
        piece, admission = part.piece, self._admission
        self._enter(shard, piece, given.topic)
        own, frames = without_frames(part) if given.internal else (part.own, [])
        decoded = admission.decoded(given, own, self.cursor.clock_ms)
        line = None
        if self.tracks_time and not given.internal and given.table is None:
            others = [] if part.foreign is None else admission.times(given, part.foreign, self.cursor.clock_ms)
            line = line_of(piece, decoded, others)
        times = decoded.event_times
        decoded, entries = admission.entered(shard, given, decoded)
        if not self.tracks_time or given.table is not None:
            self._handling.start(decoded, entries, still(piece, len(decoded.records)) if self.tracks_time else None)
            self._handling.all(self._calls[given.topic])
            if not given.internal and given.table is None:
                piece.watermarks.take(given.topic, admission.counting(given, times, self.cursor.clock_ms))
            return None
        watermarks = still(piece, len(decoded.records)) if line is None else line.at(decoded)
        self._handling.start(decoded, entries, watermarks)
        if line is None:
            return self._stream(shard, piece, given, decoded, frames)
        return self._external(shard, piece, given, decoded, line)

    def _external(
        self, shard: OwnedShard, piece: Piece, given: InputSpec, decoded: Decoded, line: WatermarkLine
    ) -> int | None:
        """Handle records of a user's topic, each after what it makes due."""
        call, agenda, offsets = self._calls[given.topic], piece.agendas.event, decoded.batch.offsets
        if self._is_due(piece) and not self._fire(shard, piece, piece.watermarks.current):
            return piece.progress[given.topic]  # left over from a full epoch, and so is the rest of it
        row, rows = 0, len(decoded.records)
        while True:
            row = self._handling.until_due(call, row, rows, agenda)
            at = line.reaching(agenda.next_at)
            if at == len(line.offsets):
                piece.watermarks.take(given.topic, line.times)
                return None
            watermark = max(line.watermarks[at], line.watermark_after(offsets[row - 1]) if row else UNKNOWN_TIME)
            if not self._fire(shard, piece, watermark):
                # What was fired is gone from the state, and the rest must see the same watermark: the record that made
                # it due has moved it for good, though it is met again.
                stopped_at = max(line.offsets[at], offsets[row - 1] + 1 if row else 0)
                piece.watermarks.take(given.topic, line.times_before(max(stopped_at, line.offsets[at] + 1)))
                return stopped_at

    def _stream(
        self, shard: OwnedShard, piece: Piece, given: InputSpec, decoded: Decoded, frames: Frames
    ) -> int | None:
        """Handle records of an internal stream; only frames move the watermark."""
        call, agenda, offsets = self._calls[given.topic], piece.agendas.event, decoded.batch.offsets
        row = 0
        for at, frame in [*frames, (NEVER, None)]:
            stop = bisect_left(offsets, at, row)
            while (row := self._handling.until_due(call, row, stop, agenda)) < stop or self._is_due(piece):
                if not self._fire(shard, piece, piece.watermarks.current):
                    return offsets[row - 1] + 1 if row else piece.progress[given.topic]
            if frame is not None:
                piece.watermarks.frame(given.topic, frame)
                if self._is_due(piece) and not self._fire(shard, piece, piece.watermarks.current):
                    return at  # the frame is met again: taking it twice changes nothing
                self._handling.watermark_from(row, piece.watermarks.current)
        return None

    def _is_due(self, piece: Piece) -> bool:
        return piece.agendas.event.next_at <= piece.watermarks.current

    def _fire(self, shard: OwnedShard, piece: Piece, watermark: int) -> bool:
        """Fire what is due by event time; False when the epoch is full before all is done."""
        done = self._firing.fire_due(shard, piece, "event", watermark, watermark)
        self._handling.resume()
        return done
