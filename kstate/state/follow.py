"""Follow a backup log: a local copy of a key range that is brought forward, kept there, and taken over from.

    tail                          adopt
    bring forward, as a restore   H, then read to H
    at the end: write what came,  and on until the range is released: as a tail
    wait, look again              prove, write: the lineage from which the range runs

A restore is a follower that adopts at once (kstate.state.restore tells what a crash may leave, and why). The target of
a move and a standby tail first; they adopt with the same open reader, the same proof and the same run of changes, so
that only what was written since the last look is left to read.

Between two steps everything is consistent: a generator may be closed at any of them, and another one of the same
follower goes on. Whatever raises gives reader, proof and run up: the next generator begins with what the store says.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from kstate.clock import Clock, Step, Steps
from kstate.config import MIB, Settings
from kstate.errors import DataLossError
from kstate.interfaces import Log, Reader, Store
from kstate.plan import TopicPartition
from kstate.state.backup import BackupReader
from kstate.state.freshness import fresh_end
from kstate.state.lineage import Lineage
from kstate.state.local_copy import LocalCopy, RestoreTarget
from kstate.state.origin import AWAIT_RECORDS, drop_foreign

T = TypeVar("T")

DROPPED = Step("dropped")
READ = Step("restore-read")
INGESTED = Step("ingested")
SPILLED = Step("spilled")
FOLLOWED = Step("followed")
AWAIT_NEWS = Step("await-news", wait=0.02)
AWAIT_RELEASE = Step("await-release", wait=0.01)
RESTORED = Step("restored")

POLL_RECORDS = 16
"""Records hold up to 512 KiB each: at most 8 MiB at once."""
_NO_END = 1 << 64
_LOOK_POLLS = 32
_LOOK_BYTES = 4 * MIB
"""A look ends at whichever comes first, after some 0.1 s."""
_GENTLE_LOOK_S = 0.015
_GENTLE_POLL_RECORDS = 4
_GENTLE_RUN_BYTES = 4 * MIB
"""Where other key ranges run between the steps: some 20,000 small values, written in 30 ms."""
_LARGE = 2
"""Runs of that many times the size are written before their marker is whole."""
RUN_FRACTION = 4
"""A sorted run in memory is at most this fraction of `state.store_bytes`."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reading:
    """How far the log was read: all before `position` is in the proof; what is proven is in the run or in the store."""

    proof: BackupReader
    position: int
    reader: Reader | None = None
    news: bool = False
    """Markers were proven that the store does not know of yet."""
    due: deque[Iterator[None]] = field(default_factory=deque)
    """Proven markers that are not, or not wholly, in the run yet."""


