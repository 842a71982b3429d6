"""The processes of a job in a world: workers with their stores, leaders, and the supervisors that start them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from random import Random
from typing import Any, Protocol

from kstate.api.specs import Topology
from kstate.clock import Step, Steps
from kstate.config import Settings
from kstate.coordinator.core import Rules
from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.leader import Leader, Office
from kstate.description import JobDescription
from kstate.errors import FINAL_EXIT_CODES, CorruptStateError, KstateError, RetryableError
from kstate.interfaces import Codecs
from kstate.messages import (
    Control,
    Heartbeat,
    JobHalted,
    OrderAnswered,
    PlanPublished,
    ProcessExited,
    TermStarted,
    TilePhase,
    TileReport,
    WorkerDied,
)
from kstate.plan import Member, Plan, Tile, TopicPartition, control_topic, reports_topic
from kstate.progress import SlotMap
from kstate.testing.memory_store import MemoryStore
from kstate.testing.world import Process, Status, World
from kstate.wire import decode_control, encode_report
from kstate.worker.edges import WorkerEdges
from kstate.worker.load import Load
from kstate.worker.worker import Worker

NOT_RESTARTED = FINAL_EXIT_CODES | {0}
"""Exit codes after which starting again would change nothing."""

RESTING = frozenset({"idle", "waiting", "standing-by"})
"""Steps at which a process has nothing to do."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What all processes of a job are made from."""

    topology: Topology
    description: JobDescription
    settings: Settings
    codecs: Codecs
    rules: Rules
    leader: type[Leader] = Leader
    until_end: bool = False
    """A bounded run."""


class Supervision(Protocol):
    """What supervisors do about processes that are gone."""

    def restart_delay(self, process: Process) -> float:
        """Seconds until one that is gone is started again."""
        ...

    def reports(self, process: Process) -> bool:
        """Whether its end is told to the leader, who otherwise misses its heartbeats."""
        ...

    def crash_store(self, store: MemoryStore) -> None:
        """Lose what was not durable."""
        ...


class QuickSupervision:
    """Starts again at once and tells; everything that was not flushed is lost."""

    def restart_delay(self, process: Process) -> float:  # noqa: ARG002 (the same for all)
        return 0.01

    def reports(self, process: Process) -> bool:  # noqa: ARG002 (the same for all)
        return True

    def crash_store(self, store: MemoryStore) -> None:
        store.crash(Random(0))


