"""The demo from beginning to end: a real broker, a real job, a real kill, and a comparison of every record."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo.evidence import Recovery, recovery
from benchmarks.demo.screen import Figures, Rate, Screen
from benchmarks.demo.text import Text, python_topics, repeated
from benchmarks.demo.topics import create, read_counts, records, uncommitted_ends, write_lines
from benchmarks.demo.verdict import Verdict, by_word, judge
from benchmarks.demo.victim import Victim, committed_progress, spans_in_hand
from benchmarks.demo.watch import Watch
from kstate.adapters.embedded_broker import EmbeddedBroker
from kstate.adapters.guard import GuardedProcess
from kstate.cli.dev import download_bar
from kstate.keyspace import partition_of
from kstate.messages import Heartbeat
from kstate.plan import Plan, backup_topic

JOB = "operators.running_count:job"
APP, LINES, COUNTS = "running-count", "lines", "running-counts"
SPLIT, COUNT = "split", "count"

COUNTED_BEFORE = 0.02
"""Part of the words that must be counted before the kill: there is state to be recovered."""
COUNTED_LATE = 0.08
"""Part after which the kill no longer waits for the first half of an epoch, where it is sure to hit one."""
LEFT_MIN = 0.30
"""Part of the input that must be left at the kill."""
STOP_SECONDS = 10.0
LAST_LINES = 8
TICK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything; the defaults are the demo's."""

    words: int = 500_000
    partitions: int = 4
    """Of the users' topics."""
    workers: int = 2
    epoch_s: float = 0.5
    seconds_max: float = 120.0
    log: Path | None = None
    """Where the log of the job's processes is kept; None: with everything else, thrown away."""

    @property
    def epoch_records(self) -> int:
        """Largest epoch: small parts of the input, or all lines would be split before the first word is counted."""
        return self.words // 80

    @property
    def portion(self) -> int:
        """Records that a worker takes at once, and of which it must have one at least in hand when it is killed."""
        return self.epoch_records // 6


@dataclass(frozen=True, slots=True)
class Kill:
    """The worker that was killed, and the read_uncommitted ends of partitions when it was gone."""

    victim: Victim
    at: float
    plan: Plan
    ends: dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    verdict: Verdict
    observed: int
    """Committed output records that the reader beside the running job saw."""
    replayed: int
    left: float
    """Part of the input's lines that no committed epoch had taken in at the kill."""
    recovery: Recovery | None
    exit_code: int | None
    seconds: float

    def faults(self) -> list[str]:
        """Why the demo fails; empty when it is what it claims to be."""
        checks = {
            f"the job ended with exit code {self.exit_code}": self.exit_code != 0,
            "the victim had nothing in hand: nothing was replayed": self.replayed == 0,
            f"only {self.left:.0%} of the input was left at the kill": self.left < LEFT_MIN,
            "no output of the lost tiles came again": self.recovery is None,
            f"the reader beside the job saw {self.observed:,} records": self.observed != self.verdict.words,
            "results differ from those of a run without a failure": not self.verdict.exactly_once,
        }
        return [fault for fault, failed in checks.items() if failed]


