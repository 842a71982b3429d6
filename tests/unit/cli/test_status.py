"""`kstate status` and `kstate top`: the commands, over topics in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kstate.cli import status, top
from kstate.cli.main import app
from kstate.cli.rates import WINDOW_S, Rates
from kstate.cli.status_view import page
from kstate.cli.watching import Watch
from kstate.config import FailureSettings
from kstate.coordinator import status as values
from kstate.coordinator.status import Overview
from kstate.errors import ConfigError, RetryableError
from kstate.messages import LeaderBeat, PlanPublished, TermStarted
from kstate.plan import Parked
from kstate.testing.memory_log import Fault
from tests.support.onlookers import COUNT, HIGH, LEADER, LOW, A, B, Topics, beat, move, piece, plan, tile

OPERATIONS = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
FAILURE = FailureSettings()

Invoke = Callable[..., Any]


@pytest.fixture
def topics() -> Topics:
    """The topics of application `app`."""
    return Topics()


@pytest.fixture
def invoke(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """`kstate ...` on these topics, in their virtual time."""
    monkeypatch.setattr(topics.log, "close", lambda: None, raising=False)
    monkeypatch.setattr(status, "KafkaLog", lambda settings, clock: topics.log)
    monkeypatch.setattr(status, "SystemClock", lambda: topics.clock)
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--bootstrap", "memory:1"])


def look(topics: Topics) -> Overview:
    """What `kstate status` would show."""
    watch = Watch(topics.edges, "app")
    try:
        return topics.run(status.looked(watch, topics.edges, FAILURE, 10.0))
    finally:
        watch.close()


def shown(overview: Overview) -> str:
    """The page as text."""
    console = Console(width=160, file=StringIO())
    with console.capture() as capture:
        console.print(page(overview))
    return capture.get()


def test_it_prints_how_the_job_stands(topics: Topics, invoke: Invoke) -> None:
    """A page that fits a terminal, without any of the job's code: the name of the application is enough."""
    moving = plan(2, tile(A), moves=(move(order="o1"),))
    topics.led().say(PlanPublished(moving, "somebody ordered it", "o1"))
    topics.feed(0, 100)
    topics.report(
        beat(A, piece(at=93), sequence=2, busy_percent=42), beat(B, piece(HIGH, "warming", grant=2, behind=9))
    )
    result = invoke("status", "app")
    assert result.exit_code == 0, result.output
    for expected in (
        r"app  running  plan 2  build b1",
        r"leader    leading  leader.a, term 1, heard 0\.\d s ago",
        r"worker-1 +running +42% +1 +host +7 +0\.\d s +worker-1.a",
        r"count\[0\] +\[0x0000, 0x10000\) +worker-1 +running +7 +5 +0 B",
        r"2 +count\[0\] +\[0x8000, 0x10000\) +worker-1 → worker-2 +warm +warming +9 +0\.\d s +o1",
        r"0\.\d s +plan 2 +somebody ordered it",
    ):
        assert re.search(expected, result.output), f"{expected} is not in\n{result.output}"


def test_json_has_every_documented_field_and_no_other(topics: Topics, invoke: Invoke) -> None:
    """The names are a contract: docs/operations.md lists them by the values that they stand in."""
    topics.led()
    found = json.loads(invoke("status", "app", "--json").output)
    assert set(found) == {field.name for field in fields(Overview)}
    assert found["workers"][0]["load"] == {"busy_percent": 0, "tiles": 1}
    for kind in (
        values.Overview,
        values.LeaderStatus,
        values.WorkerStatus,
        values.ShardStatus,
        values.StandbyStatus,
        values.MoveStatus,
        values.DecisionStatus,
    ):
        names = [field.name for field in fields(kind)]
        assert any(all(f"`{name}`" in row for name in names) for row in OPERATIONS.splitlines()), (kind, names)


def test_nobody_runs_and_it_says_so(topics: Topics) -> None:
    """How to start what is missing."""
    topics.say(TermStarted(1, LEADER), PlanPublished(plan()))
    topics.clock.sleep(60)
    found = look(topics)
    assert found.state == "no leader"
    assert [worker.state for worker in found.workers] == ["silent", "silent"]
    assert "start one with `kstate coordinator JOB`" in shown(found)


def test_a_job_without_workers_says_how_to_start_some(topics: Topics) -> None:
    """A leader alone makes no plan."""
    topics.say(TermStarted(1, LEADER))
    topics.report(LeaderBeat(1, LEADER))
    found = look(topics)
    assert found.state == "starting"
    assert "start some with `kstate run JOB`" in shown(found)


def test_who_was_not_heard_is_waited_for_a_moment(topics: Topics) -> None:
    """The clocks of machines may differ: what comes while we listen is fresh, whatever its time stamp says."""
    topics.say(TermStarted(1, LEADER), PlanPublished(plan()))
    topics.clock.skew_ms = -3_600_000
    topics.alive()
    topics.clock.skew_ms = 0
    watch = Watch(topics.edges, "app")
    steps = status.looked(watch, topics.edges, FAILURE, 10.0)
    topics.let(steps, 0.3)
    topics.clock.skew_ms = -3_600_000
    topics.alive()
    topics.clock.skew_ms = 0
    found = topics.run(steps)
    assert found.state == "running"
    assert [worker.state for worker in found.workers] == ["running", "running"]


