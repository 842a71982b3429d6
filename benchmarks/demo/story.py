"""The demo from beginning to end: a real broker, a real job, real moves, a real kill, and a check of every record."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo.acts import APP, COUNT, COUNTS, LINES, Acts, Kill, told_shares
from benchmarks.demo.evidence import Recovery
from benchmarks.demo.gaps import Grouping
from benchmarks.demo.load import Load, Pace
from benchmarks.demo.proof import run_by
from benchmarks.demo.screen import Screen
from benchmarks.demo.stage import TICK_SECONDS, Missed, Scale, Stage
from benchmarks.demo.text import python_topics
from benchmarks.demo.timeline import Effect, effect
from benchmarks.demo.topics import create, read_counts, read_markers, records_in
from benchmarks.demo.verdict import Verdict, by_word, judge
from benchmarks.demo.victim import in_hand
from benchmarks.demo.watch import Watch, Watched
from kstate.adapters.embedded_broker import EmbeddedBroker
from kstate.adapters.guard import GuardedProcess
from kstate.cli.dev import download_bar
from kstate.plan import Shard, backup_topic, stream_topic

JOB = "operators.running_count:job"
STOP_SECONDS = 10.0
DRAIN_SECONDS = 30.0
LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class Ran:
    """That moved keys were really counted where they were moved to."""

    where: str
    """The move and the worker, for people."""
    words: int
    """Of those keys, in epochs that this worker committed after they were released to it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    verdict: Verdict
    observed: int
    """Committed output records that the reader beside the running job saw."""
    began: float
    effects: tuple[Effect, ...]
    """Of all that was done, in order."""
    ran: tuple[Ran, ...]
    replayed: int
    lost_tiles: int
    recovery: Recovery | None
    missed: str
    """Why not all acts happened."""
    exit_code: int | None
    words_per_s: float
    """Written, while the load lasted."""

    def faults(self) -> list[str]:
        """Why the demo fails; empty when it is what it claims to be."""
        back = self.recovery
        checks = {
            self.missed: bool(self.missed),
            f"the job ended with exit code {self.exit_code}": self.exit_code != 0,
            "nothing was split": not self.ran,
            "the victim had nothing in hand: nothing was replayed": self.replayed == 0,
            "no output of the lost tiles came again": back is None,
            "not all of the lost tiles came again": back is not None and back.tiles < self.lost_tiles,
            f"the reader beside the job saw {self.observed:,} records": self.observed != self.verdict.words,
            "results differ from those of a run without moves and failures": not self.verdict.exactly_once,
        }
        idle = [f"{ran.where}: no word was counted there" for ran in self.ran if not ran.words]
        unseen = [fault for each in self.effects for fault in each.faults]
        return [fault for fault, failed in checks.items() if failed] + idle + unseen