class Cluster:
    """Starts processes by name, and knows how they stand."""

    def __init__(self, world: World, blueprint: Blueprint, supervision: Supervision, logger: Any) -> None:
        self.world = world
        self.blueprint = blueprint
        self.supervision = supervision
        self.workers: dict[Process, Worker] = {}
        """Every worker ever, by its process."""
        self.live: dict[str, Worker] = {}
        """Incarnation → worker, of those that have neither ended nor crashed."""
        self._leaders: dict[Process, Leader] = {}
        self.stores: dict[str, MemoryStore] = {}
        """Data folders by worker name: they outlive processes."""
        self.processes: dict[str, Process] = {}
        """Every process ever, by its incarnation."""
        self.plans: list[Plan] = []
        """Every committed plan, in order; as the next four it is what `plan` has read so far."""
        self.dead: set[str] = set()
        """Whose death is committed."""
        self.leader = ""
        """Incarnation of the newest term's leader."""
        self.halted = False
        self.verdicts: dict[str, list[str]] = {}
        """Order → what was answered; more than one answer would be one too many."""
        self.refusals: dict[str, str] = {}
        """Order → why it was refused."""
        self._logger = logger
        self._stopped: set[Process] = set()
        """Workers that were told to stop: their exit code 0 does not say that the job is complete."""
        self._over = False
        """A bounded run is complete: nobody is started any more."""
        self._starts = count(1)
        self.control_topic = control_topic(blueprint.topology.app)
        self._control_position = 0
        self._beat = Step("beat", wait=blueprint.settings.failure.heartbeat_ms / 1000)

    # -- starting

    def start_worker(self, name: str) -> Process:
        """A new incarnation of a worker; a supervisor starts the next one when it is gone."""
        world, blueprint = self.world, self.blueprint
        member = Member(name, f"{name}.{next(self._starts)}", blueprint.description.build)
        store = self.stores.setdefault(name, MemoryStore())
        edges = WorkerEdges(world.log, store, blueprint.codecs, world.clock, self._logger)
        load = Load(blueprint.topology.app, member, "memory", 1)
        worker = Worker(blueprint.topology, blueprint.settings, edges, load, member)
        process = world.start(
            "worker", name, member.incarnation, worker.run(), self._beats(lambda: load.beat(world.log))
        )
        self.workers[process] = worker
        self.processes[member.incarnation] = process
        self.live[member.incarnation] = worker
        process.gone = self._worker_gone
        return process

    def start_leader(self, name: str) -> Process:
        """A new candidate for the leadership."""
        world, blueprint = self.world, self.blueprint
        incarnation = f"{name}.{next(self._starts)}"
        edges = LeaderEdges(world.log, world.clock, self._logger)
        office = Office(incarnation, until_end=blueprint.until_end, rules=blueprint.rules)
        leader = blueprint.leader(blueprint.description, blueprint.settings, edges, office)
        process = world.start("leader", name, incarnation, leader.run(), self._beats(leader.beat))
        self._leaders[process] = leader
        self.processes[incarnation] = process
        process.gone = lambda gone: self._gone(gone, self.start_leader)
        return process

    def _beats(self, beat: Callable[[], None]) -> Steps[None]:
        """The thread that sends heartbeats, whatever the main thread does."""
        while True:
            with suppress(RetryableError):  # the next one says the same
                beat()
            yield self._beat

    # -- ending

    def stop_worker(self, process: Process, restart_delay: float) -> None:
        """SIGTERM: it finishes its epoch and leaves; started again a while after that, as in a rolling restart."""
        if process in self._stopped:
            return
        self._stopped.add(process)
        self.workers[process].stop()
        gone = process.gone

        def then(process: Process) -> None:
            if gone is not None:
                gone(process)
            if exit_code(process) == 0:
                self.world.later(restart_delay, partial(self._restart, self.start_worker, process.name))

        process.gone = then

    def _worker_gone(self, process: Process) -> None:
        """Its store is closed, or left as a crash leaves it; a last heartbeat says why it went."""
        store = self.stores[process.name]
        del self.live[process.incarnation]
        if process.status is Status.CRASHED:
            self.supervision.crash_store(store)
        elif isinstance(process.result, CorruptStateError):
            self.stores[process.name] = MemoryStore()
        else:
            store.close()
            self._report(lambda: self.workers[process].load.beat(self.world.log))
        self._gone(process, self.start_worker)

    def _gone(self, process: Process, start: Callable[[str], Process]) -> None:
        code = exit_code(process)
        if self.supervision.reports(process):
            report = encode_report(ProcessExited(process.incarnation, code, restarts=code not in NOT_RESTARTED))
            topic = reports_topic(self.blueprint.topology.app)
            self._report(lambda: self.world.log.report(topic, {"value": report, "partition": 0}))
        if code not in NOT_RESTARTED:
            self.world.later(self.supervision.restart_delay(process), partial(self._restart, start, process.name))
        elif self.blueprint.until_end:
            self._end_when_complete()

    def _restart(self, start: Callable[[str], Process], name: str) -> None:
        if not self._over:
            start(name)

    def _end_when_complete(self) -> None:
        """As `kstate run` does: a bounded run is over when its leader, or every worker, has ended with exit code 0."""
        led = any(process.result == 0 for process in self._leaders)
        names = {process.name for process in self.workers}
        worked = {process.name for process in self.workers if process.result == 0 and process not in self._stopped}
        if led or worked == names:
            self._over = True
            for leader in self._leaders.values():
                leader.stop()
            for worker in self.workers.values():
                worker.stop()

    def _report(self, send: Callable[[], None]) -> None:
        try:
            send()
        except RetryableError:
            self.world.tell("reports", "a report is lost")

    # -- looking

    def plan(self) -> Plan | None:
        """The newest committed plan."""
        logs = self.world.log.broker.topics.get(self.control_topic)
        if logs is not None and logs[0].stable_end > self._control_position:
            log, start = logs[0], max(self._control_position, logs[0].start)
            self._control_position = log.stable_end
            for record in log.records(start, log.stable_end):
                self._take(decode_control(record.value or b""))
        return self.plans[-1] if self.plans else None

    def _take(self, message: Control) -> None:
        match message:
            case PlanPublished(plan, _, order):
                self.plans.append(plan)
                if order:
                    self.verdicts.setdefault(order, []).append("begun")
            case OrderAnswered(_, order, accepted, reason):
                self.verdicts.setdefault(order, []).append("nothing to do" if accepted else "refused")
                if not accepted:
                    self.refusals[order] = reason
            case WorkerDied(_, incarnation, _):
                self.dead.add(incarnation)
            case TermStarted(_, leader):
                self.leader = leader
            case JobHalted():
                self.halted = True

    def settled(self) -> bool:
        """All that was sent is processed and committed, every tile runs where the plan says, and nothing moves."""
        return next(self.unrest(), None) is None

    def unrest(self) -> Iterator[str]:
        """Why it is not settled, for people; what is quickly seen comes first."""
        if not self.world.quiet:
            yield "requests are under way"
        plan = self.plan()
        for process in self.world.running():
            if process in self.workers and process.main.at not in RESTING:
                yield f"{process.incarnation} is at {process.main.at}"
        yield from (f"{i} has an epoch to commit" for i, worker in self.live.items() if not worker.at_rest)
        if plan is None:
            yield "there is no plan"
            return
        yield from (f"{move} from {move.source} to {move.target} is {move.phase}" for move in plan.moves)
        beats = {incarnation: worker.load.snapshot for incarnation, worker in self.live.items()}
        yield from (f"{tile} of {tile.worker} is not done" for tile in plan.tiles if not self._is_done(tile, beats))
        yield from (f"{tile} of {tile.worker} is not joined with the one before" for tile in _touching(plan))
        yield from (f"{incarnation} is no member" for incarnation in self._outside(plan))
        yield from self._uncopied(plan, beats)

    def _outside(self, plan: Plan) -> Iterator[str]:
        """Live workers that are to join: those of another build than the leader's wait for as long as it leads."""
        builds = {incarnation: worker.load.snapshot.build for incarnation, worker in self.live.items()}
        yield from (i for i, build in builds.items() if build == plan.build and not plan.member(i))

    def _uncopied(self, plan: Plan, beats: Mapping[str, Heartbeat]) -> Iterator[str]:
        """The tiles that have not as many warm standbys as there are to be."""
        wanted = self.blueprint.settings.recovery.standbys
        able = {member.incarnation for member in plan.members} - set(plan.drained)
        for tile in plan.tiles if wanted else ():
            names = {s.worker for s in plan.standbys if (s.shard, s.key_range) == (tile.shard, tile.key_range)}
            warm = [name for name in names if name in beats and _is_warm(beats[name], tile)]
            expected = min(wanted, len(able - {tile.worker}))
            if len(warm) != expected or len(names) != expected:
                yield f"{tile} has {len(warm)} warm standbys of {len(names)}, expected {expected}"

    def _is_done(self, tile: Tile, beats: Mapping[str, Heartbeat]) -> bool:
        beat = beats.get(tile.worker or "")
        if beat is None:
            return False
        pieces = [piece for piece in beat.tiles if _runs(piece, tile)]
        if sum(piece.key_range.width for piece in pieces) != tile.key_range.width:
            return False
        positions = {(topic, offset) for piece in pieces for topic, offset in piece.progress.items()}
        return not any(self._more(TopicPartition(topic, tile.shard.partition), offset) for topic, offset in positions)

    def _more(self, source: TopicPartition, offset: int) -> bool:
        """Whether there is a record, or an open transaction, at or behind an offset."""
        log = self.world.log.partition(source)
        return log.stable_end < log.end or bool(log.records(max(offset, log.start), log.end))


