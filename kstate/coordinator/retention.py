"""History that is kept on purpose: how far back a backup log is needed so that earlier moments can be read.

A moment can be recalled (kstate.state.recall) as long as the log holds, for every slot, all from the base on that its
last marker before the moment names. So the oldest moment that is promised decides: its markers are looked for from the
place where the log stood then, backwards. Nothing is remembered but the last answer: a new leader finds the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from kstate.clock import Clock, Step, Steps
from kstate.errors import DataLossError, DecodeError, RetryableError
from kstate.interfaces import Batch, Log
from kstate.keyspace import FULL_RANGE
from kstate.plan import TopicPartition
from kstate.progress import SlotMap
from kstate.state.blocks import decode_frame
from kstate.state.markers import Marker

FIRST_LOOK_RECORDS = 64
"""Records read at once, doubled until markers for all slots are found: busy ranges have one in each epoch."""
POLL_RECORDS = 16
"""They hold up to 512 KiB each."""
POLL_S = 0.05
SILENCE_S = 5.0
HISTORY_READ = Step("history-read")


class Retention:
    """Finds the oldest offset that a promised history needs, partition by partition."""

    def __init__(self, log: Log, clock: Clock, history_ms: int) -> None:
        self._log = log
        self._clock = clock
        self._history_ms = history_ms
        self._known: dict[TopicPartition, tuple[int, int]] = {}
        """Where the log stood at the last oldest moment, and what that needs."""

    def needed(self, source: TopicPartition) -> Steps[int | None]:
        """The log start that the oldest promised moment needs, None when no history is. Raises RetryableError."""
        if not self._history_ms:
            return None
        oldest = self._log.offsets_at([source], self._clock.time_ms() - self._history_ms)[source]
        if (known := self._known.get(source)) is not None and known[0] == oldest:
            return known[1]
        start = self._log.start_offsets([source])[source]
        needed = yield from self._base_at(source, oldest, start)
        self._known[source] = oldest, needed
        return needed

    def _base_at(self, source: TopicPartition, moment: int, start: int) -> Steps[int]:
        """The least base of all slots as of a moment; the log start where a slot had none then, or none is left."""
        bases: SlotMap[int] = SlotMap()
        hi, count = moment, FIRST_LOOK_RECORDS
        while bases.gaps(FULL_RANGE):
            if hi <= start:
                return start
            lo = max(start, hi - count)
            markers = yield from self._markers(source, lo, hi)
            for marker in reversed(markers):
                for gap in bases.gaps(marker.key_range):
                    bases.assign(gap, marker.base)
            hi, count = lo, 2 * count
        return min(base for _, base in bases)

    def _markers(self, source: TopicPartition, lo: int, hi: int) -> Steps[list[Marker]]:
        """The visible ones between two offsets, in order; none when that was trimmed meanwhile."""
        found: list[Marker] = []
        reader, position = self._log.reader(), lo
        heard = self._clock.monotonic()
        try:
            reader.assign({source: lo})
            while position < hi:
                for batch in reader.poll(POLL_RECORDS, POLL_S):
                    found += _markers_before(batch, hi)
                    position, heard = batch.next_offset, self._clock.monotonic()
                yield HISTORY_READ
                if self._clock.monotonic() - heard > SILENCE_S:
                    raise RetryableError(f"{source} was not readable from {position} to {hi} within {SILENCE_S:g} s.")
        except DataLossError:
            return []
        finally:
            reader.close()
        return found


def _markers_before(batch: Batch, end: int) -> Iterator[Marker]:
    for offset, value in zip(batch.offsets, batch.values, strict=True):
        if offset >= end:
            return
        try:
            frame = decode_frame(value or b"")
        except DecodeError:
            continue  # whoever restores from here says what is wrong
        if isinstance(frame, Marker):
            yield frame