class Story:
    """One run of the demo. Use `told`, which cleans up whatever happens."""

    def __init__(self, servers: str, scale: Scale, screen: Screen, folder: Path) -> None:
        self._servers = servers
        self._scale = scale
        self._screen = screen
        self._folder = folder
        self._grouping = Grouping(scale.partitions)
        self._watch = Watch(Watched(servers, APP, COUNTS), self._grouping, screen.tell)
        pace = Pace(scale.words_per_s, behind_max=int(scale.words_per_s * scale.behind_s))
        self._load = Load(servers, LINES, python_topics(), pace, lambda: self._watch.counted, scale.partitions)

    def tell(self) -> Outcome:
        """Prepare, play all acts under load, let the job finish what was written, judge."""
        create(self._servers, dict.fromkeys((LINES, COUNTS), self._scale.partitions))
        with self._job() as job, self._watching():
            stage = Stage(job, self._load, self._watch, self._screen, self._scale)
            acts = Acts(stage, self._servers, self._scale.log_in(self._folder))
            acts.play()
            self._load.close()
            exit_code = self._finished(stage)
        self._screen.tell("the job has ended; comparing every committed record with the truth")
        return self._judged(acts, exit_code)

    # -- around the acts

    @contextmanager
    def _job(self) -> Iterator[GuardedProcess]:
        """`kstate run`, ended with us whatever happens."""
        arguments = ["run", JOB, "--workers", str(self._scale.workers)]
        self._screen.tell(f"kstate {' '.join(arguments)}")
        arguments += ["--bootstrap", self._servers, "--data", str(self._folder / "state"), "--json"]
        command = [sys.executable, "-m", "kstate", *arguments]
        process = GuardedProcess(command, output=self._scale.log_in(self._folder), scratch=self._folder)
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
            self._load.close()
            self._watch.close()

    def _finished(self, stage: Stage) -> int | None:
        """The job's exit code, once it has counted all that was written and was asked to stop."""
        words = self._load.truth.words
        try:
            self._screen.tell(f"the load ends after {words:,} words; {told_shares(stage.plan)}")
            stage.until(lambda: f"{stage.behind:,} words are not counted" if stage.behind > 0 else "", DRAIN_SECONDS)
            stage.wait(3 * self._scale.epoch_s)  # what is doubled would come now
        except Missed as missed:
            self._screen.tell(f"the job did not finish its work: {missed}")
        code = stage.job.stop(STOP_SECONDS)
        time.sleep(10 * TICK_SECONDS)
        if code != 0:
            self._screen.tell(f"the job ended with exit code {code}; the end of its log:\n{self._last_words()}")
        return code

    def _last_words(self) -> str:
        """What the job's processes said last, without the notes about batches and epochs."""
        lines = self._scale.log_in(self._folder).read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if '"level": "debug"' not in line][-LAST_LINES:])

    # -- after

    def _judged(self, acts: Acts, exit_code: int | None) -> Outcome:
        kill = acts.kill
        return Outcome(
            verdict=judge(self._load.truth.counts, by_word(read_counts(self._servers, COUNTS))),
            observed=self._watch.counted,
            began=self._screen.began,
            effects=tuple(effect(deed, self._watch.times, self._grouping.groups, COUNT) for deed in acts.deeds),
            ran=tuple(self._ran(acts)),
            replayed=self._replayed(kill) if kill else 0,
            lost_tiles=len(kill.lost) if kill else 0,
            recovery=kill.recovering.result if kill else None,
            missed=acts.missed,
            exit_code=exit_code,
            words_per_s=self._load.truth.words / max(self._load.seconds, 0.001),
        )

    def _replayed(self, kill: Kill) -> int:
        """Records that the victim had in hand, as a plain reader finds them in the topics."""
        return records_in(self._servers, in_hand(self._servers, kill.victim, kill.plan, kill.ends))

    def _ran(self, acts: Acts) -> Iterator[Ran]:
        """Where the half of the split was counted, before the kill and after the merge."""
        split = acts.split
        if split is None:
            return
        yield self._ran_at(split.shard, split.ordered.moves, split.target, "split")
        if acts.merge is not None:
            yield self._ran_at(split.shard, acts.merge.moves, split.source, "merge")

    def _ran_at(self, shard: Shard, moves: set[int], worker: str, what: str) -> Ran:
        topic = stream_topic(APP, "split", "words")
        place = (shard.operator, topic, shard.partition)
        markers = read_markers(self._servers, backup_topic(APP, shard.operator))[shard.partition]
        spans = [span for move in moves for span in run_by((m for _, m in markers), worker, move, place)]
        beats = self._watch.beats
        return Ran(f"{what} of {shard}, at {beats[worker].name}", records_in(self._servers, spans))


def told(scale: Scale, screen: Screen) -> Outcome:
    """Run the demo on an embedded broker in a folder of its own; nothing of it is left, whatever happens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kstate-demo-")))
        screen.tell("starting Apache Kafka, which is downloaded the first time")
        with download_bar() as on_download:
            broker = stack.enter_context(EmbeddedBroker(on_download=on_download))
        stack.enter_context(screen)
        screen.tell(f"Apache Kafka runs at {broker.bootstrap_servers}, from pip alone")
        return Story(broker.bootstrap_servers, scale, screen, folder).tell()
