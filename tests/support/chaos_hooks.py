"""A worker or coordinator under a chaos run: it writes down which phases of moves it sees, and stands still on order.

The processes are the real ones, started by the real commands. The module with the job, which the commands import,
installs this; it wraps `Worker.run` and `Leader.run` so that each named step passes through our hands, and does nothing
in a process that no run has started. What is wanted, written and read is described in `chaos_events`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from kstate.coordinator.observed import name_of
from kstate.messages import Heartbeat
from kstate.plan import Move, Plan
from tests.support.chaos_events import (
    EVENTS,
    HOLD,
    IN_HANDLER,
    TELL,
    WANT,
    Mark,
    Phase,
    Role,
    Want,
    accepted,
    seen_by_leader,
    seen_by_source,
    seen_by_target,
)
from tests.support.sabotage import FOLDER_VARIABLE

STEPS_TOLD = 60
LOOK_SECONDS = 0.002
"""How often the want is looked for, at most: a process takes thousands of steps a second."""

Seen = tuple[Role, Phase, Move]


class Actor(Protocol):
    """What is watched: a worker or a leader."""

    name: str
    incarnation: str

    def plan(self) -> Plan | None: ...

    def moves(self) -> list[Seen]: ...

    def hand(self) -> int: ...

    def leads(self) -> bool: ...

    def inside(self) -> object:
        """Whatever helps to understand why it does not go on."""
        ...

    def news(self) -> object:
        """Changes identity when `moves` may have changed."""
        ...


class WorkerActor:
    """A worker, seen from within its process."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.name: str = worker._session.member.name
        self.incarnation: str = worker._session.member.incarnation

    def plan(self) -> Plan | None:
        plan: Plan | None = self._worker._tiles.plan
        return plan

    def news(self) -> object:
        return self.plan(), self._worker.load.snapshot

    def moves(self) -> list[Seen]:
        plan, tiles = self.plan(), self._worker.load.snapshot.tiles
        found: list[Seen] = []
        for move in plan.moves if plan else ():
            if move.source == self.incarnation:
                found.append((Role.SOURCE, seen_by_source(move, tiles), move))
            if move.target == self.incarnation:
                found.append((Role.TARGET, seen_by_target(move, tiles), move))
        return found

    def hand(self) -> int:
        return sum(processor.rejects.handled for processor in self._worker._tiles.processors.values())

    def leads(self) -> bool:
        return False

    def inside(self) -> object:
        inputs = self._worker._tiles._inputs
        reader = inputs._reader
        kept = ("_positions", "_at_end", "_faults", "_silent_since", "_assigned")
        told = {name: str(getattr(reader, name, None)) for name in kept}
        shards = {str(name): repr(shard.positions()) for name, shard in self._worker._tiles.shards.items()}
        return {"inputs": str(inputs._positions), "reader": told, "shards": shards}


class LeaderActor:
    """A candidate for the leadership; what it hears from workers is noted on the way."""

    def __init__(self, leader: Any) -> None:
        self._leader = leader
        self.name = "coordinator"
        self.incarnation: str = leader._office.name
        self._heard: dict[str, Heartbeat] = {}
        self._count = 0
        observe = leader._observe

        def noted(event: Any) -> None:
            if isinstance(event, Heartbeat):
                self._heard[event.incarnation] = event
                self._count += 1
            observe(event)

        leader._observe = noted

    def plan(self) -> Plan | None:
        plan: Plan | None = self._leader.state.control.plan
        return plan

    def news(self) -> object:
        return self.plan(), self._count

    def moves(self) -> list[Seen]:
        plan = self.plan()
        if plan is None or not self.leads():
            return []
        return [
            (Role.LEADER, seen_by_leader(move, self._tiles(move.source), self._tiles(move.target)), move)
            for move in plan.moves
        ]

    def _tiles(self, incarnation: str) -> Iterable[Any]:
        beat = self._heard.get(incarnation)
        return beat.tiles if beat else ()

    def hand(self) -> int:
        return 0

    def leads(self) -> bool:
        return bool(self._leader.state.control.leader == self.incarnation)

    def inside(self) -> object:
        return {"present": str(self._leader.state.present), "recovery": str(self._leader.state.recovery)}


