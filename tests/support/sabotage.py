"""A worker under the test's control: it writes down every step it takes and, on order, kills or stops itself there.

The worker is the real one, started by the real command. The module with the job under test, which the command
imports, installs this here; it wraps `Worker.run` so that each step passes through our hands. There is no switch for
it in kstate.

    <folder>/events.jsonl       one line per step, of all workers, appended with one write each: a kill loses none
    <folder>/<worker>.order     an order for the worker of that name; it takes it (renames it), then carries it out once
    <folder>/pace               while it is there, handlers take that many seconds per call
    <folder>/hold/<worker>      while it is there, a worker that was ordered to "hang" does not go on
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "KSTATE_TEST_FOLDER"
IN_HANDLER = "in-handler"
"""The pseudo-step within user code: between two records of a batch."""

_UNEVENTFUL = frozenset({"idle", "waiting", "await-control", "await-stable", "await-records"})


class Deed(Enum):
    """What a worker does to itself."""

    KILL = "kill"
    STOP = "stop"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Order:
    """At the n-th time that the worker reaches a step with at least `hand` uncommitted records, it does the deed.

    `delay` seconds pass between reaching the step and the deed, so that what was handed to the client's threads gets
    onto the wire; within it nothing else happens in the worker's own thread.
    """

    at: str
    do: Deed = Deed.KILL
    nth: int = 1
    hand: int = 1
    delay: float = 0.0

    def written(self) -> str:
        return json.dumps({**asdict(self), "do": self.do.value})

    @staticmethod
    def read(text: str) -> Order:
        """The inverse of `written`."""
        fields = json.loads(text)
        return Order(**{**fields, "do": Deed(fields["do"])})


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the event log; `deed` is set on the one written directly before an order is carried out."""

    at: float
    """Monotonic seconds, the same clock in all processes of the machine."""
    worker: str
    incarnation: str
    pid: int
    step: str
    hand: int
    """Records handled and not yet committed and stored."""
    deed: str = ""


class EventLog:
    """The events of all workers, as the test reads them while they are written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"
        self._events: list[Event] = []
        self._position = 0

    def events(self) -> list[Event]:
        """All so far."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._position += len(whole)
            self._events += [Event(**json.loads(line)) for line in whole.splitlines()]
        return self._events


class _Saboteur:
    """In the worker's process: writes events, carries out orders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._worker: Any = None
        self._order: Order | None = None
        self._left = 0
        self._pace = 0.0

    def run(self, worker: Any, steps: Any) -> Generator[Any, None, int]:
        """The worker's own steps, each one noted and compared with the order."""
        self._worker = worker
        self._note("started")
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                self._note(f"ended {end.value}")
                return int(end.value)
            if step.name not in _UNEVENTFUL:
                self._note(step.name)
            self._look()
            self._reached(step.name)
            yield step

    def in_handler(self) -> None:
        """Called by user code for every record."""
        if self._pace:
            time.sleep(self._pace)
        if self._order is not None and self._order.at == IN_HANDLER:
            self._reached(IN_HANDLER)

    @property
    def _name(self) -> str:
        return str(self._worker._session.member.name)

    def _hand(self) -> int:
        return sum(processor.rejects.handled for processor in self._worker._tiles.processors.values())

    def _look(self) -> None:
        """Take a new order and the present pace."""
        path = self._folder / f"{self._name}.order"
        if self._order is None and path.exists():
            taken = path.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
            path.rename(taken)
            self._order = Order.read(taken.read_text())
            self._left = self._order.nth
        pace = self._folder / "pace"
        self._pace = 0.0
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._pace = float(pace.read_text())

    def _reached(self, step: str) -> None:
        order = self._order
        if order is None or order.at != step or self._hand() < order.hand:
            return
        self._left -= 1
        if self._left > 0:
            return
        self._order = None
        time.sleep(order.delay)
        self._note(step, order.do.value)
        match order.do:
            case Deed.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Deed.STOP:
                os.kill(os.getpid(), signal.SIGSTOP)
            case Deed.HANG:
                hold = self._folder / "hold" / self._name
                while hold.exists():
                    time.sleep(0.01)
        self._note(f"after {order.do.value}")

    def _note(self, step: str, deed: str = "") -> None:
        member = self._worker._session.member
        event = Event(time.monotonic(), member.name, member.incarnation, os.getpid(), step, self._hand(), deed)
        os.write(self._log, json.dumps(asdict(event)).encode() + b"\n")


_saboteur: _Saboteur | None = None


def in_handler() -> None:
    """User code was called for a record."""
    if _saboteur is not None:
        _saboteur.in_handler()


def install() -> None:
    """Take control of the workers of this process, if a test gave it a folder."""
    global _saboteur  # noqa: PLW0603 - one worker per process
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder or _saboteur is not None:
        return
    from kstate.worker.worker import Worker

    saboteur = _saboteur = _Saboteur(Path(folder))
    original = Worker.run

    def run(self: Worker) -> Generator[Any, None, int]:
        return saboteur.run(self, original(self))

    Worker.run = run  # type: ignore[method-assign]