class Follower:
    """A copy of one key range in the local store that is brought forward along its backup log.

    Run one generator at a time. Slots outside the target are not touched; they may be running in the same store.
    """

    def __init__(
        self,
        log: Log,
        store: Store,
        target: RestoreTarget,
        clock: Clock,
        settings: Settings,
        report: Callable[[str], None] = _logger.warning,
    ) -> None:
        self.target = target
        self.caught_up = False
        """The last look came to the log's last stable end, as far as the reader knows it."""
        self.gentle = False
        """Other key ranges run between its steps: none of them may take long, though the whole takes longer."""
        self.make_reader: Callable[[], Reader] = log.reader
        """Where its reader comes from: followers may share a client."""
        self._log = log
        self._clock = clock
        self._stuck_ms = settings.failure.stuck_log_ms
        self._report = report
        run_bytes = settings.state.store_bytes // RUN_FRACTION
        self._gentle_bytes = min(_GENTLE_RUN_BYTES, run_bytes)
        self._copy = LocalCopy(store, target, run_bytes)
        self._reading: _Reading | None = None
        self._log_start = 0
        self._known_end = 0

    @property
    def behind(self) -> int:
        """Records of the log still to read, as far as it knows."""
        return 0 if self.caught_up or self._reading is None else max(0, self._known_end - self._reading.position)

    def tail(self) -> Steps[None]:
        """Bring the copy forward, then follow the log's last stable end; never returns.

        At the end of the log every look's proven markers are written at once, with the lineage entry that they make
        true. Raises as `adopt` does.
        """
        return self._guarded(self._tail)

    def adopt(self, ready: Callable[[Lineage], bool] = lambda _: True) -> Steps[Lineage]:
        """Take H, read to it and on until the range is `ready` (rules S1, S6); the lineage from which it runs.

        A gap in the result is a slot that no marker covers: its state is empty and its inputs start where the plan
        says. Raises BackupLogError (rule S5), CorruptStateError, DataLossError (the log lost what was committed), and
        RetryableError: then it may start over.
        """
        return self._guarded(lambda: self._adopt(ready))

    def close(self) -> None:
        """Give the reader up; what is in the store stays valid, and a new generator goes on from there."""
        reading, self._reading = self._reading, None
        self._copy.forget_run()
        self.caught_up = False
        if reading is not None and reading.reader is not None:
            reading.reader.close()

    def _guarded(self, make: Callable[[], Steps[T]]) -> Steps[T]:
        """Steps that start over with what the store says when the log was trimmed behind their back."""
        while True:
            try:
                return (yield from make())
            except DataLossError:
                # Whoever falls below the log start starts over, never goes on with a gap.
                self.close()
                if self._start_offset() == self._log_start:
                    raise
            except Exception:
                self.close()
                raise

    def _tail(self) -> Steps[None]:
        reading = self._reading
        if reading is None:
            reading = yield from self._begin(self._log.end_offsets([self._source], committed=False)[self._source])
        while True:
            step = self._look(reading)
            if self.caught_up:
                step = self._keep(reading, step)
            yield AWAIT_NEWS if self.caught_up and step.wait else step

    def _adopt(self, ready: Callable[[Lineage], bool]) -> Steps[Lineage]:
        end = yield from fresh_end(self._log, self._source, self._clock, self._stuck_ms, self._report)
        reading = self._reading or (yield from self._begin(end))
        while reading.position < end or reading.due:
            yield self._look(reading, end)
        while reading.due or not (
            ready(reading.proof.lineage) and (reading.proof.whole or self._stands_at_end(reading))
        ):
            step = self._keep(reading, self._look(reading))
            yield AWAIT_RELEASE if step.wait else step
        lineage = reading.proof.finish()
        self._copy.write(lineage)
        self.close()
        yield RESTORED
        return lineage

    def _begin(self, end: int) -> Steps[_Reading]:
        """Drop what is of no use; where to read on from what is left."""
        target, copy = self.target, self._copy
        self._log_start, self._known_end = self._start_offset(), end
        kept = copy.usable(self._log_start, end, self._report)
        yield from drop_foreign(self._log, self._source, kept, self._report)
        if copy.drop_all_but(kept):
            yield DROPPED
        missing = kept.gaps(target.key_range)
        start = self._log_start if missing else min(position.offset for position in kept.values())
        proof = BackupReader(self._source, target.operator_id, target.key_range, kept, self._log_start)
        self._reading = _Reading(proof, start)
        return self._reading

    def _look(self, reading: _Reading, end: int = _NO_END) -> Step:
        """Collect what is there, up to an end or for one step; a full run goes into the store."""
        before = reading.position
        dry = self._read(reading, end)
        self._note_end(reading, dry=dry)
        if self.gentle and self._copy.collected_bytes >= self._gentle_bytes:
            return self._make_room(reading)
        if reading.due:
            return READ
        if self._copy.full:
            self._copy.ingest(reading.proof.proven())
            reading.news = False
            return INGESTED
        return READ if reading.position > before else AWAIT_RECORDS

    def _read(self, reading: _Reading, end: int) -> bool:
        """Prove and collect one step's worth; whether all that is there was read."""
        if reading.reader is None:
            reading.reader = self.make_reader()
            reading.reader.assign({self._source: reading.position})
        enough = self._copy.collected_bytes + _LOOK_BYTES
        until = self._clock.monotonic() + _GENTLE_LOOK_S
        if not self._collect(reading, until):
            return False
        for _ in range(_LOOK_POLLS):
            if self._is_over(until):
                break
            batches = reading.reader.poll(_GENTLE_POLL_RECORDS if self.gentle else POLL_RECORDS, 0.0)
            for batch in batches:
                reading.due.extend(map(self._copy.collecting, reading.proof.feed(batch)))
                reading.position = batch.next_offset
            if not batches:
                return True
            if not self._collect(reading, until):
                break
            if self._copy.full or self._copy.collected_bytes >= enough or reading.position >= end:
                break
        return False

    def _collect(self, reading: _Reading, until: float) -> bool:
        """Add what was proven to the run; False when the step is over before all of it is there.

        Where one may be gentle, a run is written between two markers; only one that is very large is cut short.
        """
        while reading.due:
            for _ in reading.due[0]:
                if self._is_large() or self._is_late(until):
                    return False
            reading.due.popleft()
            reading.news = True
            if reading.due and self._is_late(until):
                return False
        return True

    def _is_over(self, until: float) -> bool:
        """Whether others are to have their turn before more is read."""
        return self._is_late(until) or (self.gentle and self._copy.collected_bytes >= self._gentle_bytes)

    def _is_late(self, until: float) -> bool:
        return self.gentle and self._clock.monotonic() >= until

    def _is_large(self) -> bool:
        return self.gentle and self._copy.collected_bytes >= _LARGE * self._gentle_bytes

    def _make_room(self, reading: _Reading) -> Step:
        """Write the run; in the middle of a marker only if that is very large."""
        if not reading.due:
            return self._keep(reading, FOLLOWED)
        if not (self._is_large() and self._copy.may_spill):
            return READ
        self._copy.spill()
        return SPILLED

    def _note_end(self, reading: _Reading, *, dry: bool) -> None:
        """Whether the end is reached.

        The reader learns of an end some time after the records before it: a look that found all there was read leaves
        a follower caught up that was so before.
        """
        assert reading.reader is not None
        if reading.due:
            self.caught_up = False
            return
        at_end = reading.reader.at_end().get(self._source)
        self.caught_up = at_end is not None or (self.caught_up and dry)
        if not self.caught_up and not dry and reading.position >= self._known_end:
            self._known_end = self._log.end_offsets([self._source], committed=True)[self._source]

    def _stands_at_end(self, reading: _Reading) -> bool:
        """At the last stable offset, where blocks and their marker are there together; a look may end between them."""
        return reading.reader is not None and reading.reader.at_end().get(self._source) == reading.position

    def _keep(self, reading: _Reading, step: Step) -> Step:
        """Write what a look brought, together with the lineage entry that it makes true."""
        if reading.due or not reading.news:
            return step
        self._copy.write(reading.proof.proven())
        reading.news = False
        return FOLLOWED

    @property
    def _source(self) -> TopicPartition:
        return self.target.source

    def _start_offset(self) -> int:
        return self._log.start_offsets([self._source])[self._source]
