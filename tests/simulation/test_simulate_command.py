"""`kstate simulate`: users' own operators under faults and moves, compared with runs without."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest
from typer.testing import CliRunner

from kstate import (
    ConfigError,
    Context,
    Input,
    Job,
    Operator,
    Output,
    PartialState,
    Timer,
    Tumbling,
    ValueState,
    Window,
    WindowState,
)
from kstate.cli.main import app
from kstate.testing.summary import Summary
from kstate.testing.trial import Trial
from kstate.testing.violations import Kind
from tests.support import mutations

SEEDS = range(6)

pytestmark = pytest.mark.simulation


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody opened a page."""

    user: str
    page: str
    ts: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What is told of it."""

    user: str
    page: str
    n: int


@dataclass(frozen=True, slots=True)
class Tally:
    """A count per key range that can be cut, rightly or wrongly."""

    n: int = 0
    honest: bool = True

    def split(self, fraction: float) -> tuple[Self, Self]:
        lower = int(self.n * fraction)
        return replace(self, n=lower), replace(self, n=self.n - lower if self.honest else self.n)

    def merge(self, other: Self) -> Self:
        return replace(self, n=self.n + other.n)


class Users(Operator[str], uid="users"):
    """One input: a function of it, key by key."""

    visits = Input(Visit, topic="visits", key="user", event_time="ts", lateness=timedelta(seconds=1))
    seen = Output(Seen, topic="seen")
    n = ValueState(int, default=0)
    lately = WindowState(int, Tumbling(timedelta(seconds=10)), default=0)
    quiet = Timer()
    all = PartialState(Tally, initial=Tally)

    @visits.each
    def see(self, visit: Visit, _: Context) -> None:
        self.n.set(self.n.get() + 1)
        self.all.set(Tally(self.all.get().n + 1))
        self.lately.update(lambda n: n + 1)
        self.quiet.set(after=timedelta(seconds=5))
        self.seen.emit(Seen(visit.user, visit.page, self.n.get()))

    @lately.closes
    def count(self, n: int, window: Window, _: Context) -> None:
        self.seen.emit(Seen(self.key, str(window.start), n))

    @quiet.fires
    def be_quiet(self, _: Context) -> None:
        self.seen.emit(Seen(self.key, "quiet", 0))


class Pages(Operator[str], uid="pages"):
    """Behind a re-key: sums do not depend on the order of users, but the numbers that it tells do."""

    visits = Input(Visit, topic="visits", rekey="page")
    numbered = Output(Seen, topic="numbered")
    n = ValueState(int, default=0)

    @visits.each
    def see(self, visit: Visit, _: Context) -> None:
        self.n.set(self.n.get() + 1)
        self.numbered.emit(Seen(visit.user, visit.page, self.n.get()))


class Moody(Operator[str], uid="moody"):
    """No function of its input."""

    visits = Input(Visit, topic="visits", key="user")
    seen = Output(Seen, topic="moods")
    luck = Random()

    @visits.each
    def see(self, visit: Visit, _: Context) -> None:
        self.seen.emit(Seen(visit.user, visit.page, self.luck.randrange(1 << 40)))


class Careless(Operator[str], uid="careless"):
    """Its partial state doubles when it is cut."""

    visits = Input(Visit, topic="visits", key="user")
    all = PartialState(Tally, initial=lambda: Tally(honest=False))

    @visits.each
    def see(self, _visit: Visit, _ctx: Context) -> None:
        tally = self.all.get()
        self.all.set(replace(tally, n=tally.n + 1))


class Stops(Operator[str], uid="stops"):
    """Fails always."""

    visits = Input(Visit, topic="visits", key="user")

    @visits.each
    def see(self, visit: Visit, _: Context) -> None:
        raise ValueError(visit.page)


JOB_OF_ONE = Job("one", [Users], epoch=timedelta(seconds=1))
JOB_OF_ALL = Job("all", [Users, Pages, Moody, Careless])
JOB_THAT_STOPS = Job("stops", [Stops], on_error="stop")


def run(trial: Trial, seeds: Iterable[int] = SEEDS) -> tuple[Summary, list[str]]:
    """The figures, and all that was found."""
    summary, found = Summary(), list[str]()
    for seed in seeds:
        outcome = trial.run(seed)
        summary.add(outcome)
        found += [f"seed {seed}: {violation}" for violation in outcome.violations]
    return summary, found


def test_a_function_of_the_input_comes_out_the_same_whatever_happens() -> None:
    """Values, windows, timers, a partial state; faults land, and orders are carried out."""
    trial = Trial(JOB_OF_ONE)
    summary, found = run(trial)
    assert (found, list(trial.notices)) == ([], [])
    assert summary.landed.total() > 2 * len(SEEDS)
    assert summary.answers["begun"] > 0


def test_what_cannot_be_compared_is_told_and_all_else_is_compared() -> None:
    """Chance; an order that is open; an object that is not the sum of its parts."""
    trial = Trial(JOB_OF_ALL)
    _, found = run(trial, SEEDS[:2])
    assert found == []
    told = {notice.partition(" ")[0]: notice for notice in trial.notices}
    assert set(told) == {"moody.seen", "pages.numbered", "careless.all"}
    assert "chance" in told["moody.seen"]
    assert "how the records" in told["pages.numbered"]
    assert "split and merged" in told["careless.all"]


def test_a_broken_engine_shows_in_a_users_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run without violations would say nothing."""
    trial = Trial(JOB_OF_ONE)
    trial.run(0)  # what is expected is what the engine does
    mutations.no_look_for_markers(monkeypatch)
    kinds = {violation.kind for seed in range(24) for violation in trial.run(seed).violations}
    assert kinds & {Kind.DOUBLED, Kind.LOST, Kind.STATE}


