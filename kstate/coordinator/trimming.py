"""Trimming: what lies before the newest base of every tile of a backup log is not needed any more.

DESIGN, section 3; rules S5 and S8. Reports only say *where* the newest markers stand. What counts is what the leader
reads there itself, as a read_committed reader: a report may speak of a base that no visible marker has (story P9), and
of a tile that nobody owns no report speaks, so nothing before its base is trimmed.

An older marker than the newest does no harm: a base never goes back but where ranges are joined, and then to one that
was not trimmed. The same holds for the progress of markers on internal streams, whose records nobody reads again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kstate.clock import Clock, Step, Steps
from kstate.config import RebaseSettings
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.evidence import Evidence
from kstate.coordinator.retention import Retention
from kstate.errors import DataLossError, DecodeError, KstateError, RetryableError
from kstate.interfaces import Log, Reader
from kstate.keyspace import KeyRange
from kstate.messages import TileReport
from kstate.plan import Plan, Shard, Tile, TopicPartition, backup_topic
from kstate.progress import SlotMap
from kstate.state.blocks import decode_frame
from kstate.state.markers import Marker

READ_S = 2.0
"""How long one record of a backup log may take to come."""
POLL_S = 0.05
TRIMMED = Step("trimmed")
MARKER_READ = Step("marker-read")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker says of a range that it runs: where its newest marker stands, and the base in it."""

    key_range: KeyRange
    marked_at: int
    """Offset of the marker in the backup partition."""
    base: int
    progress: Mapping[str, int]


def claims(plan: Plan, evidence: Evidence) -> dict[Shard, list[Claim]]:
    """The shards of which every slot is claimed by the worker that the plan gives it to.

    Not those of an operator that the job has dropped, which workers of an older build may still run.
    """
    found: dict[Shard, list[Claim]] = {}
    whole: dict[Shard, bool] = {}
    for tile in plan.tiles:
        cover: SlotMap[int] = SlotMap()
        for report in _reports(tile, evidence):
            if report.marked_at is not None and (part := report.key_range.overlap(tile.key_range)):
                cover.assign(part, 1)
                claim = Claim(part, report.marked_at, report.base, report.progress)
                found.setdefault(tile.shard, []).append(claim)
        whole[tile.shard] = whole.get(tile.shard, True) and not cover.gaps(tile.key_range)
    known = plan.registry.operators
    return {shard: told for shard, told in found.items() if whole[shard] and shard.operator in known}


def _reports(tile: Tile, evidence: Evidence) -> list[TileReport]:
    return [] if tile.worker is None else evidence.running(tile.worker, tile.shard)


@dataclass(frozen=True, slots=True)
class Needed:
    """The least that all ranges of a shard still need: of its backup partition, and of its inputs by topic."""

    base: int
    progress: Mapping[str, int]


def needed(told: Sequence[Claim]) -> Needed:
    """By at least one claim."""
    topics = sorted({topic for claim in told for topic in claim.progress})
    progress = {topic: min(claim.progress.get(topic, 0) for claim in told) for topic in topics}
    return Needed(min(claim.base for claim in told), progress)


