"""What is done to the running job: a quiet while, a split, a kill, a merge, and a fair share for whoever came back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo.evidence import Recovering
from benchmarks.demo.orders import Desk, Ordered
from benchmarks.demo.stage import Missed, Stage
from benchmarks.demo.standing import is_uneven, name_of, shares
from benchmarks.demo.timeline import Carried, Deed
from benchmarks.demo.topics import uncommitted_ends
from benchmarks.demo.victim import Victim
from kstate.adapters.process import new_order_id
from kstate.keyspace import FULL_RANGE, SLOTS
from kstate.messages import Order, OrderKind
from kstate.plan import Plan, Shard, Tile, backup_topic

APP, LINES, COUNTS = "running-count", "lines", "running-counts"
SPLIT, COUNT = "split", "count"

START_SECONDS = 60.0
LEVEL_SECONDS = 5.0
RECOVERY_SECONDS = 40.0
MOMENT_SECONDS = 10.0
"""For so long a moment is waited for at which the victim surely has something in hand."""
IN_HAND_MIN = 100
"""Records, of all keys of the partitions that it reads."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The worker that was killed, its plan, the read_uncommitted ends when it was gone, and what followed."""

    victim: Victim
    at: float
    plan: Plan
    ends: dict[tuple[str, int], int]
    lost: tuple[Tile, ...]
    """Its tiles of the counting operator."""
    recovering: Recovering


@dataclass(frozen=True, slots=True)
class Split:
    """The tile that was cut, the order that did it; workers by incarnation."""

    shard: Shard
    source: str
    target: str
    ordered: Ordered