def test_a_job_that_does_not_even_run_without_faults_is_refused() -> None:
    """With what stopped it."""
    with pytest.raises(ConfigError, match="even without faults"):
        Trial(JOB_THAT_STOPS).run(0)


def simulate(*arguments: str) -> tuple[int, str]:
    """The command: exit code, and what it printed."""
    result = CliRunner().invoke(app, ["simulate", *arguments])
    return result.exit_code, result.output


def test_the_command_prints_figures_and_notes() -> None:
    """Seeds, steps, faults, orders, situations."""
    code, text = simulate(f"{__name__}:JOB_OF_ALL", "--seeds", "2", "--records", "30")
    assert code == 0, text
    assert "note: moody.seen is not compared: " in text
    assert "2 seeds, mean " in text
    assert "0 of 2 seeds with violations" in text


def test_the_command_takes_records_from_a_file(tmp_path: Path) -> None:
    """And prints JSON."""
    file = tmp_path / "visits.jsonl"
    visits: list[dict[str, Any]] = [{"user": f"u{n % 3}", "page": "p", "ts": 1_000 * (n + 1)} for n in range(20)]
    file.write_text("\n".join(map(json.dumps, visits)))
    code, text = simulate(f"{__name__}:JOB_OF_ONE", "--seeds", "1", "--input", f"visits={file}", "--json")
    assert code == 0, text
    told = json.loads(text)
    assert (told["ok"], told["seeds"], told["violations"], told["notices"]) == (True, 1, {}, [])


def test_violations_are_told_with_seed_and_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1."""
    monkeypatch.setattr(
        "kstate.testing.trial.differences", lambda *_: [(("users", "n"), (Kind.LOST, "a record is missing"))]
    )
    monkeypatch.setattr("kstate.testing.trial._Wanted._note", lambda *_: None)
    code, text = simulate(f"{__name__}:JOB_OF_ONE", "--seeds", "1", "--first", "3")
    assert code == 1
    assert "seed 3: lost: a record is missing" in text
    assert "the story so far:" in text
    assert "1 of 1 seeds with violations" in text


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([f"{__name__}:NO_JOB"], "NO_JOB"),
        ([f"{__name__}:JOB_OF_ONE", "--input", "visits"], "names no file"),
        ([f"{__name__}:JOB_OF_ONE", "--input", "visits=nowhere.jsonl"], "cannot be read"),
        ([f"{__name__}:JOB_OF_ONE", "--input", f"visists={__file__}"], "reads no topic 'visists'"),
        ([f"{__name__}:JOB_OF_ONE", "--input", f"visits={__file__}"], "visits, line 1 is no JSON"),
        ([f"{__name__}:JOB_THAT_STOPS"], "even without faults"),
    ],
)
def test_what_the_command_cannot_do_it_says(arguments: list[str], fault: str) -> None:
    """Exit code 2, as for every mistake that people must mend."""
    code, text = simulate(*arguments)
    assert code == 2, text
    assert fault in " ".join(text.split())
