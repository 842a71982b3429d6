"""Stories told step by step: a run in which the teller decides who stops where, and what fails.

Everything that the teller leaves alone goes on as a seed says, without faults: one story told with several seeds
is several interleavings of the same events.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from kstate.plan import Tile
from kstate.testing.memory_log import Call, Fault
from kstate.testing.sample_job import some_input
from kstate.testing.schedule import SeededDirector
from kstate.testing.simulation import Scenario, Simulation
from kstate.testing.violations import Kind
from kstate.testing.work import SampleWork
from kstate.testing.world import Actor, Process, Status

STORY = Scenario(workers=2, leaders=1)
TURNS_MAX = 20_000
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

    def end(self) -> None:
        self.cuts.clear()
        super().end()


class Story:
    """One run under the teller's hand."""

    def __init__(self, seed: int = 1, scenario: Scenario = STORY) -> None:
        rng = Random(seed)
        self.seed = seed
        self.director = ToldDirector(rng)
        self.work = SampleWork(rng)
        self.run = Simulation(scenario, self.work, self.director, rng)
        self.world = self.run.world
        self.cluster = self.run.cluster

    def feed(self, count: int) -> None:
        """Further input."""
        self.work.feed(self.world.log, some_input(Random(self.seed), count, first=1_000))

    def process(self, name: str) -> Process:
        """The running process of a name."""
        return next(process for process in self.world.running() if process.name == name)

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

    def release(self, process: Process) -> None:
        """SIGCONT."""
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
                r.phase == "running" and r.grant == tile.grant and r.shard == tile.shard
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
