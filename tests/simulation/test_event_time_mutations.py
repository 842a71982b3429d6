"""The properties of event time notice when one of the rules behind them is broken.

Each rule is patched out alone; within a few seeds a key must be answered something else. An exception does not count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from kstate import Operator
from kstate.state.agenda import Agenda
from kstate.worker import ownership
from kstate.worker.handles import Cursor
from kstate.worker.handling import Call, Handling
from kstate.worker.ownership import OwnedShard
from kstate.worker.process import Processor
from kstate.worker.watermark_line import WatermarkLine
from kstate.worker.watermarks import Told, Watermarks
from tests.support.event_bench import Bench, Treatment
from tests.support.event_jobs import Everything, Latest, LatestInBatches, some_events
from tests.support.event_model import Model
from tests.support.event_totals import totals_fault

SEEDS = range(12)
CUT = (0x8000, 0xC000)
"""Three key ranges."""

pytestmark = pytest.mark.simulation


def watermark_per_batch(patch: pytest.MonkeyPatch) -> None:
    """Every record of a batch sees what the last one makes of the watermark."""
    over = Watermarks.over

    def all_alike(self: Watermarks, topic: str, event_times: Sequence[int]) -> list[int]:
        watermarks = over(self, topic, event_times)
        return watermarks[-1:] * len(watermarks)

    patch.setattr(Watermarks, "over", all_alike)


def foreign_records_do_not_count(patch: pytest.MonkeyPatch) -> None:
    """A part of a split shard goes by its own records only."""
    parts = OwnedShard.parts
    patch.setattr(OwnedShard, "parts", lambda self, batch, foreign: parts(self, batch, foreign=False))


def firing_after_the_handler(patch: pytest.MonkeyPatch) -> None:
    """A record is handled first, and then what it made due."""
    keyed = Handling._keyed_until_due

    class Nothing:
        next_at = 1 << 62

    def one_too_far(self: Handling, call: Call, start: int, stop: int, agenda: Agenda) -> int:
        watermarks: Any = self._watermarks
        for row in range(start, stop):
            keyed(self, call, row, row + 1, Nothing())  # type: ignore[arg-type]
            if agenda.next_at <= watermarks[row]:
                return row + 1
        return stop

    patch.setattr(Handling, "_keyed_until_due", one_too_far)


def progress_not_cut(patch: pytest.MonkeyPatch) -> None:
    """When firing stops early the whole batch counts as done."""
    external = Processor._external

    def to_the_end(self: Processor, *rest: Any) -> int | None:
        stopped_at = external(self, *rest)
        return None if stopped_at is None else rest[-1].offsets[-1] + 1

    patch.setattr(Processor, "_external", to_the_end)


def progress_cut_behind_the_record(patch: pytest.MonkeyPatch) -> None:
    """When firing stops early, the record that made it due is not met again."""
    external = Processor._external

    def one_further(self: Processor, *rest: Any) -> int | None:
        stopped_at = external(self, *rest)
        return None if stopped_at is None else stopped_at + 1

    patch.setattr(Processor, "_external", one_further)


def rest_fires_at_another_watermark(patch: pytest.MonkeyPatch) -> None:
    """When firing stops early, the record that made it due does not move the watermark yet."""

    def without_the_last(self: WatermarkLine, offset: int) -> Sequence[int]:
        return self.times[: max(0, bisect_left(self.offsets, offset) - 1)]

    patch.setattr(WatermarkLine, "times_before", without_the_last)


def pieces_join_amid_firing(patch: pytest.MonkeyPatch) -> None:
    """Two pieces before the same record become one, though one of them still fires at an earlier watermark."""
    patch.setattr(ownership, "_behind_in_firing", lambda early, late: False)


def visible_after_expiry(patch: pytest.MonkeyPatch) -> None:
    """A value with ttl is there until it is swept."""
    patch.setattr(Cursor, "visible", lambda self, at, row=None: True)


def batch_goes_by_its_last_record(patch: pytest.MonkeyPatch) -> None:
    """Values with ttl in a batch go by whatever stands last in it."""

    def last(self: Cursor, last: bool) -> Mapping[Any, int]:
        return dict.fromkeys(self.batch_keys, self.row)

    patch.setattr(Cursor, "batch_rows", last)


def frames_tell_what_was_not_fired(patch: pytest.MonkeyPatch) -> None:
    """A watermark frame says more than what has been emitted, where an epoch was full amid due windows."""
    patch.setattr(Watermarks, "tells", lambda self, due=0: Told(self.current, self.idle))


@dataclass(frozen=True, slots=True)
class Mutation:
    """A broken rule, and the treatment under which it shows."""

    breaks: Callable[[pytest.MonkeyPatch], None]
    treatment: Treatment
    operator: type[Operator[Any]] = Everything

    def __str__(self) -> str:
        return self.breaks.__name__.replace("_", " ")


FULL = Treatment(batch_max=5, commit=0.3, full=0.5, chunk=1)
MUTATIONS = (
    Mutation(watermark_per_batch, Treatment(batch_max=10, commit=0.3)),
    Mutation(foreign_records_do_not_count, Treatment(batch_max=10, commit=0.3, cuts=CUT)),
    Mutation(firing_after_the_handler, Treatment(batch_max=10, commit=0.3)),
    Mutation(progress_not_cut, FULL),
    Mutation(progress_cut_behind_the_record, FULL),
    Mutation(rest_fires_at_another_watermark, FULL),
    Mutation(pieces_join_amid_firing, Treatment(batch_max=5, commit=0.3, full=0.5, chunk=1, cuts=CUT, recut=0.1)),
    Mutation(visible_after_expiry, Treatment(batch_max=10, commit=0.3)),
    Mutation(batch_goes_by_its_last_record, Treatment(batch_max=10, commit=0.3, distinct_keys=True), LatestInBatches),
)


def alike(mutation: Mutation, seed: int) -> bool:
    """Whether all keys are answered as the model answers them."""
    rng = Random(seed)
    given = some_events(rng, 60)
    reference = Latest if mutation.operator is LatestInBatches else mutation.operator
    bench = Bench(mutation.operator, given, mutation.treatment, rng, checked=False)
    return Model(reference).run(given).by_key() == bench.run().by_key()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_broken_rule_shows_in_the_answers(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a few seeds."""
    mutation.breaks(monkeypatch)
    assert not all(alike(mutation, seed) for seed in SEEDS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_with_the_rule_the_same_runs_answer_alike(mutation: Mutation) -> None:
    """Otherwise the treatment, not the broken rule, would make the difference."""
    assert [seed for seed in SEEDS[:3] if not alike(mutation, seed)] == []


def test_a_frame_that_tells_too_much_shows_in_windows_over_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records come too late for the second stage."""
    frames_tell_what_was_not_fired(monkeypatch)
    assert any(totals_fault(seed)[0] for seed in SEEDS)
