"""Stories told step by step: a run in which the teller decides who stops where, and what fails.

Everything that the teller leaves alone goes on as a seed says, without faults: one story told with several seeds
is several interleavings of the same events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from kstate.keyspace import KeyRange
from kstate.messages import Order, OrderKind, TilePhase
from kstate.plan import Move, MovePhase, Shard, Tile
from kstate.testing.memory_log import Call, Fault
from kstate.testing.orders import send_order
from kstate.testing.sample_job import some_input
from kstate.testing.schedule import SeededDirector
from kstate.testing.simulation import Scenario, Simulation
from kstate.testing.violations import Kind
from kstate.testing.work import SampleWork
from kstate.testing.world import FOR_EVER, Actor, Process, Status

STORY = Scenario(workers=2, leaders=1)
ORDERS_MAX = 100
"""So often an order is repeated."""
TURNS_MAX = 6_000
"""Something that has not come after so many turns does not come."""


class ToldDirector(SeededDirector):
    """Lets fail what it is told to, and remembers who took the last step."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.calm = True
        self.last: tuple[Process, str] | None = None
        self.cuts: dict[Process, Callable[[Call], Fault | None]] = {}
        self.restart_s = 0.05

    def stepped(self, actor: Actor) -> None:
        if actor is actor.process.main:
            self.last = (actor.process, actor.at)

    def fault(self, actor: Actor | None, call: Call) -> Fault | None:
        cut = self.cuts.get(actor.process) if actor else None
        return cut(call) if cut else None

    def restart_delay(self, process: Process) -> float:  # noqa: ARG002 (all alike)
        return self.restart_s

    def reports(self, process: Process) -> bool:  # noqa: ARG002 (all alike)
        """Who is told of an end expects a successor soon."""
        return self.restart_s < 1.0

    def end(self) -> None:
        self.cuts.clear()
        super().end()