class Acts:
    """The acts in their order; what was done stays known when one of them is missed."""

    def __init__(self, stage: Stage, servers: str, log: Path) -> None:
        self.deeds: list[Deed] = []
        self.split: Split | None = None
        self.kill: Kill | None = None
        self.merge: Ordered | None = None
        """None: it was not done, or recovery had brought the parts together already."""
        self.missed = ""
        """Why the acts ended before the last one."""
        self._stage = stage
        self._servers = servers
        self._log = log
        self._desk = Desk(servers, APP)
        self._tell = stage.screen.tell

    def play(self) -> None:
        """All of them, or as far as it goes."""
        for act in (self._begin, self._rest, self._do_split, self._do_kill, self._do_merge, self._do_share):
            try:
                act()
            except Missed as missed:
                self.missed = f"{act.__name__.removeprefix('_do_').removeprefix('_')}: {missed}"
                self._tell(f"missed: {self.missed}")
                return

    def _begin(self) -> None:
        """The load begins when everybody runs, or the job would start with a backlog."""
        self._stage.until_running(START_SECONDS)
        self._stage.load.start()
        self._tell(f"every worker runs its tiles; {self._stage.scale.words_per_s:,} words/s are written from now on")
        self._stage.until(self._unheard, START_SECONDS)
        self._stage.until_level(LEVEL_SECONDS)

    def _rest(self) -> None:
        """Nothing is done: what gaps are there anyway?"""
        since, scale = time.monotonic(), self._stage.scale
        self._tell(f"--- nothing is done to the job for {scale.quiet_s:.0f} s")
        self._stage.wait(scale.quiet_s)
        until = time.monotonic()
        self.deeds.append(Deed("nothing", since, until, until))

    def _do_split(self) -> None:
        """Half of the keys of a partition go to the other worker."""
        source, target = self._stage.plan.members[:2]
        tiles = self._stage.plan.owned_by(source.incarnation)
        shard = next((tile.shard for tile in tiles if tile.shard.operator == COUNT), None)
        if shard is None:
            raise Missed(f"{source.name} counts no words")
        self._tell(f"--- kstate split {APP} {COUNT} {shard.partition} --at 0.5 --to {target.name}")
        order = Order(new_order_id(), OrderKind.SPLIT, shard, target=target.name, at=SLOTS // 2)
        ordered = self._ordered(order, "split")
        self.split = Split(shard, source.incarnation, target.incarnation, ordered)
        self._aftermath()

    def _do_kill(self) -> None:
        """The worker that got the half is killed in mid-epoch."""
        assert self.split is not None
        victim = Victim(self._stage.beats[self.split.target], self._log)
        self._tell(f"--- kill -9 of {victim.beat.name}, in the middle of an epoch")
        self._await_moment(victim)
        self.kill = kill = self._killed(victim)
        self._stage.until(lambda: self._silence(kill), RECOVERY_SECONDS)
        self._stage.watch.keeping = False
        self._stage.until_running(RECOVERY_SECONDS)
        self.deeds.append(self._kill_deed(kill))
        self._aftermath()

    def _do_merge(self) -> None:
        """The halves come together again at whose they were."""
        assert self.split is not None
        shard, plan = self.split.shard, self._stage.plan
        owners = {tile.worker for tile in plan.tiles if tile.shard == shard}
        if len(owners) > 1:
            name = name_of(self.split.source, self._stage.beats)
            self._tell(f"--- kstate merge {APP} {COUNT} {shard.partition} --to {name}")
            self.merge = self._ordered(Order(new_order_id(), OrderKind.MERGE, shard, target=name), "merge")
        else:
            self._tell(f"--- {shard} is whole again: recovery brought its parts to one worker")
        self._stage.until(lambda: self._parts(shard), START_SECONDS)
        self._aftermath()

    def _do_share(self) -> None:
        """Who came back with less than the others gets its share."""
        if not is_uneven(self._stage.plan):
            return
        self._tell("--- kstate rebalance " + APP)
        self._ordered(Order(new_order_id(), OrderKind.REBALANCE), "rebalance")
        self._aftermath()

    # -- parts of acts

    def _unheard(self) -> str:
        silent = sum(not seen for seen in self._stage.watch.times.values())
        return f"{silent} key groups have no result" if silent else ""

    def _ordered(self, order: Order, name: str) -> Ordered:
        ordered = self._desk.give(order, self._stage)
        self.deeds.append(ordered.deed(name, self._stage))
        return ordered

    def _aftermath(self) -> None:
        """Until the job stands as planned, and for as long as effects are looked for."""
        self._stage.until_running(START_SECONDS)
        self._stage.until_level(LEVEL_SECONDS)
        self._stage.wait(self._stage.scale.after_s + 2 * self._stage.scale.epoch_s)

    def _await_moment(self, victim: Victim) -> None:
        """Until the victim has something in hand early in an epoch: it will not commit in the next moment."""
        for _ in self._stage.ticks(MOMENT_SECONDS):
            victim.look()
            if victim.is_early(self._stage.scale.epoch_s / 2, IN_HAND_MIN):
                return
        raise Missed(f"{victim.beat.name} had never {IN_HAND_MIN} records in hand early in an epoch")

    def _killed(self, victim: Victim) -> Kill:
        plan, watch = self._stage.plan, self._stage.watch
        watch.keeping = True
        at = victim.kill()
        victim.look()
        in_hand = f"{victim.diary.in_hand:,} records in hand, uncommitted"
        self._tell(f"SIGKILL to {victim.beat.name} (process {victim.beat.pid}), which has {in_hand}")
        topics = [COUNTS, *(backup_topic(APP, uid) for uid in (SPLIT, COUNT))]
        ends = uncommitted_ends(self._servers, {topic: plan.partitions[topic] for topic in topics})
        lost = tuple(tile for tile in plan.owned_by(victim.beat.incarnation) if tile.shard.operator == COUNT)
        by_group = {
            group: tile for group in watch.times for tile in lost if group.within(tile.shard.partition, tile.key_range)
        }
        results = {partition: end for (topic, partition), end in ends.items() if topic == COUNTS}
        return Kill(victim, at, plan, ends, lost, Recovering(at, results, by_group))

    def _silence(self, kill: Kill) -> str:
        """Which of the lost tiles were not heard of again."""
        kept = self._stage.watch.kept
        while kept:
            kill.recovering.take(kept.popleft())
        silent = kill.recovering.silent
        return f"{silent} of {len(kill.lost)} lost tiles were not heard of again" if silent else ""

    def _kill_deed(self, kill: Kill) -> Deed:
        back, beats = kill.recovering.result, self._stage.beats
        assert back is not None
        name, done = kill.victim.beat.name, kill.at + back.all_s
        moved = tuple(
            Carried(now.shard, part, name, name_of(now.worker, beats))
            for lost in kill.plan.owned_by(kill.victim.beat.incarnation)
            for now in self._stage.plan.tiles
            if now.shard == lost.shard and (part := now.key_range.overlap(lost.key_range))
        )
        course = f"results again {back.first_s:.2f}, of all {back.all_s:.2f} s"
        return Deed(f"kill -9 {name}", kill.at, done, done + self._stage.scale.after_s, moved, course)

    def _parts(self, shard: Shard) -> str:
        ranges = [tile.key_range for tile in self._stage.plan.tiles if tile.shard == shard]
        return "" if ranges == [FULL_RANGE] else f"{shard} has still {len(ranges)} parts"


def told_shares(plan: Plan) -> str:
    """How many tiles everybody has."""
    return ", ".join(f"{name} has {count} tiles" for name, count in shares(plan).items())
