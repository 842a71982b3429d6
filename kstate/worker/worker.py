"""The worker: one process of the data plane, as a sequence of named steps.

    opening ──▶ waiting ──▶ working ──▶ stopped
       ▲  (S3)    named       │
       └──────────────────────┘ a tainted transaction: open anew and look (S4)

It opens its transactional id, reads the control topic to a fresh end, heartbeats until a plan names it, and then
repeats: poll bounded batches, process them, commit the epoch. What it was granted is restored beside what runs
already. Being declared dead, or fenced, ends it; its successor starts where its last marker says.
"""

from __future__ import annotations

from kstate.api.specs import Topology
from kstate.clock import Steps
from kstate.config import Settings
from kstate.errors import CorruptStateError, FencedError, KstateError
from kstate.plan import Member
from kstate.worker.assembly import Assembly
from kstate.worker.control import ControlFollower
from kstate.worker.edges import WorkerEdges
from kstate.worker.lifecycle import Session
from kstate.worker.load import Load
from kstate.worker.running_epoch import RunningEpoch
from kstate.worker.tiles import Tiles


class Worker:
    """Runs the tiles that plans grant to one incarnation.

    Invariant: a plan is taken in between two epochs; a range leaves only by its own RELEASE (S6).
    """

    def __init__(self, topology: Topology, settings: Settings, edges: WorkerEdges, load: Load, member: Member) -> None:
        self.load = load
        self._logger = edges.logger
        control = ControlFollower(edges.log, topology.app, edges.clock, member.build)
        assembly = Assembly(topology, edges.codecs, settings, edges.logger)
        self._session = Session(edges.log, control, member, edges.clock, edges.logger)
        self._tiles = Tiles(assembly, edges, load, member.incarnation)
        self._epoch = RunningEpoch(self._tiles, self._session, edges, assembly)
        self._stopping = False
        self._exit_code = 0

    def _work(self) -> Steps[None]:
        """The loop; all else is how a worker gets here, and leaves."""
        while not self._stopping:
            yield from self._session.follow()
            self._apply_plan()
            yield from self._tiles.adopt(lambda: self._stopping)
            yield from self._epoch.process()
            if self._epoch.due():
                yield from self._commit()
        if not self._epoch.in_doubt:
            yield from self._commit()

    def _commit(self) -> Steps[None]:
        """Commit the epoch; one in doubt is left as it is when the worker is to stop, as if it had been killed."""
        for step in self._epoch.commit():
            yield step
            if self._stopping and self._epoch.in_doubt:
                return

    def _apply_plan(self) -> None:
        """Take in what a new plan grants; stop when the job is halted or complete."""
        control, tiles = self._session.control, self._tiles
        if control.halted is not None:
            self._stopping, self._exit_code = True, control.halted.exit_code
        if control.plan is not None and control.plan is not tiles.plan:
            tiles.take(control.plan, control.own)
            self._stopping = self._stopping or control.plan.complete

    @property
    def at_rest(self) -> bool:
        """Nothing is under way that the next commit would record."""
        return self._epoch.empty

    def stop(self) -> None:
        """Finish the running epoch, then end (SIGTERM)."""
        self._stopping = True

    def run(self) -> Steps[int]:
        """The whole life; the result is the exit code (kstate.errors). Only damage of the local store is raised."""
        try:
            yield from self._until_stopped(self._session.open())
            self.load.opened()
            yield from self._until_stopped(self._session.await_membership())
            yield from self._work()
            self._tiles.close()
            self.load.leaving()
        except CorruptStateError:
            raise
        except FencedError as error:
            self._logger.warning("stopped", reason=str(error))
            self._exit_code = error.exit_code
        except KstateError as error:
            self._logger.error("stopped", reason=str(error))
            self.load.fatal(error)
            self._exit_code = error.exit_code
        return self._exit_code

    def _until_stopped(self, steps: Steps[None]) -> Steps[None]:
        """What comes before there is anything to finish may be left at any step."""
        for step in steps:
            if self._stopping:
                return
            yield step
