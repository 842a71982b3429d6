"""What workers say of their pieces: the newest heartbeat of each, asked in the words that decisions are made of.

Reports are level-triggered, so a leader that has just begun knows within one heartbeat what the last one knew. They say
too little at worst, never too much: a worker that ran a range under a grant has proved that nobody else does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kstate.keyspace import KeyRange
from kstate.messages import Fatality, Heartbeat, TilePhase, TileReport
from kstate.plan import Move, Shard
from kstate.progress import Progress, SlotMap


@dataclass(frozen=True, slots=True)
class Evidence:
    """The newest heartbeat by incarnation, of those that are not forgotten."""

    beats: Mapping[str, Heartbeat] = field(default_factory=dict)

    def runs(self, worker: str, shard: Shard, key_range: KeyRange, grant: int | None = None) -> bool:
        """Whether a worker runs all slots of a range, under this grant where one is named."""
        return self._all_slots(worker, shard, key_range, grant, (TilePhase.RUNNING,))

    def is_warm(self, worker: str, shard: Shard, key_range: KeyRange, grant: int | None = None) -> bool:
        """Whether its copy of all slots of a range stands within an epoch of the end of the backup log."""
        return self._all_slots(worker, shard, key_range, grant, (TilePhase.WARM,))

    def has_copy(self, worker: str, shard: Shard, key_range: KeyRange) -> bool:
        """Whether it has a copy of all slots of a range, be it behind."""
        return self._all_slots(worker, shard, key_range, None, (TilePhase.WARM, TilePhase.WARMING))

    def records_apart(self, move: Move) -> int:
        """How far the source stands from what the target runs of the shard, over all inputs; 0 if not known."""
        source, target = (self.running(worker, move.shard) for worker in (move.source, move.target))
        pairs = [(a, b) for a in source if a.key_range.overlap(move.key_range) for b in target]
        return max((_distance(a.progress, b.progress) for a, b in pairs), default=0)

    def fatalities(self, shard: Shard, key_range: KeyRange) -> list[Fatality]:
        """Where processes died with a range in hand, one for each place, their deaths added up over all workers."""
        newest: dict[tuple[str, str, int], Fatality] = {}
        for name, fatality in self._told(shard, key_range):
            place = name, fatality.topic, fatality.offset
            if place not in newest or fatality.deaths > newest[place].deaths:
                newest[place] = fatality
        places: dict[tuple[str, int], list[Fatality]] = {}
        for (_, topic, offset), fatality in newest.items():
            places.setdefault((topic, offset), []).append(fatality)
        return [
            Fatality(shard, told[0].key_range, topic, offset, sum(f.deaths for f in told))
            for (topic, offset), told in sorted(places.items())
        ]

    def _told(self, shard: Shard, key_range: KeyRange) -> Iterator[tuple[str, Fatality]]:
        for beat in self.beats.values():
            for fatality in beat.fatalities:
                if fatality.shard == shard and fatality.key_range.overlap(key_range):
                    yield beat.name, fatality

    def _all_slots(
        self, worker: str, shard: Shard, key_range: KeyRange, grant: int | None, phases: tuple[TilePhase, ...]
    ) -> bool:
        cover = SlotMap[int]()
        for report in self._reports(worker):
            fits = report.shard == shard and report.phase in phases and grant in {None, report.grant}
            if fits and (part := report.key_range.overlap(key_range)):
                cover.assign(part, 1)
        return not cover.gaps(key_range)

    def running(self, worker: str, shard: Shard) -> list[TileReport]:
        """What a worker says of its pieces of a shard."""
        return [r for r in self._reports(worker) if r.shard == shard and r.phase is TilePhase.RUNNING]

    def _reports(self, worker: str) -> tuple[TileReport, ...]:
        beat = self.beats.get(worker)
        return () if beat is None else beat.tiles


def _distance(one: Progress, other: Progress) -> int:
    return sum(abs(one[topic] - other[topic]) for topic in one.keys() & other.keys())