class Hooks:
    """In the process of one worker or coordinator."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = os.open(folder / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._actor: Actor | None = None
        self._want: Want | None = None
        self._looked = 0.0
        self._news: object = None
        self._seen: list[Seen] = []
        self._steps: deque[tuple[float, str]] = deque(maxlen=STEPS_TOLD)
        self._told = False

    def run(self, actor: Actor, steps: Generator[Any, None, int]) -> Generator[Any, None, int]:
        """The actor's own steps, each of them looked at."""
        self._actor = actor
        self._note("started")
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                self._note("ended", step=str(end.value))
                return int(end.value)
            self._notice()
            self._look(step.name)
            if self._want is not None:
                self._reached(step.name)
            yield step

    def in_handler(self) -> None:
        """Called by user code for every record."""
        if self._want is not None and self._want.step == IN_HANDLER:
            self._reached(IN_HANDLER)

    def _notice(self) -> None:
        """Write down each move that is seen in a new phase."""
        assert self._actor is not None
        news = self._actor.news()
        if news == self._news:
            return
        self._news = news
        before, self._seen = {(role, phase, name_of(move)) for role, phase, move in self._seen}, self._actor.moves()
        for role, phase, move in self._seen:
            if (role, phase, name_of(move)) not in before:
                self._note("phase", (role, phase, move))

    def _look(self, step: str) -> None:
        """Whether anybody is wanted."""
        now = time.monotonic()
        self._steps.append((now, step))
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            self._want = Want.read((self._folder / WANT).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            self._want = None
            if not self._told and (self._folder / TELL).exists():
                self._tell_all()

    def _tell_all(self) -> None:
        """Where it stands."""
        assert self._actor is not None
        self._told = True
        told = {"name": self._actor.name, "incarnation": self._actor.incarnation, "inside": self._actor.inside()}
        steps = [f"{at:.3f} {step}" for at, step in self._steps]
        (self._folder / f"{os.getpid()}.told").write_text(json.dumps({**told, "steps": steps}, indent=1))

    def _reached(self, step: str) -> None:
        want, actor = self._want, self._actor
        assert want is not None
        assert actor is not None
        if want.who not in ("", actor.name, actor.incarnation) or want.step not in ("", step):
            return
        if actor.hand() < want.hand:
            return
        seen = self._wanted(want)
        if want.phase is not Phase.NONE and seen is None:
            return
        if want.phase is Phase.NONE and actor.leads() != (want.role is Role.LEADER):
            return
        taken = self._folder / f"{WANT}.{want.id}"
        self._want = None
        try:
            (self._folder / WANT).rename(taken)
        except FileNotFoundError:
            return  # somebody else was first
        self._hold(want, step, seen)

    def _wanted(self, want: Want) -> Seen | None:
        assert self._actor is not None
        for role, phase, move in self._seen:
            if role == want.role and phase in accepted(want):
                return role, phase, move
        return None

    def _hold(self, want: Want, step: str, seen: Seen | None) -> None:
        """Stand still while the file is there."""
        hold = self._folder / HOLD / str(want.id)
        until = time.monotonic() + want.seconds_max
        self._note("held", seen, step=step, want=want)
        while hold.exists() and time.monotonic() < until:
            time.sleep(0.003)
        self._note("let-go", seen, step=step, want=want)

    def _note(self, what: str, seen: Seen | None = None, *, step: str = "", want: Want | None = None) -> None:
        actor = self._actor
        assert actor is not None
        fields: dict[str, Any] = {"step": step, "hand": actor.hand(), "want": want.id if want else 0}
        plan = actor.plan()
        if seen is not None:
            role, phase, move = seen
            shard, key_range = str(move.shard), move.key_range
            fields |= {"role": role.value, "phase": phase.value, "move": move.id, "shard": shard}
            fields |= {"lo": key_range.lo, "hi": key_range.hi, "source": move.source, "target": move.target}
        elif want is not None:
            fields |= {"role": want.role.value}
        fields["plan"] = plan.version if plan else 0
        mark = Mark(time.monotonic(), actor.name, actor.incarnation, os.getpid(), what, **fields)
        os.write(self._log, json.dumps(asdict(mark)).encode() + b"\n")


_hooks: Hooks | None = None


def in_handler() -> None:
    """User code was called for a record."""
    if _hooks is not None:
        _hooks.in_handler()


def install() -> None:
    """Watch the worker or leader of this process, if a run gave it a folder."""
    global _hooks  # noqa: PLW0603 - one actor per process
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder or _hooks is not None:
        return
    from kstate.coordinator.leader import Leader
    from kstate.worker.worker import Worker

    hooks = _hooks = Hooks(Path(folder))
    faulthandler.register(signal.SIGUSR1)  # the stacks of all threads, into what it prints
    lives, leads = Worker.run, Leader.run

    def live(self: Worker) -> Generator[Any, None, int]:
        return hooks.run(WorkerActor(self), lives(self))

    def lead(self: Leader) -> Generator[Any, None, int]:
        return hooks.run(LeaderActor(self), leads(self))

    Worker.run = live  # type: ignore[method-assign]
    Leader.run = lead  # type: ignore[method-assign]
