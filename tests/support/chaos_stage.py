"""What a fault has to do with: the processes, who reads along, and the means to hold somebody where it is to strike."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.chaos_broker import ChaosBroker
from tests.support.chaos_control import ControlWatch, waited
from tests.support.chaos_events import HOLD, TELL, WANT, Blow, Mark, Marks, Want, doubt
from tests.support.chaos_feed import Progress
from tests.support.chaos_moves import Mover
from tests.support.chaos_observer import Lost, Observer, Recovery, recovery_of
from tests.support.chaos_troupe import Player, Troupe
from tests.support.cluster import Cluster
from tests.support.oracle import ends

FOUND_SECONDS = 12.0
"""How long somebody is waited for that stands where a fault is to strike."""
RECOVER_SECONDS = 90.0
"""Whoever has not recovered by then is stuck."""
LAG_SECONDS = 2.0
"""The job counts as being up to date when no more of the feed than that was not yet seen."""
STALE_SECONDS = 4.0
"""And when every small range of keys brought something within that time."""
CATCH_UP_SECONDS = 6.0
"""How long a backlog is waited for when all else is well: a machine may be too slow for the load, which is no fault."""
LAG_MIN = 4_000
"""Or no more than so many records, of a slow feed."""


@dataclass(slots=True)
class Outcome:
    """What became of one fault."""

    kind: str
    victim: str = ""
    at: float = 0.0
    """Seconds since the beginning of the run."""
    counted: bool = False
    doubt: str = ""
    """Why it does not count."""
    first_s: float | None = None
    """From the blow to the next committed output of the keys that it struck."""
    recovered_s: float | None = None
    """The same, of the last of the tiles that it struck."""
    led_s: float | None = None
    """Until somebody else led."""
    settled_s: float | None = None
    """Until everything ran again."""
    stuck: str = ""
    """What did not come back."""
    held: Mark | None = None
    """Who stood where, as its own event log says."""
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Stage:
    """One run."""

    cluster: Cluster
    broker: ChaosBroker
    troupe: Troupe
    control: ControlWatch
    observer: Observer
    mover: Mover | None
    counter: Path
    """Of the feed."""
    dice: random.Random
    rate: int
    """Of the feed."""
    freeze_s: tuple[float, float]
    """How long a process stands still, at least and at most."""
    began: float = field(default_factory=time.monotonic)
    marks: Marks = field(init=False)
    _wants: int = 0

    def __post_init__(self) -> None:
        self.marks = Marks(self.cluster.folder)
        (self.cluster.folder / HOLD).mkdir(exist_ok=True)

    # -- holding

    @contextmanager
    def held(self, want: Want, seconds: float = FOUND_SECONDS) -> Iterator[Mark | None]:
        """Somebody stands still for as long as the block lasts (or until `let_go`); None when nobody came there."""
        self._wants += 1
        want = replace(want, id=self._wants)
        folder = self.cluster.folder
        hold, path = folder / HOLD / str(want.id), folder / WANT
        hold.touch()
        draft = path.with_suffix(".draft")
        draft.write_text(want.written())
        draft.rename(path)
        try:
            waited(lambda: self.marks.held(want.id) is not None, seconds, 0.005)
            if self.marks.held(want.id) is None:
                path.unlink(missing_ok=True)
                waited(lambda: self.marks.held(want.id) is not None, 0.1, 0.005)  # taken at the last moment
            yield self.marks.held(want.id)
        finally:
            path.unlink(missing_ok=True)
            hold.unlink(missing_ok=True)

    def let_go(self, held: Mark) -> None:
        """Whoever is held goes on."""
        (self.cluster.folder / HOLD / str(held.want)).unlink(missing_ok=True)

    # -- looking

    def progress(self) -> Progress:
        """Of the feed."""
        return Progress.read(self.counter)

    def lag(self) -> int:
        """Records of the feed that have not gone through both stages yet."""
        progress = self.progress()
        seen = min(self.observer.records(self.cluster.topic(name)) for name in ("running", "groups"))
        return progress.written - progress.dropped - seen

    def up_to_date(self) -> bool:
        """Everybody runs, everything has an owner that runs it, and there is no backlog."""
        return self.lag() < max(LAG_SECONDS * self.rate, LAG_MIN) and self.goes_on()

    def goes_on(self) -> bool:
        """Everybody runs, everything has an owner that runs it, and every small range of keys brings something."""
        running = all(player.due is None for player in self.troupe.players.values())
        return running and self.observer.stalest()[0] < STALE_SECONDS and self.control.settled()

    def trouble(self) -> str:
        """What the threads of the run, or the processes, have to complain about."""
        threads = (self.control, self.observer, self.mover)
        failures = [repr(thread.failure) for thread in threads if thread is not None and thread.failure is not None]
        return "; ".join(failures)

    def described(self) -> str:
        """How things stand, for somebody who looks for the reason why they do not go on."""
        plan = self.control.plan
        seconds, cell = self.observer.stalest()
        lines = [f"lag {self.lag():,} records; nothing of {cell} for {seconds:.1f} s"]
        lines += [f"leader {self.control.leader}, term {self.control.term}"]
        if plan is not None:
            lines += [f"plan {plan.version}: {json.dumps([str(m) for m in plan.moves])}"]
            lines += [f"  {tile} -> {tile.worker} (grant {tile.grant})" for tile in plan.tiles]
            lines += [f"  {move.phase} {move}: {move.source} -> {move.target}" for move in plan.moves]
        for beat in self.control.beats.values():
            if (player := self.troupe.named(beat.incarnation)) is not None:
                tiles = ", ".join(f"{t.shard} {t.key_range} {t.phase} g{t.grant}" for t in beat.tiles)
                lines.append(f"{player.name}: beat {beat.sequence}, plan {beat.plan_version}: {tiles}")
        return "\n".join(lines)

    def tell_all(self) -> str:
        """Everybody writes down where it stands; processes that take no steps print the stacks of their threads."""
        (self.cluster.folder / TELL).touch()
        time.sleep(2.0)
        for player in [*self.troupe.workers(), *self.troupe.coordinators()]:
            if player.process is not None:
                player.process.signal(signal.SIGUSR1)
        return self.described()

    # -- after a blow

    def output_ends(self) -> dict[tuple[str, int], int]:
        """Read_uncommitted ends of the outputs by (operator, partition)."""
        topics = {"accounts": self.cluster.topic("running"), "groups": self.cluster.topic("groups")}
        server = self.broker.servers
        return {(uid, p): end for uid, topic in topics.items() for p, end in ends(server, topic).items()}

    def follow(self, lost: list[Lost], since: float) -> Recovery:
        """When the keys of these tiles bring something again."""
        return self.observer.follow(recovery_of(lost, since, self.output_ends()))

    def everything(self) -> list[Lost]:
        """All tiles."""
        plan = self.control.plan
        return [Lost(t.shard.operator, t.shard.partition, t.key_range) for t in plan.tiles] if plan else []

    def judge(self, outcome: Outcome, blow: Blow) -> None:
        """Whether it counts."""
        outcome.doubt = doubt(blow, self.marks.all())
        outcome.counted = not outcome.doubt
        outcome.at = round(blow.at - self.began, 3)

    def await_recovery(self, outcome: Outcome, recovery: Recovery | None) -> None:
        """Wait until all is well again, and note how long it took. Moves go on until the lost keys are back."""
        begun = time.monotonic()
        since = recovery.since if recovery else begun
        if recovery is not None:
            waited(lambda: recovery.over or self.trouble(), RECOVER_SECONDS)
            outcome.first_s = _elapsed(since, recovery.first)
            if recovery.over:
                outcome.recovered_s = _elapsed(since, recovery.last)
            else:
                outcome.stuck = f"no output of {len(recovery.waiting)} tiles for {RECOVER_SECONDS} s"
        if self.mover is not None:
            self.mover.rest()
        if waited(lambda: self.goes_on() or self.trouble(), RECOVER_SECONDS) and not self.trouble():
            outcome.settled_s = round(time.monotonic() - since, 3)
            if not waited(self.up_to_date, CATCH_UP_SECONDS):
                outcome.notes.append(f"{self.lag():,} records behind")
        else:
            outcome.stuck = (outcome.stuck + f"; {self.trouble()} not running; ").strip("; ") + "\n" + self.tell_all()
        if self.mover is not None:
            self.mover.work()

    def back(self, player: Player) -> float:
        """After how many seconds a killed process is started again: at once, soon, or after others took over."""
        if player.command == "coordinator":
            return self.dice.choice((0.2, 4.0))
        return self.dice.choice((0.1, 0.1, 2.5, 5.0))


def _elapsed(since: float, until: float | None) -> float | None:
    return None if until is None else round(until - since, 3)