def exit_code(process: Process) -> int:
    """How a process that is gone ended, as its supervisor sees it."""
    if process.status is Status.CRASHED:
        return -9
    if isinstance(process.result, KstateError):
        return process.result.exit_code
    return process.result if isinstance(process.result, int) else 1


def _touching(plan: Plan) -> list[Tile]:
    """Tiles that the leader is about to join with the one before them."""
    tiles = sorted(plan.tiles, key=lambda tile: (tile.shard, tile.key_range))
    return [
        right
        for left, right in pairwise(tiles)
        if (left.shard, left.worker, left.key_range.hi) == (right.shard, right.worker, right.key_range.lo)
    ]


def _is_warm(beat: Heartbeat, tile: Tile) -> bool:
    """Whether a worker has a copy of a tile that is not behind."""
    warm = (t for t in beat.tiles if t.phase == TilePhase.WARM and t.shard == tile.shard)
    return not SlotMap((t.key_range, True) for t in warm).gaps(tile.key_range)


def _runs(piece: TileReport, tile: Tile) -> bool:
    """Whether a report says that this worker runs a part of this tile under its present grant."""
    mine = piece.phase == TilePhase.RUNNING and piece.shard == tile.shard and piece.grant == tile.grant
    return mine and piece.key_range.overlap(tile.key_range) == piece.key_range
