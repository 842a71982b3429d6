"""The supervisor of `kstate run`: a coordinator and workers as child processes, started again when they die.

    running ── a child exits 0, 2, 3, 7 or 8, or a stop is asked for ──▶ workers end ──▶ coordinator ends ──▶ over

Any other exit is a crash: the child is started again, as a new incarnation, after a pause that doubles up to a cap; the
leader is told of the exit at once. The supervisor decides nothing about ownership.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from kstate.clock import Clock, Step, Steps
from kstate.errors import FINAL_EXIT_CODES

WATCH = Step("watching", wait=0.02)
WORKERS_GRACE_S = 5.0
"""How long workers may take to finish their epoch when they are asked to stop."""
COORDINATOR_GRACE_S = 3.0
RESTART_FIRST_S = 0.1
RESTART_CAP_S = 10.0
RESTART_SOON_S = 1.0
"""A pause that the tiles of a dead worker may as well wait for."""
STABLE_S = 30.0
"""A child that ran for so long starts the doubling of pauses anew."""


class Process(Protocol):
    """A child process."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Surroundings(Protocol):
    """What the supervisor does to the world."""

    def spawn(self, name: str) -> tuple[str, Process]:
        """Start a child by its name; its incarnation and the process."""
        ...

    def exited(self, incarnation: str, exit_code: int, *, restarts: bool) -> None:
        """Tell the leader, also whether a successor is started at once."""
        ...

    def say(self, event: str, **fields: object) -> None:
        """Tell people."""
        ...


@dataclass(slots=True)
class _Place:
    """One child and those that came before it under its name."""

    name: str
    process: Process | None = None
    incarnation: str = ""
    started: float = 0.0
    due: float = 0.0
    pause: float = 0.0
    """Seconds waited before the present start."""
    awaited: dict[str, int] = field(default_factory=dict)
    """Incarnations of which the leader was told that a successor comes at once, since one of them ran for long, with
    their exit codes.
    """
    exit_code: int | None = None
    """The final one; it is not started again."""


class Supervisor:
    """Keeps a coordinator and its workers running; `run` ends with the job's exit code and no child left."""

    def __init__(self, coordinator: str, workers: list[str], surroundings: Surroundings, clock: Clock) -> None:
        self._coordinator = _Place(coordinator)
        self._workers = [_Place(name) for name in workers]
        self._surroundings = surroundings
        self._clock = clock
        self._stops = 0

    def stop(self) -> None:
        """Ask for an orderly end; asked a second time, everything is killed."""
        self._stops += 1

    def run(self) -> Steps[int]:
        """Start everything and watch it."""
        try:
            while (code := self._verdict()) is None:
                for place in self._places:
                    self._tend(place)
                yield WATCH
            yield from self._end(self._workers, WORKERS_GRACE_S)
            yield from self._end([self._coordinator], COORDINATOR_GRACE_S)
            return code
        finally:
            for place in self._places:
                if place.process is not None:
                    place.process.kill()

    @property
    def _places(self) -> list[_Place]:
        return [self._coordinator, *self._workers]

    def _verdict(self) -> int | None:
        """The job's exit code once it is over: the first failure, or 0 when it is complete or was asked to stop."""
        codes = [place.exit_code for place in self._places if place.exit_code is not None]
        if failures := [code for code in codes if code]:
            return failures[0]
        complete = self._coordinator.exit_code == 0 or all(place.exit_code == 0 for place in self._workers)
        return 0 if complete or self._stops else None

    def _tend(self, place: _Place) -> None:
        """Start what is to be started, notice what has ended."""
        now = self._clock.monotonic()
        if place.process is None:
            if place.exit_code is None and now >= place.due:
                place.incarnation, place.process = self._surroundings.spawn(place.name)
                place.started = now
                self._surroundings.say("started", name=place.name, pid=place.process.pid)
        elif (code := place.process.poll()) is not None:
            self._ended(place, code, now)

    def _ended(self, place: _Place, code: int, now: float) -> None:
        """A child has ended: it is started again unless its exit code is final."""
        place.process = None
        if code == 0 or code in FINAL_EXIT_CODES:
            place.exit_code = code
            self._surroundings.exited(place.incarnation, code, restarts=False)
            return
        stable = now - place.started >= STABLE_S
        place.pause = RESTART_FIRST_S if stable or not place.pause else min(place.pause * 2, RESTART_CAP_S)
        place.due = now + place.pause
        self._tell_exit(place, code, stable=stable)
        self._surroundings.say("restarting", name=place.name, exit_code=code, after_s=place.pause)

    def _tell_exit(self, place: _Place, code: int, *, stable: bool) -> None:
        """Tell the leader, who lets tiles wait for a successor that comes at once.

        The tiles may still be those of an earlier incarnation: one that dies before it joins never gets them. So once
        the pauses are long, the leader is told again of all that it was told to wait for.
        """
        soon = place.pause <= RESTART_SOON_S
        awaited = {} if stable else place.awaited
        place.awaited = {**awaited, place.incarnation: code} if soon else {}
        if not soon:
            for incarnation, earlier_code in awaited.items():
                self._surroundings.exited(incarnation, earlier_code, restarts=False)
        self._surroundings.exited(place.incarnation, code, restarts=soon)

    def _end(self, places: list[_Place], grace_s: float) -> Steps[None]:
        """End processes in order, and by force when they take too long or a second stop is asked for."""
        for place in places:
            if place.process is not None:
                place.process.terminate()
        deadline = self._clock.monotonic() + grace_s
        while living := [place for place in places if place.process is not None]:
            for place in living:
                assert place.process is not None
                if (code := place.process.poll()) is not None:
                    place.process = None
                    self._surroundings.exited(place.incarnation, code, restarts=False)
                elif self._stops > 1 or self._clock.monotonic() >= deadline:
                    self._surroundings.say("killed", name=place.name, reason="it did not end in time")
                    place.process.kill()
            yield WATCH