class Story:
    """One run under the teller's hand."""

    def __init__(self, seed: int = 1, scenario: Scenario = STORY) -> None:
        rng = Random(seed)
        self.seed = seed
        self._orders, self._fed = 0, 1_000 * (1 + seed)
        self.director = ToldDirector(rng)
        self.work = SampleWork(rng)
        self.run = Simulation(scenario, self.work, self.director, rng)
        self.world = self.run.world
        self.cluster = self.run.cluster

    def feed(self, count: int) -> None:
        """Further input."""
        self.work.feed(self.world.log, some_input(Random(self._fed), count, first=self._fed))
        self._fed += count

    def process(self, name: str) -> Process:
        """The running process of a name."""
        return next(process for process in self.world.running() if process.name == name)

    def owner(self, shard: Shard, slot: int = 0) -> Process:
        """Whom the newest plan names for a slot; goes on until there is a plan and it runs there."""
        self.until(lambda: self._runner(shard, slot) is not None)
        found = self._runner(shard, slot)
        assert found is not None, "nobody comes to run it"
        return found

    def others(self, *processes: Process) -> list[Process]:
        """The running workers beside these, by name."""
        workers = [p for p in self.world.running() if p.role == "worker" and p not in processes]
        return sorted(workers, key=lambda process: process.name)

    def reach(self, process: Process, step: str) -> bool:
        """Go on until a process has just taken a step; False when it ends, or never comes there."""
        self.director.last = None
        self.until(lambda: self.director.last == (process, step) or process.status is not Status.RUNNING)
        return self.director.last == (process, step)

    def until(self, condition: Callable[[], bool]) -> bool:
        """Go on until something is so; False when it never is."""
        return self.world.run(condition, TURNS_MAX)

    def turns(self, count: int) -> None:
        """Go on for a while."""
        for _ in range(count):
            self.world.turn()

    def hold(self, process: Process) -> None:
        """SIGSTOP."""
        self.world.hold(process)

    def slow(self, process: Process) -> None:
        """Its main thread stands still until it is released; heartbeats go on."""
        process.main.wake = FOR_EVER

    def release(self, process: Process) -> None:
        """SIGCONT; or it is slow no more."""
        self.world.release(process)

    def fails(self, process: Process, operation: str, fault: Fault) -> None:
        """The process's next call of an operation on its transactional id meets a fault."""
        self.world.log.inject(operation, fault, process.incarnation)

    def cut(self, process: Process, cut: Callable[[Call], Fault | None]) -> None:
        """Decide what every call of a process meets from now on."""
        self.director.cuts[process] = cut

    def uncut(self, process: Process) -> None:
        """Its calls are answered again."""
        self.director.cuts.pop(process, None)

    # -- moves

    def order(self, order: Order) -> None:
        """Give an order, and go on until control has answered it."""
        for _ in range(ORDERS_MAX):
            self.cluster.plan()
            if order.id in self.cluster.verdicts:
                return
            send_order(self.cluster, order)
            self.turns(60)
        raise AssertionError(f"nobody answers {order}")

    def move(self, shard: Shard, key_range: KeyRange, target: Process) -> None:
        """Order a move, and go on until it is under way."""
        self._orders += 1
        self.order(Order(f"move-{self._orders}", OrderKind.MOVE, shard, key_range, target=target.name))

    def moved(self, shard: Shard, key_range: KeyRange, target: Process) -> None:
        """Order a move, and go on until it is done."""
        self.move(shard, key_range, target)
        assert self.until(lambda: not self.moves() and self.cluster.settled()), self.run.unrest()

    def moves(self) -> Sequence[Move]:
        """Those under way by the newest plan."""
        plan = self.cluster.plan()
        return plan.moves if plan else ()

    def until_release(self) -> Move:
        """Go on until the release of the first move is ordered; the move."""
        assert self.until(lambda: any(move.phase is MovePhase.RELEASE for move in self.moves())), self.run.unrest()
        return next(move for move in self.moves() if move.phase is MovePhase.RELEASE)

    def has_released(self, move: Move) -> bool:
        """Whether its source has committed the release."""
        return self.run.oracle.handovers.has_released(move.shard, move.key_range, move.id)

    def is_releasing(self, process: Process) -> bool:
        """Whether its open transaction releases something."""
        return any(marker.move is not None for _, marker in self.run.oracle.undecided(process.incarnation))

    def runs(self, process: Process, shard: Shard, slot: int) -> bool:
        """Whether a worker says that it runs a slot."""
        worker = self.cluster.live.get(process.incarnation)
        tiles = worker.load.snapshot.tiles if worker else ()
        return any(t.phase == TilePhase.RUNNING and t.shard == shard and slot in t.key_range for t in tiles)

    # -- looking

    def _runner(self, shard: Shard, slot: int) -> Process | None:
        plan = self.cluster.plan()
        tiles = [t for t in plan.tiles if t.shard == shard and slot in t.key_range] if plan else []
        process = self.cluster.processes.get((tiles[0].worker if tiles else None) or "")
        return process if process is not None and self.runs(process, shard, slot) else None

    def tiles(self, process: Process) -> list[Tile]:
        """What the newest plan says is its."""
        plan = self.cluster.plan()
        return [] if plan is None else list(plan.owned_by(process.incarnation))

    def given_away(self, *processes: Process) -> bool:
        """Every tile of the newest plan runs at somebody else."""
        plan = self.cluster.plan()
        if plan is None:
            return False
        reports = {i: w.load.snapshot.tiles for i, w in self.cluster.live.items()}
        gone = {process.incarnation for process in processes}
        return all(
            tile.worker not in gone
            and any(
                r.phase == TilePhase.RUNNING and r.grant == tile.grant and r.shard == tile.shard
                for r in reports.get(tile.worker or "", ())
            )
            for tile in plan.tiles
        )

    def no_control(self, call: Call) -> Fault | None:
        """For `cut`: the control topic does not answer."""
        return Fault.RETRYABLE if call == Call("poll", self.cluster.control_topic) else None

    def verdict(self) -> set[Kind]:
        """End it as every run ends; the kinds of violation that were found."""
        return {violation.kind for violation in self.run.finish()}