def test_a_job_that_never_ran_is_named(topics: Topics, invoke: Invoke) -> None:
    """Exit code 2 and what to do."""
    result = invoke("status", "other")
    assert result.exit_code == ConfigError.exit_code
    assert "Job 'other' never ran on this cluster" in result.stderr
    assert "--bootstrap" in result.stderr


def test_a_broker_that_is_away_is_an_error_after_the_time_that_was_given(topics: Topics, invoke: Invoke) -> None:
    """It is asked again until then."""
    topics.log.faults = lambda call: Fault.RETRYABLE
    result = invoke("status", "app", "--timeout", "3")
    assert result.exit_code == RetryableError.exit_code
    assert "the broker does not answer" in result.stderr
    assert 3 <= topics.clock.now < 4


def test_a_broker_that_comes_back_is_no_error(topics: Topics) -> None:
    """Reading begins anew: nothing is taken in twice."""
    topics.led()
    topics.log.inject("poll", Fault.SHORT)
    topics.log.inject("end_offsets", Fault.RETRYABLE)
    topics.log.inject("poll", Fault.RETRYABLE)
    assert look(topics).plan_version == 1


def test_a_topic_that_is_gone_leaves_lags_unknown(topics: Topics) -> None:
    """All else is shown."""
    topics.led().report(beat(A, piece(at=1), sequence=2))
    topics.log.delete_topic("words")
    assert [shard.lag for shard in look(topics).shards] == [None, None]


def test_a_trimmed_control_topic_is_read_from_its_start(topics: Topics) -> None:
    """The newest plan repeats all that counts."""
    topics.led().say(PlanPublished(plan(7), "the newest"))
    topics.log.delete_records(dict.fromkeys([topics.control], 2))
    found = look(topics)
    assert found.plan_version == 7
    assert [decision.what for decision in found.decisions] == ["plan 7"]


def test_what_is_parked_is_shown_with_its_reason(topics: Topics) -> None:
    """It is what people must see first."""
    parked = (Parked(COUNT, HIGH, "three processes died at words[0]@17"),)
    topics.led(plan(1, tile(A, LOW), tile(None, HIGH), parked=parked))
    assert "parked: count[0] [0x8000, 0x10000): three processes died at words[0]@17" in shown(look(topics))


# -- top


def test_top_prints_one_picture_where_there_is_no_terminal(
    topics: Topics, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the records per second of the time in which it looked."""
    topics.led().report(beat(A, piece(at=0), sequence=2))
    sleep = topics.clock.sleep

    def work(seconds: float) -> None:
        """The worker goes on meanwhile: 1,000 records a second."""
        sleep(seconds)
        topics.report(beat(A, piece(at=int(topics.clock.now * 1000)), sequence=3))

    monkeypatch.setattr(topics.clock, "sleep", work)
    result = invoke("top", "app")
    assert result.exit_code == 0, result.output
    found = re.search(r"count\[0\] .* running +([\d,]+) ", result.output)
    assert found, result.output
    assert 900 < int(found[1].replace(",", "")) < 1_100
    assert "count[1]" in result.output


def test_top_as_json_has_the_rates_in_each_shard(topics: Topics, invoke: Invoke) -> None:
    """Null where nothing is known."""
    topics.led().report(beat(A, piece(at=5), sequence=2))
    found = json.loads(invoke("top", "app", "--json").output)
    assert [shard["records_per_s"] for shard in found["shards"]] == [0.0, None]


def test_rates_are_taken_over_some_seconds(topics: Topics) -> None:
    """Progress moves in steps of an epoch."""
    rates = Rates()
    topics.led()
    for second in range(20):
        topics.report(beat(A, piece(at=second // 2 * 200), sequence=second + 2))
        rates.add(look(topics), float(second))
    assert rates.now()["count", 0, 0, 0x10000] == pytest.approx(100, rel=0.35)
    assert len(rates._looks) <= WINDOW_S + 2


def test_a_range_that_was_just_cut_has_no_rate_yet(topics: Topics) -> None:
    """Its name is new."""
    rates = Rates()
    topics.led().report(beat(A, piece(at=5), sequence=2))
    rates.add(look(topics), 0.0)
    topics.say(PlanPublished(plan(2, tile(A, LOW), tile(A, HIGH))))
    rates.add(look(topics), 1.0)
    assert rates.now() == {}


def test_top_needs_a_job_that_ran(topics: Topics, invoke: Invoke) -> None:
    """As `status`."""
    assert invoke("top", "other").exit_code == ConfigError.exit_code
    assert top.SAMPLE_S > top.REFRESH_S
