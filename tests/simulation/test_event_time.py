"""The contract of event time: what a key is answered is a function of the input, whatever happens to those who answer.

With one external input each key is answered exactly what the plain reference implementation says (tests.support.
event_model), in its order: however batches, epochs and key ranges are cut, whoever crashes. With several inputs, and
after a re-key, the order is open, but windows have the same totals, and nothing is late that is not later than the
lateness. Failures print their seed; KSTATE_EVENT_SEEDS=500 tries more of them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from kstate import UNKNOWN_TIME, Job
from kstate.config import EpochSettings
from kstate.plan import TopicPartition
from tests.support.event_bench import PLAIN, Bench, Treatment, some_treatment
from tests.support.event_cluster import CODECS, Circumstances, Message, Run, some_circumstances
from tests.support.event_jobs import (
    BURST,
    KEYS,
    LATENESS_MS,
    Event,
    Everything,
    Given,
    Heard,
    Latest,
    LatestInBatches,
    some_events,
)
from tests.support.event_model import Model, Outcome, rows
from tests.support.event_totals import PARTITIONS, placed, totals_fault

SEEDS = range(int(os.environ.get("KSTATE_EVENT_SEEDS", "24")))
JOB = Job("everything", [Everything], epoch=timedelta(milliseconds=20), idle=timedelta(hours=5))
"""Nothing is idle in these runs: that would move watermarks by the clock."""

pytestmark = pytest.mark.simulation


def difference(wanted: Outcome, got: Outcome) -> str | None:
    """The first answer of a key that is another one, None when all are alike."""
    want, have = wanted.by_key(), got.by_key()
    for key in sorted({*want, *have}):
        pairs = zip([*want.get(key, []), None], [*have.get(key, []), None], strict=False)
        for number, (a, b) in enumerate(pairs):
            if a != b:
                return f"answer {number} of {key!r}:\nexpected {a}\ngot      {b}"
    if Counter(wanted.letters) != Counter(got.letters):
        return f"dead letters: expected {wanted.letters}, got {got.letters}"
    return None


# -- one input: below the log


@pytest.mark.parametrize("seed", range(8))
def test_the_plainest_run_answers_as_the_model_does(seed: int) -> None:
    """One piece, record by record, one epoch: states, watermarks, order, dead letters, late records."""
    rng = Random(seed)
    given = some_events(rng, 80)
    wanted = Model(Everything).run(given)
    got = Bench(Everything, given, PLAIN, rng).run()
    assert difference(wanted, got) is None
    assert got.late == wanted.late > 0
    assert len(got.letters) > 0
    assert len(got.answers) > 3 * len(given)


def test_whatever_happens_to_a_shard_its_keys_are_answered_alike() -> None:
    """Batches, epochs, undone epochs, crashes, full epochs amid due timers, ranges that are cut and joined."""
    pieces, full = Counter[int](), 0
    for seed in SEEDS:
        rng = Random(seed)
        given = some_events(rng, rng.choice((20, 60, 120)))
        treatment = some_treatment(rng)
        bench = Bench(Everything, given, treatment, rng)
        wanted, got = Model(Everything).run(given), bench.run()
        assert difference(wanted, got) is None, f"seed {seed}, {treatment}: {difference(wanted, got)}"
        assert got.late == wanted.late, f"seed {seed}, {treatment}: late records"
        pieces[bench.pieces_max] += 1
        full += bench.full_epochs > 0
    assert sum(number for count, number in pieces.items() if count > 1) > len(SEEDS) / 3, (
        "runs with pieces at unequal progress"
    )
    assert full > len(SEEDS) / 3, "runs in which an epoch was full amid due timers"


def test_batches_answer_as_single_records_do() -> None:
    """As long as a handler treats each record of a batch on its own; values with a ttl included."""
    for seed in SEEDS:
        rng = Random(seed)
        given = some_events(rng, 100)
        wanted = Model(Latest).run(given)
        for operator, distinct in ((Latest, False), (LatestInBatches, True)):
            how = Treatment(batch_max=20, commit=0.2, crash=0.05, recut=0.05, distinct_keys=distinct)
            got = Bench(operator, given, how, rng).run()
            assert difference(wanted, got) is None, f"seed {seed}, {operator}: {difference(wanted, got)}"


# -- one input: whole clusters


def heard(run: Run) -> Outcome:
    """What an operator has answered."""
    decode = CODECS.value(Heard).decode_many
    answers = [((key or b"").decode(), time, decode([value or b""])[0]) for key, value, time in run.read("heard")]
    return Outcome(answers)


def cluster_fault(seed: int, *, until_end: bool) -> tuple[str | None, int]:
    """What is wrong with the answers of a run, None when nothing is; and how many faults it met."""
    rng = Random(seed)
    given, how = some_events(rng, 80), replace(some_circumstances(rng), until_end=until_end)
    messages = placed("events", given, rng)
    run = Run(JOB, {"events": PARTITIONS, "heard": PARTITIONS}, messages, how, rng)
    run.work_off()
    wanted = Outcome()
    for partition in range(PARTITIONS):
        parts = zip(given, messages, strict=True)
        outcome = Model(Everything).run([each for each, m in parts if m.message["partition"] == partition])
        wanted.answers += outcome.answers
    fault = difference(wanted, heard(run))
    return fault and f"seed {seed}, {how}: {fault}", run.director.landed.total()


def test_whatever_happens_to_a_cluster_its_keys_are_answered_alike() -> None:
    """One to three workers, faults at named steps, splits, moves and merges, epochs of every size."""
    landed = 0
    for seed in SEEDS:
        fault, faults = cluster_fault(seed, until_end=False)
        assert fault is None, fault
        landed += faults
    assert landed > 2 * len(SEEDS), "faults that landed"


def test_a_bounded_run_answers_as_any_other() -> None:
    """It ends by itself, when all that its records made due is done, and not before."""
    for seed in SEEDS[:10]:
        fault, _ = cluster_fault(seed, until_end=True)
        assert fault is None, fault


def test_late_updates_are_counted_by_the_workers() -> None:
    """Without crashes each exactly once, whatever the epochs."""
    for seed in range(4):
        rng = Random(seed)
        given = some_events(rng, 80)
        run = Run(JOB, {"events": 1, "heard": 1}, placed_in_one(given), Circumstances(workers=2, orders=4), rng)
        run.work_off()
        assert run.late() == Model(Everything).run(given).late > 0


def placed_in_one(given: Sequence[Given]) -> list[Message]:
    """All in one partition."""
    return [Message("events", {"key": key, "value": value, "partition": 0}) for key, value in rows(given)]


# -- several inputs, and a re-key


def test_windows_over_several_inputs_and_a_re_key_have_the_same_totals() -> None:
    """Nothing is late as long as no record is later than the lateness, though every hop has a watermark of its own,
    and the windows of one stage go into those of another.
    """
    landed = 0
    for seed in SEEDS:
        fault, faults = totals_fault(seed)
        assert fault is None, fault
        landed += faults
    assert landed > 2 * len(SEEDS), "faults that landed"


# -- in single words


def answers(*given: Given, treatment: Treatment = PLAIN) -> list[Heard]:
    """What `Everything` answers, in order."""
    return [record for _, _, record in Bench(Everything, given, treatment, Random(1)).run().answers]


IN_ONE_BATCH = Treatment(batch_max=100)
HOWEVER = pytest.mark.parametrize("how", [PLAIN, IN_ONE_BATCH], ids=["record by record", "in one batch"])


@HOWEVER
def test_a_call_sees_the_watermark_of_its_own_record(how: Treatment) -> None:
    """Raised by it and by all before it, of whatever key; never taken back by one that is out of order."""
    times = [100, 90, 140, 130, 200]
    given = [Given(KEYS[n % 2], Event(n, ts, "none", 0)) for n, ts in enumerate(times)]
    seen = [heard.watermark for heard in answers(*given, treatment=how) if heard.what == "record"]
    assert seen == [max(times[: n + 1]) - LATENESS_MS for n in range(len(times))]


@HOWEVER
def test_a_timer_fires_before_the_record_that_made_it_due(how: Treatment) -> None:
    """With its own deadline as event time, and the watermark of that record; of another key, too."""
    given = (
        Given("ann", Event(1, 100, "after", 1)),
        Given("bob", Event(2, 100 + LATENESS_MS, "none", 0)),
        Given("bob", Event(3, 101 + LATENESS_MS, "none", 0)),
    )
    calls = [(h.what, h.number, h.watermark) for h in answers(*given, treatment=how) if h.what in ("record", "alarm")]
    assert calls == [
        ("record", 1, 100 - LATENESS_MS),
        ("record", 2, 100),
        ("alarm", 101, 101),
        ("record", 3, 101),
    ]


@HOWEVER
def test_a_timer_in_the_past_fires_when_the_call_that_set_it_is_over(how: Treatment) -> None:
    """Before the next record, whatever that does to the watermark."""
    given = (Given("ann", Event(1, 100, "past", 21)), Given("ann", Event(2, 300, "none", 0)))
    calls = [(h.what, h.watermark) for h in answers(*given, treatment=how) if h.what in ("record", "alarm")]
    assert calls == [("record", 88), ("alarm", 88), ("record", 288)]


@HOWEVER
def test_a_late_update_says_so_and_is_counted(how: Treatment) -> None:
    """Each window on its own: the hopping one ends later than the tumbling one."""
    given = [Given("ann", Event(1, 129, "none", 0)), Given("ann", Event(2, 103, "none", 0))]
    bench = Bench(Everything, given, how, Random(1))
    told = [record.what for _, _, record in bench.run().answers if record.what.startswith("counted")]
    assert told == ["counted [True, True, True]", "counted [False, True, False]"]
    assert bench.outcome.late == 2


@pytest.mark.parametrize("chunk", [1, 3])
def test_an_epoch_that_is_full_amid_due_timers_goes_on_where_it_stopped(chunk: int) -> None:
    """Each timer fires once, in order, at the same watermark; then the record that made them due is handled, once."""
    given = (Given("ann", Event(1, 100, "burst", 3)), Given("bob", Event(2, 300, "none", 0)))
    how = Treatment(full=1.0, chunk=chunk, batch_max=10)
    calls = [(h.what, h.watermark) for h in answers(*given, treatment=how) if re.fullmatch(r"record|alarm 1\d", h.what)]
    rung = [(f"alarm {10 + tag}", 288) for tag in range(BURST) if tag != 2]  # the first cancels the third
    assert calls == [("record", 88), *rung, ("record", 288)]


def test_timers_that_fire_without_a_record_fill_epochs_too() -> None:
    """An idle input makes many due at once: they are committed in several transactions, not in one of any size."""
    job = Job("everything", [Everything], epoch=timedelta(milliseconds=20), idle=timedelta(milliseconds=100))
    how = Circumstances(epoch=EpochSettings(bytes_max=1), chunk=2)
    given = [Given("ann", Event(1, 100, "burst", 3))]
    run = Run(job, {"events": 1, "heard": 1}, placed_in_one(given), how, Random(1))
    run.work_off()
    records = run.world.log.records(TopicPartition("heard", 0))
    told = CODECS.value(Heard).decode_many([record.value or b"" for record in records])
    rung = [record for record, answer in zip(records, told, strict=True) if answer.what.startswith("alarm 1")]
    assert len({id(record.transaction) for record in rung}) >= BURST / 2


def test_nothing_is_known_before_the_first_record() -> None:
    """A record that does not count leaves it at that."""
    given = (Given("ann", None), Given(None, Event(1, 100, "none", 0)), Given("ann", Event(2, -5, "none", 0)))
    bench = Bench(Everything, given, PLAIN, Random(1))
    assert bench.run().answers == []
    assert [piece.watermarks.current for owner in bench.owners for piece in owner.shard.pieces] == [UNKNOWN_TIME]
