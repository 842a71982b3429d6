"""The processes of a chaos run: candidates for the leadership and workers, each started by the users' command.

Whoever ends is started again under its name, as a new incarnation; the leader is told of an exit at once, as by a
supervisor, or finds out by itself. An exit that nobody asked for is written down.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Producer

from kstate.adapters.process import new_incarnation
from kstate.errors import FencedError
from kstate.messages import Order, ProcessExited
from kstate.plan import reports_topic
from kstate.wire import encode_report
from tests.support.chaos_control import waited
from tests.support.cluster import Cluster, Process, is_running, is_stopped
from tests.support.quiet_stop import stop_quietly

JOB = "tests.support.chaos_job:job"
TAIL_BYTES = 6_000
SOON_S = 0.3


@dataclass(slots=True)
class Player:
    """A name under which one process runs at a time."""

    name: str
    command: str
    """"worker" or "coordinator"."""
    servers: str
    """Where its clients are sent: the broker itself, or a door of it."""
    door: int = -1
    """Number of the proxy before that door, -1: none."""
    process: Process | None = None
    incarnation: str = ""
    due: float | None = None
    """When it is to be started; None: it runs, or is not wanted."""
    starts: int = 0


ENDED = (": nothing: one leader is enough", '"event": "stopped"')
"""What leaders and workers say when others took over and they end: a SIGTERM that meets the interpreter's last moments
kills them.
"""


@dataclass(frozen=True, slots=True)
class Exit:
    """A process that ended without having been killed by us."""

    at: float
    name: str
    incarnation: str
    code: int
    tail: str


@dataclass(slots=True)
class Troupe:
    """All of them; a context manager: at the end none is left."""

    cluster: Cluster
    players: dict[str, Player] = field(default_factory=dict)
    exits: list[Exit] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    """Names whose local store was damaged on purpose: one of their processes may end because of it."""
    _killed: set[int] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _reports: Producer | None = None

    def __enter__(self) -> Troupe:
        self._reports = Producer({"bootstrap.servers": self.cluster.bootstrap_servers, "log_level": 0})
        self._thread = threading.Thread(target=self._tend, name="troupe", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_tending()
        self.cluster.close()

    def stop_tending(self) -> None:
        """Nobody is started again from now on."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10)

    def add(self, player: Player) -> None:
        """Start somebody new."""
        with self._lock:
            self.players[player.name] = player
            self._start(player)

    def named(self, incarnation: str) -> Player | None:
        """Who runs as this incarnation now."""
        return next((p for p in self.players.values() if p.incarnation == incarnation), None)

    def workers(self) -> list[Player]:
        """Those that run."""
        return [p for p in self.players.values() if p.command == "worker" and p.process and p.due is None]

    def coordinators(self) -> list[Player]:
        """Those that run."""
        return [p for p in self.players.values() if p.command == "coordinator" and p.process and p.due is None]

    # -- what is done to them

    def kill(self, player: Player, *, back_s: float) -> float:
        """SIGKILL; returns when the process is gone; it is started again after that many seconds."""
        with self._lock:
            process = player.process
            assert process is not None
            self._killed.add(process.pid)
            player.due = float("inf")
            process.signal(signal.SIGKILL)
        assert waited(lambda: not is_running(process.pid), 10), f"{player.name} does not end"
        process.wait(10)
        gone = time.monotonic()
        player.due = gone + back_s
        return gone

    def freeze(self, player: Player) -> float:
        """SIGSTOP; returns when the process stands still."""
        process = player.process
        assert process is not None
        process.signal(signal.SIGSTOP)
        assert waited(lambda: is_stopped(process.pid) or process.exit_code is not None, 10)
        return time.monotonic()

    def thaw(self, process: Process) -> None:
        """SIGCONT."""
        process.signal(signal.SIGCONT)

    def outlast(self, stop: Callable[[], None]) -> None:
        """The broker is stopped while all of them stand still; nobody is started before it is gone."""
        with self._lock:
            pids = [player.process.pid for player in self.players.values() if player.process is not None]
            stop_quietly(self.cluster.bootstrap_servers, stop, lambda: pids)

    def tell_exit(self, incarnation: str, *, restarts: bool) -> None:
        """What a supervisor tells the leader."""
        self._report(encode_report(ProcessExited(incarnation, -signal.SIGKILL, restarts)))

    def order(self, order: Order) -> None:
        """What the command line sends."""
        self._report(encode_report(order))

    def tail(self, player: Player, size: int = TAIL_BYTES) -> str:
        """What the newest processes of a name printed last."""
        path = self.cluster.folder / f"{player.name}.out"
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace")

    def shut_down(self, seconds: float = 15.0) -> list[Exit]:
        """SIGTERM to all; those that did not end by themselves in time, or with an error."""
        self.stop_tending()
        running = [p for p in self.players.values() if p.process is not None and p.process.exit_code is None]
        for player in running:
            assert player.process is not None
            player.process.signal(signal.SIGTERM)
        waited(lambda: all(p.process is None or p.process.exit_code is not None for p in running), seconds)
        codes = [(p, p.process.exit_code if p.process else 0) for p in running]
        return [
            Exit(time.monotonic(), p.name, p.incarnation, -99 if code is None else code, self.tail(p))
            for p, code in codes
            if code != 0 and not (code == -signal.SIGTERM and any(word in self.tail(p) for word in ENDED))
        ]

    # -- the thread

    def _tend(self) -> None:
        while not self._stopping.wait(0.03):
            with self._lock:
                for player in self.players.values():
                    self._tend_to(player)

    def _tend_to(self, player: Player) -> None:
        now = time.monotonic()
        if player.due is not None:
            if now >= player.due:
                self._start(player)
            return
        process = player.process
        if process is None or process.exit_code is None or process.pid in self._killed:
            return
        code = process.exit_code
        self.exits.append(Exit(now, player.name, player.incarnation, code, _told(self.tail(player))))
        if player.command == "worker" or code != FencedError.exit_code:
            self.tell_exit(player.incarnation, restarts=True)
        player.due = now + SOON_S

    def _start(self, player: Player) -> None:
        player.incarnation = new_incarnation(self.cluster.app, player.name)
        own: Sequence[str] = ("--name", player.name) if player.command == "worker" else ("--workers", "3")
        shared = ("--incarnation", player.incarnation, "--bootstrap", player.servers, "--json")
        player.process = self.cluster.command(player.name, player.command, JOB, *own, *shared)
        player.starts += 1
        player.due = None

    def _report(self, data: bytes) -> None:
        assert self._reports is not None
        self._reports.produce(reports_topic(self.cluster.app), data, partition=0)
        self._reports.poll(0)
        self._reports.flush(2)


def _told(tail: str) -> str:
    """The last lines without the notes about batches."""
    return "\n".join([line for line in tail.splitlines() if '"level": "debug"' not in line][-12:])