class MarkerReader:
    """Reads single markers of backup logs, over one client."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._reader: Reader | None = None

    def read(self, source: TopicPartition, offset: int) -> Steps[Marker | None]:
        """The visible marker at an offset; None when there is none. RetryableError when nobody answers in time."""
        self._reader = self._reader or self._log.reader()
        until = self._clock.monotonic() + READ_S
        try:
            self._reader.assign({source: offset})
            while self._clock.monotonic() < until:
                for batch in self._reader.poll(1, POLL_S):
                    if len(batch):
                        return _marker(batch.values[0]) if batch.offsets[0] == offset else None
                    if batch.next_offset > offset:
                        return None
                if source in self._reader.at_end():  # an open transaction holds down what is visible
                    return None
                yield MARKER_READ
        except DataLossError:
            return None  # it was trimmed already
        except KstateError:
            self.close()
            raise
        raise RetryableError(f"The marker at offset {offset} of {source} did not come within {READ_S:g} s.")

    def close(self) -> None:
        """The next read makes a new client."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class Trimmer:
    """Looks every now and then what can be trimmed, and does it, one shard at a time."""

    def __init__(self, edges: LeaderEdges, app: str, settings: RebaseSettings) -> None:
        self._edges = edges
        self._app = app
        self._every_s = settings.trim_every_ms / 1000
        self._retention = Retention(edges.log, edges.clock, settings.history_ms)
        self._looked_at = edges.clock.monotonic()
        self._due: list[tuple[Shard, list[Claim]]] = []
        self._markers = MarkerReader(edges.log, edges.clock)
        self._starts: dict[TopicPartition, int] = {}
        """How far each partition was trimmed."""

    def close(self) -> None:
        """Nothing is to be trimmed any more."""
        self._markers.close()

    def tick(self, plan: Plan | None, evidence: Evidence) -> Steps[None]:
        """A shard's turn, if there is one; what fails is tried again in the next round. Raises RetryableError.

        A job that may not delete records runs on: its logs grow, which is said once a round.
        """
        now = self._edges.clock.monotonic()
        if plan is None or plan.bounded:
            return
        if not self._due and now - self._looked_at >= self._every_s:
            self._looked_at = now
            claimed = claims(plan, evidence).items()
            self._due = [(shard, told) for shard, told in claimed if self._gains(plan, shard, told)]
        if self._due:
            shard, told = self._due.pop()
            try:
                yield from self._trim(plan, shard, told)
            except RetryableError:
                raise
            except KstateError as error:  # logs that grow are no reason to have no leader
                self._due.clear()
                self._edges.logger.warning("not-trimmed", shard=str(shard), reason=str(error))

    def _gains(self, plan: Plan, shard: Shard, told: Sequence[Claim]) -> bool:
        """Whether anything can be trimmed if the markers say what their writers do."""
        bounds = self._bounds(plan, shard, needed(told))
        return any(offset > self._starts.get(place, 0) for place, offset in bounds.items())

    def _trim(self, plan: Plan, shard: Shard, told: Sequence[Claim]) -> Steps[None]:
        operator_id = plan.registry.operators[shard.operator]
        source = TopicPartition(backup_topic(self._app, shard.operator), shard.partition)
        seen: list[Claim] = []
        for claim in told:
            marker = yield from self._markers.read(source, claim.marked_at)
            if marker is None or marker.operator_id != operator_id or not marker.key_range.covers(claim.key_range):
                return  # trimmed, aborted, or not what was said: the next reports say it anew
            seen.append(replace(claim, base=marker.base, progress=marker.progress))
        bounds = self._bounds(plan, shard, needed(seen))
        if (kept := (yield from self._retention.needed(source))) is not None:
            bounds[source] = min(bounds[source], kept)
        before = {place: offset for place, offset in bounds.items() if offset > self._starts.get(place, 0)}
        if before:
            self._edges.log.delete_records(before)
            self._starts |= before
            for place, offset in before.items():
                self._edges.logger.debug("trimmed", partition=str(place), before=offset)
            yield TRIMMED

    def _bounds(self, plan: Plan, shard: Shard, least: Needed) -> dict[TopicPartition, int]:
        """Partition → offset before which nothing is needed. A stream that somebody else reads too is left alone."""
        backup = TopicPartition(backup_topic(self._app, shard.operator), shard.partition)
        readers = {topic: {uid for uid, each, _ in plan.starts if each == topic} for topic in plan.registry.streams}
        own = {t: at for t, at in least.progress.items() if readers.get(t) == {shard.operator}}
        if _reads_unknown(plan):
            own = {}
        return {backup: least.base} | {TopicPartition(topic, shard.partition): at for topic, at in own.items()}


def _reads_unknown(plan: Plan) -> bool:
    """Whether workers of an older build still run an operator that the job has dropped: what it reads is not known."""
    return any(tile.shard.operator not in plan.registry.operators for tile in plan.tiles)


def _marker(value: bytes | None) -> Marker | None:
    try:
        frame = decode_frame(value or b"")
    except DecodeError:
        return None
    return frame if isinstance(frame, Marker) else None
