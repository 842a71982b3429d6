"""The running job, its load and its audience; acts wait here for what they need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo.load import Load
from benchmarks.demo.screen import Figures, Rate, Screen
from benchmarks.demo.standing import unsettled
from benchmarks.demo.watch import Watch
from kstate.adapters.guard import GuardedProcess
from kstate.messages import Heartbeat, TilePhase
from kstate.plan import Plan

TICK_SECONDS = 0.01
LOOK_SECONDS = 0.05
"""How often a condition is looked at that takes the interpreter some time."""
BEHIND_SECONDS = 1.0
"""A job that is no further behind its input than this keeps up with it."""


class Missed(Exception):  # noqa: N818 (it is no error of the program: an act did not happen)
    """An act did not happen; the message says why."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything; the defaults are the demo's."""

    words_per_s: int = 15_000
    behind_s: float = 4.0
    """The load waits while the job is further behind than it writes in this time."""
    partitions: int = 4
    """Of the users' topics, and of the stream of words."""
    workers: int = 3
    epoch_s: float = 0.2
    standbys: int = 1
    quiet_s: float = 3.0
    """Of a time in which nothing is done to the job, to compare with."""
    after_s: float = 1.0
    """For so long after a deed was done its effects are looked for."""
    seconds_max: float = 150.0
    log: Path | None = None
    """Where the log of the job's processes is kept; None: with everything else, thrown away."""

    def log_in(self, folder: Path) -> Path:
        """Where that log is."""
        return self.log or folder / "job.log"


class Stage:
    """Everything that an act may look at; `ticks` lets time pass."""

    def __init__(self, job: GuardedProcess, load: Load, watch: Watch, screen: Screen, scale: Scale) -> None:
        self.job = job
        self.load = load
        self.watch = watch
        self.screen = screen
        self.scale = scale
        self._rate = Rate()
        self._ends_at = time.monotonic() + scale.seconds_max

    @property
    def plan(self) -> Plan:
        """The newest one."""
        if self.watch.plan is None:
            raise Missed("there is no plan")
        return self.watch.plan

    @property
    def beats(self) -> Mapping[str, Heartbeat]:
        """The newest heartbeat of each incarnation."""
        return self.watch.beats.copy()

    @property
    def behind(self) -> int:
        """Words written and not yet seen counted."""
        return self.load.truth.words - self.watch.counted

    def ticks(self, seconds: float) -> Iterator[None]:
        """For so long: draw, then let the caller look. Raises Missed when the job has ended or the demo takes long."""
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            if self.watch.failure or self.load.failure:
                raise self.watch.failure or self.load.failure or AssertionError
            if (code := self.job.poll()) is not None:
                raise Missed(f"the job ended by itself, with exit code {code}")
            if now > self._ends_at:
                raise Missed(f"it was not over after {self.scale.seconds_max:.0f} s")
            self.screen.show(self.figures())
            yield
            time.sleep(TICK_SECONDS)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        for _ in self.ticks(seconds):
            pass

    def until(self, why_not: Callable[[], str], seconds: float) -> None:
        """Wait until the reason why not is empty; Missed, with the reason, when that takes longer."""
        look_at = 0.0
        for _ in self.ticks(seconds):
            if time.monotonic() >= look_at:
                if not why_not():
                    return
                look_at = time.monotonic() + LOOK_SECONDS
        raise Missed(f"after {seconds:.0f} s {why_not()}")

    def until_running(self, seconds: float) -> None:
        """Until all workers run all tiles and nothing moves."""
        self.until(lambda: unsettled(self.watch.plan, self.beats, self.scale.workers), seconds)

    def until_level(self, seconds: float) -> None:
        """Until the job keeps up with its input, or so long: a slow machine may never let it."""
        deadline = time.monotonic() + seconds
        self.until(lambda: self._lag() if time.monotonic() < deadline else "", 2 * seconds)

    def figures(self) -> Figures:
        """How far the job is."""
        plan = self.watch.plan
        beats = [beat for beat in self.beats.values() if plan and plan.member(beat.incarnation)]
        return Figures(
            written=self.load.truth.words,
            counted=self.watch.counted,
            rate=self._rate.at(time.monotonic(), self.watch.counted),
            workers=[told(beat) for beat in sorted(beats, key=lambda beat: beat.name)],
        )

    def _lag(self) -> str:
        most = int(self.scale.words_per_s * BEHIND_SECONDS)
        return f"the job is {self.behind:,} words behind" if self.behind > most or not self.watch.counted else ""


def told(beat: Heartbeat) -> str:
    """A worker for people."""
    running = sum(tile.phase == TilePhase.RUNNING for tile in beat.tiles)
    others = [f", {n} {phase}" for phase in TilePhase if phase != TilePhase.RUNNING and (n := _count(beat, phase))]
    return f"{beat.name} (process {beat.pid}): {running} tiles{''.join(others)}, busy {beat.busy_percent}%"


def _count(beat: Heartbeat, phase: TilePhase) -> int:
    return sum(tile.phase == phase for tile in beat.tiles)
