"""A chaos run from beginning to end: a broker, a job under load, faults one after the other, and the verdict.

    python -m tests.chaos --faults 100 --records 5000000 --minutes 75

Exit code 0: nothing was lost, doubled or out of order, everything recovered, and enough faults counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.chaos_broker import ChaosBroker, chaos_broker
from tests.support.chaos_control import ControlWatch, waited
from tests.support.chaos_faults import SHORT, Kind, all_kinds, endless, noted
from tests.support.chaos_feed import PAUSE, Orders, Progress
from tests.support.chaos_moves import Mover
from tests.support.chaos_observer import Observer
from tests.support.chaos_oracle import Given, Verdict, judge_accounts, judge_groups, judge_windows, read_table, total
from tests.support.chaos_records import PARTITIONS, Feed
from tests.support.chaos_stage import Outcome, Stage
from tests.support.chaos_troupe import Player, Troupe
from tests.support.cluster import ROOT, Cluster
from tests.support.topics import create_topics

RATE = 10_500
"""Records per second: somewhat more than what is promised, as an aborted transaction's do not count."""
WORKERS = 4
DOORS = (2, 3)
"""The workers that are behind a proxy each; so is the second coordinator."""
START_SECONDS = 120.0
DRAIN_SECONDS = 180.0
QUIET_SECONDS = 2.0
"""After the last result, for whatever may still come and must not."""
BACKLOG_SECONDS = (5.0, 20.0)
"""The feed slows down when the backlog is more than the second, until it is below the first: load is bounded."""
RATE_PROMISED = 10_000
"""What the long form must have written per second, on average, while faults were inflicted."""
CALM_SECONDS = (0.3, 1.5)
"""Between a recovery and the next fault."""
SETTINGS = {
    "KSTATE_EPOCH__POLL_RECORDS": "2000",
    "KSTATE_FAILURE__COMMIT_SLOW_MS": "1500",
    "KSTATE_RECOVERY__STANDBYS": "1",
    "KSTATE_REBASE__GROWN_BYTES": "16000000",  # state is written anew, and logs are trimmed, many times in a run
    "KSTATE_REBASE__TRIM_EVERY_MS": "2000",
    "KSTATE_REBASE__PLANS_KEPT": "30",
    "KSTATE_LOG_LEVEL": "info",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    faults: int = 100
    """So many must count."""
    records: int = 5_000_000
    """So many must have been given, at least."""
    seconds_max: float = 4_500.0
    """No further faults after so long."""
    freeze_s: tuple[float, float] = (5.0, 30.0)
    moves: bool = True
    kinds: tuple[str, ...] = ()
    """Only these; empty: all."""
    in_order: bool = False
    """The kinds one after the other, not in random order."""
    seed: int = 0
    rate: int = RATE
    folder: Path | None = None
    """Where everything that the processes write is kept; None: thrown away when the run is as it should be."""


@dataclass(slots=True)
class Report:
    """What came of it."""

    seed: int
    broker: str
    seconds: float = 0.0
    """Of the faults: what comes before and after does not count."""
    given: int = 0
    """Committed input records."""
    records_per_s: float = 0.0
    """Written by the feed while the faults lasted."""
    paused_s: float = 0.0
    """How long the feed was slowed down because the backlog was too long."""
    observed: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    moves_begun: int = 0
    moves_ended: int = 0
    orders: dict[str, int] = field(default_factory=dict)
    terms: int = 0
    longest_gap_s: float = 0.0
    longest_gap: str = ""
    exits: list[str] = field(default_factory=list)
    """Exits that nobody asked for, but those of zombies."""
    faults: list[str] = field(default_factory=list)
    """Why the run is not as it should be."""
    folder: str = ""

    @property
    def groups(self) -> set[str]:
        """Of what sorts the faults are that count."""
        groups = {kind.name: kind.group for kind in all_kinds()}
        return {groups[outcome.kind] for outcome in self.outcomes if outcome.counted}

    @property
    def counted(self) -> int:
        return sum(outcome.counted for outcome in self.outcomes)

    def by_kind(self) -> dict[str, dict[str, float | int | None]]:
        """Landed, counted, and how long recoveries took, per kind."""
        kinds: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in self.outcomes:
            kinds[outcome.kind].append(outcome)
        return {kind: _figures(outcomes) for kind, outcomes in sorted(kinds.items())}

    def written(self) -> str:
        """JSON."""
        sums = total(self.verdicts)
        body = {
            "counted": self.counted,
            "landed": len(self.outcomes),
            **sums,
            "by_kind": self.by_kind(),
            **{name: value for name, value in asdict(self).items() if name != "folder"},
        }
        return json.dumps(body, indent=1, default=str)

    def summary(self) -> str:
        """For people."""
        lines = [f"{'fault':<46} landed counted  first output  all tiles    new leader   settled  (median s, max s)"]
        for kind, figures in self.by_kind().items():
            times = "  ".join(f"{_shown(figures[n + '_median']):>5} {_shown(figures[n + '_max']):>5}" for n in _TIMES)
            lines.append(f"{kind:<46} {figures['landed']:>6} {figures['counted']:>7}  {times}")
        sums = total(self.verdicts)
        rate = f"{self.given:,} records given, {self.records_per_s:,.0f}/s during {self.seconds:,.0f} s of faults"
        lines.append(f"{self.counted} of {len(self.outcomes)} faults counted; {rate}; broker: {self.broker}")
        lines.append(
            f"{self.moves_begun} moves begun, {self.moves_ended} ended; {self.terms} terms; orders {self.orders}"
        )
        lines += [str(verdict) for verdict in self.verdicts]
        lines.append(
            f"{sums['records']:,} results, {sums['lost']:,} lost, {sums['doubled']:,} doubled, "
            f"{sums['disordered']:,} keys out of order, {sums['foreign'] + sums['wrong']:,} wrong; "
            f"longest gap {self.longest_gap_s:.1f} s ({self.longest_gap})"
        )
        lines += [f"exit: {each}" for each in self.exits[:10]]
        lines += [f"FAILED: {fault.splitlines()[0]}" for fault in self.faults]
        lines += [f"logs are kept in {self.folder}"] * bool(self.faults)
        return "\n".join(lines)


_TIMES = ("first_s", "recovered_s", "led_s", "settled_s")


def _figures(outcomes: list[Outcome]) -> dict[str, float | int | None]:
    figures: dict[str, float | int | None] = {
        "landed": len(outcomes),
        "counted": sum(outcome.counted for outcome in outcomes),
    }
    for name in _TIMES:
        times = sorted(value for outcome in outcomes if (value := getattr(outcome, name)) is not None)
        figures[f"{name}_median"] = times[len(times) // 2] if times else None
        figures[f"{name}_max"] = times[-1] if times else None
    return figures


def _shown(seconds: float | int | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


def run(scale: Scale, tell: bool = True) -> Report:
    """The whole run; whatever it started is gone when it returns."""
    seed = scale.seed or random.randrange(1, 1 << 30)
    folder = scale.folder or Path(tempfile.mkdtemp(prefix="kstate-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(seed, "", folder=str(folder))
    say = Teller(tell)
    say(f"seed {seed}, folder {folder}")
    with chaos_broker(len(DOORS) + 1) as broker:
        report.broker = broker.kind
        say(f"{broker.kind} at {broker.servers}")
        _Run(scale, report, broker, folder, say).play()
    if not report.faults and scale.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
        report.folder = ""
    return report


class Teller:
    """Lines with the time of the run."""

    def __init__(self, aloud: bool) -> None:
        self._aloud = aloud
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        if self._aloud:
            print(f"{time.monotonic() - self._began:7.1f} s  {line}", flush=True)  # noqa: T201 (talks to people)


class _Run:
    """One run on a broker that serves."""

    def __init__(self, scale: Scale, report: Report, broker: ChaosBroker, folder: Path, say: Teller) -> None:
        self._scale = scale
        self._report = report
        self._broker = broker
        self._folder = folder
        self._say = say
        self._dice = random.Random(report.seed)
        app = f"chaos{report.seed}"
        self._cluster = Cluster(broker.servers, app, "job", folder, dict(SETTINGS))
        topics = {"running": "accounts", "groups": "groups", "windows": "", "group-windows": ""}
        self._topics = {self._cluster.topic(name): operator for name, operator in topics.items()}
        self._counter = folder / "feed.json"

    def play(self) -> None:
        """Start everything, inflict faults, let the rest be processed, judge."""
        create_topics(self._broker.servers, dict.fromkeys([self._input, *self._topics], PARTITIONS))
        with ExitStack() as stack:
            control = stack.enter_context(ControlWatch(self._broker.servers, self._cluster.app))
            observer = stack.enter_context(Observer(self._broker.servers, self._topics))
            troupe = stack.enter_context(Troupe(self._cluster))
            self._start(troupe)
            waited(control.settled, START_SECONDS)
            start_ms = time.time_ns() // 1_000_000
            feeder = stack.enter_context(self._feed(start_ms))
            mover = Mover(control, troupe, random.Random(self._dice.random())) if self._scale.moves else None
            stack.enter_context(mover or nullcontext())
            stage = Stage(
                self._cluster, self._broker, troupe, control, observer, mover, self._counter, self._dice,
                self._scale.rate, self._scale.freeze_s,
            )  # fmt: skip
            stack.enter_context(_bounded(stage, self._counter.with_suffix(PAUSE), report=self._report))
            try:
                if waited(lambda: stage.progress().written > 0 and stage.up_to_date(), START_SECONDS):
                    self._inflict(stage, feeder)
                else:
                    self._fail(f"the job did not get going:\n{stage.described()}\n{stage.trouble()}")
            finally:
                self._end(stage, feeder, start_ms)

    @property
    def _input(self) -> str:
        return self._cluster.topic("payments")

    @contextmanager
    def _feed(self, start_ms: int) -> Iterator[subprocess.Popen[bytes]]:
        orders = Orders(self._broker.servers, self._input, start_ms, 1 << 40, self._scale.rate, str(self._counter))
        with (self._folder / "feed.out").open("ab") as sink:
            command = [sys.executable, "-m", "tests.support.chaos_feed", orders.written()]
            process = subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _start(self, troupe: Troupe) -> None:
        """One by one."""
        doors = [proxy.address for proxy in self._broker.proxies]
        direct = self._broker.servers
        troupe.add(Player("coordinator-a", "coordinator", direct))
        for number in range(WORKERS):
            door = DOORS.index(number) if number in DOORS else -1
            servers = doors[door] if door >= 0 else direct
            troupe.add(Player(f"worker-{number + 1}", "worker", servers, door))
        troupe.add(Player("coordinator-b", "coordinator", doors[len(DOORS)], len(DOORS)))

    # -- faults

    def _inflict(self, stage: Stage, feeder: subprocess.Popen[bytes]) -> None:
        """One after the other until enough of them counted and enough was given, or time is up."""
        scale, began, before = self._scale, time.monotonic(), stage.progress().written
        self._say("the job is up to date; faults begin")
        if stage.mover is not None:
            stage.mover.work()
        for kind in self._kinds():
            if time.monotonic() - began > scale.seconds_max:
                break
            if self._report.counted >= scale.faults:
                break
            if stage.trouble() or feeder.poll() is not None:
                self._fail(f"the run broke down: {stage.trouble()}; feed: exit code {feeder.poll()}")
                break
            outcome = self._one(stage, kind)
            if outcome.stuck:
                self._fail(f"after {kind.name!r} of {outcome.victim}: {outcome.stuck}")
                break
            time.sleep(self._dice.uniform(*CALM_SECONDS))
        left = scale.seconds_max - (time.monotonic() - began)
        if not self._report.faults and not waited(lambda: stage.progress().written >= scale.records, max(left, 1), 0.2):
            self._fail(f"only {stage.progress().written:,} records were given")
        report, written = self._report, stage.progress().written - before
        report.seconds = round(time.monotonic() - began, 1)
        report.records_per_s = round(written / report.seconds, 1)

    def _one(self, stage: Stage, kind: Kind) -> Outcome:
        outcome = Outcome(kind.name)
        with noted(stage, outcome):
            kind.inflict(stage, outcome)
        if outcome.held is None and not outcome.counted and not outcome.victim:
            self._say(f"-- {kind.name}: {outcome.doubt}")
            return outcome
        self._report.outcomes.append(outcome)
        verdict = "counted" if outcome.counted else f"not counted: {outcome.doubt}"
        times = f"first {_shown(outcome.first_s)} s, all {_shown(outcome.recovered_s)} s"
        times += f", settled {_shown(outcome.settled_s)} s, led {_shown(outcome.led_s)} s"
        notes = ", ".join(filter(None, outcome.notes))
        self._say(f"{self._report.counted:>3} {kind.name} ({outcome.victim}): {verdict}; {times}; {notes}")
        return outcome

    def _kinds(self) -> Iterator[Kind]:
        kinds = [kind for kind in all_kinds() if self._scale.moves or not kind.needs_moves]
        if self._scale.kinds:
            by_name = {kind.name: kind for kind in kinds}
            if unknown := [name for name in self._scale.kinds if name not in by_name]:
                raise ValueError(f"no such faults: {unknown}; there are: {sorted(by_name)}")
            kinds = [by_name[name] for name in self._scale.kinds]
        if not self._scale.in_order:
            yield from endless(kinds, self._dice)
        while True:
            yield from kinds

    def _fail(self, fault: str) -> None:
        self._report.faults.append(fault)
        self._say(f"FAILED: {fault}")

    # -- the end

    def _end(self, stage: Stage, feeder: subprocess.Popen[bytes], start_ms: int) -> None:
        """No more faults and no more input; all that was given must come out; then everything is compared."""
        report, control = self._report, stage.control
        if stage.mover is not None:
            stage.mover.rest()
            report.orders = dict(stage.mover.accepted)
            self._say(f"orders: {dict(stage.mover.ordered)}, refused {stage.mover.refused[:5]}")
            if stage.mover.unanswered:
                self._fail(f"{stage.mover.unanswered} orders were never answered")
        feeder.terminate()
        if not waited(lambda: stage.progress().closed, DRAIN_SECONDS, 0.1):
            self._fail("the feed did not end: " + (self._folder / "feed.out").read_text()[-500:])
            return
        given = self._given(start_ms, stage.progress())
        self._drain(stage, given)
        report.terms = control.terms()
        report.moves_begun, report.moves_ended = len(control.begun), len(control.ended)
        self._note_exits(stage)
        self._judge(stage, given)

    def _given(self, start_ms: int, progress: Progress) -> Given:
        feed = Feed(start_ms, progress.ended)
        given = Given.of(feed, read_table(self._broker.servers, self._input, 4))
        self._report.given = len(given)
        return given

    def _drain(self, stage: Stage, given: Given) -> None:
        """Wait as long as there is any progress."""

        def seen() -> int:
            return sum(stage.observer.records(topic) for topic in self._topics)

        topics = (self._cluster.topic("running"), self._cluster.topic("groups"))
        deadline, last = time.monotonic() + DRAIN_SECONDS, -1
        quiet_since = time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - quiet_since < 45.0:
            if seen() != last:
                last, quiet_since = seen(), time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_SECONDS and all(
                stage.observer.records(topic) >= len(given) for topic in topics
            ):
                break
            time.sleep(0.1)
        missing = [f"{len(given) - stage.observer.records(t):,} results of {t}" for t in topics]
        if any(stage.observer.records(topic) < len(given) for topic in topics):
            self._fail(f"never came: {' and '.join(missing)}:\n{stage.tell_all()}")
        if stage.observer.reader.replaced:
            self._say(f"the observer's consumer stood still and was replaced {stage.observer.reader.replaced} times")
        self._say(f"{seen():,} results seen for {len(given):,} records")

    def _note_exits(self, stage: Stage) -> None:
        late = stage.troupe.shut_down()
        for each in [*stage.troupe.exits, *late]:
            known = (4, 6) if each.name in stage.troupe.damaged else (4,)
            if each.code not in known:
                self._report.exits.append(f"{each.name}: exit code {each.code}: {each.tail[-1500:]}")
        zombies = sum(each.code == 4 for each in stage.troupe.exits)
        self._say(f"{zombies} processes ended because others had taken over")
        if self._report.exits:
            self._fail(f"{len(self._report.exits)} processes ended that should not have")

    def _judge(self, stage: Stage, given: Given) -> None:
        report, server, topic = self._report, self._broker.servers, self._cluster.topic
        tables = {name: read_table(server, topic(name), n) for name, n in _FIELDS.items()}
        report.verdicts = [
            judge_accounts(given, tables["running"]),
            judge_groups(given, tables["groups"]),
            judge_windows(given, tables["windows"], grouped=False),
            judge_windows(given, tables["group-windows"], grouped=True),
        ]
        report.faults += [f"not exactly-once: {verdict}" for verdict in report.verdicts if not verdict.holds]
        for name, table in tables.items():
            seen = stage.observer.seen[topic(name)]
            report.observed += seen.records
            if {p: crc for p, crc in seen.crcs.items() if crc} != {p: crc for p, crc in table.crcs.items() if crc}:
                self._fail(f"the observer of {name} saw other records than stand there: {seen.records}, {len(table)}")
            if seen.disordered:
                self._fail(f"the observer of {name} saw {seen.disordered} records out of order")
        if stage.observer.gaps:
            longest = max(stage.observer.gaps, key=lambda gap: gap.seconds)
            report.longest_gap_s = round(longest.seconds, 2)
            around = [o.kind for o in report.outcomes if o.at <= longest.ended - stage.began]
            report.longest_gap = f"{longest.cell}, after {around[-1]!r}" if around else longest.cell
        if report.paused_s:
            self._say(
                f"the feed was slowed down for {report.paused_s:.0f} s: the job did not keep up with it on this machine"
            )
        if report.records_per_s < RATE_PROMISED and self._scale.rate >= RATE_PROMISED and not self._scale.in_order:
            self._fail(f"the load was {report.records_per_s:,.0f} records/s, {RATE_PROMISED:,} are promised")
        if report.counted < self._scale.faults:
            self._fail(f"only {report.counted} faults counted, {self._scale.faults} are asked for")


@contextmanager
def _bounded(stage: Stage, pause: Path, report: Report) -> Iterator[None]:
    """Slow the feed down while the backlog is too long."""
    over = threading.Event()

    def watch() -> None:
        low, high = (seconds * stage.rate for seconds in BACKLOG_SECONDS)
        while not over.wait(0.25):
            if pause.exists():
                report.paused_s += 0.25
                if stage.lag() < low:
                    pause.unlink(missing_ok=True)
            elif stage.lag() > high:
                pause.touch()

    thread = threading.Thread(target=watch, name="bound", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)
        pause.unlink(missing_ok=True)


_FIELDS = {"running": 3, "groups": 3, "windows": 4, "group-windows": 4}


def short_scale(folder: Path | None = None, seed: int = 0) -> Scale:
    """The short form: the most telling faults, one after the other, until enough of them count."""
    return Scale(15, 600_000, 330.0, (3.0, 6.0), kinds=SHORT, in_order=True, seed=seed, folder=folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    long = Scale()
    parser = argparse.ArgumentParser(prog="chaos", description="Faults under load; then every record is compared.")
    env = os.environ.get
    parser.add_argument("--faults", type=int, default=int(env("CHAOS_FAULTS") or long.faults))
    parser.add_argument("--records", type=int, default=int(env("CHAOS_RECORDS") or long.records))
    parser.add_argument("--minutes", type=float, default=float(env("CHAOS_MINUTES") or long.seconds_max / 60))
    parser.add_argument("--seed", type=int, default=int(env("CHAOS_SEED") or 0))
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--short", action="store_true", help="as in the integration tests")
    parser.add_argument("--no-moves", action="store_true", help="order no moves, inflict no faults in their phases")
    parser.add_argument("--kind", action="append", default=[], help="only this kind of fault; may be repeated")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    parser.add_argument("--json", type=Path, help="where the report goes")
    chosen = parser.parse_args(arguments)
    scale = Scale(
        chosen.faults, chosen.records, chosen.minutes * 60, moves=not chosen.no_moves, kinds=tuple(chosen.kind),
        seed=chosen.seed, rate=chosen.rate, folder=chosen.folder,
    )  # fmt: skip
    report = run(short_scale(chosen.folder, chosen.seed) if chosen.short else scale)
    if chosen.json:
        chosen.json.write_text(report.written())
    print(report.summary())  # noqa: T201 (talks to people)
    return 1 if report.faults else 0