class Story:
    """One run of the demo. Use `told`, which cleans up whatever happens."""

    def __init__(self, servers: str, text: Text, scale: Scale, screen: Screen, folder: Path) -> None:
        self._servers = servers
        self._text = text
        self._scale = scale
        self._screen = screen
        self._folder = folder
        self._rate = Rate()
        self._watch = Watch(servers, APP, COUNTS, screen.tell)

    def tell(self) -> Outcome:
        """Prepare, run, kill, wait for the end, judge."""
        self._prepare()
        began = time.monotonic()
        with self._job() as job, self._watching():
            kill = self._await_kill(job)
            exit_code = self._await_end(job)
        seconds = time.monotonic() - began
        self._screen.tell("the job is done; comparing every committed record with the truth")
        return self._judged(kill, exit_code, seconds)

    # -- before

    def _prepare(self) -> None:
        create(self._servers, dict.fromkeys((LINES, COUNTS), self._scale.partitions))
        write_lines(self._servers, LINES, self._scale.partitions, self._text.lines)
        words, lines = self._text.words, len(self._text.lines)
        self._screen.tell(f"{lines:,} lines with {words:,} words written to topic '{LINES}'")

    @contextmanager
    def _job(self) -> Iterator[GuardedProcess]:
        """`kstate run`, ended with us whatever happens."""
        arguments = ["run", JOB, "--workers", str(self._scale.workers), "--until-end"]
        arguments += ["--bootstrap", self._servers, "--data", str(self._folder / "state"), "--json"]
        self._screen.tell(f"kstate {' '.join(arguments[:5])}")
        command = [sys.executable, "-m", "kstate", *arguments]
        process = GuardedProcess(command, output=self._log, scratch=self._folder)
        try:
            yield process
        finally:
            process.stop(STOP_SECONDS)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._watch.start()
        try:
            yield
        finally:
            self._watch.close()

    @property
    def _log(self) -> Path:
        return self._scale.log or self._folder / "job.log"

    # -- during

    def _await_kill(self, job: GuardedProcess) -> Kill | None:
        """Kill a worker as soon as it is in the middle of things; None when the job ended before."""
        victim: Victim | None = None
        for _ in self._ticks(job):
            victim = victim or self._choose()
            if victim is not None:
                victim.look()
                if self._in_the_middle(victim):
                    return self._kill(victim)
        return None

    def _in_the_middle(self, victim: Victim) -> bool:
        """Words have been counted, and the victim is in mid-epoch: it committed not long ago and has more in hand."""
        counted, in_hand = self._watch.counted / self._text.words, victim.diary.in_hand
        if counted < COUNTED_BEFORE or victim.committed_at is None:
            return False
        early = time.monotonic() - victim.committed_at < self._scale.epoch_s / 2
        early = early and in_hand <= self._scale.epoch_records / 2
        return in_hand >= self._scale.portion and (early or counted >= COUNTED_LATE)

    def _choose(self) -> Victim | None:
        """The last worker of the plan that counts words."""
        plan, beats = self._watch.plan, self._watch.beats
        if plan is None or len(plan.members) < self._scale.workers:
            return None
        for member in reversed(plan.members):
            tiles = frozenset((t.shard.operator, t.shard.partition) for t in plan.owned_by(member.incarnation))
            if member.incarnation in beats and any(uid == COUNT for uid, _ in tiles):
                return Victim(beats[member.incarnation], tiles, self._log)
        return None

    def _kill(self, victim: Victim) -> Kill:
        plan = self._watch.plan
        assert plan is not None
        self._watch.keeping = True
        at = victim.kill()
        victim.look()
        name, pid = victim.beat.name, victim.beat.pid
        in_hand = f"{victim.diary.in_hand:,} uncommitted records in hand"
        self._screen.tell(f"SIGKILL to {name} (process {pid}), which has {in_hand}")
        topics = {COUNTS: plan.partitions[COUNTS]}
        topics |= {backup_topic(APP, uid): plan.partitions[backup_topic(APP, uid)] for uid in (SPLIT, COUNT)}
        return Kill(victim, at, plan, uncommitted_ends(self._servers, topics))

    def _await_end(self, job: GuardedProcess) -> int | None:
        """The job's exit code; None when it does not end in time."""
        for _ in self._ticks(job):
            pass
        code = job.poll()
        deadline = time.monotonic() + 5
        while self._watch.counted < self._text.words and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        self._screen.show(self._figures())
        if code != 0:
            self._screen.tell(f"the job ended with exit code {code}; the end of its log:\n{self._last_words()}")
        return code

    def _last_words(self) -> str:
        """What the job's processes said last, without the notes about batches and epochs."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if '"level": "debug"' not in line][-LAST_LINES:])

    def _ticks(self, job: GuardedProcess) -> Iterator[None]:
        """Until the job ends: draw, then let the caller look."""
        deadline = time.monotonic() + self._scale.seconds_max
        while job.poll() is None and time.monotonic() < deadline:
            if self._watch.failure is not None:
                raise self._watch.failure
            self._screen.show(self._figures())
            yield
            time.sleep(TICK_SECONDS)

    def _figures(self) -> Figures:
        plan = self._watch.plan
        beats = [beat for beat in self._watch.beats.copy().values() if plan and plan.member(beat.incarnation)]
        return Figures(
            lines_read=_lines_read(list(self._watch.beats.copy().values())),
            lines=len(self._text.lines),
            words_counted=self._watch.counted,
            words=self._text.words,
            rate=self._rate.at(time.monotonic(), self._watch.counted),
            workers=[_told(beat) for beat in sorted(beats, key=lambda beat: beat.name)],
        )

    # -- after

    def _judged(self, kill: Kill | None, exit_code: int | None, seconds: float) -> Outcome:
        verdict = judge(self._text.counts, by_word(read_counts(self._servers, COUNTS)))
        if kill is None:
            return Outcome(verdict, self._watch.counted, 0, 0.0, None, exit_code, seconds)
        committed = committed_progress(self._servers, kill.plan, kill.ends)
        taken_in = sum(offset for (uid, topic, _), offset in committed.items() if (uid, topic) == (SPLIT, LINES))
        return Outcome(
            verdict=verdict,
            observed=self._watch.counted,
            replayed=self._replayed(kill, committed),
            left=1 - taken_in / len(self._text.lines),
            recovery=recovery(self._watch.kept, kill.at, _of_topic(kill.ends, COUNTS), _lost_tiles(kill)),
            exit_code=exit_code,
            seconds=seconds,
        )

    def _replayed(self, kill: Kill, committed: dict[tuple[str, str, int], int]) -> int:
        """Records within the spans that the victim had in hand, as a plain reader finds them in the topics."""
        spans = spans_in_hand(kill.victim, committed)
        return sum(
            any(span.holds(topic, record.partition, record.offset) for span in spans)
            for topic in {span.place[1] for span in spans}
            for record in records(self._servers, topic)
        )


def told(scale: Scale, screen: Screen) -> Outcome:
    """Run the demo on an embedded broker in a folder of its own; nothing of it is left, whatever happens."""
    text = repeated(python_topics(), scale.words)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kstate-demo-")))
        screen.tell("starting Apache Kafka, which is downloaded the first time")
        with download_bar() as on_download:
            broker = stack.enter_context(EmbeddedBroker(on_download=on_download))
        stack.enter_context(screen)
        screen.tell(f"Apache Kafka runs at {broker.bootstrap_servers}, from pip alone")
        return Story(broker.bootstrap_servers, text, scale, screen, folder).tell()


def _lines_read(beats: list[Heartbeat]) -> int:
    """Lines in committed epochs of whoever has got furthest, by partition."""
    furthest: dict[int, int] = {}
    for beat in beats:
        for tile in beat.tiles:
            if tile.shard.operator == SPLIT:
                partition = tile.shard.partition
                furthest[partition] = max(furthest.get(partition, 0), tile.progress.get(LINES, 0))
    return sum(furthest.values())


def _told(beat: Heartbeat) -> str:
    restoring = sum(tile.phase == "restoring" for tile in beat.tiles)
    state = f"{restoring} of {len(beat.tiles)} tiles being restored" if restoring else f"{len(beat.tiles)} tiles"
    return f"{beat.name} (process {beat.pid}): {state}"


def _of_topic(ends: dict[tuple[str, int], int], topic: str) -> dict[int, int]:
    return {partition: end for (name, partition), end in ends.items() if name == topic}


class _lost_tiles:  # noqa: N801 - a function that remembers
    """Key → its tile of the counting operator if the victim owned it; remembers, as murmur2 in Python is slow."""

    def __init__(self, kill: Kill) -> None:
        words = f"{APP}.{SPLIT}.words"
        self._partitions = kill.plan.partitions[words]
        self._lost = {partition for uid, partition in kill.victim.tiles if uid == COUNT}
        self._known: dict[bytes, int | None] = {}

    def __call__(self, key: bytes) -> int | None:
        if key not in self._known:
            partition = partition_of(key, self._partitions)
            self._known[key] = partition if partition in self._lost else None
        return self._known[key]
